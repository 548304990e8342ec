//! The service: sleeps until something is due, starts it, and never stops because a job fails.
//!
//! `job::schedule` decides what starts. Here is what it cannot know: files, tasks, signals, and whose turn it is at a
//! connection.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinSet};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Arguments;
use super::files::Files;
use super::page::{Board, JobView, Last, RunView, serve};
use crate::cli::exit::Exit;
use crate::cli::run::{self, Ended};
use crate::cli::{Context, output};
use crate::clock::Time;
use crate::connection::Connection;
use crate::error::{Code, Error, Result, ResultExt};
use crate::job::JobFile;
use crate::job::schedule::{Decision, Schedule};
use crate::limits;
use crate::monitor::Progress;

pub(super) async fn main(context: Context, arguments: Arguments) -> Result<Exit> {
    let mut files = Files::new(arguments.jobs);
    files.reread();
    files.check()?;
    for (_, known) in files.known() {
        if let Some(problem) = &known.problem {
            return Err(Error::new(problem.code(), problem.message()));
        }
        if known.job.as_ref().is_some_and(|job| job.lake.is_none()) {
            // Said now, and not at every fire.
            context.lake()?;
        }
    }
    let doing = format!("cannot listen on `{}`", arguments.listen);
    let listener = TcpListener::bind(arguments.listen).await.or_error(Code::Configuration, &doing)?;
    let address = listener.local_addr().or_error(Code::Configuration, &doing)?;
    let context = Arc::new(context);
    let board = Arc::new(Board::new(context.clock.now(), context.interrupt.clone()));
    let mut service = Service::new(Arc::clone(&context), files, Arc::clone(&board));
    let names: Vec<&str> = service.files.jobs().map(|job| job.name.as_str()).collect();
    info!(%address, jobs = names.len(), "schedule begins");
    if !address.ip().is_loopback() {
        warn!(%address, "whoever reaches this address can read the names and states of connections");
    }
    let announcement = serde_json::json!({ "listen": format!("http://{address}"), "jobs": names });
    service.follow();
    tokio::spawn(serve(listener, board));
    output::json(&announcement)?;
    output::flush()?;
    if arguments.once_at_start {
        service.start_all();
    }
    Ok(service.run().await)
}

struct Service {
    context: Arc<Context>,
    machine: String,
    files: Files,
    schedule: Schedule,
    board: Arc<Board>,
    turns: Arc<Turns>,
    tasks: JoinSet<Last>,
    running: HashMap<Id, String>,
    last: BTreeMap<String, Last>,
    exit: Exit,
}

impl Service {
    fn new(context: Arc<Context>, files: Files, board: Arc<Board>) -> Self {
        Self {
            context,
            machine: machine(),
            files,
            schedule: Schedule::default(),
            board,
            turns: Arc::default(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            last: BTreeMap::new(),
            exit: Exit::DONE,
        }
    }

    /// Goes round until a signal comes and what runs has ended.
    async fn run(mut self) -> Exit {
        let interrupt = self.context.interrupt.clone();
        while !interrupt.is_cancelled() {
            self.follow();
            for decision in self.schedule.tick(self.context.clock.now()) {
                self.carry_out(decision);
            }
            self.show();
            let pause = self.pause();
            tokio::select! {
                () = interrupt.cancelled() => {}
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
        info!(running = self.running.len(), "schedule ends");
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
            self.show();
        }
        self.exit
    }

    /// Until something is due; never long, as a clock may jump, a machine sleep and a file change.
    fn pause(&self) -> Duration {
        let due = self.schedule.wake().map(|due| (due - self.context.clock.now()).to_std().unwrap_or_default());
        due.unwrap_or(limits::SCHEDULE_TICK).min(limits::SCHEDULE_TICK)
    }

    /// Takes over what changed in the job files.
    fn follow(&mut self) {
        for path in self.files.reread() {
            let Some((_, known)) = self.files.known().find(|(known, _)| *known == path) else { continue };
            match (&known.problem, &known.job) {
                (Some(problem), before) => {
                    let remains = before.as_ref().map(|job| job.cron.to_string());
                    error!(error = %problem, remains, "a job file cannot be used; what it said before stays in force");
                }
                (None, Some(job)) => {
                    info!(job = %job.name, file = %path.display(), cron = %job.cron, timezone = job.timezone().name(), "job file read");
                }
                (None, None) => {}
            }
        }
        self.schedule.follow(self.files.jobs(), &self.machine, self.context.clock.now());
    }

    /// Starts every job at once.
    fn start_all(&mut self) {
        let jobs: Vec<JobFile> = self.files.jobs().cloned().collect();
        for job in jobs {
            if self.schedule.start(&job.name) {
                info!(job = %job.name, "job begins, as the service does");
                self.spawn(job);
            }
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Start { job, fire, missed } => {
                info!(%job, scheduled = %fire.scheduled, missed, "job begins");
                if missed > 0 {
                    self.board.shown().metrics.job_skipped(&job, missed);
                }
                match self.files.job(&job).cloned() {
                    Some(job) => self.spawn(job),
                    None => self.schedule.end(&job),
                }
            }
            Decision::Skip { job, fire, missed } => {
                warn!(%job, scheduled = %fire.scheduled, missed, "job skipped: it still runs");
                self.board.shown().metrics.job_skipped(&job, missed + 1);
            }
        }
    }

    fn spawn(&mut self, job: JobFile) {
        let name = job.name.clone();
        let work = work(Arc::clone(&self.context), job, Arc::clone(&self.turns), Arc::clone(&self.board));
        let task = self.tasks.spawn(work);
        self.running.insert(task.id(), name);
    }

    fn ended(&mut self, ended: std::result::Result<(Id, Last), tokio::task::JoinError>) {
        let (id, last) = match ended {
            Ok((id, last)) => (id, last),
            Err(panic) => {
                let now = self.context.clock.now();
                let error = Error::new(Code::Internal, format!("the job broke off: {panic}"));
                (panic.id(), Last::failed(now, now, &error))
            }
        };
        let Some(job) = self.running.remove(&id) else { return };
        match last.exit_code {
            0 => info!(%job, exit_code = last.exit_code, "job ends"),
            3 | 11 | 130 => warn!(%job, exit_code = last.exit_code, error = last.error, "job ends"),
            _ => error!(%job, exit_code = last.exit_code, error = last.error, "job ends"),
        }
        let interrupted = Exit::from(&Error::new(Code::Interrupted, ""));
        if last.exit_code == interrupted.0 {
            self.exit = interrupted;
        }
        self.board.shown().metrics.job_ended(&job, last.exit_code);
        self.schedule.end(&job);
        self.last.insert(job, last);
    }

    /// Puts what is known onto the pages.
    fn show(&self) {
        let view = |path: &Path, job: &JobFile, problem: Option<&Error>| JobView {
            job: job.name.clone(),
            file: path.display().to_string(),
            cron: job.cron.to_string(),
            timezone: job.timezone().name(),
            next_fire: self.schedule.next(&job.name).map(|fire| fire.due),
            is_running: self.schedule.is_running(&job.name),
            last: self.last.get(&job.name).cloned(),
            problem: problem.map(ToString::to_string),
        };
        let known = self.files.known();
        let jobs =
            known.filter_map(|(path, known)| Some(view(path, known.job.as_ref()?, known.problem.as_ref()))).collect();
        let problems = self.files.known().filter_map(|(_, known)| Some(known.problem.as_ref()?.to_string())).collect();
        let mut shown = self.board.shown();
        shown.problems = problems;
        shown.alive = Instant::now();
        shown.jobs = jobs;
    }
}

impl Last {
    fn failed(started_at: Time, finished_at: Time, error: &Error) -> Self {
        Self {
            started_at,
            finished_at,
            exit_code: error.code().exit_code(),
            runs: Vec::new(),
            error: Some(error.to_string()),
        }
    }
}

/// Does a job; whatever fails is told and is an answer.
async fn work(context: Arc<Context>, job: JobFile, turns: Arc<Turns>, board: Arc<Board>) -> Last {
    let started_at = context.clock.now();
    let mut runs = Vec::new();
    let done = Box::pin(connections(&context, &job, &turns, &board, &mut runs)).await;
    let exit = runs.iter().fold(Exit::DONE, |exit, run: &RunView| exit.worse(Exit(run.exit_code)));
    let finished_at = context.clock.now();
    match done {
        Ok(()) => Last { started_at, finished_at, exit_code: exit.0, runs, error: None },
        Err(error) => {
            let mut last = Last::failed(started_at, finished_at, &error);
            last.exit_code = exit.worse(Exit::from(&error)).0;
            Last { runs, ..last }
        }
    }
}

async fn connections(
    context: &Context,
    job: &JobFile,
    turns: &Turns,
    board: &Board,
    runs: &mut Vec<RunView>,
) -> Result<()> {
    let (lake, connections) = run::opened(context, job).await?;
    let states: Vec<Uuid> = connections.iter().flat_map(Connection::state_ids).collect();
    for connection in connections {
        let Some(turn) = turns.wait(context, job, &connection).await else { break };
        for shard in connection.shards() {
            let began = Instant::now();
            let ended = match Ended::skipped(&connection) {
                Some(skipped) => skipped,
                None => {
                    let progress = Arc::new(Progress::default());
                    let report = Box::pin(run::quietly(context, &lake, &connection, &shard, false, progress)).await;
                    Ended::of(&connection, shard.name(), report)
                }
            };
            board.shown().metrics.ran(&connection.name, &ended, began.elapsed().as_secs_f64());
            runs.push(told(job, connection.name.clone(), shard.name(), &ended));
            if context.interrupt.is_cancelled() {
                break;
            }
        }
        drop(turn);
    }
    run::maintained(context, &lake, job, &states).await?;
    Ok(())
}

/// Logs how a run ended.
fn told(job: &JobFile, connection: String, shard: Option<String>, ended: &Ended) -> RunView {
    let (outcome, failure) = match ended {
        Ended::Ran(report) => (report.outcome.as_str(), report.error.as_ref()),
        Ended::Failed { outcome, error, .. } => (outcome.as_str(), Some(error)),
        Ended::Skipped { status, .. } => (status.as_str(), None),
    };
    if let Some(failure) = failure {
        error!(job = %job.name, %connection, shard, code = failure.code, error = %failure.message, hint = failure.hint, "run failed");
    }
    let error = failure.map(|failure| failure.message.clone());
    RunView { connection, shard, outcome, exit_code: ended.exit().0, error }
}

/// Whose turn it is at each connection: jobs that name the same one wait for each other.
#[derive(Default)]
struct Turns(Mutex<HashMap<Uuid, Arc<Semaphore>>>);

impl Turns {
    /// Waits until nobody else runs the connection; nothing when a signal came first.
    async fn wait(&self, context: &Context, job: &JobFile, connection: &Connection) -> Option<OwnedSemaphorePermit> {
        if context.interrupt.is_cancelled() {
            return None;
        }
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(connection.id).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        if let Ok(permit) = Arc::clone(&turn).try_acquire_owned() {
            return Some(permit);
        }
        info!(job = %job.name, connection = %connection.name, "another job runs this connection: waiting");
        tokio::select! {
            permit = turn.acquire_owned() => permit.ok(),
            () = context.interrupt.cancelled() => None,
        }
    }
}

/// What tells this machine from others, for the jitter.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
