//! One strict pass over a JSON document before arrow-json sees it: is it one object, how deep, is any value suspect.
//!
//! arrow-json reads a stream, so it takes missing and doubled commas, several objects in one record and any depth, and
//! a document that ends early spoils its state for all that follow. What passes here is one object after RFC 8259, so
//! one document is one row. The scan never allocates on documents that pass and never recurses.

use super::watch::{Number, Watch};

/// Checks documents; keeps its stack between them.
#[derive(Debug)]
pub(super) struct Scanner {
    watch: Watch,
    depth_max: usize,
    stack: Vec<Container>,
}

/// What the scan of a sound document found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// arrow-json reads every value exactly, or refuses it.
    Sound,
    /// Some value might be read inexactly: look closer.
    Suspect,
}

/// Why a document is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Not JSON: what is wrong, and the byte it begins at.
    Syntax { what: &'static str, at: usize },
    /// JSON, but the document is this instead of an object.
    NotAnObject(&'static str),
    /// The containers nest deeper than the limit.
    TooDeep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

impl Scanner {
    /// Returns a scanner that lets containers nest `depth_max` deep, the document itself counted.
    pub(super) fn new(watch: Watch, depth_max: usize) -> Self {
        Self { watch, depth_max, stack: Vec::new() }
    }

    /// Checks one document.
    pub(super) fn scan(&mut self, document: &[u8]) -> Result<Verdict, Flaw> {
        if let Err(error) = std::str::from_utf8(document) {
            return Err(syntax("invalid UTF-8", error.valid_up_to()));
        }
        self.stack.clear();
        let mut pass =
            Pass { bytes: document, at: 0, key: None, escaped: false, watch: &self.watch, verdict: Verdict::Sound };
        pass.skip_space();
        pass.require_object()?;
        loop {
            if pass.value(&mut self.stack, self.depth_max)? {
                continue;
            }
            if !pass.after_value(&mut self.stack)? {
                return Ok(pass.verdict);
            }
        }
    }
}

/// The state of one scan.
struct Pass<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The key of the latest member, without quotes: of all values that matter, the one they stand under. None where it
    /// is written with escapes, and so may be any key.
    key: Option<&'a [u8]>,
    /// Whether a string since the latest key began holds escapes.
    escaped: bool,
    watch: &'a Watch,
    verdict: Verdict,
}

impl<'a> Pass<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn flaw(&self, what: &'static str) -> Flaw {
        let what = if self.at < self.bytes.len() { what } else { "unexpected end" };
        syntax(what, self.at)
    }

    fn require_object(&self) -> Result<(), Flaw> {
        if self.bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(syntax("a byte order mark before the value", 0));
        }
        Err(match self.peek() {
            Some(b'{') => return Ok(()),
            Some(b'[') => Flaw::NotAnObject("an array"),
            Some(b'"') => Flaw::NotAnObject("a string"),
            Some(b'-' | b'0'..=b'9') => Flaw::NotAnObject("a number"),
            _ if self.bytes.get(self.at..) == Some(b"null") => Flaw::NotAnObject("null"),
            _ => self.flaw("expected an object"),
        })
    }

    /// Reads a scalar, an empty container, or into a container; true when a value follows.
    #[inline]
    fn value(&mut self, stack: &mut Vec<Container>, depth_max: usize) -> Result<bool, Flaw> {
        match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                if self.verdict == Verdict::Sound && self.watch.suspects_text(self.key, text) {
                    self.verdict = Verdict::Suspect;
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(open @ (b'{' | b'[')) => {
                if stack.len() >= depth_max {
                    return Err(Flaw::TooDeep);
                }
                self.at += 1;
                self.skip_space();
                let (container, close) =
                    if open == b'{' { (Container::Object, b'}') } else { (Container::Array, b']') };
                if self.peek() == Some(close) {
                    self.at += 1;
                    return Ok(false);
                }
                stack.push(container);
                if container == Container::Object {
                    self.member()?;
                }
                return Ok(true);
            }
            Some(b't') => self.literal(b"true")?,
            Some(b'f') => self.literal(b"false")?,
            Some(b'n') => self.literal(b"null")?,
            _ => return Err(self.flaw("expected a value")),
        }
        Ok(false)
    }

    /// Reads commas and closing brackets up to the next value; false at the end of the document.
    #[inline]
    fn after_value(&mut self, stack: &mut Vec<Container>) -> Result<bool, Flaw> {
        loop {
            self.skip_space();
            match (stack.last(), self.peek()) {
                (None, None) => return Ok(false),
                (None, Some(_)) => return Err(self.flaw("more than one value")),
                (Some(Container::Object), Some(b',')) => {
                    self.at += 1;
                    self.skip_space();
                    self.member()?;
                    return Ok(true);
                }
                (Some(Container::Array), Some(b',')) => {
                    self.at += 1;
                    self.skip_space();
                    return Ok(true);
                }
                (Some(Container::Object), Some(b'}')) | (Some(Container::Array), Some(b']')) => {
                    self.at += 1;
                    stack.pop();
                }
                (Some(Container::Object), _) => return Err(self.flaw("expected ',' or '}'")),
                (Some(Container::Array), _) => return Err(self.flaw("expected ',' or ']'")),
            }
        }
    }

    /// Reads a key and its colon.
    #[inline]
    fn member(&mut self) -> Result<(), Flaw> {
        if self.peek() != Some(b'"') {
            return Err(self.flaw("expected a key in quotes"));
        }
        self.escaped = false;
        let key = self.string()?;
        self.key = (!self.escaped).then_some(key);
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.flaw("expected ':'"));
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// Reads a string and returns what stands between its quotes.
    #[inline]
    fn string(&mut self) -> Result<&'a [u8], Flaw> {
        self.at += 1;
        let start = self.at;
        loop {
            self.at += plain_length(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    let text = self.bytes.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.flaw("a control character in a string")),
            }
        }
    }

    #[cold]
    fn escape(&mut self) -> Result<(), Flaw> {
        self.escaped = true;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => match self.code_unit()? {
                0xd800..=0xdbff => {
                    let paired = self.peek() == Some(b'\\') && self.bytes.get(self.at + 1) == Some(&b'u');
                    self.at += usize::from(paired);
                    if !paired || !(0xdc00..=0xdfff).contains(&self.code_unit()?) {
                        return Err(self.flaw("an unpaired surrogate in a string"));
                    }
                }
                0xdc00..=0xdfff => return Err(self.flaw("an unpaired surrogate in a string")),
                _ => {}
            },
            _ => return Err(self.flaw("an unknown escape in a string")),
        }
        Ok(())
    }

    /// Reads `u` and four hexadecimal digits.
    fn code_unit(&mut self) -> Result<u32, Flaw> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.flaw("expected four hexadecimal digits"))?;
        }
        self.at += 1;
        Ok(unit)
    }

    #[inline]
    fn number(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let leading_zero = self.peek() == Some(b'0');
        let whole = self.digits()?;
        if leading_zero && whole > 1 {
            return Err(syntax("a number with a leading zero", start));
        }
        let mut number = Number { length: whole, whole, fraction: 0, exponent: 0, grows: true };
        if self.peek() == Some(b'.') {
            self.at += 1;
            number.fraction = self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if let Some(sign @ (b'+' | b'-')) = self.peek() {
                self.at += 1;
                number.grows = sign == b'+';
            }
            number.exponent = self.digits()?;
        }
        number.length = self.at - start;
        if self.verdict == Verdict::Sound && self.watch.suspects_number(self.key, number) {
            self.verdict = Verdict::Suspect;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<usize, Flaw> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.flaw("expected a digit")) } else { Ok(self.at - start) }
    }

    #[inline]
    fn literal(&mut self, word: &[u8]) -> Result<(), Flaw> {
        if !self.bytes.get(self.at..).unwrap_or_default().starts_with(word) {
            return Err(self.flaw("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }
}

fn syntax(what: &'static str, at: usize) -> Flaw {
    Flaw::Syntax { what, at }
}

/// Returns how many bytes stand before the first quote, backslash or control character.
///
/// Eight bytes at a time: in a word of bytes, `(x - 0x01..) & !x & 0x80..` has the top bit of every zero byte set (and
/// perhaps of bytes after the first one, which do not matter here).
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let hits = control | zero_bytes(word ^ (ONES * u64::from(b'"'))) | zero_bytes(word ^ (ONES * u64::from(b'\\')));
        if hits != 0 {
            // trailing_zeros of a 64-bit word is below 64, so the cast keeps it.
            return index * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}
