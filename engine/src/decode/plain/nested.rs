//! Columns of arrays and of maps: a column of all elements or entries, and where those of each value end.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;

use super::cursor::Cursor;
use super::validity::Validity;
use super::{Column, NotPlain, column_for};

/// Where the items of each value end.
#[derive(Debug)]
struct Ends {
    /// Where the items of each value begin, and at last where those of the next one will.
    offsets: Vec<i32>,
    /// All items so far, those of an unfinished value included.
    n_items: usize,
    validity: Validity,
}

impl Ends {
    fn new(validity: Validity) -> Self {
        Self { offsets: vec![0], n_items: 0, validity }
    }

    fn value(&mut self) -> Result<(), NotPlain> {
        self.end()?;
        self.validity.value();
        Ok(())
    }

    fn null(&mut self) -> Result<(), NotPlain> {
        self.end()?;
        self.validity.null()
    }

    fn end(&mut self) -> Result<(), NotPlain> {
        self.offsets.push(i32::try_from(self.n_items).map_err(|_| NotPlain)?);
        Ok(())
    }

    fn masked(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
        self.validity.masked();
    }

    /// Forgets the values from the one at `n_values` on and returns how many items are left.
    fn truncate(&mut self, n_values: usize) -> usize {
        self.offsets.truncate(n_values + 1);
        self.validity.truncate(n_values);
        self.n_items = self.offsets.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        self.n_items
    }

    /// Returns the offsets and begins anew; the nulls stay.
    fn finish(&mut self) -> OffsetBuffer<i32> {
        self.n_items = 0;
        OffsetBuffer::new(std::mem::replace(&mut self.offsets, vec![0]).into())
    }
}

/// A column of arrays.
#[derive(Debug)]
pub(super) struct Lists {
    element: FieldRef,
    elements: Box<dyn Column>,
    ends: Ends,
}

impl Lists {
    /// Returns an empty column of arrays of `element`.
    pub(super) fn new(element: &FieldRef, validity: Validity) -> Option<Self> {
        Some(Self { element: FieldRef::clone(element), elements: column_for(element)?, ends: Ends::new(validity) })
    }
}

impl Column for Lists {
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return self.ends.null();
        }
        let mut goes_on = cursor.enter(b'[', b']')?;
        while goes_on {
            self.elements.take(cursor)?;
            self.ends.n_items += 1;
            goes_on = cursor.goes_on(b']')?;
        }
        self.ends.value()
    }

    fn take_null(&mut self) -> Result<(), NotPlain> {
        self.ends.null()
    }

    fn take_masked(&mut self) {
        self.ends.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        self.elements.truncate(self.ends.truncate(n_values));
    }

    fn reserve(&mut self, n_values: usize) {
        self.ends.offsets.reserve(n_values);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let (offsets, nulls) = (self.ends.finish(), self.ends.validity.finish());
        Ok(Arc::new(ListArray::try_new(FieldRef::clone(&self.element), offsets, self.elements.finish()?, nulls)?))
    }
}

/// A column of maps.
#[derive(Debug)]
pub(super) struct Maps {
    entry: FieldRef,
    keys: Box<dyn Column>,
    values: Box<dyn Column>,
    ends: Ends,
}

impl Maps {
    /// Returns an empty column of maps of `entry`, a struct of key and value.
    pub(super) fn new(entry: &FieldRef, validity: Validity) -> Option<Self> {
        let DataType::Struct(fields) = entry.data_type() else { return None };
        let [key, value] = fields.as_ref() else { return None };
        let (keys, values) = (column_for(key)?, column_for(value)?);
        Some(Self { entry: FieldRef::clone(entry), keys, values, ends: Ends::new(validity) })
    }

    fn take_entry(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        // A key is a string, and a column that takes values from strings takes it as one of them.
        if cursor.peek() != Some(b'"') {
            return Err(NotPlain);
        }
        self.keys.take(cursor)?;
        cursor.skip_space();
        cursor.require(b':')?;
        cursor.skip_space();
        self.values.take(cursor)
    }
}

impl Column for Maps {
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return self.ends.null();
        }
        let mut goes_on = cursor.enter(b'{', b'}')?;
        while goes_on {
            self.take_entry(cursor)?;
            self.ends.n_items += 1;
            goes_on = cursor.goes_on(b'}')?;
        }
        self.ends.value()
    }

    fn take_null(&mut self) -> Result<(), NotPlain> {
        self.ends.null()
    }

    fn take_masked(&mut self) {
        self.ends.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        let n_items = self.ends.truncate(n_values);
        self.keys.truncate(n_items);
        self.values.truncate(n_items);
    }

    fn reserve(&mut self, n_values: usize) {
        self.ends.offsets.reserve(n_values);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let n_items = self.ends.n_items;
        let (offsets, nulls) = (self.ends.finish(), self.ends.validity.finish());
        let arrays = vec![self.keys.finish()?, self.values.finish()?];
        let DataType::Struct(fields) = self.entry.data_type() else {
            return Err(ArrowError::SchemaError("the entries of a map are a struct".to_owned()));
        };
        let entries = StructArray::try_new_with_length(fields.clone(), arrays, None, n_items)?;
        Ok(Arc::new(MapArray::try_new(FieldRef::clone(&self.entry), offsets, entries, nulls, false)?))
    }
}
