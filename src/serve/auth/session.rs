//! What is remembered between requests: who is signed in, and who is about to be.
//!
//! Both live in memory: a restart signs everybody out, and nothing that opens a session is written anywhere. A browser
//! holds a random id; here only its hash is kept, so that a look-up tells nothing by its time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::oidc::Attempt;
use super::{Role, random_text};
use crate::clock::{Clock, Time};
use crate::error::Result;
use crate::limits;
use crate::secret::Secret;

type Key = [u8; 32];

fn key(id: &str) -> Key {
    Sha256::digest(id.as_bytes()).into()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) who: String,
    pub(super) role: Role,
    pub(super) form_token: Secret<String>,
    began: Time,
    seen: Time,
}

impl Session {
    fn has_ended(&self, now: Time) -> bool {
        now - self.seen >= limits::SESSION_IDLE || now - self.began >= limits::SESSION_LIFE
    }
}

/// Everybody who is signed in.
pub(super) struct Sessions {
    clock: Clock,
    held: Mutex<HashMap<Key, Session>>,
}

impl Sessions {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, held: Mutex::default() }
    }

    /// Begins a session; gives its id, for the browser alone.
    pub(super) fn add(&self, who: String, role: Role) -> Result<Secret<String>> {
        let (id, form_token, now) = (random_text()?, random_text()?, self.clock.now());
        let mut held = locked(&self.held);
        if held.len() >= limits::SESSIONS {
            held.retain(|_, session| !session.has_ended(now));
            forget_oldest(&mut held, limits::SESSIONS, |session| session.seen);
        }
        held.insert(key(id.expose()), Session { who, role, form_token, began: now, seen: now });
        Ok(id)
    }

    /// The session of an id, unless it has ended; it was in use now.
    pub(super) fn get(&self, id: &str) -> Option<Session> {
        let (key, now) = (key(id), self.clock.now());
        let mut held = locked(&self.held);
        let session = held.get_mut(&key)?;
        if session.has_ended(now) {
            held.remove(&key);
            return None;
        }
        session.seen = now;
        Some(session.clone())
    }

    /// Ends a session.
    pub(super) fn remove(&self, id: &str) {
        locked(&self.held).remove(&key(id));
    }
}

/// Everybody who was sent to the provider and is not back yet.
pub(super) struct Attempts {
    clock: Clock,
    held: Mutex<HashMap<Key, (Time, Attempt)>>,
}

impl Attempts {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, held: Mutex::default() }
    }

    /// Remembers an attempt; gives its id, for the browser alone.
    pub(super) fn add(&self, attempt: Attempt) -> Result<Secret<String>> {
        let (id, now) = (random_text()?, self.clock.now());
        let mut held = locked(&self.held);
        if held.len() >= limits::SIGN_INS {
            held.retain(|_, (began, _)| now - *began < limits::SIGN_IN_LIFE);
            forget_oldest(&mut held, limits::SIGN_INS, |(began, _)| *began);
        }
        held.insert(key(id.expose()), (now, attempt));
        Ok(id)
    }

    /// Takes an attempt out: it serves once.
    pub(super) fn take(&self, id: &str) -> Option<Attempt> {
        let (began, attempt) = locked(&self.held).remove(&key(id))?;
        (self.clock.now() - began < limits::SIGN_IN_LIFE).then_some(attempt)
    }
}

/// Makes place for one more.
fn forget_oldest<T>(held: &mut HashMap<Key, T>, most: usize, age: impl Fn(&T) -> Time) {
    while held.len() >= most {
        let Some(oldest) = held.iter().min_by_key(|(_, one)| age(one)).map(|(key, _)| *key) else { return };
        held.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: &Clock, minutes: i64) {
        clock.set(Time::UNIX_EPOCH + chrono::Duration::minutes(minutes));
    }

    #[test]
    fn a_session_ends_an_hour_after_it_was_last_used_and_half_a_day_after_it_began() {
        let clock = Clock::manual(Time::UNIX_EPOCH);
        let sessions = Sessions::new(clock.clone());
        let idle = sessions.add("ann".to_owned(), Role::Viewer).unwrap();
        at(&clock, 59);
        assert_eq!(sessions.get(idle.expose()).unwrap().who, "ann");
        at(&clock, 59 + 60);
        assert!(sessions.get(idle.expose()).is_none());
        let used = sessions.add("bob".to_owned(), Role::Admin).unwrap();
        for minutes in (0..12 * 60).step_by(50) {
            at(&clock, 59 + 60 + minutes);
            assert!(sessions.get(used.expose()).is_some(), "{minutes}");
        }
        at(&clock, 59 + 60 + 12 * 60);
        assert!(sessions.get(used.expose()).is_none());
    }

    #[test]
    fn a_session_that_was_removed_or_never_was_opens_nothing() {
        let sessions = Sessions::new(Clock::manual(Time::UNIX_EPOCH));
        let id = sessions.add("ann".to_owned(), Role::Viewer).unwrap();
        assert!(sessions.get("").is_none() && sessions.get("x").is_none());
        sessions.remove(id.expose());
        assert!(sessions.get(id.expose()).is_none());
    }

    #[test]
    fn ids_are_long_and_never_the_same() {
        let sessions = Sessions::new(Clock::manual(Time::UNIX_EPOCH));
        let add = || sessions.add("ann".to_owned(), Role::Viewer).unwrap().expose().clone();
        let (first, second) = (add(), add());
        assert_ne!(first, second);
        assert_eq!(first.len(), 43);
    }

    #[test]
    fn when_all_places_are_taken_the_one_that_was_idle_longest_goes() {
        let mut held: HashMap<Key, Time> = HashMap::new();
        for number in 0..3u8 {
            held.insert([number; 32], Time::UNIX_EPOCH + chrono::Duration::minutes(i64::from(number)));
        }
        forget_oldest(&mut held, 3, |time| *time);
        assert!(held.len() == 2 && !held.contains_key(&[0; 32]));
    }
}
