//! How long a table keeps what no reader of its newest version needs: properties such as `interval 7 days`.

use std::time::Duration;

use alluvium_catalog::{Error, Location, Result};

use super::state::TableState;

/// How long a table keeps its log.
pub const LOG_RETENTION: &str = "delta.logRetentionDuration";

/// How long it does where it does not say: Delta's own default.
const LOG_RETENTION_DEFAULT: Duration = Duration::from_secs(30 * 86_400);

/// Returns the duration that a table property such as `interval 7 days` names; `None` where the table does not say.
///
/// # Errors
/// `Invalid` when the property cannot be understood: nobody may take a shorter time for it. Months and years have no
/// length of their own, and Delta takes them for no retention either.
pub fn interval(state: &TableState, property: &str, at: &Location) -> Result<Option<Duration>> {
    let Some(text) = state.metadata.configuration.get(property) else { return Ok(None) };
    match parse_interval(text) {
        Some(duration) => Ok(Some(duration)),
        None => Err(Error::invalid(format!("cannot understand '{property}' = '{text}' of the table at {at}"))
            .with_hint("write it in weeks, days, hours, minutes and seconds, such as 'interval 30 days'")),
    }
}

/// Returns how long the table keeps its log.
///
/// # Errors
/// `Invalid` when that cannot be understood: nobody may clean it up then.
pub fn kept_log(state: &TableState, at: &Location) -> Result<Duration> {
    Ok(interval(state, LOG_RETENTION, at)?.unwrap_or(LOG_RETENTION_DEFAULT))
}

/// Reads one or more numbers, each with its unit.
fn parse_interval(text: &str) -> Option<Duration> {
    let mut words = text.split_whitespace().skip_while(|word| word.eq_ignore_ascii_case("interval")).peekable();
    words.peek()?;
    let mut seconds = 0_u64;
    while let Some(number) = words.next() {
        let seconds_each = match words.next()?.to_ascii_lowercase().trim_end_matches('s') {
            "second" => 1,
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            "week" => 7 * 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.trim_matches('\'').parse::<u64>().ok()?.checked_mul(seconds_each)?)?;
    }
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_delta_writes_them_and_others_are_refused() -> Result<()> {
        let (mut state, at) = (TableState::default(), "memory:///t".parse()?);
        assert_eq!(interval(&state, "p", &at)?, None);
        for (text, seconds) in [
            ("interval 7 days", Some(604_800)),
            ("INTERVAL 1 week", Some(604_800)),
            ("12 hours", Some(43_200)),
            ("interval '2' days", Some(172_800)),
            ("interval 1 days 2 hours", Some(93_600)),
            ("interval 1 month", None),
            ("interval 1 year", None),
            ("interval 1 day 1 month", None),
            ("interval -1 days", None),
            ("interval 7", None),
            ("interval", None),
            ("", None),
            ("interval 99999999999999999999 days", None),
        ] {
            state.metadata.configuration.insert("p".to_owned(), text.to_owned());
            let read = interval(&state, "p", &at);
            assert_eq!(read.ok().flatten().map(|duration| duration.as_secs()), seconds, "{text}");
        }
        Ok(())
    }

    #[test]
    fn a_log_is_kept_as_long_as_the_table_says_or_as_delta_does() -> Result<()> {
        let (mut state, at) = (TableState::default(), "memory:///t".parse()?);
        assert_eq!(kept_log(&state, &at)?, Duration::from_secs(2_592_000));
        for (text, seconds) in [("interval 7 days", Some(604_800)), ("interval 1 month", None)] {
            state.metadata.configuration.insert(LOG_RETENTION.to_owned(), text.to_owned());
            assert_eq!(kept_log(&state, &at).ok().map(|kept| kept.as_secs()), seconds, "{text}");
        }
        Ok(())
    }
}
