//! Which values arrow-json would read inexactly, by the key they stand under.
//!
//! arrow-json cuts 1.9 to 1 in an integer column, cuts decimals to their scale, wraps numbers of hundreds of digits,
//! turns 1e400 into infinity and takes days of years that no table holds, all silently. This is the cheap test that
//! the scan asks about each value; what it suspects, `fault.rs` looks at closely. It may suspect too much, which costs
//! time; it never suspects too little.

use arrow::datatypes::{DataType, Fields};

/// The longest text of a number that arrow-json's decimal and float readers are trusted with: no fewer digits than
/// DECIMAL(38) has, far fewer than the 255 at which its counters wrap.
pub(super) const TRUSTED_LENGTH: usize = 38;

/// The fewest digits of an integer that may lie beyond BIGINT.
const LONG_WHOLE: usize = 19;

/// The fewest digits of a number of days that may lie before the year 1, which has six of them, or after the year 9999.
const LONG_DAYS: usize = 6;

/// The fewest digits of a number of microseconds that may lie before the year 1, or after the year 9999.
const LONG_MICROS: usize = 17;

/// The shape of a JSON number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    /// Bytes.
    pub(super) length: usize,
    /// Digits before the point.
    pub(super) whole: usize,
    /// Digits after the point.
    pub(super) fraction: usize,
    /// Digits of the exponent.
    pub(super) exponent: usize,
    /// Whether the exponent is not negative.
    pub(super) grows: bool,
}

/// The keys whose values need care.
#[derive(Debug, Default)]
pub(super) struct Watch {
    named: Vec<(Box<[u8]>, Care)>,
    /// Under keys that the schema does not name: the entries of maps.
    unnamed: Vec<Care>,
    /// Bit n: some key in `named` is n bytes long (63: or longer).
    lengths: u64,
    /// Whether texts need care at all.
    texts: bool,
    /// The fewest digits of a whole number that needs care under some key.
    long_whole: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Integers: a fraction must not be cut off.
    Whole,
    /// Dates: as integers, and of the years 1 to 9999.
    Day,
    /// Timestamps: likewise.
    Instant,
    /// Decimals: neither digits beyond the scale nor an overflow may be lost.
    Decimal { scale: usize },
    /// Floats: a finite number must not become infinite.
    Float,
    /// Binary: pairs of hexadecimal digits.
    Hex,
}

impl Care {
    /// Returns the fewest digits of a whole number that needs care.
    fn long_whole(self) -> usize {
        match self {
            Self::Day => LONG_DAYS,
            Self::Instant => LONG_MICROS,
            Self::Whole | Self::Decimal { .. } | Self::Float | Self::Hex => LONG_WHOLE,
        }
    }
}

impl Watch {
    /// Returns the watch over all values that `fields` name.
    pub(super) fn new(fields: &Fields) -> Self {
        let mut watch = Self { long_whole: LONG_WHOLE, ..Self::default() };
        for field in fields {
            watch.collect(Some(field.name()), field.data_type());
        }
        watch
    }

    fn collect(&mut self, key: Option<&str>, data_type: &DataType) {
        let care = match data_type {
            DataType::Struct(fields) => {
                return fields.iter().for_each(|field| self.collect(Some(field.name()), field.data_type()));
            }
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
                return self.collect(key, element.data_type());
            }
            DataType::Map(entries, _) => {
                if let DataType::Struct(entry) = entries.data_type()
                    && let Some(value) = entry.get(1)
                {
                    self.collect(None, value.data_type());
                }
                return;
            }
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => Care::Decimal { scale: usize::try_from(*scale).unwrap_or(0) },
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Care::Float,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Care::Hex,
            DataType::Date32 => Care::Day,
            DataType::Timestamp(..) => Care::Instant,
            other if other.is_integer() || other.is_temporal() => Care::Whole,
            _ => return,
        };
        self.texts |= care != Care::Whole;
        self.long_whole = self.long_whole.min(care.long_whole());
        match key {
            Some(key) => {
                self.lengths |= length_bit(key.len());
                self.named.push((key.as_bytes().into(), care));
            }
            None => self.unnamed.push(care),
        }
    }

    /// Tells whether a number under `key` may be read inexactly; none may be any key.
    #[inline]
    pub(super) fn suspects_number(&self, key: Option<&[u8]>, number: Number) -> bool {
        let Number { length, whole, fraction, exponent, grows } = number;
        let harmless = fraction == 0 && exponent == 0 && whole < self.long_whole;
        !harmless
            && self.any(key, |care| match care {
                Care::Whole | Care::Day | Care::Instant => fraction > 0 || exponent > 0 || whole >= care.long_whole(),
                Care::Decimal { scale } => fraction > scale || exponent > 0 || length > TRUSTED_LENGTH,
                // 20 digits and nine zeros more are far from the largest FLOAT, 3.4e38.
                Care::Float => length > TRUSTED_LENGTH || (grows && (exponent > 1 || (exponent == 1 && whole > 20))),
                Care::Hex => false,
            })
    }

    /// Tells whether a string under `key` may be read inexactly; none may be any key.
    #[inline]
    pub(super) fn suspects_text(&self, key: Option<&[u8]>, text: &[u8]) -> bool {
        self.texts
            && self.any(key, |care| match care {
                Care::Whole => false,
                // Other years begin with a sign, with 0000, or are next to those that a zone shifts over the edge.
                Care::Day | Care::Instant => !matches!(text.first(), Some(b'1'..=b'8')),
                Care::Decimal { scale } => !is_plain_decimal(text, scale),
                Care::Float => text.len() > TRUSTED_LENGTH || text.iter().any(|byte| matches!(byte, b'e' | b'E')),
                Care::Hex => !text.len().is_multiple_of(2),
            })
    }

    #[inline]
    fn any(&self, key: Option<&[u8]>, suspects: impl Fn(Care) -> bool) -> bool {
        if self.unnamed.iter().any(|care| suspects(*care)) {
            return true;
        }
        match key {
            None => self.named.iter().any(|(_, care)| suspects(*care)),
            Some(key) if self.lengths & length_bit(key.len()) == 0 => false,
            Some(key) => self.named.iter().any(|(name, care)| name.as_ref() == key && suspects(*care)),
        }
    }
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

fn is_plain_decimal(text: &[u8], scale: usize) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let mut parts = digits.split(|byte| *byte == b'.');
    let plain = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let whole = parts.next().is_some_and(plain);
    let fraction = parts.next().is_none_or(|part| plain(part) && part.len() <= scale);
    whole && fraction && parts.next().is_none() && text.len() <= TRUSTED_LENGTH
}
