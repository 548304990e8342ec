//! Rows → Parquet: how a data file is laid out, so that searches read little of it.
//!
//! zstd; bloom filters on the columns that people look up by equality; a page index on all, so that a reader skips
//! pages; row groups small enough that a filter on sorted rows skips most of a merged file.

use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::event::schema::Table;

/// Rows per row group: about 30 MB uncompressed; a hash look-up that a bloom filter cannot answer reads one of these.
const ROW_GROUP_ROWS: usize = 64 * 1024;

/// Rows per page: the unit that the page index lets a reader skip.
const PAGE_ROWS: usize = 4 * 1024;

/// False positives of a bloom filter: one in 10,000 costs four bytes a value. A year of 100 million rows has 1,800 row groups, so
/// that one in 600, which is what half the size was seen to give, makes a look-up read three of them for nothing.
const BLOOM_FALSE_POSITIVES: f64 = 0.0001;

/// The layout of a file of about `rows` rows; bloom filters are sized by that number, since an hourly file is small.
pub(super) fn writer_properties(definition: &Table, rows: usize) -> WriterProperties {
    let distinct = rows.clamp(64, ROW_GROUP_ROWS) as u64;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level of zstd")))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("waybill ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in definition.columns.iter().filter(|column| column.bloom) {
        let path = ColumnPath::from(column.name.as_str());
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), BLOOM_FALSE_POSITIVES)
            .set_column_bloom_filter_max_ndv(path.clone(), distinct)
            // Ids and hashes do not repeat: a dictionary would be the column written twice.
            .set_column_dictionary_enabled(path, false);
    }
    properties.build()
}
