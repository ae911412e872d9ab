//! Reads snapshots.

use alluvium_catalog::{Error, Result};
use roaring::RoaringTreemap;

use super::super::KeyIndex;
use super::super::files::IndexedFile;
use super::super::place::RowPlace;
use super::super::shard::{N_SHARDS, Shard};
use super::cursor::Cursor;
use super::{FORMAT, FileRecord, HASH_BYTES, Header, LENGTH_BYTES, MAGIC, N_PIECES, SnapshotOf};
use crate::delta::action::Add;
use crate::key::Keys;

/// Reads what a snapshot is of out of its first bytes; nobody has checked the hash then.
///
/// # Errors
/// `Data` when the bytes do not begin a snapshot of a known layout.
pub fn read_of(head: &[u8]) -> Result<SnapshotOf> {
    /// How the header begins, which may be cut off further on.
    const BEFORE_OF: &[u8] = br#"{"of":"#;
    let damaged = || damaged("does not begin as one");
    let (mark, rest) = head.split_at_checked(MAGIC.len() + size_of_val(&FORMAT)).ok_or_else(damaged)?;
    check_mark(mark)?;
    // The lengths of the first piece and of the header in it.
    let (_lengths, header) = rest.split_at_checked(2 * LENGTH_BYTES).ok_or_else(damaged)?;
    let rest = header.strip_prefix(BEFORE_OF).ok_or_else(damaged)?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
    let of = values.next().ok_or_else(damaged)?;
    of.map_err(|cause| damaged().with_source(cause))
}

/// Reads a snapshot that is in memory as a whole: what it is of, and the index.
///
/// # Errors
/// `Data` when the bytes are not a whole snapshot of a known layout.
pub fn read_snapshot(mut bytes: &[u8]) -> Result<(SnapshotOf, KeyIndex)> {
    let mut reader = SnapshotReader::new();
    while reader.wants() > 0 {
        let wanted = usize::try_from(reader.wants()).unwrap_or(usize::MAX);
        let (taken, rest) = bytes.split_at_checked(wanted).ok_or_else(|| damaged("ends too early"))?;
        reader.take(taken)?;
        bytes = rest;
    }
    if !bytes.is_empty() {
        return Err(damaged("goes on after its end"));
    }
    reader.finish()
}

/// Reads a snapshot piece by piece, with no more than one of them beside the index.
///
/// A piece is looked into when its hash holds, and not before.
#[derive(Debug)]
pub struct SnapshotReader {
    hash: blake3::Hasher,
    wants: u64,
    /// Pieces that have been read; nothing before the mark and the first length are.
    n_read: Option<usize>,
    of: Option<SnapshotOf>,
    index: KeyIndex,
}

impl Default for SnapshotReader {
    fn default() -> Self {
        let wants = (MAGIC.len() + size_of_val(&FORMAT) + LENGTH_BYTES) as u64;
        Self { hash: blake3::Hasher::new(), wants, n_read: None, of: None, index: KeyIndex::default() }
    }
}

impl SnapshotReader {
    /// Returns a reader that stands before a snapshot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many bytes it takes next; 0 when it has all. Nobody has checked the number.
    pub fn wants(&self) -> u64 {
        self.wants
    }

    /// Returns what the snapshot is of, once its head is read.
    pub fn of(&self) -> Option<&SnapshotOf> {
        self.of.as_ref()
    }

    /// Reads the next bytes, as many as it [wants](Self::wants).
    ///
    /// # Errors
    /// `Data` when they do not go on with a whole snapshot of a known layout.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(n_read) = self.n_read else {
            let (mark, length) = bytes.split_last_chunk().ok_or_else(|| damaged("ends too early"))?;
            check_mark(mark)?;
            self.hash.update(bytes);
            self.n_read = Some(0);
            return self.want_piece(0, *length);
        };
        let next_length_bytes = if n_read + 1 < N_PIECES { LENGTH_BYTES } else { 0 };
        let ends = bytes.len().checked_sub(next_length_bytes);
        let (piece, rest) = ends
            .and_then(|ends| Some(bytes.split_at(ends.checked_sub(HASH_BYTES)?)))
            .ok_or_else(|| damaged("ends too early"))?;
        let (hash, next_length) = rest.split_at(HASH_BYTES);
        if self.hash.update(piece).finalize().as_bytes() != hash {
            return Err(damaged("does not have the hash that stands behind a piece of it"));
        }
        match n_read {
            0 => self.read_head(piece)?,
            _ => self.read_keys(piece)?,
        }
        self.n_read = Some(n_read + 1);
        self.hash.update(next_length);
        match next_length.try_into() {
            Ok(length) => self.want_piece(n_read + 1, length),
            Err(_) => {
                self.wants = 0;
                Ok(())
            }
        }
    }

    /// Returns what the snapshot is of, and the index.
    ///
    /// # Errors
    /// `Data` when it has not been read whole.
    pub fn finish(self) -> Result<(SnapshotOf, KeyIndex)> {
        match self.of {
            Some(of) if self.wants == 0 => Ok((of, self.index)),
            _ => Err(damaged("ends too early")),
        }
    }

    /// Wants the piece that is `number`, and what stands between it and the next one.
    fn want_piece(&mut self, number: usize, length: [u8; LENGTH_BYTES]) -> Result<()> {
        let next_length_bytes = if number + 1 < N_PIECES { LENGTH_BYTES } else { 0 };
        let rest = (HASH_BYTES + next_length_bytes) as u64;
        self.wants = u64::from_le_bytes(length).checked_add(rest).ok_or_else(|| damaged("ends too early"))?;
        Ok(())
    }

    fn read_head(&mut self, piece: &[u8]) -> Result<()> {
        let short = || damaged("has a head that ends too early");
        let mut cursor = Cursor(piece);
        let length = cursor.length().ok_or_else(short)?;
        let header: Header = serde_json::from_slice(cursor.take(length).ok_or_else(short)?)
            .map_err(|cause| damaged("has no readable header").with_source(cause))?;
        for file in header.files {
            let length = cursor.length().ok_or_else(short)?;
            let deleted = RoaringTreemap::deserialize_from(cursor.take(length).ok_or_else(short)?)
                .map_err(|cause| damaged("has a damaged deletion vector").with_source(cause))?;
            let FileRecord { path, size, partition_values, n_rows, vector, bounds } = file;
            if deleted.max().is_some_and(|last| last >= n_rows) {
                return Err(damaged(&format!("has a deletion vector that does not fit {path}")));
            }
            let add = Add { path, size, partition_values, deletion_vector: vector, ..Add::default() };
            self.index.insert_file(IndexedFile::new(&add, n_rows, deleted, bounds));
        }
        read_deletes(&mut cursor, &mut self.index).ok_or_else(short)?;
        check_end(&cursor)?;
        let [n_narrow, n_wide] = header.n_keys.map(|n_keys| n_keys.div_ceil(N_SHARDS as u64));
        let room = |n_keys| usize::try_from(n_keys).map_err(|_| damaged("has more keys than there is room for"));
        let (n_narrow, n_wide) = (room(n_narrow)?, room(n_wide)?);
        for (shard, table) in self.index.shards.iter_mut().enumerate() {
            *table = Shard::with_room(n_narrow, n_wide, shard);
        }
        self.of = Some(header.of);
        Ok(())
    }

    fn read_keys(&mut self, piece: &[u8]) -> Result<()> {
        let mut cursor = Cursor(piece);
        read_shard(&mut cursor, &mut self.index).ok_or_else(|| damaged("has keys that end too early"))?;
        check_end(&cursor)
    }
}

fn damaged(why: &str) -> Error {
    Error::data(format!("the snapshot {why}"))
}

fn check_mark(mark: &[u8]) -> Result<()> {
    let mut cursor = Cursor(mark.strip_prefix(MAGIC).ok_or_else(|| damaged("does not begin with its mark"))?);
    match cursor.u32() {
        Some(FORMAT) => Ok(()),
        Some(format) => Err(damaged(&format!("has format {format}, and {FORMAT} can be read"))),
        None => Err(damaged("ends too early")),
    }
}

fn check_end(cursor: &Cursor<'_>) -> Result<()> {
    if cursor.0.is_empty() { Ok(()) } else { Err(damaged("has a piece that goes on after its end")) }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
