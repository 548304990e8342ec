//! `waybill schedule`: a service that runs job files, and what it renders for other schedulers, held to their own tools.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDateTime, TimeZone as _, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use waybill::job::JobFile;
use waybill::job::render::{self, Order, Target};

use crate::support::tools::{is_offline, python, python_of, tool};
use crate::support::{Lake, Process, Tenant, wait_for, waybill, write};

/// How long a test waits for something that takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that listens, and what it logs.
struct Service {
    url: String,
    process: Process,
    log: std::fs::File,
}

impl Service {
    fn start(lake: &Lake, arguments: &[&str]) -> Self {
        let log = tempfile::tempfile().unwrap();
        let mut command = lake.command(&["schedule", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        command.args(arguments).stdout(Stdio::piped()).stderr(log.try_clone().unwrap());
        let mut process = Process::start(&mut command);
        let mut line = String::new();
        BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut service = Self { url: String::new(), process, log };
        let announcement: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", service.text()));
        service.url = announcement["listen"].as_str().unwrap().to_owned();
        service
    }

    fn get(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.url);
        wait_for(async move {
            let answer = reqwest::get(url).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    /// The jobs of the health page, once they are as the test wants them.
    fn jobs(&mut self, are: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let (status, text) = self.get("/healthz");
            let page: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((status, &page["status"]), (200, &json!("ok")));
            let jobs = page["jobs"].as_array().unwrap();
            if are(jobs) {
                return jobs.clone();
            }
            assert!(self.process.is_running() && started.elapsed() < PATIENCE, "{page:#}\n{}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        self.log.rewind().unwrap();
        self.log.read_to_string(&mut text).unwrap();
        text
    }

    /// SIGTERM; the exit code, and the log, which has to be JSON lines.
    fn stop(mut self) -> (i32, Vec<Value>) {
        let id = self.process.child().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let code = self.process.child().wait().unwrap().code().unwrap();
        let text = self.text();
        (code, text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect())
    }
}

fn jobs_folder(lake: &Lake, jobs: &[(&str, &str)]) -> String {
    let folder = lake.beside().join("jobs");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, others) in jobs {
        // At no time at which a test runs.
        write(&folder.join(format!("{name}.toml")), format!("name = \"{name}\"\ncron = \"0 0 29 2 *\"\n{others}\n"));
    }
    folder.to_str().unwrap().to_owned()
}

fn has_ended(jobs: &[Value]) -> bool {
    jobs.iter().all(|job| job["last"].is_object() && job["is_running"] == false)
}

#[test]
fn the_service_runs_a_job_tells_how_it_ended_and_stops_with_0_when_it_is_idle() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail \"\\ one", &[]);
    let jobs = jobs_folder(&lake, &[("hourly", "")]);
    let mut service = Service::start(&lake, &["--jobs", &jobs, "--once-at-start"]);
    assert_eq!(service.get("/readyz").0, 200);
    let job = &service.jobs(has_ended)[0];
    assert_eq!((&job["job"], &job["cron"], &job["timezone"]), (&json!("hourly"), &json!("0 0 29 2 *"), &json!("UTC")));
    let next = job["next_fire"].as_str().unwrap();
    assert!(next[4..].starts_with("-02-29T00:00:"), "{next}");
    assert_eq!(job["last"]["exit_code"], 0);
    let run = json!([{ "connection": "mail \"\\ one", "outcome": "done", "exit_code": 0, "error": null }]);
    assert_eq!(job["last"]["runs"], run);
    assert!(lake.count("SELECT count(*) FROM file_events") > 30);
    if !is_offline() {
        python("schedulers.py", &["metrics", &format!("{}/metrics", service.url)]);
    }
    assert_eq!(service.get("/").0, 404, "nothing else is there");
    let (code, log) = service.stop();
    assert_eq!(code, 0);
    let messages: Vec<&str> = log.iter().filter_map(|line| line["message"].as_str()).collect();
    for message in ["schedule begins", "job begins, as the service does", "run begins", "job ends", "schedule ends"] {
        assert!(messages.contains(&message), "{message}: {messages:?}");
    }
}

/// Danger: a signal to the service loses what a run has read. Provoked: SIGTERM while the tenant is slow.
#[test]
fn a_service_that_is_stopped_amid_a_run_ends_with_130_and_the_run_commits() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    tenant.faults(&json!([{ "on": "attachment_value", "do": { "latency_ms": 60_000 } }]));
    let jobs = jobs_folder(&lake, &[("hourly", "")]);
    let mut service = Service::start(&lake, &["--jobs", &jobs, "--once-at-start"]);
    service.jobs(|jobs| jobs[0]["is_running"] == true);
    let asked = |tenant: &Tenant| tenant.report().to_string().contains("attachment");
    let started = Instant::now();
    while !asked(&tenant) && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, _) = service.stop();
    assert_eq!(code, 130);
    assert_eq!(lake.sql("SELECT outcome FROM runs"), [json!({ "outcome": "interrupted" })]);
    tenant.faults(&json!([]));
    lake.run_done("mail");
    assert!(lake.count("SELECT count(*) FROM file_events") > 30);
}

#[test]
fn a_job_that_fails_stops_neither_the_service_nor_the_other_jobs() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    let secret = write(&lake.beside().join("secret"), "wrong\n");
    lake.add(&tenant, "good", &[]);
    lake.add(&tenant, "bad", &["--client-secret-file", secret.to_str().unwrap()]);
    let jobs = jobs_folder(
        &lake,
        &[
            ("a", "connections = [\"nobody\"]"),
            ("b", "connections = [\"bad\"]"),
            ("c", "connections = [\"good\"]"),
            ("d", "lake = \"/nowhere\""),
        ],
    );
    let mut service = Service::start(&lake, &["--jobs", &jobs, "--once-at-start"]);
    let ended = service.jobs(has_ended);
    let codes: Vec<_> = ended.iter().map(|job| job["last"]["exit_code"].clone()).collect();
    assert_eq!(codes, [2, 12, 0, 10]);
    assert_eq!(ended[0]["last"]["error"], "there is no connection `nobody`; there is `bad`, `good`");
    let run = &ended[1]["last"]["runs"][0];
    assert!(run["error"].as_str().unwrap().contains("AADSTS7000215"), "{run}");
    let page = service.get("/metrics").1;
    for line in [
        "waybill_job_ends_total{job=\"a\",exit_code=\"2\"} 1",
        "waybill_runs_total{connection=\"bad\",outcome=\"failed\"} 1",
        "waybill_runs_total{connection=\"good\",outcome=\"done\"} 1",
    ] {
        assert!(page.lines().any(|other| other == line), "{line}\n{page}");
    }
    let (code, log) = service.stop();
    assert_eq!(code, 0, "what failed was told, and the service did its work");
    let failed = log.iter().find(|line| line["message"] == "run failed").unwrap();
    assert_eq!((&failed["level"], &failed["code"]), (&json!("ERROR"), &json!("secret-refused")));
    assert!(failed["hint"].as_str().unwrap().starts_with("Put the secret's value"));
}

#[test]
fn jobs_that_name_one_connection_run_it_one_after_the_other() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    tenant.faults(&json!([{ "on": "attachment_value", "do": { "latency_ms": 1_000 } }]));
    let jobs = jobs_folder(&lake, &[("a", ""), ("b", "")]);
    let mut service = Service::start(&lake, &["--jobs", &jobs, "--once-at-start"]);
    let ended = service.jobs(has_ended);
    for job in &ended {
        assert_eq!(job["last"]["exit_code"], 0, "one would end with 11 if both ran at once: {job:#}");
    }
    let (_, log) = service.stop();
    let waiting = log.iter().filter(|line| line["message"] == "another job runs this connection: waiting");
    assert_eq!(waiting.count(), 1);
    let overlaps = "SELECT count(*) FROM runs a, runs b WHERE a.run_id <> b.run_id \
                    AND a.started_at < b.finished_at AND b.started_at < a.finished_at";
    assert_eq!((lake.count("SELECT count(*) FROM runs"), lake.count(overlaps)), (2, 0));
}

#[test]
fn what_cannot_work_is_said_before_the_service_begins() {
    let lake = Lake::temp();
    let failed = |arguments: &[&str]| {
        let output = lake.command(&["schedule"]).args(arguments).output().unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let folder = jobs_folder(&lake, &[]);
    let (code, text) = failed(&["--jobs", &folder]);
    assert_eq!(
        (code, text.lines().next().unwrap()),
        (2, &*format!("error: there is no job file (*.toml) in `{folder}`"))
    );
    let file = write(&Path::new(&folder).join("x.toml"), "name = \"x\"\ncron = \"0 25 * * *\"\n");
    let (code, text) = failed(&["--jobs", file.to_str().unwrap()]);
    assert!(code == 2 && text.contains("line 2") && text.contains("the hour `25` cannot be"), "{text}");
    write(&file, "name = \"x\"\ncron = \"0 2 * * *\"\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, text) = failed(&["--jobs", &folder, "--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(code == 2 && text.starts_with("error: cannot listen on `127.0.0.1:"), "{text}");
    let output = waybill().args(["schedule", "--jobs", &folder]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: no lake was named"));
}

// --- Rendered for others.

const NIGHTLY: &str = "# Twice: \"quoted\" and 'quoted', and\ttabs\n\nname = \"Nightly (EU)\"\ncron = \"30 2 * * MON-FRI\"\n\
                       timezone = \"Europe/Berlin\"\njitter = \"5m\"\n\n[maintain]\n";

/// `waybill schedule render` with a job file; the folder that holds what it wrote.
fn rendered(target: &str, job: &str, others: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder.path().join("it's a job.toml"), job);
    let out = folder.path().join("out");
    let mut command = waybill();
    command.args(["schedule", "render", target, "--job", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    command.args(["--secret", "WAYBILL_SECRET"]).args(others);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let paths = String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect();
    (folder, paths)
}

#[test]
fn systemd_accepts_the_units_and_finds_little_exposed() {
    if is_offline() {
        return;
    }
    for lake in ["s3://bucket/100% \"mine\"", "/srv/wayb\\ill lake"] {
        let (_folder, units) = rendered("systemd", NIGHTLY, &["--lake", lake]);
        assert_eq!(units.len(), 2);
        let output = tool("systemd-analyze").arg("verify").args(&units).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.is_empty(), "{text}");
        // What it says of a unit of a hundred points; a service without any sandbox has 96.
        let output = tool("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20"])
            .arg(&units[0])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Danger: the sandbox kills a run for a system call that it needs.
#[test]
fn a_run_needs_no_system_call_that_the_unit_forbids() {
    if is_offline() {
        return;
    }
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    let job = write(&lake.beside().join("job.toml"), NIGHTLY);
    let traced = lake.command(&["run", "--job", job.to_str().unwrap()]);
    let counts = lake.beside().join("counts");
    let mut command = tool("strace");
    command.args(["-f", "-c", "-o"]).arg(&counts).arg(traced.get_program()).args(traced.get_args());
    command.envs(traced.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut allowed, forbidden) = (system_calls("@system-service"), system_calls("@privileged"));
    allowed.retain(|call| !forbidden.contains(call));
    let text = std::fs::read_to_string(counts).unwrap();
    let used = text
        .lines()
        .skip(2)
        .take_while(|line| !line.starts_with('-'))
        .filter_map(|line| line.split_whitespace().last());
    let refused: Vec<&str> = used.filter(|call| !allowed.iter().any(|other| other == call)).collect();
    assert_eq!(refused, [] as [&str; 0]);
    assert!(text.contains("connect"), "{text}");
}

fn system_calls(set: &str) -> Vec<String> {
    let output = tool("systemd-analyze").args(["syscall-filter", set]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#') && *line != set);
    lines.flat_map(|line| if line.starts_with('@') { system_calls(line) } else { vec![line.to_owned()] }).collect()
}

/// When systemd's calendar events fire.
fn elapses(events: &[String], start: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
    let mut all = Vec::new();
    for event in events {
        let base = format!("--base-time={}", start.format("%Y-%m-%d %H:%M:%S UTC"));
        let mut command = tool("systemd-analyze");
        command.env("TZ", "UTC").args(["calendar", &format!("--iterations={count}"), &base, event]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{event}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let times = text.lines().filter(|line| line.contains("Next elapse:") || line.trim_start().starts_with("Iter"));
        all.extend(times.map(|line| {
            let words: Vec<&str> = line.split_whitespace().rev().collect();
            let time = format!("{} {}", words[2], words[1]);
            NaiveDateTime::parse_from_str(&time, "%Y-%m-%d %H:%M:%S").unwrap_or_else(|_| panic!("{line}")).and_utc()
        }));
    }
    all.sort_unstable();
    all.dedup();
    all.truncate(count);
    all
}

fn events(job: &JobFile) -> Vec<String> {
    let order = Order {
        job,
        text: "",
        path: "/job.toml",
        program: "/waybill",
        lake: Some("s3://bucket/lake"),
        image: None,
        secrets: &[],
        shards: 1,
    };
    let files = render::render(Target::Systemd, &order).unwrap();
    files[1].text.lines().filter_map(|line| line.strip_prefix("OnCalendar=")).map(str::to_owned).collect()
}

fn fires(job: &JobFile, start: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
    std::iter::successors(job.cron.next(start, job.timezone()), |at| job.cron.next(*at, job.timezone()))
        .take(count)
        .collect()
}

/// A cron field: `*`, a step, a list of values and ranges.
fn field(least: u16, greatest: u16) -> impl Strategy<Value = String> {
    let value = least..=greatest;
    let range = (value.clone(), value.clone()).prop_map(|(one, two)| format!("{}-{}", one.min(two), one.max(two)));
    let stepped = (range.clone(), 1..7_u16).prop_map(|(range, step)| format!("{range}/{step}"));
    let part = prop_oneof![value.prop_map(|value| value.to_string()), range, stepped];
    let list = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join(","));
    let step = (1..=greatest).prop_map(|step| format!("*/{step}"));
    prop_oneof![2 => Just("*".to_owned()), 1 => step, 3 => list]
}

#[test]
fn systemd_fires_when_cron_does() {
    if is_offline() {
        return;
    }
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let fields = (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7), 0_i64..365 * 86_400);
    proptest!(config, |((minute, hour, day, month, weekday, start) in fields)| {
        let cron = format!("{minute} {hour} {day} {month} {weekday}");
        // Schedulers disagree about these; Waybill refuses them, which its own tests show.
        prop_assume!(day == "*" || weekday == "*" || !format!("{day}{weekday}").contains('*'));
        let job = JobFile::parse(&format!("name = \"x\"\ncron = \"{cron}\"\n")).unwrap();
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap() + chrono::Duration::seconds(start);
        prop_assert_eq!(elapses(&events(&job), start, 6), fires(&job, start, 6), "{}", cron);
    });
    // In another time zone, from winter to winter but for the days of a change.
    let job = JobFile::parse(NIGHTLY).unwrap();
    for month in [1, 5, 11] {
        let start = Utc.with_ymd_and_hms(2026, month, 2, 0, 0, 0).unwrap();
        assert_eq!(elapses(&events(&job), start, 12), fires(&job, start, 12));
    }
}

#[test]
fn the_schemas_of_kubernetes_accept_the_cron_job() {
    if is_offline() {
        return;
    }
    let others = ["--lake", "s3://bucket/waybill", "--image", "registry.example/waybill:0.1.0"];
    let (folder, files) = rendered("kubernetes", NIGHTLY, &others);
    let job = folder.path().join("it's a job.toml");
    python("schedulers.py", &["kubernetes", files[0].to_str().unwrap(), job.to_str().unwrap()]);
    let (folder, files) = rendered("kubernetes", NIGHTLY, &[&others[..], &["--shards", "4"]].concat());
    let job = folder.path().join("it's a job.toml");
    python("schedulers.py", &["indexed", files[0].to_str().unwrap(), job.to_str().unwrap()]);
}

#[test]
fn airflow_imports_the_dags_and_runs_them_when_waybill_would() {
    if is_offline() {
        return;
    }
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &["--since", "9d"]);
    let folder = lake.beside().join("da gs");
    std::fs::create_dir(&folder).unwrap();
    let start = Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).unwrap();
    let mut expected = serde_json::Map::new();
    let jobs = [
        ("runs", "5 * * * *", "UTC"),
        ("steps", "*/7 1-23/3 * * *", "UTC"),
        ("names", "0 6 * JAN,FEB,DEC MON-FRI", "Europe/Berlin"),
        ("sunday", "30 23 * * 7", "America/New_York"),
        ("either", "0 0 13 * FRI", "UTC"),
        ("shards", "20 * * * *", "UTC"),
    ];
    for (name, cron, zone) in jobs {
        let text = format!("name = \"{name}\"\ncron = \"{cron}\"\ntimezone = \"{zone}\"\n");
        let file = write(&folder.join(format!("{name}'s.toml")), &text);
        let (file, out) = (file.to_str().unwrap(), folder.to_str().unwrap());
        let shards: &[&str] = if name == "shards" { &["--shards", "3"] } else { &[] };
        lake.text(&[&["schedule", "render", "airflow", "--job", file, "--out", out], shards].concat());
        let job = JobFile::parse(&text).unwrap();
        let fires: Vec<String> = fires(&job, start, 8).iter().map(DateTime::to_rfc3339).collect();
        let environment = json!({ "WAYBILL_TEST_SECRET_MAIL": tenant.get("client_secret") });
        let what = json!({ "start": start.to_rfc3339(), "fires": fires, "environment": environment });
        expected.insert(format!("waybill_{name}"), what);
    }
    write(&folder.join("expected.json"), Value::from(expected).to_string());
    python_of("airflow_python", "airflow_dag.py", &[folder.to_str().unwrap()]);
}

#[test]
fn a_secret_is_named_and_never_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder.path().join("job.toml"), NIGHTLY);
    for target in ["systemd", "kubernetes", "airflow"] {
        let mut command = waybill();
        command.args(["schedule", "render", target, "--job", file.to_str().unwrap(), "--lake", "s3://b/l"]);
        command.args(["--image", "i", "--secret", "WAYBILL_SECRET"]).env("WAYBILL_SECRET", "hunter2");
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("WAYBILL_SECRET") && !text.contains("hunter2"), "{text}");
    }
}
