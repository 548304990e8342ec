//! Rows for a person: as a table, whose widths are those of a block of rows, or a line for each value.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{ColumnConstraint, Width};

use crate::cli::output;
use crate::error::{Code, Error, Result};
use crate::limits;

/// A table. Blocks after the first have its widths at least, and no header.
pub(super) struct Table {
    block: comfy_table::Table,
    rows: usize,
    bytes: usize,
    widths: Option<Vec<u16>>,
    is_written: bool,
    ready: Vec<u8>,
}

impl Table {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let mut block = output::new_table();
        block.set_header(schema.fields().iter().map(|field| output::shown(field.name())));
        Self { block, rows: 0, bytes: 0, widths: None, is_written: false, ready: Vec::new() }
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for cells in cells(batch)? {
            let cells = cells?;
            self.rows += 1;
            self.bytes += cells.iter().map(String::len).sum::<usize>();
            self.block.add_row(cells);
            if self.rows == limits::TABLE_ROWS || self.bytes >= limits::TABLE_BYTES {
                self.end_block();
            }
        }
        Ok(())
    }

    fn end_block(&mut self) {
        if let Some(widths) = &self.widths {
            // Two for the space on both sides.
            let least = |width: &u16| ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(2)));
            self.block.set_constraints(widths.iter().map(least));
        }
        self.ready.extend(self.block.to_string().bytes());
        self.ready.push(b'\n');
        self.is_written = true;
        let widths = self.widths.take().unwrap_or_else(|| self.block.column_max_content_widths());
        (self.block, self.rows, self.bytes, self.widths) = (output::new_table(), 0, 0, Some(widths));
    }

    /// The last block, or a header without rows.
    pub(super) fn finish(&mut self) {
        if self.rows > 0 || !self.is_written {
            self.end_block();
        }
    }

    /// What can be written.
    pub(super) fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }
}

/// A line for each value, under a line for each row.
pub(super) struct Expanded {
    names: Vec<String>,
    width: usize,
    rows: u64,
    ready: Vec<u8>,
}

impl Expanded {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| output::shown(field.name())).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        Self { names, width, rows: 0, ready: Vec::new() }
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for cells in cells(batch)? {
            self.rows += 1;
            let mut text = format!("-[ row {} ]{}\n", self.rows, "-".repeat(self.width));
            for (name, cell) in self.names.iter().zip(cells?) {
                let indented = cell.replace('\n', &format!("\n{} | ", " ".repeat(self.width)));
                text.push_str(&format!("{name:width$} | {indented}\n", width = self.width));
            }
            self.ready.extend(text.bytes());
        }
        Ok(())
    }

    /// What can be written.
    pub(super) fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }
}

/// The cells of each row, as texts that are safe to show.
fn cells(batch: &RecordBatch) -> Result<impl Iterator<Item = Result<Vec<String>>>> {
    let options = FormatOptions::default();
    let failed = |error| Error::new(Code::Internal, format!("cannot show a value: {error}"));
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(failed)?;
    let row = move |row| {
        let cell = |column: &ArrayFormatter<'_>| {
            let text = column.value(row).try_to_string().map_err(failed)?;
            Ok(output::shown(&text))
        };
        columns.iter().map(cell).collect()
    };
    Ok((0..batch.num_rows()).map(row))
}
