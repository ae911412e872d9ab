//! The form in which an index is kept for the next start: a file table, what is deleted, and every key with its place.
//!
//! A snapshot is derived from the table, like the index itself: one that is damaged or of another table is no loss, only
//! a longer start. Hashes of keys are not part of it, since they differ from process to process. It is written and read in
//! pieces, none of which is looked into before the hash behind it holds, so that neither side has more than one of them
//! beside the index. `docs/FORMATS.md` has the layout; numbers are little endian.

mod cursor;
mod reader;
mod writer;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::bounds::Bounds;
use super::shard::N_SHARDS;
use crate::delta::action::DeletionVectorDescriptor;
use crate::delta::log::Version;

pub use reader::{SnapshotReader, read_of, read_snapshot};
pub use writer::SnapshotWriter;

/// Begins every snapshot.
const MAGIC: &[u8; 8] = b"ALVINDEX";

/// The layout that this program writes and reads, that of keys and sequences included: some of both are rows as arrow encodes
/// them, which another release of it may do otherwise. Tests of `key` and `order` notice.
const FORMAT: u32 = 2;

/// The length of the hash behind each piece: of all bytes before it that are none of these hashes.
const HASH_BYTES: usize = 32;

/// The length of the length before each piece.
const LENGTH_BYTES: usize = 8;

/// A head, and the keys of each shard.
const N_PIECES: usize = 1 + N_SHARDS;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOf {
    /// The table's id.
    pub table: String,
    /// The Delta version.
    pub version: Version,
    /// When it was made, epoch milliseconds.
    pub at_ms: i64,
    /// The key columns and their types, and the types and the text of SEQUENCE BY: all that what is kept depends on.
    pub layout: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    of: SnapshotOf,
    /// How many keys of 64 and of 128 bits there are at most.
    n_keys: [u64; 2],
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use alluvium_catalog::{Error, Result};
    use roaring::RoaringTreemap;

    use super::super::KeyIndex;
    use super::super::deletes::ToldDelete;
    use super::super::files::IndexedFile;
    use super::super::place::RowPlace;
    use super::writer::put_u64;
    use super::*;
    use crate::delta::action::Add;
    use crate::key::{KeyRef, Keys};
    use crate::order::{Order, Sequence};

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
        let told = ToldDelete { order, at_ms: 1_234, over_row: false, has_landed: false };
        index.put_remembered_delete((keys.get(1), keys.hashes()[1]), told);
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

    #[test]
    fn what_has_changed_beside_a_clone_is_in_the_next_snapshot() -> Result<()> {
        let mut index = sample(3_000);
        let held = index.clone();
        let add = Add { path: "late".to_owned(), ..Add::default() };
        let late = index.insert_file(IndexedFile::new(&add, 500, RoaringTreemap::new(), Bounds::default()));
        let rows: Vec<RowPlace> = (0..500).map(|row| RowPlace::new(late, row)).collect();
        index.put_rows(&Keys::of((0..500).map(|number| KeyRef::Narrow(1_000_000 + number))), &rows);
        for index in [&held, &index] {
            assert_eq!(contents(&read_snapshot(&bytes_of(index)?)?.1), contents(index));
        }
        assert_eq!(index.n_rows(), held.n_rows() + 500);
        Ok(())
    }

    #[test]
    fn a_vector_that_does_not_fit_its_file_makes_a_snapshot_useless() -> Result<()> {
        let mut index = KeyIndex::default();
        let add = Add { path: "a".to_owned(), ..Add::default() };
        index.insert_file(IndexedFile::new(&add, 3, RoaringTreemap::from_iter([0, 1_000]), Bounds::default()));
        let refused = read_snapshot(&bytes_of(&index)?).map(drop).map_err(|error| error.to_string());
        assert!(refused.as_ref().is_err_and(|text| text.contains("does not fit a")), "{refused:?}");
        Ok(())
    }

    /// The layout of `docs/FORMATS.md`, written by hand.
    #[test]
    fn the_layout_is_the_documented_one() -> Result<()> {
        let header = br#"{"of":{"table":"t","version":7,"at_ms":99,"layout":"id Int64 | Int64"},"n_keys":[1,0],"files":[{"path":"a","size":5,"partition_values":{"d":null},"n_rows":2,"vector":null,"bounds":{"sequence":[{"Number":1},{"Number":2}],"position":[[0,0],[1,0]],"has_unknown":false}}]}"#;
        let mut head = Vec::new();
        put_u64(&mut head, header.len() as u64);
        head.extend_from_slice(header);
        let nothing_deleted = 0_u64.to_le_bytes();
        put_u64(&mut head, nothing_deleted.len() as u64);
        head.extend_from_slice(&nothing_deleted);
        put_u64(&mut head, 0);
        put_u64(&mut head, 1);
        head.extend_from_slice(b"\x00\x2a\0\0\0\0\0\0\0\x01\x01\x09\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x03\0\0\0");
        put_u64(&mut head, 1_234);
        let shards = (0..64).map(|shard| {
            let mut keys = Vec::new();
            put_u64(&mut keys, u64::from(shard == 3));
            if shard == 3 {
                put_u64(&mut keys, 7);
                put_u64(&mut keys, 1);
            }
            put_u64(&mut keys, 0);
            put_u64(&mut keys, 0);
            keys
        });
        let mut hashed = b"ALVINDEX\x02\0\0\0".to_vec();
        let mut bytes = hashed.clone();
        for piece in [head].into_iter().chain(shards) {
            let framed = [&(piece.len() as u64).to_le_bytes(), piece.as_slice()].concat();
            hashed.extend_from_slice(&framed);
            bytes.extend_from_slice(&framed);
            bytes.extend_from_slice(blake3::hash(&hashed).as_bytes());
        }
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
            prop_assert!(read_snapshot(&[&whole[..], &[0]].concat()).is_err());
        }
    }
}
