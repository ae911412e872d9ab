//! Work on many keys at once: the keys of a batch are put in order of their shards, and shards are shared out to threads.
//!
//! Within a shard, the slots where probes begin are looked at in advance for a block of keys: those loads do not wait for
//! each other, where probes one after the other would wait for memory each time.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

use super::place::RowPlace;
use super::shard::{SHARD_BITS, Shard};
use crate::key::Keys;

/// Shards of an index.
pub(super) const N_SHARDS: usize = 1 << SHARD_BITS;

/// Keys whose slots are looked at in advance: what a core can have under way at once, and more does not help.
const BLOCK: usize = 32;

/// Below this a thread costs more than it saves.
const KEYS_A_THREAD_MIN: usize = 8_192;

/// The keys of a batch in order of their shards.
#[derive(Debug)]
pub(super) struct ByShard {
    /// The index of each key.
    order: Vec<u32>,
    /// Where the keys of each shard begin in `order`; one more than there are shards.
    starts: Vec<usize>,
}

pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
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
        Self { order, starts }
    }

    fn of_shards(&self, shards: &Range<usize>) -> &[u32] {
        &self.order[self.starts[shards.start]..self.starts[shards.end]]
    }

    /// Returns runs of shards, one a thread, with about as many keys each.
    fn shares(&self) -> Vec<Range<usize>> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let n_threads = (self.order.len() / KEYS_A_THREAD_MIN).clamp(1, cores.min(N_SHARDS));
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
pub(super) fn find(shards: &[Arc<Shard>], keys: &Keys, lives: &(impl Fn(RowPlace) -> bool + Sync)) -> Vec<RowPlace> {
    let by_shard = ByShard::new(keys);
    let mut found = vec![RowPlace::NONE; keys.len()];
    let shares = by_shard.shares();
    std::thread::scope(|scope| {
        let mut rest = &mut found[..];
        for (thread, share) in shares.iter().enumerate() {
            let (mine, others) = std::mem::take(&mut rest).split_at_mut(by_shard.of_shards(share).len());
            rest = others;
            let by_shard = &by_shard;
            let mut work = move || find_share(shards, keys, (by_shard, share), (mine, lives));
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
    shards: &[Arc<Shard>],
    keys: &Keys,
    (by_shard, share): (&ByShard, &Range<usize>),
    (found, lives): (&mut [RowPlace], &impl Fn(RowPlace) -> bool),
) {
    let mut found = found.iter_mut();
    for shard in share.clone() {
        let table = &shards[shard];
        for block in by_shard.of_shards(&(shard..shard + 1)).chunks(BLOCK) {
            let mut touched = 0;
            for index in block {
                touched ^= table.touch(keys.get(*index as usize), keys.hashes()[*index as usize]);
            }
            std::hint::black_box(touched);
            for (index, found) in block.iter().zip(&mut found) {
                let place = table.get(keys.get(*index as usize), keys.hashes()[*index as usize]);
                *found = if place.is_some() && lives(place) { place } else { RowPlace::NONE };
            }
        }
    }
}

/// Calls `change` with each shard and the index of each of its keys, and returns the sum of what it returns.
pub(super) fn change(
    shards: &mut [Arc<Shard>],
    keys: &Keys,
    change: &(impl Fn(&mut Shard, usize) -> u64 + Sync),
) -> u64 {
    let by_shard = ByShard::new(keys);
    let shares = by_shard.shares();
    std::thread::scope(|scope| {
        let mut rest = shards;
        let mut threads = Vec::new();
        let mut sum = 0;
        for (thread, share) in shares.iter().enumerate() {
            let (mine, others) = std::mem::take(&mut rest).split_at_mut(share.len());
            rest = others;
            let by_shard = &by_shard;
            let mut work = move || change_share(mine, keys, (by_shard, share), change);
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
    shards: &mut [Arc<Shard>],
    keys: &Keys,
    (by_shard, share): (&ByShard, &Range<usize>),
    change: &impl Fn(&mut Shard, usize) -> u64,
) -> u64 {
    let mut sum = 0;
    for (shard, table) in share.clone().zip(shards) {
        let indices = by_shard.of_shards(&(shard..shard + 1));
        if indices.is_empty() {
            continue;
        }
        let table = Arc::make_mut(table);
        for block in indices.chunks(BLOCK) {
            let mut touched = 0;
            for index in block {
                touched ^= table.touch(keys.get(*index as usize), keys.hashes()[*index as usize]);
            }
            std::hint::black_box(touched);
            for index in block {
                sum += change(table, *index as usize);
            }
        }
    }
    sum
}
