//! What a person types and reads. Each command parses, calls one thing of the library, and prints.
//!
//! Data goes to stdout, everything else to stderr. Only this room prints.
//!
//! May use: everything.

mod authorize;
mod backfill;
mod connection;
mod doctor;
mod exit;
mod export;
mod logs;
mod maintain;
mod orders;
mod output;
mod progress;
mod risk;
mod rows;
mod run;
mod schedule;
mod scope;
mod search;
mod serve;
mod shell;
mod simulate;
mod sql;
mod times;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::allocator::keep_freed;
use crate::clock::Clock;
use crate::error::{Code, Error, Result, ResultExt};
use crate::lake::Lake;
use crate::limits;
use crate::search::{Asker, Engine, QueryMemory, Surface};
use exit::Exit;

/// A queryable record of every file that leaves an organisation by e-mail.
#[derive(Debug, Parser)]
#[command(name = "waybill", version, about, arg_required_else_help = true, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// The lake: file:///…, a path, s3://bucket/…, az://container/… or gs://bucket/…
    #[arg(long, env = "WAYBILL_LAKE", global = true, value_name = "URL")]
    lake: Option<String>,

    /// How log lines on stderr look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,

    /// Which log lines: error, warn, info, debug, or per module like `waybill::run=debug`
    #[arg(long, env = "WAYBILL_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,
}

/// What a query may take, for every command that asks.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Memory {
    /// Memory of a query in megabytes; what needs more goes to disk. Without it half of the machine's, which a server's queries
    /// share, and of which an export takes 1024 at most
    #[arg(long, env = "WAYBILL_QUERY_MEMORY_MB", value_name = "MB", value_parser = clap::value_parser!(u64).range(limits::QUERY_MEMORY_MB_LEAST..))]
    query_memory_mb: Option<u64>,
}

impl Memory {
    /// What was said, or else this.
    fn or(self, usual: QueryMemory) -> QueryMemory {
        self.query_memory_mb.map_or(usual, QueryMemory::of_mb)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Who is monitored: add, list, show, check and remove connections
    #[command(subcommand)]
    Connection(Box<connection::Command>),
    /// One scheduled run: of a connection, of all, or of a job file
    Run(run::Arguments),
    /// Fill a past interval, from the feed or from an exported audit log
    Backfill(Box<backfill::Arguments>),
    /// Merge small files, retry owed hashes, tidy the logs, delete what nothing names
    Maintain(maintain::Arguments),
    /// Forensic Search: who sent which file, to whom, when
    Search(Box<search::Arguments>),
    /// Write events as files elsewhere: CSV, NDJSON, Parquet, Amazon Security Lake
    Export(Box<export::Arguments>),
    /// Ask in SQL: statements, a file, standard input, or an interactive shell
    Sql(sql::Arguments),
    /// The rules by which events are scored, and the domains that are trusted
    #[command(subcommand)]
    Risk(risk::Command),
    /// The web console: sign-in, roles, the data connections
    Serve(Box<serve::Arguments>),
    /// What is wrong, and what to do about it
    Doctor(doctor::Arguments),
    /// Run job files on their cron expressions, or render them for systemd, Kubernetes, Airflow
    Schedule(schedule::Arguments),
    /// A Microsoft 365 tenant on this machine, for the demo and for tests
    Simulate(Box<simulate::Arguments>),
}

impl Command {
    /// Whether it goes on running and its log lines are all that one sees of it.
    fn is_service(&self) -> bool {
        match self {
            Self::Schedule(arguments) => arguments.is_service(),
            Self::Serve(arguments) => arguments.is_service(),
            _ => false,
        }
    }

    /// Threads for its tasks.
    fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        match self {
            // It computes in short pieces, and each thread holds memory that it freed.
            Self::Run(_) | Self::Backfill(_) => cores.max(2),
            // A query that computes for long without a pause holds as many as there are cores: signals, timers and other
            // people's requests need some beside them.
            _ => cores + 2,
        }
    }
}

/// What a command is given beside its own arguments.
struct Context {
    global: Global,
    clock: Clock,
    interrupt: CancellationToken,
}

impl Context {
    /// The lake that was named.
    fn lake(&self) -> Result<Lake> {
        let url = self
            .global
            .lake
            .as_deref()
            .ok_or_else(|| Error::new(Code::Usage, "no lake was named: give `--lake URL` or set WAYBILL_LAKE"))?;
        Lake::at(url)
    }

    /// What answers questions on the lake; [`Self::recorded`] comes after them.
    fn engine(&self, memory: QueryMemory) -> Result<Engine> {
        Engine::with_memory(self.lake()?, self.clock.clone(), memory)
    }

    /// The person at this machine, as the record of searches names them.
    fn asker(&self, surface: Surface) -> Asker {
        Asker::local(self.who(), surface)
    }

    /// Records what was searched. Whoever may only read the lake's storage gets their answer all the same: they could
    /// read the files without Waybill.
    async fn recorded(&self, engine: &Engine) {
        if let Err(error) = engine.close().await {
            tracing::warn!(code = %error.code(), %error, "this search could not be recorded in the lake");
        }
    }

    /// Who types, for the record of changes.
    #[expect(clippy::unused_self, reason = "a context says who asks")]
    fn who(&self) -> String {
        let name = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
        format!("local:{}", name.as_deref().unwrap_or("unknown"))
    }
}

/// Runs the program; the arguments begin with its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // `--help` and `--version` are data; anything else is wrong usage. Nobody can be told when even that fails.
            drop(error.print());
            return Exit::from_clap(&error).into();
        }
    };
    logs::start(&arguments.global, arguments.command.is_service());
    keep_freed(limits::FREED_MEMORY_KEPT);
    match start(arguments) {
        Ok(exit) => exit.into(),
        // Whoever reads our output has had enough (`| head`): that is no failure to talk about.
        Err(error) if output::is_broken_pipe(&error) => Exit::BROKEN_PIPE.into(),
        Err(error) => {
            output::error(&error);
            Exit::from(&error).into()
        }
    }
}

/// Runs the command on a thread with a stack on which every statement that is let through can be planned.
fn start(arguments: Arguments) -> Result<Exit> {
    let failed = "cannot start a thread";
    let thread = std::thread::Builder::new().stack_size(limits::STACK_BYTES).spawn(move || run(arguments));
    match thread.or_error(Code::Internal, failed)?.join() {
        Ok(ended) => ended,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn run(arguments: Arguments) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(arguments.command.threads())
        .thread_stack_size(limits::STACK_BYTES)
        .build()
        .or_error(Code::Internal, "cannot start the runtime")?;
    let exit = runtime.block_on(async {
        let interrupt = CancellationToken::new();
        tokio::spawn(signals(interrupt.clone()));
        let context = Context { global: arguments.global, clock: Clock::System, interrupt };
        match arguments.command {
            Command::Connection(command) => connection::main(&context, *command).await,
            // Beside the tasks that it waits for: the thread that waits here would have to be woken for every message.
            Command::Run(arguments) => tokio::spawn(async move { run::main(&context, arguments).await })
                .await
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
            Command::Backfill(arguments) => tokio::spawn(async move { backfill::main(&context, *arguments).await })
                .await
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
            Command::Maintain(arguments) => Box::pin(maintain::main(&context, arguments)).await,
            Command::Search(arguments) => Box::pin(search::main(&context, *arguments)).await,
            Command::Export(arguments) => Box::pin(export::main(&context, *arguments)).await,
            Command::Risk(command) => risk::main(&context, command).await,
            Command::Sql(arguments) => Box::pin(sql::main(&context, arguments)).await,
            Command::Serve(arguments) => Box::pin(serve::main(&context, *arguments)).await,
            Command::Doctor(arguments) => Box::pin(doctor::main(&context, arguments)).await,
            Command::Schedule(arguments) => Box::pin(schedule::main(context, arguments)).await,
            Command::Simulate(arguments) => simulate::main(&context, *arguments).await,
        }
    });
    // What still runs in the background (a download of an interrupted run) must not hold the process.
    runtime.shutdown_background();
    exit
}

/// The first signal asks for an orderly end.
async fn signals(interrupt: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    interrupt.cancel();
}
