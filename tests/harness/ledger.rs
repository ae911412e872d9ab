//! The ledger: everything that was produced, with its place; and what it means, worked out without the engine.
//!
//! The meaning is a plain replay: per key and in order of offset, the higher SEQUENCE BY stands, then the later record; a
//! Kafka tombstone has no sequence, deletes what stands, and leaves the sequence of that in place.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

/// A record as a test means it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// The row of a key.
    Put { id: i64, seq: i64, note: String },
    /// A value that says that the row goes.
    Delete { id: i64, seq: i64 },
    /// A value that the flows filter out.
    Skip { id: i64, seq: i64 },
    /// A key without a value.
    Tombstone { id: i64 },
    /// A tombstone whose key cannot be read.
    BrokenTombstone,
    /// A value that cannot become a row.
    Broken { bytes: Vec<u8> },
}

impl Record {
    /// Returns the record's key.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        match self {
            Self::Put { id, .. } | Self::Delete { id, .. } | Self::Skip { id, .. } | Self::Tombstone { id } => {
                Some(id.to_string().into_bytes())
            }
            Self::BrokenTombstone => Some(b"{not a key".to_vec()),
            Self::Broken { .. } => None,
        }
    }

    /// Returns the record's value.
    pub(crate) fn value(&self) -> Option<Vec<u8>> {
        match self {
            Self::Put { id, seq, note } => Some(json!({"id": id, "seq": seq, "op": "u", "note": note})),
            Self::Delete { id, seq } => Some(json!({"id": id, "seq": seq, "op": "d"})),
            Self::Skip { id, seq } => Some(json!({"id": id, "seq": seq, "op": "skip"})),
            Self::Broken { bytes } => return Some(bytes.clone()),
            Self::Tombstone { .. } | Self::BrokenTombstone => None,
        }
        .map(|value| value.to_string().into_bytes())
    }
}

/// Where a record is.
pub(crate) type Place = (i32, i64);

/// A row of the upsert table: sequence and note, and the record that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    pub(crate) note: Option<String>,
    pub(crate) place: Place,
}

/// Everything that was produced.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<Place, Record>,
}

impl Ledger {
    /// Writes down that the broker has `record` there.
    pub(crate) fn add(&mut self, partition: i32, offset: i64, record: Record) {
        self.records.insert((partition, offset), record);
    }

    /// Returns every record in order of place.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Place, &Record)> {
        self.records.iter().map(|(place, record)| (*place, record))
    }

    /// Returns the number of records.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns one past the last offset of each partition.
    pub(crate) fn ends(&self) -> BTreeMap<i32, i64> {
        self.records.keys().map(|(partition, offset)| (*partition, offset + 1)).collect()
    }

    /// Returns the rows of the append table by the record that each comes from: id, sequence, note.
    pub(crate) fn journal(&self) -> BTreeMap<Place, (i64, i64, Option<String>)> {
        let row = |(place, record): (Place, &Record)| match record {
            Record::Put { id, seq, note } => Some((place, (*id, *seq, Some(note.clone())))),
            Record::Delete { id, seq } => Some((place, (*id, *seq, None))),
            _ => None,
        };
        self.records().filter_map(row).collect()
    }

    /// Returns the rows of the upsert table by key.
    pub(crate) fn state(&self) -> BTreeMap<i64, Row> {
        let mut newest: BTreeMap<i64, (Option<i64>, Option<Row>)> = BTreeMap::new();
        for (place, record) in self.records() {
            let (id, seq, row) = match record {
                Record::Put { id, seq, note } => (*id, *seq, Some(Row { seq: *seq, note: Some(note.clone()), place })),
                Record::Delete { id, seq } => (*id, *seq, None),
                Record::Tombstone { id } => {
                    newest.entry(*id).or_default().1 = None;
                    continue;
                }
                Record::Skip { .. } | Record::Broken { .. } | Record::BrokenTombstone => continue,
            };
            let held = newest.entry(id).or_default();
            if held.0.is_none_or(|held| seq >= held) {
                *held = (Some(seq), row);
            }
        }
        newest.into_iter().filter_map(|(id, (_, row))| Some((id, row?))).collect()
    }

    /// Returns the rejects of the append flow: it has no use for tombstones.
    pub(crate) fn journal_rejects(&self) -> Vec<Place> {
        self.places(|record| {
            matches!(record, Record::Broken { .. } | Record::BrokenTombstone | Record::Tombstone { .. })
        })
    }

    /// Returns the rejects of the upsert flow.
    pub(crate) fn state_rejects(&self) -> Vec<Place> {
        self.places(|record| matches!(record, Record::Broken { .. } | Record::BrokenTombstone))
    }

    /// Returns the record at a place.
    pub(crate) fn record(&self, place: Place) -> Option<&Record> {
        self.records.get(&place)
    }

    fn places(&self, wanted: impl Fn(&Record) -> bool) -> Vec<Place> {
        self.records().filter(|(_, record)| wanted(record)).map(|(place, _)| place).collect()
    }
}

/// Makes records up: every kind of them, the same for the same seed.
#[derive(Debug)]
pub(crate) struct Workload {
    random: StdRng,
    first_key: i64,
    n_keys: i64,
    n_partitions: i32,
    seqs: BTreeMap<i64, i64>,
    last: Option<(i32, Record)>,
}

/// Values that cannot become a row of `id BIGINT NOT NULL, seq BIGINT NOT NULL, op STRING, note STRING`.
const BROKEN: [&[u8]; 8] = [
    b"{\"id\": 1, \"seq\":",
    b"{\"id\": \"one\", \"seq\": 1}",
    b"{\"seq\": 1, \"op\": \"u\"}",
    b"{\"id\": 1, \"seq\": null}",
    b"[1, 2]",
    b"\xff\xfe\x00",
    b"",
    b"{\"id\": 99999999999999999999, \"seq\": 1}",
];

impl Workload {
    /// Returns a workload over `n_keys` keys; the records of a key go to one partition.
    pub(crate) fn new(seed: u64, n_keys: i64, n_partitions: i32) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, first_key: 0, n_keys, n_partitions, seqs: BTreeMap::new(), last: None }
    }

    /// Moves the keys up to `first_key`, so that two workloads share none.
    #[must_use]
    pub(crate) fn with_first_key(self, first_key: i64) -> Self {
        Self { first_key, ..self }
    }

    /// Returns the next `n_records` with their partitions.
    pub(crate) fn take(&mut self, n_records: usize) -> Vec<(i32, Record)> {
        (0..n_records).map(|_| self.next_record()).collect()
    }

    fn next_record(&mut self) -> (i32, Record) {
        let id = self.first_key + self.random.random_range(0..self.n_keys);
        let partition = i32::try_from(id % i64::from(self.n_partitions)).unwrap_or_default();
        let record = match self.random.random_range(0..100) {
            0..4 => return (self.random.random_range(0..self.n_partitions), self.broken()),
            4..8 => Record::Tombstone { id },
            8..18 => Record::Delete { id, seq: self.next_seq(id) },
            18..23 => Record::Skip { id, seq: self.next_seq(id) },
            23..38 => self.late(id),
            38..43 => return self.last.clone().unwrap_or_else(|| (partition, self.put(id))),
            _ => self.put(id),
        };
        self.last = Some((partition, record.clone()));
        (partition, record)
    }

    fn broken(&mut self) -> Record {
        match self.random.random_range(0..=BROKEN.len()) {
            index if index < BROKEN.len() => Record::Broken { bytes: BROKEN[index].to_vec() },
            _ => Record::BrokenTombstone,
        }
    }

    fn put(&mut self, id: i64) -> Record {
        let seq = self.next_seq(id);
        Record::Put { id, seq, note: format!("note {id}/{seq}") }
    }

    /// Returns a row that comes after newer ones of its key.
    fn late(&mut self, id: i64) -> Record {
        let newest = self.seqs.get(&id).copied().unwrap_or_default();
        let seq = (newest - self.random.random_range(1..4)).max(0);
        Record::Put { id, seq, note: format!("late {id}/{seq}/{}", self.random.random_range(0..1000)) }
    }

    fn next_seq(&mut self, id: i64) -> i64 {
        let seq = self.seqs.entry(id).or_default();
        *seq += 1;
        *seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_follows_sequence_then_offset_and_tombstones_keep_their_sequence() {
        let mut ledger = Ledger::default();
        let put = |id, seq, note: &str| Record::Put { id, seq, note: note.to_owned() };
        let records = [
            put(1, 5, "first"),
            put(1, 3, "late"),
            put(1, 5, "again"),
            put(2, 1, "gone"),
            Record::Tombstone { id: 2 },
            put(2, 0, "late after delete"),
            put(3, 1, "old"),
            Record::Delete { id: 3, seq: 2 },
            put(3, 2, "back"),
        ];
        records.into_iter().zip(0..).for_each(|(record, offset)| ledger.add(0, offset, record));
        let notes: Vec<_> = ledger.state().into_iter().map(|(id, row)| (id, row.note)).collect();
        assert_eq!(notes, [(1, Some("again".to_owned())), (3, Some("back".to_owned()))]);
        assert_eq!(ledger.ends(), [(0, 9)].into());
    }
}
