//! `schemas/*.json` → Arrow. The files are the contract with every user, and the only place that names a column's type.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Deserialize;

/// Key of a field's metadata under which Delta readers look for the description.
pub const COMMENT: &str = "comment";

/// Name of a list's element in Delta's own Arrow schema; ours must not differ, or a batch would not fit the table.
const ELEMENT: &str = "element";

/// A table of the lake, in the order in which people meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableName {
    /// One row per attachment of a sent message.
    FileEvents,
    /// One row per run.
    Runs,
    /// What could not be read.
    Gaps,
    /// What could not be understood.
    Quarantine,
    /// What was done to connections, and what became of them.
    Changes,
    /// Who was monitored.
    ScopeMembers,
    /// Who asked what.
    Searches,
}

impl TableName {
    /// Every table.
    pub const ALL: [Self; 7] =
        [Self::FileEvents, Self::Runs, Self::Gaps, Self::Quarantine, Self::Changes, Self::ScopeMembers, Self::Searches];

    /// Its name in SQL, and the folder below the lake's root.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileEvents => "file_events",
            Self::Runs => "runs",
            Self::Gaps => "gaps",
            Self::Quarantine => "quarantine",
            Self::Changes => "changes",
            Self::ScopeMembers => "scope_members",
            Self::Searches => "searches",
        }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A table's contract.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name in SQL.
    pub name: String,
    /// What a row is, one sentence.
    pub description: String,
    /// The columns by whose values the files are kept apart.
    pub partition_by: Vec<String>,
    /// The columns, the searchable first.
    pub columns: Vec<Column>,
    /// Made once from the columns.
    #[serde(skip)]
    arrow: Option<SchemaRef>,
}

/// A column's contract.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name, snake_case, for ever.
    pub name: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether a row may lack it.
    pub nullable: bool,
    /// What it tells, one sentence, with unit and source.
    pub description: String,
    /// Whether files carry a bloom filter for it.
    #[serde(default)]
    pub bloom: bool,
}

/// The types that our tables use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// UTF-8 text.
    String,
    /// A signed whole number.
    Int64,
    /// True or false.
    Boolean,
    /// A point in time, UTC, microseconds.
    Timestamp,
    /// A day, UTC.
    Date,
    /// A list of texts.
    #[serde(rename = "list<string>")]
    StringList,
}

impl ColumnType {
    /// Arrow's word for it, as Delta gives it back.
    pub fn arrow(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Int64 => DataType::Int64,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::StringList => DataType::List(list_element()),
        }
    }
}

/// The field of a list's elements.
pub(crate) fn list_element() -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, DataType::Utf8, true))
}

impl Table {
    /// The Arrow schema, with the descriptions in the fields' metadata under [`COMMENT`].
    pub fn arrow_schema(&self) -> SchemaRef {
        self.arrow.clone().unwrap_or_else(|| self.make_arrow_schema())
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn make_arrow_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|column| {
            let comment = HashMap::from([(COMMENT.to_owned(), column.description.clone())]);
            Field::new(&column.name, column.kind.arrow(), column.nullable).with_metadata(comment)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn parse(json: &str) -> Self {
        let mut table: Self = serde_json::from_str(json).expect("the embedded schemas are read by a test");
        table.arrow = Some(table.make_arrow_schema());
        table
    }
}

/// The contract of a table.
pub fn table(name: TableName) -> &'static Table {
    static TABLES: LazyLock<[Table; 7]> = LazyLock::new(|| {
        [
            Table::parse(include_str!("../../schemas/file_events.json")),
            Table::parse(include_str!("../../schemas/runs.json")),
            Table::parse(include_str!("../../schemas/gaps.json")),
            Table::parse(include_str!("../../schemas/quarantine.json")),
            Table::parse(include_str!("../../schemas/changes.json")),
            Table::parse(include_str!("../../schemas/scope_members.json")),
            Table::parse(include_str!("../../schemas/searches.json")),
        ]
    });
    match name {
        TableName::FileEvents => &TABLES[0],
        TableName::Runs => &TABLES[1],
        TableName::Gaps => &TABLES[2],
        TableName::Quarantine => &TABLES[3],
        TableName::Changes => &TABLES[4],
        TableName::ScopeMembers => &TABLES[5],
        TableName::Searches => &TABLES[6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_whole() {
        for name in TableName::ALL {
            let table = table(name);
            assert_eq!(table.name, name.as_str());
            let mut names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.columns.len(), "{name} names a column twice");
            for column in &table.columns {
                let is_snake = column.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                assert!(is_snake, "{name}.{}", column.name);
                let text = &column.description;
                assert!(text.ends_with('.') && text.len() > 10, "{name}.{} needs a sentence", column.name);
            }
            for partition in &table.partition_by {
                let column = table.column(partition).expect("a partition is a column");
                assert_eq!((column.kind, column.nullable), (ColumnType::Date, false));
            }
        }
    }

    #[test]
    fn descriptions_reach_the_arrow_schema() {
        for name in TableName::ALL {
            for (field, column) in table(name).arrow_schema().fields().iter().zip(&table(name).columns) {
                assert_eq!(field.metadata()[COMMENT], column.description);
            }
        }
    }

    /// Delta keeps statistics for the first 32 columns: whoever filters by these must not read every file.
    #[test]
    fn what_people_search_comes_first() {
        let columns = &table(TableName::FileEvents).columns;
        for name in ["observed_at", "inserted_at", "sha256", "md5", "file_name", "sender", "subject", "mailbox"] {
            assert!(columns.iter().position(|column| column.name == name).is_some_and(|place| place < 32), "{name}");
        }
        let bloom: Vec<&str> = columns.iter().filter(|c| c.bloom).map(|c| c.name.as_str()).collect();
        assert_eq!(bloom, ["event_id", "sha256", "md5", "internet_message_id"]);
    }
}
