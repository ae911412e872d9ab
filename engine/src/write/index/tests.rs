//! What the module `index` promises, tested: it is exact, small, and agrees with a map.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Int32Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;
use crate::delta::action::Add;
use crate::key::KeyForm;
use crate::order::{Order, Sequence};

fn order(offset: i64) -> Order {
    Order { sequence: None, inherited: true, offset, partition: 0 }
}

fn numbers(keys: impl IntoIterator<Item = u64>) -> Keys {
    let keys: Vec<u64> = keys.into_iter().collect();
    Keys::of(keys.into_iter().map(KeyRef::Narrow))
}

fn file(path: &str, n_rows: u64) -> IndexedFile {
    let add = Add { path: path.to_owned(), ..Add::default() };
    IndexedFile::new(&add, n_rows, RoaringTreemap::new(), Bounds::default())
}

fn rows_of(ordinal: FileOrdinal, n_rows: u32) -> Vec<RowPlace> {
    (0..n_rows).map(|row| RowPlace::new(ordinal, row)).collect()
}

/// Returns an index with one file of `keys`, and the file.
fn index_of(keys: &Keys) -> (KeyIndex, FileOrdinal) {
    let mut index = KeyIndex::default();
    let n_rows = u32::try_from(keys.len()).unwrap_or_default();
    let ordinal = index.insert_file(file("first", u64::from(n_rows)));
    assert!(index.put_found(keys, &rows_of(ordinal, n_rows)).is_empty());
    (index, ordinal)
}

fn get(index: &KeyIndex, keys: &Keys, at: usize) -> Option<RowPlace> {
    index.find_one(keys.get(at), keys.hashes()[at])
}

/// Checks what every change has to leave behind.
fn check_counts(index: &KeyIndex) {
    index.check_count();
    assert_eq!(index.count_keys(), index.footprint().n_keys);
    assert_eq!(index.files.bytes(), index.files.count_bytes());
    assert_eq!(index.n_rows(), index.files().map(|(_, file)| file.n_live()).sum::<u64>());
}

#[test]
fn a_hit_counts_only_while_its_row_lives() {
    let keys = numbers([7, 8, 9]);
    let (mut index, first) = index_of(&keys);
    assert_eq!(get(&index, &keys, 2), Some(RowPlace::new(first, 2)));
    index.set_deleted(first, RoaringTreemap::from_iter([2]), None);
    assert_eq!(get(&index, &keys, 2), None, "the row is deleted");
    check_counts(&index);
    assert!(get(&index, &keys, 1).is_some());
    index.remove_file("first");
    assert_eq!(get(&index, &keys, 1), None, "the file is gone");
    check_counts(&index);
    assert_eq!(index.footprint().n_keys, 0);
}

#[test]
fn of_two_live_rows_one_stands_and_the_other_waits_for_its_delete() {
    let keys = numbers([7]);
    let (mut index, old) = index_of(&keys);
    let new = index.insert_file(file("new", 1));
    let doubles = index.put_found(&keys, &rows_of(new, 1));
    assert_eq!(doubles, [Double { index: 0, known: RowPlace::new(old, 0) }]);
    assert_eq!(get(&index, &keys, 0), Some(RowPlace::new(old, 0)), "nothing changes until it is settled");
    index.settle((keys.get(0), keys.hashes()[0]), RowPlace::new(new, 0), RowPlace::new(old, 0));
    assert_eq!(get(&index, &keys, 0), Some(RowPlace::new(new, 0)));
    assert_eq!(index.doubles().collect::<Vec<_>>(), [RowPlace::new(old, 0)]);
    check_counts(&index);
    index.delete_rows(old, &RoaringTreemap::from_iter([0]));
    assert_eq!(index.doubles().count(), 0);
    check_counts(&index);
}

#[test]
fn each_of_many_doubles_is_that_of_its_key_whatever_the_shard() {
    const N_KEYS: u32 = 20_000;
    let long = |key: u32| format!("a key of more than sixteen bytes, {key}").into_bytes();
    let texts: Vec<Vec<u8>> = (0..N_KEYS).map(long).collect();
    let key = |key: u32| {
        if key.is_multiple_of(3) { KeyRef::Bytes(&texts[key as usize]) } else { KeyRef::Narrow(u64::from(key)) }
    };
    let keys = Keys::of((0..N_KEYS).map(key));
    let (mut index, old) = index_of(&keys);
    let new = index.insert_file(file("new", u64::from(N_KEYS)));
    let backward = Keys::of((0..N_KEYS).rev().map(key));
    let doubles = index.put_found(&backward, &rows_of(new, N_KEYS));
    let expected = (0..N_KEYS).map(|at| Double { index: at, known: RowPlace::new(old, N_KEYS - 1 - at) });
    assert_eq!(doubles, expected.collect::<Vec<_>>());
    // In the places of half of them, whose rows are gone, the new ones stand.
    let places: Vec<RowPlace> =
        (0..N_KEYS).map(|row| if row % 2 == 0 { RowPlace::new(new, row) } else { RowPlace::NONE }).collect();
    let found = index.look_up(&backward);
    index.replace_rows(&found, &places);
    let gone = RoaringTreemap::from_iter((0..N_KEYS).filter(|row| (N_KEYS - 1 - row).is_multiple_of(2)).map(u64::from));
    index.delete_rows(old, &gone);
    index.delete_rows(new, &(0..N_KEYS).filter(|row| row % 2 == 1).map(u64::from).collect());
    let expected =
        (0..N_KEYS).map(|at| if at % 2 == 0 { places[at as usize] } else { RowPlace::new(old, N_KEYS - 1 - at) });
    assert_eq!(index.find(&backward), expected.collect::<Vec<_>>());
    check_counts(&index);
}

#[test]
fn a_double_whose_file_is_removed_is_settled_by_that() {
    let keys = numbers([7, 8]);
    let (mut index, old) = index_of(&keys);
    let new = index.insert_file(file("new", 2));
    index.put_found(&keys, &rows_of(new, 2));
    for row in 0..2 {
        let key = (keys.get(row as usize), keys.hashes()[row as usize]);
        index.settle(key, RowPlace::new(new, row), RowPlace::new(old, row));
    }
    check_counts(&index);
    index.remove_file("first");
    assert_eq!((index.doubles().count(), index.footprint().n_keys), (0, 2));
    check_counts(&index);
}

#[test]
fn what_changes_in_a_file_settles_its_own_doubles_and_no_others() {
    let keys = numbers(0..6);
    let (mut index, first) = index_of(&keys);
    let new = index.insert_file(file("new", 6));
    index.put_found(&keys, &rows_of(new, 6));
    for row in 0..6 {
        let key = (keys.get(row as usize), keys.hashes()[row as usize]);
        let (one, other) = (RowPlace::new(new, row), RowPlace::new(first, row));
        let (stands, falls) = if row < 3 { (one, other) } else { (other, one) };
        index.settle(key, stands, falls);
    }
    let doubles = |index: &KeyIndex| {
        check_counts(index);
        let files: Vec<FileOrdinal> = index.files_with_doubles().map(|(ordinal, _)| ordinal).collect();
        let places: Vec<(FileOrdinal, u32)> = index.doubles().map(|place| (place.file(), place.row())).collect();
        (files, places)
    };
    let both = vec![first, new];
    let all = vec![(first, 0), (first, 1), (first, 2), (new, 3), (new, 4), (new, 5)];
    assert_eq!(doubles(&index), (both.clone(), all));
    index.set_deleted(new, RoaringTreemap::from_iter([3]), None);
    assert_eq!(doubles(&index), (both.clone(), vec![(first, 0), (first, 1), (first, 2), (new, 4), (new, 5)]));
    index.delete_rows(first, &RoaringTreemap::from_iter([0]));
    assert_eq!(doubles(&index), (both, vec![(first, 1), (first, 2), (new, 4), (new, 5)]));
    index.remove_file("new");
    assert_eq!(doubles(&index), (vec![first], vec![(first, 1), (first, 2)]));
    assert_eq!(index.footprint().n_keys, 3);
}

/// Returns a delete as a sidecar beside the table tells of it.
fn told(order: Order) -> ToldDelete {
    ToldDelete { order, at_ms: 0, over_row: false, has_landed: false }
}

#[test]
fn of_two_deletes_that_are_told_of_the_one_that_binds_is_remembered() {
    let at = |sequence, offset, partition| Order {
        sequence: Some(Sequence::Number(sequence)),
        inherited: false,
        offset,
        partition,
    };
    let over_row = |order: Order| ToldDelete { over_row: true, ..told(order) };
    let landed = ToldDelete { has_landed: true, ..told(at(6, 2, 0)) };
    let keys = numbers([7]);
    let key = || (keys.get(0), keys.hashes()[0]);
    for (second, expected) in [
        (told(at(6, 2, 0)), 20),
        (over_row(at(6, 2, 0)), 6),
        (over_row(at(6, 2, 1)), 20),
        (over_row(at(6, 0, 0)), 20),
        (landed.clone(), 6),
        (told(at(21, 0, 0)), 21),
        (told(at(3, 1, 0)), 3),
    ] {
        let mut index = KeyIndex::default();
        index.put_remembered_delete(key(), told(at(20, 1, 0)));
        index.put_remembered_delete(key(), second.clone());
        let known = index.deleted(keys.get(0), keys.hashes()[0]).and_then(|known| known.order.sequence.clone());
        assert_eq!(known, Some(Sequence::Number(expected)), "{second:?}");
    }
    let (mut index, _) = index_of(&keys);
    index.put_remembered_delete(key(), landed);
    assert!(get(&index, &keys, 0).is_some() && !index.remembers_deletes(), "a row that lives is hidden by none");
}

#[test]
fn a_remembered_delete_never_hides_a_live_row() {
    let keys = numbers([7, 8]);
    let (mut index, _) = index_of(&keys.take(&[0]));
    let key = |at: usize| (keys.get(at), keys.hashes()[at]);
    for at in 0..2 {
        index.put_remembered_delete(key(at), told(order(5)));
    }
    assert!(get(&index, &keys, 0).is_some());
    let known = |index: &KeyIndex, at: usize| index.deleted(key(at).0, key(at).1).map(|known| known.order.offset);
    assert_eq!((known(&index, 0), known(&index, 1)), (None, Some(5)));
    index.put_remembered_delete(key(1), told(order(4)));
    assert_eq!(known(&index, 1), Some(5), "the newest delete is the one to remember");
    let fresh = index.insert_file(file("fresh", 1));
    index.put_rows(&keys, &[RowPlace::NONE, RowPlace::new(fresh, 0)]);
    assert_eq!(known(&index, 1), None, "a row takes the place of its delete");
    check_counts(&index);
    index.put_delete(key(1), order(9), 3);
    index.delete_rows(fresh, &RoaringTreemap::from_iter([0]));
    assert_eq!((get(&index, &keys, 1), known(&index, 1)), (None, Some(9)));
    check_counts(&index);
    index.forget(4);
    assert_eq!(known(&index, 1), None);
}

#[test]
fn keys_whose_hashes_meet_are_told_apart() {
    let words: Vec<String> = (0..200).map(|word| format!("a longer key {word}")).collect();
    let words = Keys::of(words.iter().map(|word| KeyRef::Bytes(word.as_bytes()))).with_hashes(vec![42; 200]);
    let (index, first) = index_of(&words);
    for at in 0..200 {
        assert_eq!(get(&index, &words, at), Some(RowPlace::new(first, u32::try_from(at).unwrap_or_default())));
    }
    let stranger = Keys::of([KeyRef::Bytes(b"a longer key 200")]).with_hashes(vec![42]);
    assert_eq!(get(&index, &stranger, 0), None);
    let few = numbers([1, 2, 3]).with_hashes(vec![u64::MAX; 3]);
    let (index, first) = index_of(&few);
    assert_eq!(index.find(&few), rows_of(first, 3));
    let other_form = Keys::of([KeyRef::Wide(1)]).with_hashes(vec![u64::MAX]);
    assert_eq!(get(&index, &other_form, 0), None, "forms are part of a key");
}

#[test]
fn entries_follow_the_rows_that_compaction_moves() {
    let keys = numbers(0..6);
    let (mut index, first) = index_of(&keys);
    // Rows 0 to 5 move in the opposite order; row 1 is superseded and row 4 is deleted in the meantime.
    let meanwhile = index.insert_file(file("meanwhile", 1));
    index.put_rows(&keys.take(&[1]), &[RowPlace::new(meanwhile, 0)]);
    index.put_delete((keys.get(4), keys.hashes()[4]), order(1), 0);
    index.delete_rows(first, &RoaringTreemap::from_iter([1, 4]));
    let add = Add { path: "output".to_owned(), ..Add::default() };
    let output = IndexedFile::new(&add, 6, RoaringTreemap::from_iter([1, 4]), Bounds::default());
    let output = index.insert_file(output);
    index.relocate(&|place| (place.file() == first).then(|| RowPlace::new(output, 5 - place.row())));
    index.remove_file("first");
    check_counts(&index);
    let found = index.find(&keys);
    let row = |row: u32| RowPlace::new(output, row);
    assert_eq!(found, [row(5), RowPlace::new(meanwhile, 0), row(3), row(2), RowPlace::NONE, row(0)]);
    assert_eq!(index.deleted_rows("output"), Some(&RoaringTreemap::from_iter([1, 4])));
    assert_eq!(index.deleted_rows("first"), None);
}

/// Puts a million keys in batches, as a table grows, and checks what one takes and that all are found.
fn check_bytes_per_key(columns: impl Fn(i64) -> Vec<ArrayRef>, bytes_max: f64) -> Result<()> {
    const BATCH: i64 = 50_000;
    let form = KeyForm::try_new(columns(0).iter().map(|column| column.data_type().clone()).collect())?;
    let mut index = KeyIndex::default();
    for batch in 0..20 {
        let keys = form.pack(&columns(batch))?;
        let n_rows = u32::try_from(keys.len()).unwrap_or_default();
        let ordinal = index.insert_file(file(&format!("{batch}"), u64::from(n_rows)));
        index.put_rows(&keys, &rows_of(ordinal, n_rows));
        let Footprint { n_keys, bytes, .. } = index.footprint();
        let per_key = bytes as f64 / n_keys as f64;
        assert!(per_key <= bytes_max || batch < 2, "{per_key:.1} bytes a key at {n_keys} keys");
    }
    assert_eq!(index.footprint().n_keys, 20 * BATCH as u64);
    for (ordinal, batch) in [(FileOrdinal(0), 0), (FileOrdinal(19), 19)] {
        assert_eq!(index.find(&form.pack(&columns(batch))?), rows_of(ordinal, BATCH as u32));
    }
    Ok(())
}

/// Returns the keys of a batch: numbers far from each other, each made into a value of a column.
fn column<A: Array + FromIterator<Option<T>> + 'static, T>(batch: i64, value: impl Fn(i64) -> T) -> ArrayRef {
    let numbers = (0..50_000).map(|row| (batch * 50_000 + row) * 7_919);
    Arc::new(numbers.map(|number| Some(value(number))).collect::<A>())
}

#[test]
fn a_million_keys_take_24_bytes_each_when_narrow() -> Result<()> {
    check_bytes_per_key(|batch| vec![column::<Int64Array, _>(batch, |number| number)], 24.0)?;
    check_bytes_per_key(
        |batch| vec![column::<StringArray, _>(batch, |number| format!("{:07}", number / 7_919))],
        24.0,
    )?;
    let halves = |batch| {
        let low = column::<Int32Array, _>(batch, |number| (number & 0xffff) as i32);
        vec![low, column::<Int32Array, _>(batch, |number| (number >> 16) as i32)]
    };
    check_bytes_per_key(halves, 24.0)
}

#[test]
fn a_million_keys_take_36_bytes_each_when_wide() -> Result<()> {
    let decimals = |batch| column::<Decimal128Array, _>(batch, |number| i128::from(number) << 40);
    check_bytes_per_key(|batch| vec![decimals(batch)], 36.0)?;
    let uuid = |number: i64| format!("01890a5d-ac96-774b-bcce-{number:012x}");
    check_bytes_per_key(|batch| vec![column::<StringArray, _>(batch, uuid)], 36.0)?;
    let pair = |batch| vec![column::<Int64Array, _>(batch, |number| number), column::<Int32Array, _>(batch, |_| 7)];
    check_bytes_per_key(pair, 36.0)
}

#[test]
fn a_million_long_keys_take_40_bytes_each_and_a_quarter_more_than_their_length() -> Result<()> {
    let text = |number: i64| format!("order-{number:018}");
    check_bytes_per_key(|batch| vec![column::<StringArray, _>(batch, text)], 40.0 + 1.25 * 24.0)
}

/// Tables whose keys were counted have the same room, and would all grow at the same moment.
#[test]
fn keys_that_come_after_those_of_a_snapshot_take_24_bytes_each_too() {
    const N_READ: u32 = 400_000;
    const STEP: u32 = 5_000;
    let mut index = KeyIndex::default();
    for (shard, table) in index.shards.iter_mut().enumerate() {
        *table = Shard::with_room(N_READ as usize / N_SHARDS, 0, shard);
    }
    let ordinal = index.insert_file(file("all", u64::from(4 * N_READ)));
    for first in (0..4 * N_READ).step_by(STEP as usize) {
        let rows = first..first + STEP;
        let places: Vec<RowPlace> = rows.clone().map(|row| RowPlace::new(ordinal, row)).collect();
        index.put_rows(&numbers(rows.map(u64::from)), &places);
        let Footprint { n_keys, bytes, .. } = index.footprint();
        assert!(n_keys < u64::from(N_READ) || bytes <= 24 * n_keys, "{bytes} bytes for {n_keys} keys");
    }
}

#[test]
fn stale_entries_make_room_for_others_when_a_table_is_rebuilt() {
    let mut index = KeyIndex::default();
    let mut largest = 0;
    for round in 0..40_u64 {
        let path = round.to_string();
        let ordinal = index.insert_file(file(&path, 1_000));
        index.put_rows(&numbers(round * 1_000..(round + 1) * 1_000), &rows_of(ordinal, 1_000));
        check_counts(&index);
        index.remove_file(&path);
        largest = largest.max(index.footprint().bytes);
    }
    let (one_round, _) = index_of(&numbers(0..1_000));
    assert!(largest < 4 * one_round.footprint().bytes, "{largest} bytes for 1,000 keys at a time");
}

#[test]
fn an_index_over_its_memory_names_the_setting_the_bytes_and_the_keys() {
    let (index, _) = index_of(&numbers(0..1_000));
    assert!(index.check_memory(1 << 30).is_ok());
    let refused = index.check_memory(1_000).map_err(|error| error.to_string());
    let bytes = index.footprint().bytes.to_string();
    let names_all = |text: &String| {
        ["index.memory", "1000 keys", "0 remembered deletes", &bytes].iter().all(|part| text.contains(part))
    };
    assert!(refused.as_ref().is_err_and(names_all), "{refused:?}");
}

/// Only debug builds count, and so only they can tell.
#[cfg(debug_assertions)]
#[test]
fn a_debug_build_notices_an_entry_that_is_not_counted() {
    let (mut index, first) = index_of(&numbers(0..3));
    index.check_count();
    let stray = numbers([77]);
    let shard = &mut index.shards[shard_of(stray.hashes()[0])];
    shard.open(&|_| true).put((stray.get(0), stray.hashes()[0]), ProbeEnd::NOWHERE, RowPlace::new(first, 1), &|_| true);
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| index.check_count()));
    assert!(checked.is_err(), "four entries were taken for three");
}

#[test]
fn a_clone_is_not_changed_with_the_original() {
    let keys = numbers(0..100);
    let (mut index, first) = index_of(&keys);
    let before = index.clone();
    let other = index.insert_file(file("other", 100));
    index.put_rows(&keys, &rows_of(other, 100));
    index.delete_rows(first, &RoaringTreemap::from_iter(0..100));
    assert_eq!(before.find(&keys), rows_of(first, 100));
    assert_eq!(index.find(&keys), rows_of(other, 100));
    assert_ne!(before.epoch(), index.epoch());
    check_counts(&before);
    check_counts(&index);
}

#[test]
fn what_changes_beside_a_clone_is_all_that_it_costs() {
    const N_KEYS: u32 = 100_000;
    let numbers_of = |range: Range<u32>| numbers(range.map(u64::from));
    let shard_bytes = |index: &KeyIndex| index.shards.iter().map(Shard::bytes).sum::<usize>();
    let keys = numbers_of(0..N_KEYS);
    let (mut index, first) = index_of(&keys);
    let (before, bytes) = (index.clone(), shard_bytes(&index));
    let changed = index.insert_file(file("changed", 2_000));
    index.put_rows(&numbers_of(0..2_000), &rows_of(changed, 2_000));
    index.delete_rows(first, &RoaringTreemap::from_iter(0..2_000));
    let is_shared = |(one, other): (&Shard, &Shard)| one.shares_tables(other);
    assert!(index.shards.iter().zip(&before.shards).all(is_shared), "tables were copied");
    let more = shard_bytes(&index) - bytes;
    assert!((1..bytes / 10).contains(&more), "{more} bytes more than {bytes}");
    assert_eq!(before.find(&keys), rows_of(first, N_KEYS));
    let expected = [rows_of(changed, 2_000), rows_of(first, N_KEYS).split_off(2_000)].concat();
    assert_eq!(index.find(&keys), expected);
    check_counts(&index);
    // The next change finds nobody else, and leaves the tables as they would be without a clone.
    drop(before);
    let again = index.insert_file(file("again", 2_000));
    index.put_rows(&numbers_of(0..2_000), &rows_of(again, 2_000));
    index.delete_rows(changed, &RoaringTreemap::from_iter(0..2_000));
    assert_eq!(shard_bytes(&index), bytes);
    check_counts(&index);
}

#[test]
fn keys_that_come_beside_a_clone_take_no_more_than_others_once_it_is_gone() {
    const N_KEYS: u32 = 100_000;
    let (mut index, _) = index_of(&numbers(0..u64::from(N_KEYS)));
    let before = index.clone();
    let more = index.insert_file(file("more", u64::from(N_KEYS)));
    let new = numbers((N_KEYS..2 * N_KEYS).map(u64::from));
    index.put_rows(&new, &rows_of(more, N_KEYS));
    assert_eq!(before.find(&new), vec![RowPlace::NONE; N_KEYS as usize]);
    drop(before);
    let last = index.insert_file(file("last", 10_000));
    index.put_rows(&numbers((2 * N_KEYS..2 * N_KEYS + 10_000).map(u64::from)), &rows_of(last, 10_000));
    assert_eq!(index.find(&new), rows_of(more, N_KEYS));
    check_counts(&index);
    let Footprint { n_keys, bytes, .. } = index.footprint();
    assert!(bytes <= 24 * n_keys, "{bytes} bytes for {n_keys} keys");
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// A file with rows of these keys lands over what was there.
    Upsert(Vec<u8>),
    /// Keys are deleted.
    Delete(Vec<u8>),
    /// Another writer removes the file that was written so many steps ago.
    RemoveFile(usize),
    /// Another writer deletes the first rows of the file that was written so many steps ago.
    DeleteRows(usize, u32),
    /// The rows of the file that was written so many steps ago move to another.
    Move(usize),
}

/// What becomes of a clone that shares the index after a step: a snapshot begins, goes on, or is written.
#[derive(Debug, Clone, Copy)]
enum Clones {
    Taken,
    Kept,
    Dropped,
}

fn clones() -> impl Strategy<Value = Clones> {
    prop_oneof![2 => Just(Clones::Taken), 5 => Just(Clones::Kept), 2 => Just(Clones::Dropped)]
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || prop::collection::btree_set(0..60_u8, 1..20).prop_map(|keys| keys.into_iter().collect::<Vec<_>>());
    prop_oneof![
        4 => keys().prop_map(Step::Upsert),
        2 => keys().prop_map(Step::Delete),
        1 => (0..4_usize).prop_map(Step::RemoveFile),
        1 => (0..4_usize, 1..5_u32).prop_map(|(ago, n_rows)| Step::DeleteRows(ago, n_rows)),
        1 => (0..4_usize).prop_map(Step::Move),
    ]
}

/// Returns keys of all forms.
fn mixed(numbers: &[u8]) -> Keys {
    let words: Vec<String> = numbers.iter().map(|number| format!("a key of many bytes: {number}")).collect();
    Keys::of(numbers.iter().zip(&words).map(|(number, word)| match number % 3 {
        0 => KeyRef::Narrow(u64::from(*number)),
        1 => KeyRef::Wide(u128::from(*number)),
        _ => KeyRef::Bytes(word.as_bytes()),
    }))
}

/// Rows are put where probes of a look-up have ended, if that is still so.
#[test]
fn what_was_found_is_replaced_whatever_has_become_of_the_tables_since() {
    const N_KEYS: u32 = 3_000;
    let texts: Vec<Vec<u8>> = (0..4 * N_KEYS).map(|key| format!("a key of many bytes: {key}").into_bytes()).collect();
    let keys = |numbers: Range<u32>| {
        Keys::of(numbers.map(|number| match number % 3 {
            0 => KeyRef::Narrow(u64::from(number)),
            1 => KeyRef::Wide(u128::from(number)),
            _ => KeyRef::Bytes(&texts[number as usize]),
        }))
    };
    let put = |index: &mut KeyIndex, name: &str, numbers: Range<u32>| {
        let n_rows = numbers.end - numbers.start;
        let ordinal = index.insert_file(file(name, u64::from(n_rows)));
        index.put_rows(&keys(numbers), &rows_of(ordinal, n_rows));
        ordinal
    };
    // How many other keys come between, and whether a clone is there at the look-up and at the change.
    let others = [0, 10, N_KEYS];
    let shared = [(false, false), (true, true), (true, false), (false, true)];
    for (n_others, (at_look_up, at_change)) in others.into_iter().flat_map(|n| shared.map(|shared| (n, shared))) {
        let said = format!("{n_others} others, shared: {at_look_up}, {at_change}");
        let mut index = KeyIndex::default();
        let first = put(&mut index, "first", 0..2 * N_KEYS);
        let mut clone = at_look_up.then(|| index.clone());
        if at_look_up {
            put(&mut index, "layer", 0..10);
        }
        // Half of them are known.
        let changed = keys(N_KEYS..3 * N_KEYS);
        let found = index.look_up(&changed);
        let known =
            (0..2 * N_KEYS).map(|at| if at < N_KEYS { RowPlace::new(first, N_KEYS + at) } else { RowPlace::NONE });
        assert_eq!(found.places(), known.collect::<Vec<_>>(), "{said}");
        put(&mut index, "others", 3 * N_KEYS..3 * N_KEYS + n_others);
        if at_change && clone.is_none() {
            clone = Some(index.clone());
        } else if !at_change {
            clone = None;
        }
        let ordinal = index.insert_file(file("changed", u64::from(2 * N_KEYS)));
        index.replace_rows(&found, &rows_of(ordinal, 2 * N_KEYS));
        drop(clone);
        index.merge_layers();
        assert!(!index.has_layers(), "{said}");
        assert_eq!(index.find(&changed), rows_of(ordinal, 2 * N_KEYS), "{said}");
        assert_eq!(index.find(&keys(10..N_KEYS)), rows_of(first, N_KEYS)[10..], "{said}");
        let n_keys = u64::from(3 * N_KEYS + n_others);
        assert_eq!((index.count_keys(), index.footprint().n_keys), (n_keys, n_keys), "{said}");
    }
}

/// Applies `step` to the index and to the map of live rows.
fn apply(step: &Step, number: usize, index: &mut KeyIndex, model: &mut HashMap<u8, RowPlace>) {
    let at = |ago: usize| number.checked_sub(ago + 1).map(|number| number.to_string());
    match step {
        Step::Upsert(numbers) => {
            let keys = mixed(numbers);
            let ordinal = index.insert_file(file(&number.to_string(), numbers.len() as u64));
            let places = rows_of(ordinal, u32::try_from(numbers.len()).unwrap_or_default());
            let found = index.look_up(&keys);
            index.replace_rows(&found, &places);
            for gone in found.places().into_iter().filter(|place| place.is_some()) {
                index.delete_rows(gone.file(), &RoaringTreemap::from_iter([u64::from(gone.row())]));
            }
            model.extend(numbers.iter().copied().zip(places));
        }
        Step::Delete(numbers) => {
            let keys = mixed(numbers);
            for (at, key) in numbers.iter().enumerate() {
                index.put_delete((keys.get(at), keys.hashes()[at]), order(0), 0);
                if let Some(gone) = model.remove(key) {
                    index.delete_rows(gone.file(), &RoaringTreemap::from_iter([u64::from(gone.row())]));
                }
            }
        }
        Step::RemoveFile(ago) => {
            if let Some(gone) = at(*ago).and_then(|path| index.remove_file(&path)) {
                model.retain(|_, place| place.file() != gone);
            }
        }
        Step::DeleteRows(ago, n_rows) => {
            let Some(ordinal) = at(*ago).and_then(|path| index.ordinal(&path)) else { return };
            let Some(file) = index.file(ordinal) else { return };
            let deleted = file.deleted().as_ref() | RoaringTreemap::from_iter(0..u64::from(*n_rows).min(file.n_rows));
            index.set_deleted(ordinal, deleted, None);
            model.retain(|_, place| place.file() != ordinal || place.row() >= *n_rows);
        }
        Step::Move(ago) => {
            let Some(from) = at(*ago).and_then(|path| index.ordinal(&path)) else { return };
            let Some(IndexedFile { path, n_rows, .. }) = index.file(from).cloned() else { return };
            let deleted = index.deleted_rows(&path).cloned().unwrap_or_default();
            let add = Add { path: number.to_string(), ..Add::default() };
            let to = index.insert_file(IndexedFile::new(&add, n_rows, deleted, Bounds::default()));
            let moved = |place: RowPlace| (place.file() == from).then(|| RowPlace::new(to, place.row()));
            index.relocate(&moved);
            index.remove_file(&path);
            for place in model.values_mut() {
                *place = moved(*place).unwrap_or(*place);
            }
        }
    }
}

proptest! {
    /// Clones that come and go meanwhile stay as they were.
    #[test]
    fn the_index_agrees_with_a_map(steps in prop::collection::vec((step(), clones()), 1..40)) {
        let (mut index, mut model) = (KeyIndex::default(), HashMap::new());
        let all: Vec<u8> = (0..60).collect();
        let keys = mixed(&all);
        let mut held: Option<(KeyIndex, Vec<RowPlace>)> = None;
        for (number, (step, clones)) in steps.iter().enumerate() {
            apply(step, number, &mut index, &mut model);
            let expected: Vec<_> =
                all.iter().map(|key| model.get(key).copied().unwrap_or(RowPlace::NONE)).collect();
            prop_assert_eq!(&index.find(&keys), &expected);
            prop_assert_eq!(index.count_keys(), model.len() as u64);
            check_counts(&index);
            if let Some((clone, expected)) = &held {
                prop_assert_eq!(&clone.find(&keys), expected);
                check_counts(clone);
            }
            match clones {
                Clones::Taken => held = Some((index.clone(), expected)),
                Clones::Kept => {}
                Clones::Dropped => held = None,
            }
        }
    }

    /// Whatever changes a file, in the index or in a clone that shares it, what files take is known without a walk.
    #[test]
    fn the_bytes_of_files_are_those_that_a_walk_finds(steps in prop::collection::vec(step(), 1..40)) {
        let (mut index, mut model) = (KeyIndex::default(), HashMap::new());
        for (number, step) in steps.iter().enumerate() {
            let before = index.clone();
            let bytes = before.files.bytes();
            apply(step, number, &mut index, &mut model);
            prop_assert_eq!(index.files.bytes(), index.files.count_bytes());
            prop_assert_eq!((before.files.bytes(), before.files.count_bytes()), (bytes, bytes));
        }
        for (ordinal, path) in index.files().map(|(ordinal, file)| (ordinal, file.path.clone())).collect::<Vec<_>>() {
            // Many rows at once: containers change their form.
            index.delete_rows(ordinal, &RoaringTreemap::from_iter(0..9_000));
            prop_assert_eq!(index.files.bytes(), index.files.count_bytes());
            index.remove_file(&path);
        }
        prop_assert_eq!((index.files.bytes(), index.files().count()), (index.files.count_bytes(), 0));
    }
}
