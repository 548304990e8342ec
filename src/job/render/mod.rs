//! A job in the words of another scheduler: systemd, Kubernetes, Airflow.
//!
//! What is rendered names secrets by their environment variables and never holds one. Each dialect has its file; what they
//! share is here: names, and what may be written down at all.

mod airflow;
mod kubernetes;
mod systemd;

use super::JobFile;
use crate::error::{Code, Error, Result};

/// The scheduler that a job is rendered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A service and its timer.
    Systemd,
    /// A `CronJob`, and a `ConfigMap` with the job file.
    Kubernetes,
    /// A DAG.
    Airflow,
}

/// What is rendered, and for where.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The job.
    pub job: &'a JobFile,
    /// Its file's text, which Kubernetes carries with it.
    pub text: &'a str,
    /// Where the file is, absolute, for those who read it from there.
    pub path: &'a str,
    /// Where the program is, absolute; systemd wants to know.
    pub program: &'a str,
    /// The lake, when the file names none.
    pub lake: Option<&'a str>,
    /// The container image; Kubernetes needs one.
    pub image: Option<&'a str>,
    /// The environment variables that hold secrets.
    pub secrets: &'a [String],
    /// Into how many shards its connections are split: a process for each.
    pub shards: u32,
}

/// A rendered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without a folder.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Most characters of a job's name in other schedulers' names: a `CronJob` may have 52, and `waybill-` is before it.
const SLUG_CHARS: usize = 40;

/// Renders a job.
///
/// # Errors
/// `usage` or `configuration`, when the target could not run what was ordered.
pub fn render(target: Target, order: &Order<'_>) -> Result<Vec<File>> {
    let texts = [order.path, order.program].into_iter().chain(order.lake).chain(order.image);
    for text in texts {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(Error::new(Code::Usage, format!("`{}` cannot be written into a file", text.escape_debug())));
        }
    }
    for name in order.secrets {
        let is_first = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
        let is_name =
            name.starts_with(is_first) && name.chars().all(|letter| is_first(letter) || letter.is_ascii_digit());
        if !is_name {
            // What was given may be the secret itself, so it is not repeated.
            let message =
                "`--secret` takes the name of an environment variable, like `WAYBILL_SECRET`, and never a value";
            return Err(Error::new(Code::Usage, message));
        }
    }
    let Some(lake) = order.job.lake.as_deref().or(order.lake) else {
        let message = "no lake was named: give `--lake URL`, or name it in the job file";
        return Err(Error::new(Code::Usage, message));
    };
    let slug = slug(&order.job.name)?;
    match target {
        Target::Systemd if order.shards > 1 => {
            let message = "systemd is one machine's: a run there takes all shards by itself, without `--shards`";
            Err(Error::new(Code::Usage, message))
        }
        Target::Systemd => systemd::render(order, &slug, lake),
        Target::Kubernetes => kubernetes::render(order, &slug, lake),
        Target::Airflow => airflow::render(order, &slug),
    }
}

/// A job's name as names of files, units and objects are written.
fn slug(name: &str) -> Result<String> {
    let words: Vec<String> = name
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let mut slug = words.join("-");
    slug.truncate(SLUG_CHARS);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        let message =
            format!("the job's name `{name}` has no letter from a to z and no digit to make another name from");
        return Err(Error::new(Code::Configuration, message));
    }
    Ok(slug.to_owned())
}

/// Where a lake of this machine's own files is; `None` for one in object storage.
fn folder(lake: &str) -> Option<&str> {
    match lake.strip_prefix("file://") {
        Some(path) => Some(path),
        None => (!lake.contains("://")).then_some(lake),
    }
}

/// The lines of a comment.
fn comment(text: &str) -> String {
    text.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str =
        "name = \"Nightly (EU)\"\ncron = \"30 2 * * MON-FRI\"\ntimezone = \"Europe/Berlin\"\njitter = \"5m\"\n";

    fn rendered(target: Target, change: impl FnOnce(&mut Order<'_>)) -> Result<Vec<File>> {
        let job = JobFile::parse(JOB).unwrap();
        let secrets = ["WAYBILL_SECRET".to_owned()];
        let mut order = Order {
            job: &job,
            text: JOB,
            path: "/etc/waybill/nightly.toml",
            program: "/usr/local/bin/waybill",
            lake: Some("s3://bucket/lake"),
            image: Some("registry.example/waybill:0.1.0"),
            secrets: &secrets,
            shards: 1,
        };
        change(&mut order);
        render(target, &order)
    }

    #[test]
    fn files_are_called_after_the_job() {
        let names = |target| rendered(target, |_| ()).unwrap().into_iter().map(|file| file.name).collect::<Vec<_>>();
        assert_eq!(names(Target::Systemd), ["waybill-nightly-eu.service", "waybill-nightly-eu.timer"]);
        assert_eq!(names(Target::Kubernetes), ["waybill-nightly-eu.yaml"]);
        assert_eq!(names(Target::Airflow), ["waybill_nightly_eu.py"]);
        assert_eq!(slug(&"long name ".repeat(20)).unwrap(), "long-name-long-name-long-name-long-name");
        assert_eq!(slug("日本").unwrap_err().code(), Code::Configuration);
    }

    #[test]
    fn a_value_in_the_place_of_a_secrets_name_is_refused_and_not_repeated() {
        for value in ["WAYBILL_SECRET=hunter2", "hunter2~", "2hunter", ""] {
            let secrets = [value.to_owned()];
            let job = JobFile::parse(JOB).unwrap();
            let order = Order {
                job: &job,
                text: JOB,
                path: "/j",
                program: "/w",
                lake: Some("s3://b/l"),
                image: Some("i"),
                secrets: &secrets,
                shards: 1,
            };
            let error = render(Target::Kubernetes, &order).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(!error.message().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_the_target_could_not_run_is_not_rendered() {
        for (target, lake, image) in [
            (Target::Systemd, None, None),
            (Target::Systemd, Some("./lake"), None),
            (Target::Kubernetes, Some("s3://bucket/lake"), None),
            (Target::Kubernetes, Some("file:///srv/lake"), Some("image")),
            (Target::Airflow, Some("s3://bucket/{{ lake }}"), None),
            (Target::Airflow, Some("s3://bucket/\nlake"), None),
        ] {
            let code = rendered(target, |order| (order.lake, order.image) = (lake, image)).unwrap_err().code();
            assert_eq!(code, Code::Usage, "{target:?} {lake:?}");
        }
    }
}
