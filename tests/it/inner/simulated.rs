//! Runs inside this process against a simulated tenant of Microsoft 365, over HTTP, into a lake in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{Duration, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use waybill::clock::{Clock, Time};
use waybill::error::Result;
use waybill::lake::{Lake, Shard};
use waybill::monitor::Progress;
use waybill::run::{self, Job};
use waybill::secret::SecretPlace;
use waybill::simulator::{Content, Faults, Options, Running, start};
use waybill::source::microsoft365::{Cloud, Credential, Microsoft365, Overrides, Settings};
use waybill::source::{Application, Scope};

/// The machine's time, in which the simulator lives.
#[expect(clippy::disallowed_methods, reason = "the simulator lives in real time")]
pub(crate) fn now() -> Time {
    Utc::now()
}

/// A simulated tenant and a connection to it.
pub(crate) struct Simulated {
    pub(crate) simulator: Running,
    pub(crate) lake: Lake,
    pub(crate) since: Time,
    pub(crate) scope: Scope,
    files: TempDir,
    id: Uuid,
}

impl Simulated {
    /// A generated tenant in which every record is a send, with few records in a blob, so that there are many blobs.
    pub(crate) async fn generated(words: &str) -> Self {
        Self::start(&[words], |_| {}).await
    }

    /// The same, with other options.
    pub(crate) async fn start(words: &[&str], change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        options.content =
            words.iter().map(|words| Content::Generate(format!("sends=1,{words}").parse().unwrap())).collect();
        options.blob_records = 5;
        change(&mut options);
        let files = tempfile::tempdir().unwrap();
        let simulator = start(options).await.unwrap();
        std::fs::write(files.path().join("secret"), &simulator.announcement().client_secret).unwrap();
        let lake = Lake::with_store("memory:///lake/", Arc::new(object_store::memory::InMemory::new())).unwrap();
        lake.create().await.unwrap();
        Self {
            simulator,
            lake,
            since: now() - Duration::hours(24),
            scope: Scope::All,
            files,
            id: Uuid::from_u128(0xc1),
        }
    }

    /// Replaces what goes wrong; `[]` heals it.
    pub(crate) fn faults(&self, faults: Value) {
        self.simulator.set_faults(&Faults::parse(faults).unwrap());
    }

    /// A new client, as every run has one.
    pub(crate) fn source(&self, clock: Clock) -> Microsoft365 {
        self.source_behind(clock, &self.simulator.announcement().activity)
    }

    /// Forgets where the connection stands: to the lake it is another one of the same tenant.
    pub(crate) fn forget(&mut self) {
        self.id = Uuid::from_u128(self.id.as_u128() + 1);
    }

    /// A new client that reaches the feed at this URL.
    pub(crate) fn source_behind(&self, clock: Clock, activity: &str) -> Microsoft365 {
        let announcement = self.simulator.announcement();
        let mut overrides = Overrides::default();
        overrides.set("login", &announcement.login).unwrap();
        overrides.set("graph", &announcement.graph).unwrap();
        overrides.set("activity", activity).unwrap();
        Microsoft365::new(Settings {
            application: Application {
                tenant_id: announcement.tenant_id.parse().unwrap(),
                client_id: announcement.client_id.parse().unwrap(),
            },
            credential: Credential::Secret(SecretPlace::File(self.files.path().join("secret"))),
            cloud: Cloud::Worldwide,
            overrides,
            clock,
        })
        .unwrap()
    }

    /// Runs the connection once, into any lake; the report as the command prints it.
    pub(crate) async fn run_into(&self, lake: &Lake) -> Result<Value> {
        let report = run::run(self.job(), Arc::new(self.source(Clock::System)), lake).await?;
        Ok(serde_json::to_value(report).unwrap())
    }

    /// A run of the connection.
    pub(crate) fn job(&self) -> Job {
        Job {
            connection_id: self.id,
            connection_name: "simulated".to_owned(),
            tenant_id: self.simulator.announcement().tenant_id.parse().unwrap(),
            shard: Shard::whole(self.id),
            scope: self.scope.clone(),
            since: self.since,
            authorized: None,
            owed_only: false,
            clock: Clock::System,
            interrupt: CancellationToken::new(),
            progress: Arc::new(Progress::default()),
        }
    }

    /// Runs the connection once; the report.
    pub(crate) async fn run(&self) -> Value {
        self.run_into(&self.lake).await.unwrap()
    }

    /// Runs the connection once, and nothing may be missing.
    pub(crate) async fn run_done(&self) -> Value {
        let report = self.run().await;
        assert_eq!(report["exit_code"], 0, "{report:#}");
        report
    }

    /// Sends a mail now.
    pub(crate) async fn send(&self, mail: String) -> Value {
        self.control(reqwest::Method::POST, "messages?sent=now", mail).await
    }

    /// Every message that was sent, with its attachments and their digests.
    pub(crate) async fn messages(&self) -> Vec<Value> {
        self.control(reqwest::Method::GET, "truth", String::new()).await["messages"].as_array().unwrap().clone()
    }

    async fn control(&self, method: reqwest::Method, path: &str, body: String) -> Value {
        let url = format!("{}/_simulator/{path}", self.simulator.announcement().login);
        let answer = reqwest::Client::new().request(method, url).body(body).send().await.unwrap();
        serde_json::from_str(&answer.error_for_status().unwrap().text().await.unwrap()).unwrap()
    }

    /// What was sent: `message/name` → SHA-256 of each attachment of this name.
    pub(crate) async fn expected(&self) -> Rows {
        let mut rows = Rows::new();
        for message in self.messages().await {
            for attachment in message["attachments"].as_array().unwrap() {
                add(&mut rows, &message["internet_message_id"], &attachment["name"], &attachment["sha256"]);
            }
        }
        sorted(rows)
    }

    /// What the lake holds, in the same form; a row without a hash has its status there.
    pub(crate) async fn actual(&self) -> Rows {
        actual(&self.lake).await
    }

    /// Fails unless the lake holds exactly what was sent.
    pub(crate) async fn assert_complete(&self) {
        let (actual, expected) = (self.actual().await, self.expected().await);
        assert!(!expected.is_empty());
        assert_same(&actual, &expected);
    }
}

/// Rows of `file_events` in a form that can be compared.
pub(crate) type Rows = BTreeMap<String, Vec<String>>;

/// What a lake holds: `message/name` → SHA-256, or the status of a row without one.
pub(crate) async fn actual(lake: &Lake) -> Rows {
    let mut rows = Rows::new();
    let query = "SELECT internet_message_id, coalesce(file_path, file_name) AS name, coalesce(sha256, hash_status) AS hash FROM file_events";
    for row in super::query(lake, query).await {
        add(&mut rows, &row["internet_message_id"], &row["name"], &row["hash"]);
    }
    sorted(rows)
}

/// Compares, and shows only what differs.
pub(crate) fn assert_same(actual: &Rows, expected: &Rows) {
    let missing: Vec<_> = expected.iter().filter(|(key, hashes)| actual.get(*key) != Some(hashes)).collect();
    let added: Vec<_> = actual.iter().filter(|(key, hashes)| expected.get(*key) != Some(hashes)).collect();
    assert!(missing.is_empty() && added.is_empty(), "expected {missing:#?}\nfound {added:#?}");
}

fn add(rows: &mut Rows, message: &Value, name: &Value, hash: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.entry(format!("{}/{}", text(message), text(name))).or_default().push(text(hash));
}

fn sorted(mut rows: Rows) -> Rows {
    rows.values_mut().for_each(|hashes| hashes.sort());
    rows
}

/// A mail with one attachment.
pub(crate) fn mail(from: &str, message_id: &str, name: &str, content: &str) -> String {
    [
        &format!("From: {from}"),
        "To: partner@fabrikam.example",
        &format!("Message-ID: {message_id}"),
        "Subject: A file",
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed; boundary=part",
        "",
        "--part",
        "Content-Type: text/plain",
        "",
        "See the file.",
        "--part",
        &format!("Content-Type: application/octet-stream; name=\"{name}\""),
        &format!("Content-Disposition: attachment; filename=\"{name}\""),
        "",
        content,
        "--part--",
        "",
    ]
    .join("\r\n")
}

/// A rule of a faults file.
pub(crate) fn fault(on: &str, action: impl Into<Value>) -> Value {
    json!({"on": on, "do": action.into()})
}
