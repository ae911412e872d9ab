//! The orders of the rows of files written lately, within a bound: a change that is neither above nor below all rows of a
//! file most often meets a row that is young.

use std::collections::HashMap;
use std::sync::Arc;

use crate::order::Orders;
use crate::write::index::FileOrdinal;

/// Orders by file; the ones that were not used for the longest time go first.
#[derive(Debug)]
pub(super) struct OrderCache {
    files: HashMap<FileOrdinal, Cached>,
    n_bytes: usize,
    bytes_max: usize,
    uses: u64,
}

#[derive(Debug)]
struct Cached {
    orders: Arc<Orders>,
    n_bytes: usize,
    used: u64,
}

impl OrderCache {
    /// Returns a cache of at most `bytes_max`.
    pub(super) fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { files: HashMap::new(), n_bytes: 0, bytes_max, uses: 0 }
    }

    /// Keeps the orders of a file's rows, in the order of the file.
    pub(super) fn put(&mut self, file: FileOrdinal, orders: Orders) {
        let n_bytes = orders.bytes();
        if n_bytes > self.bytes_max {
            return;
        }
        self.forget(file);
        while self.n_bytes + n_bytes > self.bytes_max {
            let Some(oldest) = self.files.iter().min_by_key(|(_, cached)| cached.used).map(|(file, _)| *file) else {
                break;
            };
            self.forget(oldest);
        }
        self.uses += 1;
        self.n_bytes += n_bytes;
        self.files.insert(file, Cached { orders: Arc::new(orders), n_bytes, used: self.uses });
    }

    /// Returns the orders of a file's rows, where they are kept.
    pub(super) fn get(&mut self, file: FileOrdinal) -> Option<Arc<Orders>> {
        let cached = self.files.get_mut(&file)?;
        self.uses += 1;
        cached.used = self.uses;
        Some(Arc::clone(&cached.orders))
    }

    /// Forgets a file.
    pub(super) fn forget(&mut self, file: FileOrdinal) {
        if let Some(cached) = self.files.remove(&file) {
            self.n_bytes -= cached.n_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::Result;
    use arrow::array::{ArrayRef, Int32Array, Int64Array};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::delta::action::Add;
    use crate::order::OrderForm;
    use crate::write::index::{Bounds, IndexedFile, KeyIndex};

    #[test]
    fn the_file_that_was_not_used_goes_first_and_the_bound_holds() -> Result<()> {
        let form = OrderForm::try_new(vec![DataType::Int64])?;
        let sequence: ArrayRef = Arc::new(Int64Array::from(vec![1; 100]));
        let orders = form.of(&[sequence], None, &Int64Array::from(vec![1; 100]), &Int32Array::from(vec![0; 100]))?;
        let mut index = KeyIndex::default();
        let files = ["a", "b", "c"].map(|path| {
            let add = Add { path: path.to_owned(), ..Add::default() };
            index.insert_file(IndexedFile::new(&add, 100, roaring::RoaringTreemap::new(), Bounds::default()))
        });
        let mut cache = OrderCache::new(orders.bytes() as u64 * 2);
        cache.put(files[0], orders.clone());
        cache.put(files[1], orders.clone());
        assert!(cache.get(files[0]).is_some());
        cache.put(files[2], orders.clone());
        assert_eq!(files.map(|file| cache.get(file).is_some()), [true, false, true]);
        assert!(cache.n_bytes <= cache.bytes_max);
        let mut tiny = OrderCache::new(1);
        tiny.put(files[0], orders);
        assert!(tiny.get(files[0]).is_none());
        Ok(())
    }
}
