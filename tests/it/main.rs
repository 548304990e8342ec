//! The integration tests in one binary, a file per promise.

mod support;

mod clients;
mod stores;
