//! The new places of all rows of an input, for those who ask for most of them.
//!
//! A [`RoaringTreemap`](roaring::RoaringTreemap) counts through a container for each rank. Here the rows that were deleted
//! are bits, with a count beside each eight words: a few instructions for each question.

use super::{Input, Way};
use crate::write::row_bits::RowBits;

const BITS: u64 = u64::BITS as u64;

/// Words that share a count.
const BLOCK: usize = 8;

const ROWS_OF_BLOCK: u64 = BLOCK as u64 * BITS;

/// Tells where the rows of one input stand now.
#[derive(Debug)]
pub struct Moves<'a> {
    way: &'a Way,
    /// The rows that were deleted before.
    deleted: RowBits,
    /// The deleted rows before each block of words, and after the last.
    before: Vec<u64>,
}

impl<'a> Moves<'a> {
    /// Returns the moves of `input`.
    pub fn of(input: &'a Input) -> Self {
        let deleted = RowBits::of(&input.deleted, input.live_rows + input.deleted.len());
        let mut before = vec![0];
        let mut n_deleted = 0;
        for block in 0..deleted.end() / ROWS_OF_BLOCK {
            n_deleted += count(deleted.block::<BLOCK>(block as usize));
            before.push(n_deleted);
        }
        Self { way: &input.way, deleted, before }
    }

    /// Returns the output that holds row `row` now, and its number there; `None` for a row that was deleted before.
    pub fn place_of(&self, row: u64) -> Option<(usize, u64)> {
        if row >= self.deleted.end() {
            return self.way.place_of(row - self.before.last()?);
        }
        let block = usize::try_from(row / ROWS_OF_BLOCK).ok()?;
        let words: &[u64; BLOCK] = self.deleted.block(block);
        let at = (row % ROWS_OF_BLOCK / BITS) as usize;
        let bit = 1 << (row % BITS);
        if words[at] & bit != 0 {
            return None;
        }
        let rank = self.before.get(block)? + count(&words[..at]) + count(&[words[at] & (bit - 1)]);
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
        let deleted: RoaringTreemap = [1, 4_000_000_000, u64::from(u32::MAX) << 20].into_iter().collect();
        let way = Way::Runs(vec![Run { first_rank: 0, output: 0, first_row: 0 }]);
        let input = Input { add: Add::default(), deleted, live_rows: 9, way };
        let moves = Moves::of(&input);
        assert!(moves.before.len() < 1_000, "{} counts", moves.before.len());
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
