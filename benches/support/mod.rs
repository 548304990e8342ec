//! What the benchmarks share: a simulated tenant, a run over it, and what the system says about both.
//!
//! Every process is one of its own, as in the field; nothing but `/proc` is asked for its time and memory.

#![allow(dead_code, reason = "each benchmark uses its part")]

pub(crate) mod counted;
pub(crate) mod duckdb;
pub(crate) mod events;
pub(crate) mod peer;
pub(crate) mod remote;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

/// The program, as `cargo bench` built it.
const WAYBILL: &str = env!("CARGO_BIN_EXE_waybill");

/// How often a running program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether the long form was asked for: `WAYBILL_BENCH=full`.
pub(crate) fn is_full() -> bool {
    std::env::var("WAYBILL_BENCH").is_ok_and(|value| value == "full")
}

/// A number from the environment, for trying things out.
pub(crate) fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// What the machine is, for the head of a table.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{cores} cores, load before: {load}, {}", if is_full() { "full" } else { "short" })
}

/// A simulated tenant in a process of its own.
pub(crate) struct Tenant {
    child: Child,
    told: Value,
}

impl Tenant {
    /// Starts one and waits until it listens.
    pub(crate) fn start(generate: &str, more: &[&str]) -> Self {
        let mut child = Command::new(WAYBILL)
            .args(["simulate", "--generate", generate])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the tenant says where it listens");
        let told = serde_json::from_str(&line).expect("the tenant's line is JSON");
        Self { child, told }
    }

    /// A word of the line that it printed.
    pub(crate) fn told(&self, name: &str) -> &str {
        self.told[name].as_str().unwrap_or_else(|| panic!("the tenant does not tell its `{name}`"))
    }

    /// Its users' addresses.
    pub(crate) fn users(&self) -> Vec<String> {
        let users = self.told["users"].as_array().expect("a list of users");
        users.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Signs in as the application, and gives the token for one of Microsoft's services.
    pub(crate) async fn sign_in(&self, client: &reqwest::Client, service: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
            self.told("client_id"),
            encoded(self.told("client_secret")),
            encoded(&format!("{service}/.default"))
        );
        let answer = client
            .post(format!("{}/{}/oauth2/v2.0/token", self.told("login"), self.told("tenant_id")))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .expect("the tenant answers");
        json(answer).await["access_token"].as_str().expect("a token").to_owned()
    }

    /// CPU time that it used so far.
    pub(crate) fn cpu(&self) -> Duration {
        stat(self.child.id()).map_or(Duration::ZERO, |(_, cpu)| cpu)
    }

    /// Runs Waybill over all of it, into a new lake.
    pub(crate) fn run(&self) -> Ran {
        self.run_since("2d", None)
    }

    /// Runs Waybill over what its feed holds since then, into a new lake; with a list, over the mailboxes of these users.
    pub(crate) fn run_since(&self, since: &str, users: Option<&[String]>) -> Ran {
        let scratch = TempDir::new().expect("a scratch directory");
        let lake = scratch.path().join("lake");
        let list = scratch.path().join("users.csv");
        let scope = match users {
            None => ["--scope", "all"],
            Some(users) => {
                let lines = format!("User principal name\n{}\n", users.join("\n"));
                std::fs::write(&list, lines).expect("a file in the scratch directory");
                ["--users", list.to_str().expect("a path in UTF-8")]
            }
        };
        let (login, graph, activity) = (self.told("login"), self.told("graph"), self.told("activity"));
        let status = waybill(self, &lake)
            .args(["connection", "add", "--name", "bench", "--since", since, "--output", "json"])
            .args(scope)
            .args(["--tenant", self.told("tenant_id"), "--client-id", self.told("client_id")])
            .args(["--client-secret-env", "WAYBILL_BENCH_SECRET"])
            .args(["--endpoint", &format!("login={login}"), "--endpoint", &format!("graph={graph}")])
            .args(["--endpoint", &format!("activity={activity}")])
            .stdout(Stdio::null())
            .status()
            .expect("the program was built");
        assert!(status.success(), "the connection could not be added");
        let mut command = waybill(self, &lake);
        command.args(["run", "--connection", "bench", "--output", "json"]);
        watch(command, scratch.path())
    }
}

/// `waybill serve` with its Postgres port, in a process of its own.
pub(crate) struct Server {
    child: Child,
    /// Where it listens, on this machine.
    pub(crate) port: u16,
}

impl Server {
    /// Starts one over a lake and waits until it listens.
    pub(crate) fn start(lake: &Path) -> Self {
        let mut command = Command::new(WAYBILL);
        command.arg("--lake").arg(lake).args(["serve", "--postgres", "127.0.0.1:0"]);
        // It says there what it was asked.
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program was built");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the server says where it listens");
        let told: Value = serde_json::from_str(&line).expect("the server's line is JSON");
        let address = told["postgres"].as_str().and_then(|address| url::Url::parse(address).ok());
        Self { child, port: address.and_then(|address| address.port()).expect("an address with a port") }
    }

    /// The most memory that it ever held, as the kernel counts it.
    pub(crate) fn peak_bytes(&self) -> u64 {
        peak(self.child.id()).unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A text as part of an address.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// An answer's body.
pub(crate) async fn json(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

impl Drop for Tenant {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn waybill(tenant: &Tenant, lake: &Path) -> Command {
    let mut command = Command::new(WAYBILL);
    command.arg("--lake").arg(lake).env("WAYBILL_BENCH_SECRET", tenant.told("client_secret"));
    command.stdin(Stdio::null());
    command
}

/// A run that ended well.
pub(crate) struct Ran {
    /// From its start to its end, as who scheduled it sees it.
    pub(crate) wall: Duration,
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The most memory that it ever held, as the kernel counts it.
    pub(crate) peak_bytes: u64,
    /// The most connections that it had at once.
    pub(crate) connections: usize,
    /// What it reported.
    pub(crate) report: Value,
}

impl Ran {
    /// A number of its report.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.report[name].as_u64().unwrap_or_else(|| panic!("the report has no `{name}`: {}", self.report))
    }
}

fn watch(mut command: Command, scratch: &Path) -> Ran {
    let messages = scratch.join("messages");
    let file = std::fs::File::create(&messages).expect("a file in the scratch directory");
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("the program was built");
    let (mut peak_bytes, mut connections) = (0, 0);
    let cpu = loop {
        peak_bytes = peak_bytes.max(peak(child.id()).unwrap_or(0));
        connections = connections.max(sockets(child.id()));
        match stat(child.id()) {
            // It has ended, and nobody has asked how yet: its times are still there.
            Some(('Z', cpu)) => break cpu,
            Some(_) => std::thread::sleep(LOOK_EVERY),
            None => panic!("a child that nobody waited for is gone"),
        }
    };
    let wall = began.elapsed();
    let mut said = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut said).expect("the report is text");
    let status = child.wait().expect("it has ended");
    let messages = std::fs::read_to_string(messages).unwrap_or_default();
    assert!(status.success(), "the run ended with {status}: {messages}{said}");
    let report = serde_json::from_str(&said).expect("the report is JSON");
    Ran { wall, cpu, peak_bytes, connections, report }
}

/// State, and user and system time, of a process.
fn stat(pid: u32) -> Option<(char, Duration)> {
    /// The kernel shows times in this unit, on every architecture.
    const TICKS_PER_SECOND: u64 = 100;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((fields.first()?.chars().next()?, Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)))
}

/// CPU time that this process used so far.
pub(crate) fn own_cpu() -> Duration {
    stat(std::process::id()).map_or(Duration::ZERO, |(_, cpu)| cpu)
}

/// The same in nanoseconds, of the threads that are there.
pub(crate) fn own_cpu_exactly() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn peak(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kb = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kb.trim().parse::<u64>().ok()? * 1024)
}

fn sockets(pid: u32) -> usize {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The median of some values, with the least and the greatest.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

/// What some values have in common.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (values[0], values[values.len() - 1]);
    let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    Spread { median, least, greatest }
}

impl Spread {
    /// The same in another unit.
    pub(crate) fn text(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.least, self.greatest)
    }
}

/// Prints rows below each other; the first is the head.
#[allow(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
pub(crate) fn table(title: &str, rows: &[Vec<String>]) {
    println!("\n{title}\n");
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if number == 0 {
            let line: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("|-{}-|", line.join("-|-"));
        }
    }
}
