//! The new places of all rows of an input, for those who ask for most of them.
//!
//! A [`RoaringTreemap`](roaring::RoaringTreemap) counts through a container for each rank. Here the rows that were deleted are bits of their own, with
//! a count beside each eight words: an eighth of a byte a row, and a few instructions for each question.

use super::{Input, Way};

const BITS: u64 = u64::BITS as u64;

/// Words that share a count.
const BLOCK: usize = 8;

/// Tells where the rows of one input stand now.
#[derive(Debug)]
pub struct Moves<'a> {
    way: &'a Way,
    /// Whether a row was deleted before; the rows behind the last word were not.
    deleted: Vec<u64>,
    /// The deleted rows before each block of words, and after the last.
    before: Vec<u64>,
}

impl<'a> Moves<'a> {
    /// Returns the moves of `input`.
    pub fn of(input: &'a Input) -> Self {
        // A vector of others may name rows that the file does not have, however far behind its end.
        let n_rows = input.live_rows + input.deleted.len();
        let last = input.deleted.max().map_or(0, |last| last + 1).min(n_rows);
        let mut deleted = vec![0; last.div_ceil(BITS) as usize];
        for row in &input.deleted {
            if let Some(word) = deleted.get_mut((row / BITS) as usize) {
                *word |= 1 << (row % BITS);
            }
        }
        let mut before = vec![0];
        let mut n_deleted = 0;
        for block in deleted.chunks(BLOCK) {
            n_deleted += count(block);
            before.push(n_deleted);
        }
        Self { way: &input.way, deleted, before }
    }

    /// Does as [`Input::place_of`].
    pub fn place_of(&self, row: u64) -> Option<(usize, u64)> {
        let at = usize::try_from(row / BITS).ok()?;
        let Some(word) = self.deleted.get(at) else {
            return self.way.place_of(row - self.before.last()?);
        };
        let bit = 1 << (row % BITS);
        if word & bit != 0 {
            return None;
        }
        let block = at / BLOCK;
        let rank = self.before.get(block)? + count(self.deleted.get(block * BLOCK..at)?) + count(&[word & (bit - 1)]);
        self.way.place_of(row - rank)
    }
}

fn count(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use roaring::RoaringTreemap;

    use super::super::Run;
    use super::*;
    use crate::delta::action::Add;

    #[test]
    fn a_vector_that_names_a_row_behind_the_file_takes_no_memory_for_it() {
        let deleted: RoaringTreemap = [1, u64::from(u32::MAX) << 20].into_iter().collect();
        let way = Way::Runs(vec![Run { first_rank: 0, output: 0, first_row: 0 }]);
        let input = Input { add: Add::default(), deleted, live_rows: 9, way };
        let moves = Moves::of(&input);
        assert_eq!(moves.deleted.len(), 1);
        for row in 0..10 {
            assert_eq!(moves.place_of(row), input.place_of(row), "row {row}");
        }
    }

    #[test]
    fn every_row_moves_as_the_input_says() {
        let dense: RoaringTreemap = (0..2_000).filter(|row| row % 3 != 0).collect();
        let gaps: RoaringTreemap = [5, 63, 64, 511, 512, 513, 1_024].into_iter().collect();
        for deleted in [RoaringTreemap::new(), dense, gaps, (0..100).collect()] {
            let runs =
                vec![Run { first_rank: 0, output: 0, first_row: 7 }, Run { first_rank: 300, output: 1, first_row: 0 }];
            let live_rows = 2_500 - deleted.len();
            let input = Input { add: Add::default(), deleted, live_rows, way: Way::Runs(runs) };
            let moves = Moves::of(&input);
            for row in 0..2_500 {
                assert_eq!(moves.place_of(row), input.place_of(row), "row {row} of {:?}", input.deleted);
            }
        }
    }
}
