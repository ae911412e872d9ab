//! A place in the bytes of a document, moving forward over JSON after RFC 8259 and over nothing else.
//!
//! It allocates nothing and recurses nowhere. What is not JSON, what nests too deep and what it has no quick way to
//! read all end as [`NotPlain`]: which of them it was is the judge's business. Before it: nothing. After it: the
//! columns, which ask for just the kind of value that they hold.

use super::NotPlain;
use super::number::{Integer, Number};

/// The most containers below a value that is skipped: one bit each. What nests deeper is not plain.
const SKIPPED_DEPTH_MAX: u32 = u64::BITS;

const TOPS: u64 = u64::from_le_bytes([0x80; 8]);

/// What is left of a document.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// How many containers may still be opened inside the ones that are open.
    depth_left: usize,
}

/// A string as it is written, without its quotes: UTF-8, and every escape in it is sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// The bytes between the quotes.
    pub(super) raw: &'a [u8],
    /// Whether some of them are escapes.
    pub(super) is_escaped: bool,
}

impl Text<'_> {
    /// Appends what the string says to `content`.
    #[inline]
    pub(super) fn append_to(self, content: &mut Vec<u8>) -> Result<(), NotPlain> {
        if self.is_escaped {
            return self.resolve(content);
        }
        content.extend_from_slice(self.raw);
        Ok(())
    }

    #[cold]
    fn resolve(self, content: &mut Vec<u8>) -> Result<(), NotPlain> {
        let mut cursor = Cursor { rest: self.raw, depth_left: 0 };
        while !cursor.rest.is_empty() {
            let (plain, rest) = cursor.rest.split_at_checked(run(cursor.rest).length).ok_or(NotPlain)?;
            content.extend_from_slice(plain);
            cursor.rest = rest;
            if !rest.is_empty() {
                let resolved = cursor.escape()?;
                content.extend_from_slice(resolved.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Ok(())
    }
}

impl<'a> Cursor<'a> {
    /// Returns a cursor at the start of `document`, in which `depth_max` containers may nest.
    #[inline]
    pub(super) fn new(document: &'a [u8], depth_max: usize) -> Self {
        Self { rest: document, depth_left: depth_max }
    }

    /// Returns what is left.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns the next byte without passing it.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Passes the next byte.
    #[inline]
    pub(super) fn take_byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// Passes `bytes` if they come next.
    #[inline]
    pub(super) fn pass(&mut self, bytes: &[u8]) -> bool {
        match self.rest.strip_prefix(bytes) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Passes `byte`, which must come next.
    #[inline]
    pub(super) fn require(&mut self, byte: u8) -> Result<(), NotPlain> {
        if self.take_byte() == Some(byte) { Ok(()) } else { Err(NotPlain) }
    }

    /// Passes the word `null`, which must come next.
    #[inline]
    pub(super) fn null(&mut self) -> Result<(), NotPlain> {
        if self.pass(b"null") { Ok(()) } else { Err(NotPlain) }
    }

    /// Passes `true` or `false` and returns which.
    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, NotPlain> {
        if self.pass(b"true") {
            return Ok(true);
        }
        if self.pass(b"false") { Ok(false) } else { Err(NotPlain) }
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while let Some((b' ' | b'\n' | b'\r' | b'\t', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    /// Passes `open`, which must come next, as deep as is allowed; true when `close` did not follow at once.
    #[inline]
    pub(super) fn enter(&mut self, open: u8, close: u8) -> Result<bool, NotPlain> {
        self.require(open)?;
        self.depth_left = self.depth_left.checked_sub(1).ok_or(NotPlain)?;
        self.skip_space();
        if self.peek() != Some(close) {
            return Ok(true);
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        self.depth_left += 1;
        Ok(false)
    }

    /// Passes what stands after a value: true after a comma, false after `close`.
    #[inline]
    pub(super) fn goes_on(&mut self, close: u8) -> Result<bool, NotPlain> {
        self.skip_space();
        match self.take_byte() {
            Some(b',') => {
                self.skip_space();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.depth_left += 1;
                Ok(false)
            }
            _ => Err(NotPlain),
        }
    }

    /// Passes a string, which must come next.
    #[inline]
    pub(super) fn text(&mut self) -> Result<Text<'a>, NotPlain> {
        let Some((b'"', inside)) = self.rest.split_first() else { return Err(NotPlain) };
        let Run { length, is_ascii } = run(inside);
        let (raw, rest) = inside.split_at_checked(length).ok_or(NotPlain)?;
        match rest.split_first() {
            Some((b'"', rest)) if is_ascii => {
                self.rest = rest;
                Ok(Text { raw, is_escaped: false })
            }
            _ => self.wide_text(inside),
        }
    }

    /// Passes a string, quote already seen, that is not ASCII alone, holds escapes or does not end.
    #[cold]
    fn wide_text(&mut self, inside: &'a [u8]) -> Result<Text<'a>, NotPlain> {
        let mut is_escaped = false;
        self.rest = inside;
        loop {
            self.rest = self.rest.get(run(self.rest).length..).unwrap_or_default();
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(NotPlain),
            };
            is_escaped = true;
        }
        let raw = inside.get(..inside.len() - self.rest.len()).unwrap_or_default();
        self.require(b'"')?;
        if std::str::from_utf8(raw).is_err() {
            return Err(NotPlain);
        }
        Ok(Text { raw, is_escaped })
    }

    /// Passes a number, which must come next.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number<'a>, NotPlain> {
        let (number, rest) = Number::at_start_of(self.rest)?;
        self.rest = rest;
        if number.has_leading_zero() { Err(NotPlain) } else { Ok(number) }
    }

    /// Passes a number, or a string that is nothing but one; there it may have leading zeros.
    #[inline]
    pub(super) fn maybe_quoted_number(&mut self) -> Result<Number<'a>, NotPlain> {
        let Some((b'"', inside)) = self.rest.split_first() else { return self.number() };
        let (number, rest) = Number::at_start_of(inside)?;
        self.rest = rest;
        self.require(b'"')?;
        Ok(number)
    }

    /// Passes an integer, which must come next and may be written like `1.0`.
    #[inline]
    pub(super) fn integer(&mut self) -> Result<i64, NotPlain> {
        let (integer, rest) = Integer::at_start_of(self.rest)?;
        self.rest = rest;
        if integer.has_leading_zero {
            return Err(NotPlain);
        }
        if self.peek() == Some(b'.') {
            self.zero_fraction(integer)?;
        }
        Ok(integer.value)
    }

    /// Passes a point and zeros after an integer. An exponent after them is left, and fits nowhere.
    #[cold]
    fn zero_fraction(&mut self, integer: Integer) -> Result<(), NotPlain> {
        let fraction = self.rest.get(1..).unwrap_or_default();
        let n_zeros = fraction.iter().take_while(|byte| **byte == b'0').count();
        // The judge reads such a number by way of a double, which is exact only so far.
        if n_zeros == 0 || integer.value.unsigned_abs() > 1 << 53 {
            return Err(NotPlain);
        }
        self.rest = fraction.get(n_zeros..).unwrap_or_default();
        Ok(())
    }

    /// Passes an integer, or a string that is nothing but one; there it may have leading zeros.
    #[inline]
    pub(super) fn maybe_quoted_integer(&mut self) -> Result<i64, NotPlain> {
        let Some((b'"', inside)) = self.rest.split_first() else { return self.integer() };
        let (integer, rest) = Integer::at_start_of(inside)?;
        self.rest = rest;
        self.require(b'"')?;
        Ok(integer.value)
    }

    /// Passes an escape and returns what it stands for.
    fn escape(&mut self) -> Result<char, NotPlain> {
        let Some(([b'\\', kind], rest)) = self.rest.split_first_chunk::<2>() else { return Err(NotPlain) };
        self.rest = rest;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(*kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            _ => return Err(NotPlain),
        })
    }

    fn code_point(&mut self) -> Result<char, NotPlain> {
        let unit = self.code_unit()?;
        if !(0xd800..=0xdbff).contains(&unit) {
            // The second half of a pair alone is no character.
            return char::from_u32(unit).ok_or(NotPlain);
        }
        if !self.pass(b"\\u") {
            return Err(NotPlain);
        }
        let low = self.code_unit()?;
        if !(0xdc00..=0xdfff).contains(&low) {
            return Err(NotPlain);
        }
        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or(NotPlain)
    }

    /// Passes four hexadecimal digits.
    fn code_unit(&mut self) -> Result<u32, NotPlain> {
        let (digits, rest) = self.rest.split_first_chunk::<4>().ok_or(NotPlain)?;
        self.rest = rest;
        let mut unit = 0;
        for digit in digits {
            unit = unit * 16 + char::from(*digit).to_digit(16).ok_or(NotPlain)?;
        }
        Ok(unit)
    }

    /// Passes a value of any kind.
    pub(super) fn skip_value(&mut self) -> Result<(), NotPlain> {
        // Bit 0 says whether the innermost open container is an object, bit 1 the one around it, and so on.
        let (mut objects, mut depth) = (0_u64, 0_u32);
        loop {
            let opened = match self.peek() {
                Some(b'{') => self.enter(b'{', b'}')?.then_some(1),
                Some(b'[') => self.enter(b'[', b']')?.then_some(0),
                _ => {
                    self.skip_scalar()?;
                    None
                }
            };
            match opened {
                Some(_) if depth == SKIPPED_DEPTH_MAX => return Err(NotPlain),
                Some(object) => {
                    objects = (objects << 1) | object;
                    depth += 1;
                }
                None => loop {
                    if depth == 0 {
                        return Ok(());
                    }
                    if self.goes_on(if objects & 1 == 1 { b'}' } else { b']' })? {
                        break;
                    }
                    objects >>= 1;
                    depth -= 1;
                },
            }
            if objects & 1 == 1 {
                self.key()?;
            }
        }
    }

    fn skip_scalar(&mut self) -> Result<(), NotPlain> {
        match self.peek() {
            Some(b'"') => self.text().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') => self.null(),
            _ => self.number().map(drop),
        }
    }

    /// Passes a key, its colon and the space around it.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Text<'a>, NotPlain> {
        let key = self.text()?;
        self.skip_space();
        self.require(b':')?;
        self.skip_space();
        Ok(key)
    }
}

/// Bytes of a string before the first quote, backslash or control character.
struct Run {
    length: usize,
    is_ascii: bool,
}

/// Measures the run that `bytes` begin with, eight bytes at a time.
#[inline]
fn run(bytes: &[u8]) -> Run {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut seen = 0;
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = specials(word);
        if hits != 0 {
            // trailing_zeros of a word that is not zero is below 64, so the cast keeps it and the shift is in range.
            let n_bytes = hits.trailing_zeros() as usize / 8;
            seen |= word & !(u64::MAX << (8 * n_bytes));
            return Run { length: index * 8 + n_bytes, is_ascii: seen & TOPS == 0 };
        }
        seen |= word;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    let n_bytes = tail.iter().position(is_special).unwrap_or(tail.len());
    let is_ascii = seen & TOPS == 0 && tail.iter().take(n_bytes).all(u8::is_ascii);
    Run { length: words.len() * 8 + n_bytes, is_ascii }
}

/// Returns a word whose lowest bit marks the first quote, backslash or control character among the bytes of `word`.
///
/// In a word of bytes `(x - 0x01..) & !x & 0x80..` has the top bit of every zero byte set, and perhaps of bytes after
/// the first one, which do not matter here.
#[inline]
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let controls = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
    controls | zero_bytes(word ^ (ONES * u64::from(b'"'))) | zero_bytes(word ^ (ONES * u64::from(b'\\')))
}
