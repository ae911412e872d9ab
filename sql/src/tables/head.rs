//! Tells whether a table that was opened is still at its newest version, by two small requests and without a LIST.
//!
//! The commit of a version never changes while its table lives. So where the file is there as it was, and no next one is
//! beside it, nothing has happened; where it is gone or another, the log was cleaned up, or the table was made anew.

use alluvium_catalog::{Location, Result, storage_error};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

/// The commit file of a version, as it was when the version was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    version: u64,
    commit: Commit,
}

/// What tells two files of one path apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Commit {
    size: u64,
    modified_ms: i64,
    e_tag: Option<String>,
}

/// What has become of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    Unchanged,
    /// There are newer versions.
    Grown,
    /// What was opened cannot be followed.
    Replaced,
}

impl Head {
    /// Returns the head of the table in `store` at `version`; `None` where its commit is only in a checkpoint any more.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub(super) async fn read(store: &dyn ObjectStore, location: &Location, version: u64) -> Result<Option<Self>> {
        let found = commit(store, location, version).await?;
        Ok(found.map(|commit| Self { version, commit }))
    }

    /// Finds out what has become of the table since.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub(super) async fn news(&self, store: &dyn ObjectStore, location: &Location) -> Result<News> {
        let (this, next) =
            futures::future::try_join(commit(store, location, self.version), commit(store, location, self.version + 1))
                .await?;
        Ok(match (this, next) {
            (Some(this), None) if this == self.commit => News::Unchanged,
            (Some(this), Some(_)) if this == self.commit => News::Grown,
            _ => News::Replaced,
        })
    }
}

/// Tells whether the log in `store` holds `version`.
///
/// # Errors
/// `Unavailable` when the store does not answer.
pub(super) async fn holds(store: &dyn ObjectStore, location: &Location, version: u64) -> Result<bool> {
    Ok(commit(store, location, version).await?.is_some())
}

async fn commit(store: &dyn ObjectStore, location: &Location, version: u64) -> Result<Option<Commit>> {
    let path = Path::from(format!("_delta_log/{version:020}.json"));
    match store.head(&path).await {
        Ok(ObjectMeta { size, last_modified, e_tag, .. }) => {
            Ok(Some(Commit { size, modified_ms: last_modified.timestamp_millis(), e_tag }))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(cause) => Err(storage_error(format!("cannot look for {path} of the table at {location}"), cause)),
    }
}
