//! Dates and timestamps: RFC 3339 with a fixed layout here, everything else that arrow reads by arrow itself.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};

use super::NotPlain;
use super::cursor::Cursor;
use super::scalar::Scalar;
use crate::calendar::{DAYS, MICROS};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A DATE.
#[derive(Debug)]
pub(super) struct Day;

impl Scalar for Day {
    type Arrow = Date32Type;

    #[inline]
    fn read(&self, cursor: &mut Cursor<'_>) -> Result<i32, NotPlain> {
        let day = if cursor.peek() == Some(b'"') { day_of(unescaped(cursor)?)? } else { cursor.integer()? };
        i32::try_from(day).ok().filter(|day| DAYS.contains(day)).ok_or(NotPlain)
    }
}

/// A TIMESTAMP.
#[derive(Debug)]
pub(super) struct Instant {
    /// What text without a zone is in.
    zone: Tz,
    is_utc: bool,
}

impl Instant {
    /// Returns the timestamp of columns in `zone`.
    pub(super) fn new(zone: Option<&str>) -> Option<Self> {
        let is_utc = matches!(zone, None | Some("UTC" | "+00:00"));
        Some(Self { zone: zone.unwrap_or("+00:00").parse().ok()?, is_utc })
    }

    /// Returns the microseconds from 1970-01-01 to what a text says, whichever the year.
    #[inline]
    fn time_of(&self, text: &[u8]) -> Result<i64, NotPlain> {
        if let Some(micros) = micros(text).filter(|_| self.is_utc) {
            return Ok(micros);
        }
        let text = std::str::from_utf8(text).map_err(|_| NotPlain)?;
        string_to_datetime(&self.zone, text).map(|time| time.timestamp_micros()).map_err(|_| NotPlain)
    }
}

impl Scalar for Instant {
    type Arrow = TimestampMicrosecondType;

    #[inline]
    fn read(&self, cursor: &mut Cursor<'_>) -> Result<i64, NotPlain> {
        let time = if cursor.peek() == Some(b'"') { self.time_of(unescaped(cursor)?)? } else { cursor.integer()? };
        if MICROS.contains(&time) { Ok(time) } else { Err(NotPlain) }
    }
}

/// Returns the days from 1970-01-01 to what a text says, whichever the year.
#[inline]
fn day_of(text: &[u8]) -> Result<i64, NotPlain> {
    if let Ok(date) = <&[u8; 10]>::try_from(text)
        && let Some(days) = days(date)
    {
        return Ok(days);
    }
    std::str::from_utf8(text).ok().and_then(Date32Type::parse).map(i64::from).ok_or(NotPlain)
}

/// Passes a string and returns what it says, if that is just what is written.
#[inline]
fn unescaped<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], NotPlain> {
    let text = cursor.text()?;
    if text.is_escaped { Err(NotPlain) } else { Ok(text.raw) }
}

/// Reads `2026-03-01T12:00:00.123456Z`: the fraction may have one to nine digits or be absent, and instead of the `Z`
/// there may be nothing or an offset like `+02:00`.
#[inline]
fn micros(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let ([b'T' | b' ', time @ ..], rest) = rest.split_first_chunk::<9>()? else { return None };
    let [hour_1, hour_2, b':', minute_1, minute_2, b':', second_1, second_2] = *time else { return None };
    let hour = below(two(hour_1, hour_2)?, 24)?;
    let minute = below(two(minute_1, minute_2)?, 60)?;
    let second = below(two(second_1, second_2)?, 60)?;
    let (micros, rest) = match rest.split_first() {
        Some((b'.', fraction)) => micros_of_fraction(fraction)?,
        _ => (0, rest),
    };
    let ahead = seconds_ahead(rest)?;
    let seconds = days(date)? * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - ahead;
    Some(seconds * MICROS_PER_SECOND + micros)
}

/// Returns by how much a clock in the zone `written` is ahead of UTC.
#[inline]
fn seconds_ahead(written: &[u8]) -> Option<i64> {
    match *written {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), hour_1, hour_2, b':', minute_1, minute_2] => {
            let seconds = below(two(hour_1, hour_2)?, 24)? * 3600 + below(two(minute_1, minute_2)?, 60)? * 60;
            Some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Reads one to nine digits after a point, the last three in vain.
#[inline]
fn micros_of_fraction(fraction: &[u8]) -> Option<(i64, &[u8])> {
    let n_digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&n_digits) {
        return None;
    }
    let (digits, rest) = fraction.split_at_checked(n_digits)?;
    let micros =
        (0..6).fold(0, |micros, place| micros * 10 + digits.get(place).map_or(0, |digit| i64::from(digit & 0x0f)));
    Some((micros, rest))
}

/// Returns the days from 1970-01-01 to a date like `2026-03-01`, if there is such a date.
#[inline]
fn days(date: &[u8; 10]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', month_1, month_2, b'-', day_1, day_2] = *date else { return None };
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    let month = two(month_1, month_2)?;
    let day = two(day_1, day_2)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => return None,
    };
    if day < 1 || day > month_days {
        return None;
    }
    // Years that begin in March end with the leap day, so the days before a month follow one rule. The year 0 of the
    // calendar begins 719,468 days before 1970.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    Some(march_year * 365 + leap_days + (march_month * 153 + 2) / 5 + day - 1 - 719_468)
}

/// Returns the number that two digits are.
#[inline]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let digit = |byte: u8| below(i64::from(byte.wrapping_sub(b'0')), 10);
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[inline]
fn below(value: i64, limit: i64) -> Option<i64> {
    (value < limit).then_some(value)
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::Error;
    use chrono::NaiveDate;

    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_counts_them() -> Result<(), Error> {
        // All of a cycle of the calendar, and its ends.
        for year in (1600..2001).chain([0, 4, 100, 1582, 2026, 2100, 9999]) {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                let text = format!("{year:04}-{month:02}-{day:02}");
                let text = <&[u8; 10]>::try_from(text.as_bytes()).map_err(|_| Error::internal("not a date"))?;
                let expected = NaiveDate::from_ymd_opt(year, month, day);
                let expected = expected.map(|date| (date - NaiveDate::default()).num_days());
                assert_eq!(days(text), expected, "{year} {month} {day}");
            }
        }
        Ok(())
    }

    #[test]
    fn times_of_the_fixed_layout_are_what_arrow_reads() -> Result<(), Error> {
        for text in [
            "2026-03-01T12:00:00Z",
            "2026-03-01 23:59:59.999999999",
            "1969-12-31T23:59:59.9999999Z",
            "0000-01-01T00:00:00.000001z",
            "9999-12-31T23:59:59.1",
            "2026-03-01T12:00:00+00:00",
            "2026-03-01T00:30:00.25+05:30",
            "2026-03-01T23:59:59-23:59",
            "0000-01-01T00:00:00+14:00",
        ] {
            let arrow = string_to_datetime(&chrono::Utc, text);
            let arrow = arrow.map_err(|source| Error::internal(text).with_source(source))?;
            assert_eq!(micros(text.as_bytes()), Some(arrow.timestamp_micros()), "{text}");
        }
        for text in ["2026-03-01", "2026-03-01T12:00:60Z", "2026-03-01T24:00:00Z", "2026-02-29T00:00:00Z"] {
            assert_eq!(micros(text.as_bytes()), None, "{text}");
        }
        for text in
            ["2026-03-01T12:00:00.Z", "2026-03-01T12:00:00+24:00", "2026-03-01T12:00:00+0100", "2026-03-01T12:00:00ZZ"]
        {
            assert_eq!(micros(text.as_bytes()), None, "{text}");
        }
        Ok(())
    }
}
