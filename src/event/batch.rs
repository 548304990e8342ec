//! Rows → Arrow batch, exactly as the schema says; and back, from files of any age.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Date32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{Date32Type, Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDate};

use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::schema::{ColumnType, TableName, list_element, table};
use crate::event::{
    Change, EVENT_ACTION, FileEvent, Gap, HashStatus, Quarantined, Run, RunKind, ScopeMember, Searched, Status,
};

/// A row of one of our tables.
pub trait Row {
    /// The table that it belongs to.
    const TABLE: TableName;

    /// Its value in a column; `None` for a column that the row does not know.
    fn value(&self, column: &str) -> Option<Value<'_>>;
}

impl<R: Row> Row for &R {
    const TABLE: TableName = R::TABLE;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        R::value(self, column)
    }
}

/// A value on its way into a column.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Text, or nothing.
    Text(Option<&'a str>),
    /// A number, or nothing; what does not fit into 63 bits becomes the largest that does.
    Number(Option<u64>),
    /// A number with a sign, or nothing.
    Signed(Option<i64>),
    /// True, false or unknown.
    Flag(Option<bool>),
    /// A point in time, or nothing.
    Time(Option<Time>),
    /// A day.
    Date(NaiveDate),
    /// A list; never nothing, but it may be empty.
    List(&'a [String]),
}

/// Rows as one batch with the table's schema, in the rows' order.
///
/// # Errors
/// `internal` when a row and its schema file disagree, which a test excludes.
pub fn to_batch<R: Row>(rows: &[R]) -> Result<RecordBatch> {
    let table = table(R::TABLE);
    let columns = table.columns.iter().map(|column| {
        let values = rows.iter().map(|row| {
            row.value(&column.name)
                .ok_or_else(|| Error::new(Code::Internal, format!("a row of {} lacks `{}`", R::TABLE, column.name)))
        });
        build(column.kind, values).map_err(|error| error.context(format_args!("column `{}`", column.name)))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(table.arrow_schema(), columns).map_err(|error| {
        Error::new(Code::Internal, format!("rows of {} do not fit: {error}", R::TABLE)).caused_by(error)
    })
}

fn build<'a>(kind: ColumnType, values: impl Iterator<Item = Result<Value<'a>>>) -> Result<ArrayRef> {
    let wrong = |value| Error::new(Code::Internal, format!("{value:?} is no {kind:?}"));
    Ok(match kind {
        ColumnType::String => {
            let mut builder = StringBuilder::new();
            for value in values {
                match value? {
                    Value::Text(text) => builder.append_option(text),
                    other => return Err(wrong(other)),
                }
            }
            Arc::new(builder.finish())
        }
        ColumnType::Int64 => {
            let mut builder = Int64Builder::new();
            for value in values {
                match value? {
                    Value::Number(number) => {
                        builder.append_option(number.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
                    }
                    Value::Signed(number) => builder.append_option(number),
                    other => return Err(wrong(other)),
                }
            }
            Arc::new(builder.finish())
        }
        ColumnType::Boolean => {
            let mut builder = BooleanBuilder::new();
            for value in values {
                match value? {
                    Value::Flag(flag) => builder.append_option(flag),
                    other => return Err(wrong(other)),
                }
            }
            Arc::new(builder.finish())
        }
        ColumnType::Timestamp => {
            let mut builder = TimestampMicrosecondBuilder::new();
            for value in values {
                match value? {
                    Value::Time(time) => builder.append_option(time.map(|time| time.timestamp_micros())),
                    other => return Err(wrong(other)),
                }
            }
            Arc::new(builder.finish().with_timezone("UTC"))
        }
        ColumnType::Date => {
            let mut builder = Date32Builder::new();
            for value in values {
                match value? {
                    Value::Date(date) => builder.append_value(Date32Type::from_naive_date(date)),
                    other => return Err(wrong(other)),
                }
            }
            Arc::new(builder.finish())
        }
        ColumnType::StringList => {
            let mut builder = ListBuilder::new(StringBuilder::new()).with_field(list_element());
            for value in values {
                match value? {
                    Value::List(items) => builder.append_value(items.iter().map(Some)),
                    other => return Err(wrong(other)),
                }
            }
            Arc::new(builder.finish())
        }
    })
}

impl Row for FileEvent {
    const TABLE: TableName = TableName::FileEvents;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        use Value::{Date, Flag, List, Number, Text};
        Some(match column {
            "event_id" => Text(Some(&self.event_id)),
            "event_action" => Text(Some(EVENT_ACTION)),
            "observed_at" => Value::Time(Some(self.observed_at)),
            "inserted_at" => Value::Time(Some(self.inserted_at)),
            "file_name" => Text(self.file_name.as_deref()),
            "file_extension" => Text(self.file_extension.as_deref()),
            "file_size_bytes" => Number(self.file_size_bytes),
            "sha256" => Text(self.sha256.as_deref()),
            "md5" => Text(self.md5.as_deref()),
            "hash_status" => Text(Some(self.hash_status.as_str())),
            "hash_error" => Text(self.hash_error.as_deref()),
            "sender" => Text(self.sender.as_deref()),
            "from_address" => Text(self.from_address.as_deref()),
            "recipients" => List(&self.recipients),
            "recipient_domains" => List(&self.recipient_domains),
            "subject" => Text(self.subject.as_deref()),
            "internet_message_id" => Text(self.internet_message_id.as_deref()),
            "mailbox" => Text(self.mailbox.as_deref()),
            "connection_id" => Text(Some(&self.connection_id)),
            "connection_name" => Text(Some(&self.connection_name)),
            "to_recipients" => List(&self.to_recipients),
            "cc_recipients" => List(&self.cc_recipients),
            "bcc_recipients" => List(&self.bcc_recipients),
            "file_category" => Text(Some(&self.file_category)),
            "mime_type" => Text(self.mime_type.as_deref()),
            "mime_type_by_bytes" => Text(self.mime_type_by_bytes.as_deref()),
            "mime_type_by_extension" => Text(self.mime_type_by_extension.as_deref()),
            "attachment_kind" => Text(self.attachment_kind.as_deref()),
            "is_inline" => Flag(self.is_inline),
            "source_url" => Text(self.source_url.as_deref()),
            "attachment_id" => Text(self.attachment_id.as_deref()),
            "store_size_bytes" => Number(self.store_size_bytes),
            "file_path" => Text(self.file_path.as_deref()),
            "audit_record_ids" => List(&self.audit_record_ids),
            "audit_operation" => Text(self.audit_operation.as_deref()),
            "actor" => Text(self.actor.as_deref()),
            "client_ip" => Text(self.client_ip.as_deref()),
            "client_info" => Text(self.client_info.as_deref()),
            "app_id" => Text(self.app_id.as_deref()),
            "tenant_id" => Text(self.tenant_id.as_deref()),
            "mailbox_guid" => Text(self.mailbox_guid.as_deref()),
            "content_blob_id" => Text(self.content_blob_id.as_deref()),
            "run_id" => Text(Some(&self.run_id)),
            "event_date" => Date(self.event_date()),
            _ => return None,
        })
    }
}

impl Row for Run {
    const TABLE: TableName = TableName::Runs;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        use Value::{Date, List, Number, Signed, Text};
        Some(match column {
            "run_id" => Text(Some(&self.run_id)),
            "connection_id" => Text(Some(&self.connection_id)),
            "connection_name" => Text(Some(&self.connection_name)),
            "started_at" => Value::Time(Some(self.started_at)),
            "finished_at" => Value::Time(Some(self.finished_at)),
            "outcome" => Text(Some(self.outcome.as_str())),
            "exit_code" => Number(Some(self.exit_code.into())),
            "window_start" => Value::Time(self.window_start),
            "window_end" => Value::Time(self.window_end),
            "windows" => Number(Some(self.windows)),
            "blobs" => Number(Some(self.blobs)),
            "blobs_failed" => Number(Some(self.blobs_failed)),
            "records" => Number(Some(self.records)),
            "sends" => Number(Some(self.sends)),
            "sends_out_of_scope" => Number(Some(self.sends_out_of_scope)),
            "duplicates" => Number(Some(self.duplicates)),
            "events" => Number(Some(self.events)),
            "events_upgraded" => Number(Some(self.events_upgraded)),
            "bytes_hashed" => Number(Some(self.bytes_hashed)),
            "hashed" => Number(Some(self.hashed)),
            "hash_failed" => List(&self.hash_failed),
            "quarantined" => Number(Some(self.quarantined)),
            "gaps" => Number(Some(self.gaps)),
            "owed" => Number(Some(self.owed)),
            "requests" => List(&self.requests),
            "retries" => Number(Some(self.retries)),
            "throttled" => Number(Some(self.throttled)),
            "throttled_ms" => Number(Some(self.throttled_ms)),
            "lag_seconds" => Signed(self.lag_seconds),
            "scope_kind" => Text(Some(&self.scope_kind)),
            "scope_people" => Number(self.scope_people),
            "scope_id" => Text(self.scope_id.as_deref()),
            "waybill_version" => Text(Some(&self.waybill_version)),
            "error" => Text(self.error.as_deref()),
            "kind" => Text(self.kind.map(RunKind::as_str)),
            "shard" => Text(self.shard.as_deref()),
            "run_date" => Date(self.started_at.date_naive()),
            _ => return None,
        })
    }
}

impl Row for Gap {
    const TABLE: TableName = TableName::Gaps;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        use Value::{Date, Text};
        Some(match column {
            "gap_id" => Text(Some(&self.gap_id)),
            "found_at" => Value::Time(Some(self.found_at)),
            "kind" => Text(Some(self.kind.as_str())),
            "connection_id" => Text(Some(&self.connection_id)),
            "connection_name" => Text(Some(&self.connection_name)),
            "window_start" => Value::Time(self.window_start),
            "window_end" => Value::Time(self.window_end),
            "content_blob_id" => Text(self.content_blob_id.as_deref()),
            "subject" => Text(self.subject.as_deref()),
            "reason" => Text(Some(&self.reason)),
            "remedy" => Text(self.remedy.as_deref()),
            "run_id" => Text(Some(&self.run_id)),
            "gap_date" => Date(self.found_at.date_naive()),
            _ => return None,
        })
    }
}

impl Row for Quarantined {
    const TABLE: TableName = TableName::Quarantine;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        use Value::{Date, Text};
        Some(match column {
            "quarantine_id" => Text(Some(&self.quarantine_id)),
            "found_at" => Value::Time(Some(self.found_at)),
            "connection_id" => Text(Some(&self.connection_id)),
            "connection_name" => Text(Some(&self.connection_name)),
            "content_blob_id" => Text(self.content_blob_id.as_deref()),
            "reason" => Text(Some(&self.reason)),
            "raw" => Text(Some(&self.raw)),
            "run_id" => Text(Some(&self.run_id)),
            "quarantine_date" => Date(self.found_at.date_naive()),
            _ => return None,
        })
    }
}

impl Row for Change {
    const TABLE: TableName = TableName::Changes;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        use Value::{Date, Text};
        Some(match column {
            "change_id" => Text(Some(&self.change_id)),
            "changed_at" => Value::Time(Some(self.changed_at)),
            "actor" => Text(Some(&self.actor)),
            "action" => Text(Some(self.action.as_str())),
            "connection_id" => Text(self.connection_id.as_deref()),
            "connection_name" => Text(self.connection_name.as_deref()),
            "status" => Text(self.status.map(Status::as_str)),
            "status_before" => Text(self.status_before.map(Status::as_str)),
            "code" => Text(self.code.as_deref()),
            "detail" => Text(self.detail.as_deref()),
            "run_id" => Text(self.run_id.as_deref()),
            "change_date" => Date(self.changed_at.date_naive()),
            _ => return None,
        })
    }
}

impl Row for ScopeMember {
    const TABLE: TableName = TableName::ScopeMembers;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        use Value::{Date, Text};
        Some(match column {
            "scope_id" => Text(Some(&self.scope_id)),
            "connection_id" => Text(Some(&self.connection_id)),
            "address" => Text(Some(&self.address)),
            "object_id" => Text(Some(&self.object_id)),
            "mail" => Text(self.mail.as_deref()),
            "display_name" => Text(self.display_name.as_deref()),
            "resolved_at" => Value::Time(Some(self.resolved_at)),
            "run_id" => Text(Some(&self.run_id)),
            "resolved_date" => Date(self.resolved_at.date_naive()),
            _ => return None,
        })
    }
}

impl Row for Searched {
    const TABLE: TableName = TableName::Searches;

    fn value(&self, column: &str) -> Option<Value<'_>> {
        use Value::{Date, Number, Text};
        Some(match column {
            "search_id" => Text(Some(&self.search_id)),
            "asked_at" => Value::Time(Some(self.asked_at)),
            "who" => Text(Some(&self.who)),
            "surface" => Text(Some(&self.surface)),
            "address" => Text(self.address.as_deref()),
            "statement" => Text(Some(&self.statement)),
            "outcome" => Text(Some(self.outcome.as_str())),
            "code" => Text(self.code.as_deref()),
            "rows" => Number(Some(self.rows)),
            "duration_ms" => Number(Some(self.duration_ms)),
            "policy" => Text(self.policy.as_deref()),
            "asked_date" => Date(self.asked_at.date_naive()),
            _ => return None,
        })
    }
}

/// The file events of a batch, in its order. Columns may come in any order and encoding (views, dictionaries, other
/// time units); a column that the file does not know yet is nothing or empty.
///
/// # Errors
/// `lake-damaged` when a promised value is missing or has a type that cannot be understood.
pub fn file_events(batch: &RecordBatch) -> Result<Vec<FileEvent>> {
    let columns = Columns::of(batch)?;
    (0..batch.num_rows()).map(|row| columns.file_event(row)).collect()
}

/// A file's rows with every column of the schema: what the file does not know yet is nothing (or an empty list), and the
/// day of the partition, which is not in the file, comes back.
///
/// # Errors
/// `lake-damaged` when a column's type cannot be understood.
pub fn complete(name: TableName, batch: &RecordBatch, date: Option<NaiveDate>) -> Result<RecordBatch> {
    let table = table(name);
    let partition = table.partition_by.first();
    let columns = table.columns.iter().map(|column| {
        let damaged = |error: arrow::error::ArrowError| {
            let what = format!("column `{}` of {name} cannot be read: {error}", column.name);
            Error::new(Code::LakeDamaged, what).caused_by(error)
        };
        if let Some(array) = batch.column_by_name(&column.name) {
            return cast(array, &column.kind.arrow()).map_err(damaged);
        }
        let missing = match (column.kind, date) {
            (ColumnType::Date, Some(date)) if partition == Some(&column.name) => Value::Date(date),
            (ColumnType::StringList, _) => Value::List(&[]),
            _ => return Ok(new_null_array(&column.kind.arrow(), batch.num_rows())),
        };
        build(column.kind, std::iter::repeat_n(missing, batch.num_rows()).map(Ok))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(table.arrow_schema(), columns).map_err(|error| {
        Error::new(Code::LakeDamaged, format!("a file of {name} does not fit: {error}")).caused_by(error)
    })
}

/// A batch's columns in our types, in the schema's order; `None` for one that the batch lacks.
struct Columns(Vec<Option<ArrayRef>>);

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let columns = table(TableName::FileEvents).columns.iter().map(|column| {
            let Some(array) = batch.column_by_name(&column.name) else { return Ok(None) };
            cast(array, &column.kind.arrow()).map(Some).map_err(|error| {
                let what = format!("column `{}` of file_events is {}", column.name, array.data_type());
                Error::new(Code::LakeDamaged, what).caused_by(error)
            })
        });
        Ok(Self(columns.collect::<Result<_>>()?))
    }

    fn file_event(&self, row: usize) -> Result<FileEvent> {
        let status = self.promised(row, "hash_status")?;
        let hash_status = HashStatus::parse(&status)
            .ok_or_else(|| Error::new(Code::LakeDamaged, format!("`{status}` is no hash_status of file_events")))?;
        Ok(FileEvent {
            event_id: self.promised(row, "event_id")?,
            observed_at: self.time(row, "observed_at")?,
            inserted_at: self.time(row, "inserted_at")?,
            file_name: self.text(row, "file_name"),
            file_extension: self.text(row, "file_extension"),
            file_size_bytes: self.number(row, "file_size_bytes"),
            sha256: self.text(row, "sha256"),
            md5: self.text(row, "md5"),
            hash_status,
            hash_error: self.text(row, "hash_error"),
            sender: self.text(row, "sender"),
            from_address: self.text(row, "from_address"),
            recipients: self.list(row, "recipients"),
            recipient_domains: self.list(row, "recipient_domains"),
            subject: self.text(row, "subject"),
            internet_message_id: self.text(row, "internet_message_id"),
            mailbox: self.text(row, "mailbox"),
            connection_id: self.promised(row, "connection_id")?,
            connection_name: self.promised(row, "connection_name")?,
            to_recipients: self.list(row, "to_recipients"),
            cc_recipients: self.list(row, "cc_recipients"),
            bcc_recipients: self.list(row, "bcc_recipients"),
            file_category: self.promised(row, "file_category")?,
            mime_type: self.text(row, "mime_type"),
            mime_type_by_bytes: self.text(row, "mime_type_by_bytes"),
            mime_type_by_extension: self.text(row, "mime_type_by_extension"),
            attachment_kind: self.text(row, "attachment_kind"),
            is_inline: self.flag(row, "is_inline"),
            source_url: self.text(row, "source_url"),
            attachment_id: self.text(row, "attachment_id"),
            store_size_bytes: self.number(row, "store_size_bytes"),
            file_path: self.text(row, "file_path"),
            audit_record_ids: self.list(row, "audit_record_ids"),
            audit_operation: self.text(row, "audit_operation"),
            actor: self.text(row, "actor"),
            client_ip: self.text(row, "client_ip"),
            client_info: self.text(row, "client_info"),
            app_id: self.text(row, "app_id"),
            tenant_id: self.text(row, "tenant_id"),
            mailbox_guid: self.text(row, "mailbox_guid"),
            content_blob_id: self.text(row, "content_blob_id"),
            run_id: self.promised(row, "run_id")?,
        })
    }

    /// The column, where it has a value in this row.
    fn present(&self, row: usize, name: &str) -> Option<&ArrayRef> {
        let place = table(TableName::FileEvents).columns.iter().position(|column| column.name == name)?;
        self.0[place].as_ref().filter(|array| array.is_valid(row))
    }

    fn text(&self, row: usize, name: &str) -> Option<String> {
        self.present(row, name).map(|array| array.as_string::<i32>().value(row).to_owned())
    }

    fn promised(&self, row: usize, name: &str) -> Result<String> {
        self.text(row, name).ok_or_else(|| missing(name))
    }

    fn number(&self, row: usize, name: &str) -> Option<u64> {
        let number = self.present(row, name)?.as_primitive::<Int64Type>().value(row);
        u64::try_from(number).ok()
    }

    fn flag(&self, row: usize, name: &str) -> Option<bool> {
        self.present(row, name).map(|array| array.as_boolean().value(row))
    }

    fn time(&self, row: usize, name: &str) -> Result<Time> {
        let micros = self.present(row, name).map(|array| array.as_primitive::<TimestampMicrosecondType>().value(row));
        micros.and_then(DateTime::from_timestamp_micros).ok_or_else(|| missing(name))
    }

    fn list(&self, row: usize, name: &str) -> Vec<String> {
        let Some(array) = self.present(row, name) else { return Vec::new() };
        let items = array.as_list::<i32>().value(row);
        items.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }
}

fn missing(column: &str) -> Error {
    Error::new(Code::LakeDamaged, format!("a row of file_events lacks `{column}`"))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::*;
    use crate::event::{GapKind, Outcome};

    fn time() -> impl Strategy<Value = Time> {
        // From 1970 to 9999, the years that every reader of Delta can show.
        (0..253_402_300_799_999_999_i64).prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap())
    }

    prop_compose! {
        /// A file event whose every field is free of the others.
        fn file_event()(
            text in proptest::collection::vec(any::<String>(), 5),
            maybe in proptest::collection::vec(any::<Option<String>>(), 25),
            list in proptest::collection::vec(proptest::collection::vec(any::<String>(), 0..3), 6),
            time in (time(), time()),
            size in proptest::array::uniform2(proptest::option::of(0..=i64::MAX as u64)),
            status in 0..4_usize,
            is_inline: Option<bool>,
        ) -> FileEvent {
            let mut text = text.into_iter();
            let mut text = || text.next().unwrap();
            let mut maybe = maybe.into_iter();
            let mut maybe = || maybe.next().unwrap();
            let mut list = list.into_iter();
            let mut list = || list.next().unwrap();
            FileEvent {
                event_id: text(), observed_at: time.0, inserted_at: time.1, file_name: maybe(), file_extension: maybe(),
                file_size_bytes: size[0], sha256: maybe(), md5: maybe(), hash_status: HashStatus::ALL[status],
                hash_error: maybe(), sender: maybe(), from_address: maybe(), recipients: list(), recipient_domains: list(),
                subject: maybe(), internet_message_id: maybe(), mailbox: maybe(), connection_id: text(),
                connection_name: text(), to_recipients: list(), cc_recipients: list(), bcc_recipients: list(),
                file_category: text(), mime_type: maybe(), mime_type_by_bytes: maybe(), mime_type_by_extension: maybe(),
                attachment_kind: maybe(), is_inline, source_url: maybe(), attachment_id: maybe(),
                store_size_bytes: size[1], file_path: maybe(), audit_record_ids: list(), audit_operation: maybe(),
                actor: maybe(), client_ip: maybe(), client_info: maybe(), app_id: maybe(), tenant_id: maybe(),
                mailbox_guid: maybe(), content_blob_id: maybe(), run_id: text(),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rows_come_back_as_they_went(rows in proptest::collection::vec(file_event(), 0..4)) {
            let batch = to_batch(&rows).unwrap();
            prop_assert_eq!(batch.schema(), table(TableName::FileEvents).arrow_schema());
            prop_assert_eq!(file_events(&batch).unwrap(), rows.clone());
            let json = serde_json::to_string(&rows).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<FileEvent>>(&json).unwrap(), rows);
        }
    }

    fn moment() -> Time {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn sample() -> FileEvent {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        FileEvent { observed_at: moment(), ..file_event().new_tree(&mut runner).unwrap().current() }
    }

    #[test]
    fn every_row_fills_its_schema() {
        let run = Run {
            run_id: "r".into(),
            connection_id: "c".into(),
            connection_name: "n".into(),
            started_at: moment(),
            finished_at: moment(),
            outcome: Outcome::Partial,
            exit_code: 3,
            window_start: None,
            window_end: None,
            windows: 1,
            blobs: 2,
            blobs_failed: 0,
            records: 3,
            sends: 2,
            sends_out_of_scope: 1,
            duplicates: 0,
            events: 1,
            events_upgraded: 0,
            bytes_hashed: u64::MAX,
            hashed: 1,
            hash_failed: vec!["message-missing=1".into()],
            quarantined: 0,
            gaps: 0,
            owed: 1,
            requests: vec![],
            retries: 0,
            throttled: 0,
            throttled_ms: 0,
            lag_seconds: Some(-1),
            scope_kind: "all".into(),
            scope_people: None,
            scope_id: None,
            waybill_version: "0".into(),
            error: None,
            kind: Some(RunKind::Backfill),
            shard: Some("3/16".to_owned()),
        };
        let gap = Gap {
            gap_id: "g".into(),
            found_at: moment(),
            kind: GapKind::FeedMemory,
            connection_id: "c".into(),
            connection_name: "n".into(),
            window_start: Some(moment()),
            window_end: None,
            content_blob_id: None,
            subject: None,
            reason: "gap-too-old: …".into(),
            remedy: None,
            run_id: "r".into(),
        };
        let quarantined = Quarantined {
            quarantine_id: "q".into(),
            found_at: moment(),
            connection_id: "c".into(),
            connection_name: "n".into(),
            content_blob_id: None,
            reason: "no Id".into(),
            raw: "{}".into(),
            run_id: "r".into(),
        };
        for batch in [to_batch(&[run]), to_batch(&[gap]), to_batch(&[quarantined]), to_batch(&[sample()])] {
            assert_eq!(batch.unwrap().num_rows(), 1);
        }
        assert_eq!(to_batch::<Gap>(&[]).unwrap().num_rows(), 0);
    }

    #[test]
    fn the_date_of_a_row_is_the_utc_date_of_its_time() {
        let batch = to_batch(&[sample()]).unwrap();
        let date = batch.column_by_name("event_date").unwrap().as_primitive::<Date32Type>().value_as_date(0);
        assert_eq!(date, NaiveDate::from_ymd_opt(2023, 11, 14));
    }

    /// Danger: an upgrade in place reads a file that an older Waybill or another writer made. Provoked with a file that
    /// lacks newer columns, has its columns in another order, and keeps its texts in another encoding.
    #[test]
    fn a_file_of_another_age_and_hand_is_read() {
        let row = sample();
        let whole = to_batch(std::slice::from_ref(&row)).unwrap();
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (field, column) in whole.schema().fields().iter().zip(whole.columns()).rev() {
            if ["file_path", "audit_record_ids", "store_size_bytes", "event_date"].contains(&field.name().as_str()) {
                continue;
            }
            let column = match field.data_type() {
                DataType::Utf8 => Arc::new(column.as_string::<i32>().iter().collect::<StringViewArray>()) as ArrayRef,
                _ => Arc::clone(column),
            };
            fields.push(Field::new(field.name(), column.data_type().clone(), true));
            columns.push(column);
        }
        let old = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let expected = FileEvent { file_path: None, audit_record_ids: vec![], store_size_bytes: None, ..row };
        assert_eq!(file_events(&old).unwrap(), [expected]);
    }

    #[test]
    fn a_row_without_its_identity_is_damage() {
        let whole = to_batch(&[sample()]).unwrap();
        let kept: Vec<usize> = (1..whole.num_columns()).collect();
        let error = file_events(&whole.project(&kept).unwrap()).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::LakeDamaged, "a row of file_events lacks `event_id`"));
    }
}
