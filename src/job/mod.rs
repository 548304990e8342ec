//! Job files: which connections run when, and what else is done then.
//!
//! A job file is TOML (`jobs/*.toml`). It says what, and its `cron` line when. `schedule` decides for `waybill schedule`
//! which job starts at which instant; `render` says the same in the words of systemd, Kubernetes and Airflow, which then
//! call `waybill run --job FILE`.
//!
//! May use: the base. Knows neither lakes nor runs: what a job does is for whoever asks.

mod cron;
pub mod render;
pub mod schedule;

use std::path::Path;

use chrono_tz::Tz;
use serde::Deserialize;

pub use self::cron::Cron;
use crate::clock::span;
use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;

/// A job, as its file says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// The job's name, for reports and logs.
    pub name: String,
    /// When it runs: five fields.
    pub cron: Cron,
    /// On whose clocks; UTC when absent.
    timezone: Option<Zone>,
    /// By how much a start may be delayed.
    jitter: Option<Jitter>,
    /// The lake; the command line's when absent.
    pub lake: Option<String>,
    /// The connections that run, by display name; absent: all of the lake.
    pub connections: Option<Vec<String>>,
    /// What is maintained afterwards; absent: nothing.
    pub maintain: Option<Maintain>,
}

/// A time zone by its name in the tz database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Zone(Tz);

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let refuse = |_| format!("`{text}` is not a time zone, like `Europe/Berlin` or `UTC`");
        text.parse().map(Self).map_err(refuse)
    }
}

/// A span of time by which starts are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Jitter(chrono::Duration);

impl TryFrom<String> for Jitter {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let span = span(&text).filter(|span| *span <= limits::JITTER_MAX);
        span.map(Self)
            .ok_or_else(|| format!("`{text}` is not a jitter: give a span of time up to 1d, like `90s` or `5m`"))
    }
}

/// The maintenance of a job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintain {
    /// Files are merged up to about this many megabytes.
    #[serde(default = "target_file_mb")]
    pub target_file_mb: u64,
    /// Files that nothing has named for this many days are deleted; queries that run longer would miss them.
    #[serde(default = "vacuum_after_days")]
    pub vacuum_after_days: u32,
}

fn target_file_mb() -> u64 {
    64
}

fn vacuum_after_days() -> u32 {
    7
}

impl JobFile {
    /// Reads a job file.
    ///
    /// # Errors
    /// `configuration`, with the line and column of what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let doing = format!("cannot use the job file `{}`", path.display());
        let text = std::fs::read_to_string(path).or_error(Code::Configuration, &doing)?;
        Self::parse(&text).map_err(|error| error.context(doing))
    }

    /// Reads the text of a job file.
    ///
    /// # Errors
    /// `configuration`, with the line and column of what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let job: Self =
            toml::from_str(text).map_err(|error| Error::new(Code::Configuration, error.to_string().trim_end()))?;
        if job.name.trim().is_empty() || job.name.chars().any(char::is_control) {
            return Err(Error::new(Code::Configuration, "`name` must be a line of text"));
        }
        if job.maintain.as_ref().is_some_and(|maintain| maintain.target_file_mb == 0) {
            return Err(Error::new(Code::Configuration, "`target_file_mb` must be at least 1"));
        }
        Ok(job)
    }

    /// On whose clocks it runs.
    pub fn timezone(&self) -> Tz {
        self.timezone.map_or(Tz::UTC, |zone| zone.0)
    }

    /// By how much a start may be delayed at most.
    pub fn jitter(&self) -> chrono::Duration {
        self.jitter.map_or(limits::JITTER, |jitter| jitter.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_files_that_we_ship_are_jobs() {
        for name in ["hourly", "nightly"] {
            let job = JobFile::read(Path::new(&format!("{}/jobs/{name}.toml", env!("CARGO_MANIFEST_DIR")))).unwrap();
            assert_eq!(job.name, name);
            assert_eq!(job.maintain.is_some(), name == "nightly");
        }
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let error = JobFile::parse("name = \"x\"\ncron = \"0 * * * *\"\nconections = []\n").unwrap_err();
        assert_eq!(error.code(), Code::Configuration);
        assert!(error.message().contains("line 3") && error.message().contains("conections"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_schedule_is_refused_with_its_line() {
        let refused = |lines: &str| {
            let error = JobFile::parse(&format!("name = \"x\"\n{lines}\n")).unwrap_err();
            assert_eq!(error.code(), Code::Configuration);
            error.message().to_owned()
        };
        let text = refused("cron = \"0 25 * * *\"");
        assert!(text.contains("line 2") && text.contains("the hour `25` cannot be"), "{text}");
        let text = refused("cron = \"0 2 * * *\"\ntimezone = \"Berlin\"");
        assert!(text.contains("line 3") && text.contains("`Berlin` is not a time zone"), "{text}");
        for jitter in ["5", "2d", "-1s", "soon"] {
            let text = refused(&format!("cron = \"0 2 * * *\"\njitter = \"{jitter}\""));
            assert!(text.contains("line 3") && text.contains("is not a jitter"), "{text}");
        }
    }

    #[test]
    fn utc_and_a_minute_of_jitter_unless_the_file_says_otherwise() {
        let job = JobFile::parse("name = \"x\"\ncron = \"0 2 * * *\"\n").unwrap();
        assert_eq!((job.timezone(), job.jitter()), (Tz::UTC, chrono::Duration::seconds(60)));
        let lines = "name = \"x\"\ncron = \"0 2 * * *\"\ntimezone = \"Europe/Berlin\"\njitter = \"5m\"\n";
        let job = JobFile::parse(lines).unwrap();
        assert_eq!((job.timezone(), job.jitter()), (Tz::Europe__Berlin, chrono::Duration::minutes(5)));
    }
}
