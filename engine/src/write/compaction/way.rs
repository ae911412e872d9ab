//! Which way the rows of an input went: to which output, and to which number there.
//!
//! Rows are told apart by their rank among the live rows of their input. Where rows keep their order, a few runs say it
//! all. Where they are sorted, each row has a place of its own, four bytes a row: its position among all rows of the
//! compaction, from which the output follows.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringTreemap;

/// Where the live rows of an input stand now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// In their old order: runs by ascending rank.
    Runs(Vec<Run>),
    /// In an order of their own.
    Scattered(Scattered),
}

/// Live rows of an input that stand in one output, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The rank of the first of them among the live rows of the input.
    pub first_rank: u64,
    /// The place of the output among the outputs of the compaction.
    pub output: usize,
    /// The number of the first of them in the output.
    pub first_row: u64,
}

/// The places of rows that were sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scattered {
    /// For each row of the input, by rank: how many rows of the compaction come before it.
    pub positions: Vec<u32>,
    /// For each output, how many rows of the compaction come before it; shared by all inputs.
    pub starts: Arc<[u64]>,
}

impl Way {
    /// Returns the output that holds the row of this rank, and its number there.
    pub fn place_of(&self, rank: u64) -> Option<(usize, u64)> {
        match self {
            Self::Runs(runs) => {
                let after = runs.partition_point(|run| run.first_rank <= rank);
                let run = runs.get(after.checked_sub(1)?)?;
                Some((run.output, run.first_row + (rank - run.first_rank)))
            }
            Self::Scattered(scattered) => scattered.place_of(usize::try_from(rank).ok()?),
        }
    }

    /// Returns the outputs that hold a row of the input.
    pub fn outputs(&self) -> BTreeSet<usize> {
        match self {
            Self::Runs(runs) => runs.iter().map(|run| run.output).collect(),
            Self::Scattered(scattered) => scattered.places().map(|(output, _)| output).collect(),
        }
    }

    /// Puts the numbers of all `live_rows` rows of the input into the sets of their outputs.
    pub(super) fn mark_all(&self, live_rows: u64, marked: &mut [RoaringTreemap]) {
        match self {
            Self::Runs(runs) => {
                let ends = runs.iter().skip(1).map(|run| run.first_rank).chain([live_rows]);
                for (run, end) in runs.iter().zip(ends) {
                    if let Some(marked) = marked.get_mut(run.output) {
                        marked.insert_range(run.first_row..run.first_row + end.saturating_sub(run.first_rank));
                    }
                }
            }
            Self::Scattered(scattered) => {
                for (output, row) in scattered.places() {
                    if let Some(marked) = marked.get_mut(output) {
                        marked.insert(row);
                    }
                }
            }
        }
    }
}

impl Scattered {
    fn place_of(&self, rank: usize) -> Option<(usize, u64)> {
        self.place_at(*self.positions.get(rank)?)
    }

    fn place_at(&self, position: u32) -> Option<(usize, u64)> {
        let position = u64::from(position);
        let output = self.starts.partition_point(|start| *start <= position).checked_sub(1)?;
        Some((output, position - self.starts.get(output)?))
    }

    fn places(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.positions.iter().filter_map(|position| self.place_at(*position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks where the rows of an input went, by rank, that all of them are marked there, and nothing else.
    fn check(way: &Way, live_rows: u64, expected: &[(usize, u64)]) {
        let places: Vec<_> = (0..live_rows).filter_map(|rank| way.place_of(rank)).collect();
        assert_eq!(places, expected);
        let outputs: BTreeSet<usize> = expected.iter().map(|(output, _)| *output).collect();
        assert_eq!(way.outputs(), outputs);
        let mut marked = vec![RoaringTreemap::new(); 3];
        way.mark_all(live_rows, &mut marked);
        let marked = marked.iter().enumerate().flat_map(|(output, rows)| rows.iter().map(move |row| (output, row)));
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        assert_eq!(marked.collect::<Vec<_>>(), sorted);
    }

    #[test]
    fn rows_that_keep_their_order_are_found_by_runs() {
        let runs = vec![Run { first_rank: 0, output: 0, first_row: 7 }, Run { first_rank: 2, output: 1, first_row: 0 }];
        check(&Way::Runs(runs), 4, &[(0, 7), (0, 8), (1, 0), (1, 1)]);
        check(&Way::Runs(Vec::new()), 0, &[]);
    }

    #[test]
    fn rows_that_were_sorted_are_found_one_by_one() {
        let starts: Arc<[u64]> = Arc::from([0, 3, 5]);
        let scattered = Scattered { positions: vec![4, 0, 5, 2], starts };
        check(&Way::Scattered(scattered.clone()), 4, &[(1, 1), (0, 0), (2, 0), (0, 2)]);
        assert_eq!(Way::Scattered(scattered).place_of(4), None);
    }
}
