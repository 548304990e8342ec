//! Promise 7: the fewest permissions, and secrets that are never an argument, never logged, never in the lake.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{Lake, Tenant, ended, write};

const GENERATED: &[&str] = &["--generate", "users=3,messages=12,attachments=1,size=300,sends=1"];

/// Every regular file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// Every row of every table, as text: what is compressed in the files.
pub(crate) fn all_rows(lake: &Lake) -> String {
    ["file_events", "runs", "gaps", "quarantine", "changes", "scope_members"]
        .map(|table| lake.text(&["sql", "--format", "ndjson", &format!("SELECT * FROM {table}")]))
        .concat()
}

/// A secret in the forms in which it could leak.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let escaped: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    [secret.to_owned(), escaped, STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)].map(String::into_bytes).into()
}

fn assert_holds_none(what: &str, bytes: &[u8], secrets: &[Vec<u8>]) {
    for secret in secrets {
        assert!(memchr::memmem::find(bytes, secret).is_none(), "{what} holds the secret");
    }
}

/// Danger: a secret or a token in a log line, an error, the registry, a checkpoint, or a row.
/// Provoked: every command with all the logging that there is, with the right secret and with a wrong one.
#[test]
fn no_secret_is_in_the_lake_in_a_log_or_in_any_output() {
    let tenant = Tenant::start(GENERATED);
    let lake = Lake::temp();
    let wrong = "wr0ng~S3cret-that/no+body=knows";
    let added = lake.add(&tenant, "Test", &[]);
    let file = write(&lake.beside().join("wrong"), wrong);
    lake.add(&tenant, "Wrong", &["--client-secret-file", file.to_str().unwrap()]);
    let mut outputs = vec![added.to_string().into_bytes()];
    let mut secrets = forms(tenant.get("client_secret"));
    secrets.extend(forms(wrong));
    // What every token begins with: `{"` in Base64.
    secrets.push(b"Bearer ey".to_vec());
    secrets.push(b"\"eyJ".to_vec());
    let mut run = |arguments: &[&str], exit: i32| {
        // Everything that `debug` logs, and more.
        let mut all = vec!["--log", "trace", "--log-format", "json"];
        all.extend(arguments);
        let Output { status, stdout, stderr } = lake.output(&all);
        assert_eq!(status.code(), Some(exit), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        assert!(stderr.len() > 100 || arguments[0] != "run", "it does log");
        outputs.extend([stdout, stderr]);
    };
    run(&["connection", "check", "Test"], 0);
    run(&["run", "--connection", "Test", "--output", "json"], 0);
    run(&["run", "--connection", "Wrong", "--output", "json"], 12);
    run(&["connection", "check", "Wrong"], 12);
    run(&["run", "--all"], 12);
    run(&["connection", "show", "Test", "--output", "json"], 0);
    run(&["connection", "list"], 0);
    run(&["maintain", "--output", "json"], 0);
    run(&["search", "--sender", "nobody"], 0);
    for output in &outputs {
        let text = String::from_utf8_lossy(output);
        for secret in &secrets {
            if let Some(at) = memchr::memmem::find(output, secret) {
                panic!("a secret in: {}", text[..at].lines().last().unwrap_or_default());
            }
        }
    }
    assert_holds_none("a row", all_rows(&lake).as_bytes(), &secrets);
    for file in files(&lake.path()) {
        assert_holds_none(&file.display().to_string(), &std::fs::read(&file).unwrap(), &secrets[..secrets.len() - 2]);
    }
}

/// Danger: everybody on the machine reads the arguments of every process.
#[test]
fn a_secret_is_never_an_argument() {
    let tenant = Tenant::start(GENERATED);
    let lake = Lake::temp();
    lake.add(&tenant, "Test", &[]);
    let value = "hunter2-as-an-argument";
    let output = lake.output(&["connection", "add", "--name", "x", "--client-secret", value, "--scope", "all"]);
    assert_eq!(output.status.code(), Some(2), "there is no such option");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(value));
    // And no process that a run starts gets one.
    tenant.faults(&json!([{"on": "list", "do": {"latency_ms": 400}}]));
    let mut run = lake.run_command("Test").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(250));
    let tasks = format!("/proc/{}/task", run.id());
    assert!(run.try_wait().unwrap().is_none(), "it still runs");
    let mut arguments = std::fs::read(format!("/proc/{}/cmdline", run.id())).unwrap();
    for task in std::fs::read_dir(tasks).unwrap() {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            arguments.extend(std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default());
        }
    }
    assert!(memchr::memmem::find(&arguments, b"--connection").is_some());
    assert_holds_none("a command line", &arguments, &forms(tenant.get("client_secret")));
    assert!(run.wait().unwrap().success());
}

/// Danger: a secret is renewed in its file, and a lake that remembers the old one has to be set up anew.
#[test]
fn a_secret_that_was_rotated_between_two_runs_is_read_anew() {
    let tenant = Tenant::start(GENERATED);
    let lake = Lake::temp();
    let file = write(&lake.beside().join("secret"), format!("{}\n", tenant.get("client_secret")));
    lake.add(&tenant, "Test", &["--client-secret-file", file.to_str().unwrap()]);
    lake.run_done("Test");
    write(&file, "the-next-one-which-is-not-in-force-yet");
    let (exit, report) = lake.run("Test");
    assert_eq!((exit, report["error"]["code"].as_str()), (12, Some("secret-refused")));
    write(&file, tenant.get("client_secret"));
    lake.run_done("Test");
}

/// A tenant's own logs show the downloads; the name is what they are filtered by. And nothing is asked for that the row
/// does not need.
#[test]
fn every_request_names_waybill_and_none_asks_for_a_body_or_changes_anything() {
    let tenant = Tenant::corpus();
    let lake = Lake::temp();
    lake.add(&tenant, "Test", &[]);
    // Repeats must carry the name too.
    tenant.faults(&json!([
        {"on": "token", "times": 1, "do": {"status": 503}},
        {"on": "list", "times": 1, "do": "expire_token"},
        {"on": "find", "times": 1, "do": {"status": 429, "retry_after": 0}},
        {"on": "attachment_value", "times": 1, "do": {"reset": 5}},
    ]));
    lake.run_done("Test");
    lake.output(&["connection", "check", "Test"]);
    let report = tenant.report();
    let agents: Vec<&str> =
        report["user_agents"].as_array().unwrap().iter().map(|agent| agent.as_str().unwrap()).collect();
    let name = concat!("Waybill/", env!("CARGO_PKG_VERSION"));
    assert!(!agents.is_empty() && agents.iter().all(|agent| agent.split(' ').next() == Some(name)), "{agents:?}");
    assert_eq!(report["body_requests"], 0);
    assert_eq!(report["feed_without_publisher"], 0);
    // `start` is the one request that changes something, and is sent only when the subscription is off.
    let allowed = [
        "token",
        "subscriptions",
        "list",
        "blob",
        "find",
        "folder",
        "attachments",
        "attachment_value",
        "users",
        "user",
        "control",
    ];
    let asked: Vec<&String> =
        report["requests"].as_object().unwrap().keys().filter(|kind| !allowed.contains(&kind.as_str())).collect();
    assert!(asked.is_empty(), "{asked:?}");
}

/// Danger: a mistyped endpoint, or a registry that somebody changed, sends the secret in the clear.
#[test]
fn plain_http_is_refused_everywhere_but_on_this_machine() {
    let tenant = Tenant::start(GENERATED);
    let lake = Lake::temp();
    lake.add(&tenant, "Test", &[]);
    let id = "11111111-2222-3333-4444-555555555555";
    let add = |name: &str, endpoint: &str| {
        let mut command = lake.command(&["connection", "add", "--name", name, "--tenant", id, "--client-id", id]);
        command.args(["--client-secret-env", "SECRET", "--scope", "all", "--endpoint", endpoint]).env("SECRET", "x");
        command.output().unwrap()
    };
    let remote =
        ["192.0.2.1", "127.0.0.1.example.com", "localhost.example.com", "login.microsoftonline.com", "[2001:db8::1]"];
    for (number, host) in remote.iter().enumerate() {
        for endpoint in ["login", "graph", "activity"] {
            let output = add(&format!("remote {number}"), &format!("{endpoint}=http://{host}:8080"));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{host}: {errors}");
            assert!(errors.contains("http"), "{errors}");
        }
    }
    for (number, host) in ["127.0.0.1", "localhost", "[::1]"].iter().enumerate() {
        assert_eq!(
            add(&format!("local {number}"), &format!("graph=http://{host}:8080")).status.code(),
            Some(0),
            "{host}"
        );
    }
    assert_eq!(lake.text(&["connection", "list", "--output", "json"]).matches("remote ").count(), 0);

    let registry = files(&lake.path().join("connections"));
    let file = registry.iter().find(|file| std::fs::read_to_string(file).unwrap().contains("\"Test\"")).unwrap();
    let mut document: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for endpoint in ["login", "graph", "activity"] {
        let was = std::mem::replace(&mut document["endpoints"][endpoint], json!("http://192.0.2.1:9"));
        write(file, document.to_string());
        let output = lake.run_command("Test").output().unwrap();
        assert_eq!(ended(&output).0, 2, "{endpoint}: {}", String::from_utf8_lossy(&output.stderr));
        document["endpoints"][endpoint] = was;
    }
    assert_eq!(tenant.report()["requests_total"], 0, "nobody was asked anything");
}
