//! Deletes that are remembered, so that a late older row does not bring its key back. There are few of them beside the
//! keys: they live for the retention, not for ever.

use hashbrown::HashTable;

use crate::key::KeyRef;
use crate::order::{Order, Sequence};

/// A delete of a key that has no row.
#[derive(Debug, Clone)]
pub struct RememberedDelete {
    key: OwnedKey,
    hash: u64,
    /// Its place in the order of the key.
    pub order: Order,
    /// When it was staged, by the host's clock, epoch milliseconds.
    pub at_ms: i64,
}

/// A delete that a sidecar tells of.
#[derive(Debug, Clone)]
pub struct ToldDelete {
    /// Its place in the order of the key.
    pub order: Order,
    /// When it was staged, by the host's clock, epoch milliseconds.
    pub at_ms: i64,
    /// Whether it took a live row: one that came when what had been deleted before bound no more.
    pub over_row: bool,
    /// Whether its commit was just followed, so that nothing which is known is newer.
    pub has_landed: bool,
}

#[derive(Debug, Clone)]
enum OwnedKey {
    Narrow(u64),
    Wide(u128),
    Bytes(Box<[u8]>),
}

/// The deletes of one table by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Deletes {
    table: HashTable<RememberedDelete>,
    n_key_bytes: usize,
}

impl RememberedDelete {
    /// Returns its key.
    pub fn key(&self) -> KeyRef<'_> {
        match &self.key {
            OwnedKey::Narrow(key) => KeyRef::Narrow(*key),
            OwnedKey::Wide(key) => KeyRef::Wide(*key),
            OwnedKey::Bytes(key) => KeyRef::Bytes(key),
        }
    }

    fn heap_bytes(&self) -> usize {
        let key = if let OwnedKey::Bytes(key) = &self.key { key.len() } else { 0 };
        let sequence = if let Some(Sequence::Bytes(bytes)) = &self.order.sequence { bytes.len() } else { 0 };
        key + sequence
    }
}

impl ToldDelete {
    /// Tells whether it is remembered instead of `known`, another delete of its key.
    pub(super) fn replaces(&self, known: &Order) -> bool {
        let (told, known) = (self.order.borrow(), known.borrow());
        let is_after = told.partition == known.partition && told.offset > known.offset;
        // Of one record told of twice the later word counts: it may have been drawn up anew over another row.
        told.supersedes(&known) || told.position() == known.position() || (self.over_row && is_after)
    }
}

impl Deletes {
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>, hash: u64) -> Option<&RememberedDelete> {
        if self.table.is_empty() {
            return None;
        }
        self.table.find(hash, |known| known.hash == hash && known.key() == key)
    }

    /// Remembers a delete in the place of what was known of its key.
    pub(super) fn put(&mut self, (key, hash): (KeyRef<'_>, u64), order: Order, at_ms: i64) {
        self.remove(key, hash);
        let key = match key {
            KeyRef::Narrow(key) => OwnedKey::Narrow(key),
            KeyRef::Wide(key) => OwnedKey::Wide(key),
            KeyRef::Bytes(key) => OwnedKey::Bytes(key.into()),
        };
        let delete = RememberedDelete { key, hash, order, at_ms };
        self.n_key_bytes += delete.heap_bytes();
        self.table.insert_unique(hash, delete, |known| known.hash);
    }

    #[inline]
    pub(super) fn remove(&mut self, key: KeyRef<'_>, hash: u64) {
        if self.table.is_empty() {
            return;
        }
        if let Ok(entry) = self.table.find_entry(hash, |known| known.hash == hash && known.key() == key) {
            let (gone, _) = entry.remove();
            self.n_key_bytes -= gone.heap_bytes();
        }
    }

    /// Forgets deletes staged before `before_ms`.
    pub(super) fn forget(&mut self, before_ms: i64) {
        let mut n_key_bytes = 0;
        self.table.retain(|delete| {
            let is_kept = delete.at_ms >= before_ms;
            n_key_bytes += if is_kept { delete.heap_bytes() } else { 0 };
            is_kept
        });
        self.n_key_bytes = n_key_bytes;
        self.table.shrink_to_fit(|known| known.hash);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RememberedDelete> {
        self.table.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size() + self.n_key_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sequence: Option<Sequence>) -> Order {
        Order { sequence, inherited: true, offset: 1, partition: 0 }
    }

    /// `docs/UPSERT.md` says so, since they count as memory of the index.
    #[test]
    fn a_remembered_delete_takes_at_most_222_bytes_and_those_of_its_texts() {
        const EACH_MAX: usize = 222;
        // Below, the bytes that a table has in any case count.
        const N_FEW: u64 = 1_000;
        let (mut numbers, mut texts) = (Deletes::default(), Deletes::default());
        for number in 1..=50_000_u64 {
            // Hashes only have to differ in their highest bits, too.
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = format!("a key of 24 bytes {number:06}");
            numbers.put((KeyRef::Narrow(number), hash), order(Some(Sequence::Number(1))), 0);
            texts.put((KeyRef::Bytes(key.as_bytes()), hash), order(Some(Sequence::Bytes([7; 9].into()))), 0);
            let (n_deletes, each) = (numbers.len(), numbers.bytes() / numbers.len());
            assert!(each <= EACH_MAX || number < N_FEW, "{each} bytes each at {n_deletes}");
            assert_eq!(texts.bytes(), numbers.bytes() + texts.len() * (24 + 9));
        }
        texts.forget(1);
        assert_eq!((texts.len(), texts.n_key_bytes), (0, 0));
    }
}
