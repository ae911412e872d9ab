//! The transform stage, from decoded records to changes.

use std::time::Duration;

use alluvium_catalog::store::{CatalogStore, MemoryStore};
use alluvium_catalog::{ErrorKind, Offset, Partition, Span, StorageSettings, Stores};
use alluvium_sql::{Compiler, RecordLimits, SourceText, TableReader};

use super::*;
use crate::cli::CatalogNames;
use crate::decode::Decoder;
use crate::hop::{Fetched, Record};

/// The key of a record is text, that of the table a number: not every text is one.
const SQL: &str = "
    CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
    CREATE SOURCE events (word STRING NOT NULL, pos BIGINT NOT NULL METADATA FROM 'offset') WITH (
        'connection' = 'shop', 'topic' = 'events', 'key.format' = 'raw', 'key.fields' = 'word');
    CREATE STREAMING TABLE lake.events (id BIGINT NOT NULL, pos BIGINT NOT NULL, PRIMARY KEY (id) NOT ENFORCED);
    CREATE FLOW events_kept AS AUTO CDC INTO lake.events
        FROM (SELECT CAST(word AS BIGINT) AS id, pos FROM STREAM(events))
        KEYS (id) SEQUENCE BY pos STORED AS SCD TYPE 1;
";

/// Leads records through decode and transform of a flow with these limits. They stand from offset 0 of partition 3 on; a
/// tombstone has a key and no value.
async fn changes(records: &[(&str, Option<&str>)], errors: ErrorMode, rejects_max: usize) -> Result<Changes> {
    let (stores, catalog) = (Stores::new(StorageSettings::default()), Arc::new(MemoryStore::default()));
    let catalog: Arc<dyn CatalogStore> = catalog;
    let reader = || TableReader::new(stores.clone(), Arc::clone(&catalog));
    let names = Arc::new(CatalogNames::new(Arc::clone(&catalog), reader()));
    let text = Arc::new(SourceText::new("events.sql", SQL));
    let pipeline = Compiler::new("memory:///lake".parse()?, names).compile(&[text]).await?;
    let compiled = pipeline.flows.first().ok_or_else(|| Error::internal("no flow"))?;
    let limits = RecordLimits { rejects_max, ..compiled.limits };
    let flow = Arc::new(Flow { errors, limits, ..Flow::clone(compiled) });
    let transform = Transform::compile(&flow, Arc::new(reader())).await?;
    let mut fetched = Records::default();
    for (offset, (key, value)) in (0..).zip(records) {
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        let record = Record { partition: Partition(3), offset: Offset(offset), timestamp_ms: None, key, value };
        fetched.push(record, Vec::new());
    }
    let fetched = Fetched { records: fetched, span: Span::new(), took: Duration::ZERO };
    let decoded = Decoder::new(&flow)?.decode(fetched)?;
    TransformStage::try_new(flow, transform)?.apply(decoded).await
}

fn log() -> Result<ErrorMode> {
    Ok(ErrorMode::Log("ops.rejects".parse()?))
}

fn ids(changes: &Changes) -> Vec<i64> {
    changes.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn a_tombstone_that_the_sql_fails_on_is_a_reject_and_the_others_delete() -> Result<()> {
    let changes = changes(&[("1", None), ("abc", None), ("2", None)], log()?, 100).await?;
    assert_eq!(ids(&changes), [1, 2]);
    assert_eq!(changes.order.offsets.values().to_vec(), [0, 2]);
    assert_eq!(changes.deletes.as_ref().map(BooleanArray::true_count), Some(2));
    let rejects: Vec<_> = changes.rejects.iter().map(|reject| (reject.class, reject.offset)).collect();
    assert_eq!(rejects, [(RejectClass::Tombstone, Offset(1))]);
    let expected = Fate { records_in: 3, applied: 2, dead_lettered: 1, ..Fate::default() };
    assert_eq!(changes.fate, expected);
    assert!(changes.fate.is_balanced());
    Ok(())
}

#[tokio::test]
async fn rows_and_tombstones_that_the_sql_fails_on_are_rejects_of_one_batch() -> Result<()> {
    let records = [
        ("1", Some(r#"{"word": "1"}"#)),
        ("x", Some(r#"{"word": "x"}"#)),
        ("abc", None),
        ("1", None),
        ("2", Some(r#"{"word": "2"}"#)),
    ];
    let logged = changes(&records, log()?, 2).await?;
    assert_eq!(ids(&logged), [1, 2]);
    assert_eq!(logged.order.offsets.values().to_vec(), [3, 4]);
    let rejects: Vec<_> = logged.rejects.iter().map(|reject| (reject.class, reject.offset)).collect();
    assert_eq!(rejects, [(RejectClass::Transform, Offset(1)), (RejectClass::Tombstone, Offset(2))]);
    assert_eq!(logged.fate, Fate { records_in: 5, applied: 2, merged: 1, dead_lettered: 2, ..Fate::default() });
    let ignored = changes(&records, ErrorMode::Ignore, 2).await?;
    assert_eq!(ignored.fate, Fate { records_in: 5, applied: 2, merged: 1, dropped: 2, ..Fate::default() });
    Ok(())
}

#[tokio::test]
async fn a_tombstone_that_the_sql_fails_on_stops_a_flow_that_bears_none_with_its_place() -> Result<()> {
    let records = [("1", None), ("abc", None), ("2", None)];
    let Err(error) = changes(&records, ErrorMode::Fail, 100).await else {
        return Err(Error::internal("the batch passed"));
    };
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().starts_with("cannot land record at events/3@1: tombstone: "), "{}", error.message());
    let records = [("x", None), ("y", None), ("2", None)];
    let Err(error) = changes(&records, log()?, 1).await else {
        return Err(Error::internal("the batch passed"));
    };
    assert!(
        error.message().contains("more than 1 rejects in one batch, the first at events/3@0"),
        "{}",
        error.message()
    );
    Ok(())
}
