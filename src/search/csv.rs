//! Rows as CSV (RFC 4180) that a spreadsheet can open without harm.
//!
//! File names and subjects come from whoever wrote the mail. A cell that a spreadsheet would take for a formula begins
//! with an apostrophe (<https://owasp.org/www-community/attacks/CSV_Injection>); numbers are as they are. Lists are texts
//! joined by `; `.

use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Code, Error, Result, ResultExt as _};

/// One line with the names of columns.
///
/// # Errors
/// `internal`; none is known.
pub fn header<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(names).or_error(Code::Internal, "cannot write CSV")?;
    writer.into_inner().map_err(|error| Error::new(Code::Internal, format!("cannot write CSV: {error}")))
}

/// A line for each row; nothing is written for null.
///
/// # Errors
/// `internal` when a value has no text.
pub fn lines(batch: &RecordBatch) -> Result<Vec<u8>> {
    let doing = "cannot write a row as CSV";
    let options = FormatOptions::default().with_null("");
    let columns =
        batch.columns().iter().map(|column| Cells::of(column.as_ref(), &options)).collect::<Result<Vec<_>>>()?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in 0..batch.num_rows() {
        for column in &columns {
            writer.write_field(column.text(row, &options)?).or_error(Code::Internal, doing)?;
        }
        writer.write_record(None::<&[u8]>).or_error(Code::Internal, doing)?;
    }
    writer.into_inner().map_err(|error| Error::new(Code::Internal, format!("{doing}: {error}")))
}

/// A text that no spreadsheet takes for a formula.
pub fn guarded(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

/// A column on its way into cells.
enum Cells<'a> {
    /// Numbers, times, truth: nobody else's words.
    Own(ArrayFormatter<'a>),
    Words(ArrayFormatter<'a>),
    List(&'a dyn Array),
}

impl<'a> Cells<'a> {
    fn of(column: &'a dyn Array, options: &FormatOptions<'a>) -> Result<Self> {
        if matches!(column.data_type(), DataType::List(_)) {
            return Ok(Self::List(column));
        }
        let formatter = ArrayFormatter::try_new(column, options).or_error(Code::Internal, "cannot show a column")?;
        Ok(match column.data_type() {
            kind if kind.is_numeric() || kind.is_temporal() || *kind == DataType::Boolean => Self::Own(formatter),
            _ => Self::Words(formatter),
        })
    }

    fn text(&self, row: usize, options: &FormatOptions<'_>) -> Result<String> {
        Ok(match self {
            Self::Own(formatter) => formatter.value(row).to_string(),
            Self::Words(formatter) => guarded(formatter.value(row).to_string()),
            Self::List(column) if column.is_null(row) => String::new(),
            Self::List(column) => {
                let list = column.as_list::<i32>().value(row);
                let elements =
                    ArrayFormatter::try_new(list.as_ref(), options).or_error(Code::Internal, "cannot show a list")?;
                let texts: Vec<String> = (0..list.len()).map(|index| elements.value(index).to_string()).collect();
                guarded(texts.join("; "))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder};

    use super::*;

    #[test]
    fn words_are_guarded_and_numbers_are_not() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.values().append_value("-a@x");
        lists.values().append_value("b@x");
        lists.append(true);
        lists.append(false);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringArray::from(vec![Some("=1+1"), None]))),
            ("quoted", Arc::new(StringArray::from(vec!["a \"b\",\nc", "@x"]))),
            ("number", Arc::new(Int64Array::from(vec![-5, 5]))),
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("list", Arc::new(lists.finish())),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut text = header(["text", "quoted", "number", "flag", "list"]).unwrap();
        text.extend(lines(&batch).unwrap());
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "text,quoted,number,flag,list\n'=1+1,\"a \"\"b\"\",\nc\",-5,true,'-a@x; b@x\n,'@x,5,,\n"
        );
    }
}
