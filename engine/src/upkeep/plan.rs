//! Chooses the files that one compaction rewrites: pure, out of what the log says of them.
//!
//! Small files of one partition are taken in tiers of like size, each eight times the one below, so that a row is
//! rewritten once a tier and not once a batch. A file of which many rows are deleted is taken whatever its size. Files of
//! different partitions are never mixed. What a clustered table has to be rewritten of is chosen in
//! [`clustered`].

mod clustered;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use crate::config::UpkeepSettings;
use crate::delta::action::{Add, num_records};
use crate::delta::clustering::{self, Clustered, Mark};
use crate::delta::state::TableState;
use crate::write::compaction::{Compaction, Output};
use crate::write::partition::PartitionValues;

pub use clustered::choose_among;

/// How many times larger the files of a tier are than those of the tier below.
const TIER_FACTOR: u64 = 8;

/// What a compaction aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aims {
    /// The size that files are given.
    pub target_bytes: u64,
    /// The share of deleted rows, in percent, from which on a file is rewritten.
    pub deleted_percent: u64,
    /// What one compaction reads at most.
    pub bytes_max: u64,
    /// How large a run of clustered files grows by being merged with others.
    pub run_bytes: u64,
    /// What sorting rows may take in memory; the rest goes to disk.
    pub sort_bytes: usize,
    /// Which small files are worth a compaction.
    pub zeal: Zeal,
}

/// Which small files are worth a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeal {
    /// As many of like size at least: beside batches, where more come.
    Tiers {
        /// How many.
        files_min: usize,
    },
    /// Any two: somebody asked for it.
    All,
}

/// The order that the rows of a compaction are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// They keep their order, file after file.
    Kept,
    /// They keep their order, and the files their bounds: no output holds rows of two files of this run.
    KeptApart(Mark),
    /// They are sorted by these columns, into a run of their own.
    Clustered(Vec<String>),
}

/// The files of one compaction, in the order of their rows in the outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The order of their rows.
    pub order: Order,
    /// Their partition.
    pub partition: PartitionValues,
    /// The files, oldest first.
    pub files: Vec<Add>,
}

impl Choice {
    /// Returns the bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(size).sum()
    }
}

impl Aims {
    /// Returns what a compaction beside batches aims at.
    pub fn beside_batches(settings: &UpkeepSettings) -> Self {
        Self { zeal: Zeal::Tiers { files_min: settings.files_min }, ..Self::all(settings) }
    }

    /// Returns what a compaction aims at that somebody asked for.
    pub fn all(settings: &UpkeepSettings) -> Self {
        Self {
            target_bytes: settings.target_bytes,
            deleted_percent: settings.deleted_percent,
            bytes_max: settings.compaction_bytes,
            run_bytes: settings.compaction_bytes,
            sort_bytes: settings.sort_bytes,
            zeal: Zeal::All,
        }
    }
}

/// Returns the files that are worth a compaction most: those of the partition whose newest is the oldest, so that a
/// partition in which batches land keeps no other waiting; of several, those of the one that has the most of them.
/// The files `settled`, of which a compaction [gained nothing](gains_nothing), are taken only once they are worn.
pub fn choose(state: &TableState, aims: &Aims, settled: &HashSet<String>) -> Option<Choice> {
    let by = state.clustering();
    // A table is partitioned or clustered, never both; files of two partitions are not mixed for one that claims to be.
    if !by.is_empty() && state.metadata.partition_columns.is_empty() {
        return clustered::choose(state, aims, &by);
    }
    let mut partitions: BTreeMap<Vec<(&str, Option<&str>)>, Vec<&Add>> = BTreeMap::new();
    for add in state.files.values() {
        partitions.entry(partition_key(&add.partition_values)).or_default().push(add);
    }
    let chosen = partitions.into_values().map(|files| choose_within(files, aims, settled));
    let chosen = chosen.filter(|files| !files.is_empty());
    let newest = |files: &[&Add]| files.iter().map(|add| add.modification_time).max();
    let files = chosen.min_by_key(|files| (newest(files), Reverse(files.len())))?;
    let partition = files.first()?.partition_values.clone();
    Some(Choice { order: Order::Kept, partition, files: files.into_iter().cloned().collect() })
}

/// Tells whether a compaction gains nothing: no fewer files, in the order that they had, and none of many deleted rows
/// before. Its files would be chosen again as they are.
pub fn gains_nothing(compaction: &Compaction, aims: &Aims) -> bool {
    let is_sorted = |output: &Output| clustering::clustered(&output.add) != Clustered::No;
    compaction.outputs.len() >= compaction.inputs.len()
        && !compaction.inputs.iter().any(|input| is_worn(&input.add, aims))
        && !compaction.outputs.iter().any(is_sorted)
}

/// Returns the files of one partition that are worth a compaction, at most as many as it may read.
fn choose_within<'a>(files: Vec<&'a Add>, aims: &Aims, settled: &HashSet<String>) -> Vec<&'a Add> {
    let mut tiers: BTreeMap<u32, Vec<&Add>> = BTreeMap::new();
    let mut chosen = Vec::new();
    for add in files.into_iter().filter(|add| size(add) <= aims.bytes_max) {
        if is_worn(add, aims) {
            chosen.push(add);
        } else if size(add) < aims.target_bytes / 2 && !settled.contains(&add.path) {
            let tier = match aims.zeal {
                Zeal::Tiers { .. } => tier_of(size(add), aims.target_bytes),
                Zeal::All => 0,
            };
            tiers.entry(tier).or_default().push(add);
        }
    }
    let files_min = match aims.zeal {
        Zeal::Tiers { files_min } => files_min,
        Zeal::All => 2,
    };
    // The largest files first: they have waited for eight merges of those below, which small ones of every batch would
    // else keep from ever coming.
    if let Some((_, like)) = tiers.iter().find(|(_, like)| like.len() >= files_min) {
        chosen.extend(like);
    } else if aims.zeal == Zeal::All && !chosen.is_empty() {
        chosen.extend(tiers.into_values().flatten());
    }
    let worn = chosen.iter().copied().find(|add| is_worn(add, aims));
    chosen.sort_by(|one, other| (one.modification_time, &one.path).cmp(&(other.modification_time, &other.path)));
    let mut bytes = 0_u64;
    let kept = chosen.iter().take_while(|add| {
        bytes = bytes.saturating_add(size(add));
        bytes <= aims.bytes_max
    });
    let n_kept = kept.count();
    chosen.truncate(n_kept);
    // One small file alone would be written again as it is, and a worn one behind it would wait for ever.
    if chosen.len() == 1 && !chosen.iter().any(|add| is_worn(add, aims)) {
        chosen = worn.into_iter().collect();
    }
    chosen
}

/// Tells whether enough rows of a file are deleted.
fn is_worn(add: &Add, aims: &Aims) -> bool {
    let Some(vector) = &add.deletion_vector else { return false };
    let deleted = u64::try_from(vector.cardinality).unwrap_or(0);
    num_records(add)
        .is_some_and(|rows| rows > 0 && deleted.saturating_mul(100) >= rows.saturating_mul(aims.deleted_percent))
}

/// Returns how many times a size has to grow by the factor to be that of a target file.
fn tier_of(bytes: u64, target_bytes: u64) -> u32 {
    let mut tier = 0;
    let mut bound = target_bytes;
    while bytes < bound / TIER_FACTOR && bound >= TIER_FACTOR {
        bound /= TIER_FACTOR;
        tier += 1;
    }
    tier
}

fn size(add: &Add) -> u64 {
    u64::try_from(add.size).unwrap_or(0)
}

fn partition_key(values: &PartitionValues) -> Vec<(&str, Option<&str>)> {
    let mut key: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    key.sort_unstable();
    key
}

#[cfg(test)]
mod tests {
    use roaring::RoaringTreemap;

    use super::*;
    use crate::delta::action::{DeletionVectorDescriptor, StorageType};
    use crate::write::compaction::{Input, Way};

    const AIMS: Aims = Aims {
        target_bytes: 1_000,
        deleted_percent: 20,
        bytes_max: 5_000,
        run_bytes: 5_000,
        sort_bytes: 1 << 20,
        zeal: Zeal::Tiers { files_min: 3 },
    };

    /// A file by name, size and deleted rows of ten; the partition is the first letter.
    fn file((path, size, deleted): &(&str, i64, i64)) -> Add {
        let vector = (*deleted > 0).then(|| DeletionVectorDescriptor {
            storage_type: StorageType::Inline,
            path_or_inline_dv: String::new(),
            offset: None,
            size_in_bytes: 0,
            cardinality: *deleted,
        });
        Add {
            path: (*path).to_owned(),
            size: *size,
            partition_values: [("p".to_owned(), path.get(..1).map(str::to_owned))].into(),
            stats: Some(r#"{"numRecords":10}"#.to_owned()),
            deletion_vector: vector,
            ..Add::default()
        }
    }

    fn check(files: &[(&str, i64, i64)], aims: &Aims, expected: &[&str]) {
        check_beside(&[], files, aims, expected);
    }

    fn check_beside(settled: &[&str], files: &[(&str, i64, i64)], aims: &Aims, expected: &[&str]) {
        let mut state = TableState::default();
        for (moment, told) in (0..).zip(files) {
            let add = Add { modification_time: moment, ..file(told) };
            state.files.insert(add.path.clone(), add);
        }
        let settled = settled.iter().map(|path| (*path).to_owned()).collect();
        let chosen = choose(&state, aims, &settled).map_or_else(Vec::new, |choice| choice.files);
        assert_eq!(chosen.iter().map(|add| add.path.as_str()).collect::<Vec<_>>(), expected, "of {files:?}");
    }

    #[test]
    fn small_files_of_like_size_are_taken_together_oldest_first() {
        check(&[("a3", 10, 0), ("a1", 12, 0), ("a2", 11, 0), ("a4", 300, 0)], &AIMS, &["a3", "a1", "a2"]);
        check(&[("a1", 10, 0), ("a2", 10, 0), ("a3", 300, 0)], &AIMS, &[]);
        check(&[("a1", 900, 0), ("a2", 900, 0), ("a3", 900, 0)], &AIMS, &[]);
    }

    #[test]
    fn partitions_are_never_mixed_and_the_one_that_waits_longest_comes_first() {
        check(&[("a1", 10, 0), ("b1", 10, 0), ("a2", 10, 0)], &AIMS, &[]);
        let files = [("a1", 9, 0), ("a2", 9, 0), ("a3", 9, 0), ("b1", 9, 0), ("b2", 9, 0), ("b3", 9, 0), ("b4", 9, 0)];
        check(&files, &AIMS, &["a1", "a2", "a3"]);
        let cold = [("a1", 900, 5), ("b1", 9, 0), ("b2", 9, 0), ("b3", 9, 0), ("b4", 9, 0)];
        check(&cold, &AIMS, &["a1"]);
    }

    #[test]
    fn large_files_of_like_size_go_before_small_ones() {
        let files =
            [("a1", 9, 0), ("a2", 9, 0), ("a3", 9, 0), ("a4", 90, 0), ("a5", 90, 0), ("a6", 90, 0), ("a7", 300, 0)];
        check(&files, &AIMS, &["a4", "a5", "a6"]);
    }

    /// A compaction for each eight batches, which is what upkeep allows itself.
    #[test]
    fn even_batches_without_end_leave_few_files() -> Result<(), serde_json::Error> {
        let aims = Aims { target_bytes: 1 << 27, bytes_max: 1 << 30, zeal: Zeal::Tiers { files_min: 8 }, ..AIMS };
        let mut state = TableState::default();
        let mut most = 0;
        for batch in 0..4_000_i64 {
            let mut add: Add = serde_json::from_value(serde_json::json!({
                "path": format!("{batch}"), "size": 4_000, "modificationTime": batch, "dataChange": true,
                "partitionValues": {},
            }))?;
            state.files.insert(add.path.clone(), add.clone());
            if batch % 8 == 7
                && let Some(choice) = choose(&state, &aims, &HashSet::new())
            {
                for gone in &choice.files {
                    state.files.remove(&gone.path);
                }
                add.path = format!("merged {batch}");
                add.size = choice.files.iter().map(|gone| gone.size).sum();
                state.files.insert(add.path.clone(), add);
            }
            most = most.max(state.files.len());
        }
        assert!(most < 60, "{most} files");
        Ok(())
    }

    #[test]
    fn files_with_many_deleted_rows_are_taken_whatever_their_size() {
        check(&[("a1", 900, 2), ("a2", 900, 1)], &AIMS, &["a1"]);
        check(&[("a1", 900, 1)], &AIMS, &[]);
    }

    #[test]
    fn no_compaction_reads_more_than_it_may() {
        let aims = Aims { bytes_max: 25, ..AIMS };
        check(&[("a1", 10, 0), ("a2", 10, 0), ("a3", 10, 0)], &aims, &["a1", "a2"]);
        let aims = Aims { bytes_max: 15, ..AIMS };
        check(&[("a1", 10, 0), ("a2", 10, 0), ("a3", 10, 0)], &aims, &[]);
    }

    #[test]
    fn what_somebody_asked_for_takes_any_two() {
        let aims = Aims { zeal: Zeal::All, ..AIMS };
        check(&[("a1", 10, 0), ("a2", 300, 0), ("a3", 900, 0)], &aims, &["a1", "a2"]);
        check(&[("a1", 10, 0), ("a3", 900, 0)], &aims, &[]);
    }

    #[test]
    fn settled_files_are_left_out_until_they_are_worn() {
        let aims = Aims { zeal: Zeal::All, ..AIMS };
        check_beside(&["a1"], &[("a1", 10, 0), ("a2", 10, 0), ("a3", 10, 0)], &aims, &["a2", "a3"]);
        check_beside(&["a1"], &[("a1", 10, 0), ("a2", 10, 0)], &aims, &[]);
        check_beside(&["a1", "a2"], &[("a1", 10, 2), ("a2", 10, 0)], &aims, &["a1"]);
        check_beside(&["a1"], &[("a1", 10, 0), ("a2", 10, 0), ("a3", 10, 0)], &AIMS, &[]);
    }

    #[test]
    fn a_compaction_without_fewer_files_gains_nothing_unless_it_sorts_or_drops_rows() -> Result<(), serde_json::Error> {
        let gains_nothing_of = |deleted: &[i64], outputs: Vec<Add>| {
            let inputs = deleted.iter().map(|deleted| Input {
                add: file(&("a1", 10, *deleted)),
                deleted: RoaringTreemap::new(),
                live_rows: 10,
                way: Way::Runs(Vec::new()),
            });
            let compaction = Compaction {
                version: 1,
                metadata: TableState::default().metadata,
                inputs: inputs.collect(),
                outputs: outputs.into_iter().map(|add| Output { add, rows: 10 }).collect(),
            };
            gains_nothing(&compaction, &AIMS)
        };
        let plain = file(&("b1", 10, 0));
        let sorted = Mark { by: vec!["a".to_owned()], run: "r".to_owned() }.put_on(plain.clone())?;
        assert!(!gains_nothing_of(&[0, 0], vec![plain.clone()]));
        assert!(gains_nothing_of(&[0, 0], vec![plain.clone(), plain.clone()]));
        assert!(gains_nothing_of(&[1, 0], vec![plain.clone(), plain.clone(), plain.clone()]), "few rows are deleted");
        assert!(!gains_nothing_of(&[2, 0], vec![plain.clone(), plain]));
        assert!(!gains_nothing_of(&[0], vec![sorted]));
        Ok(())
    }
}
