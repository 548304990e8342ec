//! What a person or a script meets: exit codes, output formats, job files, scopes, and the texts of failures.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Lake, Tenant, ended, repository, waybill, write};

fn failed(output: &std::process::Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "a failure is no data: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn each_kind_of_failure_has_its_exit_code_its_text_and_its_hint() {
    let lake = Lake::temp();
    let nowhere = |arguments: &[&str]| failed(&lake.output(arguments));
    let (code, text) = nowhere(&["sql", "SELECT 1"]);
    assert_eq!(code, 10);
    assert_eq!(
        text.replace(&lake.url, "LAKE"),
        "error: there is no lake at `file://LAKE/`: it has no table `file_events`\n\
         hint: Check `--lake` or `WAYBILL_LAKE`; a new lake begins with `waybill connection add`.\n"
    );
    assert_eq!(nowhere(&["run", "--all"]).0, 10);
    assert_eq!(nowhere(&["run"]).0, 2, "nothing to run was named");
    assert_eq!(nowhere(&["search", "--begin", "yesterday"]).0, 2);
    let (code, text) = failed(&waybill().args(["sql", "SELECT 1"]).output().unwrap());
    assert_eq!(
        (code, text.lines().next()),
        (2, Some("error: no lake was named: give `--lake URL` or set WAYBILL_LAKE"))
    );

    let tenant = Tenant::corpus();
    lake.add(&tenant, "mail", &[]);
    let (code, text) = nowhere(&["run", "--connection", "male"]);
    assert_eq!((code, text.lines().next()), (2, Some("error: there is no connection `male`; there is `mail`")));
    let (code, text) = nowhere(&["sql", "SELECT sendr FROM file_events"]);
    assert_eq!(code, 1);
    assert!(text.contains("sendr") && text.contains("hint: "), "{text}");
    let (code, text) = nowhere(&["sql", "DROP TABLE file_events"]);
    assert_eq!(code, 1);
    assert!(text.starts_with("error: only queries are allowed"), "{text}");

    // Some 200 MB that cannot go to disk.
    let large =
        format!("SELECT cardinality(array_agg('{}' || value)) FROM generate_series(1, 200000)", "x".repeat(1_000));
    let (code, text) = nowhere(&["sql", "--query-memory-mb", "128", &large]);
    assert_eq!(code, 1);
    assert!(text.contains("Resources exhausted") && text.contains("--query-memory-mb"), "{text}");
    assert!(lake.text(&["sql", "--query-memory-mb", "2048", "--format", "csv", &large]).ends_with("200000\n"));
    assert_eq!(nowhere(&["sql", "--query-memory-mb", "1", "SELECT 1"]).0, 2);
}

#[test]
fn a_wrong_secret_ends_with_12_and_says_so_in_the_report_too() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    let secret = write(&lake.beside().join("secret"), "wrong\n");
    lake.add(&tenant, "mail", &["--client-secret-file", secret.to_str().unwrap()]);
    let output = lake.run_command("mail").output().unwrap();
    let (code, report) = ended(&output);
    assert_eq!((code, &report["outcome"], &report["error"]["code"]), (12, &json!("failed"), &json!("secret-refused")));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("AADSTS7000215") && text.contains("hint: Put the secret's value"), "{text}");
    let run = &lake.sql("SELECT outcome, exit_code, error FROM runs")[0];
    assert_eq!((&run["outcome"], &run["exit_code"]), (&json!("failed"), &json!(12)));
    // The cause is gone, and so is the failure: nothing was lost meanwhile.
    write(&secret, tenant.get("client_secret"));
    assert!(lake.run_done("mail")["events"].as_u64().unwrap() > 30);
}

#[test]
fn a_display_name_is_unique_whatever_its_case() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "Contoso mail", &[]);
    let mut arguments = vec!["connection", "add", "--name", "contoso MAIL ", "--scope", "all", "--managed-identity"];
    arguments.extend(["--tenant", tenant.get("tenant_id"), "--client-id", tenant.get("client_id")]);
    let (code, text) = failed(&lake.output(&arguments));
    assert_eq!((code, text.lines().next()), (2, Some("error: the display name `contoso MAIL` is taken")));
    arguments[3] = "other";
    arguments.push("--endpoint=graph=http://graph.example.com");
    let (code, text) = failed(&lake.output(&arguments));
    assert_eq!(code, 2);
    assert!(text.contains("http"), "{text}");
    let listed: Value = serde_json::from_str(&lake.text(&["connection", "list", "--output", "json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    lake.text(&["connection", "remove", "CONTOSO MAIL"]);
    assert_eq!(lake.text(&["connection", "list", "--output", "json"]).trim(), "[]");
}

#[test]
fn a_scope_of_users_or_groups_records_only_them() {
    let corpus = tempfile::tempdir().unwrap();
    for (number, sender) in ["ann", "ben", "cem", "dan"].iter().enumerate() {
        let mail = format!(
            "From: {sender}@contoso.example\nTo: x@elsewhere.example\nDate: Mon, 2 Nov 2026 10:0{number}:00 +0000\nMessage-ID: <{number}@contoso.example>\n\
             Subject: s\nMIME-Version: 1.0\nContent-Type: application/pdf; name=\"{sender}.pdf\"\nContent-Transfer-Encoding: base64\n\nJVBERi0=\n"
        );
        write(&corpus.path().join(format!("{sender}.eml")), mail);
    }
    let groups = json!({
        "users": [{ "mail": "ann@contoso.example", "aliases": ["ann.alias@contoso.example"] }],
        "groups": [
            { "mail": "outer@contoso.example", "displayName": "Outer", "members": ["inner@contoso.example", "cem@contoso.example"] },
            { "mail": "inner@contoso.example", "displayName": "Inner", "members": ["outer@contoso.example", "dan@contoso.example"] },
        ],
    });
    write(&corpus.path().join("_groups.json"), groups.to_string());
    let tenant = Tenant::start(&["--corpus", corpus.path().to_str().unwrap(), "--shift-dates", "now"]);

    let lake = Lake::temp();
    let users = write(
        &lake.beside().join("users.csv"),
        "\u{feff}Email;Name\r\nANN.Alias@contoso.example;Ann\r\n\r\nnobody@contoso.example;Nobody\r\n",
    );
    lake.add(&tenant, "users", &["--users", users.to_str().unwrap()]);
    let (_, report) = lake.run("users");
    assert_eq!(report["scope_people"], 1);
    assert_eq!(report["scope_findings"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!((&report["events"], &report["out_of_scope"]), (&json!(1), &json!(3)), "{report}");
    assert_eq!(lake.sql("SELECT file_name FROM file_events"), [json!({ "file_name": "ann.pdf" })]);

    let lake = Lake::temp();
    let groups = write(&lake.beside().join("groups.csv"), "group\nouter@contoso.example\n");
    lake.add(&tenant, "groups", &["--groups", groups.to_str().unwrap()]);
    lake.run("groups");
    let names: Vec<_> =
        lake.sql("SELECT file_name FROM file_events ORDER BY 1").iter().map(|row| row["file_name"].clone()).collect();
    assert_eq!(names, ["cem.pdf", "dan.pdf"]);
}

#[test]
fn the_job_files_run_every_connection_and_the_nightly_one_maintains() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "one", &[]);
    let job = |name: &str| {
        let path = repository(&format!("jobs/{name}.toml"));
        let output = lake.output(&["run", "--job", path.to_str().unwrap(), "--output", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let hourly = job("hourly");
    assert_eq!((&hourly["job"], hourly["runs"].as_array().unwrap().len()), (&json!("hourly"), 1));
    assert_eq!(hourly["maintained"], json!([]));
    let rows = lake.sql("SELECT * EXCEPT (inserted_at) FROM file_events ORDER BY event_id");
    for _ in 0..2 {
        job("hourly");
    }
    let nightly = job("nightly");
    let runs = nightly["maintained"].as_array().unwrap().iter().find(|table| table["table"] == "runs").unwrap();
    assert_eq!((&runs["files_before"], &runs["files_after"]), (&json!(4), &json!(1)));
    assert_eq!(
        lake.sql("SELECT * EXCEPT (inserted_at) FROM file_events ORDER BY event_id"),
        rows,
        "maintenance changes no row"
    );
    assert_eq!(lake.count("SELECT count(*) FROM runs"), 4);
}

#[test]
fn rows_come_as_table_csv_json_or_ndjson_from_a_statement_a_file_or_stdin() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    lake.run_done("mail");
    let query = "SELECT 1 AS n, array['a','b'] AS list, CAST(NULL AS VARCHAR) AS nothing";
    assert_eq!(lake.text(&["sql", "--format", "csv", query]), "n,list,nothing\n1,a; b,\n");
    assert_eq!(lake.text(&["sql", "--format", "json", query]), "[{\"n\":1,\"list\":[\"a\",\"b\"],\"nothing\":null}]\n");
    assert_eq!(lake.text(&["sql", "--format", "ndjson", query]), "{\"n\":1,\"list\":[\"a\",\"b\"],\"nothing\":null}\n");
    assert_eq!(lake.text(&["sql", "--format", "json", "SELECT 1 AS n WHERE false"]), "[]\n");
    assert_eq!(lake.text(&["sql", "--format", "csv", "SELECT 1 AS n WHERE false"]), "n\n");
    let file = write(&lake.beside().join("q.sql"), "-- a comment\nSELECT 2 AS n;\n");
    assert_eq!(lake.text(&["sql", "--format", "csv", "--file", file.to_str().unwrap()]), "n\n2\n");
    let mut asking =
        lake.command(&["sql", "--format", "csv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut asking.stdin.take().unwrap(), b"SELECT 3 AS n").unwrap();
    assert_eq!(asking.wait_with_output().unwrap().stdout, b"n\n3\n");
}

#[test]
fn several_statements_are_answered_in_turn_until_one_fails() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    let script = "SELECT ';' AS a; -- one; two\n/* ; */ SELECT 2 AS b;;\n";
    assert_eq!(lake.text(&["sql", "--format", "csv", script]), "a\n;\nb\n2\n");
    let file = write(&lake.beside().join("q.sql"), script);
    assert_eq!(
        lake.text(&["sql", "--format", "json", "--file", file.to_str().unwrap()]),
        "[{\"a\":\";\"}]\n[{\"b\":2}]\n"
    );
    let recorded = "SELECT statement, outcome, rows FROM searches WHERE statement LIKE 'SELECT 2%' ORDER BY asked_at";
    assert_eq!(lake.sql(recorded), vec![json!({ "statement": "SELECT 2 AS b", "outcome": "done", "rows": 1 }); 2]);

    let output = lake.output(&["sql", "--format", "csv", "SELECT 1 AS a;\n\nSELECT nothing FROM runs; SELECT 3 AS c"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"a\n1\n".as_slice()));
    assert!(text.starts_with("error: statement 2, line 3: ") && text.contains("nothing"), "{text}");
    for (statement, code, said) in [
        (" -- only\n;;", 2, "there is no statement"),
        ("SELECT 1;\n\\d runs", 2, "`\\d runs` in line 2 is for the interactive shell"),
        ("SELECT 'a; SELECT 2", 1, "error: "),
        ("SELECT 1; DROP TABLE runs", 1, "error: statement 2, line 1: only queries are allowed"),
    ] {
        let output = lake.output(&["sql", "--format", "csv", statement]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && text.contains(said), "{statement}: {text}");
    }
    for statement in ["SHOW TABLES", "DESCRIBE runs", "EXPLAIN SELECT * FROM runs", "EXPLAIN ANALYZE SELECT 1"] {
        assert!(lake.text(&["sql", "--format", "csv", statement]).lines().count() > 1, "{statement}");
    }
}

#[test]
fn a_file_of_rows_is_whole_or_not_there() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    lake.run_done("mail");
    let folder = lake.beside().join("out");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("rows");
    let to_file = |format: &str, statement: &str| {
        lake.output(&["sql", "--format", format, "--output-file", path.to_str().unwrap(), statement])
    };
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    for (format, expected) in
        [("csv", "n\n1\n"), ("json", "[{\"n\":1}]\n"), ("ndjson", "{\"n\":1}\n"), ("table", " n \n 1 \n")]
    {
        let output = to_file(format, "SELECT 1 AS n");
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("1 row in `"));
    }
    // A query that fails after its first rows leaves what was there, and nothing of itself.
    let failing = "SELECT 1 / (200000 - value) FROM range(300000)";
    for statement in [failing, "SELECT nothing", "SELECT 2; SELECT nothing"] {
        assert_eq!(to_file("csv", statement).status.code(), Some(1));
        assert_eq!(
            (std::fs::read_to_string(&path).unwrap().as_str(), names()),
            (" n \n 1 \n", vec!["rows".to_owned()])
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(to_file("parquet", failing).status.code(), Some(1));
    assert_eq!(to_file("parquet", "SELECT 1; SELECT 2").status.code(), Some(2), "one answer a file");
    assert_eq!(names(), [""; 0]);
    let nowhere = lake.output(&["sql", "--output-file", "/dev/null", "SELECT 1"]);
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");

    // Somebody stops it meanwhile.
    let endless = "SELECT value FROM range(100000000000)";
    let arguments = ["sql", "--format", "csv", "--output-file", path.to_str().unwrap(), endless];
    let mut asking = lake.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    // Rows in its file show that it is at work on them.
    let has_rows = || names().first().is_some_and(|name| std::fs::metadata(folder.join(name)).unwrap().len() > 0);
    while !has_rows() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(asking.try_wait().unwrap().is_none());
    assert!(std::process::Command::new("kill").args(["-INT", &asking.id().to_string()]).status().unwrap().success());
    assert_eq!((asking.wait().unwrap().code(), names()), (Some(130), vec![]));
    let outcome =
        "SELECT outcome FROM searches WHERE statement LIKE '%100000000000)' AND statement NOT LIKE '%outcome%'";
    assert_eq!(lake.sql(outcome), [json!({ "outcome": "cancelled" })]);
    let output = lake.output(&["search", "--format", "csv", "--limit", "2", "--output-file", path.to_str().unwrap()]);
    assert!(output.status.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().next().unwrap().split(',').next(), Some("event_id"));
}

#[test]
fn the_common_questions_need_no_sql() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    lake.run_done("mail");
    let rows = lake.sql(
        "SELECT event_id, sha256, md5, file_name, sender, recipients, subject, observed_at FROM file_events ORDER BY 1",
    );
    let search = |arguments: &[&str]| {
        let mut all = vec!["search", "--format", "ndjson", "--columns", "event_id"];
        all.extend(arguments);
        let mut ids: Vec<String> = lake
            .text(&all)
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["event_id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let expected = |matches: &dyn Fn(&Value) -> bool| -> Vec<String> {
        rows.iter().filter(|row| matches(row)).map(|row| row["event_id"].as_str().unwrap().to_owned()).collect()
    };
    let any = &rows[rows.len() / 2];
    let (sha256, md5) = (any["sha256"].as_str().unwrap(), any["md5"].as_str().unwrap());
    assert_eq!(search(&["--sha256", &sha256.to_uppercase()]), expected(&|row| row["sha256"] == any["sha256"]));
    assert_eq!(search(&["--md5", md5]), expected(&|row| row["md5"] == any["md5"]));
    let name = |row: &Value| row["file_name"].as_str().unwrap_or_default().to_lowercase();
    assert_eq!(search(&["--file-name", "*.PDF"]), expected(&|row| name(row).ends_with(".pdf")));
    assert!(!search(&["--file-name", "*.PDF"]).is_empty());
    let sender = any["sender"].as_str().unwrap();
    assert_eq!(search(&["--sender", &sender.to_uppercase()]), expected(&|row| row["sender"] == any["sender"]));
    let received = |row: &Value, text: &dyn Fn(&str) -> bool| {
        row["recipients"].as_array().unwrap().iter().any(|to| text(to.as_str().unwrap()))
    };
    let recipient = any["recipients"][0].as_str().unwrap();
    assert_eq!(search(&["--recipient", recipient]), expected(&|row| received(row, &|to| to == recipient)));
    let domain = recipient.rsplit_once('@').unwrap().1;
    assert_eq!(
        search(&["--recipient", domain]),
        expected(&|row| received(row, &|to| to.ends_with(&format!("@{domain}"))))
    );
    let pattern = format!("*@{}*", &domain[..domain.len() - 1]);
    assert!(!search(&["--recipient", &pattern]).is_empty());
    assert_eq!(search(&["--begin", "2100-01-01"]), Vec::<String>::new());
    assert_eq!(search(&["--begin", "1900-01-01", "--end", "2100-01-01"]).len(), rows.len());
    let injected = "x' OR '1'='1";
    assert_eq!(search(&["--sender", injected, "--file-name", injected, "--recipient", injected]), Vec::<String>::new());
}

/// Danger: a signal loses what was read, or leaves the next run nothing to build on. Provoked: SIGTERM while the service is slow.
#[test]
fn an_interrupted_run_ends_with_130_and_the_next_one_continues() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    tenant.faults(&json!([{ "on": "attachment_value", "do": { "latency_ms": 60_000 } }]));
    let run = lake.run_command("mail").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    let stopped = std::process::Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    let output = run.wait_with_output().unwrap();
    let (code, report) = ended(&output);
    assert_eq!((code, &report["outcome"]), (130, &json!("interrupted")));
    tenant.faults(&json!([]));
    assert!(lake.run_done("mail")["events"].as_u64().unwrap() + report["events"].as_u64().unwrap() > 30);
    assert_eq!(lake.sql("SELECT outcome FROM runs ORDER BY started_at").len(), 2);
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in [
        vec!["connection", "add"],
        vec!["run"],
        vec!["maintain"],
        vec!["search"],
        vec!["sql"],
        vec!["simulate"],
        vec!["schedule"],
        vec!["schedule", "render"],
    ] {
        let output = waybill().args(&command).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Example"), "{command:?} has no example: {text}");
    }
}
