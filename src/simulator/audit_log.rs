//! An exported audit log, served as it is: JSON lines, a JSON array, or the CSV that Purview and
//! `Search-UnifiedAuditLog` write, whose column `AuditData` holds the record.

use std::path::Path;

use axum::body::Bytes;
use encoding_rs::{UTF_16BE, UTF_16LE};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

use super::{Result, SimulatorError};

/// The records of an export in their order, each with its exact text, duplicates included.
pub(crate) fn read(path: &Path) -> Result<Vec<Bytes>> {
    let data = std::fs::read(path).map_err(|source| SimulatorError::read(path, source))?;
    let text = decode(&data);
    let start = text.trim_start();
    if start.starts_with('{') || start.starts_with('[') {
        json(start).map_err(|source| SimulatorError::understand(path, &source))
    } else {
        csv(start).map_err(|source| SimulatorError::understand(path, &*source))
    }
}

/// Exports come as UTF-8 and, from PowerShell, as UTF-16, with or without a mark.
fn decode(data: &[u8]) -> String {
    match data {
        [0xff, 0xfe, ..] => UTF_16LE.decode(data).0.into_owned(),
        [0xfe, 0xff, ..] => UTF_16BE.decode(data).0.into_owned(),
        [_, 0, _, 0, ..] => UTF_16LE.decode(data).0.into_owned(),
        _ => String::from_utf8_lossy(data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data)).into_owned(),
    }
}

/// A sequence of values, where an array stands for its elements.
fn json(text: &str) -> serde_json::Result<Vec<Bytes>> {
    let mut records = Vec::new();
    for value in Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value?;
        if value.get().starts_with('[') {
            let elements: Vec<&RawValue> = serde_json::from_str(value.get())?;
            records.extend(elements.into_iter().map(record));
        } else {
            records.push(record(value));
        }
    }
    Ok(records)
}

/// Portals export rows whose `AuditData` is the record, as text or as an object.
fn record(value: &RawValue) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Row<'a> {
        #[serde(rename = "AuditData", alias = "auditData", borrow)]
        audit_data: &'a RawValue,
    }
    let text = value.get();
    match serde_json::from_str::<Row<'_>>(text) {
        Err(_) => Bytes::copy_from_slice(text.as_bytes()),
        Ok(row) => match serde_json::from_str::<String>(row.audit_data.get()) {
            Ok(inner) => Bytes::from(inner),
            Err(_) => Bytes::copy_from_slice(row.audit_data.get().as_bytes()),
        },
    }
}

fn csv(text: &str) -> std::result::Result<Vec<Bytes>, Box<dyn std::error::Error>> {
    // Windows PowerShell writes the type of its objects above the header.
    let text = match text.strip_prefix("#TYPE") {
        Some(rest) => rest.split_once('\n').map_or("", |(_, rest)| rest),
        None => text,
    };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let column = reader.headers()?.iter().position(|name| name.trim().eq_ignore_ascii_case("AuditData"));
    let column = column.ok_or("there is no column `AuditData`")?;
    let mut records = Vec::new();
    for row in reader.records() {
        if let Some(cell) = row?.get(column).filter(|cell| !cell.trim().is_empty()) {
            records.push(Bytes::copy_from_slice(cell.as_bytes()));
        }
    }
    Ok(records)
}

/// The addresses of those whose mailboxes an export's records name.
pub(crate) fn users(records: &[Bytes]) -> Vec<String> {
    let mut users: Vec<String> = Vec::new();
    for record in records {
        let Ok(value) = serde_json::from_slice::<Value>(record) else { continue };
        for name in ["UserId", "MailboxOwnerUPN"] {
            if let Some(address) = value[name].as_str().filter(|address| address.contains('@')) {
                users.push(address.to_lowercase());
            }
        }
    }
    users.sort_unstable();
    users.dedup();
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(name: &str, data: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(name);
        std::fs::write(&path, data).expect("written");
        let records = read(&path).expect("understood");
        records.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect()
    }

    #[test]
    fn records_keep_their_text_in_every_format() {
        let first = r#"{"Id":"1", "UserId" : "a@x.org","n":1.50}"#;
        let second = r#"{"Id":"2"}"#;
        let expected = [first, second, second];
        assert_eq!(texts("lines", format!("\u{feff}{first}\r\n{second}\n\n{second}").as_bytes()), expected);
        assert_eq!(texts("array", format!("[{first},{second}\n,{second}]").as_bytes()), expected);
        let cell = |text: &str| format!("2026,x,\"{}\"", text.replace('"', "\"\""));
        let table = format!(
            "#TYPE x\r\nCreationDate,UserIds,AuditData\r\n{}\r\n{}\r\n{}\r\n",
            cell(first),
            cell(second),
            cell(second)
        );
        assert_eq!(texts("csv", table.as_bytes()), expected);
        let wide: Vec<u8> = std::iter::once(0xfeff).chain(table.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        assert_eq!(texts("wide", &wide), expected);
    }

    #[test]
    fn users_are_those_who_are_named() {
        let records =
            [Bytes::from_static(br#"{"UserId":"A@x.org","MailboxOwnerUPN":"b@x.org"}"#), Bytes::from_static(b"broken")];
        assert_eq!(users(&records), ["a@x.org", "b@x.org"]);
    }
}
