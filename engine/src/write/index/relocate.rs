//! Rows that have another place after a compaction: the entries of the index go with them.

use super::{KeyIndex, Place, RowPlace};

impl KeyIndex {
    /// Moves every entry whose row `place_of` gives another place to. One pass over all entries.
    pub fn move_rows(&mut self, place_of: impl Fn(RowPlace) -> Option<RowPlace>) {
        for entry in self.entries.values_mut() {
            if let Place::Row(place) = &mut entry.place
                && let Some(moved) = place_of(*place)
            {
                *place = moved;
            }
        }
        for place in &mut self.doubles {
            if let Some(moved) = place_of(*place) {
                *place = moved;
            }
        }
    }
}
