//! A number as it is written, taken apart, and what it is worth as an integer, a decimal or a float.
//!
//! Every conversion is exact or, for floats, rounded to the nearest; where it cannot be, the number is
//! [`NotPlain`], and so are the spellings that need care: exponents and fractions of integers, digits beyond a scale.

use super::super::watch::TRUSTED_LENGTH;
use super::NotPlain;

/// The most digits that a `u64` holds whatever they are.
const MANTISSA_DIGITS_MAX: usize = 19;

/// The powers of ten that a double holds exactly.
const DOUBLE_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// The powers of ten that a single holds exactly.
const SINGLE_POWERS: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// A number: sign, digits, perhaps a point and digits, perhaps an exponent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    text: &'a [u8],
    is_negative: bool,
    /// All digits without the point; wrapped where they are more than [`MANTISSA_DIGITS_MAX`].
    mantissa: u64,
    n_digits: usize,
    /// How many of the digits stand after the point.
    n_fraction_digits: usize,
    exponent: Option<i32>,
}

impl<'a> Number<'a> {
    /// Returns the number that `bytes` begin with, and what comes after it.
    #[inline]
    pub(super) fn at_start_of(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), NotPlain> {
        let (is_negative, unsigned) = match bytes.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, bytes),
        };
        let mut mantissa = 0;
        let mut rest = digits(unsigned, &mut mantissa)?;
        let mut n_digits = unsigned.len() - rest.len();
        let mut n_fraction_digits = 0;
        if let Some((b'.', fraction)) = rest.split_first() {
            rest = digits(fraction, &mut mantissa)?;
            n_fraction_digits = fraction.len() - rest.len();
            n_digits += n_fraction_digits;
        }
        let mut exponent = None;
        if let Some((b'e' | b'E', written)) = rest.split_first() {
            let (value, after) = signed_exponent(written)?;
            exponent = Some(value);
            rest = after;
        }
        let text = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
        Ok((Self { text, is_negative, mantissa, n_digits, n_fraction_digits, exponent }, rest))
    }

    /// Tells whether the number begins with a zero that it could do without, which JSON forbids.
    #[inline]
    pub(super) fn has_leading_zero(&self) -> bool {
        self.n_digits - self.n_fraction_digits > 1 && self.text.get(usize::from(self.is_negative)) == Some(&b'0')
    }

    /// Returns the number times `10^scale`, where that is whole and less than `limit`.
    #[inline]
    pub(super) fn decimal(&self, scale: u32, limit: i128) -> Result<i128, NotPlain> {
        // The length is the one up to which the judge trusts arrow; any i128 holds so many digits.
        if self.exponent.is_some() || self.text.len() > TRUSTED_LENGTH {
            return Err(NotPlain);
        }
        let digits = match self.n_digits {
            ..=MANTISSA_DIGITS_MAX => i128::from(self.mantissa),
            _ => self
                .text
                .iter()
                .filter(|byte| byte.is_ascii_digit())
                .fold(0, |value: i128, digit| value.wrapping_mul(10).wrapping_add(i128::from(digit & 0x0f))),
        };
        let n_zeros = u32::try_from(self.n_fraction_digits).ok().and_then(|n_digits| scale.checked_sub(n_digits));
        let power = 10_i128.checked_pow(n_zeros.ok_or(NotPlain)?).ok_or(NotPlain)?;
        let value = digits.checked_mul(power).filter(|value| *value < limit).ok_or(NotPlain)?;
        Ok(if self.is_negative { -value } else { value })
    }

    /// Returns the double next to the number, if it is finite.
    #[inline]
    pub(super) fn double(&self) -> Result<f64, NotPlain> {
        const EXACT_MAX: u64 = 1 << 53;
        let quick = self.power_of_ten().filter(|_| self.mantissa <= EXACT_MAX).and_then(|power| {
            // Both sides are exact, so the one operation rounds once. The cast is exact below EXACT_MAX.
            let mantissa = self.mantissa as f64;
            let factor = DOUBLE_POWERS.get(usize::try_from(power.unsigned_abs()).ok()?)?;
            Some(if power < 0 { mantissa / factor } else { mantissa * factor })
        });
        match quick {
            Some(size) => Ok(if self.is_negative { -size } else { size }),
            None => self.parse().filter(|value: &f64| value.is_finite()).ok_or(NotPlain),
        }
    }

    /// Returns the single next to the number, if it is finite.
    #[inline]
    pub(super) fn single(&self) -> Result<f32, NotPlain> {
        const EXACT_MAX: u64 = 1 << 24;
        let quick = self.power_of_ten().filter(|_| self.mantissa <= EXACT_MAX).and_then(|power| {
            // As for doubles. Rounding to a double first and then to a single would round twice.
            let mantissa = self.mantissa as f32;
            let factor = SINGLE_POWERS.get(usize::try_from(power.unsigned_abs()).ok()?)?;
            Some(if power < 0 { mantissa / factor } else { mantissa * factor })
        });
        match quick {
            Some(size) => Ok(if self.is_negative { -size } else { size }),
            None => self.parse().filter(|value: &f32| value.is_finite()).ok_or(NotPlain),
        }
    }

    /// Returns n where the number is its mantissa times `10^n`; none where the mantissa has wrapped.
    #[inline]
    fn power_of_ten(&self) -> Option<i32> {
        if self.n_digits > MANTISSA_DIGITS_MAX {
            return None;
        }
        self.exponent.unwrap_or(0).checked_sub(i32::try_from(self.n_fraction_digits).ok()?)
    }

    #[cold]
    fn parse<F: std::str::FromStr>(&self) -> Option<F> {
        std::str::from_utf8(self.text).ok()?.parse().ok()
    }
}

/// An integer, which most numbers are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integer {
    /// What it is.
    pub(super) value: i64,
    /// Whether it begins with a zero that it could do without.
    pub(super) has_leading_zero: bool,
}

impl Integer {
    /// Returns the integer that `bytes` begin with, and what comes after it: perhaps the rest of a number that is none.
    #[inline]
    pub(super) fn at_start_of(bytes: &[u8]) -> Result<(Self, &[u8]), NotPlain> {
        let (is_negative, unsigned) = match bytes.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, bytes),
        };
        let mut size = 0;
        let rest = digits(unsigned, &mut size)?;
        let n_digits = unsigned.len() - rest.len();
        if n_digits > MANTISSA_DIGITS_MAX {
            return Err(NotPlain);
        }
        let value = if is_negative { 0_i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() };
        let has_leading_zero = n_digits > 1 && unsigned.first() == Some(&b'0');
        Ok((Self { value: value.ok_or(NotPlain)?, has_leading_zero }, rest))
    }
}

/// Reads one or more digits into `mantissa` and returns what comes after them.
#[inline]
fn digits<'a>(bytes: &'a [u8], mantissa: &mut u64) -> Result<&'a [u8], NotPlain> {
    let mut rest = bytes;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit & 0x0f));
        rest = after;
    }
    if rest.len() == bytes.len() { Err(NotPlain) } else { Ok(rest) }
}

/// Reads an exponent, `e` already seen; one that no float can have stays far too large.
fn signed_exponent(bytes: &[u8]) -> Result<(i32, &[u8]), NotPlain> {
    let (is_negative, unsigned) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, bytes),
    };
    let mut rest = unsigned;
    let mut value = 0_i32;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        value = value.saturating_mul(10).saturating_add(i32::from(digit & 0x0f));
        rest = after;
    }
    if rest.len() == unsigned.len() {
        return Err(NotPlain);
    }
    Ok((if is_negative { -value } else { value }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn floats_are_rounded_once(
            mantissa in prop_oneof![0_u64..1 << 25, (1_u64 << 53)..1 << 54, (1_u64 << 52)..1 << 57, any::<u64>()],
            n_fraction_digits in 0_usize..20,
            exponent in prop::option::of(-45_i32..45),
            sign in prop::sample::select(vec!["", "-"]),
        ) {
            let digits = format!("{mantissa:020}");
            let (whole, fraction) = digits.split_at(digits.len() - n_fraction_digits);
            let whole = whole.trim_start_matches('0');
            let point = if n_fraction_digits > 0 { "." } else { "" };
            let power = exponent.map(|exponent| format!("e{exponent}")).unwrap_or_default();
            let text = format!("{sign}{}{whole}{point}{fraction}{power}", if whole.is_empty() { "0" } else { "" });
            let (number, rest) = Number::at_start_of(text.as_bytes()).map_err(|_| TestCaseError::fail("no number"))?;
            prop_assert!(rest.is_empty());
            prop_assert_eq!(number.double().ok().map(f64::to_bits), text.parse().ok().map(f64::to_bits), "{}", text);
            let single = text.parse().ok().filter(|value: &f32| value.is_finite());
            prop_assert_eq!(number.single().ok().map(f32::to_bits), single.map(f32::to_bits), "{}", text);
        }
    }
}
