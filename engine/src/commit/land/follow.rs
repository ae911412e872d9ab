//! Keeps state and writer of one version: takes in what others commit, and refuses to go on where the two have parted.

use alluvium_catalog::{Error, Result};

use super::Landing;
use super::look::Look;
use super::shape::changed_shape;
use crate::commit::positions::check_monotone;
use crate::delta::action::Action;
use crate::delta::log::LogEntry;
use crate::delta::state::TableState;
use crate::invariant::Law;

/// Why nothing lands any more after an error while the log was followed.
const HALFWAY: &str = "could not be followed";

/// Why nothing lands any more when the writer has lost count.
const MISCOUNTED: &str = "has other rows than its writer knows";

impl Landing {
    /// Takes in the versions that others have committed. After an error halfway nothing lands here any more: the table
    /// has to be opened again.
    ///
    /// # Errors
    /// `Data` when the flow's positions went back; `Conflict` when the table has other columns or another protocol now;
    /// otherwise as of [`TableState::catch_up`] and [`Writer::follow`](crate::write::Writer::follow).
    pub async fn catch_up(&mut self) -> Result<()> {
        self.check_whole()?;
        let (before, shape) = (self.positions(), self.state.head());
        let look = Look::now(self.clock.as_ref());
        let tail = self.state.catch_up(&self.log).await?;
        self.torn = Some(HALFWAY);
        self.check_shape(&shape)?;
        let tail: Vec<LogEntry> = tail.into_iter().map(|entry| as_of(entry, &self.state)).collect();
        self.writer.follow(&tail).await?;
        check_monotone(&before, &self.positions(), &self.log)?;
        (self.torn, self.looked) = (None, look);
        self.check_rows();
        Ok(())
    }

    /// Refuses to go on where the state has moved and the writer has not, or where it knows other rows: what it says of
    /// deleted rows may be wrong.
    pub(super) fn check_whole(&self) -> Result<()> {
        let Some(why) = self.torn else { return Ok(()) };
        Err(Error::conflict(format!("the table at {} {why}, and has to be opened again", self.log.location())))
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

    /// Checks that the writer knows as many rows as the log tells of; where it does not, nothing lands here any more, and who
    /// opens the table again makes the index anew. What another writer has left out of the log is told by ours, which has
    /// read the file.
    pub(super) fn check_rows(&mut self) {
        let Some(known) = self.writer.n_rows() else { return };
        if let Some(told) = self.state.n_rows_with(|path| self.writer.n_records(path)) {
            let seen =
                || format!("{known} rows known, {told} in version {} of {}", self.state.version, self.log.location());
            if !self.watch.check(Law::IndexMatchesTable, known == told, seen) {
                self.torn = Some(MISCOUNTED);
            }
        }
    }

    /// Follows the log where that was last done a while ago ([`look`](super::look)): what is staged then stands on files that are
    /// still there, and on positions that are the table's.
    ///
    /// # Errors
    /// As of [`catch_up`](Self::catch_up).
    pub async fn freshen(&mut self) -> Result<()> {
        match self.is_look_old() {
            true => self.catch_up().await,
            false => Ok(()),
        }
    }

    fn is_look_old(&self) -> bool {
        self.looked.is_old((&self.state, self.log.location()), self.clock.as_ref())
    }

    /// Looks whether the version at hand is still the newest, where it is not known well enough ([`look`](super::look)); what has come
    /// since is followed, and the answer is no.
    pub(super) async fn is_newest(&mut self) -> Result<bool> {
        if !self.is_look_old() {
            return Ok(true);
        }
        let known = self.state.version;
        self.catch_up().await?;
        Ok(self.state.version == known)
    }
}

/// Returns `entry` with the files that it adds as they are in `newest`, a later state, and without those that are gone by
/// then: what they were in between may have been vacuumed, and leaves nothing behind.
fn as_of(mut entry: LogEntry, newest: &TableState) -> LogEntry {
    entry.actions.retain_mut(|action| {
        let Action::Add(add) = action else { return true };
        let now = newest.files.get(&add.path);
        if let Some(now) = now {
            add.clone_from(now);
        }
        now.is_some()
    });
    entry
}
