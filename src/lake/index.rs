//! Which events the table has, for the days that a commit touches: what makes a row single.
//!
//! Only those days' files are read, only their `event_id` column, and each file once; of the files that a writer adds it
//! knows the ids already. A file's ids are a sorted list of 16 bytes for each: nothing is hashed, no room is kept for more,
//! and the ids of a commit find theirs in one walk along both lists. A run over a week holds the days that it is at, since
//! those that it has left are forgotten; a row that comes late has its day read again.

use std::collections::{HashMap, HashSet};

use arrow::array::{AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use chrono::NaiveDate;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;

use super::table::{DataFile, Table};
use crate::error::{Code, Error, Result};
use crate::id::Id;
use crate::limits;

/// What is known of a table's files.
pub(super) struct Index {
    files: HashMap<Path, File>,
    /// Ids that are held at most before days are forgotten that nobody asks about.
    most: usize,
    /// Numbers the times that it was asked, so that what nobody needs is known.
    asked: u64,
}

struct File {
    date: Option<NaiveDate>,
    /// Sorted.
    ids: Vec<Id>,
    last_asked: u64,
}

impl Index {
    /// One that knows nothing yet and holds `most` ids, or as many as one commit needs.
    pub(super) fn new(most: usize) -> Self {
        Self { files: HashMap::new(), most, asked: 0 }
    }

    /// Reads what is not known of these files: all that the table's open version has of some days.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub(super) async fn cover(&mut self, table: &Table, files: &[DataFile]) -> Result<()> {
        self.asked += 1;
        let active: HashSet<&Path> = files.iter().map(|file| &file.path).collect();
        let dates: HashSet<Option<NaiveDate>> = files.iter().map(|file| file.date).collect();
        // A file of these days that is no part of them any more was rewritten or merged.
        self.files.retain(|path, file| active.contains(path) || !dates.contains(&file.date));
        let mut reading = Vec::new();
        for file in files {
            match self.files.get_mut(&file.path) {
                Some(known) => known.last_asked = self.asked,
                None => reading.push(async move { Ok((file, read(table, file).await?)) }),
            }
        }
        let mut files_read = stream::iter(reading).buffer_unordered(limits::FILES_INDEXED_AT_ONCE);
        while let Some((file, ids)) = files_read.try_next().await? {
            self.add(file.path.clone(), file.date, ids);
        }
        self.forget();
        Ok(())
    }

    /// Takes over what a file holds.
    pub(super) fn add(&mut self, path: Path, date: Option<NaiveDate>, mut ids: Vec<Id>) {
        ids.sort_unstable();
        ids.shrink_to_fit();
        self.files.insert(path, File { date, ids, last_asked: self.asked });
    }

    /// The ids of a file's rows, sorted; none of a file that was not covered.
    pub(super) fn ids(&self, path: &Path) -> &[Id] {
        self.files.get(path).map(|file| file.ids.as_slice()).unwrap_or_default()
    }

    /// Which of these events are in these files, which were covered before, and in which.
    pub(super) fn find<'a>(
        &self,
        files: &'a [DataFile],
        events: impl Iterator<Item = Id>,
    ) -> HashMap<Id, &'a DataFile> {
        let mut wanted: Vec<Id> = events.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found = HashMap::new();
        for file in files {
            let mut known = self.ids(&file.path).iter().peekable();
            for event in &wanted {
                while known.next_if(|id| *id < event).is_some() {}
                if known.peek() == Some(&event) {
                    found.insert(*event, file);
                }
            }
        }
        found
    }

    /// Forgets days that the last commit did not touch, the longest untouched first, until the rest has room.
    fn forget(&mut self) {
        let mut held: usize = self.files.values().map(|file| file.ids.len()).sum();
        while held > self.most {
            let oldest =
                self.files.values().filter(|file| file.last_asked < self.asked).min_by_key(|file| file.last_asked);
            let Some(date) = oldest.map(|file| file.date) else { return };
            self.files.retain(|_, file| {
                let stays = file.date != date || file.last_asked == self.asked;
                held -= if stays { 0 } else { file.ids.len() };
                stays
            });
        }
    }
}

/// The ids of a file's rows.
async fn read(table: &Table, file: &DataFile) -> Result<Vec<Id>> {
    let mut ids = Vec::new();
    let mut stream = table.read(file, Some(&["event_id"])).await?;
    while let Some(rows) = stream.try_next().await? {
        for id in &event_ids(&rows)? {
            ids.push(Id::of(id.unwrap_or_default()));
        }
    }
    Ok(ids)
}

/// The ids of rows as the table has them.
pub(super) fn event_ids(rows: &RecordBatch) -> Result<StringArray> {
    let damaged = || Error::new(Code::LakeDamaged, "a file of `file_events` has no readable `event_id`");
    let column = cast(rows.column_by_name("event_id").ok_or_else(damaged)?, &DataType::Utf8).map_err(|_| damaged())?;
    Ok(column.as_string::<i32>().clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use deltalake_core::kernel::Remove;
    use proptest::prelude::*;

    use super::*;

    fn day(number: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, 1).unwrap() + chrono::Days::new(number.into())
    }

    fn file(number: usize, date: NaiveDate) -> DataFile {
        let path = Path::from(format!("event_date={date}/{number}.parquet"));
        let remove = Remove {
            path: path.to_string(),
            data_change: true,
            deletion_timestamp: None,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
        };
        DataFile { path, size: 1, date: Some(date), stats: None, bloom_places: None, remove }
    }

    fn id(number: u32) -> Id {
        Id::of(&number.to_string())
    }

    proptest! {
        /// A map is the judge: whatever is asked of whichever files, an event is found in the file that has it and nowhere else.
        #[test]
        fn an_event_is_found_where_it_is_and_nowhere_else(
            held in proptest::collection::btree_map(0_u32..300, 0_usize..6, 0..200),
            asked in proptest::collection::vec(0_u32..300, 0..60),
            covered in proptest::collection::vec(any::<bool>(), 6),
        ) {
            let files: Vec<DataFile> = (0..6).map(|number| file(number, day(number as u32 % 3))).collect();
            let mut index = Index::new(1_000);
            for (number, file) in files.iter().enumerate() {
                let ids = held.iter().filter(|(_, place)| **place == number).map(|(event, _)| id(*event)).collect();
                index.add(file.path.clone(), file.date, ids);
            }
            let files: Vec<DataFile> =
                files.into_iter().zip(&covered).filter(|(_, is_covered)| **is_covered).map(|(file, _)| file).collect();
            let found: BTreeMap<Id, Path> =
                index.find(&files, asked.iter().map(|event| id(*event))).into_iter().map(|(id, file)| (id, file.path.clone())).collect();
            let expected: BTreeMap<Id, Path> = asked
                .iter()
                .filter_map(|event| held.get(event).map(|place| (id(*event), file(*place, day(*place as u32 % 3)).path)))
                .filter(|(_, path)| files.iter().any(|file| file.path == *path))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn days_that_nobody_asks_about_are_forgotten_when_there_is_no_room() {
        let mut index = Index::new(100);
        for number in 0..5 {
            index.asked += 1;
            let file = file(number as usize, day(number));
            index.add(file.path, file.date, (number * 100..number * 100 + 40).map(id).collect());
            index.forget();
        }
        let held: Vec<usize> = (0..5).map(|number| index.ids(&file(number as usize, day(number)).path).len()).collect();
        assert_eq!(held, [0, 0, 0, 40, 40]);

        // What one commit needs stays, however much it is.
        let large = file(9, day(9));
        index.asked += 1;
        index.add(large.path.clone(), large.date, (1_000..1_500).map(id).collect());
        index.forget();
        assert_eq!(index.ids(&large.path).len(), 500);
        assert_eq!(index.files.len(), 1);
    }
}
