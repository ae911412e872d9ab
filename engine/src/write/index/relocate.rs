//! Rows that have another place after a compaction: the entries of the index go with them.

use super::{KeyIndex, RowPlace};

impl KeyIndex {
    /// Moves every entry whose row `place_of` gives another place to, in one pass over all entries: what compaction calls
    /// when its commit has landed. A row that was deleted meanwhile stays where it is; its new place must be deleted, too.
    ///
    /// The files of the new places must be [inserted](Self::insert_file) before, and those of the old ones
    /// [removed](Self::remove_file) after.
    pub fn relocate(&mut self, place_of: &impl Fn(RowPlace) -> Option<RowPlace>) {
        let files = &self.files;
        let lives = |place: RowPlace| files.is_live(place);
        let moved = |place: RowPlace| place_of(place).filter(|to| lives(place) && lives(*to));
        for shard in &mut self.shards {
            self.n_entries += shard.open(&lives).relocate(&moved, &lives);
        }
        let doubles: Vec<RowPlace> = self.doubles.iter().filter_map(&moved).collect();
        for place in doubles {
            self.doubles.push(place);
        }
        self.epoch += 1;
    }
}
