//! Copy-on-write: the files of which a batch supersedes rows are written anew without them, so that no reader has to know
//! deletion vectors.
//!
//! What is superseded is found as ever, by the index; only the way out of the table differs. Since they are read and
//! written anyway, small files of a partition become one on the way: where every batch touches every file, no compaction
//! beside the batches would ever find its inputs unchanged. After the commit the entries of the index move to the new
//! files as they do after a compaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium_catalog::Result;
use roaring::RoaringTreemap;

use super::draw::{Drawn, removal};
use super::relocate::Moved;
use super::{Decision, UpsertWriter};
use crate::delta::action::{Action, Add};
use crate::delta::state::TableState;
use crate::write::Staged;
use crate::write::compaction::Input;
use crate::write::rewrite::{Rewriter, Worn};

/// Files of at most this size together become one: half of what compaction aims at, so that a row which is touched again
/// and again does not drag a full file along each time.
const JOINED_BYTES_MAX: u64 = 64 << 20;

impl UpsertWriter {
    /// Returns the actions that a decision makes of staged files and of the rows that they supersede: the files of those
    /// rows are written anew without them, and staged files without rows that have turned out late.
    pub(super) async fn rewrite_files(
        &mut self,
        staged: &Staged,
        decision: &mut Decision,
        state: &TableState,
    ) -> Result<Drawn> {
        let now_ms = self.folder.clock.now().0;
        let (mut actions, mut worn) = (Vec::new(), Vec::new());
        for (ordinal, superseded) in decision.superseded() {
            let Some(file) = self.index.file(*ordinal) else { continue };
            let add = self.live_add(file, state)?;
            actions.push(Action::Remove(removal(add, now_ms)));
            let gone = file.deleted().as_ref() | superseded;
            if gone.len() < file.n_rows {
                worn.push(Worn { add: add.clone(), gone });
            }
        }
        for (place, file) in (0_u32..).zip(&staged.files) {
            match decision.late_rows.get(&place) {
                Some(_) if decision.leaves_out(place, file) => {}
                Some(late) => worn.push(Worn { add: file.add.clone(), gone: late.clone() }),
                None => actions.push(Action::Add(file.add.clone())),
            }
        }
        let (mut rewrites, mut open) = (Vec::new(), Vec::new());
        for job in jobs(worn) {
            match self.rewrites.iter().find(|rewrite| rewrite.is_of(&job)) {
                Some(done) => rewrites.push(Arc::clone(done)),
                None => open.push(job),
            }
        }
        if !open.is_empty() {
            let rewriter = Rewriter::try_new(self.folder.clone(), &state.metadata)?;
            rewrites.extend(rewriter.rewrite(open).await?.into_iter().map(Arc::new));
        }
        self.rewrites.clone_from(&rewrites);
        actions.extend(rewrites.iter().map(|rewrite| Action::Add(rewrite.output.add.clone())));
        let bytes = rewrites.iter().map(|rewrite| u64::try_from(rewrite.output.add.size).unwrap_or(0)).sum();
        decision.rewrites = rewrites;
        Ok(Drawn { actions, n_vectors: 0, bytes })
    }

    /// Takes the files that a commit has written anew into the index, in the place of those that they were made of.
    pub(super) fn take_rewrites(&mut self, decision: &Decision) {
        self.rewrites.clear();
        if decision.rewrites.is_empty() {
            return;
        }
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (output, rewrite) in decision.rewrites.iter().enumerate() {
            inputs.extend(rewrite.inputs.iter().map(|input| Input { way: input.way.behind(output), ..input.clone() }));
            outputs.push(rewrite.output.clone());
        }
        let deleted = vec![RoaringTreemap::new(); outputs.len()];
        self.move_rows(&Moved { inputs: &inputs, outputs: &outputs, deleted: &deleted });
    }
}

/// Returns which files become one: those of a partition that are small together, oldest first, and each other one alone.
fn jobs(worn: Vec<Worn>) -> Vec<Vec<Worn>> {
    let mut partitions: BTreeMap<Vec<(String, Option<String>)>, Vec<Worn>> = BTreeMap::new();
    for worn in worn {
        let values = worn.add.partition_values.iter();
        let mut values: Vec<_> = values.map(|(column, value)| (column.clone(), value.clone())).collect();
        values.sort();
        partitions.entry(values).or_default().push(worn);
    }
    let mut jobs = Vec::new();
    for mut files in partitions.into_values() {
        files.sort_by(|one, other| age(&one.add).cmp(&age(&other.add)));
        let (mut joined, mut bytes) = (Vec::new(), 0);
        for worn in files {
            let size = worn.size();
            if size >= JOINED_BYTES_MAX / 2 {
                jobs.push(vec![worn]);
                continue;
            }
            if bytes + size > JOINED_BYTES_MAX {
                jobs.push(std::mem::take(&mut joined));
                bytes = 0;
            }
            joined.push(worn);
            bytes += size;
        }
        if !joined.is_empty() {
            jobs.push(joined);
        }
    }
    jobs
}

fn age(add: &Add) -> (i64, &str) {
    (add.modification_time, &add.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worn(path: &str, size: i64, day: Option<&str>) -> Worn {
        let partition_values = [("day".to_owned(), day.map(str::to_owned))].into();
        let add = Add { path: path.to_owned(), size, partition_values, ..Add::default() };
        Worn { add, gone: RoaringTreemap::from_iter([1]) }
    }

    #[test]
    fn small_files_of_a_partition_become_one_and_large_ones_stay_alone() {
        const MIB: i64 = 1 << 20;
        let files = vec![
            worn("e", 30 * MIB, Some("mon")),
            worn("a", MIB, Some("mon")),
            worn("b", 40 * MIB, Some("mon")),
            worn("c", MIB, None),
            worn("d", 30 * MIB, Some("mon")),
            worn("f", 10 * MIB, Some("mon")),
        ];
        let names = |job: &Vec<Worn>| job.iter().map(|worn| worn.add.path.clone()).collect::<String>();
        assert_eq!(jobs(files).iter().map(names).collect::<Vec<_>>(), ["c", "b", "ade", "f"]);
        assert!(jobs(Vec::new()).is_empty());
    }
}
