//! The form in which an index is kept for the next start: a file table, what is deleted, and every key with its place.
//!
//! A snapshot is derived from the table, like the index itself: one that is damaged or of another table is no loss, only
//! a longer start. Hashes are not part of it, since they differ from process to process. `docs/FORMATS.md` has the
//! layout; numbers are little endian, and the last 32 bytes are the BLAKE3 hash of all before them.

mod cursor;

use std::collections::HashMap;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};

use super::bounds::Bounds;
use super::files::IndexedFile;
use super::place::{FileOrdinal, RowPlace};
use super::shard::Shard;
use super::{KeyIndex, bulk};
use crate::delta::action::{Add, DeletionVectorDescriptor};
use crate::delta::log::Version;
use crate::key::{KeyRef, Keys};
use crate::order::{Order, SequenceRef};
use cursor::Cursor;

/// Begins every snapshot.
const MAGIC: &[u8; 8] = b"ALVINDEX";

/// The layout that this program writes and reads.
const FORMAT: u32 = 1;

/// The length of the hash at the end.
const HASH_BYTES: usize = 32;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOf {
    /// The table's id.
    pub table: String,
    /// The Delta version.
    pub version: Version,
    /// When it was made, epoch milliseconds.
    pub at_ms: i64,
    /// The key columns and their types, and those of SEQUENCE BY: what forms and bounds depend on.
    pub layout: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    of: SnapshotOf,
    files: Vec<FileRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileRecord {
    path: String,
    size: i64,
    partition_values: HashMap<String, Option<String>>,
    n_rows: u64,
    vector: Option<DeletionVectorDescriptor>,
    bounds: Bounds,
}

/// Writes a snapshot in pieces: the head, then shard by shard, each dropped when it is written.
#[derive(Debug)]
pub struct SnapshotWriter {
    head: Option<Vec<u8>>,
    shards: std::vec::IntoIter<Arc<Shard>>,
    live: LivePlaces,
    hash: blake3::Hasher,
    is_ended: bool,
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
        let mut head = Vec::new();
        let mut bitmaps = Vec::new();
        let mut live = LivePlaces { files: Vec::new() };
        let mut header = Header { of, files: Vec::new() };
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
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
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
        let hash = blake3::Hasher::new();
        Ok(Self { head: Some(head), shards: index.shards.into_iter(), live, hash, is_ended: false })
    }

    fn piece(&mut self) -> Option<Vec<u8>> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        if let Some(shard) = self.shards.next() {
            return Some(shard_bytes(&shard, &self.live));
        }
        None
    }
}

impl Iterator for SnapshotWriter {
    type Item = Vec<u8>;

    /// Returns the next piece.
    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(piece) = self.piece() {
            self.hash.update(&piece);
            return Some(piece);
        }
        let was_ended = std::mem::replace(&mut self.is_ended, true);
        (!was_ended).then(|| self.hash.finalize().as_bytes().to_vec())
    }
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

/// Reads what a snapshot is of out of its first bytes; nobody has checked the hash then.
///
/// # Errors
/// `Data` when the bytes do not begin a snapshot of a known layout.
pub fn read_of(head: &[u8]) -> Result<SnapshotOf> {
    /// How the header begins, which may be cut off further on.
    const BEFORE_OF: &[u8] = br#"{"of":"#;
    let damaged = || Error::data("the snapshot does not begin as one");
    let mut cursor = Cursor(head.strip_prefix(MAGIC).ok_or_else(damaged)?);
    if cursor.u32() != Some(FORMAT) || cursor.length().is_none() {
        return Err(damaged());
    }
    let rest = cursor.0.strip_prefix(BEFORE_OF).ok_or_else(damaged)?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
    let of = values.next().ok_or_else(damaged)?;
    of.map_err(|cause| damaged().with_source(cause))
}

/// Reads a snapshot: what it is of, and the index.
///
/// # Errors
/// `Data` when the bytes are not a whole snapshot of a known layout.
pub fn read_snapshot(bytes: &[u8]) -> Result<(SnapshotOf, KeyIndex)> {
    let damaged = |why: &str| Error::data(format!("the snapshot {why}"));
    let Some((body, hash)) = bytes.split_at_checked(bytes.len().saturating_sub(HASH_BYTES)) else {
        return Err(damaged("is empty"));
    };
    let Some(body_after_mark) = body.strip_prefix(MAGIC) else { return Err(damaged("does not begin with its mark")) };
    if blake3::hash(body).as_bytes() != hash {
        return Err(damaged("does not have the hash that it ends with"));
    }
    let mut cursor = Cursor(body_after_mark);
    match cursor.u32() {
        Some(FORMAT) => {}
        format => return Err(damaged(&format!("has format {format:?}, and {FORMAT} can be read"))),
    }
    let short = || damaged("ends too early");
    let length = cursor.length().ok_or_else(short)?;
    let header: Header = serde_json::from_slice(cursor.take(length).ok_or_else(short)?)
        .map_err(|cause| damaged("has no readable header").with_source(cause))?;
    let mut index = KeyIndex::default();
    for file in header.files {
        let length = cursor.length().ok_or_else(short)?;
        let deleted = RoaringTreemap::deserialize_from(cursor.take(length).ok_or_else(short)?)
            .map_err(|cause| damaged("has a damaged deletion vector").with_source(cause))?;
        let FileRecord { path, size, partition_values, n_rows, vector, bounds } = file;
        let add = Add { path, size, partition_values, deletion_vector: vector, ..Add::default() };
        index.insert_file(IndexedFile::new(&add, n_rows, deleted, bounds));
    }
    read_deletes(&mut cursor, &mut index).ok_or_else(short)?;
    let (n_narrow, n_wide) = count_keys(Cursor(cursor.0)).ok_or_else(short)?;
    let shares = [n_narrow, n_wide].map(|n_keys| n_keys.div_ceil(bulk::N_SHARDS));
    index.shards.fill_with(|| Arc::new(Shard::with_room(shares[0], shares[1])));
    for _shard in 0..bulk::N_SHARDS {
        read_shard(&mut cursor, &mut index).ok_or_else(short)?;
    }
    if !cursor.0.is_empty() {
        return Err(damaged("goes on after its end"));
    }
    Ok((header.of, index))
}

fn read_deletes(cursor: &mut Cursor<'_>, index: &mut KeyIndex) -> Option<()> {
    for _double in 0..cursor.u64()? {
        index.doubles.push(RowPlace::from_bits(cursor.u64()?));
    }
    for _delete in 0..cursor.u64()? {
        let tag = cursor.u8()?;
        let key = cursor.key(tag)?;
        let order = cursor.order()?;
        let at_ms = cursor.i64()?;
        let keys = Keys::of([key]);
        index.deletes.put((keys.get(0), keys.hashes()[0]), order, at_ms);
    }
    Some(())
}

/// Returns how many keys of 64 and of 128 bits the shards have that `cursor` stands before.
fn count_keys(mut cursor: Cursor<'_>) -> Option<(usize, usize)> {
    let (mut n_narrow, mut n_wide) = (0, 0);
    for _shard in 0..bulk::N_SHARDS {
        for (count, slot_bytes) in [(&mut n_narrow, 16), (&mut n_wide, 24)] {
            let n_keys = cursor.length()?;
            cursor.take(n_keys.checked_mul(slot_bytes)?)?;
            *count += n_keys;
        }
        for _key in 0..cursor.length()? {
            let length = cursor.length()?;
            cursor.take(length.checked_add(8)?)?;
        }
    }
    Some((n_narrow, n_wide))
}

fn read_shard(cursor: &mut Cursor<'_>, index: &mut KeyIndex) -> Option<()> {
    for form in 0..3 {
        let n_keys = cursor.length()?;
        let (mut keys, mut places) = (Vec::new(), Vec::new());
        for _key in 0..n_keys {
            keys.push(cursor.key(form)?);
            places.push(RowPlace::from_bits(cursor.u64()?));
        }
        if form < 2 {
            index.put_rows(&Keys::of(keys), &places);
            continue;
        }
        let order = spread(n_keys);
        let places: Vec<RowPlace> = order.iter().filter_map(|index| places.get(*index as usize).copied()).collect();
        index.put_rows(&Keys::of(keys).take(&order), &places);
    }
    Some(())
}

/// Returns the indices of `n_keys` long keys, whose tables grow as they come, so that those of any beginning lie all over. Keys stand in the order of the hashes of
/// the process that wrote them; where it is this one, as when a flow starts again, they would fill a growing table from its
/// low end in one run, and each probe would walk through all of it.
fn spread(n_keys: usize) -> Vec<u32> {
    /// Far more than a table grows by at once.
    const PASSES: usize = 64;
    let n_keys = u32::try_from(n_keys).unwrap_or(u32::MAX);
    (0..PASSES as u32).flat_map(|first| (first..n_keys).step_by(PASSES)).collect()
}

fn put_u64(bytes: &mut Vec<u8>, number: u64) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::order::Sequence;

    #[test]
    fn keys_are_spread_so_that_each_comes_once_and_any_beginning_lies_all_over() {
        for n_keys in [0, 1, 63, 64, 65, 10_000] {
            let mut order = spread(n_keys);
            let beginning = &order[..n_keys / 10];
            let reach =
                beginning.iter().max().zip(beginning.iter().min()).map_or(0, |(greatest, least)| greatest - least);
            assert!(n_keys < 100 || reach as usize > n_keys / 2, "{reach} of {n_keys}");
            order.sort_unstable();
            assert!(order.into_iter().eq(0..u32::try_from(n_keys).unwrap_or_default()));
        }
    }

    fn of() -> SnapshotOf {
        SnapshotOf { table: "t".to_owned(), version: 7, at_ms: 99, layout: "id Int64 | Int64".to_owned() }
    }

    /// Returns an index with keys of all forms, a remembered delete, a double and a file that is gone.
    fn sample(n_keys: u32) -> KeyIndex {
        let mut index = KeyIndex::default();
        let add = |path: &str| Add { path: path.to_owned(), size: 5, ..Add::default() };
        let file = |path: &str| {
            let deleted = RoaringTreemap::from_iter([1]);
            IndexedFile::new(&add(path), u64::from(n_keys), deleted, Bounds::default())
        };
        let but_deleted: Vec<u32> = (0..n_keys).filter(|row| *row != 1).collect();
        let rows = |file| but_deleted.iter().map(|row| RowPlace::new(file, *row)).collect::<Vec<_>>();
        let gone = index.insert_file(file("gone"));
        let words: Vec<String> = (0..n_keys).map(|number| format!("a key of many bytes {number}")).collect();
        let keys = Keys::of((0..n_keys).zip(&words).map(|(number, word)| match number % 3 {
            0 => KeyRef::Narrow(u64::from(number)),
            1 => KeyRef::Wide(u128::from(number) << 70),
            _ => KeyRef::Bytes(word.as_bytes()),
        }));
        index.put_rows(&keys.take(&but_deleted), &rows(gone));
        index.remove_file("gone");
        let (one, other) = (index.insert_file(file("one")), index.insert_file(file("other")));
        index.put_found(&keys.take(&but_deleted), &rows(one));
        index.settle((keys.get(0), keys.hashes()[0]), RowPlace::new(other, 0), RowPlace::new(one, 0));
        let sequence = Some(Sequence::Bytes([1, 2, 3].into()));
        let order = Order { sequence, inherited: true, offset: -4, partition: 5 };
        index.put_remembered_delete((keys.get(1), keys.hashes()[1]), order, 1_234);
        index
    }

    fn bytes_of(index: &KeyIndex) -> Result<Vec<u8>> {
        Ok(SnapshotWriter::try_new(index.clone(), of())?.flatten().collect())
    }

    /// Returns all that an index knows, in an order that does not depend on hashes and ordinals.
    fn contents(index: &KeyIndex) -> (Vec<String>, Vec<String>) {
        let path = |place: RowPlace| index.file(place.file()).map(|file| (file.path.clone(), place.row()));
        let mut known = Vec::new();
        for shard in &index.shards {
            shard.for_each(|key, place| {
                if index.files.is_live(place) {
                    known.push(format!("{key:?} {:?}", path(place)));
                }
            });
        }
        known.extend(index.doubles().map(|place| format!("double {:?}", path(place))));
        known.extend(index.deletes.iter().map(|gone| format!("{:?} {:?} {}", gone.key(), gone.order, gone.at_ms)));
        known.sort();
        let files = index.files().map(|(_, file)| format!("{file:?}")).collect();
        (known, files)
    }

    #[test]
    fn an_index_comes_back_as_it_was() -> Result<()> {
        for n_keys in [2, 40, 3_000] {
            let index = sample(n_keys);
            let (read_of, read) = read_snapshot(&bytes_of(&index)?)?;
            assert_eq!(read_of, of());
            assert_eq!(contents(&read), contents(&index));
            assert_eq!(read.n_rows(), index.n_rows());
            assert_eq!(read.count_keys(), read.footprint().n_keys);
        }
        Ok(())
    }

    /// The layout of `docs/FORMATS.md`, written by hand: what an earlier version wrote must be read for ever.
    #[test]
    fn the_layout_is_the_documented_one() -> Result<()> {
        let header = br#"{"of":{"table":"t","version":7,"at_ms":99,"layout":"id Int64 | Int64"},"files":[{"path":"a","size":5,"partition_values":{"d":null},"n_rows":2,"vector":null,"bounds":{"sequence":[{"Number":1},{"Number":2}],"position":[[0,0],[1,0]],"has_unknown":false}}]}"#;
        let mut bytes = b"ALVINDEX\x01\0\0\0".to_vec();
        put_u64(&mut bytes, header.len() as u64);
        bytes.extend_from_slice(header);
        let nothing_deleted = 0_u64.to_le_bytes();
        put_u64(&mut bytes, nothing_deleted.len() as u64);
        bytes.extend_from_slice(&nothing_deleted);
        put_u64(&mut bytes, 0);
        put_u64(&mut bytes, 1);
        bytes.extend_from_slice(b"\x00\x2a\0\0\0\0\0\0\0\x01\x01\x09\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x03\0\0\0");
        put_u64(&mut bytes, 1_234);
        for shard in 0..64 {
            put_u64(&mut bytes, u64::from(shard == 3));
            if shard == 3 {
                put_u64(&mut bytes, 7);
                put_u64(&mut bytes, 1);
            }
            put_u64(&mut bytes, 0);
            put_u64(&mut bytes, 0);
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        let (read_of, index) = read_snapshot(&bytes)?;
        assert_eq!(read_of, of());
        let keys = Keys::of([KeyRef::Narrow(7), KeyRef::Narrow(42)]);
        let place = index.find_one(keys.get(0), keys.hashes()[0]);
        assert_eq!(place.map(|place| (place.file(), place.row())), index.ordinal("a").map(|file| (file, 1)));
        let deleted = index.deleted(keys.get(1), keys.hashes()[1]).map(|gone| (gone.order.clone(), gone.at_ms));
        let order = Order { sequence: Some(Sequence::Number(9)), inherited: true, offset: 8, partition: 3 };
        assert_eq!(deleted, Some((order, 1_234)));
        Ok(())
    }

    proptest! {
        #[test]
        fn a_damaged_snapshot_is_refused_and_no_crash(at in 0..1_000_usize, bit in 0..8_u32, end in 0..1_000_usize) {
            let failed = |error: Error| TestCaseError::fail(error.to_string());
            let whole = bytes_of(&sample(20)).map_err(failed)?;
            let mut flipped = whole.clone();
            flipped[at % whole.len()] ^= 1 << bit;
            prop_assert!(read_snapshot(&flipped).is_err());
            prop_assert!(read_snapshot(&whole[..end % whole.len()]).is_err());
        }
    }
}
