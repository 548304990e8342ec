//! DuckDB as a peer, on the data files that a table's present version names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use waybill::event::schema::TableName;

use super::peer::Python;

/// DuckDB in a process of its own (`benches/duckdb_peer.py`).
pub(crate) struct DuckDb(Python);

impl DuckDb {
    /// Starts it; it has no tables yet.
    pub(crate) fn start() -> Self {
        let mut python = Python::start("duckdb_peer.py", &[]);
        let free_mail = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/personal-mail-domains.txt");
        let free_mail = std::fs::read_to_string(free_mail).expect("the list of domains is part of the repository");
        let lines = free_mail.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let free_mail: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let settings = std::env::var("WAYBILL_BENCH_DUCKDB").unwrap_or_default();
        let settings: Vec<&str> = settings.split(';').filter(|setting| !setting.is_empty()).collect();
        python.ask(&json!({"free_mail": free_mail, "settings": settings}));
        Self(python)
    }

    /// Gives it a table of a lake as its data files.
    pub(crate) fn table(&mut self, table: TableName, files: &[PathBuf]) {
        let files: Vec<&str> = files.iter().filter_map(|path| path.to_str()).collect();
        let columns = &waybill::event::schema::table(table).columns;
        let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let told = self.0.ask(&json!({"table": table.as_str(), "files": files, "columns": columns}));
        assert!(told["error"].is_null(), "{told}");
    }

    /// Time, CPU time of all its threads, and rows.
    pub(crate) fn ask(&mut self, statement: &str) -> Result<(Duration, Duration, usize), String> {
        let told = self.0.ask(&json!({"statement": statement}));
        match told["error"].as_str() {
            Some(error) => Err(error.lines().next().unwrap_or_default().chars().take(60).collect()),
            None => {
                let seconds = |name| Duration::from_secs_f64(told[name].as_f64().expect("it tells its time"));
                let rows = told["rows"].as_u64().expect("it counts rows");
                Ok((seconds("seconds"), seconds("cpu"), usize::try_from(rows).expect("a count of rows")))
            }
        }
    }
}
