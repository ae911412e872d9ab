//! Where `--once` ends: the ends that the partitions had when the flow first looked.
//!
//! A source that is opened again after a failure keeps them: a topic that grows faster than a service recovers would
//! otherwise move its end for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use alluvium_catalog::{Offset, Partition, Result};

/// The ends that a flow reads to. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Goal {
    ends: Arc<Mutex<Option<BTreeMap<Partition, Offset>>>>,
}

impl Goal {
    /// Returns the ends; when they are not known yet, those that `look` finds, from now on.
    ///
    /// # Errors
    /// What `look` says; nothing is kept then.
    pub fn ends(
        &self,
        look: impl FnOnce() -> Result<BTreeMap<Partition, Offset>>,
    ) -> Result<BTreeMap<Partition, Offset>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        match &*ends {
            Some(ends) => Ok(ends.clone()),
            None => Ok(ends.insert(look()?).clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::Error;

    use super::*;

    #[test]
    fn the_first_look_that_succeeds_counts() -> Result<()> {
        let (goal, ends) = (Goal::default(), |end| Ok(BTreeMap::from([(Partition(0), Offset(end))])));
        assert!(goal.ends(|| Err(Error::unavailable("no broker"))).is_err());
        assert_eq!(goal.ends(|| ends(5))?, ends(5)?);
        assert_eq!(goal.clone().ends(|| ends(9))?, ends(5)?);
        Ok(())
    }
}
