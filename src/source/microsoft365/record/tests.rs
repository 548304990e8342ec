use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// Splits a blob in pieces of the given size.
fn split(blob: &[u8], piece: usize) -> Result<RecordChunk> {
    let mut records = Records::new();
    let mut all = RecordChunk::default();
    let mut add = |chunk: RecordChunk| {
        all.records += chunk.records;
        all.bytes += chunk.bytes;
        all.sends.extend(chunk.sends);
        all.unreadable.extend(chunk.unreadable);
    };
    for piece in blob.chunks(piece.max(1)) {
        add(records.split(piece)?);
    }
    add(records.finish()?);
    Ok(all)
}

/// A send in the shape of 2021, as JSON.
fn send(id: &str) -> Value {
    json!({
        "CreationTime": "2026-11-02T09:14:07", "Id": id, "Operation": "Send", "OrganizationId": "11111111-1111-4111-8111-111111111111",
        "RecordType": 2, "ResultStatus": "Succeeded", "UserKey": "10032000AAAA0001", "UserType": 0, "Version": 1, "Workload": "Exchange",
        "ClientIP": "203.0.113.7", "UserId": "A.Doe@contoso.onmicrosoft.com", "AppId": "00000002-0000-0ff1-ce00-000000000000",
        "ClientIPAddress": "203.0.113.7", "ClientInfoString": "Client=OWA;Mozilla/5.0 (Windows NT 10.0) {x} [y] \"z\";",
        "LogonType": 0, "MailboxGuid": "22222222-2222-4222-8222-222222222222", "MailboxOwnerUPN": "A.Doe@contoso.onmicrosoft.com",
        "OriginatingServer": "AM0PR00MB0001 (15.20.9999.000)\r\n",
        "Item": {
            "Attachments": "report.docx (73728b); image001.png (2242b)", "Id": "Unknown",
            "InternetMessageId": "<a+b=c/d@AM0PR00MB0001.prod.outlook.com>", "ParentFolder": {"Id": "LgA", "Path": "\\Drafts"}, "Subject": "Re: Q3"
        }
    })
}

fn other(id: &str) -> Value {
    json!({"CreationTime": "2026-11-02T09:14:07", "Id": id, "Operation": "MailItemsAccessed", "RecordType": 50,
        "OperationProperties": [{"Name": "MailAccessType", "Value": "Bind"}, {"Name": "IsThrottled", "Value": "False"}],
        "Folders": [{"Id": "a", "Path": "\\Inbox"}, {"Id": "b", "Path": "\\Sent Items"}]})
}

fn with(id: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let mut record = send(id);
    change(record.as_object_mut().unwrap());
    record
}

fn blob(records: &[Value]) -> Vec<u8> {
    serde_json::to_vec(records).unwrap()
}

fn one(record: Value) -> SendRecord {
    let all = split(&blob(&[record]), 7).unwrap();
    assert_eq!(all.unreadable, []);
    all.sends.into_iter().next().unwrap()
}

fn ids(chunk: &RecordChunk) -> Vec<&str> {
    chunk.sends.iter().map(|send| send.id.as_str()).collect()
}

#[test]
fn a_send_is_read_whole() {
    let expected = SendRecord {
        id: "5a0c1e77".into(),
        operation: Operation::Send,
        created: parse_time("2026-11-02T09:14:07Z").unwrap(),
        actor: "A.Doe@contoso.onmicrosoft.com".into(),
        mailbox: "A.Doe@contoso.onmicrosoft.com".into(),
        mailbox_guid: Some("22222222-2222-4222-8222-222222222222".into()),
        tenant_id: Some("11111111-1111-4111-8111-111111111111".into()),
        internet_message_id: Some("<a+b=c/d@AM0PR00MB0001.prod.outlook.com>".into()),
        subject: Some("Re: Q3".into()),
        attachments: vec![attachment("report.docx", 73728), attachment("image001.png", 2242)],
        recipients: Vec::new(),
        sent_as: None,
        client_ip: Some("203.0.113.7".into()),
        client_info: Some("Client=OWA;Mozilla/5.0 (Windows NT 10.0) {x} [y] \"z\";".into()),
        app_id: Some("00000002-0000-0ff1-ce00-000000000000".into()),
        saved_to_sent_items: None,
    };
    assert_eq!(one(send("5a0c1e77")), expected);
}

fn attachment(name: &str, size: u64) -> NamedAttachment {
    NamedAttachment { name: name.to_owned(), store_size_bytes: Some(size) }
}

#[test]
fn attachments_are_parsed_from_the_right() {
    type Named = (&'static str, Option<u64>);
    let cases: &[(&str, &[Named])] = &[
        ("", &[]),
        ("report.docx (73728b); image001.png (2242b)", &[("report.docx", Some(73728)), ("image001.png", Some(2242))]),
        (
            "AttachedImage (3165b); AttachedImage (1642b); AttachedImage (2603b); AttachedImage (5423b)",
            &[
                ("AttachedImage", Some(3165)),
                ("AttachedImage", Some(1642)),
                ("AttachedImage", Some(2603)),
                ("AttachedImage", Some(5423)),
            ],
        ),
        ("04bab714-753c-44dd-8e72-124bd16e077b (2242b)", &[("04bab714-753c-44dd-8e72-124bd16e077b", Some(2242))]),
        (
            "Project Gamma - x v2 (Draft 04_04_2024)(100112233.7).docx (73728b); tps (report) 1.docx (1024b)",
            &[
                ("Project Gamma - x v2 (Draft 04_04_2024)(100112233.7).docx", Some(73728)),
                ("tps (report) 1.docx", Some(1024)),
            ],
        ),
        (
            r"C:\Users\a\Content.Outlook\ABCDEF\1.pdf (9731941b)",
            &[(r"C:\Users\a\Content.Outlook\ABCDEF\1.pdf", Some(9731941))],
        ),
        ("a; b.txt (1b); c;d; e.txt (2b)", &[("a; b.txt", Some(1)), ("c;d; e.txt", Some(2))]),
        ("twelve (12b).txt (7b)", &[("twelve (12b).txt", Some(7))]),
        ("twelve (12b) (7b)", &[("twelve (12b)", Some(7))]),
        ("no size.txt", &[("no size.txt", None)]),
        ("(b); x ()b) (3b)", &[("(b); x ()b)", Some(3))]),
        (" (5b)", &[("", Some(5))]),
        ("huge (99999999999999999999999b)", &[("huge", None)]),
        ("trailing (5b); ", &[("trailing", Some(5))]),
        ("trailing (5b);", &[("trailing", Some(5))]),
    ];
    for (text, expected) in cases {
        let found = parse_attachments(text);
        let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.store_size_bytes)).collect();
        assert_eq!(&found, expected, "{text}");
    }
}

/// The list of peers.md, section 5, and of the protocol notes, section 3.
#[test]
fn odd_shapes_are_understood() {
    // Numbers as strings, and what is a list or a text by version.
    let strings = one(with("1", |record| {
        record.insert("RecordType".into(), json!("2"));
        record.insert("LogonType".into(), json!("0"));
        record.insert("ModifiedProperties".into(), json!(["a", {"Name": "b"}]));
        record.insert("Parameters".into(), json!("text"));
        record.insert("SaveToSentItems".into(), json!("False"));
    }));
    assert_eq!(strings.saved_to_sent_items, Some(false));
    // A number where a text belongs.
    assert_eq!(one(with("x", |record| drop(record.insert("Id".into(), json!(17))))).id, "17");
    // An address with port, or with brackets.
    let ip = |text: &str| one(with("1", |record| drop(record.insert("ClientIP".into(), json!(text))))).client_ip;
    assert_eq!(ip("203.0.113.7:50123").as_deref(), Some("203.0.113.7"));
    assert_eq!(ip("[2001:db8::7]:50123").as_deref(), Some("2001:db8::7"));
    assert_eq!(ip("[2001:db8::7]").as_deref(), Some("2001:db8::7"));
    assert_eq!(ip("2001:DB8::7").as_deref(), Some("2001:db8::7"));
    assert_eq!(ip("<unknown>").as_deref(), Some("<unknown>"));
    assert_eq!(ip("").as_deref(), Some("203.0.113.7"));
    // Line breaks at the end, true ones and copied ones.
    let info =
        |text: &str| one(with("1", |record| drop(record.insert("ClientInfoString".into(), json!(text))))).client_info;
    assert_eq!(info("Client=REST;;\r\n").as_deref(), Some("Client=REST;;"));
    assert_eq!(info("Client=REST;;\\r\\n").as_deref(), Some("Client=REST;;"));
    // No folder, no attachments, no item, a system sender.
    let bare = one(with("1", |record| {
        record.insert("UserId".into(), json!("S-1-5-18"));
        record.insert("Item".into(), json!({"Id": "Unknown"}));
    }));
    assert_eq!((bare.actor.as_str(), bare.mailbox.as_str()), ("S-1-5-18", "A.Doe@contoso.onmicrosoft.com"));
    assert_eq!((bare.internet_message_id, bare.attachments), (None, Vec::new()));
    assert_eq!(one(with("1", |record| drop(record.remove("Item")))).subject, None);
    assert_eq!(one(with("1", |record| drop(record.insert("Item".into(), json!(null))))).subject, None);
    // One of the two names is enough.
    assert_eq!(
        one(with("1", |record| drop(record.remove("MailboxOwnerUPN")))).mailbox,
        "A.Doe@contoso.onmicrosoft.com"
    );
    assert_eq!(one(with("1", |record| drop(record.remove("UserId")))).actor, "A.Doe@contoso.onmicrosoft.com");
    // Times: without a zone, with one, with a fraction.
    for text in
        ["2026-11-02T09:14:07", "2026-11-02T09:14:07Z", "2026-11-02T09:14:07.123", "2026-11-02T10:14:07.9999999+01:00"]
    {
        let time = one(with("1", |record| drop(record.insert("CreationTime".into(), json!(text))))).created;
        assert_eq!(time, parse_time("2026-11-02T09:14:07Z").unwrap(), "{text}");
    }
    // Properties of 2026.
    let new = one(with("1", |record| {
        record.insert("AppAccessContext".into(), json!({"AADSessionId": "x", "ClientAppName": "y"}));
        record.insert("recipientCount".into(), json!(2));
        record.insert(
            "recipientList".into(),
            json!([{"Address": "b@x.org", "Name": "B"}, {"Address": "c@x.org"}, "d@x.org", {}, 7]),
        );
        record.insert("NobodyKnows".into(), json!({"Operation": "Update"}));
    }));
    assert_eq!(new.recipients, ["b@x.org", "c@x.org", "d@x.org"]);
}

#[test]
fn delegated_sends_name_whom_they_stand_for() {
    let record = with("1", |record| {
        record.insert("Operation".into(), json!("SendAs"));
        record.insert("UserId".into(), json!("bob@x.org"));
        record.insert("SendAsUserSmtp".into(), json!("sales@x.org"));
    });
    let send = one(record);
    assert_eq!(
        (send.operation, send.actor.as_str(), send.sent_as.as_deref()),
        (Operation::SendAs, "bob@x.org", Some("sales@x.org"))
    );
    let record = with("1", |record| {
        record.insert("Operation".into(), json!("SendOnBehalf"));
        record.insert("SendOnBehalfOfUserSmtp".into(), json!("boss@x.org"));
    });
    assert_eq!(one(record).sent_as.as_deref(), Some("boss@x.org"));
}

#[test]
fn what_reports_no_send_is_only_counted() {
    let records = [
        other("1"),
        with("2", |record| drop(record.insert("Operation".into(), json!("SendFoo")))),
        with("3", |record| drop(record.insert("Operation".into(), json!("Create")))),
        // The word is there, but in another place.
        json!({"Id": "4", "Operation": "Update", "ModifiedProperties": ["Send", "SendAs"]}),
        // It was tried, and nothing left.
        with("5", |record| drop(record.insert("ResultStatus".into(), json!("Failed")))),
    ];
    let all = split(&blob(&records), 100).unwrap();
    assert_eq!((all.records, all.sends.len(), all.unreadable.len()), (5, 0, 0));
}

#[test]
fn a_send_that_lacks_what_makes_it_one_is_unreadable() {
    let cases: [(Value, &str); 5] = [
        (with("1", |record| drop(record.remove("Id"))), "the record has no `Id`"),
        (with("1", |record| drop(record.remove("CreationTime"))), "the record has no `CreationTime`"),
        (
            with("1", |record| drop(record.insert("CreationTime".into(), json!("yesterday")))),
            "the record has a `CreationTime` that is no time: `yesterday`",
        ),
        (
            with("1", |record| {
                record.remove("UserId");
                record.remove("MailboxOwnerUPN");
            }),
            "the record names neither `UserId` nor `MailboxOwnerUPN`",
        ),
        (json!({"CreationTime": "2026-11-02T09:14:07", "Id": "1"}), "the record names no operation"),
    ];
    for (record, reason) in cases {
        let text = record.to_string();
        let all = split(&blob(&[send("a"), record, send("b")]), 50).unwrap();
        assert_eq!(all.unreadable, [UnreadableRecord { raw: text, reason: reason.to_owned() }]);
        assert_eq!(ids(&all), ["a", "b"]);
        assert_eq!(all.records, 3);
    }
}

#[test]
fn a_broken_record_does_not_cost_its_neighbours() {
    let broken = [
        // Balanced, but no JSON.
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":,"Operation":"Send"}"#,
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x","Operation":"Update",}"#,
        r#"{"CreationTime" "2026-11-02T09:14:07"}"#,
        r#"{}"#,
        r#"{garbage}"#,
        // A brace is missing.
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x","Operation":"Send","Item":{"Subject":"x"}"#,
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x","#,
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x""#,
        r#"{"CreationTime""#,
        // A bracket closes another one.
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x","Folders":[1,2}"#,
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x","Folders":[{"a":1]}"#,
        // A quote is missing, in the middle, at the end.
        r#"{"CreationTime":"2026-11-02T09:14:07,"Id":"x","Operation":"Send"}"#,
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x","Item":{"Subject":"Q3}}"#,
        // Closed too early, so that the rest of it stands between records.
        r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x {"} [y] \"z\";","Operation":"Send"}"#,
        // No object at all.
        r#"null"#,
        r#"17"#,
        r#""text with , and { and ] in it""#,
        r#"not json"#,
        r#"}"#,
    ];
    for text in broken {
        for before in [0, 1, 3] {
            for after in [0, 1, 3] {
                let good = |count: usize, name: &str| {
                    (0..count).map(|n| send(&format!("{name}{n}")).to_string()).collect::<Vec<_>>()
                };
                let all = [good(before, "a"), vec![text.to_owned()], good(after, "b")].concat().join(",");
                let blob = format!("[{all}]");
                for piece in [1, 3, 64, 100_000] {
                    let all = match split(blob.as_bytes(), piece) {
                        Ok(all) => all,
                        // A string that is never closed swallows the end of the array: nothing tells it from a blob
                        // that broke off.
                        Err(error) if after == 0 && text.contains("\"Q3}}") => {
                            assert_eq!(error.code(), Code::ContentUnreadable);
                            continue;
                        }
                        Err(error) => panic!("{blob}: {error}"),
                    };
                    let context = format!("{text} before {before} after {after} piece {piece}: {:?}", all.unreadable);
                    assert_eq!(all.sends.len(), before + after, "{context}");
                    assert_eq!(all.unreadable.len(), 1, "{context}");
                    assert_eq!(all.unreadable[0].raw, text, "{context}");
                    assert_eq!(all.records as usize, before + after + 1, "{context}");
                }
            }
        }
    }
}

#[test]
fn an_end_that_was_none_costs_no_record_behind_it() {
    // A quote closes a string too early, and what stood in it closes the record and the array.
    let broken = r#"{"CreationTime":"2026-11-02T09:14:07","Id":"x {"}] \"z\";","Operation":"Send"}"#;
    let all = split(format!("[{},{broken},{},{}]", send("a"), send("b"), send("c")).as_bytes(), 10).unwrap();
    assert_eq!(ids(&all), ["a", "b", "c"]);
    assert_eq!(all.unreadable.len(), 2);
    for text in ["[]]", "[] []", "[] x]"] {
        assert_eq!(split(text.as_bytes(), 1).unwrap().unreadable.len(), 1);
    }
}

#[test]
fn letters_that_are_no_characters_do_not_cost_a_record() {
    let text = |subject: &[u8]| {
        let blob = serde_json::to_string(&[with("1", |record| {
            drop(record["Item"].as_object_mut().unwrap().insert("Subject".into(), json!("@@")))
        })]);
        let blob = blob.unwrap().into_bytes();
        let at = memmem::find(&blob, b"@@").unwrap();
        let blob = [&blob[..at], subject, &blob[at + 2..]].concat();
        let all = split(&blob, 13).unwrap();
        assert_eq!(all.unreadable, []);
        all.sends[0].subject.clone().unwrap()
    };
    assert_eq!(text(b"caf\xe9"), "caf\u{fffd}");
    assert_eq!(text(br"x\ud83d"), "x\u{fffd}");
    assert_eq!(text(br"\udc00 y"), "\u{fffd} y");
    assert_eq!(text(br"\ud83d\ude00\ud83d"), "\u{1f600}\u{fffd}");
    assert_eq!(text(br"\\ud83d"), r"\ud83d");
    assert_eq!(text(br"a\u0000b\u202ec"), "a\0b\u{202e}c");
}

#[test]
fn a_word_that_is_written_as_escapes_is_found() {
    let text = send("1").to_string().replace("\"Send\"", "\"\\u0053en\\u0064\"");
    assert_eq!(ids(&split(format!("[{text}]").as_bytes(), 9).unwrap()), ["1"]);
}

#[test]
fn a_byte_order_mark_and_blanks_are_no_fault() {
    let blob = format!("\u{feff} \r\n[ \n{} ,\t{}\n]\r\n ", send("1"), send("2"));
    for piece in 1..8 {
        assert_eq!(ids(&split(blob.as_bytes(), piece).unwrap()), ["1", "2"]);
    }
    assert_eq!(split(b"[]", 1).unwrap().records, 0);
}

#[test]
fn what_is_no_array_or_ends_early_is_an_error_and_never_silence() {
    let whole = blob(&[send("1"), other("2"), send("3")]);
    for end in 0..whole.len() {
        let error = split(&whole[..end], 50).unwrap_err();
        assert_eq!(error.code(), Code::ContentUnreadable, "{end}");
    }
    for text in ["", "<html>busy</html>", r#"{"error":{"code":"AF50000"}}"#, "[{}", "[{},", "nul"] {
        assert_eq!(split(text.as_bytes(), 3).unwrap_err().code(), Code::ContentUnreadable, "{text}");
    }
}

#[test]
fn a_record_that_is_too_large_is_cut_and_its_neighbours_are_not() {
    let large =
        with("large", |record| drop(record.insert("Extra".into(), json!("x".repeat(limits::RECORD_BYTES + 10)))));
    let fits =
        with("fits", |record| drop(record.insert("Extra".into(), json!("y".repeat(limits::RECORD_BYTES - 300_000)))));
    let blob = blob(&[send("a"), large, fits, send("b")]);
    let all = split(&blob, 60_000).unwrap();
    assert_eq!(ids(&all), ["a", "fits", "b"]);
    assert_eq!(all.unreadable.len(), 1);
    assert_eq!(all.unreadable[0].reason, "the record is larger than a record may be");
    assert_eq!(all.unreadable[0].raw.len(), limits::QUARANTINE_BYTES);
    // The same, but broken: everything up to the next record is one.
    let broken =
        format!("[{},{{\"CreationTime\":\"{}\" x,{}]", send("a"), "z".repeat(limits::RECORD_BYTES * 2), send("b"));
    let all = split(broken.as_bytes(), 1 << 20).unwrap();
    assert_eq!((ids(&all), all.unreadable.len()), (vec!["a", "b"], 1));
}

/// Any JSON value, with the characters that make splitting hard.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        r#"[\[\]{}",:\\a-z\u{e9}\u{1f600}]{0,12}"#.prop_map(Value::from),
        Just(json!("Send")),
        Just(json!("},{\"CreationTime\":")),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(r#"[{}"\\A-C]{0,4}|Operation|Id"#, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn record() -> impl Strategy<Value = Value> {
    let operation = prop_oneof![Just("Send"), Just("SendAs"), Just("SendOnBehalf"), Just("Update"), Just("Create")];
    (operation, prop::collection::btree_map("[A-F]{1,3}", value(), 0..4), any::<bool>()).prop_map(
        |(operation, extra, is_whole)| {
            let mut record = send("id").as_object().unwrap().clone();
            if !is_whole {
                record.remove("Item");
            }
            record.extend(extra);
            record.insert("Operation".into(), json!(operation));
            Value::Object(record)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The law: however a blob is cut, it gives what a JSON parser that has it whole gives.
    #[test]
    fn any_cut_gives_what_a_whole_parse_gives(records in prop::collection::vec(record(), 0..6), piece in 1usize..200, is_pretty: bool) {
        let text = if is_pretty { serde_json::to_vec_pretty(&records) } else { serde_json::to_vec(&records) }.unwrap();
        let expected: Vec<SendRecord> = records.iter().filter_map(|record| read_send(&record.to_string()).unwrap()).collect();
        let all = split(&text, piece).unwrap();
        prop_assert_eq!(all.records as usize, records.len());
        prop_assert_eq!(all.bytes as usize, text.len());
        prop_assert_eq!(all.sends, expected);
        prop_assert_eq!(all.unreadable, vec![]);
    }

    /// Hostile bytes: no panic, and the same for every cut.
    #[test]
    fn hostile_bytes_give_the_same_however_they_are_cut(text in r#"(\[|\]|\{|\}|,|:|"|\\|"Id":"a"|\{"CreationTime":"x"|Send| ){0,60}"#, piece in 1usize..20) {
        let text = format!("[{text}");
        let summary = |piece| split(text.as_bytes(), piece).map(|all| (all.records, all.unreadable)).map_err(|error| error.code());
        prop_assert_eq!(summary(piece), summary(100_000));
    }

    /// One record is damaged by a byte: the others come through.
    #[test]
    fn a_damaged_byte_costs_one_record(at in 0usize..500, byte in prop::sample::select(b"{}[],:\"\\x".to_vec()), piece in 1usize..300) {
        let records: Vec<Value> = (0..9).map(|n| send(&format!("id{n}"))).collect();
        let mut text = blob(&records);
        let start = memmem::find(&text, b"\"id4\"").unwrap() - 100;
        let length = records[4].to_string().len() - 1;
        text[start.max(1) + at % (length - 150)] = byte;
        if let Ok(all) = split(&text, piece) {
            let found = ids(&all);
            for n in [0, 1, 2, 6, 7, 8] {
                let id = format!("id{n}");
                prop_assert!(found.contains(&id.as_str()), "{} is lost: {:?}", id, all.unreadable);
            }
        } else {
            prop_assert!(false, "the blob was given up: {}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn attachments_come_back_as_they_were_joined(names in prop::collection::vec("[a-z0-9 .;(){}-]{0,12}[a-z.]", 1..6), sizes in prop::collection::vec(any::<u32>(), 6)) {
        let expected: Vec<NamedAttachment> = names.iter().zip(&sizes).map(|(name, size)| attachment(name.trim_start(), u64::from(*size))).collect();
        let text: Vec<String> = expected.iter().zip(&sizes).map(|(one, size)| format!("{} ({size}b)", one.name)).collect();
        prop_assume!(!names.iter().any(|name| name.contains("b); ") ));
        prop_assert_eq!(parse_attachments(&text.join("; ")), expected);
    }

    #[test]
    fn the_wide_search_finds_what_the_narrow_one_finds(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let narrow = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(bytes.len());
        prop_assert_eq!(to_quote(&bytes), narrow);
    }
}
