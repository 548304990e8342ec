//! The simulator's own clock: it plays another machine, so it shares none with those who ask it.

use chrono::{DateTime, Utc};

#[expect(clippy::disallowed_methods, reason = "the simulator plays another machine, which has a clock of its own")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}
