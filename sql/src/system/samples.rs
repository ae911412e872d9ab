//! A catalog with one of everything, for tests.

use alluvium_catalog::{
    Column, Commit, Connection, DatasetKind, Definition, Effort, Fate, FlowKind, FlowVersion, Input, Lineage,
    OptionValue, Origin, PartitionRange, Result, Source, SourceColumn, StageMillis, Table, Timestamp,
};
use alluvium_catalog::{Dataset, store::Run};

/// A flow `orders_in` from the source `orders_raw` into `silver.orders`.
pub(crate) fn definition() -> Result<Definition> {
    let column = Column {
        name: "order_id".to_owned(),
        data_type: "BIGINT".to_owned(),
        nullable: false,
        comment: None,
        tags: Vec::new(),
    };
    let connection = Connection {
        name: "shop".parse()?,
        kind: "kafka".to_owned(),
        options: [("bootstrap.servers".to_owned(), OptionValue::Text("localhost:9092".to_owned()))].into(),
    };
    let source = Source {
        name: "orders_raw".parse()?,
        connection: "shop".parse()?,
        topic: "shop.orders".parse()?,
        columns: vec![SourceColumn { column: column.clone(), origin: Origin::Value }],
        options: [("topic".to_owned(), "shop.orders".to_owned())].into(),
        comment: Some("as the shop sends them".to_owned()),
    };
    let table = Table {
        name: "silver.orders".parse()?,
        location: "memory:///silver/orders".parse()?,
        columns: vec![column],
        primary_key: vec!["order_id".to_owned()],
        partitioned_by: Vec::new(),
        clustered_by: None,
        comment: Some("one row an order".to_owned()),
        properties: Default::default(),
    };
    let flow = FlowVersion {
        flow: "orders_in".parse()?,
        kind: FlowKind::AutoCdc,
        source: "orders_raw".parse()?,
        table: "silver.orders".parse()?,
        lookups: vec!["silver.customers".parse()?],
        sql: "CREATE FLOW orders_in AS ..".to_owned(),
        sql_hash: "5eed".to_owned(),
        file: "orders.sql".to_owned(),
        line: 7,
    };
    Ok(Definition { connection, source, table, flow })
}

/// A dataset of parquet files.
pub(crate) fn dataset() -> Result<Dataset> {
    Ok(Dataset {
        name: "legacy.orders".parse()?,
        kind: DatasetKind::Parquet,
        location: "memory:///legacy/orders".parse()?,
        owner: Some("shop-team".to_owned()),
        description: Some("before the move".to_owned()),
        tags: vec!["frozen".to_owned()],
        table: None,
    })
}

/// A run that has ended.
pub(crate) fn run() -> Run {
    let address = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 9464)));
    Run { id: id(1), started_at: Timestamp(1_000), ended_at: Some(Timestamp(3_000)), error: None, address }
}

/// A commit of `orders_in` that read two partitions and looked up a table.
pub(crate) fn commit() -> Result<Commit> {
    let range = |partition, first, next| PartitionRange { partition, first, next, records: 2 };
    let inputs = vec![
        Input::Kafka {
            cluster: Some("k1".to_owned()),
            topic: "shop.orders".parse()?,
            topic_id: None,
            ranges: vec![range(0, 5, 9), range(1, 0, 2)],
        },
        Input::Table { table: "silver.customers".parse()?, version: 4 },
    ];
    let lineage = Lineage {
        v: 1,
        flow: "orders_in".parse()?,
        sql_hash: "5eed".to_owned(),
        run: id(1),
        write_id: id(2),
        engine: "0.1.0".to_owned(),
        inputs,
        fate: Fate { records_in: 4, applied: 3, merged: 1, ..Fate::default() },
        rows_inserted: 2,
        rows_updated: 1,
        rows_deleted: 0,
        effort: Effort { files_touched: 3, batch_bytes: 512, discarded_bytes: 100, bytes_written: 640 },
        millis: StageMillis { write: 12, ..StageMillis::default() },
        definition: None,
    };
    Ok(Commit {
        table: "silver.orders".parse()?,
        location: "memory:///silver/orders".parse()?,
        version: 1,
        committed_at: Timestamp(2_000),
        lineage,
        files_added: 1,
        files_removed: 0,
        bytes_added: 512,
        vectors_written: 1,
    })
}

fn id<T: std::str::FromStr + Default>(last: u8) -> T {
    format!("00000000-0000-0000-0000-0000000000{last:02}").parse().unwrap_or_default()
}
