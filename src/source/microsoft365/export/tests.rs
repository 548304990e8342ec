use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::source::UnreadableRecord;

const TENANT: &str = "11111111-1111-4111-8111-111111111111";

fn send(id: &str) -> Value {
    json!({"CreationTime": "2026-11-02T09:14:07", "Id": id, "Operation": "Send", "OrganizationId": TENANT,
        "UserId": "ann@contoso.example", "ClientInfoString": "Client=OWA; \"quoted\", {x} [y]",
        "Item": {"Attachments": "a, b.docx (73728b); \"c\".png (2242b)", "InternetMessageId": format!("<{id}@contoso.example>")}})
}

fn other(id: &str) -> Value {
    json!({"CreationTime": "2026-11-02T09:14:07", "Id": id, "Operation": "MailItemsAccessed", "Folders": [{"Path": "\\Inbox"}]})
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The CSV of Purview.
fn csv(records: &[Value]) -> String {
    let mut text = "RecordId,CreationDate,RecordType,Operation,UserId,AuditData,AssociatedAdminUnits\r\n".to_owned();
    for record in records {
        let row =
            format!("1,2026-11-02T09:14:07.0000000Z,2,Send,ann@contoso.example,{},\r\n", quoted(&record.to_string()));
        text.push_str(&row);
    }
    text
}

/// The objects of `Search-UnifiedAuditLog`.
fn rows(records: &[Value]) -> Vec<Value> {
    let row = |record: &Value| json!({"RunspaceId": "x", "CreationDate": "2026-11-02T09:14:07Z", "UserIds": "ann", "Operations": "Send", "AuditData": record.to_string()});
    records.iter().map(row).collect()
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

fn utf16(text: &str, mark: bool, bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    mark.then_some(0xfeff).into_iter().chain(text.encode_utf16()).flat_map(bytes).collect()
}

fn read(file: &[u8], piece: usize) -> Result<RecordChunk> {
    let mut reader = Reader::default();
    let mut all = RecordChunk::default();
    for piece in file.chunks(piece.max(1)) {
        append(&mut all, reader.split(piece)?);
    }
    append(&mut all, reader.finish()?);
    Ok(all)
}

fn ids(all: &RecordChunk) -> Vec<&str> {
    all.sends.iter().map(|send| send.id.as_str()).collect()
}

fn reasons(all: &RecordChunk) -> Vec<&str> {
    all.unreadable.iter().map(|record| record.reason.as_str()).collect()
}

#[test]
fn every_form_of_an_export_gives_the_same_sends() {
    let records = [send("a"), other("b"), send("c")];
    let expected = read(&serde_json::to_vec(&records).unwrap(), 1000).unwrap();
    assert_eq!((ids(&expected), expected.records, &*expected.unreadable), (vec!["a", "c"], 3, &[][..]));
    assert_eq!(expected.sends[0].attachments.len(), 2);
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let crlf = |text: String| text.replace('\n', "\r\n");
    let rows = rows(&records);
    let objects: Vec<Value> = records.iter().map(|record| json!({"auditData": record, "id": "x"})).collect();
    let texts = [
        lines(&records),
        crlf(lines(&records)),
        lines(&records).trim_end().to_owned(),
        pretty(&json!(records)),
        json!(rows).to_string(),
        crlf(pretty(&json!(rows))),
        lines(&rows),
        lines(&objects),
        records.iter().map(&pretty).collect(),
        format!("{}\n{}", json!([records[0]]), json!([records[1], records[2]])),
        csv(&records),
        csv(&records).trim_end().to_owned(),
        csv(&records).replace("\r\n", "\n"),
        format!("#TYPE Deserialized.Microsoft.Exchange\r\n{}", csv(&records)),
        format!("{}\r\n\r\n{}", csv(&records[..1]), csv(&records[1..])),
        format!(
            "\"UserIds\"\t\"auditdata\"\n{}",
            records.iter().fold(String::new(), |mut text, record| {
                writeln!(text, "\"two\nlines\"\t{}", quoted(&record.to_string())).unwrap();
                text
            })
        ),
        format!(
            "CreationDate;AuditData\n{}",
            records.iter().fold(String::new(), |mut text, record| {
                writeln!(text, "2026;{}", quoted(&serde_json::to_string_pretty(record).unwrap())).unwrap();
                text
            })
        ),
    ];
    for text in &texts {
        let encodings = [
            text.clone().into_bytes(),
            format!("\u{feff}{text}").into_bytes(),
            utf16(text, true, u16::to_le_bytes),
            utf16(text, true, u16::to_be_bytes),
            utf16(text, false, u16::to_le_bytes),
        ];
        for file in encodings {
            for piece in [1, 7, 1000, usize::MAX / 2] {
                let all = read(&file, piece).unwrap();
                assert_eq!((&all.sends, all.records), (&expected.sends, 3), "{piece} bytes of {text}");
                assert_eq!(all.unreadable, [], "{piece} bytes of {text}");
            }
        }
    }
}

#[test]
fn an_export_of_nothing_is_no_error_and_what_is_no_export_is() {
    for text in ["", "\u{feff}", "  \n\n", "[]", "[\n]\n", "CreationDate,AuditData\r\n", "CreationDate,AuditData"] {
        assert_eq!(read(text.as_bytes(), 3).unwrap().records, 0, "{text}");
    }
    for text in ["name,size\na,1\n", "PK\u{3}\u{4}", "hello"] {
        let error = read(text.as_bytes(), 3).unwrap_err();
        assert_eq!(error.code(), Code::Configuration, "{text}");
        assert!(error.message().contains("AuditData"), "{error}");
    }
}

/// Danger: one damaged row costs its neighbours, or is passed over without a word.
#[test]
fn a_damaged_line_of_csv_costs_itself_only_and_is_named() {
    let good = csv(&[send("a"), send("b"), send("c"), send("d")]);
    let damaged: Vec<&str> = good.split_inclusive("\r\n").collect();
    let cases: [(String, &str); 7] = [
        // A quote too many; a quote too few; a row that breaks off; no record; no column; nothing like a row; no id.
        (damaged[2].replacen("\"\"b\"\"", "\"\"b\"", 1), "the record is not JSON"),
        (damaged[2].replacen("\",\r\n", ",\r\n", 1), "the record is not JSON"),
        (format!("{}\r\n", &damaged[2][..120]), "the record is not JSON"),
        (damaged[2].replacen("\"{", "\"<html>{", 1), "the record is not JSON"),
        ("1,2026-11-02T09:14:07Z,2,Send,ann\r\n".to_owned(), "the record has no `AuditData`"),
        ("\0\0\0\0\r\n".to_owned(), "the record has no `AuditData`"),
        (damaged[2].replacen("\"\"Id\"\":\"\"b\"\"", "\"\"Id\"\":\"\"\"\"", 1), "the record has no `Id`"),
    ];
    for (line, reason) in cases {
        assert_ne!(line, damaged[2]);
        let file = [damaged[0], damaged[1], &line, damaged[3], damaged[4]].concat();
        for piece in [1, 50, 100_000] {
            let all = read(file.as_bytes(), piece).unwrap();
            assert_eq!((ids(&all), all.records), (vec!["a", "c", "d"], 4), "{line}");
            let [found] = reasons(&all)[..] else { panic!("{line}: {:?}", reasons(&all)) };
            assert!(found.starts_with(&format!("line 3: {reason}")), "{line}: {found}");
        }
    }
    let cut = &good[..good.len() - 40];
    let all = read(cut.as_bytes(), 64).unwrap();
    assert_eq!(
        (ids(&all), reasons(&all)),
        (vec!["a", "b", "c"], vec!["line 5: the record is broken, or the file ends in it"])
    );
}

#[test]
fn a_damaged_line_of_json_costs_itself_only_and_is_named() {
    let records = [send("a"), send("b"), send("c"), send("d")];
    for all in [lines(&records), lines(&rows(&records))] {
        let good: Vec<&str> = all.split_inclusive('\n').collect();
        let cases = [
            good[1].replacen(":\"", ":", 1),
            good[1].replacen("\"", "", 1),
            good[1].replacen("}\n", "\n", 1),
            good[1].replacen("}\n", "}}\n", 1),
            format!("{}\n", &good[1][..good[1].len() / 2]),
            "garbage \"\n".to_owned(),
            "{\"Id\":42,\"Operation\":[\"Send\"],\"CreationTime\":\"2026\"}\n".to_owned(),
        ];
        for line in cases {
            let file = [good[0], &line, good[2], good[3]].concat();
            for piece in [1, 50, 100_000] {
                let all = read(file.as_bytes(), piece).unwrap();
                assert_eq!(ids(&all), ["a", "c", "d"], "{line}");
                assert!(!all.unreadable.is_empty(), "{line}");
                assert!(
                    reasons(&all).iter().all(|reason| reason.starts_with("line 2: ")),
                    "{line}: {:?}",
                    reasons(&all)
                );
            }
        }
    }
    let file = format!("[\n  {},\n  {}", send("a"), &send("b").to_string()[..80]);
    let all = read(file.as_bytes(), 9).unwrap();
    assert_eq!((ids(&all), reasons(&all)), (vec!["a"], vec!["line 3: the record is broken, or the file ends in it"]));
    let file = format!("[{},\n", send("a"));
    let all = read(file.as_bytes(), 9).unwrap();
    assert_eq!(
        (ids(&all), reasons(&all)),
        (vec!["a"], vec!["line 2: the record is missing: the file ends before its array does"])
    );
}

#[test]
fn a_record_that_is_too_large_is_cut_and_its_neighbours_are_read() {
    let big = json!({"Id": "big", "Operation": "Send", "Padding": "x".repeat(limits::RECORD_BYTES)});
    let records = [send("a"), big, send("c")];
    for file in [csv(&records), lines(&records), json!(records).to_string(), json!(rows(&records)).to_string()] {
        let all = read(file.as_bytes(), 100_000).unwrap();
        assert_eq!(ids(&all), ["a", "c"]);
        let [UnreadableRecord { raw, reason }] = &all.unreadable[..] else { panic!("{:?}", reasons(&all)) };
        assert!(raw.len() <= limits::QUARANTINE_BYTES);
        assert!(
            reason.starts_with("line ") && reason.ends_with("the record is larger than a record may be"),
            "{reason}"
        );
    }
}

/// Danger: a file of some gigabytes is held whole.
/// Provoked: 200,000 records from a generator, as CSV, as lines and as one array.
#[test]
fn a_file_of_any_length_is_read_in_the_memory_of_one_record() {
    let record = send("x").to_string();
    let line = format!("2026-11-02,ann,{}\r\n", quoted(&record));
    for (head, row, tail) in [
        ("CreationDate,UserIds,AuditData\r\n", line, ""),
        ("", format!("{record}\n"), ""),
        ("[", format!("{record},"), "]"),
    ] {
        let mut reader = Reader::default();
        let (mut records, mut held, mut piece) = (0, 0, head.to_owned());
        for _ in 0..200_000 {
            piece.push_str(&row);
            if piece.len() >= 64 * 1024 {
                records += reader.split(piece.as_bytes()).unwrap().sends.len();
                held = held.max(reader.held_bytes());
                piece.clear();
            }
        }
        piece.push_str(tail);
        records += reader.split(piece.as_bytes()).unwrap().sends.len();
        records += reader.finish().unwrap().sends.len();
        assert_eq!(records, 200_000);
        assert!(held < 1024 * 1024, "{held} bytes were held");
    }
}

#[test]
fn a_quote_that_never_closes_does_not_take_the_file_into_memory() {
    let mut reader = Reader::default();
    reader.split(b"CreationDate,AuditData\n1,\"").unwrap();
    let mut unreadable = 0;
    for _ in 0..600 {
        unreadable += reader.split(&[b'x'; 64 * 1024]).unwrap().unreadable.len();
        assert!(reader.held_bytes() < 40 * 1024 * 1024);
    }
    let row = format!(
        "\n{}",
        csv(&[send("a")]).lines().nth(1).unwrap().replacen(
            "1,2026-11-02T09:14:07.0000000Z,2,Send,ann@contoso.example,",
            "1,",
            1
        )
    );
    let all = reader.split(row.as_bytes()).unwrap();
    unreadable += all.unreadable.len();
    let mut sends = all.sends.len();
    sends += reader.finish().unwrap().sends.len();
    assert_eq!((unreadable, sends), (1, 1));
}

#[tokio::test]
async fn only_sends_of_the_interval_and_of_the_tenant_count() {
    let folder = tempfile::tempdir().unwrap();
    let at = |text: &str| crate::source::microsoft365::record::parse_time(text);
    let record = |id: &str, created: &str| {
        let mut record = send(id);
        record["CreationTime"] = json!(created);
        record
    };
    let path = folder.path().join("audit.csv");
    let records =
        [record("a", "2026-11-01T23:59:59"), record("b", "2026-11-02T00:00:00"), record("c", "2026-11-03T00:00:00")];
    std::fs::write(&path, csv(&records)).unwrap();
    let service = Arc::new(crate::source::memory::Memory::new(crate::clock::Clock::System));
    let open = |tenant: &str, from, to| {
        Exported::open(Arc::clone(&service), tenant.parse().unwrap(), &[path.clone(), path.clone()], from, to).unwrap()
    };
    let exported = open(TENANT, at("2026-11-02T00:00:00"), at("2026-11-03T00:00:00"));
    let window = Window::new(at("2026-11-02T00:00:00").unwrap(), at("2026-11-03T00:00:00").unwrap()).unwrap();
    let blobs = exported.list(window).await.unwrap();
    assert_eq!(blobs.iter().map(|blob| &*blob.id).collect::<Vec<_>>(), ["export:audit.csv", "export:audit.csv#2"]);
    let mut all = RecordChunk::default();
    let mut chunks = exported.read(&blobs[1]);
    while let Some(chunk) = chunks.next().await {
        append(&mut all, chunk.unwrap());
    }
    assert_eq!((ids(&all), all.records), (vec!["b"], 3));

    let exported = open("22222222-2222-4222-8222-222222222222", None, None);
    let failed = exported.read(&blobs[0]).filter_map(async |chunk| chunk.err()).boxed().next().await.unwrap();
    assert_eq!(failed.code(), Code::Configuration);
    assert!(failed.message().contains(TENANT), "{failed}");

    let missing = Exported::open(Arc::clone(&service), Uuid::nil(), &[folder.path().join("none.csv")], None, None);
    assert_eq!(missing.err().map(|error| error.code()), Some(Code::Io));
}

proptest! {
    /// Whatever a file holds, it is read without panic, the same in pieces of any size.
    #[test]
    fn the_pieces_in_which_a_file_comes_do_not_matter(
        parts in proptest::collection::vec(prop::sample::select(vec![
            "CreationDate,AuditData\n", "1,", "\"{\"\"Id\"\":\"\"a\"\"", ",\"\"Operation\"\":\"\"Send\"\"}\"", "\"", "\n", "\r\n", "{\"Id\":\"b\"",
            ",\"Operation\":\"x\"}", "}", "[", "]", ",", "{", "\\", "é", "\u{feff}",
        ]), 0..40),
        is_csv in any::<bool>(),
        piece in 1_usize..30,
    ) {
        let file = format!("{}{}", if is_csv { "CreationDate,AuditData\n" } else { "{}\n" }, parts.concat());
        let whole = read(file.as_bytes(), file.len());
        let pieces = read(file.as_bytes(), piece);
        match (whole, pieces) {
            (Ok(whole), Ok(pieces)) => {
                prop_assert_eq!(whole.records, pieces.records);
                prop_assert_eq!(whole.unreadable, pieces.unreadable);
            }
            (Err(_), Err(_)) => {}
            (whole, pieces) => prop_assert!(false, "{:?} and {:?}", whole.map(drop), pieces.map(drop)),
        }
    }
}
