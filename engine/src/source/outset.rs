//! Where a flow began in partitions that its table has no position for yet, and how many there were.
//!
//! The end of a partition and the partitions that are new are others each time they are asked for. A source that is opened
//! again after a failure, with nothing landed so far, goes on from where the first one began: what came in between would be
//! passed over otherwise, and nothing would tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alluvium_catalog::{Offset, Partition};

/// What a flow has known of its topic since it first looked. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outset {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    topic_id: Option<String>,
    n_partitions: Option<usize>,
    begun: BTreeMap<Partition, Offset>,
}

impl Outset {
    /// Takes note of the topic, which has `n_partitions` now, and returns how many it had at the first look. Under another id
    /// it is another topic, of which nothing is known.
    pub fn enter(&self, topic_id: Option<&str>, n_partitions: usize) -> usize {
        let mut known = self.known();
        if known.topic_id.as_deref().zip(topic_id).is_some_and(|(before, now)| before != now) {
            *known = Known::default();
        }
        if let Some(topic_id) = topic_id {
            known.topic_id = Some(topic_id.to_owned());
        }
        *known.n_partitions.get_or_insert(n_partitions)
    }

    /// Returns where `partition` was begun, if it was.
    pub fn begun(&self, partition: Partition) -> Option<Offset> {
        self.known().begun.get(&partition).copied()
    }

    /// Notes that `partition` is begun at `offset`.
    pub fn begin(&self, partition: Partition, offset: Offset) {
        self.known().begun.insert(partition, offset);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is known is whole between any two statements, so a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_counts_until_the_topic_is_another() {
        let (outset, partition) = (Outset::default(), Partition(3));
        assert_eq!((outset.enter(Some("a"), 4), outset.begun(partition)), (4, None));
        outset.begin(partition, Offset(7));
        // Brokers that know no ids tell nothing of another topic.
        for topic_id in [Some("a"), None, Some("a")] {
            assert_eq!((outset.clone().enter(topic_id, 6), outset.begun(partition)), (4, Some(Offset(7))));
        }
        assert_eq!((outset.enter(Some("b"), 6), outset.begun(partition)), (6, None));
    }
}
