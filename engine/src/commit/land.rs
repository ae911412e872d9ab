//! The landing loop: draw up, check positions, put, settle; on a conflict follow the log and draw up again, bounded.

mod swap;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Clock, Definition, Error, Lineage, Positions, Result, StageMillis, follows};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

pub use swap::Swapped;

use super::create::{ENGINE_INFO, encode};
use super::definitions::{check_keeper, check_key, is_held, with_definition};
use super::positions::{AppIds, check_monotone};
use super::{Attempts, Landed, Outcome};
use crate::delta::action::Action;
use crate::delta::log::{DeltaLog, LogEntry, PutOutcome, Version};
use crate::delta::state::TableState;
use crate::invariant::{Law, Watch};
use crate::write::vectors::VectorFolder;
use crate::write::{Draft, Staged, Writer};

/// Limits of the landing loop.
#[derive(Debug, Clone, Copy)]
pub struct LandLimits {
    /// Attempts until the batch is given up with `Conflict` or `Unavailable`.
    pub attempts_max: u32,
    /// The first wait for a store that did not answer; it doubles up to [`wait_max`](Self::wait_max).
    pub wait_min: Duration,
    /// The longest such wait.
    pub wait_max: Duration,
    /// Of the deletion vectors of a compaction, those of at most this many bytes stand in the log.
    pub inline_bytes_max: usize,
}

impl Default for LandLimits {
    /// About a minute in all: longer than a store's hiccup, shorter than Kafka's patience with a silent consumer.
    fn default() -> Self {
        Self {
            attempts_max: 20,
            wait_min: Duration::from_millis(50),
            wait_max: Duration::from_secs(5),
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        }
    }
}

/// A table that batches land in: its log, its newest known version and its writer, which move together.
#[derive(Debug)]
pub struct Landing {
    log: DeltaLog,
    state: TableState,
    writer: Box<dyn Writer>,
    ids: AppIds,
    clock: Arc<dyn Clock>,
    limits: LandLimits,
    watch: Watch,
    /// Bytes of the versions that landed here.
    log_bytes: u64,
    attempts: Attempts,
    /// The table was given the flow's definition, or had it.
    is_defined: bool,
    /// Whether the flow takes an upsert table over from the one that keeps it.
    takes_over: bool,
    /// Whether state and writer are not of one version any more, after an error halfway.
    is_torn: bool,
}

/// What a commit says of itself beside its files.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The lineage record; fates, rows and timings are filled in here.
    pub lineage: Lineage,
    /// `STREAMING UPDATE` or `MERGE`, as `DESCRIBE HISTORY` shows it.
    pub operation: &'static str,
    /// The definition, to be kept in the table when it is not there yet.
    pub definition: Option<Arc<Definition>>,
}

/// The parts of a [`Landing`].
#[derive(Debug)]
pub struct LandingParts {
    /// The table's log.
    pub log: DeltaLog,
    /// Its newest version.
    pub state: TableState,
    /// What stages batches for it.
    pub writer: Box<dyn Writer>,
    /// The flow's names for its positions.
    pub ids: AppIds,
}

impl Landing {
    /// Returns a landing of `parts`; reads nothing.
    pub fn new(parts: LandingParts, clock: Arc<dyn Clock>, limits: LandLimits, watch: Watch) -> Self {
        let LandingParts { log, state, writer, ids } = parts;
        Self {
            log,
            state,
            writer,
            ids,
            clock,
            limits,
            watch,
            log_bytes: 0,
            attempts: Attempts::default(),
            is_defined: false,
            takes_over: false,
            is_torn: false,
        }
    }

    /// Returns the newest version known.
    pub fn state(&self) -> &TableState {
        &self.state
    }

    /// Returns the table's log.
    pub fn log(&self) -> &DeltaLog {
        &self.log
    }

    /// Returns the bytes that the batches landed here have added to the log.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Lets the flow take an upsert table over from the one that keeps it.
    pub fn take_over(&mut self) {
        self.takes_over = true;
    }

    /// Returns how attempts have ended since this was last asked, those of batches that did not land included.
    pub fn take_attempts(&mut self) -> Attempts {
        std::mem::take(&mut self.attempts)
    }

    /// Returns the writer, to stage the next batch.
    pub fn writer(&mut self) -> &mut dyn Writer {
        self.writer.as_mut()
    }

    /// Returns the flow's positions as of the newest version known.
    pub fn positions(&self) -> Positions {
        self.ids.positions(&self.state.txns)
    }

    /// Takes in the versions that others have committed. After an error halfway nothing lands here any more: the table
    /// has to be opened again.
    ///
    /// # Errors
    /// `Data` when the flow's positions went back; `Conflict` when the table has other columns or another protocol now;
    /// otherwise as of [`TableState::catch_up`] and [`Writer::follow`].
    pub async fn catch_up(&mut self) -> Result<()> {
        self.check_whole()?;
        let (before, shape) = (self.positions(), self.state.head());
        let tail = self.state.catch_up(&self.log).await?;
        self.is_torn = true;
        self.check_shape(&shape)?;
        for entry in &tail {
            self.writer.follow(entry).await?;
        }
        self.check_rows();
        check_monotone(&before, &self.positions(), &self.log)?;
        self.is_torn = false;
        Ok(())
    }

    /// Refuses to go on where the state has moved and the writer has not: what either says of deleted rows may be old.
    fn check_whole(&self) -> Result<()> {
        if self.is_torn {
            let at = self.log.location();
            return Err(Error::conflict(format!(
                "the table at {at} could not be followed, and has to be opened again"
            )));
        }
        Ok(())
    }

    /// Checks that what the writer was made for still holds: whoever opens the table again finds out whether it can
    /// be written as it is now.
    fn check_shape(&self, before: &TableState) -> Result<()> {
        let changed = changed_shape(before, &self.state);
        if changed.is_empty() {
            return Ok(());
        }
        let (at, version) = (self.log.location(), self.state.version);
        Err(Error::conflict(format!("the table at {at} has {} as of version {version}", changed.join(", "))))
    }

    /// Checks that the writer knows as many rows as the log tells of. What another writer has left out of the log is told
    /// by ours, which has read the file.
    fn check_rows(&self) {
        let Some(known) = self.writer.n_rows() else { return };
        if let Some(told) = self.state.n_rows_with(|path| self.writer.n_records(path)) {
            let seen =
                || format!("{known} rows known, {told} in version {} of {}", self.state.version, self.log.location());
            self.watch.check(Law::IndexMatchesTable, known == told, seen);
        }
    }

    /// Lands `staged`.
    ///
    /// # Errors
    /// `Conflict` or `Unavailable` when the attempts are spent; the batch may then be in the table all the same, and
    /// only a fresh read of the table tells ([`catch_up`](Self::catch_up)). `Conflict` after a failed
    /// [`catch_up`](Self::catch_up).
    pub async fn land(&mut self, staged: &Staged, signature: &Signature) -> Result<Outcome> {
        self.check_whole()?;
        if let Some(excess) = staged.excess {
            return Ok(Outcome::Exceeds(excess));
        }
        for conflicts in 0..self.limits.attempts_max {
            if let Err(misfit) = follows(&self.positions(), &staged.span) {
                self.attempts.fenced += 1;
                return Ok(Outcome::Fenced(misfit));
            }
            let draft = self.writer.draft(staged, &self.state).await?;
            if let Some(excess) = draft.excess {
                return Ok(Outcome::Exceeds(excess));
            }
            self.watch.check(Law::EveryRecordHasOneFate, draft.fate.is_balanced(), || format!("{:?}", draft.fate));
            let lineage = complete(&signature.lineage, staged, &draft);
            let actions = self.actions(staged, &draft, signature)?;
            let info = self.info(&lineage, signature.operation, &draft);
            let bytes = encode(&info, &actions)?;
            let version = self.state.version + 1;
            if self.put_until_known(version, &bytes, lineage.write_id).await? {
                self.attempts.landed += 1;
                self.is_defined = true;
                self.writer.landed(staged, &draft);
                self.log_bytes += bytes.len() as u64;
                self.state.apply(version, &actions);
                self.check_rows();
                let entry = LogEntry { version, actions, info };
                let (span, fate) = (staged.span.clone(), draft.fate);
                return Ok(Outcome::Landed(Box::new(Landed { span, fate, lineage, entry, conflicts })));
            }
            self.attempts.conflicts += 1;
            // Without a wait: somebody else's commit is progress, and whoever waits longer loses to a writer that does not.
            self.catch_up().await?;
        }
        Err(Error::conflict(format!(
            "cannot commit to {}: other commits came first {} times",
            self.log.location(),
            self.limits.attempts_max
        )))
    }

    /// Puts the same bytes until the version is known to be ours (`true`) or somebody else's (`false`). The bytes never
    /// change between puts: whichever of them the store took, it took this commit.
    async fn put_until_known(&mut self, version: Version, bytes: &Bytes, write_id: Uuid) -> Result<bool> {
        let mut wait = self.limits.wait_min;
        for _attempt in 0..self.limits.attempts_max {
            match self.log.put(version, bytes.clone(), write_id).await {
                PutOutcome::Landed => return Ok(true),
                PutOutcome::Taken => return Ok(false),
                PutOutcome::Unknown => {
                    self.attempts.indeterminate += 1;
                    tracing::warn!(version, "the store did not say whether the commit landed");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(self.limits.wait_max);
        }
        let (at, attempts) = (self.log.location(), self.limits.attempts_max);
        Err(Error::unavailable(format!(
            "cannot commit version {version} of {at}: {attempts} attempts without an answer"
        )))
    }

    fn actions(&self, staged: &Staged, draft: &Draft, signature: &Signature) -> Result<Vec<Action>> {
        let mut actions = Vec::with_capacity(draft.actions.len() + 2);
        actions.extend(self.definition_action(signature)?);
        actions.extend(self.ids.advance(&staged.span, self.clock.now().0));
        actions.extend(draft.actions.iter().cloned());
        Ok(actions)
    }

    /// Returns the metadata with the flow's definition, when the table does not hold this one yet. Looked at once, and
    /// again when somebody took it out: processes whose connections differ would otherwise undo each other's for ever.
    fn definition_action(&self, signature: &Signature) -> Result<Option<Action>> {
        let Some(definition) = signature.definition.as_deref() else { return Ok(None) };
        let metadata = &self.state.metadata;
        if self.is_defined && is_held(metadata, definition) {
            return Ok(None);
        }
        // Another flow may have taken the table since it was opened.
        check_key(definition, &metadata.configuration, self.log.location())?;
        if !self.takes_over {
            check_keeper(definition, &metadata.configuration, self.log.location())?;
        }
        Ok(with_definition(metadata, definition).map(Action::MetaData))
    }

    fn info(&self, lineage: &Lineage, operation: &str, draft: &Draft) -> Value {
        // What an upsert adds depends on what it has read, also where it only adds.
        let is_blind = draft.decision.is_none() && draft.actions.iter().all(|action| matches!(action, Action::Add(_)));
        let mut info = json!({
            "timestamp": self.clock.now().0,
            "operation": operation,
            "operationParameters": {"flow": lineage.flow, "sqlHash": lineage.sql_hash},
            "operationMetrics": {
                "numRecords": lineage.fate.records_in.to_string(),
                "numTargetRowsInserted": draft.rows_inserted.to_string(),
                "numTargetRowsUpdated": draft.rows_updated.to_string(),
                "numTargetRowsDeleted": draft.rows_deleted.to_string(),
            },
            "readVersion": self.state.version,
            "isolationLevel": "Serializable",
            "isBlindAppend": is_blind,
            "engineInfo": ENGINE_INFO,
            "txnId": lineage.write_id,
            Lineage::KEY: lineage,
        });
        for (key, value) in &draft.notes {
            info[*key] = value.clone();
        }
        info
    }
}

/// Returns what a table has now that a writer was not made for.
fn changed_shape(before: &TableState, now: &TableState) -> Vec<String> {
    let (was, is) = (&before.metadata, &now.metadata);
    let parts = [
        (before.protocol.asks_the_same(&now.protocol), "another protocol"),
        (was.schema_string == is.schema_string, "other columns"),
        (was.partition_columns == is.partition_columns, "other partition columns"),
    ];
    let mut changed: Vec<String> =
        parts.iter().filter(|(is_same, _)| !is_same).map(|(_, what)| (*what).to_owned()).collect();
    let names: BTreeSet<&String> =
        rules(&was.configuration).chain(rules(&is.configuration)).map(|(name, _)| name).collect();
    for name in names {
        match (was.configuration.get(name), is.configuration.get(name)) {
            (old, new) if old == new => {}
            (_, Some(value)) => changed.push(format!("{name} = {value}")),
            (_, None) => changed.push(format!("no {name}")),
        }
    }
    changed
}

/// Returns the properties by which Delta says how a table is written. What only says how long something is kept is looked
/// up when it is needed.
fn rules(configuration: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    const LOOKED_UP: [&str; 4] = [
        "delta.checkpointInterval",
        "delta.deletedFileRetentionDuration",
        "delta.enableExpiredLogCleanup",
        "delta.logRetentionDuration",
    ];
    configuration.iter().filter(|(key, _)| key.starts_with("delta.") && !LOOKED_UP.contains(&key.as_str()))
}

fn complete(lineage: &Lineage, staged: &Staged, draft: &Draft) -> Lineage {
    let millis = |spent: Duration| u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
    let mut inputs = lineage.inputs.clone();
    inputs.extend(staged.lookups.iter().cloned());
    Lineage {
        inputs,
        fate: draft.fate,
        rows_inserted: draft.rows_inserted,
        rows_updated: draft.rows_updated,
        rows_deleted: draft.rows_deleted,
        effort: draft.effort,
        millis: StageMillis {
            fetch: millis(staged.spent.fetch),
            decode: millis(staged.spent.decode),
            transform: millis(staged.spent.transform),
            write: millis(staged.spent.write),
        },
        ..lineage.clone()
    }
}

#[cfg(test)]
mod tests;
