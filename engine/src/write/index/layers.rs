//! Changes that have gathered over tables that a clone shared.

use super::shard::Shard;
use super::{KeyIndex, RowPlace};

impl KeyIndex {
    /// Tells whether there are any.
    pub fn has_layers(&self) -> bool {
        self.shards.iter().any(Shard::has_layer)
    }

    /// Merges them into the tables of all shards that nobody else has any more. Without this, a shard merges its own when it
    /// is changed the next time.
    pub fn merge_layers(&mut self) {
        let (files, has_dead) = (&self.files, self.has_dead());
        let lives = |place: RowPlace| !has_dead || files.is_live(place);
        for shard in &mut self.shards {
            shard.open(&lives);
        }
    }
}
