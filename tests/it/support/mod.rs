//! What the tests share: a simulated tenant, a lake, and the real `waybill` binary between them.
//!
//! ```text
//! let tenant = Tenant::corpus();                          // or Tenant::start(&["--generate", "users=5,…"])
//! let lake = Lake::temp();
//! lake.add(&tenant, "Test", &[]);                          // --scope all --since 24h, unless other words say otherwise
//! let (exit, report) = lake.run("Test");
//! let rows = lake.sql("SELECT * FROM file_events");
//! ```
//!
//! Everything runs as processes, as it does for a user; a process ends when its owner is dropped. All is blocking, and
//! can also be called inside of an async test.

pub(crate) mod tools;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const WAYBILL: &str = env!("CARGO_BIN_EXE_waybill");

/// The real e-mails that are in the repository.
pub(crate) fn corpus() -> PathBuf {
    repository("tests/fixtures/eml-mikel-mail")
}

/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A `waybill` command without what this machine's environment says about lakes and clouds.
pub(crate) fn waybill() -> Command {
    clean(Command::new(WAYBILL))
}

/// A command that inherits no setting of `waybill` or of a cloud.
pub(crate) fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if ["WAYBILL_LAKE", "WAYBILL_LOG", "AWS_", "AZURE_", "GOOGLE_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A process that ends with its owner, by SIGKILL.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it; it runs until this is dropped.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// The process itself.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Ends it now.
    pub(crate) fn kill(&mut self) {
        // One that has ended already cannot be killed, and need not.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A simulated tenant in a process of its own.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// What it printed when it listened: login, graph, activity, tenant_id, client_id, client_secret, users.
    pub(crate) announcement: Value,
    _process: Process,
}

impl Tenant {
    /// `waybill simulate --listen 127.0.0.1:0` with these arguments.
    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Self {
        let mut errors = tempfile::tempfile().unwrap();
        let mut process = Process::start(
            waybill()
                .args(["simulate", "--listen", "127.0.0.1:0"])
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(errors.try_clone().unwrap()),
        );
        let mut line = String::new();
        BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
        let announcement = serde_json::from_str(&line).unwrap_or_else(|_| {
            process.kill();
            let mut text = String::new();
            std::io::Seek::rewind(&mut errors).unwrap();
            std::io::Read::read_to_string(&mut errors, &mut text).unwrap();
            panic!("`waybill simulate` did not start: {text}")
        });
        Self { announcement, _process: process }
    }

    /// The real e-mails as a tenant whose newest mail was sent just now.
    pub(crate) fn corpus() -> Self {
        Self::start(&["--corpus", corpus().to_str().unwrap(), "--shift-dates", "now"])
    }

    /// A text of the announcement: `login`, `graph`, `activity`, `tenant_id`, `client_id`, `client_secret`.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.announcement[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {}", self.announcement))
    }

    /// What it was asked so far: `GET /_simulator/report`.
    pub(crate) fn report(&self) -> Value {
        self.control("GET", "report", None)
    }

    /// Replaces what goes wrong; `{}` heals it.
    pub(crate) fn faults(&self, faults: &Value) {
        self.control("POST", "faults", Some(faults.to_string()));
    }

    /// Puts a mail into its sender's Sent Items at its own date, and nothing into the audit log.
    pub(crate) fn send_unaudited(&self, mail: &str) -> Value {
        self.control("POST", "messages?audited=no", Some(mail.to_owned()))
    }

    /// Sends a mail now.
    pub(crate) fn send(&self, mail: &str) -> Value {
        self.control("POST", "messages?sent=now", Some(mail.to_owned()))
    }

    fn control(&self, method: &str, path: &str, body: Option<String>) -> Value {
        let url = format!("{}/_simulator/{path}", self.get("login"));
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let text = wait_for(async move {
            let request = reqwest::Client::new().request(method, url).body(body.unwrap_or_default());
            request.send().await?.error_for_status()?.text().await
        });
        serde_json::from_str(&text.unwrap()).unwrap()
    }
}

/// Blocks until a future is done, also inside of an async test.
pub(crate) fn wait_for<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || runtime().block_on(future)).join().unwrap()
    })
}

/// A lake, and what a process needs to reach it.
#[derive(Debug)]
pub(crate) struct Lake {
    /// What `--lake` gets.
    pub(crate) url: String,
    environment: Mutex<BTreeMap<String, String>>,
    folder: Option<TempDir>,
}

impl Lake {
    /// A lake in a new folder, which is deleted at the end.
    pub(crate) fn temp() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("{}/lake", folder.path().to_str().unwrap());
        Self { url, environment: Mutex::default(), folder: Some(folder) }
    }

    /// A lake at a URL, reached with these environment variables.
    pub(crate) fn at(url: &str, environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { url: url.to_owned(), environment: Mutex::new(environment), folder: None }
    }

    /// Where a lake of this machine is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.as_ref().expect("a lake in a folder").path().join("lake")
    }

    /// A folder beside the lake, for a test's own files.
    pub(crate) fn beside(&self) -> PathBuf {
        self.folder.as_ref().expect("a lake in a folder").path().to_owned()
    }

    /// `waybill --lake URL` with these arguments, not started yet.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = waybill();
        command.arg("--lake").arg(&self.url).args(arguments).envs(self.environment.lock().unwrap().iter());
        command
    }

    /// Runs `waybill --lake URL` with these arguments to its end.
    pub(crate) fn output<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The same, and it must succeed; what it wrote to stdout.
    pub(crate) fn text<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{:?}: {}", self.command(arguments), String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Adds a connection to a tenant: `--scope all` and `--since 24h`, unless the other arguments say something else.
    pub(crate) fn add(&self, tenant: &Tenant, name: &str, others: &[&str]) -> Value {
        let letters = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
        let variable = format!("WAYBILL_TEST_SECRET_{}", name.chars().map(letters).collect::<String>());
        self.environment.lock().unwrap().insert(variable.clone(), tenant.get("client_secret").to_owned());
        let endpoints: Vec<String> = ["login", "graph", "activity"]
            .iter()
            .map(|name| format!("--endpoint={name}={}", tenant.get(name)))
            .collect();
        let mut arguments = vec!["connection", "add", "--output", "json", "--name", name];
        arguments.extend(["--tenant", tenant.get("tenant_id"), "--client-id", tenant.get("client_id")]);
        arguments.extend(endpoints.iter().map(String::as_str));
        arguments.extend(others);
        let is_given =
            |names: &[&str]| others.iter().any(|other| names.contains(&other.split('=').next().unwrap_or_default()));
        if !is_given(&["--client-secret-env", "--client-secret-file", "--certificate"]) {
            arguments.extend(["--client-secret-env", &variable]);
        }
        if !is_given(&["--scope", "--users", "--groups"]) {
            arguments.extend(["--scope", "all"]);
        }
        if !is_given(&["--since"]) {
            arguments.extend(["--since", "24h"]);
        }
        serde_json::from_str(&self.text(&arguments)).unwrap()
    }

    /// `waybill run` of a connection, not started yet.
    pub(crate) fn run_command(&self, name: &str) -> Command {
        self.command(&["run", "--connection", name, "--output", "json"])
    }

    /// Runs a connection: the exit code and the report (`null` when it printed none).
    pub(crate) fn run(&self, name: &str) -> (i32, Value) {
        let output = self.run_command(name).output().unwrap();
        ended(&output)
    }

    /// Runs a connection, which must end with 0; the report.
    pub(crate) fn run_done(&self, name: &str) -> Value {
        let output = self.run_command(name).output().unwrap();
        let (exit, report) = ended(&output);
        assert_eq!(exit, 0, "{report:#}\n{}", String::from_utf8_lossy(&output.stderr));
        report
    }

    /// `waybill maintain`, which must succeed; the report.
    pub(crate) fn maintain(&self) -> Value {
        serde_json::from_str(&self.text(&["maintain", "--output", "json"])).unwrap()
    }

    /// The rows of a query, each an object.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let lines = self.text(&["sql", "--format", "ndjson", query]);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The single number that a query returns.
    pub(crate) fn count(&self, query: &str) -> i64 {
        let rows = self.sql(query);
        let values: Vec<&Value> = rows.iter().flat_map(|row| row.as_object().unwrap().values()).collect();
        assert_eq!(values.len(), 1, "{rows:?}");
        values[0].as_i64().unwrap_or_else(|| panic!("not a number: {rows:?}"))
    }
}

/// The exit code of `waybill run` (-1 when it was killed), and the report (`null` when it printed none).
pub(crate) fn ended(output: &Output) -> (i32, Value) {
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if report.is_null() {
        // Shown only when the test fails.
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
    (output.status.code().unwrap_or(-1), report)
}

/// Writes a file of a test.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> PathBuf {
    std::fs::write(path, text).unwrap();
    path.to_owned()
}
