//! What there is to ask: tables, columns and functions, with what they mean. For people; no data is read for it.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::logical_expr::{Documentation, TableType};
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

use super::{CATALOG, SCHEMA, Search, query_error};
use crate::error::{Code, Result};
use crate::event::schema::{self, TableName};

/// A table or view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its name in SQL.
    pub name: String,
    /// Whether it is made from others.
    pub is_view: bool,
    /// What a row is, where that is known.
    pub description: Option<String>,
}

/// A column of a table or view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnOf {
    /// Its name in SQL.
    pub name: String,
    /// What its values are, in the words of docs/sql.md.
    pub kind: String,
    /// Whether a row may lack it.
    pub nullable: bool,
    /// What it tells, where that is known.
    pub description: Option<String>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionOf {
    /// Its name in SQL.
    pub name: String,
    /// `scalar`, `aggregate`, `window` or `table`.
    pub kind: &'static str,
    /// How it is called; empty where nobody wrote it down.
    pub syntax: String,
    /// What it gives, in a sentence; empty where nobody wrote it down.
    pub description: String,
}

impl Search {
    /// The tables and views, by name.
    pub async fn relations(&self) -> Result<Vec<Relation>> {
        let failed = |error| query_error(error, Code::Internal);
        let Some(schema) = self.context.catalog(CATALOG).and_then(|catalog| catalog.schema(SCHEMA)) else {
            return Ok(Vec::new());
        };
        let mut relations = Vec::new();
        for name in schema.table_names() {
            let kind = schema.table_type(&name).await.map_err(failed)?;
            let table = TableName::ALL.into_iter().find(|table| table.as_str() == name);
            relations.push(Relation {
                is_view: kind == Some(TableType::View),
                description: table.map(|table| schema::table(table).description.clone()),
                name,
            });
        }
        relations.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(relations)
    }

    /// The tables and views, by name, with their columns; the metadata [`COMMENT`](schema::COMMENT) of a column describes it.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn tables(&self) -> Result<Vec<(Relation, SchemaRef)>> {
        let mut tables = Vec::new();
        for relation in self.relations().await? {
            let columns = SchemaRef::clone(self.table(&relation.name).await?.schema().inner());
            tables.push((relation, columns));
        }
        Ok(tables)
    }

    /// The columns of a table or view, in their order.
    ///
    /// # Errors
    /// `query-invalid` when there is none of that name; `lake-unavailable`, `lake-damaged`.
    pub async fn columns(&self, relation: &str) -> Result<Vec<ColumnOf>> {
        let frame = self.table(relation).await?;
        let columns = frame.schema().fields().iter().map(|field| ColumnOf {
            name: field.name().clone(),
            kind: kind(field.data_type()),
            nullable: field.is_nullable(),
            description: field.metadata().get(schema::COMMENT).cloned(),
        });
        Ok(columns.collect())
    }

    /// The functions, by name. Other names of a function are left out.
    pub fn functions(&self) -> Vec<FunctionOf> {
        let state = self.context.state();
        let mut functions = BTreeMap::new();
        let mut add = |name: &str, kind, documentation: Option<&Documentation>| {
            let first = |text: &str| text.split("\n\n").next().unwrap_or_default().replace('\n', " ").trim().to_owned();
            functions.entry((name.to_owned(), kind)).or_insert_with(|| FunctionOf {
                name: name.to_owned(),
                kind,
                syntax: documentation.map(|about| first(&about.syntax_example)).unwrap_or_default(),
                description: documentation.map(|about| first(&about.description)).unwrap_or_default(),
            });
        };
        for function in state.scalar_functions().values() {
            add(function.name(), "scalar", function.documentation());
        }
        for function in state.aggregate_functions().values() {
            add(function.name(), "aggregate", function.documentation());
        }
        for function in state.window_functions().values() {
            add(function.name(), "window", function.documentation());
        }
        for name in state.table_functions().keys() {
            add(name, "table", None);
        }
        functions.into_values().collect()
    }
}

/// Every word that the parser knows, upper-case.
pub fn keywords() -> &'static [&'static str] {
    ALL_KEYWORDS
}

/// A type in the words of docs/sql.md, and in Arrow's where that page has none.
fn kind(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => "timestamp".to_owned(),
        DataType::List(element) | DataType::LargeList(element) => format!("list<{}>", kind(element.data_type())),
        DataType::Dictionary(_, value) => kind(value),
        other => other.to_string().to_lowercase(),
    }
}
