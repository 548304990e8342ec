//! Bars for a person on a terminal; silence for everybody else, who reads the log lines.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Context, LogFormat, output};
use crate::monitor::Progress;

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
