//! `waybill schedule render`: a job in the words of another scheduler.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::exit::Exit;
use crate::cli::{Context, output};
use crate::error::{Code, Error, Result, ResultExt};
use crate::job::JobFile;
use crate::job::render::{self, Order};
use crate::limits;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill schedule render systemd --job jobs/hourly.toml --lake s3://bucket/waybill --secret WAYBILL_SECRET\n  waybill schedule render kubernetes --job jobs/nightly.toml --lake s3://bucket/waybill --image registry.example/waybill:0.1.0\n  waybill schedule render airflow --job jobs/hourly.toml --lake s3://bucket/waybill --out dags/\n  waybill schedule render kubernetes --job jobs/hourly.toml --lake s3://bucket/waybill --image registry.example/waybill:0.1.0 --shards 16"
)]
pub(super) struct Arguments {
    /// For which scheduler
    #[arg(value_enum)]
    target: Target,
    /// The job file
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// Write the files into this folder, and print their paths, instead of printing what is in them
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Container image that holds `waybill`
    #[arg(long, value_name = "IMAGE", required_if_eq("target", "kubernetes"))]
    image: Option<String>,
    /// Environment variable that holds a secret of a connection or of the storage; its name, never its value
    #[arg(long, value_name = "NAME")]
    secret: Vec<String>,
    /// A process for each of the shards into which the connections are split
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=limits::SHARDS_MAX as i64))]
    shards: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    /// A service and its timer
    Systemd,
    /// A CronJob and a ConfigMap
    Kubernetes,
    /// A DAG for Airflow 2 or 3
    Airflow,
}

pub(super) fn main(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let job = JobFile::read(&arguments.job)?;
    let doing = format!("cannot use the job file `{}`", arguments.job.display());
    let text = std::fs::read_to_string(&arguments.job).or_error(Code::Configuration, &doing)?;
    let path = std::path::absolute(&arguments.job).or_error(Code::Configuration, &doing)?;
    let program = std::env::current_exe().or_error(Code::Io, "cannot find out where this program is")?;
    let order = Order {
        job: &job,
        text: &text,
        path: utf8(&path)?,
        program: utf8(&program)?,
        lake: context.global.lake.as_deref(),
        image: arguments.image.as_deref(),
        secrets: &arguments.secret,
        shards: arguments.shards,
    };
    let target = match arguments.target {
        Target::Systemd => render::Target::Systemd,
        Target::Kubernetes => render::Target::Kubernetes,
        Target::Airflow => render::Target::Airflow,
    };
    let files = render::render(target, &order)?;
    let is_alone = files.len() == 1;
    for file in files {
        match &arguments.out {
            None if is_alone => output::line(file.text.trim_end())?,
            None => output::line(&format!("# --- {}\n{}", file.name, file.text))?,
            Some(folder) => {
                let path = folder.join(&file.name);
                let doing = format!("cannot write `{}`", path.display());
                std::fs::create_dir_all(folder).or_error(Code::Io, &doing)?;
                std::fs::write(&path, &file.text).or_error(Code::Io, &doing)?;
                output::line(utf8(&path)?)?;
            }
        }
    }
    Ok(Exit::DONE)
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new(Code::Usage, format!("the path `{}` is not UTF-8", path.display())))
}
