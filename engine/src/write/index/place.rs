//! Where a row is: a file, by its number in the index, and the row's number in the file.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names a data file within the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileOrdinal(pub(super) u32);

/// The place of a row: the file, and the row's number in it from 0, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RowPlace(u64);

impl RowPlace {
    /// No row. No file has this ordinal: the index refuses the last one.
    pub const NONE: Self = Self(u64::MAX);

    /// Returns the place of `row` in the file `ordinal`.
    pub fn new(ordinal: FileOrdinal, row: u32) -> Self {
        Self(u64::from(ordinal.0) << 32 | u64::from(row))
    }

    /// Returns the file.
    pub fn file(self) -> FileOrdinal {
        FileOrdinal((self.0 >> 32) as u32)
    }

    /// Returns the row.
    pub fn row(self) -> u32 {
        self.0 as u32
    }

    /// Returns the place as snapshots hold it: the file in the high half, the row in the low one.
    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the place that snapshots hold as `bits`.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Tells whether this is the place of a row at all.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}
