//! File events that look like those of an organisation, and are the same each time.

use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use uuid::Uuid;
use waybill::event::schema::TableName;
use waybill::event::{FileEvent, HashStatus};
use waybill::lake::{Commit, Lake, Maintenance};

/// Days of the lake of [`lake`].
pub(crate) const LAKE_DAYS: usize = 90;

/// So many events on so many days.
#[derive(Clone, Copy)]
pub(crate) struct Events {
    pub(crate) rows: usize,
    pub(crate) days: usize,
}

impl Events {
    /// The last day is always the same, so that the days that the cookbook asks for are among them.
    pub(crate) fn first_day(self) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, 16).expect("a day") - chrono::Days::new(self.days as u64)
    }

    /// Row `index`: days in order, some people and partners write far more than others.
    pub(crate) fn event(self, index: usize) -> FileEvent {
        let Self { rows, days } = self;
        const KINDS: [(&str, &str, &str); 8] = [
            ("pdf", "Pdf", "application/pdf"),
            ("docx", "Document", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            ("xlsx", "Spreadsheet", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            ("png", "Image", "image/png"),
            ("jpg", "Image", "image/jpeg"),
            ("zip", "Archive", "application/zip"),
            ("csv", "Spreadsheet", "text/csv"),
            ("py", "SourceCode", "text/x-python"),
        ];
        let random = |salt: u64| mixed(index as u64 * 31 + salt);
        let skewed = |salt: u64, most: usize| {
            let share = (random(salt) >> 11) as f64 / (1_u64 << 53) as f64;
            ((share * share * share) * most as f64) as usize
        };
        let sender = address(skewed(1, 5_000));
        let domain = match random(2) % 10 {
            0..=4 => "contoso.example".to_owned(),
            5 => ["gmail.com", "outlook.com", "gmx.de", "proton.me"][(random(3) % 4) as usize].to_owned(),
            _ => format!("partner{}.example", skewed(4, 3_000)),
        };
        let recipients: Vec<String> =
            (0..1 + random(5) % 3).map(|n| format!("to{}@{domain}", random(6 + n) % 500)).collect();
        let (extension, category, mime) = KINDS[skewed(9, KINDS.len())];
        let day = index * days / rows;
        let second = (index * days % rows) * 86_400 / rows;
        let start = self.first_day().and_hms_opt(0, 0, 0).expect("midnight").and_utc();
        let observed_at: DateTime<Utc> =
            start + chrono::Duration::days(day as i64) + chrono::Duration::seconds(second as i64);
        let text = |text: String| Some(text);
        FileEvent {
            event_id: Uuid::from_u64_pair(random(20), random(21)).to_string(),
            observed_at,
            inserted_at: observed_at + chrono::Duration::minutes(70),
            file_name: text(format!(
                "{} {}.{extension}",
                ["Report", "Offer", "Plan", "Invoice"][(random(10) % 4) as usize],
                random(11) % 100_000
            )),
            file_extension: text(extension.to_owned()),
            file_size_bytes: Some(1 << (8 + random(12) % 16)),
            sha256: text(hash(index, 64)),
            md5: text(hash(index, 32)),
            hash_status: HashStatus::Hashed,
            hash_error: None,
            sender: text(sender.clone()),
            from_address: text(sender.clone()),
            recipient_domains: vec![domain],
            to_recipients: recipients.clone(),
            recipients,
            cc_recipients: vec![],
            bcc_recipients: vec![],
            subject: text(format!("Re: project {} {}", random(13) % 1_000, random(14) % 100_000)),
            internet_message_id: text(format!("<{:x}@contoso.example>", random(15))),
            mailbox: text(sender.clone()),
            connection_id: Uuid::from_u128(1).to_string(),
            connection_name: "bench".to_owned(),
            file_category: category.to_owned(),
            mime_type: text(mime.to_owned()),
            mime_type_by_bytes: text(mime.to_owned()),
            mime_type_by_extension: text(mime.to_owned()),
            attachment_kind: text("file".to_owned()),
            is_inline: Some(random(16) % 5 == 0),
            source_url: None,
            attachment_id: text(format!("AAMk{:x}", random(17))),
            store_size_bytes: Some(1 << 20),
            file_path: None,
            audit_record_ids: vec![Uuid::from_u64_pair(random(18), random(19)).to_string()],
            audit_operation: text("Send".to_owned()),
            actor: text(sender),
            client_ip: text("192.0.2.1".to_owned()),
            client_info: text("Client=OWA".to_owned()),
            app_id: None,
            tenant_id: text(Uuid::from_u128(2).to_string()),
            mailbox_guid: text(Uuid::from_u128(3).to_string()),
            content_blob_id: text(format!("{}", random(22))),
            run_id: Uuid::from_u128(4).to_string(),
        }
    }

    /// Commits the rows as runs do, at least `commits` a day and at most `rows_at_once` in each, and merges them as maintenance
    /// does.
    pub(crate) async fn fill(self, lake: &Lake, rows_at_once: usize, commits: usize) {
        let Self { rows, days } = self;
        lake.create().await.expect("the lake is made");
        let (mut writer, _) = lake.writer::<Value>(Uuid::from_u128(1), Uuid::from_u128(4)).await.expect("a writer");
        // The first row of each commit: it ends with its day, so that each touches one.
        let starts = (0..days).flat_map(|day| {
            let (first, next) = ((day * rows).div_ceil(days), ((day + 1) * rows).div_ceil(days));
            (first..next).step_by(rows_at_once.min((next - first).div_ceil(commits)).max(1))
        });
        let mut starts: Vec<usize> = starts.collect();
        starts.push(rows);
        let make = |from: usize, to: usize| {
            tokio::task::spawn_blocking(move || (from..to).map(|index| self.event(index)).collect::<Vec<_>>())
        };
        let mut next = make(starts[0], starts[1]);
        for (place, _) in starts.iter().enumerate().skip(1) {
            let rows = next.await.expect("rows are made");
            // The next rows are made while these are committed.
            next = make(starts[place], starts.get(place + 1).copied().unwrap_or(starts[place]));
            let commit = Commit { rows, replaces: Vec::new(), outbox: Default::default(), state: json!({}) };
            writer.commit(commit).await.expect("the commit lands");
        }
        let maintenance = Maintenance { vacuum_after: Some(chrono::Duration::zero()), ..Maintenance::default() };
        lake.maintain(&[Uuid::from_u128(1)], maintenance).await.expect("the lake is maintained");
    }
}

/// The lake of `queries` and `analysts`, so many rows in [`LAKE_DAYS`] days: the one that `WAYBILL_BENCH_LAKE` keeps, or a new one.
pub(crate) fn lake(runtime: &tokio::runtime::Runtime, rows: usize, scratch: &Path) -> (Lake, PathBuf) {
    /// Rows of one commit; about 300 MB in memory, and a file that needs no merging.
    const ROWS_AT_ONCE: usize = 190_000;
    let kept = std::env::var_os("WAYBILL_BENCH_LAKE").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| scratch.to_owned()).join(format!("lake-{rows}"));
    let lake = Lake::at(folder.to_str().expect("a path in UTF-8")).expect("a path is a lake");
    if !folder.exists() {
        runtime.block_on(Events { rows, days: LAKE_DAYS }.fill(&lake, ROWS_AT_ONCE, 2));
    }
    (lake, folder)
}

/// The data files of a table's present version.
pub(crate) async fn data_files(lake: &Lake, folder: &Path, table: TableName) -> Vec<PathBuf> {
    let Some(opened) = lake.table_if_there(table).await.expect("the lake can be read") else { return Vec::new() };
    let files = opened.files().await.expect("the log can be read");
    files.iter().map(|file| folder.join(table.as_str()).join(file.path.as_ref())).collect()
}

/// Numbers that look random and are the same each time (SplitMix64, Steele et al. 2014).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hash of row `index`; every tenth file was sent before.
pub(crate) fn hash(index: usize, digits: usize) -> String {
    let file = if index % 10 == 9 { index / 2 } else { index } as u64;
    let text: String = (0..4).map(|part| format!("{:016x}", mixed(file * 4 + part))).collect();
    text[..digits].to_owned()
}

/// Somebody of the organisation.
pub(crate) fn address(person: usize) -> String {
    format!("person{person}@contoso.example")
}
