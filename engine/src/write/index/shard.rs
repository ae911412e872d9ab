//! One part of the index: the keys whose hashes begin with the same bits.
//!
//! A clone, as a snapshot takes it, shares the tables. While it does, what changes gathers in small tables over the shared
//! ones, and is merged into them when they are nobody else's again: so a snapshot costs memory for what is changed until it is
//! written, and not for the index once more.

mod slots;
mod table;
mod tables;

use std::sync::Arc;

use super::place::RowPlace;
use crate::key::KeyRef;
use tables::Tables;

pub(super) use table::shard_of;
pub(super) use tables::{Making, ProbeEnd};

/// The bits of a hash that choose the shard; a table is entered by the others.
const SHARD_BITS: u32 = 6;

/// Shards of an index.
pub(super) const N_SHARDS: usize = 1 << SHARD_BITS;

/// The keys whose hashes begin with the same bits.
#[derive(Debug, Clone, Default)]
pub(super) struct Shard {
    base: Arc<Tables>,
    /// Keys put since the base has been shared, over whatever that has of them.
    over: Tables,
}

/// A shard that is being changed.
#[derive(Debug)]
pub(super) enum OpenShard<'a> {
    /// Nobody else has its tables.
    Alone(&'a mut Tables),
    /// Somebody has: what is changed goes over them.
    Shared { base: &'a Tables, over: &'a mut Tables },
}

impl Shard {
    /// Returns the shard `shard` that takes so many keys of 64 and of 128 bits without being rebuilt.
    pub(super) fn with_room(n_narrow: usize, n_wide: usize, shard: usize) -> Self {
        Self { base: Arc::new(Tables::with_room(n_narrow, n_wide, shard)), over: Tables::default() }
    }

    /// Opens the shard for changes. What has gathered over its tables is merged into them if nobody shares them any more;
    /// slots whose places `lives` denies may go.
    pub(super) fn open(&mut self, lives: &impl Fn(RowPlace) -> bool) -> OpenShard<'_> {
        let Self { base, over } = self;
        if Arc::get_mut(base).is_none() {
            return OpenShard::Shared { base, over };
        }
        let base = Arc::make_mut(base);
        if !over.is_empty() {
            base.merge(over, lives);
            *over = Tables::default();
        }
        OpenShard::Alone(base)
    }

    /// Tells whether changes have gathered over the tables.
    pub(super) fn has_layer(&self) -> bool {
        !self.over.is_empty()
    }

    /// Tells whether the tables of the two are the same ones.
    #[cfg(test)]
    pub(super) fn shares_tables(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.base, &other.base)
    }

    /// Has the slot where the probe of `key` begins come into the caches, while other keys are worked on.
    #[inline]
    pub(super) fn prefetch(&self, key: KeyRef<'_>, hash: u64) {
        self.base.prefetch(key, hash, ProbeEnd::NOWHERE);
    }

    /// Returns the slots as they are now.
    pub(super) fn making(&self) -> Making {
        self.base.making()
    }

    /// Returns the place that is known of `key`, whether its row lives or not, and where its probe ended in the
    /// [`making`](Self::making).
    #[inline]
    pub(super) fn find(&self, key: KeyRef<'_>, hash: u64) -> (RowPlace, ProbeEnd) {
        let over = if self.over.is_empty() { RowPlace::NONE } else { self.over.get(key, hash) };
        if over.is_some() { (over, ProbeEnd::NOWHERE) } else { self.base.find(key, hash) }
    }

    /// Returns the place that is known of `key`, whether its row lives or not.
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>, hash: u64) -> RowPlace {
        get_over(&self.base, &self.over, (key, hash))
    }

    /// Calls `each` with every key and its place, whether its row lives or not.
    pub(super) fn for_each(&self, mut each: impl FnMut(KeyRef<'_>, RowPlace)) {
        self.over.for_each(|key, _, place| each(key, place));
        self.base.for_each(|key, hash, place| {
            if self.over.is_empty() || !self.over.get(key, hash).is_some() {
                each(key, place);
            }
        });
    }

    /// Returns how many keys of 64 bits, of 128, and of others have a slot at most, whether their rows live or not.
    pub(super) fn n_slots(&self) -> [usize; 3] {
        let (base, over) = (self.base.n_slots(), self.over.n_slots());
        [base[0] + over[0], base[1] + over[1], base[2] + over[2]]
    }

    /// Returns the bytes that the shard takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of::<Tables>() + self.base.bytes() + self.over.bytes()
    }
}

impl OpenShard<'_> {
    /// Has the slot where the probe of `key` begins, or goes on `from`, come into the caches, while other keys are worked on.
    #[inline]
    pub(super) fn prefetch(&self, key: KeyRef<'_>, hash: u64, from: ProbeEnd) {
        match self {
            Self::Alone(tables) => tables.prefetch(key, hash, from),
            Self::Shared { base, .. } => base.prefetch(key, hash, from),
        }
    }

    /// Returns the slots as they are now, where keys are put into them.
    #[inline]
    pub(super) fn making(&self) -> Option<Making> {
        match self {
            Self::Alone(tables) => Some(tables.making()),
            Self::Shared { .. } => None,
        }
    }

    /// Returns the place that is known of `key`, whether its row lives or not.
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>, hash: u64) -> RowPlace {
        match self {
            Self::Alone(tables) => tables.get(key, hash),
            Self::Shared { base, over } => get_over(base, over, (key, hash)),
        }
    }

    /// Sets the place of `key`, and returns the one that was known before. `from` is where its probe ended in this
    /// [`making`](Self::making), if that is known. A table that has no room is rebuilt without the slots whose places `lives`
    /// denies.
    #[inline]
    pub(super) fn put(
        &mut self,
        (key, hash): (KeyRef<'_>, u64),
        from: ProbeEnd,
        place: RowPlace,
        lives: &impl Fn(RowPlace) -> bool,
    ) -> RowPlace {
        match self {
            Self::Alone(tables) => tables.put((key, hash), from, place, lives),
            Self::Shared { base, over } => {
                let known = over.put((key, hash), ProbeEnd::NOWHERE, place, lives);
                if known.is_some() { known } else { base.get(key, hash) }
            }
        }
    }

    /// Moves every entry that `moved` gives another place to, and returns how many there were.
    pub(super) fn relocate(
        &mut self,
        moved: &impl Fn(RowPlace) -> Option<RowPlace>,
        lives: &impl Fn(RowPlace) -> bool,
    ) -> u64 {
        let (base, over) = match self {
            Self::Alone(tables) => return tables.relocate(moved),
            Self::Shared { base, over } => (base, over),
        };
        let mut n_moved = over.relocate(moved);
        let mut n_new = [0; 3];
        base.for_each(|key, hash, place| {
            let is_new = moved(place).is_some() && !over.get(key, hash).is_some();
            n_new[Tables::form_of(key)] += usize::from(is_new);
        });
        over.reserve(n_new, lives);
        base.for_each(|key, hash, place| {
            if let Some(to) = moved(place)
                && !over.get(key, hash).is_some()
            {
                over.put((key, hash), ProbeEnd::NOWHERE, to, lives);
                n_moved += 1;
            }
        });
        n_moved
    }
}

#[inline]
fn get_over(base: &Tables, over: &Tables, (key, hash): (KeyRef<'_>, u64)) -> RowPlace {
    let place = if over.is_empty() { RowPlace::NONE } else { over.get(key, hash) };
    if place.is_some() { place } else { base.get(key, hash) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ops::Range;

    use super::*;
    use crate::key::Keys;
    use crate::write::index::FileOrdinal;

    const N_KEYS: u32 = 5_000;

    /// Returns a shard with keys that count up.
    fn sample() -> Shard {
        let keys = Keys::of((0..u64::from(N_KEYS)).map(KeyRef::Narrow));
        let mut shard = Shard::default();
        put(&mut shard, &keys, 0..N_KEYS, FileOrdinal(1));
        shard
    }

    fn put(shard: &mut Shard, keys: &Keys, rows: Range<u32>, file: FileOrdinal) {
        let mut open = shard.open(&|_| true);
        for row in rows {
            let at = row as usize;
            open.put((keys.get(at), keys.hashes()[at]), ProbeEnd::NOWHERE, RowPlace::new(file, row), &|_| true);
        }
    }

    /// A table that grows as keys come asks of those it has each time; keys that come in the order of their hashes crowd in
    /// it meanwhile, and each of them passes by the others.
    #[test]
    fn tables_that_take_many_keys_from_others_are_made_anew_once() {
        let n_asked = Cell::new(0);
        let lives = |_| {
            n_asked.set(n_asked.get() + 1);
            true
        };
        let mut shard = sample();
        let shared = shard.clone();
        let moved = |place: RowPlace| Some(RowPlace::new(FileOrdinal(2), place.row()));
        assert_eq!(shard.open(&lives).relocate(&moved, &lives), u64::from(N_KEYS));
        assert_eq!(n_asked.get(), 0, "what goes over shared tables has room before it comes");

        let more = Keys::of((0..u64::from(4 * N_KEYS)).map(KeyRef::Narrow));
        put(&mut shard, &more, N_KEYS..4 * N_KEYS, FileOrdinal(3));
        drop(shared);
        shard.open(&lives);
        assert_eq!(n_asked.get(), N_KEYS, "the shared tables are made anew for all that has gathered");
        for (row, hash) in (0..4 * N_KEYS).zip(more.hashes()) {
            let file = FileOrdinal(if row < N_KEYS { 2 } else { 3 });
            assert_eq!(shard.get(more.get(row as usize), *hash), RowPlace::new(file, row));
        }
    }
}
