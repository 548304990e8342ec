//! Where the bloom filters of a data file are, as a tag of the file in the log.
//!
//! A bloom filter of Parquet consists of blocks of 32 bytes, and a value concerns one of them. Who knows where the filters
//! are reads that block and nothing else; otherwise a look-up reads the footer of each file first, which is as large as all of
//! its blocks together. The Delta protocol lets a writer tag a file, and other readers pass over tags that they do not know
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-file-and-remove-file>).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use serde::{Deserialize, Serialize};

use crate::event::schema::Table;

/// The tag's key in the log.
const TAG: &str = "waybill.bloom_filters";

/// Where the blocks of a file's bloom filters are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BloomPlaces {
    /// Bytes of the file, by which a tag is known that another writer copied to another file.
    size: u64,
    /// By column; the first byte and the number of bytes of each row group's filter, or nothing where it has none.
    columns: BTreeMap<String, Vec<Option<(u64, u64)>>>,
}

impl BloomPlaces {
    /// Those of a file that Waybill wrote: the number of blocks of its filters is a power of two.
    pub(super) fn of(definition: &Table, size: u64, metadata: &ParquetMetaData) -> Self {
        let leaves = metadata.file_metadata().schema_descr().columns();
        let columns = definition.columns.iter().filter(|column| column.bloom).filter_map(|column| {
            let leaf = leaves.iter().position(|leaf| leaf.path().string() == column.name)?;
            let places = metadata.row_groups().iter().map(|row_group| place(row_group.column(leaf))).collect();
            Some((column.name.clone(), places))
        });
        Self { size, columns: columns.collect() }
    }

    /// The tag that says so.
    pub(super) fn tag(&self) -> Option<(String, Option<String>)> {
        Some((TAG.to_owned(), Some(serde_json::to_string(self).ok()?)))
    }

    /// What the tags of a file of `size` bytes say; nothing when another writer made it.
    pub(super) fn of_tags(tags: Option<&HashMap<String, Option<String>>>, size: u64) -> Option<Self> {
        let places: Self = serde_json::from_str(tags?.get(TAG)?.as_deref()?).ok()?;
        (places.size == size).then_some(places)
    }

    /// The bytes of a column's filters, one for each row group; nothing when the column has none.
    pub fn of_column(&self, column: &str) -> Option<Vec<Option<Range<u64>>>> {
        let places = self.columns.get(column)?;
        Some(places.iter().map(|place| place.map(|(first, bytes)| first..first + bytes)).collect())
    }
}

/// The first byte and the number of bytes of the blocks. Before them is a header of some bytes, fewer than one block has.
fn place(chunk: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let (offset, length) = (chunk.bloom_filter_offset()?, chunk.bloom_filter_length()?);
    let (offset, length) = (u64::try_from(offset).ok()?, u64::try_from(length).ok().filter(|length| *length > 0)?);
    let bytes = 1 << length.ilog2();
    Some((offset + length - bytes, bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::bloom_filter::Sbbf;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    use super::*;
    use crate::event::schema::{TableName, table};
    use crate::lake::parquet::writer_properties;

    #[test]
    fn a_filter_begins_after_its_header_whatever_its_size() {
        for rows in [1, 100, 3_000, 70_000] {
            let values: StringArray = (0..rows).map(|n| Some(format!("{n:064x}"))).collect();
            let batch = RecordBatch::try_from_iter([("sha256", Arc::new(values) as _)]).unwrap();
            let mut file = Vec::new();
            let properties = writer_properties(table(TableName::FileEvents), rows);
            let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let file = Bytes::from(file);
            let reader = SerializedFileReader::new(file.clone()).unwrap();
            let metadata = reader.metadata();
            let places = BloomPlaces::of(table(TableName::FileEvents), 7, metadata);
            let (key, value) = places.tag().unwrap();
            let tags = HashMap::from([(key, value)]);
            assert_eq!(BloomPlaces::of_tags(Some(&tags), 7), Some(places.clone()));
            assert_eq!(BloomPlaces::of_tags(Some(&tags), 8), None);
            let places = places.of_column("sha256").unwrap();
            assert_eq!(places.len(), metadata.num_row_groups());
            for (place, row_group) in places.into_iter().zip(metadata.row_groups()) {
                let chunk = row_group.column(0);
                let offset = chunk.bloom_filter_offset().unwrap() as usize;
                let length = chunk.bloom_filter_length().unwrap() as usize;
                let whole = Sbbf::from_bytes(&file[offset..offset + length]).unwrap();
                let place = place.unwrap();
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                Sbbf::new(&file[place.start as usize..place.end as usize]).write_bitset(&mut ours).unwrap();
                whole.write_bitset(&mut theirs).unwrap();
                assert_eq!(ours, theirs, "{rows} rows");
            }
        }
    }
}
