//! Rows → the bytes of one file.

use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::json;

use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::search::csv;

/// Bytes of a Parquet page before compression, and rows of a row group. Amazon Security Lake asks for pages of 1 MB, zstd,
/// and row groups of at most 256 MB, which so many events stay below.
const PAGE_BYTES: usize = 1024 * 1024;
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated with a header, safe to open in a spreadsheet.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Parquet with zstd.
    Parquet,
    /// The same, in the log of a Delta table.
    Delta,
}

impl Format {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Delta => "delta",
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Parquet | Self::Delta => "zst.parquet",
            other => other.as_str(),
        }
    }
}

/// A file in memory.
pub(super) enum Encoder {
    Csv(Vec<u8>),
    Ndjson(Vec<u8>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Encoder {
    /// Begins a file with the columns of a batch.
    pub(super) fn new(format: Format, like: &RecordBatch) -> Result<Self> {
        let schema = like.schema();
        Ok(match format {
            Format::Csv => Self::Csv(csv::header(schema.fields().iter().map(|field| field.name().as_str()))?),
            Format::Ndjson => Self::Ndjson(Vec::new()),
            Format::Parquet | Format::Delta => {
                let level = ZstdLevel::try_new(3).or_error(Code::Internal, "3 is no level of zstd")?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_data_page_size_limit(PAGE_BYTES)
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .set_created_by(concat!("waybill ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties));
                Self::Parquet(Box::new(writer.or_error(Code::Internal, "cannot begin a Parquet file")?))
            }
        })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match self {
            Self::Csv(bytes) => bytes.extend(csv::lines(rows)?),
            Self::Ndjson(bytes) => {
                let mut writer = arrow::json::WriterBuilder::new()
                    .with_explicit_nulls(true)
                    .build::<_, arrow::json::writer::LineDelimited>(bytes);
                let written = writer.write(rows).and_then(|()| writer.finish());
                written.or_error(Code::Internal, "cannot write a row as JSON")?;
            }
            Self::Parquet(writer) => writer.write(rows).or_error(Code::Internal, "cannot write a row as Parquet")?,
        }
        Ok(())
    }

    /// What there is until now, which is gone then; for forms that are made of lines.
    pub(super) fn take(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Csv(bytes) | Self::Ndjson(bytes) => Ok(std::mem::take(bytes)),
            Self::Parquet(_) => Err(Error::new(Code::Usage, "Parquet needs a file; a stream can be csv or ndjson")),
        }
    }

    /// Bytes until now, about.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Csv(bytes) | Self::Ndjson(bytes) => bytes.len(),
            Self::Parquet(writer) => writer.bytes_written() + writer.in_progress_size(),
        }
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        match self {
            Self::Csv(bytes) | Self::Ndjson(bytes) => Ok(bytes),
            Self::Parquet(writer) => writer.into_inner().or_error(Code::Internal, "cannot end a Parquet file"),
        }
    }
}

/// What a Delta log says of a Parquet file: its rows, and the bounds of its times, in whose order the rows are.
/// <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics>
pub(super) fn stats(file: &Bytes) -> Result<String> {
    let doing = "cannot read the statistics of a Parquet file";
    let file = ParquetRecordBatchReaderBuilder::try_new(file.clone()).or_error(Code::Internal, doing)?;
    let groups = file.metadata().row_groups();
    let (mut least, mut most) = (serde_json::Map::new(), serde_json::Map::new());
    for field in file.schema().fields() {
        let DataType::Timestamp(TimeUnit::Microsecond, Some(_)) = field.data_type() else { continue };
        let bounds = StatisticsConverter::try_new(field.name(), file.schema(), file.parquet_schema())
            .and_then(|bounds| Ok((bounds.row_group_mins(groups)?, bounds.row_group_maxes(groups)?)));
        let (mins, maxes) = bounds.or_error(Code::Internal, doing)?;
        let first = compute::min(mins.as_primitive::<TimestampMicrosecondType>());
        let last = compute::max(maxes.as_primitive::<TimestampMicrosecondType>());
        if let (Some(first), Some(last)) = (first.and_then(bound), last.map(|last| last + 999).and_then(bound)) {
            least.insert(field.name().clone(), first.into());
            most.insert(field.name().clone(), last.into());
        }
    }
    let rows = file.metadata().file_metadata().num_rows();
    Ok(json!({"numRecords": rows, "minValues": least, "maxValues": most}).to_string())
}

/// A bound in whole milliseconds, which is all that Delta's statistics have.
fn bound(micros: i64) -> Option<String> {
    Some(Time::from_timestamp_micros(micros)?.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
