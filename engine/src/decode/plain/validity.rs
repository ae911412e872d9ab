//! Which values of a column are there: nothing is kept while all are, and a column that must not hold nulls takes none.

use arrow::array::NullBufferBuilder;
use arrow::buffer::NullBuffer;

use super::NotPlain;

/// The nulls of a column under construction.
#[derive(Debug)]
pub(super) struct Validity {
    is_nullable: bool,
    valid: NullBufferBuilder,
}

impl Validity {
    /// Returns the nulls of an empty column.
    pub(super) fn new(is_nullable: bool) -> Self {
        Self { is_nullable, valid: NullBufferBuilder::new(0) }
    }

    /// Notes a value.
    #[inline]
    pub(super) fn value(&mut self) {
        if self.is_nullable {
            self.valid.append_non_null();
        }
    }

    /// Notes a null.
    ///
    /// # Errors
    /// `NotPlain` when the column must not hold one.
    #[inline]
    pub(super) fn null(&mut self) -> Result<(), NotPlain> {
        if !self.is_nullable {
            return Err(NotPlain);
        }
        self.valid.append_null();
        Ok(())
    }

    /// Notes a place where the value around it is null: null if the column knows nulls.
    pub(super) fn masked(&mut self) {
        if self.is_nullable {
            self.valid.append_null();
        }
    }

    /// Forgets the values from the one at `n_values` on.
    pub(super) fn truncate(&mut self, n_values: usize) {
        self.valid.truncate(n_values);
    }

    /// Returns the nulls, if there are any, and begins anew.
    pub(super) fn finish(&mut self) -> Option<NullBuffer> {
        self.valid.finish().filter(|nulls| nulls.null_count() > 0)
    }
}
