//! Processes that die: at one of their operations, at each of them, or right before a compaction is committed; and what
//! they leave, in the table and beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;

use super::History;
use crate::harness::TestResult;
use crate::harness::fault::{FaultyStore, Script};
use crate::histories::orphans::{has_landed_rows, unnamed};
use crate::histories::place::{Kind, Life};
use crate::histories::protocol::Replay;
use crate::histories::witness::Witness;

impl History {
    /// Kills a process at one of its operations, in the table itself.
    pub(super) async fn crash(&mut self, life: Life, operation: usize) -> TestResult {
        let store = Arc::new(FaultyStore::new(self.store(), Some(Script::death(operation))));
        self.met.deaths += usize::from(self.place.die(&store, life).await?);
        store.cut().await;
        if self.witness.versions().is_empty() { Ok(()) } else { self.check(&Arc::clone(&self.witness)).await }
    }

    /// Kills a process right before it commits a compaction, in the table itself.
    pub(super) async fn die_before_swap(&mut self, life: Life) -> TestResult {
        let witness = Arc::clone(&self.witness);
        let before = unnamed(&witness).await?;
        let store = Arc::new(FaultyStore::new(self.store(), None));
        witness.hold_compactions();
        let died = self.place.die_when(&store, life, witness.compaction_held()).await;
        store.cut().await;
        witness.let_compactions_pass();
        if died? {
            self.met.deaths += 1;
            self.met.orphaned += usize::from(self.has_orphaned(&witness, &before).await?);
        }
        self.check(&witness).await
    }

    /// Kills a process at each of its operations, each in a copy of the store, on a disk of its own; then it lives on there.
    pub(super) async fn die_everywhere(&mut self, life: Life) -> TestResult {
        self.place.change_disk()?;
        let counting = Arc::new(FaultyStore::new(Arc::new(self.witness.fork()), None));
        self.place.live(&counting, life).await?;
        counting.cut().await;
        for operation in 0..counting.n_operations() {
            self.place.change_disk()?;
            let fork = Arc::new(self.witness.fork());
            let survived = self.die_at(&fork, operation, life).await;
            let n_orphaned = survived.map_err(|error| format!("after a death at operation {operation}: {error}"))?;
            self.met.deaths += 1;
            self.met.orphaned += n_orphaned;
        }
        self.place.change_disk()
    }

    /// Kills a process and the next one, and returns how many of them left outputs of compactions.
    async fn die_at(&self, fork: &Arc<Witness>, operation: usize, life: Life) -> TestResult<usize> {
        let (mut copy, mut n_orphaned) = (self.model.clone(), 0);
        // A second death finds what the first has left half done.
        for operation in [operation, operation / 2] {
            let before = unnamed(fork).await?;
            let store = Arc::new(FaultyStore::new(Arc::clone(fork) as _, Some(Script::death(operation))));
            let died = self.place.die(&store, life).await?;
            store.cut().await;
            n_orphaned += usize::from(died && self.has_orphaned(fork, &before).await?);
            if !fork.versions().is_empty() {
                let (replay, rows) = self.check_protocol(fork).await?;
                copy.advance(&self.ledger, &replay.positions());
                copy.check(&rows)?;
            }
        }
        let store = Arc::new(FaultyStore::new(Arc::clone(fork) as _, None));
        self.place.live(&store, life).await?;
        store.cut().await;
        let (replay, rows) = self.check_protocol(fork).await?;
        self.check_drained(&replay)?;
        copy.advance(&self.ledger, &replay.positions());
        copy.check(&rows)?;
        Ok(n_orphaned)
    }

    /// Tells whether an output of a compaction has come into the store that no version names; `before` are the unnamed
    /// files that were there before.
    async fn has_orphaned(&self, witness: &Arc<Witness>, before: &BTreeSet<Path>) -> TestResult<bool> {
        // Batches write rows anew there that have landed, as compactions do.
        if self.place.kind == Kind::Rewritten {
            return Ok(false);
        }
        let after = unnamed(witness).await?;
        let new: BTreeSet<Path> = after.difference(before).cloned().collect();
        let reached = Replay::of(&witness.versions())?.positions();
        has_landed_rows(witness, &new, &reached, &self.place.keys).await
    }
}
