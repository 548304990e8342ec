//! What time it is. The only place that asks the machine, so that tests can move a week in a microsecond.
//!
//! May use: nothing of Waybill.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};

/// A point in time, UTC; microseconds are kept.
pub type Time = DateTime<Utc>;

/// A clock that is either the machine's or a test's.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// Stands still until a test moves it; microseconds since 1970.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `time` until it is set.
    pub fn manual(time: Time) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(time.timestamp_micros())))
    }

    /// The present, cut to microseconds as the lake keeps them.
    pub fn now(&self) -> Time {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine for the time")]
        let micros = match self {
            Self::System => Utc::now().timestamp_micros(),
            Self::Manual(micros) => micros.load(Ordering::SeqCst),
        };
        DateTime::from_timestamp_micros(micros).expect("microseconds of the present are in range")
    }

    /// Moves a manual clock; the machine's clock stays as it is.
    pub fn set(&self, time: Time) {
        if let Self::Manual(micros) = self {
            micros.store(time.timestamp_micros(), Ordering::SeqCst);
        }
    }
}

/// A span of time as people write it: `90s`, `30m`, `24h`, `7d`, `2w`.
pub fn span(text: &str) -> Option<chrono::Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i64 = number.parse().ok().filter(|number| *number >= 0)?;
    match unit {
        "s" => chrono::Duration::try_seconds(number),
        "m" => chrono::Duration::try_minutes(number),
        "h" => chrono::Duration::try_hours(number),
        "d" => chrono::Duration::try_days(number),
        "w" => chrono::Duration::try_weeks(number),
        _ => None,
    }
}
