//! Work on many keys at once: the keys of a batch are put in order of their shards, and shards are shared out to threads.
//!
//! What is known of the keys is put in the same order first, one column after the other: so the work on a key reads beside
//! what it read for the one before, and not somewhere in memory. The slots where probes begin are asked for some keys ahead:
//! those loads do not wait for each other, where probes one after the other would wait for memory each time. A change that
//! follows a look-up goes on where its probes have ended.

use std::num::NonZero;
use std::ops::Range;

use super::place::RowPlace;
use super::shard::{Making, N_SHARDS, OpenShard, ProbeEnd, Shard, shard_of};
use crate::key::{KeyRef, Keys};

/// So many keys before its turn the slot of a key is asked for: about what a core can have under way at once. Loads a block of
/// 32 ahead took a tenth longer.
const AHEAD: usize = 16;

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

/// What is known of each key of a batch.
#[derive(Debug)]
pub struct FoundKeys {
    by_shard: ByShard,
    /// The place of each key, or [`RowPlace::NONE`]; in the order of shards, as the next.
    places: Vec<RowPlace>,
    ends: Vec<ProbeEnd>,
    /// The slots of each shard in which probes have ended.
    makings: Vec<Making>,
}

impl Default for FoundKeys {
    /// Returns what is known of no keys.
    fn default() -> Self {
        let by_shard = ByShard::new(&Keys::of([]));
        Self { by_shard, places: Vec::new(), ends: Vec::new(), makings: vec![Making::default(); N_SHARDS] }
    }
}

impl FoundKeys {
    /// Returns the place of each key, in the order of the batch.
    pub fn places(&self) -> Vec<RowPlace> {
        let mut places = vec![RowPlace::NONE; self.places.len()];
        for (index, place) in self.by_shard.order.iter().zip(&self.places) {
            places[*index as usize] = *place;
        }
        places
    }

    pub(super) fn by_shard(&self) -> &ByShard {
        &self.by_shard
    }

    /// Returns the place of the key at `place` in the order of shards.
    #[inline]
    pub(super) fn place(&self, place: usize) -> RowPlace {
        self.places[place]
    }
}

/// Returns what is known of each key; `lives` says which places count.
pub(super) fn find(shards: &[Shard], keys: &Keys, lives: &(impl Fn(RowPlace) -> bool + Sync)) -> FoundKeys {
    let by_shard = ByShard::new(keys);
    let mut places = vec![RowPlace::NONE; keys.len()];
    let mut ends = vec![ProbeEnd::NOWHERE; keys.len()];
    let shares = by_shard.shares();
    std::thread::scope(|scope| {
        let (mut places, mut ends) = (&mut places[..], &mut ends[..]);
        for (thread, share) in shares.iter().enumerate() {
            let n_keys = by_shard.places(share.clone()).len();
            let mine = (split_off(&mut places, n_keys), split_off(&mut ends, n_keys));
            let by_shard = &by_shard;
            let work = move || find_share(shards, (by_shard, share), mine, lives);
            if thread + 1 == shares.len() {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
    let makings = shards.iter().map(Shard::making).collect();
    FoundKeys { by_shard, places, ends, makings }
}

fn split_off<'a, T>(rest: &mut &'a mut [T], n_items: usize) -> &'a mut [T] {
    let (mine, others) = std::mem::take(rest).split_at_mut(n_items);
    *rest = others;
    mine
}

fn find_share(
    shards: &[Shard],
    (by_shard, share): (&ByShard, &Range<usize>),
    (places, ends): (&mut [RowPlace], &mut [ProbeEnd]),
    lives: &impl Fn(RowPlace) -> bool,
) {
    let all = by_shard.places(share.clone());
    let prefetch = |at: usize| {
        let (key, hash) = by_shard.key(at);
        shards[shard_of(hash)].prefetch(key, hash);
    };
    all.clone().take(AHEAD).for_each(prefetch);
    for (at, (place, end)) in all.clone().zip(places.iter_mut().zip(ends)) {
        if at + AHEAD < all.end {
            prefetch(at + AHEAD);
        }
        let (key, hash) = by_shard.key(at);
        let (known, ended) = shards[shard_of(hash)].find(key, hash);
        *end = ended;
        if known.is_some() && lives(known) {
            *place = known;
        }
    }
}

/// Calls `change` with each shard, the place in `by_shard` of each of its keys, and where its probe ended if `found` knows,
/// and returns the sum of what it returns; `lives` says which places count.
pub(super) fn change(
    shards: &mut [Shard],
    (by_shard, found): (&ByShard, Option<&FoundKeys>),
    lives: &(impl Fn(RowPlace) -> bool + Sync),
    change: &(impl Fn(&mut OpenShard<'_>, usize, ProbeEnd) -> u64 + Sync),
) -> u64 {
    let shares = by_shard.shares();
    std::thread::scope(|scope| {
        let mut rest = shards;
        let mut threads = Vec::new();
        let mut sum = 0;
        for (thread, share) in shares.iter().enumerate() {
            let mine = split_off(&mut rest, share.len());
            let mut work = move || change_share(mine, (by_shard, found, share), lives, change);
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
    (by_shard, found, share): (&ByShard, Option<&FoundKeys>, &Range<usize>),
    lives: &impl Fn(RowPlace) -> bool,
    change: &impl Fn(&mut OpenShard<'_>, usize, ProbeEnd) -> u64,
) -> u64 {
    let mut sum = 0;
    for (shard, table) in share.clone().zip(shards) {
        let places = by_shard.places(shard..shard + 1);
        if places.is_empty() {
            continue;
        }
        let mut table = table.open(lives);
        // A table that is made anew on the way gives its keys other slots.
        let end = |table: &OpenShard<'_>, at: usize| match found {
            Some(found) if table.making() == Some(found.makings[shard]) => found.ends[at],
            _ => ProbeEnd::NOWHERE,
        };
        let prefetch = |table: &OpenShard<'_>, at: usize| {
            let (key, hash) = by_shard.key(at);
            table.prefetch(key, hash, end(table, at));
        };
        places.clone().take(AHEAD).for_each(|at| prefetch(&table, at));
        for at in places.clone() {
            if at + AHEAD < places.end {
                prefetch(&table, at + AHEAD);
            }
            let from = end(&table, at);
            sum += change(&mut table, at, from);
        }
    }
    sum
}
