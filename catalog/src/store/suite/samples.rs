//! Values that leave no field empty, so that a store that forgets one is found out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use uuid::Uuid;

use crate::lineage::Definition;
use crate::store::Run;
use crate::{
    Clock, Column, Commit, Connection, Dataset, DatasetKind, Effort, Fate, FlowKind, FlowVersion, Input, Lineage,
    ManualClock, MetadataKey, OptionValue, Origin, PartitionRange, Result, SecretProvider, SecretRef, Source,
    SourceColumn, StageMillis, Table, TableName, Timestamp,
};

/// Returns the id of `index`, the same each time. Ids sort by their index.
pub(super) fn id(index: i64) -> Uuid {
    ManualClock::new(1, Timestamp(index)).new_id()
}

/// Returns a run that has begun and says nothing else.
pub(super) fn run(index: i64, started_at: i64) -> Run {
    Run { id: id(index), started_at: Timestamp(started_at), ended_at: None, error: None, address: None }
}

/// Returns an address on this machine.
pub(super) fn address(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Returns a definition whose every name comes from `flow`.
pub(super) fn definition(flow: &str) -> Result<Definition> {
    let table = table(flow)?;
    let source = source(flow)?;
    let flow = FlowVersion {
        flow: flow.parse()?,
        kind: FlowKind::AutoCdc,
        source: source.name.clone(),
        table: table.name.clone(),
        lookups: vec!["silver.zones".parse()?, "silver.currencies".parse()?],
        sql: format!("CREATE FLOW {flow} AS AUTO CDC INTO {}", table.name),
        sql_hash: format!("hash of {flow}"),
        file: "orders.sql".to_owned(),
        line: 12,
    };
    Ok(Definition { connection: connection(flow.flow.as_str())?, source, table, flow })
}

/// Returns the registration that a declared table makes.
pub(super) fn dataset_of(table: &Table) -> Dataset {
    Dataset {
        name: table.name.clone(),
        kind: DatasetKind::Delta,
        location: table.location.clone(),
        owner: None,
        description: table.comment.clone(),
        tags: Vec::new(),
        table: Some(table.clone()),
    }
}

/// Returns a dataset that no pipeline declared.
pub(super) fn dataset(name: &str, kind: DatasetKind) -> Result<Dataset> {
    let name: TableName = name.parse()?;
    Ok(Dataset {
        kind,
        location: format!("s3://elsewhere/{}/{}", name.schema(), name.table()).parse()?,
        owner: Some("ops".to_owned()),
        description: Some("it's \"quoted\", \u{fc}ber all".to_owned()),
        tags: vec!["raw".to_owned()],
        table: None,
        name,
    })
}

/// Returns the commit of `version` to the table of [`definition`], by its flow.
pub(super) fn commit(flow: &str, version: u64) -> Result<Commit> {
    let definition = definition(flow)?;
    Ok(Commit {
        table: definition.table.name,
        location: definition.table.location,
        version,
        committed_at: Timestamp(1_700_000_000_000),
        lineage: lineage(&definition.flow)?,
        files_added: 1,
        files_removed: 2,
        bytes_added: 3,
        vectors_written: 4,
    })
}

fn lineage(flow: &FlowVersion) -> Result<Lineage> {
    let ranges = vec![
        PartitionRange { partition: 0, first: 0, next: 500, records: 400 },
        PartitionRange { partition: 7, first: 12, next: 12, records: 0 },
    ];
    Ok(Lineage {
        v: 1,
        flow: flow.flow.clone(),
        sql_hash: flow.sql_hash.clone(),
        run: id(20),
        write_id: id(21),
        engine: "0.1.0".to_owned(),
        inputs: vec![
            Input::Kafka {
                cluster: Some("c1".to_owned()),
                topic: "shop.orders".parse()?,
                topic_id: Some("t1".to_owned()),
                ranges: ranges.clone(),
            },
            Input::Kafka { cluster: None, topic: "shop.orders-2".parse()?, topic_id: None, ranges },
            Input::Table { table: "silver.zones".parse()?, version: 3 },
            Input::Files { dataset: "ref.holidays".parse()? },
        ],
        fate: Fate { records_in: 21, applied: 1, merged: 2, filtered: 3, dropped: 4, quarantined: 5, dead_lettered: 6 },
        rows_inserted: 11,
        rows_updated: 12,
        rows_deleted: 13,
        effort: Effort { files_touched: 14, batch_bytes: 15, discarded_bytes: 17, bytes_written: 16 },
        millis: StageMillis { fetch: 21, decode: 22, transform: 23, write: 24 },
        definition: None,
    })
}

fn connection(flow: &str) -> Result<Connection> {
    let password = SecretRef { provider: SecretProvider::Env, name: "KAFKA_PASSWORD".to_owned() };
    let options = [
        ("bootstrap.servers", OptionValue::Text("localhost:9092".to_owned())),
        ("sasl.password", OptionValue::Secret(password)),
    ];
    Ok(Connection {
        name: format!("{flow}_connection").parse()?,
        kind: "kafka".to_owned(),
        options: options.map(|(key, value)| (key.to_owned(), value)).into(),
    })
}

fn source(flow: &str) -> Result<Source> {
    let column = |name, origin| SourceColumn { column: column(name), origin };
    Ok(Source {
        name: format!("{flow}_raw").parse()?,
        connection: format!("{flow}_connection").parse()?,
        topic: "shop.orders".parse()?,
        columns: vec![
            column("order_id", Origin::Value),
            column("kind", Origin::Metadata(MetadataKey::Header("Kind".to_owned()))),
            column("day", Origin::Computed("CAST(updated_at AS DATE)".to_owned())),
        ],
        options: BTreeMap::from([("format".to_owned(), "json".to_owned())]),
        comment: Some("orders as they come".to_owned()),
    })
}

fn table(flow: &str) -> Result<Table> {
    Ok(Table {
        name: TableName::try_new("silver", flow)?,
        location: format!("s3://lake/silver/{flow}").parse()?,
        columns: vec![column("order_id"), column("order_date")],
        primary_key: vec!["order_id".to_owned()],
        partitioned_by: vec!["order_date".to_owned()],
        clustered_by: None,
        comment: Some("one row per order".to_owned()),
        properties: BTreeMap::from([("alluvium.upsert".to_owned(), "merge-on-read".to_owned())]),
    })
}

fn column(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        data_type: "BIGINT".to_owned(),
        nullable: name != "order_id",
        comment: Some("its name says it".to_owned()),
        tags: vec!["pii".to_owned()],
    }
}
