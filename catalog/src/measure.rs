//! Counts, sizes and durations: as people write them in SQL, settings and commands, and as they are shown to people.
//!
//! There is one reading of each unit, wherever it is written. Pure.

use std::time::Duration;

/// Returns the duration that `10 seconds`, `500 ms`, `1h`, `7 days` or `interval 7 days` means.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
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
        // Milliseconds as i64 is what Delta and Kafka keep.
        Some(millis) if i64::try_from(millis).is_ok() => Ok(Duration::from_millis(millis)),
        _ => Err(format!("'{text}' is too long")),
    }
}

/// Returns the bytes that `64 MB`, `512 KiB` or `1048576` means. A KB is 1,024 bytes, as in Spark and Flink.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text).ok_or_else(|| format!("'{text}' is not a size"))?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("'{unit}' is not a unit of size: B, KB, MB and GB are")),
    };
    number.checked_mul(1_u64 << shift).ok_or_else(|| format!("'{text}' is too large"))
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.replace('_', "").parse().ok()?, unit.trim()))
}

/// Returns a count with commas between groups of three: `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns `1 file` or `1,234 files`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// Returns bytes with a binary unit: `12.3 MiB`.
pub fn sized(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let unit_word = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {unit_word}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_all_spellings() {
        for (text, millis) in [
            ("10 seconds", 10_000),
            ("10s", 10_000),
            ("500 ms", 500),
            ("250ms", 250),
            ("5m", 300_000),
            ("1h", 3_600_000),
            (" 7 days ", 604_800_000),
            ("interval 7 days", 604_800_000),
            ("INTERVAL 1 week", 604_800_000),
            ("1_000 ms", 1_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "10", "-1 s", "ten s", "_ s", "5 parsecs", "1.5 s", "99999999999999999 days", "interval\u{e4} 1"]
        {
            assert!(parse_duration(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn sizes_are_read_in_all_spellings() {
        for (text, expected) in [
            ("64 MB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1048576", 1 << 20),
            ("1_048_576", 1 << 20),
            ("512KiB", 512 << 10),
            ("1 g", 1 << 30),
            ("0", 0),
        ] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "64 MBs", "MB", "-1", "1.5 MB", "99999999999999999 GB"] {
            assert!(parse_bytes(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn numbers_read_easily() {
        for (count, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(count), expected);
        }
        assert_eq!((counted(1, "file"), counted(0, "file")), ("1 file".into(), "0 files".into()));
        assert_eq!((sized(0), sized(1023), sized(1536)), ("0 B".into(), "1023 B".into(), "1.5 KiB".into()));
    }
}
