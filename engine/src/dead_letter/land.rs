//! Lands dead letters in their own table, before the batch they come from, each exactly once.
//!
//! Two Delta tables cannot commit together, so dead letters go first, under positions of their own: when the batch does
//! not land after all, its replay leaves out the rejects that the dead-letter table has already ([`replay`]).

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Clock, Error, Fate, Lineage, Location, Positions, Result, Span, TableName};
use alluvium_sql::{ErrorMode, Flow};

use super::replay::{self, Looked, Whose};
use super::{dead_letter_rows, dead_letter_schema};
use crate::commit::create::{Blueprint, CHECKPOINT_INTERVAL};
use crate::commit::land::{LandLimits, Landing, LandingParts, Signature};
use crate::commit::positions::AppIds;
use crate::commit::{Attempts, Landed, Outcome};
use crate::delta::log::{DeltaLog, Version};
use crate::hop::{ChangeOrder, Changes, Reject, Spent};
use crate::invariant::Watch;
use crate::upkeep::{Upkeep, UpkeepParts};
use crate::write::Staged;
use crate::write::append::AppendWriter;
use crate::write::parquet::DataFolder;

/// The dead-letter table of one flow.
#[derive(Debug)]
pub struct DeadLetters {
    flow: Arc<Flow>,
    table: TableName,
    landing: Landing,
    upkeep: Option<Upkeep>,
}

/// What opening needs beside the flow.
#[derive(Debug)]
pub struct DeadLetterPlace<'a> {
    /// The table's log.
    pub log: DeltaLog,
    /// Its name.
    pub table: &'a TableName,
    /// Names and dates.
    pub clock: Arc<dyn Clock>,
    /// Limits of the landing loop.
    pub limits: LandLimits,
    /// Checks laws.
    pub watch: Watch,
    /// How many versions lie between two checkpoints of a table that is created.
    pub checkpoint_interval: u64,
}

/// Returns where the dead-letter table of a flow lies, if it has one.
///
/// # Errors
/// `Invalid` when the location cannot be made.
pub fn location(flow: &Flow, warehouse: &Location) -> Result<Option<(TableName, Location)>> {
    let ErrorMode::Log(table) = &flow.errors else { return Ok(None) };
    let location = warehouse.join(&format!("{}/{}", table.schema(), table.table()))?;
    Ok(Some((table.clone(), location)))
}

impl DeadLetters {
    /// Opens the table, or creates it.
    ///
    /// # Errors
    /// As of [`Blueprint::open_or_create`].
    pub async fn open(flow: Arc<Flow>, place: DeadLetterPlace<'_>) -> Result<Self> {
        let DeadLetterPlace { log, table, clock, limits, watch, checkpoint_interval } = place;
        let blueprint = Blueprint {
            schema: dead_letter_schema(),
            partitioned_by: Vec::new(),
            clustered_by: None,
            deletion_vectors: false,
            comment: Some("Records that could not become rows".to_owned()),
            properties: [(CHECKPOINT_INTERVAL.to_owned(), checkpoint_interval.to_string())].into(),
        };
        let known_at = clock.now();
        let state = blueprint.open_or_create(&log, clock.as_ref()).await?;
        let folder = DataFolder {
            store: Arc::clone(log.store()),
            location: log.location().clone(),
            partitioned_by: Vec::new(),
            clock: Arc::clone(&clock),
        };
        let ids = AppIds::of_dead_letters(flow.name(), &flow.definition.source.topic);
        let parts = LandingParts { log, state, writer: Box::new(AppendWriter::new(folder)), ids, known_at };
        Ok(Self { flow, table: table.clone(), landing: Landing::new(parts, clock, limits, watch), upkeep: None })
    }

    /// Returns the table with upkeep beside its landings.
    #[must_use]
    pub fn with_upkeep(self, parts: UpkeepParts) -> Self {
        let version = self.landing.state().version;
        Self { upkeep: Some(Upkeep::new(parts, version)), ..self }
    }

    /// Tells whether upkeep has something to commit that needs no rejects.
    pub fn has_upkeep_ended(&self) -> bool {
        self.upkeep.as_ref().is_some_and(Upkeep::has_ended)
    }

    /// Commits what upkeep has ready.
    ///
    /// # Errors
    /// As of [`Upkeep::tend`].
    pub async fn tend(&mut self) -> Result<()> {
        match &mut self.upkeep {
            Some(upkeep) => upkeep.tend(&mut self.landing).await,
            None => Ok(()),
        }
    }

    /// Ends the upkeep under way, at most after `limit`.
    pub async fn close(&mut self, limit: Duration) {
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.close(&mut self.landing, limit).await;
        }
    }

    /// Returns the table's name.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// Returns the newest version known.
    pub fn version(&self) -> Version {
        self.landing.state().version
    }

    /// Returns where the table lies.
    pub fn location(&self) -> &Location {
        self.landing.log().location()
    }

    /// Returns how attempts to commit have ended since this was last asked.
    pub fn take_attempts(&mut self) -> Attempts {
        self.landing.take_attempts()
    }

    /// Lands the rejects of `span` that are not in the table yet; `None` when all are.
    ///
    /// # Errors
    /// As of [`Landing::land`].
    pub async fn land(&mut self, rejects: &[Reject], span: &Span, lineage: &Lineage) -> Result<Option<Landed>> {
        /// A fence means that another process landed the same rejects: one more look settles it. Of a table that many flows
        /// share, theirs may come first a few times.
        const LOOKS: usize = 20;
        self.landing.freshen().await?;
        let mut looked = Looked::default();
        let mut last: Option<(Vec<Reject>, Positions, Staged)> = None;
        for _look in 0..LOOKS {
            let positions = self.landing.positions();
            let fresh = self.fresh(rejects, &positions, &mut looked).await?;
            if fresh.is_empty() {
                return Ok(None);
            }
            // Commits of other flows change neither.
            let staged = match last.take() {
                Some((same, at, staged)) if at == positions && is_same(&same, &fresh) => staged,
                _ => {
                    let changes = self.changes(&fresh, &beyond(span, &positions)?)?;
                    self.landing.writer().stage(changes).await?
                }
            };
            let signature = Signature { lineage: lineage.clone(), operation: "STREAMING UPDATE", definition: None };
            // Positions fence what lies beyond them. Whether others have landed what lies below, only another look tells.
            let outcome = match fresh.iter().all(|reject| is_new(reject, &positions)) {
                true => Some(self.landing.land(&staged, &signature).await?),
                false => self.landing.land_if_next(&staged, &signature).await?,
            };
            match outcome {
                Some(Outcome::Landed(landed)) => {
                    if let Some(upkeep) = &mut self.upkeep {
                        upkeep.landed(&mut self.landing).await;
                    }
                    return Ok(Some(*landed));
                }
                Some(Outcome::Fenced(_) | Outcome::Exceeds(_)) => self.landing.catch_up().await?,
                None => last = Some((fresh, positions, staged)),
            }
        }
        Err(Error::conflict(format!("cannot land dead letters in {}: other processes land the same ones", self.table)))
    }

    /// Returns the rejects that the table does not have.
    async fn fresh(&self, rejects: &[Reject], positions: &Positions, looked: &mut Looked) -> Result<Vec<Reject>> {
        let (new, again): (Vec<&Reject>, Vec<&Reject>) = rejects.iter().partition(|reject| is_new(reject, positions));
        if again.is_empty() {
            return Ok(rejects.to_vec());
        }
        let whose = Whose { flow: self.flow.name(), topic: &self.flow.definition.source.topic };
        let (log, state) = (self.landing.log(), self.landing.state());
        let landed = replay::landed(log, state, whose, (&again, looked)).await?;
        let is_missing = |reject: &&Reject| !landed.contains(&(reject.partition, reject.offset));
        Ok(again.into_iter().filter(is_missing).chain(new).cloned().collect())
    }

    fn changes(&self, rejects: &[Reject], span: &Span) -> Result<Changes> {
        let n_records = rejects.len() as u64;
        let rows = dead_letter_rows(&self.flow, &self.flow.definition.source.topic, rejects)?;
        Ok(Changes {
            rows,
            order: ChangeOrder {
                partitions: rejects.iter().map(|reject| Some(reject.partition.0)).collect(),
                offsets: rejects.iter().map(|reject| Some(reject.offset.0)).collect(),
                sequence: Vec::new(),
                inherited: None,
                after_delete: None,
            },
            keyed: None,
            deletes: None,
            rejects: Vec::new(),
            lookups: Vec::new(),
            fate: Fate { records_in: n_records, dead_lettered: n_records, ..Fate::default() },
            span: span.clone(),
            spent: Spent::default(),
        })
    }
}

/// Tells whether two looks have left the same rejects of one batch.
fn is_same(one: &[Reject], other: &[Reject]) -> bool {
    let places =
        |rejects: &[Reject]| rejects.iter().map(|reject| (reject.partition, reject.offset)).collect::<Vec<_>>();
    places(one) == places(other)
}

fn is_new(reject: &Reject, positions: &Positions) -> bool {
    positions.get(&reject.partition).is_none_or(|next| reject.offset >= *next)
}

/// Returns the part of `span` that lies beyond `positions`, beginning where they stand.
fn beyond(span: &Span, positions: &Positions) -> Result<Span> {
    let mut rest = Span::new();
    for (partition, mut range) in span.iter() {
        if let Some(&next) = positions.get(&partition) {
            if range.next <= next {
                continue;
            }
            range.first = next;
        }
        rest.extend(partition, range).map_err(|misfit| Error::internal(misfit.to_string()))?;
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{Offset, OffsetRange, Partition, SystemClock};
    use arrow::datatypes::DataType;
    use object_store::ObjectStore;
    use object_store::memory::InMemory;

    use super::*;
    use crate::decode::sample::{append_flow, value};
    use crate::hop::RejectClass;
    use crate::metrics::Metrics;

    /// Opens the dead letters of `flow` as a process that starts does.
    async fn open(flow: Flow, store: &Arc<dyn ObjectStore>) -> Result<DeadLetters> {
        let log = DeltaLog::with_stores("memory:///rejects".parse()?, Arc::clone(store), Arc::clone(store));
        let place = DeadLetterPlace {
            log,
            table: &"ops.rejects".parse()?,
            clock: Arc::new(SystemClock),
            limits: LandLimits::default(),
            watch: Watch::new(Arc::new(Metrics::try_new()?)),
            checkpoint_interval: 100,
        };
        DeadLetters::open(Arc::new(flow), place).await
    }

    fn reject((partition, offset): (i32, i64)) -> Reject {
        Reject {
            partition: Partition(partition),
            offset: Offset(offset),
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Vec::new(),
            class: RejectClass::Malformed,
            message: "bad".to_owned(),
        }
    }

    /// Lands what is rejected of a batch of the offsets from 0 to `next` of both partitions; returns how many rows it added.
    async fn land(letters: &mut DeadLetters, next: i64, rejected: &[(i32, i64)]) -> Result<Option<u64>> {
        let rejects: Vec<Reject> = rejected.iter().copied().map(reject).collect();
        land_all(letters, next, &rejects).await
    }

    async fn land_all(letters: &mut DeadLetters, next: i64, rejects: &[Reject]) -> Result<Option<u64>> {
        let mut span = Span::new();
        for partition in [0, 1] {
            let range = OffsetRange { first: Offset(0), next: Offset(next), records: u64::try_from(next).unwrap_or(0) };
            span.extend(Partition(partition), range).map_err(|misfit| Error::internal(misfit.to_string()))?;
        }
        let lineage =
            Lineage::begin(letters.flow.name().clone(), "hash", "test", SystemClock.new_id(), SystemClock.new_id());
        let landed = letters.land(rejects, &span, &lineage).await?;
        Ok(landed.map(|landed| landed.fate.dead_lettered))
    }

    #[tokio::test]
    async fn a_batch_that_comes_again_lands_the_rejects_that_were_none_before() -> Result<()> {
        let flow = || append_flow(&[value("id", DataType::Int64)]);
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut letters = open(flow()?, &store).await?;
        assert_eq!(land(&mut letters, 10, &[(0, 2), (1, 7)]).await?, Some(2));
        // The process dies before the batch itself lands. The next one has other SQL, and its batch reaches further.
        let mut letters = open(flow()?, &store).await?;
        assert_eq!(land(&mut letters, 10, &[(0, 2)]).await?, None);
        assert_eq!(
            land(&mut letters, 10, &[(0, 2), (1, 2), (1, 7)]).await?,
            Some(1),
            "1@2 is new, below the positions"
        );
        assert_eq!(land(&mut letters, 20, &[(0, 2), (1, 2), (0, 5), (1, 15)]).await?, Some(2), "0@5 and 1@15");
        let mut letters = open(flow()?, &store).await?;
        assert_eq!(land(&mut letters, 20, &[(0, 2), (0, 5), (1, 2), (1, 7), (1, 15)]).await?, None);
        assert_eq!(land(&mut letters, 20, &[(0, 15)]).await?, Some(1));
        Ok(())
    }

    #[tokio::test]
    async fn a_reject_of_a_topic_made_anew_lands_where_one_of_the_old_topic_stands() -> Result<()> {
        let flow = append_flow(&[value("id", DataType::Int64)])?;
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut letters = open(flow, &store).await?;
        let stamped = |timestamp_ms| [Reject { timestamp_ms, ..reject((0, 2)) }];
        for timestamp_ms in [Some(1_767_225_600_123), Some(1_767_225_600_124), None] {
            assert_eq!(land_all(&mut letters, 10, &stamped(timestamp_ms)).await?, Some(1), "{timestamp_ms:?}");
            assert_eq!(land_all(&mut letters, 10, &stamped(timestamp_ms)).await?, None, "{timestamp_ms:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_reject_below_the_positions_lands_once_though_two_processes_land_it_at_once() -> Result<()> {
        let flow = || append_flow(&[value("id", DataType::Int64)]);
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut first = open(flow()?, &store).await?;
        assert_eq!(land(&mut first, 20, &[(0, 2)]).await?, Some(1));
        // The batch itself did not land. The next SQL rejects one more of its records, in the process that loses the
        // partition and in the one that takes it over.
        let (mut loses, mut takes_over) = (open(flow()?, &store).await?, open(flow()?, &store).await?);
        assert_eq!(land(&mut loses, 20, &[(0, 2), (0, 5)]).await?, Some(1));
        assert_eq!(land(&mut takes_over, 20, &[(0, 2), (0, 5)]).await?, None, "0@5 has landed twice");
        assert_eq!(land(&mut takes_over, 20, &[(0, 2), (0, 5), (1, 3)]).await?, Some(1));
        Ok(())
    }
}
