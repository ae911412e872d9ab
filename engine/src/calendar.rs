//! The days and instants that a table can hold: those of the years 1 to 9999, UTC.
//!
//! Delta's readers end there, and so do the texts of partition values and of bounds. Arrow does not: an `i32` of days
//! goes to the year 5,881,580, so epoch seconds in a DATE would pass for a day. Every way in of a DATE or TIMESTAMP asks
//! here: decoded values, the records' metadata, in rows and in dead letters, and columns that the SELECT
//! computes.

use std::ops::RangeInclusive;

/// Days since 1970-01-01: from 0001-01-01 to 9999-12-31.
pub(crate) const DAYS: RangeInclusive<i32> = -719_162..=2_932_896;

/// Microseconds since 1970-01-01: from the first to the last of [`DAYS`].
pub(crate) const MICROS: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Returns the microseconds of a record's timestamp; none in a year that no table holds, where the stamps of a producer
/// that counts microseconds are.
pub(crate) fn micros(millis: i64) -> Option<i64> {
    millis.checked_mul(1000).filter(|micros| MICROS.contains(micros))
}

/// Tells whether a date, as it is written, is of those years: they have four digits and no sign.
pub(crate) fn is_of_calendar(date: &str) -> bool {
    !date.starts_with(['+', '-']) && !date.starts_with("0000-")
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    #[test]
    fn the_bounds_are_those_of_the_years_1_to_9999() {
        let days = |year, month, day| {
            let date = NaiveDate::from_ymd_opt(year, month, day);
            date.map(|date| (date - NaiveDate::default()).num_days())
        };
        let (first, last) = (i64::from(*DAYS.start()), i64::from(*DAYS.end()));
        assert_eq!((days(1, 1, 1), days(9999, 12, 31)), (Some(first), Some(last)));
        let micros_per_day = 86_400_000_000;
        assert_eq!(MICROS, first * micros_per_day..=(last + 1) * micros_per_day - 1);
    }
}
