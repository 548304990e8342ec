//! Whom to monitor: the lists that people have are read whole or said to be not, and an administrator sees whom a scope
//! means before it is saved.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use waybill::connection::scope_csv;

use crate::support::{Lake, Tenant, repository, write};

/// What a file names and what is odd about it, as `expected.json` tells it: entries as `line: entry`.
fn told(path: &Path) -> Value {
    match scope_csv::read(&std::fs::read(path).unwrap()) {
        Err(error) => json!({ "error": error.message() }),
        Ok(scope) => {
            let lines = scope.lines.iter().zip(&scope.entries);
            let entries: Vec<String> = lines.map(|(line, entry)| format!("{line}: {entry}")).collect();
            json!({ "entries": entries, "findings": scope.findings })
        }
    }
}

/// Danger: a list in a form that nobody thought of loses people.
#[test]
fn the_ugly_files_that_people_have_are_read() {
    let folder = repository("tests/fixtures/scope-csv");
    let mut all = serde_json::Map::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            all.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), told(&path));
        }
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let all = Value::Object(all);
    assert_eq!(all, expected, "{}", serde_json::to_string_pretty(&all).unwrap());
}

/// A directory with everything that is odd.
fn odd_tenant(others: &[&str]) -> (Tenant, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let directory = json!({ "faults": [], "directory": {
        "users": [
            { "mail": "ann@contoso.example", "displayName": "Ann Doe", "aliases": ["ann.doe@contoso.example"] },
            { "mail": "bo@contoso.example", "userPrincipalName": "bo.roe@contoso.example", "displayName": "\u{1b}[31mBo" },
            { "mail": "office@contoso.example", "kind": "shared", "displayName": "=Office" },
            { "mail": "gil@fabrikam.example", "kind": "guest" },
            { "mail": "guy@fabrikam.example", "kind": "guest" },
            { "mail": "room@contoso.example", "kind": "no_mailbox" },
            { "mail": "left@contoso.example", "kind": "disabled" },
        ],
        "groups": [
            { "mail": "outer@contoso.example", "displayName": "Outer", "members": ["inner@contoso.example", "ann@contoso.example", "gil@fabrikam.example", "guy@fabrikam.example"] },
            { "mail": "inner@contoso.example", "displayName": "Inner", "members": ["outer@contoso.example", "bo@contoso.example", "left@contoso.example"] },
            { "mail": "empty@contoso.example", "displayName": "Empty" },
            { "mail": "secret@contoso.example", "displayName": "Secret", "members": ["office@contoso.example"], "hidden": true },
        ],
    } });
    let file = write(&folder.path().join("tenant.json"), directory.to_string());
    let mut arguments = vec!["--generate", "users=30,messages=1", "--faults", file.to_str().unwrap()];
    arguments.extend(others);
    (Tenant::start(&arguments), folder)
}

fn addresses(members: &Value) -> BTreeSet<String> {
    members.as_array().unwrap().iter().map(|member| member["address"].as_str().unwrap().to_owned()).collect()
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}

#[test]
fn whom_a_scope_of_users_means_is_told_with_the_lines_of_what_is_odd() {
    let (tenant, _folder) = odd_tenant(&[]);
    let lake = Lake::temp();
    let users = write(
        &lake.beside().join("users.csv"),
        "mail\nAnn.Doe@contoso.example\nbo@contoso.example\n\noffice@contoso.example\ngil@fabrikam.example\nroom@contoso.example\n\
         left@contoso.example\nnobody@contoso.example\nouter@contoso.example\nann\nann@contoso.example\n",
    );
    let users = users.to_str().unwrap();
    let trial = lake.add(&tenant, "Contoso", &["--users", users, "--dry-run"]);
    assert!(!lake.path().exists(), "a trial saves nothing");
    let resolved = &trial["scope_resolved"];
    assert_eq!(
        resolved["findings"],
        json!([
            "line 11: `ann` is neither an address nor an object id",
            "line 4: blank, skipped",
            "line 6: the user `gil@fabrikam.example` is a guest, whose mailbox is elsewhere",
            "line 7: the user `room@contoso.example` has no mailbox: neither an address nor a plan for Exchange",
            "line 8: the user `left@contoso.example` is disabled, so nobody can sign in with it; only others can send from its mailbox",
            "line 9: the directory has no user `nobody@contoso.example`",
            "line 10: `outer@contoso.example` is a group and not a user",
        ])
    );
    let people = set(&[
        "ann@contoso.example",
        "bo.roe@contoso.example",
        "gil_fabrikam.example#ext#@contoso.onmicrosoft.com",
        "left@contoso.example",
        "office@contoso.example",
        "room@contoso.example",
    ]);
    assert_eq!((&resolved["people"], &resolved["error"]), (&json!(6), &Value::Null));
    assert_eq!(addresses(&resolved["sample"]), people);

    let added = lake.add(&tenant, "Contoso", &["--users", users]);
    assert_eq!(added["scope_resolved"], *resolved);
    let listed: Value =
        serde_json::from_str(&lake.text(&["connection", "scope", "Contoso", "--output", "json"])).unwrap();
    assert_eq!((addresses(&listed["members"]), &listed["people"]), (people, &json!(6)));
    assert_eq!(listed["findings"][4]["entry"], "outer@contoso.example");
    let table = lake.text(&["connection", "scope", "Contoso"]);
    assert!(table.contains("Ann Doe") && !table.contains('\u{1b}'), "{table}");

    // The export is a scope again, and nothing that a spreadsheet runs.
    let export = lake.text(&["connection", "scope", "Contoso", "--output", "csv"]);
    assert!(export.contains("\"'=Office\""), "{export}");
    let export = write(&lake.beside().join("export.csv"), export);
    let again = lake.add(&tenant, "Again", &["--users", export.to_str().unwrap(), "--dry-run"]);
    assert_eq!(again["scope_resolved"]["people"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_followed_and_what_is_odd_about_them_is_told_once_each() {
    let (tenant, _folder) = odd_tenant(&[]);
    let lake = Lake::temp();
    let entries = "outer@contoso.example\nempty@contoso.example\nsecret@contoso.example\nnone@contoso.example\nann@contoso.example\n";
    let groups = write(&lake.beside().join("groups.csv"), format!("group\n{entries}"));
    let added = lake.add(&tenant, "few", &["--groups", groups.to_str().unwrap()]);
    let few = &added["scope_resolved"];
    assert_eq!(
        few["findings"],
        json!([
            "line 2: 2 members of the group `outer@contoso.example` are guests, whose mailboxes are elsewhere: \
             `gil_fabrikam.example#EXT#@contoso.onmicrosoft.com`, `guy_fabrikam.example#EXT#@contoso.onmicrosoft.com`",
            "line 2: the member `left@contoso.example` of the group `outer@contoso.example` is disabled, so nobody can sign in with it; \
             only others can send from its mailbox",
            "line 3: the group `empty@contoso.example` has no members that can be seen",
            "line 4: the group `secret@contoso.example` hides its members: seeing them needs the permission `Member.Read.Hidden`",
            "line 5: the directory has no group `none@contoso.example` (dynamic distribution groups are not in it)",
            "line 6: `ann@contoso.example` is a user and not a group",
        ])
    );
    assert_eq!(few["people"], 5);

    // Many groups are found in the directory as a whole, and mean the same.
    let mut many = format!("group\n{entries}");
    for number in 0..30 {
        writeln!(many, "none{number}@contoso.example").unwrap();
    }
    let before = tenant.report()["requests"]["groups"]["200"].as_u64().unwrap();
    let many = write(&lake.beside().join("many.csv"), many);
    let added = lake.add(&tenant, "many", &["--groups", many.to_str().unwrap()]);
    let many = &added["scope_resolved"];
    assert_eq!((&many["people"], &many["sample"]), (&few["people"], &few["sample"]));
    assert_eq!(many["findings"].as_array().unwrap()[..4], few["findings"].as_array().unwrap()[..4]);
    assert_eq!(tenant.report()["requests"]["groups"]["200"], before + 1, "one page of groups");

    // By object id.
    let id = group_id(&tenant, "inner@contoso.example").await;
    let by_id = write(&lake.beside().join("id.csv"), format!("Group id\n{id}\n"));
    let added = lake.add(&tenant, "id", &["--groups", by_id.to_str().unwrap(), "--dry-run"]);
    assert_eq!(
        (&added["scope_resolved"]["people"], &added["scope_resolved"]["sample"]),
        (&few["people"], &few["sample"])
    );
}

async fn group_id(tenant: &Tenant, mail: &str) -> String {
    let client = reqwest::Client::new();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", tenant.get("client_id")),
        ("client_secret", tenant.get("client_secret")),
        ("scope", "https://graph.microsoft.com/.default"),
    ];
    let url = format!("{}/{}/oauth2/v2.0/token", tenant.get("login"), tenant.get("tenant_id"));
    let body = form.map(|(name, value)| format!("{name}={value}")).join("&");
    let request = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    let token: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    let url = format!("{}/v1.0/groups?$select=id,mail", tenant.get("graph"));
    let request = client.get(url).bearer_auth(token["access_token"].as_str().unwrap());
    let groups: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    let group = groups["value"].as_array().unwrap().iter().find(|group| group["mail"] == mail).unwrap();
    group["id"].as_str().unwrap().to_owned()
}

/// Danger: an application that was given the fewest rights that work is refused each hour, and its administrators wonder.
#[test]
fn a_scope_of_users_asks_for_groups_only_with_the_right_to_see_them() {
    let (tenant, _folder) = odd_tenant(&[]);
    tenant.faults(&json!([{ "on": "token", "do": { "roles": ["ActivityFeed.Read", "Mail.Read", "User.Read.All"] } }]));
    let lake = Lake::temp();
    let users = write(&lake.beside().join("users.csv"), "ann@contoso.example\nouter@contoso.example\n");
    let added = lake.add(&tenant, "Contoso", &["--users", users.to_str().unwrap()]);
    assert_eq!(
        (&added["scope_resolved"]["people"], &added["scope_resolved"]["findings"]),
        (&json!(1), &json!(["line 2: the directory has no user `outer@contoso.example`"]))
    );
    assert_eq!(tenant.report()["requests"]["groups"], Value::Null);
}

#[test]
fn few_and_many_users_are_found_in_two_ways_and_mean_the_same() {
    let (tenant, _folder) = odd_tenant(&[]);
    let lake = Lake::temp();
    let entries = "bo@contoso.example\nBO.ROE@contoso.example\nann.doe@contoso.example\nroom@contoso.example\ngil@fabrikam.example\nnobody@contoso.example\n";
    let few = write(&lake.beside().join("few.csv"), entries);
    let few = lake.add(&tenant, "few", &["--users", few.to_str().unwrap()]);
    let missing: String = (0..30).map(|number| format!("nobody{number}@contoso.example\n")).collect();
    let many = write(&lake.beside().join("many.csv"), format!("{entries}{missing}"));
    let many = lake.add(&tenant, "many", &["--users", many.to_str().unwrap()]);
    let (few, many) = (&few["scope_resolved"], &many["scope_resolved"]);
    assert_eq!((&many["people"], &many["sample"]), (&json!(4), &few["sample"]));
    let few = few["findings"].as_array().unwrap();
    assert_eq!(many["findings"].as_array().unwrap()[..few.len()], few[..]);
}

/// Danger: consent comes after adding, so a tenant that refuses must not keep anybody from adding it.
#[test]
fn a_tenant_that_cannot_be_asked_yet_is_said_and_the_connection_is_added_all_the_same() {
    let (tenant, _folder) = odd_tenant(&[]);
    let lake = Lake::temp();
    let users = write(&lake.beside().join("users.csv"), "mail\nann@contoso.example\nann\n");
    let users = users.to_str().unwrap();
    tenant.faults(&json!([{ "on": "token", "do": { "error": "700016" } }]));
    let added = lake.add(&tenant, "refused", &["--users", users]);
    let resolved = &added["scope_resolved"];
    assert_eq!(
        (&resolved["people"], &resolved["sample"], &resolved["error"]["code"]),
        (&Value::Null, &json!([]), &json!("application-missing"))
    );
    assert_eq!(resolved["findings"], json!(["line 3: `ann` is neither an address nor an object id"]));

    // Nothing answers at all: the last of equal options counts.
    let closed = |name: &str| format!("--endpoint={name}=http://127.0.0.1:9");
    let others = [closed("login"), closed("graph")];
    let others: Vec<&str> = ["--users", users].into_iter().chain(others.iter().map(String::as_str)).collect();
    let offline = lake.add(&tenant, "offline", &others);
    assert_eq!(offline["scope_resolved"]["error"]["code"], "service-unavailable", "{offline}");
    // Everybody needs no question.
    let before = tenant.report()["requests_total"].clone();
    let all = lake.add(&tenant, "all", &[]);
    assert_eq!(all["scope_resolved"], json!({ "people": null, "sample": [], "findings": [], "error": null }));
    assert_eq!(tenant.report()["requests_total"], before);
    let listed: Value = serde_json::from_str(&lake.text(&["connection", "list", "--output", "json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(
        lake.text(&["connection", "scope", "all", "--output", "csv"]).trim(),
        "userPrincipalName,mail,displayName,id"
    );
}

#[test]
fn a_scope_that_means_nobody_is_refused_unless_it_is_a_trial() {
    let (tenant, _folder) = odd_tenant(&[]);
    let lake = Lake::temp();
    let users = write(&lake.beside().join("users.csv"), "nobody@contoso.example\n");
    let users = users.to_str().unwrap();
    let trial = lake.add(&tenant, "Contoso", &["--users", users, "--dry-run"]);
    assert_eq!(trial["scope_resolved"]["people"], 0);
    let known = write(&lake.beside().join("known.csv"), "ann@contoso.example\n");
    lake.add(&tenant, "Contoso", &["--users", known.to_str().unwrap()]);
    let output = lake.output(&["connection", "rescope", "Contoso", "--users", users]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("warning: line 1: the directory has no user `nobody@contoso.example`"), "{text}");
    assert!(text.contains("error: the scope means nobody, so nothing would be monitored"), "{text}");
    let output = lake.output(&["connection", "rescope", "Contoso", "--users", users, "--dry-run"]);
    assert_eq!(output.status.code(), Some(0));
    let listed: Value =
        serde_json::from_str(&lake.text(&["connection", "scope", "Contoso", "--output", "json"])).unwrap();
    assert_eq!(addresses(&listed["members"]), set(&["ann@contoso.example"]));
}

/// Danger: only principal names are found in the pages of the directory, or a request is sent for each other address.
#[test]
fn people_are_found_by_any_address_with_a_request_per_page_of_the_directory() {
    let tenant = Tenant::start(&["--generate", "users=5k,messages=1,aliases=3"]);
    let lake = Lake::temp();
    let mut csv = String::from("mail\n");
    for number in 0..5_000 {
        match number % 3 {
            0 => writeln!(csv, "user{number:05}.Alias2@contoso.onmicrosoft.com").unwrap(),
            _ => writeln!(csv, "USER{number:05}@contoso.onmicrosoft.com").unwrap(),
        }
    }
    csv.push_str("nobody@contoso.onmicrosoft.com\n");
    let users = write(&lake.beside().join("users.csv"), csv);
    let trial = lake.add(&tenant, "Contoso", &["--users", users.to_str().unwrap(), "--dry-run"]);
    let resolved = &trial["scope_resolved"];
    assert_eq!(
        (&resolved["people"], &resolved["findings"]),
        (&json!(5_000), &json!(["line 5002: the directory has no user `nobody@contoso.onmicrosoft.com`"]))
    );
    // Five pages of 999 people and one of five; what the unknown entry is besides takes two more.
    let requests = &tenant.report()["requests"];
    assert_eq!((&requests["users"], &requests["groups"]), (&json!({ "200": 6 }), &json!({ "200": 2 })));
}
