//! Which data files have exactly the table's columns.
//!
//! A file of an older Waybill may lack columns, so that DataFusion reads the schema which each file carries, for each question
//! anew, and fits every expression to it. Of a file whose footer is in the cache anyway it is known whether there is anything
//! to fit; of those that are alike the scan is told the schema beforehand.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion_datasource_parquet::CachedParquetMetaData;
use object_store::path::Path;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::ParquetMetaData;

/// The files whose footers were looked at, and whether their columns are the table's.
#[derive(Debug, Default)]
pub(super) struct Footers {
    are_alike: Mutex<HashMap<Path, bool>>,
}

impl Footers {
    /// Tells the scan the schema of the files that have it.
    pub(super) fn tell(&self, files: &mut [PartitionedFile], schema: &SchemaRef, cache: &FileMetadataCache) {
        let mut are_alike = self.are_alike.lock().unwrap_or_else(PoisonError::into_inner);
        for file in files {
            let path = &file.object_meta.location;
            let is_alike = are_alike.get(path).copied().or_else(|| {
                let footer = cache.get(path)?;
                let footer = footer.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>()?;
                let is_alike = is_alike(schema, footer.parquet_metadata());
                are_alike.insert(path.clone(), is_alike);
                Some(is_alike)
            });
            if is_alike == Some(true) {
                file.arrow_schema = Some(SchemaRef::clone(schema));
            }
        }
    }
}

/// Whether a file has these columns in this order, and no others.
fn is_alike(schema: &Schema, footer: &ParquetMetaData) -> bool {
    let footer = footer.file_metadata();
    let Ok(file) = parquet_to_arrow_schema(footer.schema_descr(), footer.key_value_metadata()) else { return false };
    let mut pairs = schema.fields().iter().zip(file.fields());
    schema.fields().len() == file.fields().len()
        && pairs.all(|(wanted, is)| {
            wanted.name() == is.name()
                && wanted.is_nullable() == is.is_nullable()
                && wanted.data_type() == is.data_type()
        })
}
