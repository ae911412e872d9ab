//! The index as other tasks may look into it while batches land: lent between changes, taken back for each.
//!
//! A borrower holds the channel's read lock for the length of a look, which is microseconds, and never keeps the index:
//! so a change finds no second owner, and nothing is copied for it. While an index is changed, or half on its way from
//! one version to another, there is none to look into, and who asks waits for the next, within a bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::KeyIndex;
use crate::delta::log::Version;

/// How long a look waits for a change to be over. Applying a batch takes some milliseconds, up to tens for a large one;
/// what takes longer follows other writers, and reads files for it.
const WAIT: Duration = Duration::from_millis(50);

/// The writer's end: it owns the index and lends it.
#[derive(Debug)]
pub(in crate::write) struct IndexLender {
    state: watch::Sender<State>,
}

/// The end of who looks up keys.
#[derive(Debug, Clone)]
pub(in crate::write) struct LentIndex {
    state: watch::Receiver<State>,
}

#[derive(Debug, Default)]
struct State {
    lent: Option<(Arc<KeyIndex>, Version)>,
    /// The version that a commit on its way will make.
    coming: Option<Version>,
}

impl State {
    /// Tells whether there is an index to look into, and no newer one to wait for by who has seen version `seen`.
    fn is_ready(&self, seen: Version) -> bool {
        match &self.lent {
            Some((_, version)) => *version >= seen || self.coming.is_none_or(|coming| coming < seen),
            None => false,
        }
    }
}

impl IndexLender {
    /// Returns a lender that lends nothing yet.
    pub(in crate::write) fn new() -> Self {
        Self { state: watch::Sender::new(State::default()) }
    }

    /// Returns an end to look through.
    pub(in crate::write) fn borrower(&self) -> LentIndex {
        LentIndex { state: self.state.subscribe() }
    }

    /// Lends the index as of `version` until it is taken back.
    pub(in crate::write) fn lend(&self, index: &Arc<KeyIndex>, version: Version) {
        self.state.send_replace(State { lent: Some((Arc::clone(index), version)), coming: None });
    }

    /// Takes the index back; to be called before each change of it, or the change gathers over tables that are shared.
    pub(in crate::write) fn take_back(&self) {
        self.state.send_if_modified(|state| {
            state.lent = None;
            false
        });
    }

    /// Says that a commit of `version` is on its way: who has seen that version already waits for its index.
    pub(in crate::write) fn expect(&self, version: Version) {
        self.state.send_if_modified(|state| {
            state.coming = Some(version);
            false
        });
    }
}

impl Drop for IndexLender {
    /// An index without its writer follows nothing any more, and its memory is wanted back.
    fn drop(&mut self) {
        self.state.send_replace(State::default());
    }
}

impl LentIndex {
    /// Looks into the index, once there is one for who has seen version `seen`; `None` when there is none in time.
    pub(in crate::write) async fn look<T>(
        &mut self,
        seen: Version,
        look: impl FnOnce(&KeyIndex, Version) -> T,
    ) -> Option<T> {
        let ready = self.state.wait_for(|state| state.is_ready(seen));
        let state = tokio::time::timeout(WAIT, ready).await.ok()?.ok()?;
        let (index, version) = state.lent.as_ref()?;
        Some(look(index, *version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_index_is_looked_into_while_it_is_lent_and_not_while_it_changes() {
        let lender = IndexLender::new();
        let (mut borrower, mut index) = (lender.borrower(), Arc::new(KeyIndex::default()));
        assert_eq!(borrower.look(0, |_, version| version).await, None);
        lender.lend(&index, 4);
        assert_eq!(borrower.look(4, |_, version| version).await, Some(4));
        assert!(Arc::get_mut(&mut index).is_none(), "lent");
        lender.take_back();
        assert!(Arc::get_mut(&mut index).is_some(), "a change copies nothing");
        assert_eq!(borrower.look(4, |_, version| version).await, None);
        lender.lend(&index, 5);
        drop(lender);
        assert!(Arc::get_mut(&mut index).is_some(), "the writer is gone, and the index with it");
        assert_eq!(borrower.look(0, |_, version| version).await, None);
    }

    #[tokio::test]
    async fn who_has_seen_a_commit_on_its_way_waits_for_it_and_nobody_else_does() {
        let lender = IndexLender::new();
        let (mut borrower, index) = (lender.borrower(), Arc::new(KeyIndex::default()));
        lender.lend(&index, 4);
        assert_eq!(borrower.look(7, |_, version| version).await, Some(4), "another writer's version");
        lender.expect(5);
        assert_eq!(borrower.look(4, |_, version| version).await, Some(4));
        let begun = std::time::Instant::now();
        assert_eq!(borrower.look(5, |_, version| version).await, None);
        assert!(begun.elapsed() >= WAIT);
        let landing = async {
            tokio::time::sleep(WAIT / 2).await;
            lender.lend(&index, 5);
        };
        assert_eq!(tokio::join!(borrower.look(5, |_, version| version), landing).0, Some(5));
    }
}
