//! What happens in a history, drawn from a seed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::foreign::{Value, Visit, VisitKind};
use super::keys::IDS;
use super::model::{Change, Record};
use super::place::{Kind, Life, PARTITIONS};
use super::protocol::Row;
use crate::harness::fault::{Fault, Script};

/// Keys of which each lies in one partition.
const KEYS: i64 = 14;

/// Keys beyond those, whose records come in any partition. They get no tombstones: those compare by offset alone, which
/// means nothing between partitions.
const WANDERERS: i64 = IDS - KEYS;

/// Days with what paths, URLs and escapes take differently.
const DAYS: [Option<&str>; 4] = [Some("monday"), Some("50% off/on"), Some("a=b ü"), None];

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Records come and a process drains them, over a store that fails, and with another writer coming in before one of
    /// its commits.
    Life { records: Vec<(i32, Record)>, life: Life, scripts: Vec<Script>, visit: Option<(usize, Visit)> },
    /// Records come, a process dies at one of its operations, and another drains them.
    Crash { records: Vec<(i32, Record)>, life: Life, operation: usize },
    /// Records come, and a process dies at any of its operations, each in a copy of the store.
    Deaths { records: Vec<(i32, Record)>, life: Life },
    /// Records come, a process dies right before it commits a compaction, and another drains them.
    Swap { records: Vec<(i32, Record)>, life: Life },
    /// Another writer comes while no process lives.
    Visit(Visit),
    /// Snapshots of the index are damaged: those beside the table, those on a machine's disk, or both.
    Damage { beside: Option<Damage>, on_disk: Option<Damage> },
    /// The table is compacted by command.
    Optimize,
    /// Every file is removed that the newest version does not name.
    Vacuum,
}

/// What becomes of the snapshots of the index in one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The newest has lost its end.
    Cut,
    /// One bit of the newest is another.
    Flip,
    /// The newest is gone.
    LoseNewest,
    /// All are gone.
    LoseAll,
    /// The oldest stands under the newest's name.
    Swap,
}

/// Draws steps.
#[derive(Debug)]
pub(crate) struct Dice {
    random: StdRng,
    kind: Kind,
    /// Where sequences are about.
    time: i64,
    n_notes: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64, kind: Kind) -> Self {
        Self { random: StdRng::seed_from_u64(seed), kind, time: 0, n_notes: 0 }
    }

    /// Draws a step of any kind but [`Step::Deaths`] and [`Step::Swap`].
    pub(crate) fn step(&mut self) -> Step {
        match self.random.random_range(0..20) {
            0..=6 => {
                let visit = self.random.random_bool(0.7).then(|| (self.random.random_range(0..5), self.visit()));
                self.life(visit)
            }
            7..=10 => Step::Visit(self.visit()),
            _ => self.lone_step(),
        }
    }

    /// Draws a step in which no other writer comes, whatever else goes wrong.
    pub(crate) fn lone_step(&mut self) -> Step {
        match self.random.random_range(0..10) {
            0..=3 => self.life(None),
            4..=5 => {
                let (records, life) = (self.records(30), self.way());
                Step::Crash { records, life, operation: self.random.random_range(0..90) }
            }
            6..=7 => self.damage(),
            8 => Step::Optimize,
            _ => Step::Vacuum,
        }
    }

    /// Draws damage to one copy of the snapshots or, half of the time, to both, each in its own way.
    pub(crate) fn damage(&mut self) -> Step {
        let all = [Damage::Cut, Damage::Flip, Damage::LoseNewest, Damage::LoseAll, Damage::Swap];
        let (beside, on_disk) = (Some(self.one_of(&all)), Some(self.one_of(&all)));
        match self.random.random_range(0..4) {
            0 => Step::Damage { beside, on_disk: None },
            1 => Step::Damage { beside: None, on_disk },
            _ => Step::Damage { beside, on_disk },
        }
    }

    /// Draws a life over a store that may fail.
    fn life(&mut self, visit: Option<(usize, Visit)>) -> Step {
        let records = self.records(40);
        let mut scripts = Vec::new();
        for _fault in 0..self.random.random_range(0..3_usize) {
            let first = self.random.random_range(0..120);
            let n_faults = self.random.random_range(1..3);
            scripts.push(Script { first, n_faults, fault: self.one_of(&Fault::ALL) });
        }
        Step::Life { records, life: self.way(), scripts, visit }
    }

    /// Draws records and a life without trouble.
    pub(crate) fn quiet_life(&mut self) -> Step {
        Step::Life { records: self.records(30), life: self.way(), scripts: Vec::new(), visit: None }
    }

    /// Draws records for a process that dies everywhere.
    pub(crate) fn deaths(&mut self) -> Step {
        Step::Deaths { records: self.records(16), life: Life { rows_max: 6, ..self.way() } }
    }

    /// Draws a life that comes to a compaction: batches of one row each, of more keys than files make a compaction, and
    /// after them batches without rows, so that it is looked for once more when all of those files are there.
    pub(crate) fn swap(&mut self) -> Step {
        // Beyond every sequence so far, so that no row is late.
        self.time += 10;
        let sequence = self.time;
        // One partition keeps them in order.
        let ids = (0..KEYS).step_by(usize::try_from(PARTITIONS).unwrap_or(1));
        let mut records: Vec<(i32, Record)> = Vec::new();
        for id in ids {
            records.push((0, Record { id, change: Some(Change::Put { sequence, note: self.note(), day: None }) }));
        }
        records.extend((0..3).map(|id| (0, Record { id, change: None })));
        Step::Swap { records, life: Life { rows_max: 1, is_orderly: true } }
    }

    fn way(&mut self) -> Life {
        Life { rows_max: self.random.random_range(1..12), is_orderly: self.random.random_bool(0.6) }
    }

    fn records(&mut self, n_max: usize) -> Vec<(i32, Record)> {
        let n_records = self.random.random_range(1..=n_max);
        (0..n_records).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> (i32, Record) {
        self.time += self.random.random_range(0..2);
        let id = self.random.random_range(0..KEYS + WANDERERS);
        let is_wanderer = id >= KEYS;
        let home = i32::try_from(id).unwrap_or_default() % PARTITIONS;
        let partition = if is_wanderer { self.random.random_range(0..PARTITIONS) } else { home };
        // Late ones and ties are as common as newer ones.
        let sequence = self.time + self.random.random_range(-4..3);
        let change = match self.random.random_range(0..20) {
            0 => None,
            1..=2 => Some(Change::Delete { sequence }),
            3..=4 if !is_wanderer => Some(Change::Tombstone),
            _ => Some(Change::Put { sequence, note: self.note(), day: self.one_of(&DAYS) }),
        };
        (partition, Record { id, change })
    }

    fn visit(&mut self) -> Visit {
        let up_to = self.random.random_range(-1..KEYS);
        match self.random.random_range(0..12) {
            0..=3 => Visit::Append(self.rows()),
            4..=5 => Visit::Delete { up_to },
            6 => Visit::Update { up_to, column: "note", value: Value::Text(self.note()) },
            7 => Visit::Merge(self.rows_of_distinct_keys()),
            8..=9 => Visit::Optimize,
            10 => Visit::Restore { back: self.random.random_range(1..6) },
            _ => Visit::Checkpoint,
        }
    }

    /// Draws a visit of a kind that finds something to do in almost any table: it comes to most keys, and back to the version
    /// before, whose files are there unless a vacuum came last.
    pub(crate) fn visit_of(&mut self, kind: VisitKind) -> Step {
        let up_to = self.random.random_range(KEYS / 2..KEYS);
        Step::Visit(match kind {
            VisitKind::Append => Visit::Append(self.rows()),
            VisitKind::Delete => Visit::Delete { up_to },
            VisitKind::Update => Visit::Update { up_to, column: "note", value: Value::Text(self.note()) },
            VisitKind::Merge => Visit::Merge(self.rows_of_distinct_keys()),
            VisitKind::Optimize => Visit::Optimize,
            VisitKind::Restore => Visit::Restore { back: 1 },
            VisitKind::Checkpoint => Visit::Checkpoint,
        })
    }

    fn rows(&mut self) -> Vec<Row> {
        let n_rows = self.random.random_range(1..6);
        (0..n_rows).map(|_| self.row()).collect()
    }

    fn rows_of_distinct_keys(&mut self) -> Vec<Row> {
        let mut rows = self.rows();
        rows.sort_by_key(|row| row.id);
        rows.dedup_by_key(|row| row.id);
        rows
    }

    fn row(&mut self) -> Row {
        let has_sequence = self.random.random_bool(if self.kind == Kind::Hidden { 0.5 } else { 0.9 });
        let id = self.random.random_range(0..KEYS + WANDERERS);
        // Positions of another partition mean nothing beside a tombstone.
        let has_position = id >= KEYS && self.random.random_bool(0.3);
        let sequence = has_sequence.then(|| self.time + self.random.random_range(-6..6));
        Row {
            id,
            sequence,
            offset: has_position.then(|| self.random.random_range(0..200)),
            partition: has_position.then(|| self.random.random_range(0..PARTITIONS)),
            note: Some(self.note()),
        }
    }

    fn note(&mut self) -> String {
        self.n_notes += 1;
        format!("n{}", self.n_notes)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        // None of the callers has nothing to choose from.
        *all.choose(&mut self.random).unwrap_or(&all[0])
    }
}
