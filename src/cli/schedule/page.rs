//! What `waybill schedule` says over HTTP: whether it lives, whether it takes work, what it counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::clock::Time;
use crate::limits;

/// What the loop tells and the pages show.
pub(super) struct Board {
    state: Mutex<Shown>,
    stopping: CancellationToken,
}

/// What is shown now.
pub(super) struct Shown {
    /// When the loop last went round; an instant, since the clock may jump.
    pub(super) alive: Instant,
    /// When the service started.
    pub(super) started_at: Time,
    /// The jobs.
    pub(super) jobs: Vec<JobView>,
    /// What is wrong with job files.
    pub(super) problems: Vec<String>,
    /// The counts.
    pub(super) metrics: Metrics,
}

/// A job as the health page shows it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct JobView {
    pub(super) job: String,
    pub(super) file: String,
    pub(super) cron: String,
    pub(super) timezone: &'static str,
    pub(super) next_fire: Option<Time>,
    pub(super) is_running: bool,
    /// How it ended last.
    pub(super) last: Option<Last>,
    /// Why its file cannot be used.
    pub(super) problem: Option<String>,
}

/// How a job ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Last {
    pub(super) started_at: Time,
    pub(super) finished_at: Time,
    pub(super) exit_code: u8,
    pub(super) runs: Vec<RunView>,
    /// What kept the job itself from its end.
    pub(super) error: Option<String>,
}

/// How one of a job's runs ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunView {
    pub(super) connection: String,
    /// Which shard of it, where it is split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shard: Option<String>,
    pub(super) outcome: &'static str,
    pub(super) exit_code: u8,
    pub(super) error: Option<String>,
}

impl Board {
    pub(super) fn new(started_at: Time, stopping: CancellationToken) -> Self {
        let shown = Shown {
            alive: Instant::now(),
            started_at,
            jobs: Vec::new(),
            problems: Vec::new(),
            metrics: Metrics::default(),
        };
        Self { state: Mutex::new(shown), stopping }
    }

    /// What is shown, to be changed.
    pub(super) fn shown(&self) -> MutexGuard<'_, Shown> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers until the process ends.
pub(super) async fn serve(listener: TcpListener, board: Arc<Board>) {
    let pages = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(board);
    if let Err(error) = axum::serve(listener, pages).await {
        tracing::error!(%error, "health and metrics are not served any more");
    }
}

async fn health(State(board): State<Arc<Board>>) -> Response {
    let shown = board.shown();
    let is_alive = shown.alive.elapsed() < limits::SCHEDULE_STUCK;
    let status = if is_alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "status": if is_alive { "ok" } else { "stuck" },
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": shown.started_at,
        "jobs": shown.jobs,
        "problems": shown.problems,
    });
    (status, Json(body)).into_response()
}

async fn ready(State(board): State<Arc<Board>>) -> Response {
    if board.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "status": "stopping" }))).into_response();
    }
    Json(serde_json::json!({ "status": "ready" })).into_response()
}

async fn metrics(State(board): State<Arc<Board>>) -> Response {
    let shown = board.shown();
    let text = shown.metrics.text(&shown.jobs);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
