//! Writes snapshots.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};

use super::super::KeyIndex;
use super::super::files::IndexedFile;
use super::super::place::{FileOrdinal, RowPlace};
use super::super::shard::Shard;
use super::{FORMAT, FileRecord, HASH_BYTES, Header, LENGTH_BYTES, MAGIC, SnapshotOf};
use crate::key::KeyRef;
use crate::order::{Order, SequenceRef};

/// Writes a snapshot in pieces: the head, then shard by shard, each dropped when it is written.
#[derive(Debug)]
pub struct SnapshotWriter {
    head: Option<Vec<u8>>,
    shards: std::vec::IntoIter<Shard>,
    live: LivePlaces,
    hash: blake3::Hasher,
}

/// The places that count, with the numbers that files have in the snapshot.
#[derive(Debug)]
struct LivePlaces {
    /// By ordinal; `None` for files that left the table.
    files: Vec<Option<(FileOrdinal, Arc<IndexedFile>)>>,
}

impl LivePlaces {
    fn get(&self, place: RowPlace) -> Option<RowPlace> {
        let (number, file) = self.files.get(place.file().0 as usize)?.as_ref()?;
        (!file.is_deleted(u64::from(place.row()))).then(|| RowPlace::new(*number, place.row()))
    }
}

impl SnapshotWriter {
    /// Returns the writer of a snapshot of `index`, of which it keeps no more than is still to be written.
    ///
    /// # Errors
    /// `Internal` when a deletion vector or the file table cannot be written.
    pub fn try_new(index: KeyIndex, of: SnapshotOf) -> Result<Self> {
        let failed = |cause| Error::internal("cannot write a snapshot of the key index").with_source(cause);
        let mut bitmaps = Vec::new();
        let mut live = LivePlaces { files: Vec::new() };
        let mut header = Header { of, n_keys: keys_at_most(&index), files: Vec::new() };
        for (number, (ordinal, file)) in (0_u32..).zip(index.files.iter()) {
            live.files.resize(ordinal.0 as usize, None);
            live.files.push(Some((FileOrdinal(number), Arc::clone(file))));
            put_u64(&mut bitmaps, file.deleted().serialized_size() as u64);
            file.deleted()
                .serialize_into(&mut bitmaps)
                .map_err(|cause| Error::internal("cannot write a deletion vector").with_source(cause))?;
            header.files.push(FileRecord {
                path: file.path.clone(),
                size: file.size,
                partition_values: file.partition_values.clone(),
                n_rows: file.n_rows,
                vector: file.vector.clone(),
                bounds: file.bounds.clone(),
            });
        }
        let json = serde_json::to_vec(&header).map_err(failed)?;
        let mut head = Vec::new();
        put_u64(&mut head, json.len() as u64);
        head.extend_from_slice(&json);
        head.extend_from_slice(&bitmaps);
        let doubles: Vec<RowPlace> = index.doubles().filter_map(|place| live.get(place)).collect();
        put_u64(&mut head, doubles.len() as u64);
        for place in doubles {
            put_u64(&mut head, place.to_bits());
        }
        put_u64(&mut head, index.deletes.len() as u64);
        for delete in index.deletes.iter() {
            put_key(&mut head, delete.key());
            put_order(&mut head, &delete.order);
            head.extend_from_slice(&delete.at_ms.to_le_bytes());
        }
        Ok(Self { head: Some(head), shards: index.shards.into_iter(), live, hash: blake3::Hasher::new() })
    }
}

impl Iterator for SnapshotWriter {
    type Item = Vec<u8>;

    /// Returns the next piece, between its length and the hash.
    fn next(&mut self) -> Option<Vec<u8>> {
        let (mut framed, piece) = match self.head.take() {
            Some(head) => ([MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat(), head),
            None => (Vec::new(), shard_bytes(&self.shards.next()?, &self.live)),
        };
        framed.reserve_exact(LENGTH_BYTES + piece.len() + HASH_BYTES);
        put_u64(&mut framed, piece.len() as u64);
        framed.extend_from_slice(&piece);
        self.hash.update(&framed);
        framed.extend_from_slice(self.hash.finalize().as_bytes());
        Some(framed)
    }
}

/// Returns how many live keys of 64 and of 128 bits an index has at most.
fn keys_at_most(index: &KeyIndex) -> [u64; 2] {
    let n_slots = index.shards.iter().map(Shard::n_slots);
    let (n_narrow, n_wide) = n_slots.fold((0, 0), |sum, [narrow, wide, _]| (sum.0 + narrow, sum.1 + wide));
    [n_narrow, n_wide].map(|n_slots| index.n_rows().min(n_slots as u64))
}

/// Returns the live keys of a shard, form by form, each with its place.
fn shard_bytes(shard: &Shard, live: &LivePlaces) -> Vec<u8> {
    let mut forms = [(0_u64, Vec::new()), (0, Vec::new()), (0, Vec::new())];
    shard.for_each(|key, place| {
        let Some(place) = live.get(place) else { return };
        let form = match key {
            KeyRef::Narrow(_) => 0,
            KeyRef::Wide(_) => 1,
            KeyRef::Bytes(_) => 2,
        };
        let (n_keys, bytes) = &mut forms[form];
        *n_keys += 1;
        put_bare(bytes, key);
        put_u64(bytes, place.to_bits());
    });
    let mut piece = Vec::with_capacity(forms.iter().map(|(_, bytes)| 8 + bytes.len()).sum());
    for (n_keys, bytes) in forms {
        put_u64(&mut piece, n_keys);
        piece.extend_from_slice(&bytes);
    }
    piece
}

pub(super) fn put_u64(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

/// Writes a key without its form.
fn put_bare(bytes: &mut Vec<u8>, key: KeyRef<'_>) {
    match key {
        KeyRef::Narrow(key) => bytes.extend_from_slice(&key.to_le_bytes()),
        KeyRef::Wide(key) => bytes.extend_from_slice(&key.to_le_bytes()),
        KeyRef::Bytes(key) => {
            put_u64(bytes, key.len() as u64);
            bytes.extend_from_slice(key);
        }
    }
}

fn put_key(bytes: &mut Vec<u8>, key: KeyRef<'_>) {
    bytes.push(match key {
        KeyRef::Narrow(_) => 0,
        KeyRef::Wide(_) => 1,
        KeyRef::Bytes(_) => 2,
    });
    put_bare(bytes, key);
}

fn put_order(bytes: &mut Vec<u8>, order: &Order) {
    bytes.push(u8::from(order.inherited));
    match order.borrow().sequence {
        None => bytes.push(0),
        Some(SequenceRef::Number(number)) => {
            bytes.push(1);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Some(SequenceRef::Bytes(encoded)) => {
            bytes.push(2);
            put_u64(bytes, encoded.len() as u64);
            bytes.extend_from_slice(encoded);
        }
    }
    bytes.extend_from_slice(&order.offset.to_le_bytes());
    bytes.extend_from_slice(&order.partition.to_le_bytes());
}
