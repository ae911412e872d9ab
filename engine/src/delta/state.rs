//! What a table is at a version, as far as a writer must know it: protocol, metadata, live files and positions.
//!
//! The state is made by replaying the log and only by that; our own commits go through [`TableState::apply`] like
//! everybody else's. Start-up, recovery and rebase are the same replay.

use std::collections::{BTreeMap, HashMap};

use alluvium_catalog::{Error, Result};

use super::action::{Action, Add, DomainMetadata, Metadata, Protocol, live_records};
use super::log::{DeltaLog, LogEntry, Version};

/// A table at a version.
#[derive(Debug, Clone, Default)]
pub struct TableState {
    /// The version.
    pub version: Version,
    /// What a reader and a writer must understand.
    pub protocol: Protocol,
    /// Schema, partitioning and properties.
    pub metadata: Metadata,
    /// The live files by path.
    pub files: HashMap<String, Add>,
    /// The newest version of every application transaction.
    pub txns: BTreeMap<String, i64>,
    /// What features keep in the log, by domain.
    pub domains: BTreeMap<String, String>,
    counted: Counted,
}

/// The rows of the live files as far as the log tells.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    n_rows: u64,
    n_files_untold: u64,
}

impl TableState {
    /// Loads the newest version; `None` when there is no table.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Data` when the log is damaged, or begins neither with version 0
    /// nor with a checkpoint.
    pub async fn load(log: &DeltaLog) -> Result<Option<Self>> {
        let mut state = Self::default();
        let mut next = 0;
        if let Some((version, actions)) = log.read_checkpoint().await? {
            state.apply(version, &actions);
            next = version + 1;
        }
        let mut tail = log.read_tail(next).await?;
        if next == 0 && tail.is_empty() {
            match log.version_range().await? {
                None => return Ok(None),
                // Somebody has created the table between the two looks.
                Some((0, _)) => tail = log.read_tail(0).await?,
                // The hint is lost.
                Some((oldest, newest)) => {
                    let Some((version, actions)) = log.find_checkpoint().await? else {
                        return Err(Error::data(format!(
                            "the log of {} holds versions {oldest} to {newest} and no checkpoint that they follow",
                            log.location()
                        )));
                    };
                    state.apply(version, &actions);
                    tail = log.read_tail(version + 1).await?;
                }
            }
        }
        for entry in &tail {
            state.apply(entry.version, &entry.actions);
        }
        if state.metadata.schema_string.is_empty() || state.protocol.min_writer_version == 0 {
            return Err(Error::data(format!(
                "the log of {} has no protocol and metaData up to version {}",
                log.location(),
                state.version
            )));
        }
        Ok(Some(state))
    }

    /// Replays the versions after this one and returns them.
    ///
    /// # Errors
    /// As of [`DeltaLog::read`]; `Unavailable` when the log was cleaned up beyond this version, so that the table has to
    /// be loaded again.
    pub async fn catch_up(&mut self, log: &DeltaLog) -> Result<Vec<LogEntry>> {
        match self.tail(log).await? {
            Some(tail) => {
                for entry in &tail {
                    self.apply(entry.version, &entry.actions);
                }
                Ok(tail)
            }
            None => Err(Error::unavailable(format!(
                "the log of {} no longer holds the versions after {}",
                log.location(),
                self.version
            ))),
        }
    }

    /// Moves to the newest version: by replay, or by loading where the log no longer reaches back to this one.
    ///
    /// # Errors
    /// As of [`load`](Self::load).
    pub async fn refresh(&mut self, log: &DeltaLog) -> Result<()> {
        let Some(tail) = self.tail(log).await? else {
            *self = Self::load(log)
                .await?
                .ok_or_else(|| Error::data(format!("the table at {} vanished", log.location())))?;
            return Ok(());
        };
        for entry in &tail {
            self.apply(entry.version, &entry.actions);
        }
        Ok(())
    }

    /// Returns the versions after this one; `None` when there are some that the log no longer holds. A missing version
    /// alone does not tell: the newest one has no next either.
    async fn tail(&self, log: &DeltaLog) -> Result<Option<Vec<LogEntry>>> {
        let tail = log.read_tail(self.version + 1).await?;
        if !tail.is_empty() || log.last_checkpoint().await?.is_none_or(|version| version <= self.version) {
            return Ok(Some(tail));
        }
        // Somebody may have committed and written a checkpoint between the two looks.
        let tail = log.read_tail(self.version + 1).await?;
        Ok((!tail.is_empty()).then_some(tail))
    }

    /// Returns what the table is without its files and transactions.
    #[must_use]
    pub fn head(&self) -> Self {
        let (protocol, metadata) = (self.protocol.clone(), self.metadata.clone());
        Self { version: self.version, protocol, metadata, domains: self.domains.clone(), ..Self::default() }
    }

    /// Returns the number of rows in the table, `sum(numRecords - cardinality)` over its files; `None` where the log does
    /// not tell it of every file.
    pub fn n_rows(&self) -> Option<u64> {
        (self.counted.n_files_untold == 0).then_some(self.counted.n_rows)
    }

    fn discount(&mut self, gone: Option<&Add>) {
        match gone.map(live_records) {
            Some(Some(n_rows)) => self.counted.n_rows -= n_rows,
            Some(None) => self.counted.n_files_untold -= 1,
            None => {}
        }
    }

    /// Moves to `version` by its actions. Removes are applied before Adds, since a changed deletion vector is both.
    pub fn apply(&mut self, version: Version, actions: &[Action]) {
        self.version = version;
        for action in actions {
            if let Action::Remove(remove) = action {
                let gone = self.files.remove(&remove.path);
                self.discount(gone.as_ref());
            }
        }
        for action in actions {
            match action {
                Action::Add(add) => {
                    match live_records(add) {
                        Some(n_rows) => self.counted.n_rows += n_rows,
                        None => self.counted.n_files_untold += 1,
                    }
                    let replaced = self.files.insert(add.path.clone(), add.clone());
                    self.discount(replaced.as_ref());
                }
                Action::Txn(txn) => {
                    self.txns.insert(txn.app_id.clone(), txn.version);
                }
                Action::MetaData(metadata) => self.metadata = metadata.clone(),
                Action::Protocol(protocol) => self.protocol = protocol.clone(),
                Action::DomainMetadata(DomainMetadata { domain, removed: true, .. }) => {
                    self.domains.remove(domain);
                }
                Action::DomainMetadata(DomainMetadata { domain, configuration, .. }) => {
                    self.domains.insert(domain.clone(), configuration.clone());
                }
                Action::Remove(_) => {}
            }
        }
    }
}
