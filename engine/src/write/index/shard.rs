//! One part of the index: open addressing over slots of a key and a place, probed in line.
//!
//! A capacity is any number, not only a power of two, and grows by a quarter: so a key costs about the same at every size
//! of the table. A slot whose row is gone stays until its key is written again or its table is rebuilt; nothing is ever
//! taken out of the middle of a run.

use super::place::RowPlace;
use crate::key::{KeyHashing, KeyRef};

/// Slots filled of each hundred before a table is rebuilt: probes stay short, and memory is not wasted.
const LOAD_PERCENT: usize = 85;

/// The room that a rebuilt table has beyond its live slots at full load, in percent.
const GROWTH_PERCENT: usize = 125;

/// The room beyond its keys, in percent, of a table whose keys are counted before they come: shards do not get equally many.
const ROOM_PERCENT: usize = 110;

/// Below this a table is not worth a computation.
const CAPACITY_MIN: usize = 16;

/// The bits of a hash that choose the shard; a table is entered by the others.
pub(super) const SHARD_BITS: u32 = 6;

/// A key in some form with the place of its row.
trait Slot: Copy {
    const VACANT: Self;
    fn place(&self) -> RowPlace;
}

#[derive(Debug, Clone, Copy)]
struct Narrow {
    key: u64,
    place: RowPlace,
}

/// The halves stand apart, so that a slot takes 24 bytes and not 32.
#[derive(Debug, Clone, Copy)]
struct Wide {
    key: [u64; 2],
    place: RowPlace,
}

/// The whole hash stands beside the place in the arena, so that few arena bytes are looked at in vain.
#[derive(Debug, Clone, Copy)]
struct Long {
    hash: u64,
    start: u64,
    place: RowPlace,
}

impl Slot for Narrow {
    const VACANT: Self = Self { key: 0, place: RowPlace::NONE };
    #[inline]
    fn place(&self) -> RowPlace {
        self.place
    }
}

impl Slot for Wide {
    const VACANT: Self = Self { key: [0; 2], place: RowPlace::NONE };
    #[inline]
    fn place(&self) -> RowPlace {
        self.place
    }
}

impl Slot for Long {
    const VACANT: Self = Self { hash: 0, start: 0, place: RowPlace::NONE };
    #[inline]
    fn place(&self) -> RowPlace {
        self.place
    }
}

/// Slots of one form.
#[derive(Debug, Clone)]
struct Table<S> {
    slots: Vec<S>,
    n_used: usize,
}

/// Where a probe ended.
enum Probe {
    Found(usize),
    Vacant(usize),
    /// There are no slots at all.
    Nowhere,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { slots: Vec::new(), n_used: 0 }
    }
}

impl<S: Slot> Table<S> {
    /// Returns a table that takes `n_keys` without being rebuilt.
    fn with_room(n_keys: usize) -> Self {
        match n_keys {
            0 => Self::default(),
            _ => Self { slots: vec![S::VACANT; capacity(n_keys, ROOM_PERCENT)], n_used: 0 },
        }
    }

    /// Returns where the probe of a key begins.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        let spread = u128::from(hash << SHARD_BITS) * self.slots.len() as u128;
        (spread >> 64) as usize
    }

    #[inline]
    fn probe(&self, hash: u64, is_key: impl Fn(&S) -> bool) -> Probe {
        let n_slots = self.slots.len();
        let mut at = self.home(hash);
        for _step in 0..n_slots {
            let slot = &self.slots[at];
            if is_key(slot) && slot.place().is_some() {
                return Probe::Found(at);
            }
            if !slot.place().is_some() {
                return Probe::Vacant(at);
            }
            at = if at + 1 == n_slots { 0 } else { at + 1 };
        }
        Probe::Nowhere
    }

    #[inline]
    fn is_full(&self) -> bool {
        (self.n_used + 1) * 100 > self.slots.len() * LOAD_PERCENT
    }

    /// Fills the vacant slot at `at`.
    fn fill(&mut self, at: usize, slot: S) {
        if let Some(vacant) = self.slots.get_mut(at) {
            *vacant = slot;
            self.n_used += 1;
        }
    }

    /// Makes the table anew with room for `n_more`, without the slots that `keeps` refuses.
    fn rebuild(&mut self, n_more: usize, hash_of: impl Fn(&S) -> u64, keeps: impl Fn(&S) -> bool) {
        let mut kept = std::mem::take(&mut self.slots);
        kept.retain(|slot| slot.place().is_some() && keeps(slot));
        self.slots = vec![S::VACANT; capacity(kept.len() + n_more, GROWTH_PERCENT)];
        self.n_used = 0;
        for slot in &kept {
            // Keys are distinct already, so any vacant slot will do.
            if let Probe::Vacant(at) = self.probe(hash_of(slot), |_| false) {
                self.fill(at, *slot);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<S>()
    }
}

/// Returns the slots that `n_keys` want, and `percent` of that.
fn capacity(n_keys: usize, percent: usize) -> usize {
    (n_keys.saturating_mul(percent) / LOAD_PERCENT + 1).max(CAPACITY_MIN)
}

/// The keys whose hashes begin with the same bits.
#[derive(Debug, Clone, Default)]
pub(super) struct Shard {
    narrow: Table<Narrow>,
    wide: Table<Wide>,
    long: Table<Long>,
    /// Long keys, each with its length before it in four bytes.
    arena: Vec<u8>,
}

impl Shard {
    /// Returns a shard that takes so many keys of 64 and of 128 bits without being rebuilt.
    pub(super) fn with_room(n_narrow: usize, n_wide: usize) -> Self {
        Self { narrow: Table::with_room(n_narrow), wide: Table::with_room(n_wide), ..Self::default() }
    }

    /// Looks at the slot where the probe of `key` begins, so that it is in the cache when the probe comes.
    #[inline]
    pub(super) fn touch(&self, key: KeyRef<'_>, hash: u64) -> u64 {
        let word = match key {
            KeyRef::Narrow(_) => self.narrow.slots.get(self.narrow.home(hash)).map(|slot| slot.key),
            KeyRef::Wide(_) => self.wide.slots.get(self.wide.home(hash)).map(|slot| slot.key[0]),
            KeyRef::Bytes(_) => self.long.slots.get(self.long.home(hash)).map(|slot| slot.start),
        };
        word.unwrap_or_default()
    }

    /// Returns the place that is known of `key`, whether its row lives or not.
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>, hash: u64) -> RowPlace {
        match self.probe(key, hash) {
            Probe::Found(at) => self.place_at(key, at),
            Probe::Vacant(_) | Probe::Nowhere => RowPlace::NONE,
        }
    }

    /// Sets the place of `key`, and returns the one that was known before. A table that has no room is rebuilt without
    /// the slots whose places `lives` denies.
    pub(super) fn put(
        &mut self,
        key: KeyRef<'_>,
        hash: u64,
        place: RowPlace,
        lives: &impl Fn(RowPlace) -> bool,
    ) -> RowPlace {
        match self.probe(key, hash) {
            Probe::Found(at) => self.replace_at(key, at, place),
            Probe::Vacant(at) if !self.is_full(key) => self.fill(key, hash, at, place),
            Probe::Vacant(_) | Probe::Nowhere => {
                self.make_room(key, 1, lives);
                match self.probe(key, hash) {
                    Probe::Vacant(at) => self.fill(key, hash, at, place),
                    // A rebuilt table has vacant slots.
                    Probe::Found(_) | Probe::Nowhere => RowPlace::NONE,
                }
            }
        }
    }

    /// Moves every slot that `moved` gives another place to, and returns how many there were.
    pub(super) fn relocate(&mut self, moved: &impl Fn(RowPlace) -> Option<RowPlace>) -> u64 {
        let mut n_moved = 0;
        let mut visit = |place: &mut RowPlace| {
            if place.is_some()
                && let Some(to) = moved(*place)
            {
                *place = to;
                n_moved += 1;
            }
        };
        self.narrow.slots.iter_mut().for_each(|slot| visit(&mut slot.place));
        self.wide.slots.iter_mut().for_each(|slot| visit(&mut slot.place));
        self.long.slots.iter_mut().for_each(|slot| visit(&mut slot.place));
        n_moved
    }

    /// Calls `each` with every key and its place, whether its row lives or not.
    pub(super) fn for_each(&self, mut each: impl FnMut(KeyRef<'_>, RowPlace)) {
        for slot in self.narrow.slots.iter().filter(|slot| slot.place.is_some()) {
            each(KeyRef::Narrow(slot.key), slot.place);
        }
        for slot in self.wide.slots.iter().filter(|slot| slot.place.is_some()) {
            each(KeyRef::Wide(join(slot.key)), slot.place);
        }
        for slot in self.long.slots.iter().filter(|slot| slot.place.is_some()) {
            each(KeyRef::Bytes(in_arena(&self.arena, slot.start)), slot.place);
        }
    }

    /// Returns how many keys of 64 and of 128 bits have a slot, whether their rows live or not.
    pub(super) fn n_slots(&self) -> (usize, usize) {
        (self.narrow.n_used, self.wide.n_used)
    }

    /// Returns the bytes that the shard takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.narrow.bytes() + self.wide.bytes() + self.long.bytes() + self.arena.capacity()
    }

    #[inline]
    fn probe(&self, key: KeyRef<'_>, hash: u64) -> Probe {
        match key {
            KeyRef::Narrow(key) => self.narrow.probe(hash, |slot| slot.key == key),
            KeyRef::Wide(key) => {
                let halves = split(key);
                self.wide.probe(hash, |slot| slot.key == halves)
            }
            KeyRef::Bytes(bytes) => {
                self.long.probe(hash, |slot| slot.hash == hash && in_arena(&self.arena, slot.start) == bytes)
            }
        }
    }

    #[inline]
    fn place_at(&self, key: KeyRef<'_>, at: usize) -> RowPlace {
        match key {
            KeyRef::Narrow(_) => self.narrow.slots[at].place,
            KeyRef::Wide(_) => self.wide.slots[at].place,
            KeyRef::Bytes(_) => self.long.slots[at].place,
        }
    }

    fn replace_at(&mut self, key: KeyRef<'_>, at: usize, place: RowPlace) -> RowPlace {
        let known = match key {
            KeyRef::Narrow(_) => &mut self.narrow.slots[at].place,
            KeyRef::Wide(_) => &mut self.wide.slots[at].place,
            KeyRef::Bytes(_) => &mut self.long.slots[at].place,
        };
        std::mem::replace(known, place)
    }

    fn is_full(&self, key: KeyRef<'_>) -> bool {
        match key {
            KeyRef::Narrow(_) => self.narrow.is_full(),
            KeyRef::Wide(_) => self.wide.is_full(),
            KeyRef::Bytes(_) => self.long.is_full(),
        }
    }

    fn fill(&mut self, key: KeyRef<'_>, hash: u64, at: usize, place: RowPlace) -> RowPlace {
        match key {
            KeyRef::Narrow(key) => self.narrow.fill(at, Narrow { key, place }),
            KeyRef::Wide(key) => self.wide.fill(at, Wide { key: split(key), place }),
            KeyRef::Bytes(bytes) => {
                let start = self.arena.len() as u64;
                append(&mut self.arena, bytes);
                self.long.fill(at, Long { hash, start, place });
            }
        }
        RowPlace::NONE
    }

    /// Rebuilds the table of the form of `key` with room for `n_more`.
    fn make_room(&mut self, key: KeyRef<'_>, n_more: usize, lives: &impl Fn(RowPlace) -> bool) {
        let hashing = KeyHashing::of_process();
        match key {
            KeyRef::Narrow(_) => {
                self.narrow.rebuild(n_more, |slot| KeyRef::Narrow(slot.key).hash(&hashing), |slot| lives(slot.place))
            }
            KeyRef::Wide(_) => {
                self.wide.rebuild(n_more, |slot| KeyRef::Wide(join(slot.key)).hash(&hashing), |slot| lives(slot.place))
            }
            KeyRef::Bytes(_) => {
                self.long.rebuild(n_more, |slot| slot.hash, |slot| lives(slot.place));
                self.rebuild_arena();
            }
        }
    }

    /// Moves the bytes of the keys that are left together.
    fn rebuild_arena(&mut self) {
        let used = self.long.slots.iter().filter(|slot| slot.place.is_some());
        let n_bytes: usize = used.map(|slot| 4 + in_arena(&self.arena, slot.start).len()).sum();
        if n_bytes == self.arena.len() {
            return;
        }
        let mut arena = Vec::with_capacity(n_bytes * GROWTH_PERCENT / 100);
        for slot in self.long.slots.iter_mut().filter(|slot| slot.place.is_some()) {
            let bytes = in_arena(&self.arena, slot.start);
            slot.start = arena.len() as u64;
            append(&mut arena, bytes);
        }
        self.arena = arena;
    }
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) {
    let n_bytes = 4 + bytes.len();
    if arena.capacity() - arena.len() < n_bytes {
        // Doubling would leave half of the memory unused right after.
        arena.reserve_exact((arena.len() / 4).max(n_bytes));
    }
    arena.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    arena.extend_from_slice(bytes);
}

#[inline]
fn in_arena(arena: &[u8], start: u64) -> &[u8] {
    let bytes = arena.get(start as usize..).unwrap_or_default();
    let Some((length, bytes)) = bytes.split_first_chunk() else { return &[] };
    bytes.get(..u32::from_le_bytes(*length) as usize).unwrap_or_default()
}

fn split(key: u128) -> [u64; 2] {
    [(key >> 64) as u64, key as u64]
}

fn join([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}
