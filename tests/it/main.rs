//! The integration tests in one binary, a file per promise.

mod inner;
mod support;

mod clients;
mod exactly_once;
mod microsoft365;
mod one_commit;
mod read_only;
mod stores;
mod tidy;
