//! Forensic Search in a real browser, and hostile input in its addresses.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::support::{self, Process, tools};

/// A lake with sent files, and the console that serves it.
fn served() -> (support::Lake, Process, String) {
    let tenant = support::Tenant::start(&["--generate", "users=4,messages=120,attachments=2,days=3,seed=5"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Contoso", &["--since", "90h"]);
    lake.run_done("Contoso");
    let mut serve = lake.command(&["serve", "--http", "127.0.0.1:0"]);
    let mut server = Process::start(serve.stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    let console = serde_json::from_str::<serde_json::Value>(&line).unwrap()["http"].as_str().unwrap().to_owned();
    (lake, server, console)
}

/// Danger: an analyst who cannot get from a name to everybody who had the file, or whose export lacks rows.
#[test]
fn a_browser_goes_from_a_name_to_everybody_who_had_the_file_and_exports_it_all() {
    if tools::is_offline() {
        return;
    }
    let (lake, _server, console) = served();
    let rows = lake.sql("SELECT event_id, file_name, sender, sha256 FROM file_events WHERE sha256 IS NOT NULL");
    let told = support::write(&lake.beside().join("rows.json"), serde_json::to_string(&rows).unwrap());
    let pictures = std::env::var("WAYBILL_TEST_PICTURES")
        .unwrap_or_else(|_| lake.beside().join("pictures").to_str().unwrap().to_owned());
    let path = |name: &str| tools::path(name).to_str().unwrap().to_owned();
    let mut command = tools::tool("python");
    command
        .arg(support::repository("tests/clients/console_search.py"))
        .args([&console, told.to_str().unwrap(), &path("axe"), &pictures])
        .env("CHROMIUM", path("chromium"))
        .env("CHROMEDRIVER", path("chromedriver"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let actions = lake.sql("SELECT action FROM changes WHERE action LIKE 'search%' ORDER BY changed_at");
    let actions: Vec<&str> = actions.iter().map(|change| change["action"].as_str().unwrap()).collect();
    assert!(actions.starts_with(&["search_saved"]) && actions.ends_with(&["search_removed"]), "{actions:?}");
}
