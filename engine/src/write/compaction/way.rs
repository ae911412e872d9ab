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

    /// Returns the way of an input of which no row is `gone`, once those rows have left their outputs, and each output has
    /// moved to the place that `left` tells; `None` where that is not so.
    pub(super) fn without(&self, gone: &[RoaringTreemap], left: &[Option<usize>]) -> Option<Self> {
        let moved = |(output, row): (usize, u64)| {
            let gone = gone.get(output).filter(|gone| !gone.contains(row))?;
            Some((left.get(output).copied().flatten()?, row - gone.range_cardinality(..row)))
        };
        match self {
            Self::Runs(runs) => {
                let run = |run: &Run| {
                    let (output, first_row) = moved((run.output, run.first_row))?;
                    Some(Run { output, first_row, ..*run })
                };
                runs.iter().map(run).collect::<Option<_>>().map(Self::Runs)
            }
            Self::Scattered(scattered) => {
                let starts = scattered.starts_without(gone, left)?;
                let positions = scattered.places().map(|place| {
                    let (output, row) = moved(place)?;
                    u32::try_from(starts.get(output)? + row).ok()
                });
                let positions = positions.collect::<Option<_>>()?;
                Some(Self::Scattered(Scattered { positions, starts: starts.into() }))
            }
        }
    }

    /// Returns the way once `n` other outputs come before those that it leads to.
    pub fn behind(&self, n: usize) -> Self {
        match self {
            Self::Runs(runs) => Self::Runs(runs.iter().map(|run| Run { output: run.output + n, ..*run }).collect()),
            Self::Scattered(scattered) => {
                // Outputs without rows begin where the next one does.
                let starts = std::iter::repeat_n(0, n).chain(scattered.starts.iter().copied()).collect();
                Self::Scattered(Scattered { positions: scattered.positions.clone(), starts })
            }
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

    /// Returns the starts of the outputs that are left, without the rows that are gone.
    fn starts_without(&self, gone: &[RoaringTreemap], left: &[Option<usize>]) -> Option<Vec<u64>> {
        let (mut starts, mut before) = (Vec::new(), 0_u64);
        for (output, start) in self.starts.iter().enumerate() {
            if left.get(output).copied().flatten().is_none() {
                continue;
            }
            starts.push(before);
            if let Some(next) = self.starts.get(output + 1) {
                before += (next - start).checked_sub(gone.get(output)?.len())?;
            }
        }
        Some(starts)
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
        let way = Way::Runs(runs);
        check(&way, 4, &[(0, 7), (0, 8), (1, 0), (1, 1)]);
        check(&Way::Runs(Vec::new()), 0, &[]);
        check(&way.behind(1), 4, &[(1, 7), (1, 8), (2, 0), (2, 1)]);
    }

    #[test]
    fn rows_that_were_sorted_are_found_one_by_one() {
        let starts: Arc<[u64]> = Arc::from([0, 3, 5]);
        let scattered = Scattered { positions: vec![4, 0, 5, 2], starts };
        check(&Way::Scattered(scattered.clone()), 4, &[(1, 1), (0, 0), (2, 0), (0, 2)]);
        assert_eq!(Way::Scattered(scattered.clone()).place_of(4), None);
        let fewer = Scattered { starts: Arc::from([0, 3]), ..scattered };
        check(&Way::Scattered(fewer).behind(1), 4, &[(2, 1), (1, 0), (2, 2), (1, 2)]);
    }

    #[test]
    fn rows_that_leave_an_output_move_those_behind_them() {
        // Three outputs of 3, 2 and 2 rows: the second goes whole, the others lose their first row.
        let gone = [RoaringTreemap::from_iter([0]), RoaringTreemap::from_iter([0, 1]), RoaringTreemap::from_iter([0])];
        let left = [Some(0), None, Some(1)];
        let run = |first_rank, output, first_row| Run { first_rank, output, first_row };
        let runs = Way::Runs(vec![run(0, 0, 1), run(2, 2, 1)]);
        assert_eq!(runs.without(&gone, &left), Some(Way::Runs(vec![run(0, 0, 0), run(2, 1, 0)])));
        let way = |positions: &[u32], starts: &[u64]| {
            Way::Scattered(Scattered { positions: positions.to_vec(), starts: Arc::from(starts) })
        };
        let moved = way(&[6, 1, 2], &[0, 3, 5]).without(&gone, &left);
        assert_eq!(moved, Some(way(&[2, 0, 1], &[0, 2])));
        check(&way(&[2, 0, 1], &[0, 2]), 3, &[(1, 0), (0, 0), (0, 1)]);
        for lost in [0, 3, 5] {
            assert_eq!(way(&[1, lost], &[0, 3, 5]).without(&gone, &left), None, "row {lost} is gone");
        }
    }
}
