//! The integration tests in one binary, a file per promise.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says where, and prints its seed")]

mod inner;
#[path = "../../benches/support/remote.rs"]
mod remote;
mod support;

mod authorize;
mod backfill;
mod cli;
mod clients;
mod connections;
mod console;
mod console_search;
mod cookbook;
mod engine;
mod exactly_once;
mod export;
mod hash_or_reason;
mod least_privilege;
mod look_ups;
mod microsoft365;
mod nothing_hidden;
mod nothing_kept;
mod one_commit;
mod open_table;
mod peers;
mod read_only;
mod risk;
mod schedule;
mod scope;
mod serve;
mod shards;
mod shell;
mod slt;
mod storage;
mod stores;
mod tidy;
mod time_means_sent;
mod views;
