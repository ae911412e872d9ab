//! The keys of a shard and their places, one table for each form of keys.

use std::sync::atomic::{AtomicU64, Ordering};

use super::table::{Long, Narrow, Probe, Table, Wide};
use crate::key::{KeyHashing, KeyRef};
use crate::write::index::place::RowPlace;

/// The room of a rebuilt arena, in percent of the keys in it.
const ARENA_ROOM_PERCENT: usize = 125;

/// The slots of some tables as they are between two times that one of them is made anew: no key has another slot meanwhile.
/// No two in a process are alike, but that tables without slots have none, and copies of tables the same until they differ: a
/// shard copies those that go over others, of which nobody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::write::index) struct Making(u64);

impl Making {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The slot at which the probe of a key ended, its own or a vacant one, in one [`Making`] of its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::write::index) struct ProbeEnd(u32);

impl ProbeEnd {
    /// Not known.
    pub(in crate::write::index) const NOWHERE: Self = Self(u32::MAX);

    fn of(probe: Probe) -> Self {
        match probe {
            Probe::Found(at) | Probe::Vacant(at) => u32::try_from(at).map_or(Self::NOWHERE, Self),
            Probe::Nowhere => Self::NOWHERE,
        }
    }

    #[inline]
    fn slot(self) -> Option<usize> {
        (self != Self::NOWHERE).then_some(self.0 as usize)
    }
}

/// Which table a key stands in.
#[derive(Debug, Clone, Copy)]
enum Form {
    Narrow,
    Wide,
    Long,
}

impl Form {
    const ALL: [Self; 3] = [Self::Narrow, Self::Wide, Self::Long];

    #[inline]
    fn of(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Narrow(_) => Self::Narrow,
            KeyRef::Wide(_) => Self::Wide,
            KeyRef::Bytes(_) => Self::Long,
        }
    }
}

/// Places by key.
#[derive(Debug, Clone, Default)]
pub(in crate::write::index) struct Tables {
    narrow: Table<Narrow>,
    wide: Table<Wide>,
    long: Table<Long>,
    /// Long keys, each with its length before it in four bytes.
    arena: Vec<u8>,
    making: Making,
}

impl Tables {
    /// Returns the tables of the shard `shard` that take so many keys of 64 and of 128 bits without being rebuilt.
    pub(super) fn with_room(n_narrow: usize, n_wide: usize, shard: usize) -> Self {
        let (narrow, wide) = (Table::with_room(n_narrow, shard), Table::with_room(n_wide, shard));
        Self { narrow, wide, making: Making::next(), ..Self::default() }
    }

    /// Has the slot where the probe of `key` begins, or goes on `from`, come into the caches, while other keys are worked on.
    #[inline]
    pub(super) fn prefetch(&self, key: KeyRef<'_>, hash: u64, from: ProbeEnd) {
        let first = from.slot().unwrap_or_else(|| self.home(key, hash));
        match key {
            KeyRef::Narrow(_) => self.narrow.slots.prefetch(first),
            KeyRef::Wide(_) => self.wide.slots.prefetch(first),
            KeyRef::Bytes(_) => self.long.slots.prefetch(first),
        }
    }

    /// Returns the slots as they are now.
    #[inline]
    pub(super) fn making(&self) -> Making {
        self.making
    }

    /// Returns the place that is known of `key`, whether its row lives or not, and where its probe ended.
    #[inline]
    pub(super) fn find(&self, key: KeyRef<'_>, hash: u64) -> (RowPlace, ProbeEnd) {
        let probe = self.probe(key, self.home(key, hash), hash);
        let place = match probe {
            Probe::Found(at) => self.place_at(key, at),
            Probe::Vacant(_) | Probe::Nowhere => RowPlace::NONE,
        };
        (place, ProbeEnd::of(probe))
    }

    /// Returns the place that is known of `key`, whether its row lives or not.
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>, hash: u64) -> RowPlace {
        self.find(key, hash).0
    }

    /// Sets the place of `key`, and returns the one that was known before. Its probe goes on where one ended in this
    /// [`making`](Self::making): slots are never vacated. A table that has no room is rebuilt without the slots whose places
    /// `lives` denies.
    #[inline]
    pub(super) fn put(
        &mut self,
        (key, hash): (KeyRef<'_>, u64),
        from: ProbeEnd,
        place: RowPlace,
        lives: &impl Fn(RowPlace) -> bool,
    ) -> RowPlace {
        let first = from.slot().unwrap_or_else(|| self.home(key, hash));
        match self.probe(key, first, hash) {
            Probe::Found(at) => self.replace_at(key, at, place),
            Probe::Vacant(at) if !self.is_full_for(Form::of(key), 1) => self.fill(key, hash, at, place),
            Probe::Vacant(_) | Probe::Nowhere => {
                self.make_room(Form::of(key), 1, lives);
                match self.probe(key, self.home(key, hash), hash) {
                    Probe::Vacant(at) => self.fill(key, hash, at, place),
                    // A rebuilt table has vacant slots.
                    Probe::Found(_) | Probe::Nowhere => RowPlace::NONE,
                }
            }
        }
    }

    /// Returns the place of the form of a key among the forms.
    pub(super) fn form_of(key: KeyRef<'_>) -> usize {
        Form::of(key) as usize
    }

    /// Makes room for as many more keys of each form, before they come in the order of their hashes.
    pub(super) fn reserve(&mut self, n_more: [usize; Form::ALL.len()], lives: &impl Fn(RowPlace) -> bool) {
        self.make_room_for(n_more, n_more, lives);
    }

    /// Takes over the places that `newer` has.
    pub(super) fn merge(&mut self, newer: &Self, lives: &impl Fn(RowPlace) -> bool) {
        let mut n_new = [0; Form::ALL.len()];
        newer.for_each(|key, hash, _| n_new[Form::of(key) as usize] += usize::from(!self.get(key, hash).is_some()));
        // Before they come, for they come in the order of their hashes: all of them would crowd at one end of a table that
        // grows only when it is full.
        // A rebuild drops slots of rows that are gone, and their keys come again.
        self.make_room_for(n_new, newer.n_slots(), lives);
        newer.for_each(|key, hash, place| {
            self.put((key, hash), ProbeEnd::NOWHERE, place, lives);
        });
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

    /// Calls `each` with every key, its hash and its place, whether its row lives or not.
    pub(super) fn for_each(&self, mut each: impl FnMut(KeyRef<'_>, u64, RowPlace)) {
        let hashing = KeyHashing::of_process();
        for slot in self.narrow.slots.iter().filter(|slot| slot.place.is_some()) {
            let key = KeyRef::Narrow(slot.key);
            each(key, key.hash(&hashing), slot.place);
        }
        for slot in self.wide.slots.iter().filter(|slot| slot.place.is_some()) {
            let key = KeyRef::Wide(join(slot.key));
            each(key, key.hash(&hashing), slot.place);
        }
        for slot in self.long.slots.iter().filter(|slot| slot.place.is_some()) {
            each(KeyRef::Bytes(in_arena(&self.arena, slot.start)), slot.hash, slot.place);
        }
    }

    /// Returns how many keys of 64 bits, of 128, and of others have a slot, whether their rows live or not.
    pub(super) fn n_slots(&self) -> [usize; Form::ALL.len()] {
        [self.narrow.n_used, self.wide.n_used, self.long.n_used]
    }

    /// Tells whether no key has a slot.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.n_slots() == [0; Form::ALL.len()]
    }

    /// Returns the bytes that the tables take in memory beside themselves.
    pub(super) fn bytes(&self) -> usize {
        self.narrow.bytes() + self.wide.bytes() + self.long.bytes() + self.arena.capacity()
    }

    /// Returns the slot where the probe of a key begins.
    #[inline]
    fn home(&self, key: KeyRef<'_>, hash: u64) -> usize {
        match key {
            KeyRef::Narrow(_) => self.narrow.home(hash),
            KeyRef::Wide(_) => self.wide.home(hash),
            KeyRef::Bytes(_) => self.long.home(hash),
        }
    }

    #[inline]
    fn probe(&self, key: KeyRef<'_>, first: usize, hash: u64) -> Probe {
        match key {
            KeyRef::Narrow(key) => self.narrow.probe(first, |slot| slot.key == key),
            KeyRef::Wide(key) => {
                let halves = split(key);
                self.wide.probe(first, |slot| slot.key == halves)
            }
            KeyRef::Bytes(bytes) => {
                self.long.probe(first, |slot| slot.hash == hash && in_arena(&self.arena, slot.start) == bytes)
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

    #[inline]
    fn is_full_for(&self, form: Form, n_more: usize) -> bool {
        match form {
            Form::Narrow => self.narrow.is_full_for(n_more),
            Form::Wide => self.wide.is_full_for(n_more),
            Form::Long => self.long.is_full_for(n_more),
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

    /// Rebuilds the tables that have no room for `n_new` keys of their form, each with room for its number of `n_more`.
    fn make_room_for(
        &mut self,
        n_new: [usize; Form::ALL.len()],
        n_more: [usize; Form::ALL.len()],
        lives: &impl Fn(RowPlace) -> bool,
    ) {
        for form in Form::ALL {
            let at = form as usize;
            if n_new[at] > 0 && self.is_full_for(form, n_new[at]) {
                self.make_room(form, n_more[at], lives);
            }
        }
    }

    /// Rebuilds the table of `form` with room for `n_more`.
    fn make_room(&mut self, form: Form, n_more: usize, lives: &impl Fn(RowPlace) -> bool) {
        let hashing = KeyHashing::of_process();
        self.making = Making::next();
        match form {
            Form::Narrow => {
                self.narrow.rebuild(n_more, |slot| KeyRef::Narrow(slot.key).hash(&hashing), |slot| lives(slot.place))
            }
            Form::Wide => {
                self.wide.rebuild(n_more, |slot| KeyRef::Wide(join(slot.key)).hash(&hashing), |slot| lives(slot.place))
            }
            Form::Long => {
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
        let mut arena = Vec::with_capacity(n_bytes * ARENA_ROOM_PERCENT / 100);
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
