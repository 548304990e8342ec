//! Waybill: a queryable record of every file that leaves an organisation by e-mail.
//!
//! ```text
//!   activity feed ─▶ blobs ─▶ records ─▶ sends in scope ─▶ messages ─▶ attachments ─▶ digests ─▶ rows ─▶ one commit ─▶ SQL
//!   └──────────── source ───────────┘   └ run: dedupe ┘   └────── source ──────┘    digest    event    lake        search
//! ```
//!
//! A room uses only rooms of the lines below it; `tests/it/tidy.rs` holds this true.
//!
//! ```text
//!   7  cli             everything
//!   6  serve           doctor, connection, run, search, lake, source, event, job
//!   5  doctor          connection, run, search, lake, source, event            job     the base
//!   4  run             source, digest, event, lake    export       search, lake
//!   3  connection      source, lake, event         search       lake, digest, event
//!   2  lake            event
//!   1  source, digest, event                       simulator    (uses no room; used by cli and tests)
//!   0  base            allocator · clock · error · http · id · limits · monitor · secret
//! ```
//!
//! `docs/ARCHITECTURE.md` says what each room does not know.

pub mod allocator;
pub mod clock;
pub mod error;
pub mod id;
pub mod limits;
pub mod monitor;
pub mod secret;

pub mod http;

pub mod digest;
pub mod event;
pub mod source;

pub mod lake;

pub mod connection;
pub mod search;

pub mod export;
pub mod run;

pub mod doctor;

pub mod job;

pub mod serve;

pub mod cli;
pub mod simulator;
