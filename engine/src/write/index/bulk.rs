//! Work on many keys at once: the keys of a batch are put in order of their shards, and shards are shared out to threads.
//!
//! What is known of the keys is put in the same order first, one column after the other: so the work on a key reads beside
//! what it read for the one before, and not somewhere in memory. Within a shard, the slots where probes begin are looked at in
//! advance for a block of keys: those loads do not wait for each other, where probes one after the other would wait for
//! memory each time.

use std::num::NonZero;
use std::ops::Range;

use super::place::RowPlace;
use super::shard::{N_SHARDS, OpenShard, Shard, shard_of};
use crate::key::{KeyRef, Keys};

/// Keys whose slots are looked at in advance: what a core can have under way at once, and more does not help.
const BLOCK: usize = 32;

/// Below this a thread costs more than it saves.
const KEYS_A_THREAD_MIN: usize = 8_192;

/// The keys of a batch in order of their shards.
#[derive(Debug)]
pub(super) struct ByShard {
    keys: Keys,
    /// The index in the batch of each key.
    order: Vec<u32>,
    /// Where the keys of each shard begin; one more than there are shards.
    starts: Vec<usize>,
}

impl ByShard {
    pub(super) fn new(keys: &Keys) -> Self {
        let mut starts = vec![0; N_SHARDS + 1];
        for hash in keys.hashes() {
            starts[shard_of(*hash) + 1] += 1;
        }
        let mut n_before = 0;
        for start in &mut starts {
            n_before += *start;
            *start = n_before;
        }
        let mut next = starts.clone();
        let mut order = vec![0; keys.len()];
        for (index, hash) in (0_u32..).zip(keys.hashes()) {
            let place = &mut next[shard_of(*hash)];
            order[*place] = index;
            *place += 1;
        }
        Self { keys: keys.arranged(&order), order, starts }
    }

    /// Returns what `value` has for the index in the batch of each key.
    pub(super) fn arranged<T>(&self, value: impl Fn(usize) -> T) -> Vec<T> {
        self.order.iter().map(|index| value(*index as usize)).collect()
    }

    /// Returns the key at `place`, and its hash.
    #[inline]
    pub(super) fn key(&self, place: usize) -> (KeyRef<'_>, u64) {
        (self.keys.get(place), self.keys.hashes()[place])
    }

    /// Returns the index in the batch of the key at `place`.
    pub(super) fn index(&self, place: usize) -> u32 {
        self.order[place]
    }

    /// Returns the places of the keys of `shards`.
    fn places(&self, shards: Range<usize>) -> Range<usize> {
        self.starts[shards.start]..self.starts[shards.end]
    }

    /// Returns the places of the keys of a shard, some at a time.
    fn blocks(&self, shard: usize) -> impl Iterator<Item = Range<usize>> {
        let places = self.places(shard..shard + 1);
        let end = places.end;
        places.step_by(BLOCK).map(move |start| start..(start + BLOCK).min(end))
    }

    /// Has `touch` look at the slots where the probes of the keys at `places` begin.
    fn touch(&self, places: Range<usize>, touch: impl Fn(KeyRef<'_>, u64) -> u64) {
        let touched = places.fold(0, |touched, place| {
            let (key, hash) = self.key(place);
            touched ^ touch(key, hash)
        });
        std::hint::black_box(touched);
    }

    /// Returns runs of shards, one a thread, with about as many keys each.
    fn shares(&self) -> Vec<Range<usize>> {
        let n_threads = match self.order.len() / KEYS_A_THREAD_MIN {
            // How many cores there are is asked of files of the system, and a small batch has no time for that.
            0 | 1 => 1,
            wanted => wanted.min(std::thread::available_parallelism().map_or(1, NonZero::get)).min(N_SHARDS),
        };
        let mut shares = Vec::with_capacity(n_threads);
        let mut first = 0;
        for thread in 1..=n_threads {
            let goal = self.order.len() * thread / n_threads;
            let end = if thread == n_threads {
                N_SHARDS
            } else {
                self.starts.partition_point(|start| *start < goal).clamp(first, N_SHARDS)
            };
            shares.push(first..end);
            first = end;
        }
        shares
    }
}

/// Returns the place that is known of each key, or [`RowPlace::NONE`]; `lives` says which places count.
pub(super) fn find(shards: &[Shard], keys: &Keys, lives: &(impl Fn(RowPlace) -> bool + Sync)) -> Vec<RowPlace> {
    let by_shard = ByShard::new(keys);
    let mut found = vec![RowPlace::NONE; keys.len()];
    let shares = by_shard.shares();
    std::thread::scope(|scope| {
        let mut rest = &mut found[..];
        for (thread, share) in shares.iter().enumerate() {
            let (mine, others) = std::mem::take(&mut rest).split_at_mut(by_shard.places(share.clone()).len());
            rest = others;
            let by_shard = &by_shard;
            let mut work = move || find_share(&shards[share.clone()], (by_shard, share), mine, lives);
            if thread + 1 == shares.len() {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
    let mut places = vec![RowPlace::NONE; keys.len()];
    for (index, place) in by_shard.order.iter().zip(found) {
        places[*index as usize] = place;
    }
    places
}

fn find_share(
    shards: &[Shard],
    (by_shard, share): (&ByShard, &Range<usize>),
    found: &mut [RowPlace],
    lives: &impl Fn(RowPlace) -> bool,
) {
    let mut found = found.iter_mut();
    for (shard, table) in share.clone().zip(shards) {
        for block in by_shard.blocks(shard) {
            by_shard.touch(block.clone(), |key, hash| table.touch(key, hash));
            for (at, found) in block.zip(&mut found) {
                let (key, hash) = by_shard.key(at);
                let place = table.get(key, hash);
                *found = if place.is_some() && lives(place) { place } else { RowPlace::NONE };
            }
        }
    }
}

/// Calls `change` with each shard and the place in `by_shard` of each of its keys, and returns the sum of what it returns;
/// `lives` says which places count.
pub(super) fn change(
    shards: &mut [Shard],
    by_shard: &ByShard,
    lives: &(impl Fn(RowPlace) -> bool + Sync),
    change: &(impl Fn(&mut OpenShard<'_>, usize) -> u64 + Sync),
) -> u64 {
    let shares = by_shard.shares();
    std::thread::scope(|scope| {
        let mut rest = shards;
        let mut threads = Vec::new();
        let mut sum = 0;
        for (thread, share) in shares.iter().enumerate() {
            let (mine, others) = std::mem::take(&mut rest).split_at_mut(share.len());
            rest = others;
            let mut work = move || change_share(mine, (by_shard, share), lives, change);
            if thread + 1 == shares.len() {
                sum += work();
            } else {
                threads.push(scope.spawn(work));
            }
        }
        for thread in threads {
            match thread.join() {
                Ok(part) => sum += part,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        sum
    })
}

fn change_share(
    shards: &mut [Shard],
    (by_shard, share): (&ByShard, &Range<usize>),
    lives: &impl Fn(RowPlace) -> bool,
    change: &impl Fn(&mut OpenShard<'_>, usize) -> u64,
) -> u64 {
    let mut sum = 0;
    for (shard, table) in share.clone().zip(shards) {
        if by_shard.places(shard..shard + 1).is_empty() {
            continue;
        }
        let mut table = table.open(lives);
        for block in by_shard.blocks(shard) {
            by_shard.touch(block.clone(), |key, hash| table.touch(key, hash));
            sum += block.map(|place| change(&mut table, place)).sum::<u64>();
        }
    }
    sum
}
