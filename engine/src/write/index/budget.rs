//! The memory that the key indexes of one process may take together: each is bounded by itself, and there may be many.
//!
//! An index takes its share as it grows. The one that finds no more room halts its flow and gives its share back; those
//! that stay as they are go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alluvium_catalog::{Error, Result};

/// What all indexes of a process may take, and how much of it is taken.
#[derive(Debug)]
pub struct IndexBudget {
    bytes_max: u64,
    taken: AtomicU64,
}

/// What one index has taken, which is given back when this is dropped.
#[derive(Debug)]
pub(in crate::write) struct IndexShare {
    budget: Arc<IndexBudget>,
    bytes: u64,
}

impl Default for IndexBudget {
    /// A budget without bounds.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl IndexBudget {
    /// Returns a budget of `bytes_max` for all indexes together.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, taken: AtomicU64::new(0) }
    }

    /// Returns the share of an index that has taken nothing yet.
    pub(in crate::write) fn share(self: &Arc<Self>) -> IndexShare {
        IndexShare { budget: Arc::clone(self), bytes: 0 }
    }
}

impl IndexShare {
    /// Takes in that the index takes `bytes`, or is about to; `told` says what they are.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when that is more than before and there is no room for it. The share stays as it was.
    pub(in crate::write) fn resize(&mut self, bytes: u64, told: impl FnOnce() -> String) -> Result<()> {
        let taken = &self.budget.taken;
        let moved = match bytes.checked_sub(self.bytes) {
            None | Some(0) => {
                taken.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
                Ok(0)
            }
            Some(more) => taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(more).filter(|taken| *taken <= self.budget.bytes_max)
            }),
        };
        match moved {
            Ok(_) => {
                self.bytes = bytes;
                Ok(())
            }
            Err(taken) => Err(self.refused(&told(), taken - self.bytes)),
        }
    }

    /// Gives all of it back, before the index is gone: of a flow that halts, which refuses nobody else meanwhile.
    pub(in crate::write) fn give_back(&mut self) {
        self.budget.taken.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }

    fn refused(&self, told: &str, others: u64) -> Error {
        let text = format!(
            "the key index takes {told}, those of other flows {others} bytes, and index.total_memory allows {} for all",
            self.budget.bytes_max
        );
        let hint = "raise index.total_memory (ALLUVIUM_INDEX_TOTAL_MEMORY) if the machine has the memory, or run flows on other machines";
        Error::invalid(text).with_hint(hint)
    }
}

impl Drop for IndexShare {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(share: &mut IndexShare, bytes: u64) -> Result<()> {
        share.resize(bytes, || format!("{bytes} bytes"))
    }

    #[test]
    fn who_grows_beyond_the_budget_is_refused_and_who_does_not_goes_on() -> Result<()> {
        let budget = Arc::new(IndexBudget::new(100));
        let (mut one, mut other) = (budget.share(), budget.share());
        bytes(&mut one, 60)?;
        bytes(&mut other, 40)?;
        let refused = bytes(&mut one, 61).map_err(|error| error.to_string());
        let said = ["takes 61 bytes", "other flows 40 bytes", "index.total_memory allows 100"];
        assert!(matches!(&refused, Err(text) if said.iter().all(|part| text.contains(part))), "{refused:?}");
        for (share, n_bytes) in [(&mut one, 60), (&mut other, 40)] {
            bytes(share, n_bytes)?;
        }
        bytes(&mut other, 39)?;
        bytes(&mut one, 61)?;
        one.give_back();
        bytes(&mut other, 100)?;
        assert!(bytes(&mut one, 1).is_err());
        drop((one, other));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
        Ok(())
    }

    #[test]
    fn shares_of_many_threads_never_add_up_to_more() {
        let budget = Arc::new(IndexBudget::new(1_000));
        std::thread::scope(|scope| {
            for _thread in 0..4 {
                scope.spawn(|| {
                    let mut share = budget.share();
                    for bytes in (0..2_000).chain((0..500).rev()) {
                        let is_taken = share.resize(bytes, String::new).is_ok();
                        assert!(!is_taken || share.bytes == bytes);
                        assert!(budget.taken.load(Ordering::Relaxed) <= 1_000);
                    }
                });
            }
        });
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
