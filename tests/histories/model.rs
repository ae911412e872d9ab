//! What a table has to hold: a map from keys to what is known of each, by promise 3 alone (the higher SEQUENCE BY wins,
//! then the higher offset; a delete binds late rows) and by the policy for rows of other writers.
//!
//! Of some keys the table alone can tell what they are: a row that was late when it was staged is not written, though
//! another writer may take away what it was late for before it lands; a delete is remembered by sidecars even after a row
//! of another writer hid it. For those keys the model holds every state that is allowed, and what the table shows decides.

use std::collections::{BTreeMap, BTreeSet};

use super::protocol::Row;
use crate::harness::TestResult;

/// What a record does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Put { sequence: i64, note: String, day: Option<&'static str> },
    Delete { sequence: i64 },
    Tombstone,
}

/// A record; one without a change is a reject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: i64,
    pub(crate) change: Option<Change>,
}

/// Every record that was produced, by partition and in order of offset.
pub(crate) type Ledger = BTreeMap<i32, Vec<Record>>;

/// The next offset of each partition.
pub(crate) type Positions = BTreeMap<i32, i64>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    sequence: Option<i64>,
    /// Whether it came without a sequence.
    inherited: bool,
    place: (i64, i32),
}

impl Order {
    fn of_row(row: &Row) -> Self {
        let place = (row.offset.unwrap_or(i64::MIN), row.partition.unwrap_or(-1));
        Self { sequence: row.sequence, inherited: row.sequence.is_none(), place }
    }

    fn supersedes(&self, standing: &Self) -> bool {
        match (self.sequence, standing.sequence) {
            (Some(mine), Some(theirs)) if !self.inherited && mine != theirs => mine > theirs,
            _ => self.place > standing.place,
        }
    }

    fn over(mut self, standing: &Self) -> Self {
        if self.inherited && self.sequence < standing.sequence {
            self.sequence = standing.sequence;
        }
        self
    }
}

/// What a key may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    row: Option<(Order, Option<String>)>,
    /// The delete that binds late rows.
    grave: Option<Order>,
    /// Earlier deletes: they bind again when another writer has taken the row away and a process starts anew.
    ghosts: BTreeSet<Order>,
}

impl State {
    fn apply(&self, change: &Change, place: (i64, i32)) -> Self {
        let sequence = match change {
            Change::Put { sequence, .. } | Change::Delete { sequence } => Some(*sequence),
            Change::Tombstone => None,
        };
        let mut order = Order { sequence, inherited: sequence.is_none(), place };
        let standing = self.row.as_ref().map(|(order, _)| order).or(self.grave.as_ref());
        if let Some(standing) = standing {
            if !order.supersedes(standing) {
                return self.clone();
            }
            order = order.over(standing);
        }
        let mut state = Self { ghosts: self.ghosts.clone(), ..Self::default() };
        state.ghosts.extend(self.grave.clone());
        match change {
            Change::Put { note, .. } => state.row = Some((order, Some(note.clone()))),
            Change::Delete { .. } | Change::Tombstone => state.grave = Some(order),
        }
        state
    }

    fn graves(&self) -> BTreeSet<Order> {
        self.ghosts.iter().chain(&self.grave).cloned().collect()
    }
}

/// The states that a key may have.
type States = BTreeSet<State>;

/// A batch that was staged before another writer came in.
#[derive(Debug, Clone)]
struct Contended {
    until: Positions,
    /// Keys that the other writer changed, as they were before.
    before: BTreeMap<i64, States>,
}

/// The table as it has to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    keys: BTreeMap<i64, States>,
    reached: Positions,
    contended: Option<Contended>,
    /// Keys that another writer left with several rows, until our next commit.
    doubled: BTreeSet<i64>,
}

impl Model {
    /// Takes in the records of `ledger` before `positions`.
    pub(crate) fn advance(&mut self, ledger: &Ledger, positions: &Positions) {
        if positions == &self.reached {
            return;
        }
        self.doubled.clear();
        let reaches = |until: &Positions| until.iter().all(|(partition, next)| positions.get(partition) >= Some(next));
        if let Some(Contended { until, before }) = self.contended.take_if(|contended| reaches(&contended.until)) {
            self.land_stale(ledger, &until, &before);
        }
        self.contended = None;
        let reached = std::mem::replace(&mut self.reached, positions.clone());
        for (place, record) in between(ledger, &reached, positions) {
            self.apply(record, place);
        }
    }

    fn apply(&mut self, record: &Record, place: (i64, i32)) {
        let Some(change) = &record.change else { return };
        let states = self.keys.entry(record.id).or_insert_with(unborn);
        *states = states.iter().map(|state| state.apply(change, place)).collect();
    }

    /// Takes in a batch of which late rows may have been left out by what is no longer so.
    fn land_stale(&mut self, ledger: &Ledger, until: &Positions, before: &BTreeMap<i64, States>) {
        let reached = std::mem::replace(&mut self.reached, until.clone());
        let mut changes: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for (place, record) in between(ledger, &reached, until) {
            if let (Some(change), true) = (&record.change, before.contains_key(&record.id)) {
                changes.entry(record.id).or_default().push((place, change));
            }
        }
        let mut stale: BTreeMap<i64, States> = BTreeMap::new();
        for (id, changes) in &changes {
            let now = self.keys.get(id).cloned().unwrap_or_else(unborn);
            for state in before.get(id).into_iter().flatten() {
                let landed = changes.iter().fold(state.clone(), |state, (place, change)| state.apply(change, *place));
                let stands =
                    landed.row.is_some_and(|(order, _)| changes.iter().any(|(place, _)| *place == order.place));
                if !stands {
                    stale.entry(*id).or_default().extend(left_out(&now, changes));
                }
            }
        }
        for (place, record) in between(ledger, &reached, until) {
            self.apply(record, place);
        }
        for (id, states) in stale {
            self.keys.entry(id).or_default().extend(states);
        }
    }

    /// Takes in what another writer made of the rows. A batch that was staged before and ends at `until` may land after.
    pub(crate) fn foreign(&mut self, before: &[Row], after: &[Row], until: Option<Positions>) {
        let (before, after) = (by_key(before), by_key(after));
        let mut contended = BTreeMap::new();
        for id in before.keys().chain(after.keys()).copied().collect::<BTreeSet<i64>>() {
            let rows = after.get(&id).cloned().unwrap_or_default();
            if before.get(&id) == Some(&rows) {
                continue;
            }
            let states = self.keys.entry(id).or_insert_with(unborn);
            contended.insert(id, states.clone());
            *states = states.iter().flat_map(|state| of_rows(state, &rows)).collect();
            if rows.len() > 1 {
                self.doubled.insert(id);
            } else {
                self.doubled.remove(&id);
            }
        }
        self.contended = until.map(|until| Contended { until, before: contended });
    }

    /// Holds rows against what they have to be; what they show of a key is what it is from now on.
    pub(crate) fn check(&mut self, rows: &[Row]) -> TestResult {
        let mut found = by_key(rows);
        let mut faults = Vec::new();
        for (id, states) in &mut self.keys {
            let rows = found.remove(id).unwrap_or_default();
            if rows.len() > 1 && !self.doubled.contains(id) {
                faults.push(format!("key {id} has several rows: {rows:?}"));
                continue;
            }
            let mut shown: BTreeSet<Option<(Order, Option<String>)>> =
                newest(&rows).iter().map(|row| Some((Order::of_row(row), row.note.clone()))).collect();
            if shown.is_empty() {
                shown.insert(None);
            }
            let possible: States = states.iter().filter(|state| shown.contains(&state.row)).cloned().collect();
            if possible.is_empty() {
                faults.push(format!("key {id} has {rows:?}, and may have {states:?}"));
            } else {
                *states = possible;
            }
        }
        faults.extend(found.into_values().map(|rows| format!("{rows:?} should not be there")));
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
    }
}

fn unborn() -> States {
    [State::default()].into()
}

/// Returns what a key may be when the row of a batch was left out, or turned into the delete before it.
fn left_out(now: &States, changes: &[((i64, i32), &Change)]) -> States {
    let mut states = now.clone();
    for state in now {
        for (place, change) in changes {
            let sequence = match change {
                Change::Put { sequence, .. } | Change::Delete { sequence } => Some(*sequence),
                Change::Tombstone => None,
            };
            if changes.iter().all(|(_, change)| matches!(change, Change::Put { .. })) {
                continue;
            }
            let order = Order { sequence, inherited: sequence.is_none(), place: *place };
            let order = state.row.iter().fold(order, |order, (row, _)| order.over(row));
            states.insert(State { row: None, grave: Some(order), ghosts: state.graves() });
        }
    }
    states
}

/// Returns what a key may be when another writer left it these rows.
fn of_rows(state: &State, rows: &[Row]) -> Vec<State> {
    let graves = state.graves();
    if rows.is_empty() {
        let binding = graves.iter().map(|grave| Some(grave.clone())).chain([None]);
        return binding.map(|grave| State { row: None, grave, ghosts: graves.clone() }).collect();
    }
    let of_row =
        |row: &&Row| State { row: Some((Order::of_row(row), row.note.clone())), grave: None, ghosts: graves.clone() };
    newest(rows).iter().map(of_row).collect()
}

/// Returns the newest of rows of one key: several where they tie.
fn newest(rows: &[Row]) -> Vec<&Row> {
    let rank = |row: &Row| {
        let order = Order::of_row(row);
        (order.sequence, order.place)
    };
    let highest = rows.iter().map(rank).max();
    rows.iter().filter(|row| Some(rank(row)) == highest).collect()
}

fn by_key(rows: &[Row]) -> BTreeMap<i64, Vec<Row>> {
    let mut by_key: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_key.entry(row.id).or_default().push(row.clone());
    }
    by_key.values_mut().for_each(|rows| rows.sort());
    by_key
}

/// Returns the records between two positions, each with its offset and partition.
fn between<'a>(
    ledger: &'a Ledger,
    from: &'a Positions,
    to: &'a Positions,
) -> impl Iterator<Item = ((i64, i32), &'a Record)> {
    ledger.iter().flat_map(move |(partition, records)| {
        let (first, next) = (from.get(partition).copied().unwrap_or(0), to.get(partition).copied().unwrap_or(0));
        (0_i64..)
            .zip(records)
            .filter(move |(offset, _)| (first..next).contains(offset))
            .map(|(offset, record)| ((offset, *partition), record))
    })
}
