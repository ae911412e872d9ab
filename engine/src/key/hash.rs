//! The hash of a key: where to look for it, and nothing else. Seeded once a process, so that nobody who can write to a
//! topic can choose keys that meet.
//!
//! Each step multiplies 64 by 64 bits and folds the halves of the product together, which mixes every bit into every
//! other at the price of one multiplication.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use super::{KeyRef, Values};

/// A number without structure: the fraction of the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

static SEEDS: LazyLock<[u64; 3]> = LazyLock::new(|| {
    let random = RandomState::new();
    [random.hash_one(1), random.hash_one(2) | 1, random.hash_one(3)]
});

/// How keys are hashed in this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashing {
    seeds: [u64; 3],
}

impl Hashing {
    pub(super) fn of_process() -> Self {
        Self { seeds: *SEEDS }
    }

    /// Returns the hash of each key.
    pub(super) fn hashes(&self, values: &Values) -> Vec<u64> {
        match values {
            Values::Narrow(keys) => keys.iter().map(|key| self.narrow(*key)).collect(),
            Values::Wide(keys) => keys.iter().map(|key| self.wide(*key)).collect(),
            Values::Mixed { parts, arena } => parts.iter().map(|part| self.one(part.borrow(arena))).collect(),
        }
    }

    #[inline]
    pub(super) fn one(&self, key: KeyRef<'_>) -> u64 {
        match key {
            KeyRef::Narrow(key) => self.narrow(key),
            KeyRef::Wide(key) => self.wide(key),
            KeyRef::Bytes(bytes) => self.bytes(bytes),
        }
    }

    #[inline]
    fn narrow(&self, key: u64) -> u64 {
        let [one, odd, two] = self.seeds;
        fold(fold(key ^ one, odd) ^ two, ODD)
    }

    #[inline]
    fn wide(&self, key: u128) -> u64 {
        let [one, odd, two] = self.seeds;
        let (high, low) = ((key >> 64) as u64, key as u64);
        fold(fold(low ^ one, odd) ^ high, fold(high ^ two, ODD) | 1)
    }

    fn bytes(&self, bytes: &[u8]) -> u64 {
        let [one, odd, two] = self.seeds;
        let mut hash = fold(one ^ bytes.len() as u64, odd);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            hash = fold(hash ^ u64::from_le_bytes(*word), odd) ^ two;
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        fold(fold(hash ^ u64::from_le_bytes(last), odd) ^ two, ODD)
    }
}

#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product as u64) ^ ((product >> 64) as u64)
}
