//! An administrator of the tenant lets the application in: the command line's half of the consent flow.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use serde_json::{Value, json};
use waybill::error::Code;

use crate::support::{self, Process};

/// `waybill connection authorize` while it waits, with the address that it told.
struct Waiting {
    process: Process,
    errors: BufReader<std::process::ChildStderr>,
    url: String,
}

impl Waiting {
    fn start(lake: &support::Lake) -> Self {
        let mut command = lake.command(&["connection", "authorize", "Contoso", "--port", "0", "--output", "json"]);
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut errors = BufReader::new(process.child().stderr.take().unwrap());
        let mut url = String::new();
        let mut line = String::new();
        while !line.starts_with("Waiting for the answer") {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before it waited");
            if line.trim().starts_with("http") {
                url = line.trim().to_owned();
            }
        }
        Self { process, errors, url }
    }

    /// The redirect address with another query.
    fn back(&self, query: &str) -> String {
        let url = url::Url::parse(&self.url).unwrap();
        let redirect = url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
        format!("{redirect}?{query}")
    }

    fn state(&self) -> String {
        let url = url::Url::parse(&self.url).unwrap();
        url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
    }

    fn end(mut self) -> (Option<i32>, String, String) {
        let mut out = String::new();
        self.process.child().stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).unwrap();
        (self.process.child().wait().unwrap().code(), out, errors)
    }
}

fn get(url: &str) -> (u16, String) {
    support::wait_for(async {
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

fn authorized(lake: &support::Lake) -> i64 {
    lake.count("SELECT count(*) FROM changes WHERE action = 'authorized'")
}

/// Danger: anybody who can reach the port, or lead the administrator's browser there, authorises a connection.
/// Provoked: answers without state, with another one, of another tenant, and a refusal, all of which say `admin_consent`.
#[test]
fn only_the_answer_to_the_question_that_was_asked_authorises() {
    let tenant = support::Tenant::start(&["--generate", "users=2,messages=2", "--consent", "none"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Contoso", &[]);
    let id = tenant.get("tenant_id");

    let waiting = Waiting::start(&lake);
    for query in [format!("admin_consent=True&tenant={id}"), format!("admin_consent=True&tenant={id}&state=guessed")] {
        let (status, page) = get(&waiting.back(&query));
        assert_eq!((status, page.contains("not the answer")), (404, true), "{page}");
    }
    // It still waits, and takes the right one.
    let (_, page) = get(&format!("{}&simulate=accept", waiting.url));
    assert!(page.contains("Consent was given"), "{page}");
    let (exit, out, errors) = waiting.end();
    assert_eq!(exit, Some(0), "{errors}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["permissions"]["missing"], json!([]), "{report}");
    assert!(
        errors.contains("The permissions are in force") && errors.contains("take it from the registration"),
        "{errors}"
    );
    assert_eq!(authorized(&lake), 1);

    let waiting = Waiting::start(&lake);
    let other = "11111111-2222-3333-4444-555555555555";
    get(&waiting.back(&format!("admin_consent=True&tenant={other}&state={}", waiting.state())));
    let (exit, _, errors) = waiting.end();
    assert_eq!(exit, Some(12), "{errors}");
    assert!(errors.contains(other) && errors.contains(Code::ConsentRefused.hint().unwrap()), "{errors}");

    let waiting = Waiting::start(&lake);
    get(&format!("{}&simulate=cancel", waiting.url));
    let (exit, _, errors) = waiting.end();
    assert_eq!(exit, Some(12), "{errors}");
    assert!(errors.contains("the administrator declined"), "{errors}");
    assert_eq!(authorized(&lake), 1, "a refusal authorises nothing");
}

#[test]
fn consent_that_has_not_spread_is_pending_for_runs_and_clears_by_itself() {
    let words = ["--generate", "users=2,messages=4,days=1", "--consent", "none", "--consent-spreads", "3s"];
    let tenant = support::Tenant::start(&words);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Contoso", &[]);
    assert_eq!(lake.run("Contoso").1["error"]["code"], "consent-missing");
    let waiting = Waiting::start(&lake);
    get(&format!("{}&simulate=accept", waiting.url));
    let (exit, _, errors) = waiting.end();
    assert_eq!(exit, Some(0), "{errors}");
    assert!(errors.contains("not in force yet") && errors.contains("consent-pending"), "{errors}");
    let (exit, report) = lake.run("Contoso");
    assert_eq!((exit, report["error"]["code"].as_str()), (12, Some("consent-pending")), "{report}");
    std::thread::sleep(std::time::Duration::from_secs(4));
    lake.run_done("Contoso");
}

#[test]
fn each_permission_that_lacks_is_named() {
    let tenant = support::Tenant::start(&["--generate", "users=2,messages=4,days=1"]);
    let lake = support::Lake::temp();
    let groups = support::write(&lake.beside().join("groups.csv"), "nobody@contoso.example");
    lake.add(&tenant, "All", &[]);
    lake.text(&["connection", "rescope", "All", "--scope", "all"]);
    let doctor = |lake: &support::Lake| {
        let output = lake.output(&["doctor", "--connection", "All"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let roles = ["ActivityFeed.Read", "Mail.Read", "User.Read.All", "GroupMember.Read.All"];
    for missing in ["ActivityFeed.Read", "Mail.Read"] {
        let left: Vec<&str> = roles.into_iter().filter(|role| *role != missing).collect();
        tenant.faults(&json!([{"on": "token", "do": {"roles": left}}]));
        let (exit, told) = doctor(&lake);
        assert_ne!(exit, Some(0), "{told}");
        assert!(told.contains(&format!("the tokens do not carry `{missing}`")), "{told}");
    }
    // A scope of groups needs two more.
    tenant.faults(&json!([]));
    let dry = lake.output(&["connection", "rescope", "All", "--groups", groups.to_str().unwrap()]);
    assert_eq!(dry.status.code(), Some(2), "a scope that means nobody is refused");
    tenant.faults(&json!([{"on": "token", "do": {"roles": ["ActivityFeed.Read", "Mail.Read"]}}]));
    let output = lake.output(&["connection", "rescope", "All", "--groups", groups.to_str().unwrap()]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.contains("cannot be asked yet"), "{errors}");
    let (exit, told) = doctor(&lake);
    assert_eq!(exit, Some(12), "{told}");
    assert!(told.contains("`User.Read.All`, `GroupMember.Read.All`") && told.contains("permission-missing"), "{told}");
}

/// The manifest's fragment asks for exactly what the page says.
#[test]
fn the_fewest_permissions_are_printed_for_a_person_and_for_the_manifest() {
    let lake = support::Lake::temp();
    let page = std::fs::read_to_string(support::repository("docs/connect-microsoft365.md")).unwrap();
    for (scope, count) in [("all", 2), ("users", 3), ("groups", 4)] {
        let text = lake.text(&["connection", "permissions", "--scope", scope, "--output", "json"]);
        let report: Value = serde_json::from_str(&text).unwrap();
        let ids: Vec<&str> = report["requiredResourceAccess"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|resource| resource["resourceAccess"].as_array().unwrap())
            .map(|access| access["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), count, "{report}");
        assert!(ids.iter().all(|id| page.contains(id)), "{report}");
    }
}

/// The replaced product takes 1,000 entries. Danger: a request, or a pass over the directory, for each.
#[test]
fn a_hundred_thousand_people_are_resolved_in_101_requests() {
    let tenant = support::Tenant::start(&["--generate", "users=100000,messages=10,days=1,seed=3"]);
    let lake = support::Lake::temp();
    let list = tenant.announcement["users"].as_array().unwrap();
    assert_eq!(list.len(), 100_000);
    let mut csv: String = list.iter().map(|user| format!("{}\r\n", user.as_str().unwrap())).collect();
    csv += "nobody@contoso.example\r\n";
    let file = support::write(&lake.beside().join("people.csv"), csv);
    let added = lake.add(&tenant, "Contoso", &["--users", file.to_str().unwrap()]);
    assert_eq!(added["scope_resolved"]["people"], 100_000, "{added}");
    assert_eq!(
        added["scope_resolved"]["findings"],
        json!(["line 100001: the directory has no user `nobody@contoso.example`"])
    );
    let report = tenant.report();
    assert_eq!(report["requests"]["users"]["200"], 101, "{report}");
    let (exit, report) = lake.run("Contoso");
    assert_eq!((exit, report["scope_people"].as_u64()), (0, Some(100_000)), "{report}");
    assert_eq!(lake.count("SELECT count(*) FROM scope_members"), 100_000);
    // The same people are kept once.
    lake.run_done("Contoso");
    assert_eq!(lake.count("SELECT count(*) FROM scope_members"), 100_000);
    let who = list[7].as_str().unwrap();
    let monitored = lake.count(&format!(
        "SELECT count(*) FROM runs JOIN scope_members USING (scope_id) WHERE address = lower('{who}')"
    ));
    assert_eq!(monitored, 2, "was this person monitored? In both runs");
}
