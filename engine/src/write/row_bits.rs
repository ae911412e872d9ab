//! Rows of one file as bits: for questions that come by the million, one row each.
//!
//! A [`RoaringTreemap`] is small and quick to merge, and is searched twice for each question. Here a question is a load or two,
//! for half a kilobyte where any of 4,096 rows are.

use std::sync::Arc;

use roaring::RoaringTreemap;

/// Words of a chunk of rows; one that has none takes nothing.
const CHUNK_WORDS: usize = 64;

const BITS: usize = u64::BITS as usize;

const CHUNK_ROWS: u64 = (CHUNK_WORDS * BITS) as u64;

/// No file that we write or index has more rows: their numbers are 32 bits wide.
const ROWS_MAX: u64 = 1 << 32;

/// Some of the rows of a file. A clone shares what neither changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::write) struct RowBits {
    /// Rows behind the last chunk are not among them.
    chunks: Vec<Option<Arc<[u64; CHUNK_WORDS]>>>,
}

impl RowBits {
    /// Returns those of `rows` that a file of `n_rows` has: a vector of others may name rows however far behind its end.
    pub(in crate::write) fn of(rows: &RoaringTreemap, n_rows: u64) -> Self {
        let mut bits = Self::default();
        bits.insert(rows, n_rows);
        bits
    }

    /// Adds those of `rows` that a file of `n_rows` has.
    pub(in crate::write) fn insert(&mut self, rows: &RoaringTreemap, n_rows: u64) {
        let end = n_rows.min(ROWS_MAX);
        let mut rows = rows.iter().take_while(|row| *row < end).peekable();
        while let Some(row) = rows.peek().copied() {
            let chunk = row / CHUNK_ROWS;
            let words = self.chunk_mut(chunk as usize);
            while let Some(row) = rows.next_if(|row| row / CHUNK_ROWS == chunk) {
                let place = (row % CHUNK_ROWS) as usize;
                words[place / BITS] |= 1 << (place % BITS);
            }
        }
    }

    fn chunk_mut(&mut self, chunk: usize) -> &mut [u64; CHUNK_WORDS] {
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        Arc::make_mut(self.chunks[chunk].get_or_insert_with(|| Arc::new([0; CHUNK_WORDS])))
    }

    /// Tells whether `row` is among them.
    #[inline]
    pub(in crate::write) fn contains(&self, row: u64) -> bool {
        let Some(Some(words)) = self.chunks.get((row / CHUNK_ROWS) as usize) else { return false };
        let place = (row % CHUNK_ROWS) as usize;
        words[place / BITS] >> (place % BITS) & 1 == 1
    }

    /// Returns `N` words as bits of rows, the first one that of row `block * N * 64`. `N` divides a chunk.
    #[inline]
    pub(in crate::write) fn block<const N: usize>(&self, block: usize) -> &[u64; N] {
        let chunk = self.chunks.get(block / (CHUNK_WORDS / N)).and_then(Option::as_ref);
        let words = chunk.and_then(|words| words.as_chunks().0.get(block % (CHUNK_WORDS / N)));
        words.unwrap_or(&[0; N])
    }

    /// Returns a number of rows that none of them is behind.
    pub(in crate::write) fn end(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_ROWS
    }

    /// Returns the bytes that they take.
    pub(in crate::write) fn bytes(&self) -> usize {
        let n_chunks = self.chunks.iter().flatten().count();
        n_chunks * size_of::<[u64; CHUNK_WORDS]>() + self.chunks.len() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bits: &RowBits, n_rows: u64) -> Vec<u64> {
        (0..n_rows).filter(|row| bits.contains(*row)).collect()
    }

    #[test]
    fn what_was_put_in_is_in_and_nothing_else() {
        let first = RoaringTreemap::from_iter([0, 63, 64, 4_095, 4_096, 300_000]);
        let mut bits = RowBits::of(&first, 400_000);
        assert_eq!(rows(&bits, 400_000), [0, 63, 64, 4_095, 4_096, 300_000]);
        let before = bits.clone();
        bits.insert(&RoaringTreemap::from_iter([1, 200_000, 399_999]), 400_000);
        assert_eq!(rows(&bits, 400_000), [0, 1, 63, 64, 4_095, 4_096, 200_000, 300_000, 399_999]);
        bits.insert(&RoaringTreemap::new(), 400_000);
        assert_eq!(rows(&bits, 400_000).len(), 9);
        assert_eq!(rows(&before, 400_000).len(), 6, "a clone has changed");
    }

    #[test]
    fn blocks_are_the_rows_in_order() {
        let bits = RowBits::of(&RoaringTreemap::from_iter([2, 64, 511, 512, 4_096 * 2 + 1]), 1 << 20);
        assert_eq!(bits.block::<8>(0), &[4, 1, 0, 0, 0, 0, 0, 1 << 63]);
        assert_eq!(bits.block::<8>(1)[0], 1);
        assert_eq!(bits.block::<8>(8), &[0; 8], "a chunk without rows");
        assert_eq!(bits.block::<8>(16)[0], 2);
        assert_eq!(bits.block::<8>(1 << 30), &[0; 8]);
        assert_eq!(bits.end(), 3 * 4_096);
    }

    #[test]
    fn rows_behind_the_end_of_the_file_take_no_memory() {
        let far = RoaringTreemap::from_iter([3, 100, u64::from(u32::MAX) << 20, u64::MAX]);
        let bits = RowBits::of(&far, 100);
        assert_eq!(rows(&bits, 200), [3]);
        assert!(bits.bytes() < 1_000, "{} bytes", bits.bytes());
        assert_eq!(RowBits::of(&RoaringTreemap::new(), 1 << 40).bytes(), 0, "no row is deleted");
        let last = RowBits::of(&RoaringTreemap::from_iter([u64::from(u32::MAX)]), u64::MAX);
        assert!(last.contains(u64::from(u32::MAX)) && last.bytes() < 10 << 20, "{} bytes", last.bytes());
    }
}
