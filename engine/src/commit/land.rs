//! The landing loop: draw up, check positions, put, settle; on a conflict follow the log and draw up again, bounded.

mod follow;
mod look;
mod shape;
mod swap;

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Clock, Definition, Error, Lineage, Positions, Result, StageMillis, Timestamp, follows};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

pub use swap::Swapped;

use self::look::Look;

use super::create::{ENGINE_INFO, encode_spelled};
use super::definitions::{check_keeper, check_key, is_held, with_definition};
use super::positions::AppIds;
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
    /// When the version of `state` was known to be the newest.
    looked: Look,
    /// Bytes of the versions that landed here.
    log_bytes: u64,
    attempts: Attempts,
    /// The table was given the flow's definition, or had it.
    is_defined: bool,
    /// Whether the flow takes an upsert table over from the one that keeps it.
    takes_over: bool,
    /// Why nothing may land here any more.
    torn: Option<&'static str>,
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
    /// A moment before the state was loaded: making the writer may have taken minutes since.
    pub known_at: Timestamp,
}

impl Landing {
    /// Returns a landing of `parts`, whose state was the newest at `known_at`; reads nothing. Where the writer does not know
    /// the rows that the log tells of, nothing lands.
    pub fn new(parts: LandingParts, clock: Arc<dyn Clock>, limits: LandLimits, watch: Watch) -> Self {
        let LandingParts { log, state, writer, ids, known_at } = parts;
        let mut landing = Self {
            looked: Look { at: known_at },
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
            torn: None,
        };
        landing.check_rows();
        landing
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

    /// Lands `staged`.
    ///
    /// # Errors
    /// `Conflict` or `Unavailable` when the attempts are spent; the batch may then be in the table all the same, and
    /// only a fresh read of the table tells ([`catch_up`](Self::catch_up)). `Conflict` after a failed
    /// [`catch_up`](Self::catch_up).
    pub async fn land(&mut self, staged: &Staged, signature: &Signature) -> Result<Outcome> {
        for conflicts in 0..self.limits.attempts_max {
            // Without a wait: somebody else's commit is progress, and whoever waits longer loses to a writer that does not.
            if let Some(outcome) = self.land_next(staged, signature, conflicts).await? {
                return Ok(outcome);
            }
        }
        Err(Error::conflict(format!(
            "cannot commit to {}: other commits came first {} times",
            self.log.location(),
            self.limits.attempts_max
        )))
    }

    /// Lands `staged` as the very next version; `None` where another commit came first, which has been followed then, and
    /// nothing of `staged` is visible. For batches that may have to change when others land, and whose positions do not tell.
    ///
    /// # Errors
    /// As of [`land`](Self::land).
    pub async fn land_if_next(&mut self, staged: &Staged, signature: &Signature) -> Result<Option<Outcome>> {
        self.land_next(staged, signature, 0).await
    }

    /// Draws `staged` up for the next version and puts it; `None` where another commit came first, which has been followed
    /// then, after so many `conflicts` before it.
    async fn land_next(&mut self, staged: &Staged, signature: &Signature, conflicts: u32) -> Result<Option<Outcome>> {
        self.check_whole()?;
        if let Some(excess) = staged.excess {
            return Ok(Some(Outcome::Exceeds(excess)));
        }
        if let Err(misfit) = follows(&self.positions(), &staged.span) {
            self.attempts.fenced += 1;
            return Ok(Some(Outcome::Fenced(misfit)));
        }
        let draft = self.writer.draft(staged, &self.state).await?;
        if let Some(excess) = draft.excess {
            return Ok(Some(Outcome::Exceeds(excess)));
        }
        if !self.watch.check(Law::EveryRecordHasOneFate, draft.fate.is_balanced(), || format!("{:?}", draft.fate)) {
            let at = self.log.location();
            return Err(Error::internal(format!("a batch for {at} has records without a fate: {:?}", draft.fate)));
        }
        let lineage = complete(&signature.lineage, staged, &draft);
        let actions = self.actions(staged, &draft, signature)?;
        let info = self.info(&lineage, signature.operation, &draft);
        let bytes = encode_spelled(&info, &actions, &self.state.spellings)?;
        let version = self.state.version + 1;
        if !self.is_newest().await? {
            self.attempts.conflicts += 1;
            return Ok(None);
        }
        let look = Look::now(self.clock.as_ref());
        if !self.put_until_known(version, &bytes, lineage.write_id).await? {
            self.attempts.conflicts += 1;
            self.catch_up().await?;
            return Ok(None);
        }
        self.looked = look;
        self.attempts.landed += 1;
        self.is_defined = true;
        // It keeps the table now. Who takes it from here on means to.
        self.takes_over = false;
        self.writer.landed(staged, &draft);
        self.log_bytes += bytes.len() as u64;
        self.state.apply(version, &actions);
        self.check_rows();
        let entry = LogEntry { version, actions, info };
        let (span, fate) = (staged.span.clone(), draft.fate);
        Ok(Some(Outcome::Landed(Box::new(Landed { span, fate, lineage, entry, conflicts }))))
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
