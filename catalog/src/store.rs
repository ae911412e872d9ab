//! The seam to whatever keeps the catalog: one object-safe trait, one conformance suite ([`suite`]), two honest
//! implementations ([`MemoryStore`], [`SqliteStore`]).
//!
//! The store is a mirror: the Delta logs are the truth. A failure here never fails a batch, and everything that flows
//! wrote can be written again from the tables (`alluvium catalog rebuild`). All writes are idempotent.

mod memory;
mod sqlite;
pub mod suite;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use uuid::Uuid;

pub use memory::MemoryStore;
pub use sqlite::{Hold, SqliteStore};

use crate::lineage::Definition;
use crate::{
    Commit, Connection, Dataset, Edge, FlowVersion, Location, Name, Result, Seen, Source, TableName, Timestamp,
};

/// A flow version with its place in the flow's history.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FlowEntry {
    /// The place in the flow's history, from 1.
    pub seq: u64,
    /// The version.
    pub version: FlowVersion,
}

/// Returns the place of each text of each flow in its history, by flow and hash; of a text that came back, the newest.
/// Commits hold the hash, which every log tells alike; places are the catalog's own count.
pub fn places(flows: &[FlowEntry]) -> BTreeMap<(&Name, &str), u64> {
    // A later entry of the same text takes over from an earlier one.
    flows.iter().map(|entry| ((&entry.version.flow, entry.version.sql_hash.as_str()), entry.seq)).collect()
}

/// One process that runs flows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Its id.
    #[serde(with = "crate::clock::id_text")]
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, if it has and could say so.
    pub ended_at: Option<Timestamp>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Where its process answers over HTTP, if it listens: on the machine that it runs on.
    #[serde(default)]
    pub address: Option<SocketAddr>,
}

/// The most runs that [`CatalogStore::listening`] returns: more processes than one machine's flows are spread over.
pub const LISTENING_MAX: usize = 16;

/// A version of a table, and the write that it is recorded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The version.
    pub version: u64,
    /// The write.
    pub write_id: Uuid,
}

/// What in the catalog shows that it tells of another table than the one that is at a place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// This commit is recorded, and the table has not got it.
    Commit(Written),
    /// Up to this version all is said to be recorded, and the table has fewer.
    Recorded(u64),
}

/// Keeps what exists and where it came from.
#[async_trait]
pub trait CatalogStore: fmt::Debug + Send + Sync {
    /// Records all that a flow hangs on: its connection, source, table (as a dataset) and version, in one transaction.
    /// Returns the version's place in the flow's history; a version whose hash is the newest is not added again.
    async fn put_definition(&self, definition: &Definition) -> Result<u64>;

    /// Records a connection, over what was recorded under its name.
    async fn put_connection(&self, connection: &Connection) -> Result<()>;

    /// Records a source, over what was recorded under its name. Its connection is there already.
    async fn put_source(&self, source: &Source) -> Result<()>;

    /// Registers a dataset, or changes its registration. A declared table's definition is kept when `dataset` has none.
    async fn put_dataset(&self, dataset: &Dataset) -> Result<()>;

    /// Forgets a dataset's registration and returns whether there was one. Files and commits stay.
    async fn drop_dataset(&self, name: &TableName) -> Result<bool>;

    /// Records a run's begin or end.
    async fn put_run(&self, run: &Run) -> Result<()>;

    /// Records a commit. A commit that is recorded already (same location, version and write id) is left as it is; one
    /// of another write is replaced, for it is of a table that was at this place before.
    async fn put_commit(&self, commit: &Commit) -> Result<()>;

    /// Notes that every commit of the table at `location` up to `version` is recorded; an older note changes nothing.
    async fn put_recorded(&self, location: &Location, version: u64) -> Result<()>;

    /// As [`put_recorded`](Self::put_recorded), where the commits up to `former` are noted as recorded still. Where they
    /// are not, somebody has forgotten them: nothing changes, and the answer is false.
    async fn raise_recorded(&self, location: &Location, former: u64, version: u64) -> Result<bool>;

    /// Forgets the commits of the table at `location` that have one of `versions`, and sets the note back to before the
    /// first of `versions`; in one step, and only where `witness` is in the catalog still. Where it is not, another has
    /// forgotten what it spoke of, and may have recorded anew: nothing changes, and the answer is false.
    async fn forget_commits(
        &self,
        location: &Location,
        versions: &[RangeInclusive<u64>],
        witness: Witness,
    ) -> Result<bool>;

    /// Returns the oldest and then the newest commit that is recorded of the table at `location` among `versions`, which
    /// are in order: one where they are the same, none where none is recorded.
    async fn written(&self, location: &Location, versions: &[RangeInclusive<u64>]) -> Result<Vec<Written>>;

    /// Returns up to which version every commit of the table at `location` is recorded, if that was ever noted.
    async fn recorded(&self, location: &Location) -> Result<Option<u64>>;

    /// Returns all connections by name.
    async fn connections(&self) -> Result<Vec<Connection>>;

    /// Returns all sources by name.
    async fn sources(&self) -> Result<Vec<Source>>;

    /// Returns all datasets by name.
    async fn datasets(&self) -> Result<Vec<Dataset>>;

    /// Returns one dataset.
    async fn dataset(&self, name: &TableName) -> Result<Option<Dataset>>;

    /// Returns every version of every flow, by flow and place.
    async fn flows(&self) -> Result<Vec<FlowEntry>>;

    /// Returns the versions of one flow, oldest first.
    async fn flow(&self, name: &Name) -> Result<Vec<FlowEntry>>;

    /// Returns runs, newest first, at most `limit`.
    async fn runs(&self, limit: usize) -> Result<Vec<Run>>;

    /// Returns the runs that have an address and no end, newest first, at most [`LISTENING_MAX`]. One that was killed
    /// could not say so and is among them.
    async fn listening(&self) -> Result<Vec<Run>>;

    /// Returns the commits of a table, or of all, newest first (by time, then version), at most `limit`.
    async fn commits(&self, table: Option<&TableName>, limit: usize) -> Result<Vec<Commit>>;

    /// Returns the commits of a flow, into whichever tables, newest first, at most `limit`.
    async fn flow_commits(&self, flow: &Name, limit: usize) -> Result<Vec<Commit>>;

    /// Returns each way that data took by commits, in order, with how often it was taken.
    async fn traffic(&self) -> Result<Vec<(Edge, Seen)>>;

    /// Returns the newest version recorded for a table, if any; of a registered table, for the place where it is now.
    async fn last_version(&self, table: &TableName) -> Result<Option<u64>>;
}
