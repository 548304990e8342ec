//! When each audit record became available, and how the stream of records is cut into content blobs.
//!
//! Records are spread evenly over a span that ends when the simulator starts, whatever the times of their events. A
//! blob is no fixed unit: its id names a range of the stream, cut at natural places *and* at the edges of the window
//! that was asked for. Other windows give other ids over the same records, as was seen at the real feed (Elastic's
//! o365audit input stores window edges for this reason).
//!
//! Faults put some records into other lanes beside the punctual one: late ones, repeated ones. Each lane is cut by
//! itself, and shows in the last part of the content id.

use std::sync::{PoisonError, RwLock};

use axum::body::Bytes;
use chrono::{DateTime, Utc};

use crate::simulator::generate::Entry;
use crate::simulator::ids::mix;
use crate::simulator::records;
use crate::simulator::tenant::{GENERATED_FROM, Tenant};

/// Nanoseconds since 1970.
pub(crate) type Nanos = i64;

/// A run of the records that were there at the start.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Sends of these messages, and records of others between them.
    Messages(Vec<MessageEntry>),
    /// Records of an export, as they are.
    Given(Vec<Bytes>),
    /// The log of the generated tenant.
    Generated(u64),
}

/// A place in the log of a corpus.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MessageEntry {
    Send(u64),
    /// A record that is no send, at the time of this message.
    Near(u64),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Messages(entries) => entries.len() as u64,
            Self::Given(records) => records.len() as u64,
            Self::Generated(records) => *records,
        }
    }
}

/// Which records do not come in time, as the faults tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Lateness {
    /// Share that is listed only so many seconds after the start, although `contentCreated` lies earlier.
    pub(crate) hidden: Option<(f64, f64)>,
    /// Share that becomes available so many seconds after the start.
    pub(crate) delayed: Option<(f64, f64)>,
    /// Share that comes in a second blob, so many seconds later than the first time.
    pub(crate) repeated: Option<(f64, f64)>,
}

/// The lanes of the stream; the number is part of content ids.
pub(crate) const LANES: [Lane; 5] = [Lane::Punctual, Lane::Hidden, Lane::Delayed, Lane::Repeated, Lane::Added];

/// One lane of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Punctual = 0,
    Hidden = 1,
    Delayed = 2,
    Repeated = 3,
    /// What was added while the simulator ran.
    Added = 4,
}

/// A cut of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) lane: Lane,
    /// When its first and its last record became available.
    pub(crate) times: (Nanos, Nanos),
    /// The place after its last record.
    pub(crate) next: u64,
}

/// Messages that were added at once, with the time at which their records became available.
#[derive(Debug)]
struct Added {
    at: Nanos,
    first: u64,
    numbers: Vec<u64>,
}

/// The stream of all records.
#[derive(Debug)]
pub(crate) struct Timeline {
    seed: u64,
    started: Nanos,
    span: i64,
    pieces: Vec<Piece>,
    total: u64,
    blob_records: u64,
    lateness: RwLock<Lateness>,
    added: RwLock<Vec<Added>>,
}

impl Timeline {
    pub(crate) fn new(
        seed: u64,
        started: DateTime<Utc>,
        span: std::time::Duration,
        pieces: Vec<Piece>,
        blob_records: usize,
    ) -> Self {
        Self {
            seed,
            started: nanos(started),
            span: i64::try_from(span.as_nanos()).unwrap_or(i64::MAX / 4).max(1),
            total: pieces.iter().map(Piece::len).sum(),
            pieces,
            blob_records: blob_records.max(1) as u64,
            lateness: RwLock::default(),
            added: RwLock::default(),
        }
    }

    pub(crate) fn set_lateness(&self, lateness: Lateness) {
        *self.lateness.write().unwrap_or_else(PoisonError::into_inner) = lateness;
    }

    fn lateness(&self) -> Lateness {
        *self.lateness.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the sends of messages, available from now on.
    pub(crate) fn add(&self, numbers: Vec<u64>, now: DateTime<Utc>) {
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        let (first, earliest) = match added.last() {
            None => (0, Nanos::MIN),
            Some(last) => (last.first + last.numbers.len() as u64, last.at + last.numbers.len() as i64),
        };
        added.push(Added { at: nanos(now).max(earliest), first, numbers });
    }

    fn len(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Added => {
                let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
                added.last().map_or(0, |last| last.first + last.numbers.len() as u64)
            }
            Lane::Punctual | Lane::Hidden | Lane::Delayed | Lane::Repeated => self.total,
        }
    }

    /// When the record at a place of a lane became available; later places are later.
    fn time(&self, lane: Lane, place: u64, lateness: &Lateness) -> Nanos {
        let punctual = || {
            let passed = i128::from(self.span) * (2 * i128::from(place) + 1) / (2 * i128::from(self.total.max(1)));
            self.started - self.span + passed as i64
        };
        let seconds = |value: Option<(f64, f64)>| (value.map_or(0.0, |(_, seconds)| seconds) * 1e9) as i64;
        match lane {
            Lane::Punctual | Lane::Hidden => punctual(),
            Lane::Delayed => self.started + seconds(lateness.delayed) + place as i64,
            Lane::Repeated => punctual() + seconds(lateness.repeated),
            Lane::Added => {
                let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
                let index = added.partition_point(|added| added.first <= place);
                index.checked_sub(1).map_or(Nanos::MAX, |index| added[index].at + (place - added[index].first) as i64)
            }
        }
    }

    /// Whether the record at a place comes in this lane.
    fn contains(&self, lane: Lane, place: u64, lateness: &Lateness) -> bool {
        if lane == Lane::Added {
            return true;
        }
        let share = |value: Option<(f64, f64)>| value.map_or(0.0, |(share, _)| share);
        let chance = |salt: u64| (mix(self.seed ^ salt, place) >> 11) as f64 / (1_u64 << 53) as f64;
        let (hidden, delayed) = (share(lateness.hidden), share(lateness.delayed));
        if lane == Lane::Repeated {
            return lateness.repeated.is_some() && chance(0x7e9e) < share(lateness.repeated);
        }
        if hidden == 0.0 && delayed == 0.0 {
            return lane == Lane::Punctual;
        }
        let chance = chance(0x1a7e);
        match lane {
            Lane::Hidden => chance < hidden,
            Lane::Delayed => (hidden..hidden + delayed).contains(&chance),
            Lane::Punctual | Lane::Repeated | Lane::Added => chance >= hidden + delayed,
        }
    }

    fn is_open(&self, lane: Lane, now: Nanos, lateness: &Lateness) -> bool {
        match (lane, lateness.hidden) {
            (Lane::Hidden, Some((_, seconds))) => now >= self.started + (seconds * 1e9) as i64,
            (Lane::Hidden, None) => false,
            _ => true,
        }
    }

    /// The first place whose record became available at `time` or later.
    pub(crate) fn place_at(&self, lane: Lane, time: Nanos) -> u64 {
        let lateness = self.lateness();
        let (mut low, mut high) = (0, self.len(lane));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time(lane, middle, &lateness) < time { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The natural end of the blob that a place belongs to.
    fn cut_after(&self, lane: Lane, place: u64) -> u64 {
        if lane == Lane::Added {
            let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
            let index = added.partition_point(|added| added.first <= place);
            return added.get(index).map_or(u64::MAX, |next| next.first);
        }
        (place / self.blob_records + 1).saturating_mul(self.blob_records)
    }

    /// The next blob of a lane from a place on, within the places before `end`. Nothing is kept of what became
    /// available in a hole.
    pub(crate) fn next_blob(
        &self,
        lane: Lane,
        from: u64,
        end: u64,
        now: Nanos,
        holes: &[(Nanos, Nanos)],
    ) -> Option<Blob> {
        let lateness = self.lateness();
        if !self.is_open(lane, now, &lateness) {
            return None;
        }
        let mut first = from;
        while first < end {
            if !self.contains(lane, first, &lateness) {
                first += 1;
                continue;
            }
            let time = self.time(lane, first, &lateness);
            if let Some((_, until)) = holes.iter().find(|(from, until)| (*from..*until).contains(&time)) {
                first = self.place_at(lane, *until).max(first + 1);
                continue;
            }
            let hole = holes.iter().map(|(from, _)| *from).filter(|from| *from > time).min();
            let hole = hole.map_or(u64::MAX, |from| self.place_at(lane, from));
            let next = self.cut_after(lane, first).min(end).min(hole);
            let last = (first..next).rev().find(|place| self.contains(lane, *place, &lateness)).unwrap_or(first);
            return Some(Blob { lane, times: (time, self.time(lane, last, &lateness)), next });
        }
        None
    }

    /// The places of a blob's records; empty if there is no such blob (any more, or yet).
    pub(crate) fn places(&self, blob: (Lane, Nanos, Nanos), now: Nanos) -> Vec<u64> {
        let (lane, first, last) = blob;
        let lateness = self.lateness();
        if !self.is_open(lane, now, &lateness) || last > now {
            return Vec::new();
        }
        let range = self.place_at(lane, first)..self.place_at(lane, last.saturating_add(1));
        range.filter(|place| self.contains(lane, *place, &lateness)).collect()
    }

    /// Appends the record at a place of a lane.
    pub(crate) fn write(&self, lane: Lane, place: u64, tenant: &Tenant, out: &mut Vec<u8>) {
        if lane == Lane::Added {
            let number = {
                let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
                let index = added.partition_point(|added| added.first <= place).saturating_sub(1);
                added.get(index).and_then(|added| added.numbers.get((place - added.first) as usize).copied())
            };
            if let Some(number) = number {
                write_send(tenant, number, out);
            }
            return;
        }
        let mut place = place;
        for piece in &self.pieces {
            if place < piece.len() {
                return write_of(piece, place, tenant, self.seed, out);
            }
            place -= piece.len();
        }
    }
}

fn write_of(piece: &Piece, place: u64, tenant: &Tenant, seed: u64, out: &mut Vec<u8>) {
    let random = mix(seed ^ 0x0711, place);
    match piece {
        Piece::Given(records) => out.extend_from_slice(&records[place as usize]),
        Piece::Messages(entries) => match entries[place as usize] {
            MessageEntry::Send(number) => write_send(tenant, number, out),
            MessageEntry::Near(number) => {
                if let Some(message) = tenant.message(number) {
                    let user = tenant.read().users.get(message.owner).cloned();
                    if let Some(user) = user {
                        records::write_other(out, tenant, &user, random, message.sent);
                    }
                }
            }
        },
        Piece::Generated(_) => {
            let Some(generated) = &tenant.generated else { return };
            match generated.entry(place) {
                Entry::Send(message) => write_send(tenant, GENERATED_FROM + message, out),
                Entry::Other => {
                    let user = tenant.read().users.get(random as usize % generated.users).cloned();
                    if let Some(user) = user {
                        records::write_other(out, tenant, &user, random, generated.time(place));
                    }
                }
            }
        }
    }
}

fn write_send(tenant: &Tenant, number: u64, out: &mut Vec<u8>) {
    if let Some(message) = tenant.message(number) {
        let owner = tenant.read().users.get(message.owner).cloned();
        if let Some(owner) = owner {
            records::write_send(out, tenant, &owner, &message);
        }
    }
}

pub(crate) fn nanos(time: DateTime<Utc>) -> Nanos {
    time.timestamp_nanos_opt().unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn timeline(records: usize, blob_records: usize) -> Timeline {
        let started = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let piece = Piece::Given((0..records).map(|number| Bytes::from(number.to_string())).collect());
        Timeline::new(1, started, Duration::from_secs(3600), vec![piece], blob_records)
    }

    fn blobs(timeline: &Timeline, lane: Lane, window: (Nanos, Nanos), now: Nanos) -> Vec<Vec<u64>> {
        let (mut from, end) = (timeline.place_at(lane, window.0), timeline.place_at(lane, window.1));
        let mut found = Vec::new();
        while let Some(blob) = timeline.next_blob(lane, from, end, now, &[]) {
            from = blob.next;
            found.push(timeline.places((lane, blob.times.0, blob.times.1), now));
        }
        found
    }

    #[test]
    fn other_windows_cut_other_blobs_over_the_same_records() {
        let timeline = timeline(10, 4);
        let start = timeline.started - timeline.span;
        let now = timeline.started;
        let whole = blobs(&timeline, Lane::Punctual, (start, now), now);
        assert_eq!(whole, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        let middle = start + timeline.span / 10 * 6;
        let mut parts = blobs(&timeline, Lane::Punctual, (start, middle), now);
        parts.extend(blobs(&timeline, Lane::Punctual, (middle, now), now));
        assert_eq!(parts, [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7], vec![8, 9]]);
    }

    #[test]
    fn every_record_comes_in_one_lane_and_repeated_ones_in_two() {
        let timeline = timeline(1000, 50);
        timeline.set_lateness(Lateness {
            hidden: Some((0.1, 5.0)),
            delayed: Some((0.1, 9.0)),
            repeated: Some((0.2, 0.0)),
        });
        let later = timeline.started + 60_000_000_000;
        let all = |lane, now| -> Vec<u64> { blobs(&timeline, lane, (0, now), now).concat() };
        assert!(all(Lane::Hidden, timeline.started).is_empty() && all(Lane::Delayed, timeline.started).is_empty());
        let mut places: Vec<u64> =
            [Lane::Punctual, Lane::Hidden, Lane::Delayed].into_iter().flat_map(|lane| all(lane, later)).collect();
        places.sort_unstable();
        assert_eq!(places, (0..1000).collect::<Vec<_>>());
        let repeated = all(Lane::Repeated, later).len();
        assert!((150..250).contains(&repeated), "{repeated}");
    }

    #[test]
    fn nothing_is_kept_of_what_became_available_in_a_hole() {
        let timeline = timeline(10, 100);
        let (start, tenth) = (timeline.started - timeline.span, timeline.span / 10);
        let holes = [(start + 3 * tenth, start + 6 * tenth)];
        let mut from = 0;
        let mut found = Vec::new();
        while let Some(blob) = timeline.next_blob(Lane::Punctual, from, 10, timeline.started, &holes) {
            from = blob.next;
            found.push(timeline.places((Lane::Punctual, blob.times.0, blob.times.1), timeline.started));
        }
        assert_eq!(found, [vec![0, 1, 2], vec![6, 7, 8, 9]]);
    }

    #[test]
    fn added_records_are_blobs_of_their_own() {
        let timeline = timeline(0, 10);
        let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("in range");
        timeline.add(vec![1, 2], at(1));
        timeline.add(vec![3], at(1));
        let now = nanos(at(5));
        assert_eq!(blobs(&timeline, Lane::Added, (0, now), now), [vec![0, 1], vec![2]]);
        assert!(blobs(&timeline, Lane::Added, (nanos(at(2)), now), now).is_empty());
    }
}
