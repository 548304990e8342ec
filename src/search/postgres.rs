//! What clients of Postgres look for in a database: the tables of `pg_catalog`, its functions, and its dialect.
//!
//! Tools ask these before they show anything. They are answered from the session's own catalog, so that they show what may
//! be seen and nothing else; most of it is the work of `datafusion-pg-catalog`, and here is what that lacks: the
//! descriptions of tables and columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;

use super::{CATALOG, SCHEMA, Search, query_error};
use crate::error::{Code, Result};
use crate::event::schema::COMMENT;

/// The version of Postgres whose dialect and catalog clients may expect.
pub const POSTGRES_VERSION: &str = "16.6 (Waybill)";

/// What clients ask about the server's settings, and the only answer.
pub const POSTGRES_SETTINGS: [(&str, &str); 22] = [
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, YMD"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", POSTGRES_VERSION),
    ("server_version_num", "160006"),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "on"),
];

/// The schema's name.
const PG_CATALOG: &str = "pg_catalog";

/// `pg_class` as `pg_description` names it: its number in every Postgres.
const PG_CLASS: i32 = 1259;

impl Search {
    /// The same session with what clients of Postgres look for.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`; `internal` when the catalog cannot be set up.
    pub async fn for_postgres(self) -> Result<Self> {
        let failed = |error: DataFusionError| query_error(error, Code::Internal);
        let context = &self.context;
        setup_pg_catalog(context, CATALOG, EmptyContextProvider).map_err(|error| failed(*error))?;
        {
            let state = context.state_ref();
            state.write().config_mut().options_mut().sql_parser.dialect =
                datafusion::common::config::Dialect::PostgreSQL;
        }
        let described = Arc::new(self.descriptions().await?);
        for (name, second) in [("col_description", Second::Column), ("obj_description", Second::Catalog)] {
            context.register_udf(described.function(name, second));
        }
        // What a view is made of is not SQL.
        context.register_udf(constant("pg_get_viewdef", vec![DataType::Int64, DataType::Boolean], Answer::Nothing));
        let version = format!("PostgreSQL {POSTGRES_VERSION}");
        context.register_udf(constant("version", Vec::new(), Answer::Text(version)));
        // Types of others, such as those of extensions, are not here.
        context.register_udf(constant("to_regtype", vec![DataType::Utf8], Answer::Unknown));
        context.register_udf(constant("pg_database_size", vec![DataType::Utf8], Answer::Zero));
        context.register_udf(current_setting());
        for (name, answer) in ANSWERS {
            context.register_udf(constant(name, vec![DataType::Int64], answer));
        }
        context.register_udf(Arc::new(Descriptions::default()).function("shobj_description", Second::Catalog));
        let catalog = context.catalog(CATALOG);
        if let Some((catalog, inner)) =
            catalog.and_then(|catalog| Some((Arc::clone(&catalog), catalog.schema(PG_CATALOG)?)))
        {
            let schema = Arc::new(PgSchema { inner, descriptions: described.table().map_err(failed)? });
            CatalogProvider::register_schema(catalog.as_ref(), PG_CATALOG, schema).map_err(failed)?;
        }
        Ok(self)
    }

    /// The descriptions of tables and columns by their numbers in `pg_class`.
    async fn descriptions(&self) -> Result<Descriptions> {
        let numbers = numbers(&self.context).await.map_err(|error| query_error(error, Code::Internal))?;
        let mut texts = HashMap::new();
        for (table, columns) in self.tables().await? {
            let Some(number) = numbers.get(&table.name) else { continue };
            texts.extend(table.description.map(|text| ((*number, 0), text)));
            for (field, place) in columns.fields().iter().zip(1..) {
                texts.extend(field.metadata().get(COMMENT).map(|text| ((*number, place), text.clone())));
            }
        }
        Ok(Descriptions { texts })
    }
}

/// `current_setting(name)`: empty for what there is no such setting of.
fn current_setting() -> datafusion::logical_expr::ScalarUDF {
    let answer = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let value = |name: Option<&str>| {
            let name = name?.to_lowercase();
            let known = POSTGRES_SETTINGS.iter().find(|(known, _)| *known == name);
            Some(known.map_or("", |(_, value)| *value))
        };
        let values: StringArray = arrays.iter().flat_map(|names| names.as_string::<i32>().iter()).map(value).collect();
        Ok(ColumnarValue::Array(Arc::new(values)))
    };
    create_udf("current_setting", vec![DataType::Utf8], DataType::Utf8, Volatility::Stable, Arc::new(answer))
}

/// Functions of one number that have the same answer for each.
const ANSWERS: [(&str, Answer); 17] = [
    ("pg_function_is_visible", Answer::Yes),
    ("pg_type_is_visible", Answer::Yes),
    ("pg_operator_is_visible", Answer::Yes),
    ("pg_collation_is_visible", Answer::Yes),
    ("pg_conversion_is_visible", Answer::Yes),
    ("pg_opclass_is_visible", Answer::Yes),
    ("pg_opfamily_is_visible", Answer::Yes),
    ("pg_ts_config_is_visible", Answer::Yes),
    ("pg_ts_dict_is_visible", Answer::Yes),
    ("pg_ts_parser_is_visible", Answer::Yes),
    ("pg_ts_template_is_visible", Answer::Yes),
    ("pg_get_function_result", Answer::Nothing),
    ("pg_get_function_arguments", Answer::Nothing),
    ("pg_get_function_identity_arguments", Answer::Nothing),
    ("pg_tablespace_location", Answer::Nothing),
    // Sizes are not known to the catalog, as the files are the lake's.
    ("pg_size_pretty", Answer::Nothing),
    ("pg_table_size", Answer::Zero),
];

/// The one answer of a function.
enum Answer {
    Yes,
    Nothing,
    Zero,
    Text(String),
    /// The number of nothing.
    Unknown,
}

fn constant(name: &str, arguments: Vec<DataType>, answer: Answer) -> datafusion::logical_expr::ScalarUDF {
    let value = match answer {
        Answer::Yes => ScalarValue::Boolean(Some(true)),
        Answer::Nothing => ScalarValue::Utf8(Some(String::new())),
        Answer::Zero => ScalarValue::Int64(Some(0)),
        Answer::Unknown => ScalarValue::Int32(None),
        Answer::Text(text) => ScalarValue::Utf8(Some(text)),
    };
    let kind = value.data_type();
    let answer = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
    create_udf(name, arguments, kind, Volatility::Stable, Arc::new(answer))
}

/// The numbers of the tables in the schema of the lake.
async fn numbers(context: &SessionContext) -> PlanResult<HashMap<String, i32>> {
    let statement = format!(
        "SELECT c.oid, c.relname FROM {PG_CATALOG}.pg_class c JOIN {PG_CATALOG}.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = '{SCHEMA}'"
    );
    let mut numbers = HashMap::new();
    for batch in context.sql(&statement).await?.collect().await? {
        let names = arrow::compute::cast(batch.column(1), &DataType::Utf8)?;
        let oids = arrow::compute::cast(batch.column(0), &DataType::Int32)?;
        for (name, number) in names.as_string::<i32>().iter().zip(oids.as_primitive::<Int32Type>()) {
            numbers.extend(name.map(str::to_owned).zip(number));
        }
    }
    Ok(numbers)
}

/// What tables (place 0) and columns (from 1 on) mean.
#[derive(Debug, Default)]
struct Descriptions {
    texts: HashMap<(i32, i32), String>,
}

/// What the second argument of a function of descriptions is.
#[derive(Clone, Copy)]
enum Second {
    /// A column's place.
    Column,
    /// The name of a catalog, such as `pg_class`.
    Catalog,
}

impl Descriptions {
    /// `pg_description`.
    fn table(&self) -> PlanResult<Arc<dyn TableProvider>> {
        let (mut objects, mut places, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for ((object, place), text) in &self.texts {
            objects.push(*object);
            places.push(*place);
            texts.push(text.as_str());
        }
        let field = |name, kind| Field::new(name, kind, false);
        let schema = Arc::new(Schema::new(vec![
            field("objoid", DataType::Int32),
            field("classoid", DataType::Int32),
            field("objsubid", DataType::Int32),
            field("description", DataType::Utf8),
        ]));
        let classes = Int32Array::from(vec![PG_CLASS; objects.len()]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(objects)),
            Arc::new(classes),
            Arc::new(Int32Array::from(places)),
            Arc::new(StringArray::from(texts)),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }

    /// `col_description(oid, place)` or `obj_description(oid, catalog)`.
    fn function(self: &Arc<Self>, name: &str, second: Second) -> datafusion::logical_expr::ScalarUDF {
        let descriptions = Arc::clone(self);
        let kind = match second {
            Second::Column => DataType::Int64,
            Second::Catalog => DataType::Utf8,
        };
        let describe = move |arguments: &[ColumnarValue]| {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let [objects, seconds] = arrays.as_slice() else {
                return Err(DataFusionError::Execution("a description takes two arguments".to_owned()));
            };
            let objects = objects.as_primitive::<Int64Type>();
            let text = |row: usize| {
                let object = i32::try_from(objects.is_valid(row).then(|| objects.value(row))?).ok()?;
                let place = match second {
                    Second::Column if seconds.is_null(row) => return None,
                    Second::Column => i32::try_from(seconds.as_primitive::<Int64Type>().value(row)).ok()?,
                    Second::Catalog => 0,
                };
                descriptions.texts.get(&(object, place)).map(String::as_str)
            };
            let texts: StringArray = (0..objects.len()).map(text).collect();
            Ok(ColumnarValue::Array(Arc::new(texts)))
        };
        create_udf(name, vec![DataType::Int64, kind], DataType::Utf8, Volatility::Stable, Arc::new(describe))
    }
}

/// `pg_catalog` with descriptions.
#[derive(Debug)]
struct PgSchema {
    inner: Arc<dyn SchemaProvider>,
    descriptions: Arc<dyn TableProvider>,
}

#[async_trait]
impl SchemaProvider for PgSchema {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        match name {
            "pg_description" => Ok(Some(Arc::clone(&self.descriptions))),
            name => self.inner.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }
}
