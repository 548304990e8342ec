//! The repository checks itself: rooms use only what the map allows, pages and code agree, one Arrow in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The single files of `src` that every room may use.
const BASE: &[&str] = &["allocator", "clock", "error", "http", "id", "limits", "monitor", "secret"];

/// The map of `lib.rs`: who may use whom, beside the base.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    let mut map: BTreeMap<&str, &[&str]> = BASE.iter().map(|base| (*base, &[] as &[&str])).collect();
    map.extend([
        ("source", &[] as &[&str]),
        ("digest", &[]),
        ("event", &[]),
        ("simulator", &[]),
        ("lake", &["event"]),
        ("connection", &["source", "lake", "event"]),
        ("search", &["digest", "event", "lake"]),
        ("run", &["source", "digest", "event", "lake"]),
        ("doctor", &["connection", "run", "search", "lake", "source", "event"]),
        ("export", &["search", "lake"]),
        ("job", &[]),
        ("serve", &["doctor", "connection", "run", "search", "lake", "source", "event", "job"]),
        (
            "cli",
            &[
                "connection",
                "doctor",
                "export",
                "job",
                "lake",
                "run",
                "search",
                "serve",
                "simulator",
                "source",
                "event",
            ],
        ),
    ]);
    map
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let source = root().join("src");
    let mut wrong = Vec::new();
    for (room, rooms) in allowed() {
        let folder = source.join(room);
        let paths = if folder.is_dir() { files(&folder, "rs") } else { vec![source.join(format!("{room}.rs"))] };
        for path in paths {
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for used in code.match_indices("crate::").map(|(at, _)| &code[at + "crate::".len()..]) {
                    let used: String =
                        used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                    let is_base = BASE.contains(&used.as_str()) && room != "simulator";
                    if used != room && !is_base && !rooms.contains(&used.as_str()) {
                        let path = path.strip_prefix(root()).unwrap().display();
                        wrong.push(format!("{path}:{}: `{room}` may not use `{used}`", number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_is_on_the_map() {
    let known = allowed();
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            ["lib", "main"].contains(&name.as_str()) || known.contains_key(name.as_str()),
            "`{name}` is not on the map"
        );
    }
}

/// One file (or room) owns each foreign library's types.
#[test]
fn a_foreign_library_is_known_in_one_place() {
    let owners: [(&str, &[&str]); 13] = [
        ("deltalake_core::", &["src/lake/"]),
        ("reqwest::", &["src/http.rs", "src/source/microsoft365/"]),
        ("axum::", &["src/serve/", "src/simulator/", "src/cli/schedule/page.rs"]),
        ("croner::", &["src/job/cron.rs"]),
        ("maud::", &["src/serve/"]),
        ("indicatif", &["src/cli/progress.rs"]),
        ("rustyline", &["src/cli/shell/reader.rs"]),
        ("rayon::", &["src/digest/"]),
        // The library that encodes rows for the Postgres protocol speaks its types.
        ("datafusion::", &["src/search/", "src/serve/postgres/"]),
        ("pgwire::", &["src/serve/postgres/"]),
        ("arrow_flight::", &["src/serve/flight/"]),
        ("tonic::", &["src/serve/flight/"]),
        ("println!", &["src/cli/output.rs"]),
    ];
    let is_test = |path: &PathBuf| path.ends_with("tests.rs");
    for path in files(&root().join("src"), "rs").into_iter().filter(|path| !is_test(path)) {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let code: String = text
            .split("#[cfg(test)]")
            .next()
            .unwrap()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        for (library, places) in owners {
            let is_owner = places.iter().any(|place| name.starts_with(place));
            assert!(is_owner || !code.contains(library), "`{library}` has no place in `{name}`");
        }
    }
}

#[test]
fn the_tree_holds_one_arrow_one_datafusion_and_no_cloud_sdk() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let names: Vec<&str> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    for single in ["arrow", "parquet", "datafusion", "object_store", "deltalake-core", "rustls", "axum"] {
        assert_eq!(names.iter().filter(|name| **name == single).count(), 1, "{single}");
    }
    for absent in ["openssl", "native-tls", "aws-config", "aws-sdk-s3", "azure_core", "google-cloud-storage"] {
        assert!(!names.contains(&absent), "{absent} is in the tree");
    }
}

#[test]
fn every_link_of_the_docs_leads_somewhere() {
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut dead = BTreeSet::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !page.parent().unwrap().join(path).exists() {
                dead.insert(format!("{}: {target}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_sql_page_describes_every_column_in_the_schemas_words() {
    let page = std::fs::read_to_string(root().join("docs/sql.md")).unwrap();
    for table in ["file_events", "runs", "gaps", "quarantine", "changes", "scope_members", "searches"] {
        let text = std::fs::read_to_string(root().join(format!("schemas/{table}.json"))).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        for column in schema["columns"].as_array().unwrap() {
            let word = |key: &str| column[key].as_str().unwrap();
            let null = if column["nullable"].as_bool().unwrap() { ", may be null" } else { "" };
            let line = format!("| `{}` | {}{null} | {} |", word("name"), word("type"), word("description"));
            assert!(page.contains(&line), "docs/sql.md lacks {table}: {line}");
        }
    }
}
