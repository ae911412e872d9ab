//! Chooses what is clustered next of a table with clustering columns.
//!
//! The files that one clustering wrote are a *run*: sorted within, while the ranges of two runs overlap. A query for a
//! value opens about one file of every run, so runs are merged; a file that is not clustered counts as a run of its own.
//! Runs are merged when as many of like size are there (tiers, as small files are), up to the size that one compaction may
//! read: a row is written again once a tier, and never again when its run has grown that large. A file of a run of which
//! many rows are deleted is rewritten alone, within its old bounds.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{Aims, Choice, Order, Zeal, is_worn, size, tier_of};
use crate::delta::action::Add;
use crate::delta::clustering::{Clustered, Mark, clustered};
use crate::delta::state::TableState;

/// A run, or a file that is not clustered.
#[derive(Debug, Clone)]
struct Piece<'a> {
    files: Vec<&'a Add>,
    bytes: u64,
    /// Of a run: its name.
    run: Option<String>,
}

/// Returns what is worth being clustered most.
pub(super) fn choose(state: &TableState, aims: &Aims, by: &[String]) -> Option<Choice> {
    let pieces = pieces(state, aims, by);
    let merge = || {
        let files = match aims.zeal {
            Zeal::Tiers { files_min } => merge_of_a_tier(&pieces, files_min, aims),
            Zeal::All => merge_of_all(pieces.clone(), aims, by),
        };
        choice(Order::Clustered(by.to_vec()), files?)
    };
    let worn = || worn(&pieces, aims, by);
    // Both may be due for ever, so they take turns: by the version, which is any when a plan is made.
    let is_worn_first = aims.zeal != Zeal::All && state.version.is_multiple_of(2);
    if is_worn_first { worn().or_else(merge) } else { merge().or_else(worn) }
}

/// Returns the next of those files that are clustered again whatever they are: `paths` of `state`.
pub fn choose_among(state: &TableState, aims: &Aims, paths: &HashSet<String>) -> Option<Choice> {
    if paths.is_empty() {
        return None;
    }
    let by = state.clustering();
    let mut files: Vec<&Add> = state.files.values().filter(|add| paths.contains(&add.path)).collect();
    // Neighbours together, as far as files have bounds, so that the ranges of two runs overlap little.
    files.sort_by(|one, other| by_low(one, other, &by));
    let first = files.first().copied();
    let mut fitting = as_many_as_fit(files, |add| size(add), aims.bytes_max);
    if fitting.is_empty() {
        fitting.extend(first);
    }
    choice(Order::Clustered(by), fitting)
}

fn choice(order: Order, files: Vec<&Add>) -> Option<Choice> {
    let partition = files.first()?.partition_values.clone();
    Some(Choice { order, partition, files: files.into_iter().cloned().collect() })
}

/// Returns the runs of the table and its files that are in none. What another engine has clustered is left to it, until
/// enough of its rows are deleted.
fn pieces<'a>(state: &'a TableState, aims: &Aims, by: &[String]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut runs: HashMap<String, Piece<'a>> = HashMap::new();
    for add in state.files.values() {
        match clustered(add) {
            Clustered::Ours(Mark { by: sorted_by, run }) if sorted_by == by => {
                let piece = runs.entry(run.clone()).or_insert(Piece { files: Vec::new(), bytes: 0, run: Some(run) });
                piece.files.push(add);
                piece.bytes += size(add);
            }
            Clustered::Theirs if !is_worn(add, aims) => {}
            _ => pieces.push(Piece { files: vec![add], bytes: size(add), run: None }),
        }
    }
    pieces.extend(runs.into_values());
    for piece in &mut pieces {
        piece.files.sort_by(|one, other| age(one, other));
    }
    pieces.sort_by(|one, other| match (one.files.first(), other.files.first()) {
        (Some(one), Some(other)) => age(one, other),
        _ => Ordering::Equal,
    });
    pieces
}

/// Returns the files of the highest tier that has enough runs of like size, oldest first: a tier fills up only once for
/// several merges of the one below, which would else keep it waiting for ever.
fn merge_of_a_tier<'a>(pieces: &[Piece<'a>], files_min: usize, aims: &Aims) -> Option<Vec<&'a Add>> {
    let mut tiers: BTreeMap<u32, Vec<Piece<'a>>> = BTreeMap::new();
    for piece in pieces.iter().filter(|piece| piece.bytes <= aims.bytes_max) {
        let tier = tier_of(piece.bytes, aims.run_bytes);
        // A run of the highest tier is as large as it gets; a file of that size is still to be sorted.
        if tier > 0 || piece.run.is_none() {
            tiers.entry(tier).or_default().push(piece.clone());
        }
    }
    for (tier, pieces) in tiers {
        let n_wanted = if tier == 0 { 1 } else { files_min };
        let fitting = as_many_as_fit(pieces, |piece| piece.bytes, aims.bytes_max);
        // Fewer would be of the same tier again, and a row be written more often than once a tier.
        if fitting.len() >= n_wanted {
            return Some(fitting.into_iter().flat_map(|piece| piece.files).collect());
        }
    }
    None
}

/// Returns as many files that are not clustered as fit, and the runs that fit beside them, the smallest first.
fn merge_of_all<'a>(mut pieces: Vec<Piece<'a>>, aims: &Aims, by: &[String]) -> Option<Vec<&'a Add>> {
    pieces.retain(|piece| piece.bytes <= aims.bytes_max);
    pieces.sort_by(|one, other| match (&one.run, &other.run) {
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(_), Some(_)) => one.bytes.cmp(&other.bytes).then_with(|| one.run.cmp(&other.run)),
        (None, None) => match (one.files.first(), other.files.first()) {
            (Some(one), Some(other)) => by_low(one, other, by),
            _ => Ordering::Equal,
        },
    });
    let fitting = as_many_as_fit(pieces, |piece| piece.bytes, aims.bytes_max);
    let is_worth_it = fitting.len() > 1 || fitting.iter().any(|piece| piece.run.is_none());
    is_worth_it.then(|| fitting.into_iter().flat_map(|piece| piece.files).collect())
}

/// Returns files of which many rows are deleted: those of one run, or all that are in none.
fn worn<'a>(pieces: &[Piece<'a>], aims: &Aims, by: &[String]) -> Option<Choice> {
    let mut groups: BTreeMap<Option<&str>, Vec<&'a Add>> = BTreeMap::new();
    for piece in pieces {
        let worn = piece.files.iter().filter(|add| is_worn(add, aims) && size(add) <= aims.bytes_max);
        groups.entry(piece.run.as_deref()).or_default().extend(worn);
    }
    let (run, files) = groups.into_iter().max_by_key(|(_, files)| files.len())?;
    let files = as_many_as_fit(files, |add| size(add), aims.bytes_max);
    let order = match run {
        Some(run) => Order::KeptApart(Mark { by: by.to_vec(), run: run.to_owned() }),
        None => Order::Clustered(by.to_vec()),
    };
    choice(order, files)
}

/// Returns the first of `items` that have no more than `bytes_max` together.
fn as_many_as_fit<T>(mut items: Vec<T>, bytes_of: impl Fn(&T) -> u64, bytes_max: u64) -> Vec<T> {
    let mut bytes = 0_u64;
    let n_fitting = items
        .iter()
        .take_while(|item| {
            bytes = bytes.saturating_add(bytes_of(item));
            bytes <= bytes_max
        })
        .count();
    items.truncate(n_fitting);
    items
}

fn age(one: &Add, other: &Add) -> Ordering {
    (one.modification_time, &one.path).cmp(&(other.modification_time, &other.path))
}

/// Compares files by their lower bounds in the first clustering column, as far as the log tells them.
fn by_low(one: &Add, other: &Add, by: &[String]) -> Ordering {
    let low = |add: &Add| {
        let stats: Value = serde_json::from_str(add.stats.as_deref()?).ok()?;
        // Beside texts, a NULL would stand before one and behind a lower one: that is no order to sort by.
        stats.get("minValues")?.get(by.first()?).filter(|bound| !bound.is_null()).cloned()
    };
    let ordering = match (low(one), low(other)) {
        (Some(Value::String(one)), Some(Value::String(other))) => one.cmp(&other),
        (Some(one), Some(other)) => one.as_f64().unwrap_or(f64::NAN).total_cmp(&other.as_f64().unwrap_or(f64::NAN)),
        (one, other) => one.is_some().cmp(&other.is_some()),
    };
    ordering.then_with(|| age(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::action::{Action, DeletionVectorDescriptor, Protocol, StorageType};
    use crate::delta::clustering::{FEATURES, clustering_action};

    const AIMS: Aims = Aims {
        target_bytes: 1_000,
        deleted_percent: 20,
        bytes_max: 5_000,
        run_bytes: 5_000,
        sort_bytes: 1 << 20,
        zeal: Zeal::Tiers { files_min: 3 },
    };

    /// What is chosen of a table clustered by `a`, of files by name, size and deleted rows of ten. The letters before a
    /// dash name the file's run; `liquid` is another engine's, `old` one by another column.
    fn chosen(files: &[(&str, i64, i64)], aims: &Aims) -> Result<Option<(Order, Vec<String>)>, serde_json::Error> {
        let mut state = TableState::default();
        let protocol = Protocol { writer_features: Some(FEATURES.map(str::to_owned).to_vec()), ..Protocol::default() };
        let by = vec!["a".to_owned()];
        state.apply(1, &[Action::Protocol(protocol), Action::DomainMetadata(clustering_action(&by)?)]);
        for (moment, (path, size, deleted)) in (0..).zip(files) {
            let vector = (*deleted > 0).then(|| DeletionVectorDescriptor {
                storage_type: StorageType::Inline,
                path_or_inline_dv: String::new(),
                offset: None,
                size_in_bytes: 0,
                cardinality: *deleted,
            });
            let add = Add {
                path: (*path).to_owned(),
                size: *size,
                modification_time: moment,
                stats: Some(format!(r#"{{"numRecords":10,"minValues":{{"a":{}}}}}"#, 100 - moment)),
                deletion_vector: vector,
                ..Add::default()
            };
            let add = match path.split_once('-') {
                Some(("liquid", _)) => Add { clustering_provider: Some("liquid".to_owned()), ..add },
                Some(("old", _)) => Mark { by: vec!["b".to_owned()], run: "old".to_owned() }.put_on(add)?,
                Some((run, _)) => Mark { by: by.clone(), run: run.to_owned() }.put_on(add)?,
                None => add,
            };
            state.files.insert(add.path.clone(), add);
        }
        let choice = super::super::choose(&state, aims, &HashSet::new());
        Ok(choice.map(|choice| (choice.order, choice.files.into_iter().map(|add| add.path).collect())))
    }

    fn check(files: &[(&str, i64, i64)], aims: &Aims, expected: &[&str]) -> Result<(), serde_json::Error> {
        let (order, paths) = chosen(files, aims)?.unwrap_or((Order::Kept, Vec::new()));
        assert_eq!(paths, expected, "of {files:?}");
        assert!(expected.is_empty() || order == Order::Clustered(vec!["a".to_owned()]), "{order:?}");
        Ok(())
    }

    #[test]
    fn runs_of_like_size_are_merged_as_wholes() -> Result<(), serde_json::Error> {
        check(&[("x", 10, 0), ("y", 9, 0)], &AIMS, &[])?;
        check(&[("x", 10, 0), ("r-1", 6, 0), ("r-2", 5, 0), ("y", 9, 0)], &AIMS, &["x", "r-1", "r-2", "y"])?;
        check(&[("x", 10, 0), ("r-1", 300, 0), ("s-1", 290, 0), ("y", 9, 0)], &AIMS, &[])?;
        let files = [("q-1", 300, 0), ("r-1", 200, 0), ("r-2", 110, 0), ("s-1", 290, 0), ("y", 9, 0)];
        check(&files, &AIMS, &["q-1", "r-1", "r-2", "s-1"])
    }

    #[test]
    fn a_run_that_is_as_large_as_one_compaction_is_never_merged_again() -> Result<(), serde_json::Error> {
        check(&[("q-1", 700, 0), ("r-1", 700, 0), ("s-1", 700, 0), ("t-1", 700, 0)], &AIMS, &[])?;
        check(&[("q-1", 700, 0), ("r-1", 700, 0), ("large", 700, 0)], &AIMS, &["large"])?;
        check(&[("too large", 5_001, 0)], &AIMS, &[])
    }

    #[test]
    fn no_tier_is_merged_in_part_where_the_budget_is_short() -> Result<(), serde_json::Error> {
        let files = [("q-1", 300, 0), ("r-1", 300, 0), ("s-1", 300, 0)];
        check(&files, &Aims { bytes_max: 800, ..AIMS }, &[])?;
        check(&files, &Aims { bytes_max: 900, ..AIMS }, &["q-1", "r-1", "s-1"])
    }

    #[test]
    fn what_somebody_asked_for_takes_all_that_is_not_clustered_and_what_fits_beside_it() -> Result<(), serde_json::Error>
    {
        let aims = Aims { zeal: Zeal::All, ..AIMS };
        check(&[("q-1", 700, 0)], &aims, &[])?;
        check(&[("q-1", 700, 0), ("x", 1, 0)], &aims, &["x", "q-1"])?;
        check(&[("q-1", 3_000, 0), ("r-1", 2_500, 0)], &aims, &[])?;
        check(&[("q-1", 4_000, 0), ("r-1", 900, 0), ("x", 200, 0)], &aims, &["x", "r-1"])?;
        check(&[("high", 3_000, 0), ("low", 3_000, 0)], &aims, &["low"])?;
        check(&[("old-1", 900, 0), ("q-1", 4_500, 0)], &aims, &["old-1"])
    }

    #[test]
    fn what_another_engine_has_clustered_is_left_to_it_until_it_is_worn() -> Result<(), serde_json::Error> {
        let aims = Aims { zeal: Zeal::All, ..AIMS };
        check(&[("liquid-1", 10, 0), ("liquid-2", 10, 1)], &aims, &[])?;
        check(&[("liquid-1", 10, 0), ("liquid-2", 10, 2)], &aims, &["liquid-2"])
    }

    #[test]
    fn worn_files_of_a_run_are_kept_apart_within_it() -> Result<(), serde_json::Error> {
        let files = [("q-1", 700, 2), ("q-2", 700, 1), ("q-3", 700, 5), ("r-1", 700, 9)];
        let mark = Mark { by: vec!["a".to_owned()], run: "q".to_owned() };
        let expected = (Order::KeptApart(mark), vec!["q-1".to_owned(), "q-3".to_owned()]);
        assert_eq!(chosen(&files, &AIMS)?, Some(expected));
        check(&[("x", 10, 2), ("y", 9, 0)], &AIMS, &["x"])
    }

    #[test]
    fn a_file_without_a_lower_bound_comes_first_also_where_its_log_says_null() {
        let file = |path: &str, modification_time: i64, low: &str| {
            let stats = Some(format!(r#"{{"minValues":{{"a":{low}}}}}"#));
            Add { path: path.to_owned(), modification_time, stats, ..Add::default() }
        };
        let adds = [file("z", 1, r#""z""#), file("null", 2, "null"), file("a", 3, r#""a""#)];
        let mut files: Vec<&Add> = adds.iter().collect();
        files.sort_by(|one, other| by_low(one, other, &["a".to_owned()]));
        assert_eq!(files.iter().map(|add| add.path.as_str()).collect::<Vec<_>>(), ["null", "a", "z"]);
    }

    #[test]
    fn files_that_are_clustered_again_are_taken_from_the_lowest_on() {
        let mut state = TableState::default();
        for (path, low) in [("c", "7"), ("a", "-3"), ("b", "1e2"), ("d", "\"x\"")] {
            let stats = Some(format!(r#"{{"minValues":{{"a":{low}}}}}"#));
            state.files.insert(path.to_owned(), Add { path: path.to_owned(), size: 10, stats, ..Add::default() });
        }
        let paths: HashSet<String> = ["a", "b", "c", "gone"].map(str::to_owned).into();
        let by = ["a".to_owned()];
        let mut files: Vec<&Add> = state.files.values().filter(|add| paths.contains(&add.path)).collect();
        files.sort_by(|one, other| by_low(one, other, &by));
        assert_eq!(files.iter().map(|add| add.path.as_str()).collect::<Vec<_>>(), ["a", "c", "b"]);
        let aims = Aims { bytes_max: 20, ..AIMS };
        assert_eq!(choose_among(&state, &aims, &paths).map(|choice| choice.files.len()), Some(2));
        assert_eq!(choose_among(&state, &aims, &HashSet::new()), None);
    }
}
