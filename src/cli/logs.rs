//! Log lines on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::{Global, LogFormat};

/// Starts logging. JSON lines tell what an operator wants of a quiet night; a person reads the summary instead, if there
/// is one: a service has none.
pub(super) fn start(global: &Global, is_service: bool) {
    let level = match global.log_format {
        LogFormat::Text if !is_service => "error",
        LogFormat::Text | LogFormat::Json => "info",
    };
    // The Delta library warns about each version that another writer took, which is normal here.
    let quiet = format!("error,waybill={level},deltalake_core=off,buoyant_kernel=off,buoyant_kernel_engine=off");
    let filter = EnvFilter::new(global.log.as_deref().unwrap_or(&quiet));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
