//! What a table is at a version, as far as a writer must know it: protocol, metadata, live files and positions.
//!
//! The state is made by replaying the log and only by that; our own commits go through [`TableState::apply`] like
//! everybody else's. Start-up, recovery and rebase are the same replay.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alluvium_catalog::{Error, Result};

use super::action::{Action, Add, DomainMetadata, Metadata, Protocol, deleted_records, live_records};
use super::log::{DeltaLog, LogEntry, Version};
use super::spelling::Spellings;

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
    /// How the log spells the paths of files of other writers.
    pub spellings: Spellings,
    counted: Counted,
}

/// The rows of the live files as far as the log tells.
#[derive(Debug, Clone, Default)]
struct Counted {
    n_rows: u64,
    /// The files of which it does not tell how many they hold.
    untold: BTreeSet<String>,
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
                Some((oldest, newest)) => {
                    return Err(Error::data(format!(
                        "the log of {} holds versions {oldest} to {newest} and no checkpoint that they follow",
                        log.location()
                    )));
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
    /// alone does not tell: the newest one has no next either, and clean-up may have left some before those that it took. Only
    /// the last checkpoint tells, which it never goes beyond.
    async fn tail(&self, log: &DeltaLog) -> Result<Option<Vec<LogEntry>>> {
        let mut tail = log.read_tail(self.version + 1).await?;
        let newest = |tail: &[LogEntry]| tail.last().map_or(self.version, |entry| entry.version);
        let Some(checkpoint) = log.last_checkpoint().await? else { return Ok(Some(tail)) };
        if checkpoint > newest(&tail) {
            // Somebody may have committed and written a checkpoint between the two looks.
            tail.extend(log.read_tail(newest(&tail) + 1).await?);
        }
        Ok((checkpoint <= newest(&tail)).then_some(tail))
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
        self.n_rows_with(|_| None)
    }

    /// As [`n_rows`](Self::n_rows), where `n_records` tells what the log does not: how many rows the file at a path holds,
    /// deleted ones included. Other writers may leave the number out.
    pub fn n_rows_with(&self, n_records: impl Fn(&str) -> Option<u64>) -> Option<u64> {
        let mut n_rows = self.counted.n_rows;
        for path in &self.counted.untold {
            let add = self.files.get(path)?;
            n_rows += n_records(path)?.saturating_sub(deleted_records(add));
        }
        Some(n_rows)
    }

    fn count(&mut self, add: &Add) {
        match live_records(add) {
            Some(n_rows) => self.counted.n_rows += n_rows,
            None => {
                self.counted.untold.insert(add.path.clone());
            }
        }
    }

    fn discount(&mut self, gone: Option<&Add>) {
        let Some(gone) = gone else { return };
        match live_records(gone) {
            Some(n_rows) => self.counted.n_rows -= n_rows,
            None => {
                self.counted.untold.remove(&gone.path);
            }
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
                    let replaced = self.files.insert(add.path.clone(), add.clone());
                    self.discount(replaced.as_ref());
                    self.count(add);
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
                Action::Spelling(spelling) => self.spellings.note(spelling),
                Action::Remove(_) => {}
            }
        }
        for action in actions {
            if let Action::Remove(remove) = action
                && !self.files.contains_key(&remove.path)
            {
                self.spellings.forget(&remove.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::action::{DeletionVectorDescriptor, Remove, StorageType};

    fn add(path: &str, n_records: Option<u64>, n_deleted: i64) -> Action {
        let vector = DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: String::new(),
            offset: None,
            size_in_bytes: 0,
            cardinality: n_deleted,
        };
        Action::Add(Add {
            path: path.to_owned(),
            stats: n_records.map(|n_records| format!(r#"{{"numRecords":{n_records}}}"#)),
            deletion_vector: (n_deleted > 0).then_some(vector),
            ..Add::default()
        })
    }

    fn remove(path: &str) -> Action {
        Action::Remove(Remove { path: path.to_owned(), ..Remove::default() })
    }

    #[test]
    fn rows_of_files_without_their_number_in_the_log_are_counted_by_who_has_read_them() {
        let mut state = TableState::default();
        let read = |path: &str| (path == "foreign").then_some(9);
        state.apply(0, &[add("ours", Some(5), 2)]);
        assert_eq!((state.n_rows(), state.n_rows_with(read)), (Some(3), Some(3)));
        state.apply(1, &[add("foreign", None, 0)]);
        assert_eq!((state.n_rows(), state.n_rows_with(read)), (None, Some(12)));
        // Its rows are deleted, by a writer that names the file twice and by one that replaces it.
        state.apply(2, &[remove("foreign"), add("foreign", None, 4)]);
        assert_eq!((state.n_rows(), state.n_rows_with(read)), (None, Some(8)));
        state.apply(3, &[add("foreign", None, 5)]);
        assert_eq!((state.n_rows(), state.n_rows_with(read)), (None, Some(7)));
        state.apply(4, &[add("unread", None, 0)]);
        assert_eq!(state.n_rows_with(read), None);
        state.apply(5, &[remove("unread"), remove("foreign"), add("foreign", Some(9), 6)]);
        assert_eq!(state.n_rows(), Some(6));
    }
}
