//! Dates and times as text, those too that are beyond every calendar.
//!
//! Arrow's calendar has the years -262143 to 262142, and its numbers go on: files of other writers have such values,
//! and queries compute them. One must not keep all others from being shown, so it is written as the number that it is
//! stored as, with its unit: `9223372036854775807 us since 1970-01-01`.

use std::fmt::Write;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder};
use arrow::util::display::{ArrayFormatter, ArrayFormatterFactory, DisplayIndex, FormatOptions, FormatResult};

use super::cells::FOR_PROGRAMS;

/// Makes what writes dates and times, also within nested values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times;

impl ArrayFormatterFactory for Times {
    fn create_array_formatter<'a>(
        &self,
        array: &'a dyn Array,
        options: &FormatOptions<'a>,
        _field: Option<&'a Field>,
    ) -> Result<Option<ArrayFormatter<'a>>, ArrowError> {
        let Some((unit, since)) = counted_in(array.data_type()) else { return Ok(None) };
        let calendar = ArrayFormatter::try_new(array, options)?;
        let time = Time { array, calendar, unit, since };
        Ok(Some(ArrayFormatter::new(Box::new(time), options.safe())))
    }
}

impl EncoderFactory for Times {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let formatter = self.create_array_formatter(array, &FOR_PROGRAMS, None)?;
        Ok(formatter.map(|formatter| NullableEncoder::new(Box::new(Quoted(formatter)), array.nulls().cloned())))
    }
}

/// Returns what writes the values of `array`.
pub(super) fn formatter<'a>(
    array: &'a dyn Array,
    options: &FormatOptions<'a>,
) -> Result<ArrayFormatter<'a>, ArrowError> {
    match Times.create_array_formatter(array, options, None)? {
        Some(formatter) => Ok(formatter),
        None => ArrayFormatter::try_new(array, options),
    }
}

/// Writes a date or time by the calendar, or else as its number.
struct Time<'a> {
    array: &'a dyn Array,
    calendar: ArrayFormatter<'a>,
    unit: &'static str,
    since: &'static str,
}

impl DisplayIndex for Time<'_> {
    fn write(&self, row: usize, out: &mut dyn Write) -> FormatResult {
        // A value that the calendar does not have fails before anything is written.
        if self.calendar.value(row).write(out).is_ok() {
            return Ok(());
        }
        let number = cast(&self.array.slice(row, 1), &DataType::Int64)?;
        write!(out, "{} {} since {}", number.as_primitive::<Int64Type>().value(0), self.unit, self.since)?;
        Ok(())
    }
}

/// Writes a date or time as a text of JSON: it has no character that must be escaped.
struct Quoted<'a>(ArrayFormatter<'a>);

impl Encoder for Quoted<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        // Every date and time is a number, so that there is always a text.
        out.extend_from_slice(self.0.value(row).try_to_string().unwrap_or_default().as_bytes());
        out.push(b'"');
    }
}

/// Returns the unit of the numbers that dates or times of the type are, and what they count from; none for other types.
fn counted_in(data_type: &DataType) -> Option<(&'static str, &'static str)> {
    const EPOCH: &str = "1970-01-01";
    match data_type {
        DataType::Date32 => Some(("days", EPOCH)),
        DataType::Date64 => Some((symbol(TimeUnit::Millisecond), EPOCH)),
        DataType::Timestamp(unit, _) => Some((symbol(*unit), EPOCH)),
        DataType::Time32(unit) | DataType::Time64(unit) => Some((symbol(*unit), "midnight")),
        _ => None,
    }
}

fn symbol(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}
