//! Bars for a person on a terminal; silence for everybody else, who reads the log lines.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Context, LogFormat, output};
use crate::monitor::Progress;
use crate::search::Scanned;

/// Shows a run's counts while `work` goes on.
pub(super) async fn watch<T>(
    context: &Context,
    name: &str,
    progress: Arc<Progress>,
    work: impl Future<Output = T>,
) -> T {
    if !output::is_person() || context.global.log_format == LogFormat::Json {
        return work.await;
    }
    let style = ProgressStyle::with_template("{spinner} {prefix} {bar:24} {pos}/{len} sends · {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style);
    bar.set_prefix(name.to_owned());
    let draw = async {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tick.tick().await;
            bar.set_length(progress.sends.get());
            bar.set_position(progress.sends_done.get());
            bar.set_message(format!(
                "{} records · {}/{} blobs · {} hashed",
                HumanCount(progress.records.get()),
                progress.blobs_read.get(),
                progress.blobs_listed.get(),
                HumanBytes(progress.bytes_hashed.get()),
            ));
            bar.tick();
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = draw => unreachable!("drawing goes on for ever"),
    };
    bar.finish_and_clear();
    done
}

/// A line for a person who waits for a query; nothing for everybody else.
pub(super) struct Query {
    is_wanted: bool,
    bar: Option<ProgressBar>,
}

impl Query {
    pub(super) fn new(context: &Context) -> Self {
        Self { is_wanted: output::is_person() && context.global.log_format != LogFormat::Json, bar: None }
    }

    /// Shows how far the work is.
    pub(super) fn show(&mut self, elapsed: Duration, rows: u64, scanned: Option<Scanned>) {
        if !self.is_wanted {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style =
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
        });
        let scanned = scanned.unwrap_or_default();
        bar.set_message(format!(
            "{} s · {} rows read, {} · {} rows of the answer",
            elapsed.as_secs(),
            HumanCount(scanned.rows),
            HumanBytes(scanned.bytes),
            HumanCount(rows),
        ));
        bar.tick();
    }

    /// Makes room for something else.
    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        self.clear();
    }
}
