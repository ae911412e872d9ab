//! Open addressing over slots of a key and a place, probed in line.
//!
//! A capacity is any number, not only a power of two, and grows by a quarter: so a key costs about the same at every size
//! of the table. A slot whose row is gone stays until its key is written again or its table is rebuilt; nothing is ever
//! taken out of the middle of a run.

use super::SHARD_BITS;
use crate::write::index::place::RowPlace;

/// Slots filled of each hundred before a table is rebuilt: probes stay short, and memory is not wasted.
const LOAD_PERCENT: usize = 85;

/// The room that a rebuilt table has beyond its live slots at full load, in percent.
pub(super) const GROWTH_PERCENT: usize = 125;

/// The room beyond its keys, in percent, of a table whose keys are counted before they come: shards do not get equally many.
const ROOM_PERCENT: usize = 110;

/// Below this a table is not worth a computation.
const CAPACITY_MIN: usize = 16;

/// A key in some form with the place of its row.
pub(super) trait Slot: Copy {
    const VACANT: Self;
    fn place(&self) -> RowPlace;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Narrow {
    pub(super) key: u64,
    pub(super) place: RowPlace,
}

/// The halves stand apart, so that a slot takes 24 bytes and not 32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wide {
    pub(super) key: [u64; 2],
    pub(super) place: RowPlace,
}

/// The whole hash stands beside the place in the arena, so that few arena bytes are looked at in vain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Long {
    pub(super) hash: u64,
    pub(super) start: u64,
    pub(super) place: RowPlace,
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
pub(super) struct Table<S> {
    pub(super) slots: Vec<S>,
    pub(super) n_used: usize,
}

/// Where a probe ended.
pub(super) enum Probe {
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
    pub(super) fn with_room(n_keys: usize) -> Self {
        match n_keys {
            0 => Self::default(),
            _ => Self { slots: vec![S::VACANT; capacity(n_keys, ROOM_PERCENT)], n_used: 0 },
        }
    }

    /// Returns where the probe of a key begins.
    #[inline]
    pub(super) fn home(&self, hash: u64) -> usize {
        let spread = u128::from(hash << SHARD_BITS) * self.slots.len() as u128;
        (spread >> 64) as usize
    }

    #[inline]
    pub(super) fn probe(&self, hash: u64, is_key: impl Fn(&S) -> bool) -> Probe {
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

    /// Tells whether `n_more` keys take a rebuild.
    #[inline]
    pub(super) fn is_full_for(&self, n_more: usize) -> bool {
        (self.n_used + n_more) * 100 > self.slots.len() * LOAD_PERCENT
    }

    /// Fills the vacant slot at `at`.
    pub(super) fn fill(&mut self, at: usize, slot: S) {
        if let Some(vacant) = self.slots.get_mut(at) {
            *vacant = slot;
            self.n_used += 1;
        }
    }

    /// Makes the table anew with room for `n_more`, without the slots that `keeps` refuses.
    pub(super) fn rebuild(&mut self, n_more: usize, hash_of: impl Fn(&S) -> u64, keeps: impl Fn(&S) -> bool) {
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

    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<S>()
    }
}

/// Returns the slots that `n_keys` want, and `percent` of that.
fn capacity(n_keys: usize, percent: usize) -> usize {
    (n_keys.saturating_mul(percent) / LOAD_PERCENT + 1).max(CAPACITY_MIN)
}
