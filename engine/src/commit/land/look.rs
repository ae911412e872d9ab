//! When a version was known to be the newest, and when that is too long ago to commit after it.
//!
//! A version is created where there is none. Where the log has been cleaned up there is none either: a process that has
//! not looked for as long as the log is kept would fill a gap below a checkpoint, where no reader looks, and what it landed
//! would be lost. So whoever has not looked for a while looks before it commits.

use std::time::Duration;

use alluvium_catalog::{Clock, Location, Timestamp};

use crate::delta::retention::kept_log;
use crate::delta::state::TableState;

/// A look costs a request or two, and once a minute that is nothing.
const OLD_AFTER: Duration = Duration::from_secs(60);

/// A moment at which the version at hand was the newest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) at: Timestamp,
}

impl Look {
    pub(super) fn now(clock: &dyn Clock) -> Self {
        Self { at: clock.now() }
    }

    /// Tells whether what has come since may have left the log of `state` again: whoever cleans it up keeps each version for
    /// the time that the table says, whatever program that is. Half of it, and no more than a minute, may go by.
    pub(super) fn is_old(self, (state, at): (&TableState, &Location), clock: &dyn Clock) -> bool {
        // One that cannot be understood keeps the log for good.
        let limit = kept_log(state, at).map_or(OLD_AFTER, |retention| (retention / 2).min(OLD_AFTER));
        // A clock that was set back tells nothing.
        match u64::try_from(clock.now().0.saturating_sub(self.at.0)) {
            Ok(age_ms) => Duration::from_millis(age_ms) > limit,
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::ManualClock;

    use super::*;

    #[test]
    fn a_look_is_old_after_a_minute_or_half_of_the_time_that_the_log_is_kept() -> alluvium_catalog::Result<()> {
        let at = "memory:///t".parse()?;
        let mut state = TableState::default();
        let clock = ManualClock::new(1, Timestamp(1_000_000));
        let look = Look::now(&clock);
        let mut is_old_after = |retention: Option<&str>, millis: i64| {
            let configuration = &mut state.metadata.configuration;
            configuration.clear();
            configuration.extend(retention.map(|text| ("delta.logRetentionDuration".to_owned(), text.to_owned())));
            clock.set(Timestamp(1_000_000 + millis));
            look.is_old((&state, &at), &clock)
        };
        for retention in [None, Some("interval 7 days"), Some("interval 1 month")] {
            assert_eq!(
                (is_old_after(retention, 60_000), is_old_after(retention, 60_001)),
                (false, true),
                "{retention:?}"
            );
        }
        let short = Some("interval 10 seconds");
        assert_eq!((is_old_after(short, 5_000), is_old_after(short, 5_001)), (false, true));
        let none = Some("interval 0 seconds");
        assert_eq!((is_old_after(none, 0), is_old_after(none, 1)), (false, true));
        assert!(is_old_after(None, -1), "the clock was set back");
        Ok(())
    }
}
