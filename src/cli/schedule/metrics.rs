//! What `waybill schedule` counts, in Prometheus' text format 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::page::JobView;
use crate::cli::run::Ended;
use crate::clock::Time;
use crate::event::Outcome;
use crate::run::{OwedCounts, Report};

/// Upper bounds of the run times that are told apart, seconds: from an idle run to a first one over a week.
const BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

/// Counts since the service started.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    runs: BTreeMap<(String, &'static str), u64>,
    durations: BTreeMap<String, Durations>,
    connections: BTreeMap<String, Counts>,
    jobs: BTreeMap<(String, u8), u64>,
    skipped: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Durations {
    /// Runs per bucket, not added up.
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    count: u64,
}

/// What the reports of a connection's runs say: sums, and how the last run of each shard left it.
#[derive(Debug, Default)]
struct Counts {
    events: u64,
    gaps: u64,
    quarantined: u64,
    bytes_hashed: u64,
    /// By the shard's name; a connection that is not split has one without.
    shards: BTreeMap<Option<String>, Left>,
}

/// How the last run left a shard.
#[derive(Debug, Default)]
struct Left {
    last_success: Option<Time>,
    lag_seconds: Option<i64>,
    owed: OwedCounts,
}

impl Metrics {
    /// Counts a run.
    pub(super) fn ran(&mut self, connection: &str, ended: &Ended, seconds: f64) {
        let outcome = match ended {
            Ended::Ran(report) => report.outcome.as_str(),
            Ended::Failed { outcome, .. } => outcome.as_str(),
            Ended::Skipped { outcome, .. } => outcome,
        };
        *self.runs.entry((connection.to_owned(), outcome)).or_default() += 1;
        if let Ended::Skipped { .. } = ended {
            return;
        }
        let durations = self.durations.entry(connection.to_owned()).or_default();
        if let Some(index) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            durations.buckets[index] += 1;
        }
        durations.seconds += seconds;
        durations.count += 1;
        if let Ended::Ran(report) = ended {
            self.connections.entry(connection.to_owned()).or_default().add(report);
        }
    }

    /// Counts the end of a job.
    pub(super) fn job_ended(&mut self, job: &str, exit_code: u8) {
        *self.jobs.entry((job.to_owned(), exit_code)).or_default() += 1;
    }

    /// Counts fires at which a job did not start.
    pub(super) fn job_skipped(&mut self, job: &str, fires: usize) {
        *self.skipped.entry(job.to_owned()).or_default() += fires as u64;
    }

    /// All of it as text.
    pub(super) fn text(&self, jobs: &[JobView]) -> String {
        let mut page = Page::default();
        page.family("waybill_build_info", "gauge", "The version that runs.");
        page.line("waybill_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);

        page.family("waybill_runs_total", "counter", "Runs that ended, by outcome.");
        for ((connection, outcome), count) in &self.runs {
            page.line("waybill_runs_total", &[("connection", connection), ("outcome", outcome)], count);
        }
        page.family("waybill_run_duration_seconds", "histogram", "Time that runs took.");
        for (connection, durations) in &self.durations {
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(durations.buckets) {
                below += count;
                let bound = bound.to_string();
                page.line("waybill_run_duration_seconds_bucket", &[("connection", connection), ("le", &bound)], below);
            }
            let all = [("connection", connection.as_str()), ("le", "+Inf")];
            page.line("waybill_run_duration_seconds_bucket", &all, durations.count);
            page.line("waybill_run_duration_seconds_sum", &[("connection", connection)], durations.seconds);
            page.line("waybill_run_duration_seconds_count", &[("connection", connection)], durations.count);
        }

        page.of_connections(
            self,
            "waybill_last_success_timestamp_seconds",
            "gauge",
            "When the last run that was done, or done in part, ended.",
            |counts| counts.shards.values().map(|left| left.last_success).min().flatten().map(|time| time.timestamp()),
        );
        page.of_connections(
            self,
            "waybill_lag_seconds",
            "gauge",
            "Age of the newest audit content at the end of the last run.",
            |counts| counts.shards.values().filter_map(|left| left.lag_seconds).max(),
        );
        page.of_connections(self, "waybill_events_total", "counter", "File events added.", |counts| {
            Some(counts.events)
        });
        page.of_connections(
            self,
            "waybill_gaps_total",
            "counter",
            "Gaps recorded: what could not be read, for good.",
            |counts| Some(counts.gaps),
        );
        page.of_connections(
            self,
            "waybill_quarantined_total",
            "counter",
            "Audit records that could not be understood.",
            |counts| Some(counts.quarantined),
        );
        page.of_connections(self, "waybill_bytes_hashed_total", "counter", "Attachment bytes hashed.", |counts| {
            Some(counts.bytes_hashed)
        });
        page.family("waybill_owed", "gauge", "What later runs try again, after the last run.");
        for (connection, counts) in &self.connections {
            for (kind, count) in counts.owed() {
                page.line("waybill_owed", &[("connection", connection), ("kind", kind)], count);
            }
        }

        page.family("waybill_job_ends_total", "counter", "Jobs that ended, by exit code.");
        for ((job, exit_code), count) in &self.jobs {
            page.line("waybill_job_ends_total", &[("job", job), ("exit_code", &exit_code.to_string())], count);
        }
        page.family(
            "waybill_job_skipped_total",
            "counter",
            "Fires at which a job did not start: it still ran, or they were missed and a later one stood for them.",
        );
        for job in jobs {
            page.line("waybill_job_skipped_total", &[("job", &job.job)], self.skipped.get(&job.job).unwrap_or(&0));
        }
        page.family("waybill_job_running", "gauge", "1 while a job runs.");
        for job in jobs {
            page.line("waybill_job_running", &[("job", &job.job)], u8::from(job.is_running));
        }
        page.family(
            "waybill_job_file_broken",
            "gauge",
            "1 while a job's file cannot be used, and what it said before stays in force.",
        );
        for job in jobs {
            page.line("waybill_job_file_broken", &[("job", &job.job)], u8::from(job.problem.is_some()));
        }
        page.family("waybill_next_fire_timestamp_seconds", "gauge", "When a job starts next.");
        for job in jobs {
            if let Some(next) = job.next_fire {
                page.line("waybill_next_fire_timestamp_seconds", &[("job", &job.job)], next.timestamp());
            }
        }
        page.0
    }
}

impl Counts {
    fn add(&mut self, report: &Report) {
        self.events += report.events;
        self.gaps += report.gaps;
        self.quarantined += report.quarantined;
        self.bytes_hashed += report.bytes_hashed;
        // The shards of an earlier layout are no more.
        let of = |shard: &Option<String>| shard.as_deref().and_then(|name| name.split('/').nth(1).map(str::to_owned));
        self.shards.retain(|shard, _| of(shard) == of(&report.shard));
        let left = self.shards.entry(report.shard.clone()).or_default();
        match report.outcome {
            Outcome::Done | Outcome::Partial => left.last_success = Some(report.finished_at),
            Outcome::Failed | Outcome::Interrupted => {}
        }
        left.lag_seconds = report.lag_seconds;
        left.owed = report.owed;
    }

    fn owed(&self) -> [(&'static str, usize); 4] {
        let sum = |count: fn(&OwedCounts) -> usize| self.shards.values().map(|left| count(&left.owed)).sum();
        [
            ("blobs", sum(|owed| owed.blobs)),
            ("messages", sum(|owed| owed.messages)),
            ("hashes", sum(|owed| owed.hashes)),
            ("windows", sum(|owed| owed.windows)),
        ]
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a text cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }

    fn of_connections<T: std::fmt::Display>(
        &mut self,
        metrics: &Metrics,
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&Counts) -> Option<T>,
    ) {
        self.family(name, kind, help);
        for (connection, counts) in &metrics.connections {
            if let Some(value) = value(counts) {
                self.line(name, &[("connection", connection)], value);
            }
        }
    }
}

/// A label's value: backslash, quote and line feed are escaped, and nothing else.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut metrics = Metrics::default();
        metrics.job_ended("a\"} 7\nx{y=\"\\", 3);
        let text = metrics.text(&[]);
        let line = "waybill_job_ends_total{job=\"a\\\"} 7\\nx{y=\\\"\\\\\",exit_code=\"3\"} 1";
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).nth(1), Some(line));
    }
}
