//! Open addressing over slots of a key and a place, probed in line.
//!
//! A capacity is any number, not only a power of two, and grows by half. The tables of the shards grow at different moments,
//! so that a key costs the same at every size of the index, 1.23 of its slots at full load, and no batch waits for all of them.
//! A slot whose row is gone stays until its key is written again or its table is rebuilt; nothing is ever taken out of the
//! middle of a run.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::slots::{Plain, Slots};
use super::{N_SHARDS, SHARD_BITS};
use crate::write::index::place::RowPlace;

/// Slots filled of each hundred before a table is rebuilt: probes stay short, and memory is not wasted.
const LOAD_PERCENT: usize = 85;

/// From one capacity of a table to the next.
const GROWTH: f64 = 1.5;

/// The least room that a rebuilt table has beyond its live slots at full load, in percent: where as many keys come as go,
/// it is made anew whenever they have taken that.
const ROOM_PERCENT: usize = 103;

/// The room beyond its keys, in percent, of a table whose keys are counted before they come, in the first and the last shard:
/// shards do not get equally many keys, and are not to be full at the same moment.
const COUNTED_ROOM_PERCENT: [usize; 2] = [102, 122];

/// Below this a table is not worth a computation.
const CAPACITY_MIN: usize = 16;

/// A key in some form with the place of its row.
pub(super) trait Slot: Plain {
    const VACANT: Self;
    fn place(&self) -> RowPlace;
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Narrow {
    pub(super) key: u64,
    pub(super) place: RowPlace,
}

/// The halves stand apart, so that a slot takes 24 bytes and not 32.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Wide {
    pub(super) key: [u64; 2],
    pub(super) place: RowPlace,
}

/// The whole hash stands beside the place in the arena, so that few arena bytes are looked at in vain.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
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
pub(super) struct Table<S: Slot> {
    pub(super) slots: Slots<S>,
    pub(super) n_used: usize,
}

/// Where a probe ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probe {
    Found(usize),
    Vacant(usize),
    /// There are no slots at all.
    Nowhere,
}

impl<S: Slot> Default for Table<S> {
    fn default() -> Self {
        Self { slots: Slots::default(), n_used: 0 }
    }
}

impl<S: Slot> Table<S> {
    /// Returns the table of the shard `shard` that takes `n_keys` without being rebuilt.
    pub(super) fn with_room(n_keys: usize, shard: usize) -> Self {
        let [first, last] = COUNTED_ROOM_PERCENT;
        match n_keys {
            0 => Self::default(),
            _ => Self::vacant(slots_of(n_keys, first + (last - first) * shard / N_SHARDS)),
        }
    }

    fn vacant(n_slots: usize) -> Self {
        Self { slots: Slots::filled(S::VACANT, n_slots.max(CAPACITY_MIN)), n_used: 0 }
    }

    /// Returns where the probe of a key begins.
    #[inline]
    pub(super) fn home(&self, hash: u64) -> usize {
        let spread = u128::from(hash << SHARD_BITS) * self.slots.len() as u128;
        (spread >> 64) as usize
    }

    /// Looks for a key from the slot `first` on: that where probes of it begin, or one that a probe of it has come to.
    #[inline]
    pub(super) fn probe(&self, mut first: usize, is_key: impl Fn(&S) -> bool) -> Probe {
        // A run a piece, up to that in which it began once more.
        for _run in 0..=self.slots.n_pieces() {
            let run = self.slots.run(first);
            for (at, slot) in (first..).zip(run) {
                if !slot.place().is_some() {
                    return Probe::Vacant(at);
                }
                if is_key(slot) {
                    return Probe::Found(at);
                }
            }
            first = if first + run.len() < self.slots.len() { first + run.len() } else { 0 };
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
        let mut former = std::mem::take(&mut self.slots);
        let mut n_kept = 0;
        for slot in former.iter_mut().filter(|slot| slot.place().is_some()) {
            if keeps(slot) {
                n_kept += 1;
            } else {
                *slot = S::VACANT;
            }
        }
        let kept = |slot: &&S| slot.place().is_some();
        let shard = former.iter().find(kept).map_or(0, |slot| shard_of(hash_of(slot)));
        let n_slots = slots_of(n_kept, ROOM_PERCENT).max(slots_of(n_kept + n_more, 100));
        *self = Self::vacant(staggered(n_slots, shard));
        for piece in former.into_pieces() {
            for slot in piece.slots().iter().filter(kept) {
                // Keys are distinct already, so any vacant slot will do.
                if let Probe::Vacant(at) = self.probe(self.home(hash_of(slot)), |_| false) {
                    self.fill(at, *slot);
                }
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes()
    }
}

/// Returns the shard of keys with this hash.
pub(in crate::write::index) fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

/// Returns the slots that `n_keys` want at full load, and `percent` of that.
fn slots_of(n_keys: usize, percent: usize) -> usize {
    n_keys.saturating_mul(percent) / LOAD_PERCENT + 1
}

/// Returns the first of the capacities of a shard's tables that has `n_slots`. From one to the next it is [`GROWTH`], and from
/// the same one of a shard to that of the shard behind it an equal part of that.
fn staggered(n_slots: usize, shard: usize) -> usize {
    let first = CAPACITY_MIN as f64 * GROWTH.powf(shard as f64 / N_SHARDS as f64);
    let n_steps = (n_slots as f64 / first).log(GROWTH).ceil().max(0.0);
    // Rounding may have taken the last slot.
    ((first * GROWTH.powf(n_steps)) as usize).max(n_slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::index::FileOrdinal;

    /// Returns a hash whose probe begins at the slot `at` of `n_slots`.
    fn hash_at(at: usize, n_slots: usize) -> u64 {
        ((((at as u128) << 64) / n_slots as u128) as u64 >> SHARD_BITS) + 1
    }

    /// Probes run from one piece of slots into the next, and from the last slot to the first.
    #[test]
    fn a_probe_goes_on_behind_the_end_of_a_piece_and_of_the_table() {
        const N_SLOTS: usize = 150_000;
        let mut table = Table::<Narrow>::vacant(N_SLOTS);
        let piece = table.slots.run(0).len();
        assert!(piece < N_SLOTS && table.slots.n_pieces() > 2, "a piece has {piece} slots");
        let ends = [piece - 1, 2 * piece - 1, N_SLOTS - 1];
        let key_of = |end: usize, key: usize| (10 * end + key) as u64;
        for (end, key) in ends.into_iter().flat_map(|end| (0..3).map(move |key| (end, key))) {
            let (hash, wanted) = (hash_at(end, N_SLOTS), (end + key) % N_SLOTS);
            assert_eq!(table.home(hash), end);
            let probe = table.probe(table.home(hash), |slot| slot.key == key_of(end, key));
            assert!(matches!(probe, Probe::Vacant(at) if at == wanted), "{key} of {end}");
            table.fill(wanted, Narrow { key: key_of(end, key), place: RowPlace::new(FileOrdinal(1), key as u32) });
        }
        for (end, key) in ends.into_iter().flat_map(|end| (0..3).map(move |key| (end, key))) {
            let probe = table.probe(end, |slot| slot.key == key_of(end, key));
            assert!(matches!(probe, Probe::Found(at) if at == (end + key) % N_SLOTS), "{key} of {end}");
        }
        for at in 0..N_SLOTS {
            table.fill(at, Narrow { key: u64::MAX, place: RowPlace::new(FileOrdinal(2), 0) });
        }
        let (hash, last) = (hash_at(ends[1], N_SLOTS), ends[1] - 1);
        assert!(
            matches!(table.probe(table.home(hash), |slot| slot.key == 0), Probe::Nowhere),
            "a full table has no room"
        );
        table.fill(last, Narrow { key: 7, place: RowPlace::new(FileOrdinal(3), 0) });
        assert!(
            matches!(table.probe(table.home(hash), |slot| slot.key == 7), Probe::Found(at) if at == last),
            "all round"
        );
        assert!(matches!(Table::<Narrow>::default().probe(0, |_| true), Probe::Nowhere));
    }

    #[test]
    fn capacities_grow_by_half_and_those_of_shards_lie_evenly_between() {
        for n_slots in [1, 16, 17, 1_000, 123_456_789] {
            let capacities: Vec<usize> = (0..N_SHARDS).map(|shard| staggered(n_slots, shard)).collect();
            let most = n_slots.max(CAPACITY_MIN) * 3 / 2 + 1;
            assert!(capacities.iter().all(|capacity| (n_slots..=most).contains(capacity)), "{n_slots}: {capacities:?}");
            for (shard, capacity) in capacities.iter().enumerate() {
                assert_eq!(staggered(*capacity, shard), *capacity, "{n_slots} slots in shard {shard}");
            }
        }
        let mean = (0..N_SHARDS).map(|shard| staggered(1_000_000, shard) as f64).sum::<f64>() / N_SHARDS as f64 / 1e6;
        assert!((1.23..1.24).contains(&mean), "{mean:.3} of the slots that are asked for");
    }
}
