//! What a landing notices of another writer's commits, on a table in memory.

use std::collections::BTreeMap;

use alluvium_catalog::{ErrorKind, Fate, ManualClock, Offset, OffsetRange, Partition, Span, SystemClock, Timestamp};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::commit::create::{Blueprint, encode};
use crate::hop::{ChangeOrder, Changes, Spent};
use crate::metrics::Metrics;
use crate::write::append::AppendWriter;
use crate::write::parquet::DataFolder;

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]))
}

/// Opens a table that does not exist, to append to it.
async fn open() -> Result<Landing> {
    open_in(&(Arc::new(InMemory::new()) as Arc<dyn ObjectStore>), Arc::new(SystemClock), "flow").await
}

/// Opens the table in `store`, to append to it by a flow.
async fn open_in(store: &Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, flow: &str) -> Result<Landing> {
    let store = Arc::clone(store);
    let log = DeltaLog::with_stores("memory:///t".parse()?, Arc::clone(&store), Arc::clone(&store));
    let folder =
        DataFolder { store, location: log.location().clone(), partitioned_by: Vec::new(), clock: Arc::clone(&clock) };
    let blueprint = Blueprint {
        schema: columns(),
        partitioned_by: Vec::new(),
        clustered_by: None,
        deletion_vectors: false,
        comment: None,
        properties: BTreeMap::new(),
    };
    let known_at = clock.now();
    let state = blueprint.open_or_create(&log, clock.as_ref()).await?;
    let ids = AppIds::of_table(&flow.parse()?, &"topic".parse()?);
    let parts = LandingParts { log, state, writer: Box::new(AppendWriter::new(folder)), ids, known_at };
    let watch = Watch::new(Arc::new(Metrics::try_new()?));
    Ok(Landing::new(parts, clock, LandLimits::default(), watch))
}

/// Lands the record at `offset`.
async fn land(landing: &mut Landing, offset: i64) -> Result<Outcome> {
    let mut span = Span::new();
    let range = OffsetRange { first: Offset(offset), next: Offset(offset + 1), records: 1 };
    span.extend(Partition(0), range).map_err(|misfit| Error::internal(misfit.to_string()))?;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![offset]));
    let rows = RecordBatch::try_new(columns(), vec![ids])
        .map_err(|cause| Error::internal("the row cannot be made").with_source(cause))?;
    let changes = Changes {
        rows,
        order: ChangeOrder {
            partitions: Int32Array::from(vec![0]),
            offsets: Int64Array::from(vec![offset]),
            sequence: Vec::new(),
            inherited: None,
            after_delete: None,
        },
        keyed: None,
        deletes: None,
        rejects: Vec::new(),
        lookups: Vec::new(),
        fate: Fate { records_in: 1, applied: 1, ..Fate::default() },
        span,
        spent: Spent::default(),
    };
    let lineage = Lineage::begin("flow".parse()?, "hash", "test", SystemClock.new_id(), SystemClock.new_id());
    let signature = Signature { lineage, operation: "STREAMING UPDATE", definition: None };
    let staged = landing.writer().stage(changes).await?;
    landing.land(&staged, &signature).await
}

async fn newest(landing: &Landing) -> Result<TableState> {
    TableState::load(landing.log()).await?.ok_or_else(|| Error::internal("the table is gone"))
}

/// What another writer does to a table's protocol and metadata.
type Change = fn(&mut TableState);

/// Commits protocol and metadata as `change` makes them, as another writer would.
async fn change_shape(landing: &Landing, change: Change) -> Result<()> {
    let mut state = newest(landing).await?;
    change(&mut state);
    put_next(landing, &[Action::Protocol(state.protocol), Action::MetaData(state.metadata)]).await
}

/// Commits `actions` as another writer would.
async fn put_next(landing: &Landing, actions: &[Action]) -> Result<()> {
    let state = newest(landing).await?;
    let write_id = SystemClock.new_id();
    let info = json!({"operation": "SOMETHING ELSE", "txnId": write_id});
    match landing.log().put(state.version + 1, encode(&info, actions)?, write_id).await {
        PutOutcome::Landed => Ok(()),
        PutOutcome::Taken | PutOutcome::Unknown => Err(Error::internal("the other writer cannot commit")),
    }
}

fn set(state: &mut TableState, property: &str, value: &str) {
    state.metadata.configuration.insert(property.to_owned(), value.to_owned());
}

fn add_column(state: &mut TableState) {
    let field = r#"{"name":"more","type":"long","nullable":true,"metadata":{}},"#;
    state.metadata.schema_string =
        state.metadata.schema_string.replace(r#""fields":["#, &format!(r#""fields":[{field}"#));
}

fn unset_indexed_columns(state: &mut TableState) {
    state.metadata.configuration.remove("delta.dataSkippingNumIndexedCols");
}

fn ask_for_more(state: &mut TableState) {
    state.protocol.min_writer_version += 1;
    set(state, "delta.appendOnly", "true");
}

#[tokio::test]
async fn a_shape_that_another_writer_changes_is_noticed_at_the_next_commit_and_told() -> Result<()> {
    let cases: [(Change, &str); 5] = [
        (|state| set(state, "delta.appendOnly", "true"), "has delta.appendOnly = true as of version 2"),
        (unset_indexed_columns, "has no delta.dataSkippingNumIndexedCols as of version 2"),
        (add_column, "has other columns as of version 2"),
        (|state| state.metadata.partition_columns.push("id".to_owned()), "has other partition columns as of version 2"),
        (ask_for_more, "has another protocol, delta.appendOnly = true as of version 2"),
    ];
    for (change, said) in cases {
        let mut landing = open().await?;
        assert!(matches!(land(&mut landing, 0).await?, Outcome::Landed(_)));
        change_shape(&landing, change).await?;
        let error = land(&mut landing, 1).await.err().ok_or_else(|| Error::internal(format!("it landed: {said}")))?;
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        assert!(error.message().starts_with("the table at memory:///t"), "{}", error.message());
        assert!(error.message().ends_with(said), "{}", error.message());

        // The writer is not made for what the table is now: only a landing that is opened anew goes on.
        let again = land(&mut landing, 1).await.err().ok_or_else(|| Error::internal("a torn landing goes on"))?;
        assert!(again.kind() == ErrorKind::Conflict && again.message().contains("opened again"), "{}", again.chain());
        let state = newest(&landing).await?;
        assert_eq!((state.version, state.n_rows()), (2, Some(1)), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn properties_that_change_nothing_about_writing_do_not_stop_a_landing() -> Result<()> {
    let changes: [Change; 4] = [
        |state| set(state, "delta.logRetentionDuration", "interval 30 days"),
        |state| set(state, "delta.checkpointInterval", "7"),
        |state| set(state, "owner", "somebody"),
        |state| state.metadata.description = Some("orders".to_owned()),
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut landing = open().await?;
        assert!(matches!(land(&mut landing, 0).await?, Outcome::Landed(_)));
        change_shape(&landing, change).await?;
        let Outcome::Landed(landed) = land(&mut landing, 1).await? else {
            return Err(Error::internal(format!("change {place} kept a batch from landing")));
        };
        assert_eq!((landed.entry.version, landed.conflicts), (3, 1));
        assert_eq!(newest(&landing).await?.n_rows(), Some(2));
    }
    Ok(())
}

/// A table that two flows append to, of which one has not looked for a while.
struct Idle {
    store: Arc<dyn ObjectStore>,
    clock: Arc<ManualClock>,
    idle: Landing,
    busy: Landing,
}

impl Idle {
    /// The busy flow has landed versions up to the third, and the idle one, which knows of none, has not looked for so long.
    async fn after(idle: Duration) -> Result<Self> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let clock = Arc::new(ManualClock::new(1, SystemClock.now()));
        let shared = || Arc::clone(&clock) as Arc<dyn Clock>;
        let idle_one = open_in(&store, shared(), "idle").await?;
        let mut busy = open_in(&store, shared(), "busy").await?;
        for offset in 0..3 {
            assert!(matches!(land(&mut busy, offset).await?, Outcome::Landed(_)));
        }
        clock.set(Timestamp(clock.now().0 + i64::try_from(idle.as_millis()).unwrap_or(i64::MAX)));
        Ok(Self { store, clock, idle: idle_one, busy })
    }

    /// Does with the log what is left of one that is kept no longer than its last checkpoint, at the third version: without
    /// the versions that are gone by now, in no order.
    async fn clean_up(&self, gone: impl IntoIterator<Item = u64>) -> Result<()> {
        let failed = |cause| Error::unavailable("test store").with_source(cause);
        let hint = r#"{"version":3,"size":1}"#;
        self.store.put(&Path::from("_delta_log/_last_checkpoint"), hint.into()).await.map_err(failed)?;
        for version in gone {
            let path = Path::from(format!("_delta_log/{version:020}.json"));
            self.store.delete(&path).await.map_err(failed)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_does_not_fill_a_gap_that_log_clean_up_has_left() -> Result<()> {
    // All that the idle one has not seen below the checkpoint, and all but the first of it.
    for (gone, gap) in [(vec![0, 1, 2], 1), (vec![0, 2], 2)] {
        let mut table = Idle::after(Duration::from_secs(61)).await?;
        table.clean_up(gone).await?;
        // A version is free, and below the checkpoint that readers begin with.
        for _again in 0..2 {
            let landed = land(&mut table.idle, 0).await;
            let error = landed.err().ok_or_else(|| Error::internal("it landed where nobody reads"))?;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "the flow opens the table again: {}", error.chain());
        }
        let gap = table.store.head(&Path::from(format!("_delta_log/{gap:020}.json"))).await;
        assert!(gap.is_err(), "the gap was filled");
        assert!(matches!(land(&mut table.busy, 3).await?, Outcome::Landed(_)), "whoever has looked goes on");
    }
    Ok(())
}

#[tokio::test]
async fn who_has_not_looked_for_a_while_looks_and_lands_after_what_has_come() -> Result<()> {
    let mut table = Idle::after(Duration::from_secs(3_600)).await?;
    let Outcome::Landed(landed) = land(&mut table.idle, 0).await? else {
        return Err(Error::internal("versions of others kept a batch from landing"));
    };
    assert_eq!((landed.entry.version, landed.conflicts), (4, 1));
    // Nothing has come since, however long that is.
    table.clock.set(Timestamp(table.clock.now().0 + 3_600_000));
    let Outcome::Landed(landed) = land(&mut table.idle, 1).await? else {
        return Err(Error::internal("a look kept a batch from landing"));
    };
    assert_eq!((landed.entry.version, landed.conflicts), (5, 0));
    assert_eq!(newest(&table.busy).await?.n_rows(), Some(5));
    Ok(())
}

/// Has read a file of six rows, and knows of seven.
#[cfg(debug_assertions)]
#[derive(Debug)]
struct Miscounting;

#[cfg(debug_assertions)]
#[async_trait::async_trait]
impl Writer for Miscounting {
    async fn stage(&mut self, _changes: Changes) -> Result<Staged> {
        Err(Error::internal("nothing is staged here"))
    }

    async fn draft(&mut self, _staged: &Staged, _state: &TableState) -> Result<Draft> {
        Err(Error::internal("nothing is drawn up here"))
    }

    async fn follow(&mut self, _tail: &[LogEntry]) -> Result<()> {
        Ok(())
    }

    fn landed(&mut self, _staged: &Staged, _draft: &Draft) {}

    fn n_rows(&self) -> Option<u64> {
        Some(7)
    }

    fn n_records(&self, path: &str) -> Option<u64> {
        (path == "untold.parquet").then_some(6)
    }
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn a_writer_that_has_lost_count_lands_nothing_more() -> Result<()> {
    let mut landing = open().await?;
    landing.watch = landing.watch.that_goes_on();
    let add = crate::delta::action::Add { path: "untold.parquet".to_owned(), size: 1, ..Default::default() };
    put_next(&landing, &[Action::Add(add)]).await?;
    let writer = std::mem::replace(&mut landing.writer, Box::new(Miscounting));
    landing.catch_up().await?;
    landing.writer = writer;
    let error = land(&mut landing, 0).await.err().ok_or_else(|| Error::internal("it landed"))?;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
    assert!(error.message().contains("has other rows than its writer knows"), "{}", error.message());
    Ok(())
}

/// Only debug builds stop at a broken law.
#[cfg(debug_assertions)]
#[tokio::test]
async fn rows_of_a_file_without_statistics_are_held_against_what_the_writer_knows() -> Result<()> {
    let mut landing = open().await?;
    landing.writer = Box::new(Miscounting);
    let add = crate::delta::action::Add { path: "untold.parquet".to_owned(), size: 1, ..Default::default() };
    put_next(&landing, &[Action::Add(add)]).await?;
    let followed = tokio::spawn(async move { landing.catch_up().await }).await;
    let error = followed.err().ok_or_else(|| Error::internal("seven rows were taken for six"))?;
    let said = error.into_panic().downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(said.contains("7 rows known, 6 in version 1 of memory:///t"), "{said}");
    Ok(())
}
