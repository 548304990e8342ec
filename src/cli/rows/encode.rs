//! Batches → bytes of a format.

use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::table::{Expanded, Table};
use super::{Format, Sink, Style};
use crate::error::{Code, Result, ResultExt};
use crate::limits;

/// Writes the rows of one answer. Bytes are gathered here for a batch, and then go to the sink.
pub(super) struct Encoder {
    kind: Kind,
}

enum Kind {
    Table(Box<Table>),
    Expanded(Expanded),
    Csv(Vec<u8>),
    Json(json::ArrayWriter<Vec<u8>>),
    Ndjson(json::LineDelimitedWriter<Vec<u8>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Encoder {
    /// Begins an answer with these columns.
    pub(super) fn new(style: Style, schema: &SchemaRef, sink: &mut Sink) -> Result<Self> {
        let json = || json::WriterBuilder::new().with_explicit_nulls(true);
        let kind = match style.format {
            Format::Table if style.expanded => Kind::Expanded(Expanded::new(schema)),
            Format::Table => Kind::Table(Box::new(Table::new(schema))),
            Format::Csv => {
                // A header even when there is no row.
                let mut text = Vec::new();
                fits(style.format, csv_lines(&mut text, &RecordBatch::new_empty(Arc::clone(schema)), true))?;
                Kind::Csv(text)
            }
            Format::Json => Kind::Json(json().build(Vec::new())),
            Format::Ndjson => Kind::Ndjson(json().build(Vec::new())),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(limits::PARQUET_GROUP_ROWS))
                    .set_created_by(format!("waybill {}", env!("CARGO_PKG_VERSION")))
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties));
                Kind::Parquet(Box::new(fits(style.format, writer.map_err(arrow_error))?))
            }
            Format::Arrow => Kind::Arrow(Box::new(fits(style.format, StreamWriter::try_new(Vec::new(), schema))?)),
        };
        let mut encoder = Self { kind };
        encoder.hand_over(sink)?;
        Ok(encoder)
    }

    /// Writes rows.
    pub(super) fn write(&mut self, batch: &RecordBatch, sink: &mut Sink) -> Result<()> {
        let format = self.format();
        match &mut self.kind {
            Kind::Table(table) => table.add(batch)?,
            Kind::Expanded(records) => records.add(batch)?,
            Kind::Csv(text) => fits(format, csv_lines(text, batch, false))?,
            Kind::Json(writer) => fits(format, writer.write(batch))?,
            Kind::Ndjson(writer) => fits(format, writer.write(batch))?,
            Kind::Parquet(writer) => fits(format, writer.write(batch).map_err(arrow_error))?,
            Kind::Arrow(writer) => fits(format, writer.write(batch))?,
        }
        self.hand_over(sink)
    }

    /// Writes what is left.
    pub(super) fn finish(mut self, sink: &mut Sink) -> Result<()> {
        let format = self.format();
        match &mut self.kind {
            Kind::Table(table) => table.finish(),
            Kind::Expanded(_) | Kind::Csv(_) => {}
            Kind::Json(writer) => {
                fits(format, writer.finish())?;
                writer.get_mut().push(b'\n');
            }
            Kind::Ndjson(writer) => fits(format, writer.finish())?,
            Kind::Parquet(writer) => {
                fits(format, writer.finish().map_err(arrow_error))?;
            }
            Kind::Arrow(writer) => fits(format, writer.finish())?,
        }
        self.hand_over(sink)
    }

    fn format(&self) -> Format {
        match &self.kind {
            Kind::Table(_) | Kind::Expanded(_) => Format::Table,
            Kind::Csv(_) => Format::Csv,
            Kind::Json(_) => Format::Json,
            Kind::Ndjson(_) => Format::Ndjson,
            Kind::Parquet(_) => Format::Parquet,
            Kind::Arrow(_) => Format::Arrow,
        }
    }

    /// Gives the sink what is ready.
    fn hand_over(&mut self, sink: &mut Sink) -> Result<()> {
        let ready = match &mut self.kind {
            Kind::Table(table) => table.ready(),
            Kind::Expanded(records) => records.ready(),
            Kind::Csv(text) => text,
            Kind::Json(writer) => writer.get_mut(),
            Kind::Ndjson(writer) => writer.get_mut(),
            Kind::Parquet(writer) => writer.inner_mut(),
            Kind::Arrow(writer) => writer.get_mut(),
        };
        let written = sink.write_all(ready).and_then(|()| sink.flush());
        ready.clear();
        written.or_error(Code::Io, format!("cannot write to {sink}"))
    }
}

/// What a format cannot hold is said in its own words.
fn fits<T>(format: Format, written: std::result::Result<T, ArrowError>) -> Result<T> {
    written.or_error(Code::QueryInvalid, format!("cannot write these rows as {}", format.name()))
}

fn arrow_error(error: ParquetError) -> ArrowError {
    ArrowError::from(error)
}

fn csv_lines(text: &mut Vec<u8>, batch: &RecordBatch, has_header: bool) -> std::result::Result<(), ArrowError> {
    csv::WriterBuilder::new().with_header(has_header).build(text).write(&flat(batch)?)
}

/// A batch whose lists and structures are texts, since CSV has none.
fn flat(batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !field.data_type().is_nested() {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let texts: std::result::Result<StringArray, ArrowError> =
            (0..column.len()).map(|row| text(column, row)).collect();
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
        columns.push(Arc::new(texts?));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A list as its elements joined by `; `, anything else as Arrow shows it; nothing where there is nothing.
fn text(column: &ArrayRef, row: usize) -> std::result::Result<Option<String>, ArrowError> {
    if column.is_null(row) {
        return Ok(None);
    }
    let options = FormatOptions::default();
    if let Some(list) = column.as_list_opt::<i32>() {
        let list = list.value(row);
        let formatter = ArrayFormatter::try_new(list.as_ref(), &options)?;
        let elements: Vec<String> = (0..list.len()).map(|index| formatter.value(index).to_string()).collect();
        return Ok(Some(elements.join("; ")));
    }
    Ok(Some(ArrayFormatter::try_new(column.as_ref(), &options)?.value(row).to_string()))
}
