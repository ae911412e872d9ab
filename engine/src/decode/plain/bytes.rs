//! Columns of strings and of bytes: one buffer for all values, and where each ends.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::error::ArrowError;

use super::cursor::Cursor;
use super::validity::Validity;
use super::{Column, NotPlain};

/// The most bytes that are made room for ahead: beyond, growing costs little beside what fills them.
const RESERVED_BYTES_MAX: usize = 64 << 20;

/// Values of any length, end to end.
#[derive(Debug)]
struct Pieces {
    content: Vec<u8>,
    /// Where each value begins, and at last where the next one will.
    offsets: Vec<i32>,
    validity: Validity,
    /// How many bytes a value had on average when values were last handed on.
    value_bytes_expected: usize,
}

impl Pieces {
    fn new(validity: Validity) -> Self {
        Self { content: Vec::new(), offsets: vec![0], validity, value_bytes_expected: 0 }
    }

    /// Ends the value that was appended to the content.
    #[inline]
    fn end_value(&mut self) -> Result<(), NotPlain> {
        self.end_piece()?;
        self.validity.value();
        Ok(())
    }

    #[inline]
    fn end_piece(&mut self) -> Result<(), NotPlain> {
        // Beyond 2 GiB: the judge takes the document, and putting its row to the others says what is wrong.
        self.offsets.push(i32::try_from(self.content.len()).map_err(|_| NotPlain)?);
        Ok(())
    }

    fn null(&mut self) -> Result<(), NotPlain> {
        self.end_piece()?;
        self.validity.null()
    }

    fn masked(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
        self.validity.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        self.offsets.truncate(n_values + 1);
        let end = self.offsets.last().and_then(|end| usize::try_from(*end).ok());
        self.content.truncate(end.unwrap_or(0));
        self.validity.truncate(n_values);
    }

    fn reserve(&mut self, n_values: usize) {
        self.offsets.reserve(n_values);
        self.content.reserve(n_values.saturating_mul(self.value_bytes_expected).min(RESERVED_BYTES_MAX));
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        let n_values = self.offsets.len() - 1;
        self.value_bytes_expected = self.content.len().div_ceil(n_values.max(1));
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let content = std::mem::take(&mut self.content);
        (OffsetBuffer::new(offsets.into()), Buffer::from_vec(content), self.validity.finish())
    }
}

/// A column of strings.
#[derive(Debug)]
pub(super) struct Texts(Pieces);

impl Texts {
    /// Returns an empty column.
    pub(super) fn new(validity: Validity) -> Self {
        Self(Pieces::new(validity))
    }
}

impl Column for Texts {
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return self.0.null();
        }
        cursor.text()?.append_to(&mut self.0.content)?;
        self.0.end_value()
    }

    fn take_null(&mut self) -> Result<(), NotPlain> {
        self.0.null()
    }

    fn take_masked(&mut self) {
        self.0.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        self.0.truncate(n_values);
    }

    fn reserve(&mut self, n_values: usize) {
        self.0.reserve(n_values);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let (offsets, content, nulls) = self.0.finish();
        Ok(Arc::new(StringArray::try_new(offsets, content, nulls)?))
    }
}

/// A column of bytes that are written as hexadecimal digits.
#[derive(Debug)]
pub(super) struct Hex(Pieces);

impl Hex {
    /// Returns an empty column.
    pub(super) fn new(validity: Validity) -> Self {
        Self(Pieces::new(validity))
    }
}

impl Column for Hex {
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return self.0.null();
        }
        // A backslash is no digit, so escapes are refused with everything else.
        let (pairs, odd) = cursor.text()?.raw.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(NotPlain);
        }
        self.0.content.reserve(pairs.len());
        for [high, low] in pairs {
            self.0.content.push((hex_digit(*high)? << 4) | hex_digit(*low)?);
        }
        self.0.end_value()
    }

    fn take_null(&mut self) -> Result<(), NotPlain> {
        self.0.null()
    }

    fn take_masked(&mut self) {
        self.0.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        self.0.truncate(n_values);
    }

    fn reserve(&mut self, n_values: usize) {
        self.0.reserve(n_values);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let (offsets, content, nulls) = self.0.finish();
        Ok(Arc::new(BinaryArray::try_new(offsets, content, nulls)?))
    }
}

#[inline]
fn hex_digit(byte: u8) -> Result<u8, NotPlain> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(NotPlain),
    }
}
