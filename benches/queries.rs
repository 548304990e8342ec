//! Forensic Search against DuckDB on the same Parquet files: every query of the cookbook, and the looks-ups of an incident.
//!
//! See `benches/README.md`. The peer is DuckDB in a process of its own (`benches/duckdb_peer.py`), which reads the data files
//! that the table's present version names; both sides are warm, and take turns.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use support::peer::Python;
use support::{machine, number, own_cpu_exactly, spread, table};
use uuid::Uuid;
use waybill::clock::Clock;
use waybill::event::schema::TableName;
use waybill::event::{FileEvent, HashStatus};
use waybill::lake::{Commit, Lake, Maintenance};
use waybill::search::{Asker, Engine, Surface};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Days that the lake covers.
const DAYS: usize = 90;

/// Rows of one commit while the lake is made; about 300 MB in memory, and a file that needs no merging.
const ROWS_AT_ONCE: usize = 190_000;

/// The questions of an incident, beside the cookbook's.
const QUESTIONS: [(&str, &str); 5] = [
    ("a hash", "SELECT event_id, sender, recipients FROM file_events WHERE sha256 = '{sha256}'"),
    (
        "twenty hashes",
        "SELECT sha256, count(*) AS n FROM file_events WHERE sha256 IN ({hashes}) GROUP BY sha256 ORDER BY sha256",
    ),
    (
        "a sender's week",
        "SELECT observed_at, file_name, recipients FROM file_events WHERE sender = '{sender}' \
         AND event_date BETWEEN DATE '{from}' AND DATE '{to}' ORDER BY observed_at",
    ),
    (
        "the newest 100",
        "SELECT event_id, observed_at, sender, file_name FROM file_events ORDER BY observed_at DESC LIMIT 100",
    ),
    (
        "per day",
        "SELECT event_date, count(*) AS n, sum(file_size_bytes) AS bytes FROM file_events GROUP BY event_date ORDER BY event_date",
    ),
];

fn main() {
    let rows = number("WAYBILL_BENCH_ROWS", 1_000_000);
    let rounds = number("WAYBILL_BENCH_ROUNDS", 5);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let kept = std::env::var_os("WAYBILL_BENCH_LAKE").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| scratch.path().to_owned()).join(format!("lake-{rows}"));
    let lake = Lake::at(folder.to_str().expect("a path in UTF-8")).expect("a path is a lake");
    if !folder.exists() {
        runtime.block_on(fill(&lake, rows));
    }
    let files = runtime.block_on(files(&lake, &folder, TableName::FileEvents));
    let bytes: u64 = files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
    let mut peer = Peer::start();
    peer.table(TableName::FileEvents, &files);
    let engine = runtime.block_on(async { Engine::new(lake.clone(), Clock::default()) }).expect("an engine");

    let mut sail = (number("WAYBILL_BENCH_SAIL", 0) > 0).then(|| Sail::start(&folder));

    let head = ["query", "rows", "waybill ms", "duckdb ms", "waybill / duckdb", "cpu"].into_iter();
    let mut lines = vec![head.chain(sail.iter().map(|_| "sail ms")).map(str::to_owned).collect::<Vec<_>>()];
    let mut medians = Vec::new();
    for (name, statement) in questions(rows) {
        for table in [TableName::Gaps, TableName::Searches] {
            if statement.contains(&format!("FROM {table}")) {
                runtime.block_on(engine.close()).expect("the searches until now are written");
                peer.table(table, &runtime.block_on(self::files(&lake, &folder, table)));
            }
        }
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        let mut cpu = [Duration::ZERO; 2];
        let mut answer = 0;
        let mut failed = None;
        for round in 0..=rounds {
            let before = own_cpu_exactly();
            let (own, count) = runtime.block_on(ask(&engine, &statement));
            let own_cpu = own_cpu_exactly().saturating_sub(before);
            match peer.ask(&statement) {
                Ok((other, other_cpu, others)) => {
                    if count != others {
                        failed = Some(format!("{count} rows, and the peer has {others}"));
                    }
                    // The first round warms both.
                    if round > 0 {
                        ours.push(own.as_secs_f64() * 1e3);
                        theirs.push(other.as_secs_f64() * 1e3);
                        cpu[0] += own_cpu;
                        cpu[1] += other_cpu;
                    }
                }
                Err(error) => failed = Some(error),
            }
            answer = count;
        }
        if let Some(why) = failed {
            lines.push(vec![name, answer.to_string(), String::new(), String::new(), why]);
            continue;
        }
        let ratios = spread(ours.iter().zip(&theirs).map(|(own, other)| own / other));
        medians.push(ratios.median);
        let line = vec![
            name,
            answer.to_string(),
            spread(ours).text(1),
            spread(theirs).text(1),
            ratios.text(2),
            format!("{:.2}", cpu[0].as_secs_f64() / cpu[1].as_secs_f64()),
        ];
        lines.push(line.into_iter().chain(sail.as_mut().map(|sail| sail.ask(&statement))).collect());
    }
    let mean = (medians.iter().map(|ratio| ratio.ln()).sum::<f64>() / medians.len() as f64).exp();
    lines.push(vec![
        format!("geometric mean of {}", medians.len()),
        String::new(),
        String::new(),
        String::new(),
        format!("{mean:.2}"),
    ]);
    let title = format!("{rows} rows, {} files, {} MB; {}", files.len(), bytes >> 20, machine());
    table(&title, &lines);
}

/// The incident's questions with values that the lake holds, then the cookbook's queries.
fn questions(rows: usize) -> Vec<(String, String)> {
    let value = |index: usize| hash(index % rows, 64);
    let hashes: Vec<String> = (0..20).map(|index| format!("'{}'", value(index * 7919))).collect();
    let day = |back: usize| first_day() + chrono::Days::new((DAYS - back) as u64);
    let fill = |text: &str| {
        text.replace("{sha256}", &value(rows / 2))
            .replace("{hashes}", &hashes.join(", "))
            .replace("{sender}", &address(17))
            .replace("{from}", &day(27).to_string())
            .replace("{to}", &day(20).to_string())
    };
    let mut questions: Vec<_> = QUESTIONS.iter().map(|(name, text)| ((*name).to_owned(), fill(text))).collect();
    let only = std::env::var("WAYBILL_BENCH_ONLY").ok();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cookbook.md"));
    for section in page.unwrap_or_default().split("\n## ").skip(1) {
        let name = section.lines().next().unwrap_or_default().to_owned();
        for block in section.split("```sql\n").skip(1) {
            let statement = block.split("```").next().unwrap_or_default().trim().trim_end_matches(';');
            questions.push((name.clone(), with_values(statement, rows)));
        }
    }
    questions.retain(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str())));
    questions
}

/// The cookbook's examples of values, replaced by some that the lake holds.
fn with_values(statement: &str, rows: usize) -> String {
    let example = |digits: usize, number: usize| format!("{number:0digits$}");
    let mut statement =
        statement.replace("ann@contoso.example", &address(17)).replace("eve@contoso.example", &address(4));
    for number in 1..=2 {
        for digits in [64, 32] {
            statement = statement.replace(&example(digits, number), &hash(rows / 3 * number, digits));
        }
    }
    statement
}

async fn ask(engine: &Engine, statement: &str) -> (Duration, usize) {
    let began = Instant::now();
    let search = engine.search(&Asker::local("bench".to_owned(), Surface::Shell)).await.expect("the lake opens");
    let answer = search.sql(statement).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    let batches = answer.collect().await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    (began.elapsed(), batches.iter().map(arrow::array::RecordBatch::num_rows).sum())
}

/// The data files of a table's present version.
async fn files(lake: &Lake, folder: &Path, table: TableName) -> Vec<PathBuf> {
    let Some(opened) = lake.table_if_there(table).await.expect("the lake can be read") else { return Vec::new() };
    let files = opened.files().await.expect("the log can be read");
    files.iter().map(|file| folder.join(table.as_str()).join(file.path.as_ref())).collect()
}

/// DuckDB in a process of its own (`benches/duckdb_peer.py`).
struct Peer(Python);

impl Peer {
    fn start() -> Self {
        let mut python = Python::start("duckdb_peer.py", &[]);
        let free_mail = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/personal-mail-domains.txt");
        let free_mail = std::fs::read_to_string(free_mail).expect("the list of domains is part of the repository");
        let lines = free_mail.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let free_mail: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let settings = std::env::var("WAYBILL_BENCH_DUCKDB").unwrap_or_default();
        let settings: Vec<&str> = settings.split(';').filter(|setting| !setting.is_empty()).collect();
        python.ask(&json!({"free_mail": free_mail, "settings": settings}));
        Self(python)
    }

    fn table(&mut self, table: TableName, files: &[PathBuf]) {
        let files: Vec<&str> = files.iter().filter_map(|path| path.to_str()).collect();
        let columns = &waybill::event::schema::table(table).columns;
        let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let told = self.0.ask(&json!({"table": table.as_str(), "files": files, "columns": columns}));
        assert!(told["error"].is_null(), "{told}");
    }

    /// Time, CPU time of all its threads, and rows.
    fn ask(&mut self, statement: &str) -> Result<(Duration, Duration, usize), String> {
        let told = self.0.ask(&json!({"statement": statement}));
        match told["error"].as_str() {
            Some(error) => Err(error.lines().next().unwrap_or_default().chars().take(60).collect()),
            None => {
                let seconds = |name| Duration::from_secs_f64(told[name].as_f64().expect("it tells its time"));
                let rows = told["rows"].as_u64().expect("it counts rows");
                Ok((seconds("seconds"), seconds("cpu"), usize::try_from(rows).expect("a count of rows")))
            }
        }
    }
}

/// Sail in processes of its own (`benches/sail_peer.py`), which reads the table's log itself.
struct Sail(Python);

impl Sail {
    fn start(lake: &Path) -> Self {
        let mut python = Python::start("sail_peer.py", &[]);
        let folder = lake.join(TableName::FileEvents.as_str());
        let told = python.ask(&json!({"table": TableName::FileEvents.as_str(), "folder": folder}));
        assert!(told["error"].is_null(), "{told}");
        Self(python)
    }

    /// The time of the second answer in milliseconds, or why there is none.
    fn ask(&mut self, statement: &str) -> String {
        self.0.ask(&json!({"statement": statement}));
        let told = self.0.ask(&json!({"statement": statement}));
        match told["seconds"].as_f64() {
            Some(seconds) => format!("{:.0}", seconds * 1e3),
            None => told["error"].as_str().unwrap_or_default().chars().take(30).collect(),
        }
    }
}

/// The days that the cookbook asks for are among those that follow.
fn first_day() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 8, 18).expect("a day")
}

/// Numbers that look random and are the same each time (SplitMix64, Steele et al. 2014).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hash of row `index`; every tenth file was sent before.
fn hash(index: usize, digits: usize) -> String {
    let file = if index % 10 == 9 { index / 2 } else { index } as u64;
    let text: String = (0..4).map(|part| format!("{:016x}", mixed(file * 4 + part))).collect();
    text[..digits].to_owned()
}

fn address(person: usize) -> String {
    format!("person{person}@contoso.example")
}

/// Row `index` of `rows`: days in order, some people and partners write far more than others.
fn event(index: usize, rows: usize) -> FileEvent {
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
    let day = index * DAYS / rows;
    let second = (index * DAYS % rows) * 86_400 / rows;
    let start = first_day().and_hms_opt(0, 0, 0).expect("midnight").and_utc();
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

/// Commits the rows as runs do, a few commits a day, and merges them as maintenance does.
async fn fill(lake: &Lake, rows: usize) {
    lake.create().await.expect("the lake is made");
    let (mut writer, _) = lake.writer::<Value>(Uuid::from_u128(1), Uuid::from_u128(4)).await.expect("a writer");
    // The first row of each commit: it ends with its day, so that each touches one.
    let starts = (0..DAYS).flat_map(|day| {
        let (first, next) = ((day * rows).div_ceil(DAYS), ((day + 1) * rows).div_ceil(DAYS));
        (first..next).step_by(ROWS_AT_ONCE.min((next - first).div_ceil(2)).max(1))
    });
    let mut starts: Vec<usize> = starts.collect();
    starts.push(rows);
    let make = |from: usize, to: usize| {
        tokio::task::spawn_blocking(move || (from..to).map(|index| event(index, rows)).collect::<Vec<_>>())
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
