//! The members of objects to columns: which member is which field, which are missing, which are none of ours.
//!
//! Documents of a topic nearly all have the same members in the same order, written alike. So each field remembers its
//! key as it was last written (quotes, colon and space included) and which field came after it. The next document is
//! expected to go the same way: one comparison of bytes tells. Where it does not, the key is looked up, and the new way
//! is remembered. A prediction costs nothing but time when it is wrong: a key is only taken for a field when its bytes
//! are those of a sound key that named this field before.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::Fields;
use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::cursor::Cursor;
use super::validity::Validity;
use super::{Column, NotPlain, column_for};

/// The most bytes of space and punctuation around a key that are worth remembering.
const AROUND_KEY_MAX: usize = 16;

/// The columns of an object's fields.
#[derive(Debug)]
pub(super) struct Members {
    fields: Vec<Member>,
    indices: HashMap<Box<[u8]>, usize>,
    /// The field that is expected first.
    first: Option<usize>,
    n_objects: usize,
    /// A key without its escapes.
    unescaped: Vec<u8>,
}

/// The column of one field.
#[derive(Debug)]
struct Member {
    column: Box<dyn Column>,
    /// The objects that it has a value for; one less than there are where the member has not come yet.
    n_values: usize,
    /// The key as it was last written, up to its value.
    written: Vec<u8>,
    /// The field that came next.
    next: Option<usize>,
}

impl Members {
    /// Returns empty columns for `fields`, or none where there is no column for a type.
    pub(super) fn new(fields: &Fields) -> Option<Self> {
        let mut indices = HashMap::new();
        let mut members = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            // Of two fields of one name the first is filled, as arrow-json has it.
            indices.entry(field.name().as_bytes().into()).or_insert(index);
            members.push(Member { column: column_for(field)?, n_values: 0, written: Vec::new(), next: None });
        }
        Some(Self { fields: members, indices, first: None, n_objects: 0, unescaped: Vec::new() })
    }

    /// Returns how many objects the columns have values of.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.n_objects
    }

    /// Takes the object that comes next.
    ///
    /// # Errors
    /// `NotPlain` when it is not plain; columns may then hold values of it.
    pub(super) fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        let n_values = self.n_objects + 1;
        let mut n_taken = 0;
        let mut before = None;
        let mut goes_on = cursor.enter(b'{', b'}')?;
        while goes_on {
            let field = match self.expected(before, cursor) {
                Some(expected) => Some(expected),
                None => self.look_up(before, cursor)?,
            };
            match field.and_then(|index| self.fields.get_mut(index)) {
                Some(member) if member.n_values == n_values => return Err(NotPlain),
                Some(member) => {
                    member.column.take(cursor)?;
                    member.n_values = n_values;
                    n_taken += 1;
                    before = field;
                }
                None => cursor.skip_value()?,
            }
            goes_on = cursor.goes_on(b'}')?;
        }
        if n_taken < self.fields.len() {
            for member in self.fields.iter_mut().filter(|member| member.n_values < n_values) {
                member.column.take_null()?;
                member.n_values = n_values;
            }
        }
        self.n_objects = n_values;
        Ok(())
    }

    /// Passes the key of the field that is expected after `before`, if it comes next, and returns the field.
    #[inline]
    fn expected(&self, before: Option<usize>, cursor: &mut Cursor<'_>) -> Option<usize> {
        let expected = match before {
            Some(before) => self.fields.get(before)?.next?,
            None => self.first?,
        };
        if !cursor.pass(&self.fields.get(expected)?.written) {
            return None;
        }
        cursor.skip_space();
        Some(expected)
    }

    /// Passes the key that comes next and returns the field that it names, if one, to be expected the next time.
    fn look_up(&mut self, before: Option<usize>, cursor: &mut Cursor<'_>) -> Result<Option<usize>, NotPlain> {
        let from = cursor.rest();
        let key = cursor.key()?;
        if key.is_escaped {
            self.unescaped.clear();
            key.append_to(&mut self.unescaped)?;
            return Ok(self.indices.get(self.unescaped.as_slice()).copied());
        }
        let Some(index) = self.indices.get(key.raw).copied() else { return Ok(None) };
        let written = from.get(..from.len() - cursor.rest().len()).unwrap_or_default();
        if let Some(member) = self.fields.get_mut(index).filter(|_| written.len() <= key.raw.len() + AROUND_KEY_MAX) {
            member.written.clear();
            member.written.extend_from_slice(written);
            match before.and_then(|before| self.fields.get_mut(before)) {
                Some(before) => before.next = Some(index),
                None => self.first = Some(index),
            }
        }
        Ok(Some(index))
    }

    /// Adds an object to stand where the value around it is null.
    fn take_masked(&mut self) {
        self.n_objects += 1;
        for member in &mut self.fields {
            member.column.take_masked();
            member.n_values = self.n_objects;
        }
    }

    /// Drops all objects, whole or in part, from the one at `n_objects` on.
    pub(super) fn truncate(&mut self, n_objects: usize) {
        self.n_objects = n_objects;
        for member in &mut self.fields {
            member.column.truncate(n_objects);
            member.n_values = n_objects;
        }
    }

    /// Makes room for `n_objects` more.
    pub(super) fn reserve(&mut self, n_objects: usize) {
        for member in &mut self.fields {
            member.column.reserve(n_objects);
        }
    }

    /// Returns the columns and begins anew.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.n_objects = 0;
        let finish = |member: &mut Member| {
            member.n_values = 0;
            member.column.finish()
        };
        self.fields.iter_mut().map(finish).collect()
    }
}

/// A column of structs.
#[derive(Debug)]
pub(super) struct Structs {
    fields: Fields,
    members: Members,
    validity: Validity,
}

impl Structs {
    /// Returns an empty column of structs of `fields`.
    pub(super) fn new(fields: &Fields, validity: Validity) -> Option<Self> {
        Some(Self { fields: fields.clone(), members: Members::new(fields)?, validity })
    }
}

impl Column for Structs {
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return self.take_null();
        }
        self.members.take(cursor)?;
        self.validity.value();
        Ok(())
    }

    fn take_null(&mut self) -> Result<(), NotPlain> {
        self.members.take_masked();
        self.validity.null()
    }

    fn take_masked(&mut self) {
        self.members.take_masked();
        self.validity.masked();
    }

    fn truncate(&mut self, n_values: usize) {
        self.members.truncate(n_values);
        self.validity.truncate(n_values);
    }

    fn reserve(&mut self, n_values: usize) {
        self.members.reserve(n_values);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let n_values = self.members.len();
        let (arrays, nulls) = (self.members.finish()?, self.validity.finish());
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), arrays, nulls, n_values)?))
    }
}
