//! Columns of booleans, and of everything that has a fixed width.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type};
use arrow::error::ArrowError;

use super::cursor::Cursor;
use super::validity::Validity;
use super::{Column, NotPlain};

/// How a value of fixed width is written.
pub(super) trait Scalar: fmt::Debug + Send {
    /// What it becomes.
    type Arrow: ArrowPrimitiveType;

    /// Reads the value that comes next; it is not null.
    fn read(&self, cursor: &mut Cursor<'_>) -> Result<<Self::Arrow as ArrowPrimitiveType>::Native, NotPlain>;
}

/// A column of fixed width.
pub(super) struct Scalars<S: Scalar> {
    scalar: S,
    data_type: DataType,
    values: Vec<<S::Arrow as ArrowPrimitiveType>::Native>,
    validity: Validity,
}

impl<S: Scalar> fmt::Debug for Scalars<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Scalars").field("scalar", &self.scalar).finish_non_exhaustive()
    }
}

impl<S: Scalar> Scalars<S> {
    /// Returns an empty column of `data_type`.
    pub(super) fn new(scalar: S, data_type: DataType, validity: Validity) -> Self {
        Self { scalar, data_type, values: Vec::new(), validity }
    }
}

impl<S: Scalar> Column for Scalars<S> {
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return self.take_null();
        }
        self.values.push(self.scalar.read(cursor)?);
        self.validity.value();
        Ok(())
    }

    fn take_null(&mut self) -> Result<(), NotPlain> {
        self.values.push(Default::default());
        self.validity.null()
    }

    fn take_masked(&mut self) {
        self.values.push(Default::default());
        self.validity.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        self.values.truncate(n_values);
        self.validity.truncate(n_values);
    }

    fn reserve(&mut self, n_values: usize) {
        self.values.reserve(n_values);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let values = std::mem::take(&mut self.values);
        let array = PrimitiveArray::<S::Arrow>::try_new(values.into(), self.validity.finish())?;
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }
}

/// An integer.
pub(super) struct Whole<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Whole<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Whole")
    }
}

impl<T> Default for Whole<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: ArrowPrimitiveType> Scalar for Whole<T>
where
    T::Native: TryFrom<i64>,
{
    type Arrow = T;

    #[inline]
    fn read(&self, cursor: &mut Cursor<'_>) -> Result<T::Native, NotPlain> {
        T::Native::try_from(cursor.maybe_quoted_integer()?).map_err(|_| NotPlain)
    }
}

/// A FLOAT.
#[derive(Debug)]
pub(super) struct Single;

impl Scalar for Single {
    type Arrow = Float32Type;

    #[inline]
    fn read(&self, cursor: &mut Cursor<'_>) -> Result<f32, NotPlain> {
        match no_number(cursor) {
            // What is no number is the same in both widths, so the cast keeps it.
            Some(value) => Ok(value as f32),
            None => cursor.maybe_quoted_number()?.single(),
        }
    }
}

/// A DOUBLE.
#[derive(Debug)]
pub(super) struct Double;

impl Scalar for Double {
    type Arrow = Float64Type;

    #[inline]
    fn read(&self, cursor: &mut Cursor<'_>) -> Result<f64, NotPlain> {
        match no_number(cursor) {
            Some(value) => Ok(value),
            None => cursor.maybe_quoted_number()?.double(),
        }
    }
}

/// Passes the word in quotes for a float that is no number, if one comes next.
#[inline]
fn no_number(cursor: &mut Cursor<'_>) -> Option<f64> {
    const WORDS: [(&[u8], f64); 3] =
        [(b"\"NaN\"", f64::NAN), (b"\"Infinity\"", f64::INFINITY), (b"\"-Infinity\"", f64::NEG_INFINITY)];
    if cursor.peek() != Some(b'"') {
        return None;
    }
    WORDS.iter().find(|(word, _)| cursor.pass(word)).map(|(_, value)| *value)
}

/// A DECIMAL.
#[derive(Debug)]
pub(super) struct Decimal {
    scale: u32,
    /// What the digits without the point stay below.
    limit: i128,
}

impl Decimal {
    /// Returns the decimal of at most `precision` digits, `scale` of them after the point.
    pub(super) fn new(precision: u8, scale: i8) -> Option<Self> {
        Some(Self { scale: u32::try_from(scale).ok()?, limit: 10_i128.checked_pow(precision.into())? })
    }
}

impl Scalar for Decimal {
    type Arrow = Decimal128Type;

    #[inline]
    fn read(&self, cursor: &mut Cursor<'_>) -> Result<i128, NotPlain> {
        cursor.maybe_quoted_number()?.decimal(self.scale, self.limit)
    }
}

/// A column of booleans.
#[derive(Debug)]
pub(super) struct Booleans {
    values: BooleanBufferBuilder,
    validity: Validity,
}

impl Booleans {
    /// Returns an empty column.
    pub(super) fn new(validity: Validity) -> Self {
        Self { values: BooleanBufferBuilder::new(0), validity }
    }
}

impl Column for Booleans {
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return self.take_null();
        }
        self.values.append(cursor.boolean()?);
        self.validity.value();
        Ok(())
    }

    fn take_null(&mut self) -> Result<(), NotPlain> {
        self.values.append(false);
        self.validity.null()
    }

    fn take_masked(&mut self) {
        self.values.append(false);
        self.validity.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        self.values.truncate(n_values);
        self.validity.truncate(n_values);
    }

    fn reserve(&mut self, n_values: usize) {
        self.values.reserve(n_values);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(BooleanArray::new(self.values.finish(), self.validity.finish())))
    }
}
