//! Durations, sizes and counts that options take: none of them is zero. Pure.

use std::time::Duration;

use alluvium_catalog::{parse_bytes, parse_duration};

/// Returns the duration that is meant, longer than zero.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a duration is longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// Returns the bytes that are meant, more than zero.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    match parse_bytes(text).map(usize::try_from)? {
        Ok(0) => Err("a size is greater than zero".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(format!("'{text}' is too large")),
    }
}

/// Returns the number above zero that `text` is.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.trim().replace('_', "").parse() {
        Ok(0) => Err("it is greater than zero".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("'{text}' is not a number above zero")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_zero() {
        assert_eq!(duration("10 s"), Ok(Duration::from_secs(10)));
        assert_eq!((bytes("64 MB"), count("1_000")), (Ok(64 << 20), Ok(1_000)));
        assert!(duration("0 s").is_err() && bytes("0 KB").is_err() && count("0").is_err() && count("-1").is_err());
    }
}
