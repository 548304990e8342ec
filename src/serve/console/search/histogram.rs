//! How many events over time: bars that lead to their time, and a table that says the same in words.

use chrono::Duration;
use maud::{Markup, html};

use super::address::{Address, Range};
use super::cells::count;
use crate::clock::Time;
use crate::limits;
use crate::search::browse::Bucket;

/// The first and last moment of a range; nothing where it is open.
type Bounds = (Option<Time>, Option<Time>);

/// A bar.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bar {
    /// Its first moment.
    from: Time,
    /// The first moment after it.
    to: Time,
    count: u64,
}

/// The bars of a search.
#[derive(Debug)]
pub(super) struct Histogram {
    bucket: Bucket,
    bars: Vec<Bar>,
}

/// What the bars of a range count.
pub(super) fn bucket(bounds: Bounds) -> Bucket {
    match bounds {
        (Some(from), Some(to)) if to - from <= Duration::days(3) => Bucket::Hour,
        _ => Bucket::Day,
    }
}

impl Histogram {
    /// Bars of equal length over a range, from what was counted.
    pub(super) fn new(bucket: Bucket, bounds: Bounds, counts: &[(Time, u64)]) -> Self {
        let width = match bucket {
            Bucket::Hour => 3_600,
            Bucket::Day => 86_400,
        };
        let slot = |time: Time| time.timestamp().div_euclid(width);
        let seen = counts.iter().map(|(at, _)| slot(*at));
        let (Some(first), Some(last)) = (seen.clone().min(), seen.max()) else {
            return Self { bucket, bars: Vec::new() };
        };
        let (mut from, mut to) = (bounds.0.map_or(first, slot).min(first), bounds.1.map_or(last, slot).max(last));
        if to - from > 4 * limits::CONSOLE_BARS {
            // The range says much more than there is: what there is would be one line at its edge.
            (from, to) = (first, last);
        }
        let step = ((to - from) / limits::CONSOLE_BARS + 1).max(1);
        let mut heights = vec![0; usize::try_from((to - from) / step + 1).unwrap_or(1)];
        for (at, count) in counts {
            if let Some(height) = usize::try_from((slot(*at) - from) / step).ok().and_then(|bar| heights.get_mut(bar)) {
                *height += count;
            }
        }
        let bars = (0_i64..).zip(heights).filter_map(|(index, count)| {
            let at = |slot: i64| Time::from_timestamp(slot.checked_mul(width)?, 0);
            Some(Bar { from: at(from + index * step)?, to: at(from + (index + 1) * step)?, count })
        });
        Self { bucket, bars: bars.collect() }
    }

    /// How many events there are in all.
    pub(super) fn total(&self) -> u64 {
        self.bars.iter().map(|bar| bar.count).sum()
    }

    /// The picture; each bar leads to the same search of its time.
    pub(super) fn draw(&self, address: &Address) -> Markup {
        const HEIGHT: u64 = 80;
        const STEP: u64 = 10;
        let most = self.bars.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
        let width = self.bars.len().max(1) as u64 * STEP;
        let link = |bar: &Bar| address.within(self.range(bar)).link();
        let (first, last) = (self.bars.first(), self.bars.last());
        html! {
            figure.chart.histogram {
                // The table below says the same to whoever does not see, or has no mouse.
                svg viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
                    @for (index, bar) in self.bars.iter().enumerate() {
                        @if bar.count > 0 {
                            @let height = (u128::from(bar.count) * u128::from(HEIGHT) / u128::from(most)).max(2) as u64;
                            a href=(link(bar)) tabindex="-1" {
                                title { (self.label(bar)) ": " (count(bar.count)) }
                                // The whole height can be hit, however low the bar is.
                                rect.hit x=(index as u64 * STEP) y="0" width=(STEP) height=(HEIGHT) {}
                                rect.bar x=(index as u64 * STEP + 1) y=(HEIGHT - height) width=(STEP - 2) height=(height) {}
                            }
                        }
                    }
                }
                @if let (Some(first), Some(last)) = (first, last) {
                    div.axis aria-hidden="true" { span { (self.label(first)) } span { (self.label(last)) } }
                }
                figcaption {
                    details {
                        summary { "Events over time as a table" }
                        div.scroll role="region" aria-label="Events over time" tabindex="0" {
                            table {
                                caption { "Events over time (UTC), where there are any; the highest bar is " (count(most)) }
                                thead { tr { th scope="col" { "Time" } th scope="col" { "Events" } } }
                                tbody {
                                    @for bar in self.bars.iter().filter(|bar| bar.count > 0) {
                                        tr {
                                            th scope="row" { a href=(link(bar)) { (self.label(bar)) } }
                                            td { (count(bar.count)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// The range that a bar stands for: both ends are included.
    fn range(&self, bar: &Bar) -> Range {
        let last = bar.to - Duration::minutes(1);
        let form = match self.bucket {
            Bucket::Hour => "%Y-%m-%d %H:%M",
            Bucket::Day => "%Y-%m-%d",
        };
        Range::Custom { from: bar.from.format(form).to_string(), to: last.format(form).to_string() }
    }

    fn label(&self, bar: &Bar) -> String {
        let Range::Custom { from, to } = self.range(bar) else { return String::new() };
        match self.bucket {
            Bucket::Hour => from,
            Bucket::Day if from == to => from,
            Bucket::Day => format!("{from} to {to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn bars_cover_the_range_and_count_everything() {
        let bounds = (Some(at("2026-11-01T10:00:00Z")), Some(at("2026-11-08T10:00:00Z")));
        let counts = [(at("2026-11-02T00:00:00Z"), 3), (at("2026-11-08T00:00:00Z"), 4)];
        let histogram = Histogram::new(bucket(bounds), bounds, &counts);
        assert_eq!(histogram.total(), 7);
        let heights: Vec<u64> = histogram.bars.iter().map(|bar| bar.count).collect();
        assert_eq!(heights, [0, 3, 0, 0, 0, 0, 0, 4]);
        let day = Range::Custom { from: "2026-11-02".to_owned(), to: "2026-11-02".to_owned() };
        assert_eq!(histogram.range(&histogram.bars[1]), day);
    }

    #[test]
    fn hours_of_a_day_and_years_of_days_are_both_readable() {
        let bounds = (Some(at("2026-11-01T10:30:00Z")), Some(at("2026-11-02T10:30:00Z")));
        let histogram = Histogram::new(bucket(bounds), bounds, &[(at("2026-11-01T10:00:00Z"), 1)]);
        assert_eq!(histogram.bars.len(), 25);
        let hour = Range::Custom { from: "2026-11-01 10:00".to_owned(), to: "2026-11-01 10:59".to_owned() };
        assert_eq!(histogram.range(&histogram.bars[0]), hour);
        let counts = [(at("2016-01-01T00:00:00Z"), 1), (at("2026-01-01T00:00:00Z"), 2)];
        let histogram = Histogram::new(Bucket::Day, (None, None), &counts);
        assert!(histogram.bars.len() as i64 <= limits::CONSOLE_BARS + 1, "{}", histogram.bars.len());
        assert_eq!(histogram.total(), 3);
    }

    #[test]
    fn no_range_is_too_long_to_draw() {
        let bounds = (Some(Time::MIN_UTC), Some(Time::MAX_UTC));
        for counts in [vec![], vec![(Time::UNIX_EPOCH, 1)], vec![(Time::MIN_UTC, 1), (Time::MAX_UTC, 1)]] {
            let histogram = Histogram::new(bucket(bounds), bounds, &counts);
            assert!(histogram.bars.len() as i64 <= limits::CONSOLE_BARS + 1);
        }
        assert!(Histogram::new(Bucket::Day, (None, None), &[]).bars.is_empty());
    }
}
