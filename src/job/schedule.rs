//! When jobs start: decided from the time, the job files and what runs already, and from nothing else.
//!
//! A [`Timetable`] walks one job's fires, a [`Schedule`] decides over all jobs. Neither sleeps nor asks what time it is:
//! whoever drives them may come early, late or after a week, and each fire is dealt with once: started, skipped because
//! the job still runs, or, when several were missed, counted as missed with the latest of them standing for all.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::JobFile;
use super::cron::Cron;
use crate::clock::Time;
use crate::limits;

/// One firing of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fire {
    /// When the cron expression fires.
    pub scheduled: Time,
    /// When the job starts: up to its jitter later, and always before the next fire.
    pub due: Time,
}

/// When one job fires, and up to where its fires were dealt with.
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    zone: chrono_tz::Tz,
    jitter: chrono::Duration,
    seed: String,
    /// No fire up to here is looked at again.
    dealt: Time,
}

impl Timetable {
    /// A timetable from `now` on. `machine` keeps two machines with one job file from starting at the same instant.
    pub fn new(job: &JobFile, machine: &str, now: Time) -> Self {
        let seed = format!("{machine}\n{}", job.name);
        Self { cron: job.cron.clone(), zone: job.timezone(), jitter: job.jitter(), seed, dealt: now }
    }

    /// Follows a job file that was changed; a new expression counts from `now`.
    fn follow(&mut self, job: &JobFile, now: Time) {
        if (&self.cron, self.zone) != (&job.cron, job.timezone()) {
            (self.cron, self.zone, self.dealt) = (job.cron.clone(), job.timezone(), now);
        }
        self.jitter = job.jitter();
    }

    /// The first fire that was not dealt with.
    pub fn next(&self) -> Option<Fire> {
        Some(self.fire(self.cron.next(self.dealt, self.zone)?))
    }

    /// Deals with all fires that are due: the latest one, and how many were missed before it.
    pub fn take(&mut self, now: Time) -> Option<(Fire, usize)> {
        if now < self.dealt - limits::CLOCK_SET_BACK {
            // The clock was wrong before. Waiting for it to come there again could take years.
            self.dealt = now;
        }
        let due = |fire: &Fire| fire.due <= now;
        self.next().filter(due)?;
        // Only the latest can still wait for its jitter to pass.
        let latest = self.fire(self.cron.latest(now, self.zone)?);
        let latest = if due(&latest) {
            latest
        } else {
            let before = latest.scheduled - chrono::Duration::seconds(1);
            self.fire(self.cron.latest(before, self.zone)?)
        };
        let mut missed = 0;
        let mut at = self.cron.next(self.dealt, self.zone)?;
        while at < latest.scheduled && missed < limits::FIRES_COUNTED {
            missed += 1;
            at = self.cron.next(at, self.zone)?;
        }
        self.dealt = latest.scheduled;
        Some((latest, missed))
    }

    fn fire(&self, scheduled: Time) -> Fire {
        // Never into the next fire, so that fires keep their order.
        let room = self.cron.next(scheduled, self.zone).map_or(self.jitter, |next| (next - scheduled).min(self.jitter));
        let hash = Sha256::digest(format!("{}\n{}", self.seed, scheduled.timestamp()));
        let dice = hash.iter().take(7).fold(0_i64, |dice, byte| (dice << 8) | i64::from(*byte));
        let delay = dice.checked_rem(room.num_milliseconds()).unwrap_or_default();
        Fire { scheduled, due: scheduled + chrono::Duration::milliseconds(delay) }
    }
}

/// What becomes of a fire; `missed` more before it stand for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The job starts now.
    Start {
        /// The job's name.
        job: String,
        /// Its latest fire.
        fire: Fire,
        /// Earlier fires that nobody was awake for.
        missed: usize,
    },
    /// The job still runs from an earlier fire, and reads what this one would have read with its next one.
    Skip {
        /// The job's name.
        job: String,
        /// Its latest fire.
        fire: Fire,
        /// Earlier fires that nobody was awake for.
        missed: usize,
    },
}

/// The timetables of all jobs, and which of them run.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    slots: BTreeMap<String, Slot>,
}

#[derive(Clone, Debug)]
struct Slot {
    timetable: Timetable,
    is_running: bool,
    /// Whether its file is still there; one that runs is remembered until it ends.
    is_wanted: bool,
}

impl Schedule {
    /// Takes over the jobs as their files say them now: new ones count from `now`, changed ones follow, others go.
    pub fn follow<'a>(&mut self, jobs: impl IntoIterator<Item = &'a JobFile>, machine: &str, now: Time) {
        for slot in self.slots.values_mut() {
            slot.is_wanted = false;
        }
        for job in jobs {
            match self.slots.get_mut(&job.name) {
                Some(slot) => {
                    slot.timetable.follow(job, now);
                    slot.is_wanted = true;
                }
                None => {
                    let timetable = Timetable::new(job, machine, now);
                    self.slots.insert(job.name.clone(), Slot { timetable, is_running: false, is_wanted: true });
                }
            }
        }
        self.slots.retain(|_, slot| slot.is_wanted || slot.is_running);
    }

    /// Deals with all that is due.
    pub fn tick(&mut self, now: Time) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for (job, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_wanted) {
            let Some((fire, missed)) = slot.timetable.take(now) else { continue };
            let job = job.clone();
            decisions.push(if slot.is_running {
                Decision::Skip { job, fire, missed }
            } else {
                slot.is_running = true;
                Decision::Start { job, fire, missed }
            });
        }
        decisions
    }

    /// Marks a job as running that is started for another reason than a fire. False if it runs already.
    pub fn start(&mut self, job: &str) -> bool {
        self.slots.get_mut(job).is_some_and(|slot| !std::mem::replace(&mut slot.is_running, true))
    }

    /// A job has ended.
    pub fn end(&mut self, job: &str) {
        if let Some(slot) = self.slots.get_mut(job) {
            slot.is_running = false;
        }
        self.slots.retain(|_, slot| slot.is_wanted || slot.is_running);
    }

    /// When something is due next.
    pub fn wake(&self) -> Option<Time> {
        self.slots.keys().filter_map(|job| self.next(job)).map(|fire| fire.due).min()
    }

    /// A job's next fire.
    pub fn next(&self, job: &str) -> Option<Fire> {
        self.slots.get(job).filter(|slot| slot.is_wanted)?.timetable.next()
    }

    /// Whether a job runs.
    pub fn is_running(&self, job: &str) -> bool {
        self.slots.get(job).is_some_and(|slot| slot.is_running)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use chrono::Utc;
    use proptest::prelude::*;

    use super::*;

    fn job(name: &str, cron: &str, others: &str) -> JobFile {
        JobFile::parse(&format!("name = \"{name}\"\ncron = \"{cron}\"\n{others}")).unwrap()
    }

    fn at(day: u32, hour: u32, minute: u32) -> Time {
        Utc.with_ymd_and_hms(2026, 11, day, hour, minute, 0).unwrap()
    }

    fn schedule(jobs: &[JobFile], now: Time) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.follow(jobs, "machine", now);
        schedule
    }

    #[test]
    fn after_a_week_asleep_a_job_starts_once_and_knows_what_it_missed() {
        let mut schedule = schedule(&[job("hourly", "5 * * * *", "jitter = \"0s\"")], at(1, 0, 0));
        let fire = Fire { scheduled: at(8, 0, 5), due: at(8, 0, 5) };
        let start = Decision::Start { job: "hourly".to_owned(), fire, missed: 7 * 24 };
        assert_eq!(schedule.tick(at(8, 0, 30)), [start]);
        assert_eq!(schedule.tick(at(8, 0, 30)), []);
        assert_eq!(schedule.wake(), Some(at(8, 1, 5)));
    }

    #[test]
    fn a_job_that_still_runs_is_skipped_and_another_is_not() {
        let jobs = [job("a", "0 * * * *", "jitter = \"0s\""), job("b", "30 * * * *", "jitter = \"0s\"")];
        let mut schedule = schedule(&jobs, at(1, 0, 0));
        let fire = |time| Fire { scheduled: time, due: time };
        let start = |job: &str, time| Decision::Start { job: job.to_owned(), fire: fire(time), missed: 0 };
        assert_eq!(schedule.tick(at(1, 1, 0)), [start("a", at(1, 1, 0)), start("b", at(1, 0, 30))]);
        schedule.end("b");
        let skip = Decision::Skip { job: "a".to_owned(), fire: fire(at(1, 2, 0)), missed: 0 };
        assert_eq!(schedule.tick(at(1, 2, 0)), [skip, start("b", at(1, 1, 30))]);
        schedule.end("a");
        assert_eq!(schedule.tick(at(1, 2, 10)), [], "a fire that was skipped does not come later");
        assert_eq!(schedule.tick(at(1, 3, 0)).len(), 2);
    }

    #[test]
    fn a_clock_that_is_set_back_far_does_not_stop_the_schedule() {
        let mut schedule = schedule(&[job("hourly", "0 * * * *", "jitter = \"0s\"")], at(20, 0, 0));
        assert_eq!(schedule.tick(at(20, 1, 0)).len(), 1);
        schedule.end("hourly");
        assert_eq!(schedule.tick(at(20, 0, 50)), [], "ten minutes back");
        assert_eq!(schedule.tick(at(20, 1, 0)), [], "this fire has been");
        assert_eq!(schedule.tick(at(2, 0, 10)), []);
        assert_eq!(schedule.tick(at(2, 1, 0)).len(), 1);
    }

    #[test]
    fn a_changed_expression_counts_from_its_change_and_a_removed_job_fires_no_more() {
        let mut schedule = schedule(&[job("a", "0 2 * * *", "")], at(1, 0, 0));
        schedule.follow(&[job("a", "*/10 * * * *", "jitter = \"0s\"")], "machine", at(1, 1, 5));
        assert_eq!(schedule.wake(), Some(at(1, 1, 10)));
        assert_eq!(schedule.tick(at(1, 1, 10)).len(), 1);
        schedule.follow(&[], "machine", at(1, 1, 11));
        assert!(schedule.is_running("a"), "what runs is not forgotten");
        assert_eq!((schedule.tick(at(1, 2, 0)), schedule.wake()), (vec![], None));
        schedule.follow(&[job("a", "*/10 * * * *", "jitter = \"0s\"")], "machine", at(1, 2, 1));
        assert!(matches!(schedule.tick(at(1, 2, 10))[..], [Decision::Skip { .. }]), "it came back while it ran");
    }

    #[test]
    fn machines_and_jobs_start_at_different_instants_of_the_same_minute() {
        let due = |job: &JobFile, machine: &str| Timetable::new(job, machine, at(1, 0, 0)).next().unwrap().due;
        let (a, b) = (job("a", "5 * * * *", ""), job("b", "5 * * * *", ""));
        let instants = [due(&a, "one"), due(&a, "two"), due(&b, "one"), due(&b, "two")];
        assert_eq!(
            instants,
            [due(&a, "one"), due(&a, "two"), due(&b, "one"), due(&b, "two")],
            "and always the same ones"
        );
        for (index, instant) in instants.iter().enumerate() {
            assert!((at(1, 0, 5)..at(1, 0, 6)).contains(instant));
            assert!(!instants[..index].contains(instant), "{instants:?}");
        }
    }

    /// A set of values of a cron field, as text: `*`, or a list.
    fn field(least: u16, greatest: u16) -> impl Strategy<Value = (Vec<u16>, String)> {
        let all: Vec<u16> = (least..=greatest).collect();
        let any = Just((all.clone(), "*".to_owned()));
        let few = proptest::sample::subsequence(all, 1..4).prop_map(|values| {
            let text = values.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            (values, text)
        });
        prop_oneof![any, few]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The judge looks at every minute by itself.
        #[test]
        fn each_fire_is_dealt_with_once_however_the_ticks_come(
            (minutes, minute) in field(0, 59),
            (hours, hour) in field(0, 23),
            (weekdays, weekday) in field(0, 6),
            jitter in prop_oneof![Just("0s"), Just("60s"), Just("50m"), Just("1d")],
            ticks in prop::collection::vec((1_i64..90_000, any::<bool>()), 1..40),
        ) {
            use chrono::{Datelike as _, Timelike as _};
            let job = job("x", &format!("{minute} {hour} * * {weekday}"), &format!("jitter = \"{jitter}\""));
            let begin = at(1, 0, 0);
            let mut schedule = schedule(std::slice::from_ref(&job), begin);
            let judge = Timetable::new(&job, "machine", begin);
            let (mut now, mut dealt, mut last, mut is_running) = (begin, 0, begin, false);
            for (seconds, ends) in ticks {
                now += chrono::Duration::seconds(seconds);
                for decision in schedule.tick(now) {
                    let (fire, missed, is_start) = match decision {
                        Decision::Start { fire, missed, .. } => (fire, missed, true),
                        Decision::Skip { fire, missed, .. } => (fire, missed, false),
                    };
                    prop_assert!(fire.scheduled > last && fire.scheduled <= fire.due && fire.due <= now);
                    prop_assert_eq!(is_start, !is_running);
                    (last, is_running) = (fire.scheduled, true);
                    dealt += missed + 1;
                }
                if ends {
                    schedule.end("x");
                    is_running = false;
                }
            }
            let minutes_passed = (now - begin).num_minutes();
            let fires = (1..=minutes_passed).map(|minute| begin + chrono::Duration::minutes(minute)).filter(|time| {
                minutes.contains(&u16::try_from(time.minute()).unwrap())
                    && hours.contains(&u16::try_from(time.hour()).unwrap())
                    && weekdays.contains(&u16::try_from(time.weekday().num_days_from_sunday()).unwrap())
                    && judge.fire(*time).due <= now
            });
            prop_assert_eq!(dealt, fires.count());
        }

        /// Who asks on the way gets the same answer as who asked at first: nothing is lost or doubled, clock changes or not.
        #[test]
        fn the_next_fire_does_not_depend_on_when_one_asks(
            zone in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe")],
            cron in prop_oneof![Just("30 2 * * *"), Just("*/20 * * * *"), Just("5 * * * *"), Just("15 1-3 * * *"), Just("0 0 * * SUN")],
            start in 0_i64..366 * 86_400,
            part in 0.0..1.0_f64,
        ) {
            let cron: Cron = cron.parse().unwrap();
            let zone: chrono_tz::Tz = zone.parse().unwrap();
            let start = at(1, 0, 0) + chrono::Duration::seconds(start);
            let next = cron.next(start, zone).unwrap();
            prop_assert!(next > start);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "seconds of a week at most")]
            let later = start + chrono::Duration::seconds(((next - start).num_seconds() as f64 * part) as i64);
            prop_assert_eq!(cron.next(later, zone), Some(next));
            prop_assert_eq!(cron.latest(next, zone), Some(next));
            let after = cron.next(next, zone).unwrap();
            prop_assert_eq!(cron.latest(after - chrono::Duration::seconds(1), zone), Some(next));
        }
    }
}
