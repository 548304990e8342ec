//! Job files: which connections run when, and what else is done then.
//!
//! A job file is TOML (`jobs/*.toml`). It says what; cron, systemd or Kubernetes says when, by calling
//! `waybill run --job FILE`. Its `cron` line is for whoever renders or runs schedules from it.
//!
//! May use: the base. Room for `schedule` and `render`.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Code, Error, Result, ResultExt};

/// A job, as its file says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// The job's name, for reports and logs.
    pub name: String,
    /// When it is meant to run: five fields, UTC.
    pub cron: String,
    /// The lake; the command line's when absent.
    pub lake: Option<String>,
    /// The connections that run, by display name; absent: all of the lake.
    pub connections: Option<Vec<String>>,
    /// What is maintained afterwards; absent: nothing.
    pub maintain: Option<Maintain>,
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

    fn parse(text: &str) -> Result<Self> {
        let job: Self =
            toml::from_str(text).map_err(|error| Error::new(Code::Configuration, error.to_string().trim_end()))?;
        let fields = job.cron.split_whitespace().count();
        if fields != 5 {
            return Err(Error::new(
                Code::Configuration,
                format!("`cron = \"{}\"` has {fields} fields and not 5 (minute hour day month weekday)", job.cron),
            ));
        }
        if job.maintain.as_ref().is_some_and(|maintain| maintain.target_file_mb == 0) {
            return Err(Error::new(Code::Configuration, "`target_file_mb` must be at least 1"));
        }
        Ok(job)
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
    fn a_cron_expression_has_five_fields() {
        let error = JobFile::parse("name = \"x\"\ncron = \"hourly\"\n").unwrap_err();
        assert!(error.message().contains("1 fields"), "{error}");
    }
}
