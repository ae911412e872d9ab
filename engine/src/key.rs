//! Keys in the form that the engine compares them by: one canonical form a value, a column of forms a batch.
//!
//! | key | form |
//! |---|---|
//! | fixed-width columns of 8 bytes together, at most | narrow: a `u64` |
//! | fixed-width columns of 9 to 16 bytes together | wide: a `u128` |
//! | one string or binary column, a value of at most 7 bytes | narrow, its length in the highest byte |
//! | one string column, a UUID in its canonical text | wide: its 128 bits |
//! | anything else, and any key with a NULL | bytes |
//!
//! Two keys are equal when their forms are: a form is the whole key, never a digest of it. Each comes with a hash, which
//! only says where to look. Nothing is allocated a row but what goes into the arena of long keys.

mod hash;

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use hash::Hashing;

/// Makes [`Keys`] out of the key columns of one table.
#[derive(Debug)]
pub struct KeyForm {
    types: Vec<DataType>,
    layout: Layout,
    converter: RowConverter,
    hashing: Hashing,
}

/// How the values of a table's key become forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Narrow,
    Wide,
    Text,
    Binary,
    Rows,
}

/// The keys of a batch, each with its hash. Hashes differ from process to process, and agree within one.
#[derive(Debug, Clone)]
pub struct Keys {
    values: Values,
    hashes: Vec<u64>,
}

#[derive(Debug, Clone)]
enum Values {
    Narrow(Vec<u64>),
    Wide(Vec<u128>),
    Mixed { parts: Vec<Part>, arena: Arc<Vec<u8>> },
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Narrow(u64),
    Wide(u128),
    Bytes { start: usize, length: usize },
}

/// One key, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRef<'a> {
    /// A key in 64 bits.
    Narrow(u64),
    /// A key in 128 bits.
    Wide(u128),
    /// A key as bytes.
    Bytes(&'a [u8]),
}

impl KeyForm {
    /// Returns the form of keys of `types`.
    ///
    /// # Errors
    /// `Invalid` when a type cannot be compared.
    pub fn try_new(types: Vec<DataType>) -> Result<Self> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|cause| Error::invalid("a key column has a type that cannot be compared").with_source(cause))?;
        let width = types.iter().map(width).sum::<Option<usize>>();
        let layout = match (&types[..], width) {
            ([DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View], _) => Layout::Text,
            ([DataType::Binary | DataType::LargeBinary | DataType::BinaryView], _) => Layout::Binary,
            ([_, ..], Some(..=8)) => Layout::Narrow,
            ([_, ..], Some(..=16)) => Layout::Wide,
            _ => Layout::Rows,
        };
        Ok(Self { types, layout, converter, hashing: Hashing::of_process() })
    }

    /// Returns the types of the key columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Returns the keys that stand in `columns`, cast to the types of this form where they differ.
    ///
    /// # Errors
    /// `Data` when a value does not fit its type, or a decimal its precision; `Internal` when columns are missing.
    pub fn pack(&self, columns: &[ArrayRef]) -> Result<Keys> {
        if columns.len() != self.types.len() {
            return Err(Error::internal(format!("{} key columns where {} are known", columns.len(), self.types.len())));
        }
        let columns = columns
            .iter()
            .zip(&self.types)
            .map(|(column, wanted)| of_type(column, wanted))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(unreadable)?;
        let mut values = match self.layout {
            Layout::Narrow => Values::Narrow(narrow(&columns)?),
            Layout::Wide => Values::Wide(wide(&columns)?),
            Layout::Text | Layout::Binary => self.lone(&columns)?,
            Layout::Rows => self.rows(&columns)?,
        };
        if self.layout != Layout::Rows && columns.iter().any(|column| column.null_count() > 0) {
            values = self.with_nulls(values, &columns)?;
        }
        let hashes = self.hashing.hashes(&values);
        Ok(Keys { values, hashes })
    }

    /// Packs a single column of strings or bytes.
    fn lone(&self, columns: &[ArrayRef]) -> Result<Values> {
        if self.layout == Layout::Text {
            let column = cast(&columns[0], &DataType::LargeUtf8).map_err(unreadable)?;
            let texts = column.as_string::<i64>().iter().map(|text| text.unwrap_or_default().as_bytes());
            return Ok(of_bytes(texts, canonical_uuid));
        }
        let column = cast(&columns[0], &DataType::LargeBinary).map_err(unreadable)?;
        Ok(of_bytes(column.as_binary::<i64>().iter().map(Option::unwrap_or_default), |_| None))
    }

    fn rows(&self, columns: &[ArrayRef]) -> Result<Values> {
        let rows = self.converter.convert_columns(columns).map_err(unreadable)?;
        let mut arena = Vec::with_capacity(rows.size());
        let parts = rows.iter().map(|row| keep(&mut arena, row.data())).collect();
        Ok(Values::Mixed { parts, arena: Arc::new(arena) })
    }

    /// Puts the bytes of whole rows in the place of keys with a NULL, which only other writers leave behind.
    fn with_nulls(&self, values: Values, columns: &[ArrayRef]) -> Result<Values> {
        let rows = self.converter.convert_columns(columns).map_err(unreadable)?;
        let (mut parts, mut arena) = match values {
            Values::Narrow(keys) => (keys.into_iter().map(Part::Narrow).collect(), Vec::new()),
            Values::Wide(keys) => (keys.into_iter().map(Part::Wide).collect(), Vec::new()),
            Values::Mixed { parts, arena } => (parts, Arc::unwrap_or_clone(arena)),
        };
        for (index, (part, row)) in parts.iter_mut().zip(rows.iter()).enumerate() {
            if columns.iter().any(|column| column.is_null(index)) {
                *part = keep(&mut arena, row.data());
            }
        }
        Ok(Values::Mixed { parts, arena: Arc::new(arena) })
    }
}

impl Keys {
    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Returns the hash of each key.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Returns the key at `index`, which must be below [`len`](Self::len).
    #[inline]
    pub fn get(&self, index: usize) -> KeyRef<'_> {
        match &self.values {
            Values::Narrow(keys) => KeyRef::Narrow(keys[index]),
            Values::Wide(keys) => KeyRef::Wide(keys[index]),
            Values::Mixed { parts, arena } => parts[index].borrow(arena),
        }
    }

    /// Returns the keys at `indices`, in their order.
    #[must_use]
    pub fn take(&self, indices: &[u32]) -> Self {
        let Self { mut values, hashes } = self.arranged(indices);
        if let Values::Mixed { parts, arena } = &mut values {
            let mut kept = Vec::new();
            for part in parts {
                if let KeyRef::Bytes(bytes) = part.borrow(arena) {
                    *part = keep(&mut kept, bytes);
                }
            }
            *arena = Arc::new(kept);
        }
        Self { values, hashes }
    }

    /// Returns the keys at `indices`, in their order, for a moment: the bytes of long ones are shared, whether all are wanted
    /// or few.
    pub(crate) fn arranged(&self, indices: &[u32]) -> Self {
        let places = || indices.iter().map(|index| *index as usize);
        let values = match &self.values {
            Values::Narrow(keys) => Values::Narrow(places().map(|place| keys[place]).collect()),
            Values::Wide(keys) => Values::Wide(places().map(|place| keys[place]).collect()),
            Values::Mixed { parts, arena } => {
                Values::Mixed { parts: places().map(|place| parts[place]).collect(), arena: Arc::clone(arena) }
            }
        };
        Self { values, hashes: places().map(|place| self.hashes[place]).collect() }
    }

    /// Returns keys of any forms, hashed as this process does.
    pub fn of<'a>(keys: impl IntoIterator<Item = KeyRef<'a>>) -> Self {
        let mut arena = Vec::new();
        let parts = keys.into_iter().map(|key| match key {
            KeyRef::Narrow(key) => Part::Narrow(key),
            KeyRef::Wide(key) => Part::Wide(key),
            KeyRef::Bytes(bytes) => keep(&mut arena, bytes),
        });
        let parts = parts.collect();
        let values = Values::Mixed { parts, arena: Arc::new(arena) };
        let hashes = Hashing::of_process().hashes(&values);
        Self { values, hashes }
    }

    /// Returns the same keys, as if their hashes were `hashes`.
    #[cfg(test)]
    pub(crate) fn with_hashes(self, hashes: Vec<u64>) -> Self {
        Self { hashes, ..self }
    }
}

impl Part {
    fn borrow(self, arena: &[u8]) -> KeyRef<'_> {
        match self {
            Self::Narrow(key) => KeyRef::Narrow(key),
            Self::Wide(key) => KeyRef::Wide(key),
            Self::Bytes { start, length } => KeyRef::Bytes(&arena[start..start + length]),
        }
    }
}

impl KeyRef<'_> {
    /// Returns the hash that [`Keys`] has for this key in this process.
    pub fn hash(self, hashing: &KeyHashing) -> u64 {
        hashing.0.one(self)
    }
}

/// Hashes single keys as [`Keys`] does.
#[derive(Debug, Clone, Copy)]
pub struct KeyHashing(Hashing);

impl KeyHashing {
    /// Returns the hashing of this process.
    pub fn of_process() -> Self {
        Self(Hashing::of_process())
    }
}

/// Returns a column as `wanted`. A value that does not fit is an error: as NULL it would be another key.
fn of_type(column: &ArrayRef, wanted: &DataType) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    if column.data_type() == wanted { Ok(Arc::clone(column)) } else { cast_with_options(column, wanted, &options) }
}

fn unreadable(cause: arrow::error::ArrowError) -> Error {
    Error::data("cannot read keys").with_source(cause)
}

fn keep(arena: &mut Vec<u8>, bytes: &[u8]) -> Part {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    Part::Bytes { start, length: bytes.len() }
}

/// Returns the forms of values as bytes, of which `wide` makes some wide.
fn of_bytes<'a>(values: impl Iterator<Item = &'a [u8]>, wide: impl Fn(&[u8]) -> Option<u128>) -> Values {
    let mut arena = Vec::new();
    let parts = values.map(|value| match (short(value), wide(value)) {
        (Some(short), _) => Part::Narrow(short),
        (None, Some(bits)) => Part::Wide(bits),
        (None, None) => keep(&mut arena, value),
    });
    let parts = parts.collect();
    Values::Mixed { parts, arena: Arc::new(arena) }
}

/// Returns the bytes that a value of a fixed-width type takes in a key.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        // Every decimal of up to 18 digits fits into 64 bits.
        DataType::Decimal128(..=18, _) => Some(8),
        DataType::Boolean => Some(1),
        DataType::Decimal128(..) => Some(16),
        _ => data_type.primitive_width().filter(|width| *width <= 8),
    }
}

fn narrow(columns: &[ArrayRef]) -> Result<Vec<u64>> {
    let mut keys = Vec::new();
    for (place, column) in columns.iter().enumerate() {
        let bits = fixed_bits(column)?;
        if place == 0 {
            keys = bits;
            continue;
        }
        let shift = width(column.data_type()).unwrap_or_default() * 8;
        for (key, bits) in keys.iter_mut().zip(bits) {
            *key = (*key << shift) | bits;
        }
    }
    Ok(keys)
}

fn wide(columns: &[ArrayRef]) -> Result<Vec<u128>> {
    let mut keys = vec![0_u128; columns.first().map_or(0, |column| column.len())];
    for column in columns {
        if width(column.data_type()) == Some(16) {
            // The only column then: two of 16 bytes are no wide key.
            let data = column.to_data();
            let values = data.buffer::<i128>(0).iter().take(column.len());
            return Ok(values.map(|value| u128::from_ne_bytes(value.to_ne_bytes())).collect());
        }
        let shift = width(column.data_type()).unwrap_or_default() * 8;
        for (key, bits) in keys.iter_mut().zip(fixed_bits(column)?) {
            *key = (*key << shift) | u128::from(bits);
        }
    }
    Ok(keys)
}

/// Returns the bits of each value of a column of up to 8 bytes a value, in the low bits.
fn fixed_bits(column: &ArrayRef) -> Result<Vec<u64>> {
    let (data, n_rows) = (column.to_data(), column.len());
    if let DataType::Boolean = column.data_type() {
        return Ok(column.as_boolean().values().iter().map(u64::from).collect());
    }
    if let DataType::Decimal128(..) = column.data_type() {
        let nulls = column.nulls();
        let whole = data.buffer::<i128>(0).iter().take(n_rows).enumerate().map(|(index, value)| {
            let is_null = nulls.is_some_and(|nulls| nulls.is_null(index));
            let value = if is_null { 0 } else { *value };
            i64::try_from(value).map(i64::cast_unsigned).map_err(|_| {
                Error::data(format!("decimal key {value} has more digits than its type {}", column.data_type()))
            })
        });
        return whole.collect();
    }
    Ok(match width(column.data_type()) {
        Some(1) => data.buffer::<u8>(0).iter().take(n_rows).map(|value| u64::from(*value)).collect(),
        Some(2) => data.buffer::<u16>(0).iter().take(n_rows).map(|value| u64::from(*value)).collect(),
        Some(4) => data.buffer::<u32>(0).iter().take(n_rows).map(|value| u64::from(*value)).collect(),
        Some(8) => data.buffer::<u64>(0).iter().take(n_rows).copied().collect(),
        _ => return Err(Error::internal(format!("keys of type {} have no fixed width", column.data_type()))),
    })
}

/// Returns a value of at most 7 bytes with its length before it.
fn short(value: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes[0] = u8::try_from(value.len()).ok().filter(|length| *length < 8)?;
    bytes[1..=value.len()].copy_from_slice(value);
    Some(u64::from_be_bytes(bytes))
}

/// Returns the bits of a UUID in lower case with its four hyphens. Any other text of the same UUID is another key.
fn canonical_uuid(text: &[u8]) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    let mut bits = 0_u128;
    for (index, byte) in text.iter().enumerate() {
        if matches!(index, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        bits = (bits << 4) | u128::from(digit);
    }
    Some(bits)
}

#[cfg(test)]
mod tests;
