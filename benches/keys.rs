//! Which keys records have: how often a stream comes back to a key decides what an upsert costs.

use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;

/// How a workload draws its keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Distribution {
    /// Every key is as likely as any other.
    #[default]
    Uniform,
    /// The key of rank `r` is drawn in proportion to `1 / r^exponent`: few keys have most records.
    Zipf {
        /// 1 is the classic; 0 would be uniform.
        exponent: f64,
    },
    /// Most records are of a key that never was; the others change one of the newest.
    AppendMostly {
        /// The share of records with a new key, 0 to 1.
        new_share: f64,
    },
}

/// Draws keys, from 0 on.
#[derive(Debug)]
pub struct Keys {
    n_keys: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Uniform,
    /// The cumulated weights of the ranks.
    Zipf(Vec<f64>),
    AppendMostly {
        new_share: f64,
        next: u64,
    },
}

impl Keys {
    /// Returns a drawer of `n_keys` keys; for `AppendMostly` that is how many of the newest are changed again.
    pub fn new(distribution: Distribution, n_keys: u64) -> Self {
        let state = match distribution {
            Distribution::Uniform => State::Uniform,
            Distribution::Zipf { exponent } => State::Zipf(cumulated(n_keys, exponent)),
            Distribution::AppendMostly { new_share } => State::AppendMostly { new_share, next: 0 },
        };
        Self { n_keys: n_keys.max(1), state }
    }

    /// Draws a key.
    pub fn draw(&mut self, chance: &mut StdRng) -> u64 {
        match &mut self.state {
            State::Uniform => chance.random_range(0..self.n_keys),
            State::Zipf(cumulated) => {
                let at = chance.random_range(0.0..cumulated.last().copied().unwrap_or(1.0));
                let rank = cumulated.partition_point(|weight| *weight <= at) as u64;
                scatter(rank, self.n_keys)
            }
            State::AppendMostly { new_share, next } => {
                if *next == 0 || chance.random_range(0.0..1.0) < *new_share {
                    *next += 1;
                    return *next - 1;
                }
                chance.random_range(next.saturating_sub(self.n_keys)..*next)
            }
        }
    }
}

fn cumulated(n_keys: u64, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let weight = |rank: u64| {
        sum += (rank as f64).powf(-exponent);
        sum
    };
    (1..=n_keys.max(1)).map(weight).collect()
}

/// Returns the key of a rank: hot keys do not lie beside each other. One to one where the prime does not divide `n_keys`.
fn scatter(rank: u64, n_keys: u64) -> u64 {
    const PRIME: u64 = 2_654_435_761;
    let scattered = u128::from(rank) * u128::from(PRIME) % u128::from(n_keys);
    u64::try_from(scattered).unwrap_or(rank)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng;

    use super::*;

    /// Draws 100,000 keys of 1,000 and returns how often each came, most frequent first.
    fn counts(distribution: Distribution) -> Vec<u64> {
        let (mut keys, mut chance) = (Keys::new(distribution, 1_000), StdRng::seed_from_u64(7));
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for _ in 0..100_000 {
            *counts.entry(keys.draw(&mut chance)).or_default() += 1;
        }
        let mut counts: Vec<u64> = counts.into_values().collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        counts
    }

    #[test]
    fn distributions_differ_as_they_say() {
        let uniform = counts(Distribution::Uniform);
        assert_eq!(uniform.len(), 1_000);
        assert!(uniform.iter().all(|count| (40..180).contains(count)), "{uniform:?}");
        let zipf = counts(Distribution::Zipf { exponent: 1.0 });
        // The harmonic number of 1,000 is 7.49: the first rank has 13.4 % of all records, the second half of that.
        assert!(zipf.iter().take(2).zip([13_360_u64, 6_680]).all(|(count, due)| count.abs_diff(due) < 600), "{zipf:?}");
        let append = counts(Distribution::AppendMostly { new_share: 0.9 });
        assert!((89_000..91_000).contains(&append.len()), "{}", append.len());
    }

    #[test]
    fn ranks_become_keys_one_to_one() {
        let mut keys: Vec<u64> = (0..1_000).map(|rank| scatter(rank, 1_000)).collect();
        keys.sort_unstable();
        assert_eq!(keys, (0..1_000).collect::<Vec<_>>());
    }
}
