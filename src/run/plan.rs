//! What to ask for: windows of at most 24 hours from the watermark to now, and the gap that is older than the feed.

use crate::clock::Time;
use crate::error::Code;
use crate::limits;
use crate::source::Window;

use super::state::{OpenWindow, State};

/// What a plan found to be lost already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) window: Window,
    pub(super) reason: String,
}

/// Extends the state by the windows up to `now`; returns what the feed no longer holds.
///
/// Windows that were planned before keep their boundaries, so that a resumed listing sees the same blobs.
pub(super) fn extend(state: &mut State, now: Time) -> Vec<Lost> {
    let now = whole_seconds(now);
    let oldest = now - limits::FEED_MEMORY;
    let mut lost = Vec::new();
    let mut lose = |start, end, what: &str| {
        lost.extend(
            Window::new(start, end).map(|window| Lost { window, reason: format!("{}: {what}", Code::GapTooOld) }),
        );
    };
    // A window that was planned and never listed, and has meanwhile left the feed's memory.
    state.windows.retain_mut(|open| {
        if open.window.start() >= oldest {
            return true;
        }
        if open.listed {
            return open.window.end() > oldest;
        }
        let end = open.window.end().min(oldest);
        lose(open.window.start(), end, "the window was planned but could not be listed before the feed forgot it");
        match Window::new(oldest, open.window.end()) {
            Some(rest) => {
                open.window = rest;
                true
            }
            None => false,
        }
    });
    if state.watermark < oldest {
        lose(state.watermark, oldest, "no run asked for this time before the feed forgot it");
        state.watermark = oldest;
    }
    for window in pieces(state.watermark, now) {
        state.windows.push(OpenWindow { window, read: Default::default(), listed: false });
        state.watermark = window.end();
    }
    lost
}

/// The windows of a past interval that the feed still holds, and the part of it that it no longer does.
pub(super) fn past(interval: Window, now: Time) -> (Vec<Window>, Option<Lost>) {
    let now = whole_seconds(now);
    let oldest = now - limits::FEED_MEMORY;
    let start = whole_seconds(interval.start());
    let end =
        whole_seconds(interval.end() + (chrono::Duration::seconds(1) - chrono::Duration::nanoseconds(1))).min(now);
    let lost = Window::new(start, end.min(oldest)).map(|window| {
        let reason = format!("{}: the feed had forgotten this time when a backfill asked for it", Code::GapTooOld);
        Lost { window, reason }
    });
    (pieces(start.max(oldest), end).collect(), lost)
}

/// Cuts an interval into windows that the feed takes.
fn pieces(mut start: Time, end: Time) -> impl Iterator<Item = Window> {
    std::iter::from_fn(move || {
        let window = Window::new(start, end.min(start + limits::WINDOW_MAX))?;
        start = window.end();
        Some(window)
    })
}

/// Drops the windows that need no further listing: listed, and old enough that nothing is listed late.
pub(super) fn close(state: &mut State, now: Time) {
    state.windows.retain(|open| !open.listed || open.window.end() + limits::WINDOW_SETTLES > now);
}

/// Whether a window that was listed may be listed again: an old one that starts before the feed's memory may not.
pub(super) fn can_list(window: Window, now: Time) -> bool {
    window.start() >= now - limits::FEED_MEMORY
}

/// The feed's boundaries are whole seconds.
pub(super) fn whole_seconds(time: Time) -> Time {
    Time::from_timestamp(time.timestamp(), 0).expect("a time in range without its fraction is in range")
}

#[cfg(test)]
mod tests {
    use chrono::{Duration, TimeZone as _, Utc};
    use proptest::prelude::*;

    use super::*;

    fn at(minutes: i64) -> Time {
        Utc.timestamp_opt(1_790_000_000 + minutes * 60, 0).unwrap()
    }

    fn assert_tiled(state: &State, from: Time, to: Time) {
        let mut reached = from;
        for open in &state.windows {
            assert_eq!(open.window.start(), reached);
            assert!(open.window.end() - open.window.start() <= limits::WINDOW_MAX);
            reached = open.window.end();
        }
        assert_eq!(reached, to);
    }

    #[test]
    fn an_outage_of_a_week_and_a_day_is_a_gap_of_a_day_and_the_rest_is_read() {
        let mut state = State::new(at(0));
        let now = at(8 * 24 * 60);
        let lost = extend(&mut state, now);
        let oldest = now - limits::FEED_MEMORY;
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].window, Window::new(at(0), oldest).unwrap());
        assert_tiled(&state, oldest, now);
    }

    #[test]
    fn a_window_that_was_planned_keeps_its_boundaries() {
        let mut state = State::new(at(0));
        extend(&mut state, at(10));
        extend(&mut state, at(70));
        assert_eq!(state.windows[0].window, Window::new(at(0), at(10)).unwrap());
        assert_eq!(state.windows[1].window, Window::new(at(10), at(70)).unwrap());
    }

    #[test]
    fn a_window_closes_only_when_it_was_listed_and_has_settled() {
        let mut state = State::new(at(0));
        extend(&mut state, at(10));
        close(&mut state, at(60 * 24));
        assert_eq!(state.windows.len(), 1, "it was never listed");
        state.windows[0].listed = true;
        close(&mut state, at(20));
        assert_eq!(state.windows.len(), 1, "content may still be listed late");
        close(&mut state, at(60 * 24));
        assert!(state.windows.is_empty());
    }

    #[test]
    fn a_past_interval_is_cut_at_what_the_feed_remembers_and_at_now() {
        let now = at(20 * 24 * 60);
        let oldest = now - limits::FEED_MEMORY;
        let (windows, lost) = past(Window::new(at(0), now + Duration::days(1)).unwrap(), now);
        assert_eq!(lost.unwrap().window, Window::new(at(0), oldest).unwrap());
        assert_eq!((windows[0].start(), windows[windows.len() - 1].end()), (oldest, now));
        assert!(windows.iter().all(|window| window.end() - window.start() <= limits::WINDOW_MAX));
        assert!(windows.windows(2).all(|pair| pair[0].end() == pair[1].start()));

        let (windows, lost) = past(Window::new(at(0), at(60)).unwrap(), now);
        assert_eq!((windows, lost.unwrap().window), (vec![], Window::new(at(0), at(60)).unwrap()));

        let half = Duration::milliseconds(500);
        let (windows, lost) = past(Window::new(at(0) + half, at(60) + half).unwrap(), at(90));
        assert_eq!(windows, [Window::new(at(0), at(60) + Duration::seconds(1)).unwrap()]);
        assert_eq!(lost, None);
    }

    proptest! {
        /// However runs are spaced, every instant from the start to now is in one window or in one gap.
        #[test]
        fn no_instant_is_planned_twice_or_never(steps in proptest::collection::vec(1_i64..20_000, 1..30)) {
            let mut state = State::new(at(0));
            let mut covered: Vec<Window> = Vec::new();
            let mut minutes = 0;
            for step in steps {
                minutes += step;
                let known: Vec<Window> = state.windows.iter().map(|open| open.window).collect();
                covered.extend(extend(&mut state, at(minutes)).into_iter().map(|lost| lost.window));
                covered.extend(state.windows.iter().map(|open| open.window).filter(|window| !known.contains(window)));
                for open in &mut state.windows {
                    open.listed = true;
                }
                close(&mut state, at(minutes));
            }
            covered.sort();
            let mut reached = at(0);
            for window in covered {
                prop_assert_eq!(window.start(), reached);
                reached = window.end();
            }
            prop_assert_eq!(reached, at(minutes));
            prop_assert!(state.watermark - at(0) == Duration::minutes(minutes));
        }
    }
}
