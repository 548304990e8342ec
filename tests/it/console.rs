//! The console in a real browser.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::support::{self, Process, tools};

/// Danger: a page that a person cannot use: a form that does not send, a colour that nobody can read, a way that ends.
#[test]
fn a_browser_adds_a_connection_goes_through_consent_and_sees_each_failure_with_its_remedy() {
    if tools::is_offline() {
        return;
    }
    let words = [
        "--generate",
        "users=3,messages=6,attachments=1,days=1,seed=3",
        "--consent",
        "none",
        "--consent-spreads",
        "3s",
    ];
    let tenant = support::Tenant::start(&words);
    let lake = support::Lake::temp();
    let users: Vec<&str> =
        tenant.announcement["users"].as_array().unwrap().iter().map(|u| u.as_str().unwrap()).collect();
    let csv = support::write(&lake.beside().join("people.csv"), users.join("\r\n"));
    let secret = tenant.get("client_secret");
    let mut serve = lake.command(&["serve", "--http", "127.0.0.1:0"]);
    for name in ["login", "graph", "activity"] {
        serve.arg(format!("--endpoint={name}={}", tenant.get(name)));
    }
    let mut server = Process::start(serve.env("WAYBILL_SECRET_TEST", secret).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    let console = serde_json::from_str::<serde_json::Value>(&line).unwrap()["http"].as_str().unwrap().to_owned();
    let pictures = std::env::var("WAYBILL_TEST_PICTURES")
        .unwrap_or_else(|_| lake.beside().join("pictures").to_str().unwrap().to_owned());
    let path = |name: &str| tools::path(name).to_str().unwrap().to_owned();
    let mut command = tools::tool("python");
    command
        .arg(support::repository("tests/clients/console.py"))
        .args([&console, &lake.url, &tenant.announcement.to_string(), csv.to_str().unwrap(), &path("axe"), &pictures])
        .env("WAYBILL_BIN", support::WAYBILL)
        .env("WAYBILL_SECRET_TEST", secret)
        .env("CHROMIUM", path("chromium"))
        .env("CHROMEDRIVER", path("chromedriver"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let changes = lake.sql("SELECT action, actor FROM changes WHERE actor <> 'run' ORDER BY changed_at");
    let actions: Vec<&str> = changes.iter().map(|change| change["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["added", "authorized", "rescoped", "paused", "resumed", "deauthorized", "removed"]);
}
