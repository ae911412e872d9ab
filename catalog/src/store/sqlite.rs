//! The catalog in a SQLite file: the default, shared by all processes of one machine.
//!
//! The file is in WAL mode, so `alluvium sql` reads while `alluvium run` writes. Every write is one transaction that
//! takes SQLite's write lock at its start: it waits for its turn instead of failing half way.

mod commits;
mod definitions;
mod failure;
mod hold;
mod recorded;
mod runs;
mod traffic;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

use self::failure::{failed, migration_failed};
pub use self::hold::Hold;
use super::{CatalogStore, FlowEntry, Run, Witness, Written};
use crate::lineage::Definition;
use crate::{Commit, Connection, Dataset, Edge, Error, ErrorKind, Location, Name, Result, Seen, Source, TableName};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a transaction waits for other processes' transactions, which take milliseconds each.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers at once: the REPL, the REST listener and the flows that catch up.
const READERS_MAX: u32 = 4;

/// Keeps the catalog in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    /// What errors call the store by.
    place: String,
    readers: SqlitePool,
    /// One connection: SQLite has one writer at a time, and a pool's queue is fair where SQLite's waiting is not.
    writer: SqlitePool,
    /// Keeps a rebuild from replacing the file meanwhile.
    hold: Option<Arc<Hold>>,
}

impl SqliteStore {
    /// Opens the catalog at `path`; makes the file, and the folders above it, if there is none.
    ///
    /// # Errors
    /// `Invalid` when the file cannot be made or opened, or a newer program has changed its tables. `Data` when it is
    /// not a catalog or is damaged. `Unavailable` when another process keeps it locked, or replaces it.
    pub async fn open(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.map_err(|source| {
                Error::invalid(format!("cannot make the folder of catalog {place}"))
                    .with_source(source)
                    .with_hint("set `catalog` (ALLUVIUM_CATALOG), or `warehouse` that it lies in by default, to a place that can be written")
            })?;
        }
        let hold = Hold::shared(path)?;
        let options = SqliteConnectOptions::new()
            .filename(hold.path())
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // The catalog can be made again from the tables; what a power cut takes of it is repaired from their logs.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        // The writer connects first: it makes the file, and turns WAL on, before anybody reads.
        let writer = connect_first(&place, &options).await?;
        migrate(&place, &writer).await?;
        let readers = connect(&place, SqlitePoolOptions::new().max_connections(READERS_MAX), &options).await?;
        Ok(Self { place, readers, writer, hold: Some(Arc::new(hold)) })
    }

    /// Opens an empty catalog that is gone when it is dropped.
    ///
    /// # Errors
    /// `Internal` when SQLite does not do it.
    pub async fn open_in_memory() -> Result<Self> {
        let place = ":memory:".to_owned();
        // Each connection to `:memory:` is another database, so this one must never be given back.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
        let writer = connect(&place, pool, &options).await?;
        migrate(&place, &writer).await?;
        Ok(Self { place, readers: writer.clone(), writer, hold: None })
    }

    /// Brings all that was written into the file itself and onto the disk, so that the file alone is the catalog.
    /// [`close`](Self::close) tries the same, and does not say when it could not.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full or does not answer, or somebody else is reading.
    pub async fn flush(&self) -> Result<()> {
        const FLUSH: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

        let flushed = sqlx::query_scalar::<Sqlite, i64>(FLUSH).fetch_one(&self.writer).await;
        let is_busy = flushed.map_err(|source| failed(&self.place, "flush", source))?;
        if is_busy == 0 {
            return Ok(());
        }
        Err(Error::unavailable(format!("cannot flush catalog {}: somebody is reading it", self.place)))
    }

    /// Closes the file when all that is under way has ended. Clones are closed too.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        if let Some(hold) = &self.hold {
            hold.release();
        }
    }

    /// Begins a transaction that sees one state of the catalog throughout.
    async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        self.readers.begin().await.map_err(|source| failed(&self.place, "read", source))
    }

    /// Begins a transaction that nobody else's write can come between.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        let begun = self.writer.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(|source| failed(&self.place, "write", source))
    }

    async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<()> {
        transaction.commit().await.map_err(|source| failed(&self.place, "write", source))
    }
}

#[async_trait]
impl CatalogStore for SqliteStore {
    async fn put_definition(&self, definition: &Definition) -> Result<u64> {
        let mut transaction = self.write().await?;
        let seq = definitions::put(&mut transaction, definition).await.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await?;
        Ok(seq)
    }

    async fn put_connection(&self, connection: &Connection) -> Result<()> {
        let mut transaction = self.write().await?;
        definitions::put_connection(&mut transaction, connection).await.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await
    }

    async fn put_source(&self, source: &Source) -> Result<()> {
        let mut transaction = self.write().await?;
        definitions::put_source(&mut transaction, source).await.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await
    }

    async fn put_dataset(&self, dataset: &Dataset) -> Result<()> {
        let mut transaction = self.write().await?;
        definitions::put_dataset(&mut transaction, dataset).await.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await
    }

    async fn drop_dataset(&self, name: &TableName) -> Result<bool> {
        let mut transaction = self.write().await?;
        let dropped = sqlx::query("DELETE FROM datasets WHERE schema_name = ?1 AND table_name = ?2")
            .bind(name.schema())
            .bind(name.table())
            .execute(&mut *transaction)
            .await
            .map_err(|source| failed(&self.place, "write", source))?;
        self.commit(transaction).await?;
        Ok(dropped.rows_affected() > 0)
    }

    async fn put_run(&self, run: &Run) -> Result<()> {
        let mut transaction = self.write().await?;
        runs::put(&mut transaction, run).await.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await
    }

    async fn put_commit(&self, commit: &Commit) -> Result<()> {
        let mut transaction = self.write().await?;
        commits::put(&mut transaction, commit).await.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await
    }

    async fn put_recorded(&self, location: &Location, version: u64) -> Result<()> {
        let mut transaction = self.write().await?;
        recorded::put(&mut transaction, location, version).await.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await
    }

    async fn raise_recorded(&self, location: &Location, former: u64, version: u64) -> Result<bool> {
        let mut transaction = self.write().await?;
        let raised = recorded::raise(&mut transaction, location, former, version).await;
        let is_raised = raised.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await?;
        Ok(is_raised)
    }

    async fn forget_commits(
        &self,
        location: &Location,
        versions: &[RangeInclusive<u64>],
        witness: Witness,
    ) -> Result<bool> {
        let mut transaction = self.write().await?;
        let forgotten = recorded::forget(&mut transaction, location, versions, witness).await;
        let is_forgotten = forgotten.map_err(|error| error.at(&self.place))?;
        self.commit(transaction).await?;
        Ok(is_forgotten)
    }

    async fn written(&self, location: &Location, versions: &[RangeInclusive<u64>]) -> Result<Vec<Written>> {
        recorded::written(&mut *self.read().await?, location, versions).await.map_err(|error| error.at(&self.place))
    }

    async fn recorded(&self, location: &Location) -> Result<Option<u64>> {
        recorded::up_to(&mut *self.read().await?, location).await.map_err(|error| error.at(&self.place))
    }

    async fn connections(&self) -> Result<Vec<Connection>> {
        definitions::connections(&mut *self.read().await?).await.map_err(|error| error.at(&self.place))
    }

    async fn sources(&self) -> Result<Vec<Source>> {
        definitions::sources(&mut *self.read().await?).await.map_err(|error| error.at(&self.place))
    }

    async fn datasets(&self) -> Result<Vec<Dataset>> {
        definitions::datasets(&mut *self.read().await?, None).await.map_err(|error| error.at(&self.place))
    }

    async fn dataset(&self, name: &TableName) -> Result<Option<Dataset>> {
        let found = definitions::datasets(&mut *self.read().await?, Some(name)).await;
        Ok(found.map_err(|error| error.at(&self.place))?.pop())
    }

    async fn flows(&self) -> Result<Vec<FlowEntry>> {
        definitions::flows(&mut *self.read().await?, None).await.map_err(|error| error.at(&self.place))
    }

    async fn flow(&self, name: &Name) -> Result<Vec<FlowEntry>> {
        definitions::flows(&mut *self.read().await?, Some(name)).await.map_err(|error| error.at(&self.place))
    }

    async fn runs(&self, limit: usize) -> Result<Vec<Run>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        runs::newest(&mut *self.read().await?, limit).await.map_err(|error| error.at(&self.place))
    }

    async fn listening(&self) -> Result<Vec<Run>> {
        runs::listening(&mut *self.read().await?).await.map_err(|error| error.at(&self.place))
    }

    async fn commits(&self, table: Option<&TableName>, limit: usize) -> Result<Vec<Commit>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let of = table.map_or(commits::Of::All, commits::Of::Table);
        commits::newest(&mut *self.read().await?, of, limit).await.map_err(|error| error.at(&self.place))
    }

    async fn flow_commits(&self, flow: &Name, limit: usize) -> Result<Vec<Commit>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let of = commits::Of::Flow(flow);
        commits::newest(&mut *self.read().await?, of, limit).await.map_err(|error| error.at(&self.place))
    }

    async fn traffic(&self) -> Result<Vec<(Edge, Seen)>> {
        traffic::all(&mut *self.read().await?).await.map_err(|error| error.at(&self.place))
    }

    async fn last_version(&self, table: &TableName) -> Result<Option<u64>> {
        commits::last_version(&mut *self.read().await?, table).await.map_err(|error| error.at(&self.place))
    }
}

async fn connect(place: &str, pool: SqlitePoolOptions, options: &SqliteConnectOptions) -> Result<SqlitePool> {
    pool.connect_with(options.clone()).await.map_err(|source| failed(place, "open", source))
}

/// Connects the writer. SQLite refuses at once to turn WAL on where another process is just making the file, and does not
/// wait as it does for a transaction.
async fn connect_first(place: &str, options: &SqliteConnectOptions) -> Result<SqlitePool> {
    const PAUSE: Duration = Duration::from_millis(20);
    let begun = tokio::time::Instant::now();
    loop {
        match connect(place, SqlitePoolOptions::new().max_connections(1), options).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && begun.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// Brings the tables up to date. The write lock is held throughout, so that of two processes one does it.
async fn migrate(place: &str, writer: &SqlitePool) -> Result<()> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(|source| failed(place, "open", source))?;
    MIGRATIONS.run(&mut *transaction).await.map_err(|source| migration_failed(place, source))?;
    transaction.commit().await.map_err(|source| failed(place, "open", source))
}

#[cfg(test)]
mod tests;
