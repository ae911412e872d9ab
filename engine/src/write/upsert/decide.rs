//! Finds what each change of a batch means to the table: one look into the index a key, and a look at a row only where
//! the bounds of its file do not tell which is newer.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use futures::{StreamExt, TryStreamExt};

use super::UpsertWriter;
use super::changes::{Columns, Delete, Stored, Verdict, Verdicts};
use crate::order::{OrderRef, Orders};
use crate::write::index::{FileOrdinal, FoundKeys, KeyIndex, RowPlace, Standing};

/// Keys looked up without going to a blocking thread: some hundred microseconds of work.
const KEYS_INLINE_MAX: usize = 2_048;

/// Files whose orders are read at the same time.
const FILES_IN_FLIGHT: usize = 8;

/// The orders of rows that stand in files, in the order in which they were asked for.
pub(super) struct RowOrders {
    pieces: Vec<Arc<Orders>>,
    /// The piece of each row, and its place there.
    places: Vec<(usize, usize)>,
}

impl RowOrders {
    pub(super) fn get(&self, index: usize) -> Option<OrderRef<'_>> {
        let (piece, place) = self.places.get(index)?;
        self.pieces.get(*piece).map(|orders| orders.get(*place))
    }
}

impl UpsertWriter {
    /// Returns what `columns` mean now; `is_delete` says whether a change leaves its key without a row.
    pub(super) async fn decide(
        &mut self,
        columns: &Columns,
        is_delete: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Verdicts> {
        let found = self.look_up(columns).await?;
        let places = found.places();
        let judged = Judged::new(&self.index, columns, &places, is_delete);
        let rows = self.orders_of_rows(&judged.unsure).await?;
        let epoch = self.index.epoch();
        let each = Vec::with_capacity(places.len());
        let mut verdicts = Verdicts { epoch, each, found, ..Verdicts::default() };
        let (mut next, remembers) = (0, self.index.remembers_deletes());
        for (index, place) in places.into_iter().enumerate() {
            let standing = judged.standings[index];
            let is_kept = !is_delete(index) && columns.stored.get(index) != Some(&Stored::Dropped);
            if is_kept && standing == Judgement::Newer && (place.is_some() || !remembers) {
                // As a rule. Nothing depends on the order that the change has.
                verdicts.each.push(if place.is_some() { Verdict::Supersedes(place) } else { Verdict::New });
                continue;
            }
            let mut row = None;
            if standing == Judgement::LookAtRow {
                row = rows.get(next);
                next += 1;
            }
            let (mut verdict, order) = self.verdict(columns, (index, place), standing, row);
            if columns.stored.get(index) == Some(&Stored::Dropped) {
                verdict = Verdict::Late;
            }
            let leaves_deleted = matches!(verdict, Verdict::OnlyDeletes(_)) || is_delete(index);
            if leaves_deleted && verdict != Verdict::Late {
                let change = u32::try_from(index).map_err(|_| Error::internal("a batch of over 4 billion rows"))?;
                verdicts.deletes.push(Delete { change, order: order.to_owned(), over_row: place.is_some() });
            }
            verdicts.each.push(verdict);
        }
        verdicts.take_out(self.index.doubles());
        Ok(verdicts)
    }

    /// Returns the verdict on a change, and the order that it has over what it replaces.
    fn verdict<'a>(
        &'a self,
        columns: &'a Columns,
        (index, place): (usize, RowPlace),
        judgement: Judgement,
        row: Option<OrderRef<'a>>,
    ) -> (Verdict, OrderRef<'a>) {
        let order = columns.keyed.orders.get(index);
        if !place.is_some() {
            let keys = &columns.keyed.keys;
            let known = self.index.deleted(keys.get(index), keys.hashes()[index]);
            return match known.map(|known| known.order.borrow()) {
                Some(known) if order.supersedes(&known) || is_told_again(&order, &known) => {
                    (Verdict::New, order.over(&known))
                }
                Some(_) => (Verdict::Late, order),
                None => (Verdict::New, order),
            };
        }
        let is_newer = match (judgement, row) {
            (Judgement::LookAtRow, Some(row)) => order.supersedes(&row),
            (judgement, _) => judgement == Judgement::Newer,
        };
        if is_newer {
            return (Verdict::Supersedes(place), row.map_or(order, |row| order.over(&row)));
        }
        match (row, columns.after_delete(index)) {
            (Some(row), Some(offset)) if offset > row.offset => {
                let deleted = OrderRef { sequence: row.sequence, inherited: true, offset, ..order };
                (Verdict::OnlyDeletes(place), deleted)
            }
            _ => (Verdict::Late, order),
        }
    }

    /// Returns what the index has of each key.
    async fn look_up(&self, columns: &Columns) -> Result<FoundKeys> {
        if columns.keyed.keys.len() <= KEYS_INLINE_MAX {
            return Ok(self.index.look_up(&columns.keyed.keys));
        }
        let (index, keyed) = (Arc::clone(&self.index), Arc::clone(&columns.keyed));
        tokio::task::spawn_blocking(move || index.look_up(&keyed.keys))
            .await
            .map_err(|cause| Error::internal("the look into the key index stopped").with_source(cause))
    }

    /// Returns the orders of the rows at `places`: out of memory, or else out of their files.
    pub(super) async fn orders_of_rows(&mut self, places: &[RowPlace]) -> Result<RowOrders> {
        let mut by_file: BTreeMap<FileOrdinal, Vec<u32>> = BTreeMap::new();
        for place in places {
            by_file.entry(place.file()).or_default().push(place.row());
        }
        let (mut pieces, mut wanted) = (BTreeMap::new(), Vec::new());
        for (ordinal, mut rows) in by_file {
            if let Some(orders) = self.cache.get(ordinal) {
                pieces.insert(ordinal, (orders, None));
                continue;
            }
            rows.sort_unstable();
            rows.dedup();
            let file = self.index.file(ordinal).ok_or_else(|| Error::internal("a row of a file that is gone"))?;
            wanted.push((ordinal, file, rows));
        }
        let reader = &self.reader;
        let reads: Vec<_> = wanted
            .into_iter()
            .map(|(ordinal, file, rows)| async move {
                let orders = reader.read_orders(file, &rows).await?;
                Ok::<_, Error>((ordinal, orders, rows))
            })
            .collect();
        let mut reads = futures::stream::iter(reads).buffer_unordered(FILES_IN_FLIGHT);
        while let Some((ordinal, orders, rows)) = reads.try_next().await? {
            pieces.insert(ordinal, (Arc::new(orders), Some(rows)));
        }
        let numbers: BTreeMap<FileOrdinal, usize> = pieces.keys().copied().zip(0..).collect();
        let place_of = |place: &RowPlace| {
            let piece = numbers.get(&place.file()).copied()?;
            let at = match &pieces.get(&place.file())?.1 {
                Some(rows) => rows.binary_search(&place.row()).ok()?,
                None => place.row() as usize,
            };
            Some((piece, at))
        };
        let found: Option<Vec<_>> = places.iter().map(place_of).collect();
        let found = found.ok_or_else(|| Error::internal("the order of a row was not read"))?;
        Ok(RowOrders { places: found, pieces: pieces.into_values().map(|(orders, _)| orders).collect() })
    }
}

/// What the bounds of files say of changes.
struct Judged {
    standings: Vec<Judgement>,
    /// The rows that have to be looked at, in the order of their changes.
    unsure: Vec<RowPlace>,
}

/// What is known of a change without a look at the row of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// It is newer, and what it replaces does not matter; or there is no row.
    Newer,
    /// It is late, and nothing before it deletes the row.
    Late,
    /// The row's own order decides, or is needed to remember a delete.
    LookAtRow,
}

impl Judged {
    fn new(index: &KeyIndex, columns: &Columns, places: &[RowPlace], is_delete: &dyn Fn(usize) -> bool) -> Self {
        let mut judged = Self { standings: Vec::with_capacity(places.len()), unsure: Vec::new() };
        for (change, place) in places.iter().enumerate() {
            let judgement = judge(index, columns, (change, *place), is_delete);
            if judgement == Judgement::LookAtRow {
                judged.unsure.push(*place);
            }
            judged.standings.push(judgement);
        }
        judged
    }
}

fn judge(
    index: &KeyIndex,
    columns: &Columns,
    (change, place): (usize, RowPlace),
    is_delete: &dyn Fn(usize) -> bool,
) -> Judgement {
    let Some(file) = index.file(place.file()).filter(|_| place.is_some()) else { return Judgement::Newer };
    let order = columns.keyed.orders.get(change);
    match file.bounds.judge(&order) {
        // A tombstone takes over the sequence of what it deletes.
        Standing::Newer if order.inherited && is_delete(change) && file.bounds.has_sequences() => Judgement::LookAtRow,
        Standing::Newer => Judgement::Newer,
        Standing::Late if columns.after_delete(change).is_some_and(|offset| file.bounds.may_precede(offset)) => {
            Judgement::LookAtRow
        }
        Standing::Late => Judgement::Late,
        Standing::Unsure => Judgement::LookAtRow,
    }
}

/// Tells whether a change is the one that `known` remembers: a start has read of it in the sidecar of a commit that did not
/// land. It has to go into that of the one that does, since nobody who follows the log reads another.
fn is_told_again(change: &OrderRef<'_>, known: &OrderRef<'_>) -> bool {
    change.position() == known.position() && (change.inherited || change.sequence == known.sequence)
}
