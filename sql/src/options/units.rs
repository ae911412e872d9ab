//! Durations and sizes as people write them. Pure.

use std::time::Duration;

/// Returns the duration that `10 seconds`, `500 ms`, `7 days`, `1h` or `interval 7 days` means.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let rest = text.trim();
    let rest = match rest.get(..9) {
        Some(word) if word.eq_ignore_ascii_case("interval ") => rest[9..].trim_start(),
        _ => rest,
    };
    let (number, unit) = number_and_unit(rest).ok_or_else(|| format!("'{text}' is not a duration"))?;
    let millis = match unit.to_ascii_lowercase().as_str() {
        "ms" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "second" | "seconds" => 1_000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        "w" | "week" | "weeks" => 604_800_000,
        "" => return Err(format!("'{text}' has no unit: write '{text} seconds'")),
        _ => return Err(format!("'{unit}' is not a unit of time: ms, seconds, minutes, hours, days and weeks are")),
    };
    match number.checked_mul(millis) {
        Some(0) => Err("a duration is longer than zero".to_owned()),
        // Milliseconds as i64 is what Delta and Kafka keep.
        Some(millis) if i64::try_from(millis).is_ok() => Ok(Duration::from_millis(millis)),
        _ => Err(format!("'{text}' is too long")),
    }
}

/// Returns the bytes that `64 MB`, `512 KiB` or `1048576` means. A KB is 1,024 bytes, as in Spark and Flink.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = number_and_unit(text.trim()).ok_or_else(|| format!("'{text}' is not a size"))?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("'{unit}' is not a unit of size: B, KB, MB and GB are")),
    };
    match number.checked_mul(1_u64 << shift).map(usize::try_from) {
        Some(Ok(0)) => Err("a size is greater than zero".to_owned()),
        Some(Ok(bytes)) => Ok(bytes),
        _ => Err(format!("'{text}' is too large")),
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

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_all_spellings() {
        for (text, millis) in [
            ("10 seconds", 10_000),
            ("500 ms", 500),
            ("1h", 3_600_000),
            (" 7 days ", 604_800_000),
            ("interval 7 days", 604_800_000),
            ("INTERVAL 1 week", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "10", "0 seconds", "-1 s", "ten s", "5 parsecs", "1.5 s", "99999999999999999 days", "intervalä 1"]
        {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn sizes_are_read_in_all_spellings() {
        for (text, expected) in [("64 MB", 64 << 20), ("1048576", 1 << 20), ("512KiB", 512 << 10), ("1 g", 1 << 30)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "64 MBs", "MB", "-1", "99999999999999999 GB"] {
            assert!(bytes(text).is_err(), "{text:?} was taken");
        }
    }
}
