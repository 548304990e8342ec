//! `waybill schedule`: job files on their cron expressions, as a service or in the words of another scheduler.

mod files;
mod metrics;
mod page;
mod render;
mod service;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Context;
use super::exit::Exit;
use crate::error::Result;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  waybill --lake ./lake schedule --jobs jobs/hourly.toml --once-at-start --log-format json\n  waybill schedule render systemd --job jobs/hourly.toml --lake s3://bucket/waybill --secret WAYBILL_SECRET\n\nOnce it listens, one JSON line tells where: listen, jobs. /healthz, /readyz and /metrics answer there.\nExit codes: 0 a signal came and nothing ran; 130 a signal interrupted a run (and nothing is lost);\n2 a job file is wrong or the address is taken."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Job file, or folder of job files (*.toml); they are reread when they change
    #[arg(long, value_name = "FILE_OR_DIR", default_value = "jobs")]
    jobs: Vec<PathBuf>,
    /// Where health and metrics are served; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9464")]
    listen: SocketAddr,
    /// Run each job when the service starts, too
    #[arg(long)]
    once_at_start: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a job for systemd, Kubernetes or Airflow
    Render(render::Arguments),
}

impl Arguments {
    /// Whether it goes on running and its log lines are all that one sees of it.
    pub(super) fn is_service(&self) -> bool {
        self.command.is_none()
    }
}

pub(super) async fn main(context: Context, arguments: Arguments) -> Result<Exit> {
    match arguments.command {
        Some(Command::Render(ordered)) => render::main(&context, &ordered),
        None => service::main(context, arguments).await,
    }
}
