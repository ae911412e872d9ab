//! Time and ids: the one place where the program asks what time it is or draws a random id.
//!
//! Everything else is handed a [`Clock`], so that a test that sets the time and the seed sees the same run again.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, Result};

/// Tells the time and makes ids.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the time.
    fn now(&self) -> Timestamp;

    /// Returns an id that no other call returns: a UUID of version 7, which sorts by the time it was made.
    fn new_id(&self) -> Uuid;
}

/// A point in time, milliseconds since 1970-01-01T00:00:00Z.
///
/// It is stored as that number and shown as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_millis(self.0) {
            Some(time) => formatter.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            // Some 262,000 years from now the calendar ends; the number is then the only honest answer.
            None => write!(formatter, "{}ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads RFC 3339. What is finer than a millisecond is cut off.
    fn from_str(text: &str) -> Result<Self> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|source| {
            Error::invalid(format!("'{text}' is not a time"))
                .with_hint("write RFC 3339, such as 2026-03-01T12:00:00Z")
                .with_source(source)
        })?;
        Ok(Self(time.timestamp_millis()))
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is handed")]
    fn now(&self) -> Timestamp {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(millis(since)),
            Err(before) => Timestamp(-millis(before.duration())),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is handed")]
    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// A clock that stands still until it is moved, and whose ids depend on its seed alone.
#[derive(Debug)]
pub struct ManualClock {
    seed: u64,
    millis: AtomicI64,
    n_ids: AtomicU64,
}

impl ManualClock {
    /// Returns a clock that stands at `now`. Two clocks of one seed that are moved alike make the same ids.
    pub fn new(seed: u64, now: Timestamp) -> Self {
        Self { seed, millis: AtomicI64::new(now.0), n_ids: AtomicU64::new(0) }
    }

    /// Moves the clock to `now`, which may lie in the past.
    pub fn set(&self, now: Timestamp) {
        self.millis.store(now.0, Ordering::SeqCst);
    }

    /// Moves the clock on by `duration` and returns the time it then shows.
    pub fn advance(&self, duration: Duration) -> Timestamp {
        let step = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.millis.fetch_add(step, Ordering::SeqCst).wrapping_add(step))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.millis.load(Ordering::SeqCst))
    }

    fn new_id(&self) -> Uuid {
        let index = self.n_ids.fetch_add(1, Ordering::SeqCst);
        let chance = blake3::hash(&[self.seed.to_be_bytes(), index.to_be_bytes()].concat());
        let mut tail = [0_u8; 10];
        tail.copy_from_slice(&chance.as_bytes()[..10]);
        // RFC 9562, 6.2: a counter in the bits after the time keeps ids of one millisecond in order.
        let [.., high, low] = index.to_be_bytes();
        (tail[0], tail[1]) = (high, low);
        let millis = u64::try_from(self.now().0).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }
}

/// The serde form of an id: its text, as the `serde` feature of `uuid` has it.
pub(crate) mod id_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use uuid::Uuid;

    pub(crate) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shows_rfc_3339_in_utc_with_millis() -> Result<()> {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!("2026-03-01T13:00:00.0019+01:00".parse::<Timestamp>()?.to_string(), "2026-03-01T12:00:00.001Z");
        assert_eq!(Timestamp(i64::MAX).to_string(), format!("{}ms", i64::MAX));
        Ok(())
    }

    #[test]
    fn a_time_without_zone_is_refused() {
        for text in ["", "now", "2026-03-01", "2026-03-01T12:00:00", "1740830400000"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn ids_of_the_machine_differ_and_sort_by_time() {
        let ids: Vec<Uuid> = std::iter::repeat_with(|| SystemClock.new_id()).take(1_000).collect();
        assert!(ids.is_sorted_by(|first, second| first < second));
        assert_eq!(ids[0].get_version_num(), 7);
    }

    #[test]
    fn one_seed_makes_the_same_ids_again() {
        let ids = |seed| {
            let clock = ManualClock::new(seed, Timestamp(1_000));
            let first = clock.new_id();
            clock.advance(Duration::from_millis(5));
            assert_eq!(clock.now(), Timestamp(1_005));
            [first, clock.new_id(), clock.new_id()]
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
        assert!(ids(7).is_sorted_by(|first, second| first < second));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in -60_000_000_000_000_i64..250_000_000_000_000) {
            prop_assert_eq!(Timestamp(millis).to_string().parse::<Timestamp>()?, Timestamp(millis));
        }
    }
}
