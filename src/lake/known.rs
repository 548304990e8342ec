//! What a table has already, for whoever need not ask for it again.

use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use chrono::NaiveDate;
use futures::TryStreamExt as _;

use super::table::Table;
use crate::error::{Code, Result, ResultExt};

impl Table {
    /// The values of a column of texts or of lists of texts, of one day or of all. Reads only that column.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn texts(&self, column: &str, day: Option<NaiveDate>) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        let files = match day {
            Some(day) => self.files_of(&[day].into()).await?,
            None => self.files().await?,
        };
        for file in files {
            let doing = || format!("cannot read `{}` of `{}`", file.path, self.name());
            let mut stream = self.read(&file, Some(&[column])).await?;
            while let Some(rows) = stream.try_next().await? {
                // A file from before the column was added has none.
                let Some(values) = rows.column_by_name(column) else { continue };
                let values = values.as_list_opt::<i32>().map_or(values, |lists| lists.values());
                let values = cast(values, &DataType::Utf8).or_error(Code::LakeDamaged, doing())?;
                texts.extend(values.as_string::<i32>().iter().flatten().map(str::to_owned));
            }
        }
        Ok(texts)
    }
}
