//! What a decimal text says exactly, and whether arrow-json would read just that.

use arrow::compute::kernels::cast_utils::parse_decimal;
use arrow::datatypes::Decimal128Type;

/// The longest text that is compared with arrow's reading. Its counters wrap at 255 digits; nobody writes 64.
const COMPARED_LENGTH: usize = 64;

/// `digits * 10^exponent`, without leading and trailing zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exact {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Exact {
    fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
        while digits.pop_if(|last| *last == b'0').is_some() {
            exponent += 1;
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        Some(Self { negative, digits, exponent })
    }

    /// Returns `self * 10^shift` if that is a whole number of at most 38 digits.
    fn scaled(&self, shift: i64) -> Option<i128> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let zeros = u32::try_from(self.exponent.checked_add(shift)?).ok()?;
        let text = std::str::from_utf8(&self.digits).ok()?;
        let size = text.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(zeros)?)?;
        Some(if self.negative { -size } else { size })
    }
}

/// Tells why `text` does not fit DECIMAL(precision,scale), if so.
pub(super) fn decimal_misfit(text: &str, precision: u8, scale: i8) -> Option<&'static str> {
    let Some(exact) = Exact::parse(text) else { return Some("") };
    if !exact.digits.is_empty() && exact.exponent < -i64::from(scale) {
        return Some("it has more digits after the point");
    }
    let size = exact.scaled(i64::from(scale)).filter(|size| size.unsigned_abs() < 10_u128.pow(u32::from(precision)));
    let Some(size) = size else { return Some("it has more digits before the point") };
    let small_exponent = exact.exponent.unsigned_abs() <= 100;
    let compared = text.len() <= COMPARED_LENGTH && small_exponent;
    if compared && parse_decimal::<Decimal128Type>(text, precision, scale).is_ok_and(|read| read == size) {
        return None;
    }
    Some("write it without exponent and needless zeros")
}

/// Returns the whole number that `text` says, where arrow-json reads it without loss.
pub(super) fn whole(text: &str) -> Option<i128> {
    if let Ok(plain) = text.parse::<i128>() {
        return Some(plain);
    }
    let exact = Exact::parse(text)?.scaled(0)?;
    // arrow-json reads everything but plain digits by way of a double. Casting back saturates, which is unequal.
    let double = text.parse::<f64>().ok()?;
    (double as i128 == exact).then_some(exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_exact_or_none() {
        for (text, expected) in [
            ("12", Some(12)),
            ("-12", Some(-12)),
            ("1.0", Some(1)),
            ("1e3", Some(1000)),
            ("1.5e1", Some(15)),
            ("0e9", Some(0)),
            ("1.5", None),
            ("1e-1", None),
            ("9007199254740993.0", None),
            ("1e400", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }

    #[test]
    fn decimals_lose_nothing() {
        let long = "9".repeat(300);
        for (text, fits) in [
            ("1.23", true),
            ("1.230", true),
            ("-0.5", true),
            ("+7", true),
            ("1e2", true),
            ("1.5e1", true),
            ("999.99", true),
            ("1000", false),
            ("1e3", false),
            ("1.234", false),
            ("1e-3", false),
            ("-.", false),
            ("e5", false),
            ("1e5-3", false),
            ("1e65536", false),
            ("0e65536", false),
            ("", false),
            (long.as_str(), false),
        ] {
            assert_eq!(decimal_misfit(text, 5, 2).is_none(), fits, "{text}");
        }
    }
}
