//! Tests of meaning: what compiles and to what, and how each slip is shown.

use std::collections::BTreeMap;

use alluvium_catalog::{DatasetKind, FlowKind};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::*;
use crate::pipeline::{Change, ErrorMode, Flow, KeyFormat, UpsertMode};
use crate::types::sql_type;

const EXAMPLE: &str = include_str!("../../examples/orders.sql");

/// What the cases below read and write.
const SHOP: &str = "
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
CREATE SOURCE orders_raw (
  order_id BIGINT NOT NULL, customer_id BIGINT, email STRING, amount DECIMAL(18,2), status STRING, updated_at TIMESTAMP,
  items ARRAY<STRUCT<sku: STRING, n: INT>>, rating DOUBLE, kafka_offset BIGINT METADATA FROM 'offset',
  event_time AS coalesce(updated_at, TIMESTAMP '2026-01-01T00:00:00Z'), cents AS CAST(amount * 100 AS BIGINT)
) WITH ('connection' = 'shop', 'topic' = 'shop.orders');
CREATE STREAMING TABLE silver.orders (
  order_id BIGINT NOT NULL, customer_id BIGINT, amount DECIMAL(18,2), status STRING, updated_at TIMESTAMP,
  PRIMARY KEY (order_id) NOT ENFORCED);
CREATE STREAMING TABLE bronze.events (order_id BIGINT, status STRING);
CREATE STREAMING TABLE dim.customers (customer_id BIGINT NOT NULL, country STRING, PRIMARY KEY (customer_id));
";

struct Catalog {
    tables: BTreeMap<TableName, SchemaRef>,
    definitions: Definitions,
}

#[async_trait]
impl Names for Catalog {
    async fn connection(&self, name: &Name) -> Result<Option<Connection>> {
        Ok(self.definitions.connections.iter().find(|known| known.name == *name).cloned())
    }
    async fn source(&self, name: &Name) -> Result<Option<Source>> {
        Ok(self.definitions.sources.iter().find(|known| known.name == *name).cloned())
    }
    async fn table(&self, name: &TableName) -> Result<Option<Table>> {
        Ok(self.definitions.tables.iter().find(|known| known.name == *name).cloned())
    }
    async fn table_schema(&self, name: &TableName) -> Result<Option<SchemaRef>> {
        Ok(self.tables.get(name).cloned())
    }
    async fn datasets(&self) -> Result<Vec<Dataset>> {
        let dataset = |name: &str, kind, location: &str| -> Result<Dataset> {
            let (name, location) = (name.parse()?, location.parse()?);
            Ok(Dataset { name, kind, location, owner: None, description: None, tags: Vec::new(), table: None })
        };
        Ok(vec![
            dataset("dim.countries", DatasetKind::Delta, "s3://lake/dim/countries")?,
            dataset("ops.rejected", DatasetKind::DeadLetter, "memory:///lake/ops/rejected")?,
            dataset("ref.files", DatasetKind::Csv, "s3://lake/files")?,
        ])
    }
}

fn compiler(definitions: Definitions) -> Result<Compiler> {
    let countries = Schema::new(vec![Field::new("code", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]);
    let tables = [("dim.countries".parse()?, Arc::new(countries))].into_iter().collect();
    Ok(Compiler::new("memory:///lake".parse()?, Arc::new(Catalog { tables, definitions })))
}

async fn compile(texts: &[&str]) -> Result<Pipeline, Diagnostics> {
    let names = ["shop.sql", "orders.sql", "more.sql"];
    let files: Vec<_> = names.iter().zip(texts).map(|(name, text)| Arc::new(SourceText::new(*name, *text))).collect();
    let compiler = compiler(Definitions::default()).map_err(|error| {
        crate::diagnostic::Diagnostic::new("", &Arc::new(SourceText::new("", "")), 0..0, error.chain())
    })?;
    compiler.compile(&files).await
}

/// Compiles each case beside the shop and shows its errors.
async fn refused(cases: &[&str]) -> String {
    let mut shown = String::new();
    for case in cases {
        match compile(&[SHOP, case]).await {
            Ok(pipeline) => shown.push_str(&format!("taken: {case}: {} flows\n", pipeline.flows.len())),
            Err(diagnostics) => shown.push_str(&diagnostics.render(false)),
        }
    }
    shown
}

async fn only(case: &str) -> Result<Arc<Flow>, Diagnostics> {
    let mut flows = compile(&[SHOP, case]).await?.flows;
    assert_eq!(flows.len(), 1, "{case}");
    flows.pop().ok_or_else(|| Diagnostics(Vec::new()))
}

fn columns(schema: &Schema) -> String {
    let column = |field: &Arc<Field>| {
        format!(
            "{} {}{}",
            field.name(),
            sql_type(field.data_type()),
            if field.is_nullable() { "" } else { " NOT NULL" }
        )
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

const ORDERS: &str = "CREATE FLOW f AS AUTO CDC INTO silver.orders
FROM (SELECT order_id, customer_id, amount, status, updated_at, kafka_offset FROM STREAM(orders_raw))
KEYS (order_id) APPLY AS DELETE WHEN status = 'DELETED' SEQUENCE BY struct(updated_at, kafka_offset)
COLUMNS * EXCEPT (kafka_offset)";

#[tokio::test]
async fn what_a_flow_writes_goes_over_the_settings_even_where_it_is_the_built_in_value() -> Result<(), Diagnostics> {
    let set = BatchLimits { rows_max: 7, bytes_max: 7_000, interval: std::time::Duration::from_millis(70) };
    let built_in = BatchLimits::default();
    let flow = |options: &str| {
        format!(
            "{SHOP} CREATE FLOW f {options} AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw);"
        )
    };
    for (options, expected) in [
        ("", set),
        ("WITH ('commit.rows' = 125000)", BatchLimits { rows_max: built_in.rows_max, ..set }),
        ("WITH ('commit.interval' = '10 seconds')", BatchLimits { interval: built_in.interval, ..set }),
        ("WITH ('commit.bytes' = '256 MiB')", BatchLimits { bytes_max: built_in.bytes_max, ..set }),
    ] {
        let names = Arc::new(Catalog { tables: BTreeMap::new(), definitions: Definitions::default() });
        let Ok(warehouse) = "memory:///lake".parse() else { return Err(Diagnostics(Vec::new())) };
        let compiler = Compiler::new(warehouse, names).with_batch(set);
        let pipeline = compiler.compile(&[Arc::new(SourceText::new("f.sql", flow(options)))]).await?;
        assert_eq!(pipeline.flows.first().map(|flow| flow.batch), Some(expected), "{options}");
    }
    Ok(())
}

#[tokio::test]
async fn a_computed_key_asks_what_the_keys_of_records_hold() -> Result<(), Diagnostics> {
    let flow = |source: &str, key: &str| {
        format!(
            "CREATE SOURCE raw (email STRING NOT NULL, n BIGINT, id STRING METADATA FROM 'key', pos BIGINT METADATA FROM 'offset')
             WITH ('connection' = 'shop', 'topic' = 't'{source});
             CREATE STREAMING TABLE t (k STRING NOT NULL, n BIGINT, PRIMARY KEY (k) NOT ENFORCED);
             CREATE FLOW f AS AUTO CDC INTO t FROM (SELECT {key} AS k, n, pos FROM STREAM(raw))
             KEYS (k) SEQUENCE BY pos COLUMNS * EXCEPT (pos);"
        )
    };
    // Lines are broken where they get long.
    let shown = refused(&[&flow("", "lower(email)")]).await.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["key column 'k' is computed", "'key.fields' of source raw", "such as 'email'"] {
        assert!(shown.contains(said), "{said} is not in\n{shown}");
    }
    let taken = [("", "email"), ("", "lower(id)"), (", 'key.fields' = 'email'", "lower(email)")];
    for (source, key) in taken {
        assert_eq!(compile(&[SHOP, &flow(source, key)]).await?.flows.len(), 1, "{source} {key}");
    }
    Ok(())
}

#[tokio::test]
async fn the_connection_of_a_source_that_no_flow_reads_is_looked_for() {
    let source = "CREATE SOURCE s (id BIGINT) WITH ('connection' = 'shopp', 'topic' = 't');";
    let shown = refused(&[source]).await;
    assert!(shown.contains("connection 'shopp' is not defined") && shown.contains("did you mean 'shop'?"), "{shown}");
}

#[tokio::test]
async fn the_example_compiles() -> Result<(), Diagnostics> {
    let flows = compile(&[EXAMPLE]).await?.flows;
    let names: Vec<&str> = flows.iter().map(|flow| flow.name().as_str()).collect();
    assert_eq!(names, ["orders_upsert", "customers_upsert", "order_events"]);
    let upsert = &flows[0];
    assert_eq!(upsert.definition.table.location.to_string(), "memory:///lake/silver/orders");
    assert!(matches!(&upsert.errors, ErrorMode::Log(table) if table.to_string() == "ops.orders_dlq"));
    let Change::Upsert { keys, stored_sequence, delete_when, .. } = &upsert.change else {
        return Err(Diagnostics(Vec::new()));
    };
    assert_eq!(
        (keys.as_slice(), stored_sequence.as_deref()),
        (&["order_id".to_owned()][..], Some(&["updated_at".to_owned()][..]))
    );
    assert!(delete_when.is_some() && !flows[2].is_upsert());
    assert_eq!(upsert.key_format, KeyFormat::Json { fields: vec!["order_id".to_owned()] });
    Ok(())
}

#[tokio::test]
async fn a_sequence_that_is_not_stored_is_hidden() -> Result<(), Diagnostics> {
    let flow = only(ORDERS).await?;
    let Change::Upsert { sequence, stored_sequence, .. } = &flow.change else { return Err(Diagnostics(Vec::new())) };
    assert_eq!((sequence.len(), stored_sequence), (2, &None));
    assert_eq!(flow.computed.len(), 2);
    assert_eq!(flow.source_schema.fields().len(), 9, "computed columns are not decoded");
    Ok(())
}

#[tokio::test]
async fn a_table_without_deletion_vectors_takes_upserts_by_copy_on_write_alone() -> Result<(), Diagnostics> {
    const REWRITES: &str = "'alluvium.upsert' = 'copy-on-write'";
    let case = |properties: &str| {
        format!(
            "CREATE STREAMING TABLE t (PRIMARY KEY (order_id)) TBLPROPERTIES ({properties});
             CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(orders_raw) KEYS (order_id) SEQUENCE BY kafka_offset"
        )
    };
    let flow = only(&case(&format!("{REWRITES}, 'delta.enableDeletionVectors' = 'false'"))).await?;
    assert_eq!(flow.upsert.mode, UpsertMode::CopyOnWrite);
    assert_eq!(
        flow.definition.table.properties.get("delta.enableDeletionVectors").map(String::as_str),
        Some("false"),
        "the table says so, too"
    );
    for (properties, said) in [
        ("'delta.enableDeletionVectors' = 'false'".to_owned(), "add 'alluvium.upsert' = 'copy-on-write'"),
        (format!("{REWRITES}, 'delta.enableDeletionVectors' = 'true'"), "is for readers without deletion vectors"),
        (format!("{REWRITES}, 'delta.appendOnly' = 'true'"), "add rows by INSERT INTO"),
    ] {
        let shown = refused(&[&case(&properties)]).await;
        assert!(shown.contains(said), "{properties}:\n{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_without_query_gives_all_columns_and_no_hidden_ones() -> Result<(), Diagnostics> {
    let flow = only(
        "CREATE STREAMING TABLE t (PRIMARY KEY (order_id));
         CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(orders_raw) KEYS (order_id) SEQUENCE BY kafka_offset",
    )
    .await?;
    assert_eq!(
        columns(&flow.table_schema),
        "order_id BIGINT NOT NULL, customer_id BIGINT, email STRING, amount DECIMAL(18,2), status STRING, \
         updated_at TIMESTAMP, items ARRAY<STRUCT<sku: STRING, n: INT>>, rating DOUBLE, kafka_offset BIGINT, \
         event_time TIMESTAMP, cents BIGINT"
    );
    assert_eq!(flow.definition.table.columns.len(), 11);
    Ok(())
}

#[tokio::test]
async fn a_table_as_query_is_a_flow_of_its_name() -> Result<(), Diagnostics> {
    let flow = only(
        "\n\nCREATE STREAMING TABLE paid AS SELECT order_id AS id, upper(email) AS email, sha256(status) AS hash
         FROM STREAM orders_raw AS o WHERE o.status = 'PAID'",
    )
    .await?;
    assert_eq!(columns(&flow.table_schema), "id BIGINT, email STRING, hash BINARY");
    let version = &flow.definition.flow;
    assert_eq!((version.flow.as_str(), version.kind, version.line), ("paid", FlowKind::Append, 3));
    assert_eq!(version.table.to_string(), "default.paid");
    Ok(())
}

#[tokio::test]
async fn lookups_are_listed_and_planned_against_their_columns() -> Result<(), Diagnostics> {
    let flow = only(
        "CREATE STREAMING TABLE t AS
         WITH d AS (SELECT code, max(n) AS n FROM dim.countries GROUP BY code)
         SELECT o.order_id, c.country, d.n FROM STREAM(orders_raw) o
         LEFT JOIN dim.customers c ON c.customer_id = o.customer_id
         LEFT JOIN d ON d.code = c.country
         WHERE NOT EXISTS (SELECT 1 FROM dim.customers x WHERE x.customer_id = o.order_id)",
    )
    .await?;
    let lookups: Vec<String> = flow.lookups.iter().map(ToString::to_string).collect();
    assert_eq!(lookups, ["dim.countries", "dim.customers"]);
    assert_eq!(columns(&flow.table_schema), "order_id BIGINT, country STRING, n BIGINT");
    Ok(())
}

#[tokio::test]
async fn timestamps_in_casts_mean_what_they_mean_in_columns() -> Result<(), Diagnostics> {
    let flow = only(
        "CREATE STREAMING TABLE t AS SELECT CAST(status AS TIMESTAMP) AS a, CAST(status AS TIMESTAMP_NTZ) AS b,
         CAST(status AS STRING) AS c, CAST(NULL AS MAP<STRING, INT>) AS d FROM STREAM(orders_raw)",
    )
    .await?;
    assert_eq!(columns(&flow.table_schema), "a TIMESTAMP, b TIMESTAMP_NTZ, c STRING, d MAP<STRING, INT>");
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(flow.table_schema.field(0).data_type(), &instant);
    Ok(())
}

#[tokio::test]
async fn what_loses_nothing_is_widened() -> Result<(), Diagnostics> {
    let flow = only(
        "CREATE STREAMING TABLE t (id DECIMAL(20,0), cents DECIMAL(30,5), n BIGINT, s STRING);
         CREATE FLOW f AS INSERT INTO t BY NAME
         SELECT order_id AS id, amount AS cents, CAST(cents AS INT) AS n, concat(status, '!') AS s FROM STREAM(orders_raw)",
    )
    .await?;
    assert_eq!(columns(&flow.table_schema), "id DECIMAL(20,0), cents DECIMAL(30,5), n BIGINT, s STRING");
    Ok(())
}

#[tokio::test]
async fn the_longest_chain_that_is_taken_is_planned() -> Result<(), Diagnostics> {
    let chain = " + 1".repeat(240);
    let flow =
        only(&format!("CREATE STREAMING TABLE t AS SELECT order_id{chain} AS id FROM STREAM(orders_raw)")).await?;
    assert_eq!(columns(&flow.table_schema), "id BIGINT");
    Ok(())
}

#[tokio::test]
async fn definitions_of_the_catalog_go_the_way_of_a_file() -> Result<(), Diagnostics> {
    let from_file = only(ORDERS).await?;
    let shop = Arc::new(SourceText::new("shop.sql", SHOP));
    let internal = |error: alluvium_catalog::Error| {
        Diagnostics::from(crate::diagnostic::Diagnostic::new("", &shop, 0..0, error.chain()))
    };
    let definitions = compiler(Definitions::default()).map_err(internal)?.definitions(&[Arc::clone(&shop)])?;
    assert_eq!((definitions.connections.len(), definitions.sources.len(), definitions.tables.len()), (1, 1, 3));
    let file = Arc::new(SourceText::new("orders.sql", ORDERS));
    let from_catalog = compiler(definitions).map_err(internal)?.compile(&[file]).await?;
    assert_eq!(from_catalog.flows[0].definition, from_file.definition);
    assert_eq!(from_catalog.flows[0].source_schema, from_file.source_schema);
    assert_eq!(from_catalog.flows[0].table_schema, from_file.table_schema);
    Ok(())
}

#[tokio::test]
async fn the_hash_follows_the_meaning_and_not_the_layout() -> Result<(), Diagnostics> {
    let hash = |flow: &Flow| flow.definition.flow.sql_hash.clone();
    let first = only(ORDERS).await?;
    assert_eq!(hash(&first).len(), 64);
    let spaced = ORDERS.replace("KEYS", "-- the key\n  KEYS").replace("CREATE FLOW", "create  or replace flow");
    assert_eq!(hash(&first), hash(&*only(&spaced).await?));
    assert_ne!(hash(&first), hash(&*only(&ORDERS.replace("'DELETED'", "'GONE'")).await?));
    let elsewhere = SHOP.replace("localhost:9092", "kafka:9092");
    assert_eq!(hash(&first), hash(&compile(&[&elsewhere, ORDERS]).await?.flows[0]));
    let other_source = SHOP.replace("'shop.orders'", "'shop.orders2'");
    assert_ne!(hash(&first), hash(&compile(&[&other_source, ORDERS]).await?.flows[0]));
    Ok(())
}

#[tokio::test]
async fn slips_in_sources_and_tables() {
    let shown = refused(&[
            "CREATE SOURCE s (id UUID, id BIGINT, k INT METADATA FROM 'key', x INT METADATA FROM 'ofset', _alluvium_offset INT)
             WITH ('connection' = 'shop', 'topic' = 't')",
            "CREATE SOURCE s (id BIGINT, x AS upper(nam), y AS sum(id)) WITH ('connection' = 'shop', 'topic' = 't')",
            "CREATE SOURCE s (id BIGINT, x AS uper(id)) WITH ('connection' = 'shop', 'topic' = 't')",
            "CREATE SOURCE s (id BIGINT, x AS now()) WITH ('connection' = 'shop', 'topic' = 't', 'key.fields' = 'di')",
            "CREATE SOURCE s (x AS 1) WITH ('connection' = 'shop', 'topic' = 't')",
            "CREATE SOURCE orders_raw (id BIGINT) WITH ('connection' = 'shop', 'topic' = 't')",
            "CREATE CONNECTION shop2 TYPE kinesis WITH ('bootstrap.servers' = 'a:1', 'sasl.password' = 'hunter2')",
            "CREATE STREAMING TABLE `1st` (id BIGINT)",
            "CREATE STREAMING TABLE a.b.c (id BIGINT)",
            "CREATE STREAMING TABLE t (id BIGINT, ID INT, `a b` INT, PRIMARY KEY (id, idd), PRIMARY KEY (id))",
            "CREATE STREAMING TABLE t (id BIGINT, ID INT, `a b` INT)",
            "CREATE STREAMING TABLE t (id BIGINT, r DOUBLE NOT NULL, PRIMARY KEY (id, r, x, id))",
            "CREATE STREAMING TABLE t (id BIGINT, r DOUBLE) PARTITIONED BY (id, r)",
            "CREATE STREAMING TABLE t (id BIGINT, d DATE) PARTITIONED BY (dd)",
            "CREATE STREAMING TABLE t (a BIGINT, b DOUBLE, c STRING, d DATE, e TIMESTAMP) CLUSTER BY (a, b, c, d, e)",
            "CREATE STREAMING TABLE t (a BIGINT, b BOOLEAN, c BINARY, d ARRAY<INT>, e STRUCT<x: INT>) CLUSTER BY (b, c, d, e)",
            "CREATE STREAMING TABLE t (id BIGINT, day DATE) PARTITIONED BY (day) CLUSTER BY (id)",
            "CREATE STREAMING TABLE t (id BIGINT) CLUSTER BY (id, idd, id, _alluvium_offset)",
            "CREATE STREAMING TABLE t (a BIGINT, b BIGINT, c BIGINT) CLUSTER BY (b, c) TBLPROPERTIES ('delta.dataSkippingNumIndexedCols' = '2')",
            "CREATE STREAMING TABLE t (a BIGINT, b BIGINT) CLUSTER BY (b, a) TBLPROPERTIES ('delta.dataSkippingStatsColumns' = 'a')",
            "CREATE STREAMING TABLE t (id BIGINT) LOCATION 'ftp://x/y' TBLPROPERTIES ('alluvium.upsert' = 'copy')",
            "CREATE STREAMING TABLE silver.orders (id BIGINT)",
            "SELECT 1; SHOW FLOWS",
            "CREATE SOURCE s (id BIGINT) WITH ('connection' = 'shp', 'topic' = 't'); CREATE STREAMING TABLE t AS SELECT id FROM STREAM(s)",
            "CREATE SOURCE s (id BIGINT) WITH ('connection' = 'shop', 'topic' = 't', 'error-handling.mode' = 'log',
             'error-handling.log.target' = 'bronze.events')",
        ]).await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn what_says_how_rows_are_superseded_is_refused_where_rows_are_only_added() -> Result<(), Diagnostics> {
    let table = |properties: &str| {
        format!(
            "CREATE STREAMING TABLE t (order_id BIGINT NOT NULL, status STRING, PRIMARY KEY (order_id) NOT ENFORCED)
TBLPROPERTIES ({properties});"
        )
    };
    let add = "CREATE FLOW f AS INSERT INTO t BY NAME SELECT order_id, status FROM STREAM(orders_raw);";
    let upsert = "CREATE FLOW g AS AUTO CDC INTO t FROM STREAM(orders_raw) KEYS (order_id) SEQUENCE BY kafka_offset
                  COLUMNS (order_id, status);";
    let each = [
        table("'alluvium.upsert' = 'copy-on-write'"),
        table("'alluvium.upsert.rewrite.max' = '1 MB', 'alluvium.upsert.rewrite.policy' = 'halt'"),
        table("'alluvium.tombstone.retention' = '1 day', 'delta.checkpointInterval' = '10'"),
    ];
    let added: Vec<String> = each.iter().map(|table| format!("{table}\n{add}")).collect();
    let created = "CREATE STREAMING TABLE t TBLPROPERTIES ('alluvium.upsert' = 'merge-on-read')
AS SELECT order_id FROM STREAM(orders_raw)";
    let mut cases: Vec<&str> = added.iter().map(String::as_str).collect();
    cases.push(created);
    insta::assert_snapshot!(refused(&cases).await);
    for table in &each {
        assert_eq!(compile(&[SHOP, table, upsert]).await?.flows.len(), 1, "{table}");
        assert_eq!(compile(&[SHOP, table]).await?.flows.len(), 0, "{table}");
        // With a flow that supersedes rows they are read; that there are two flows is another matter.
        let both = refused(&[&[table.as_str(), add, upsert].concat()]).await;
        assert!(both.contains("AL0111") && !both.contains("AL0201"), "{both}");
    }
    Ok(())
}

#[tokio::test]
async fn tables_lie_apart() {
    let log = |target: &str| {
        format!(
            "CREATE SOURCE s (id BIGINT) WITH ('connection' = 'shop', 'topic' = 't', 'error-handling.mode' = 'log',
             'error-handling.log.target' = '{target}');"
        )
    };
    let shown = refused(&[
            "CREATE STREAMING TABLE a (id BIGINT) LOCATION 's3://lake/a'; CREATE STREAMING TABLE b (id BIGINT) LOCATION 's3a://lake/a/'",
            "CREATE STREAMING TABLE a (id BIGINT) LOCATION 's3://lake/a/b'; CREATE STREAMING TABLE b (id BIGINT) LOCATION 's3://lake/a'",
            "CREATE STREAMING TABLE a (id BIGINT) LOCATION 'memory:///lake/default/b'; CREATE STREAMING TABLE b (id BIGINT)",
            "CREATE STREAMING TABLE b (id BIGINT); CREATE STREAMING TABLE a (id BIGINT) LOCATION 'memory:///lake//default/b/c/'",
            "CREATE STREAMING TABLE a (id BIGINT) LOCATION 's3://lake/files/today'",
            "CREATE STREAMING TABLE a (id BIGINT) LOCATION 's3://lake'",
            "CREATE STREAMING TABLE ref.files (id BIGINT)",
            "CREATE STREAMING TABLE ops.rejected (id BIGINT)",
            "CREATE STREAMING TABLE a (id BIGINT) LOCATION 's3://lake/ab'; CREATE STREAMING TABLE b (id BIGINT) LOCATION 's3://lake/a'",
            &format!("{} CREATE STREAMING TABLE a (id BIGINT) LOCATION 'memory:///lake/ops/late'", log("ops.late")),
            &log("ref.files"),
            &log("ops.rejected"),
        ]).await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn flows_share_no_consumer_group() -> Result<(), Diagnostics> {
    let source = |name: &str, topic: &str, group: &str| {
        format!("CREATE SOURCE {name} (id BIGINT) WITH ('connection' = 'shop', 'topic' = '{topic}'{group});")
    };
    let flow = |name: &str, source: &str| format!("CREATE STREAMING TABLE {name} AS SELECT id FROM STREAM({source});");
    let group = ", 'group.id' = 'g'";
    let one_source = [source("s", "t", group), flow("a", "s"), flow("b", "s")].concat();
    let two_sources = [source("s", "t", group), source("r", "t", group), flow("a", "s"), flow("b", "r")].concat();
    insta::assert_snapshot!(refused(&[&one_source, &two_sources]).await);
    let two_topics = [source("s", "t", group), source("r", "u", group), flow("a", "s"), flow("b", "r")].concat();
    let unnamed = [source("s", "t", ""), flow("a", "s"), flow("b", "s")].concat();
    for case in [&two_topics, &unnamed] {
        assert_eq!(compile(&[SHOP, case]).await?.flows.len(), 2);
    }
    Ok(())
}

#[tokio::test]
async fn schemas_of_the_session_are_no_place_for_tables() {
    let shown = refused(&[
        "CREATE STREAMING TABLE system.commits (id BIGINT)",
        "CREATE STREAMING TABLE Information_Schema.t AS SELECT order_id FROM STREAM(orders_raw)",
        "CREATE SOURCE s (id BIGINT) WITH ('connection' = 'shop', 'topic' = 't', 'error-handling.mode' = 'log',
         'error-handling.log.target' = 'system.rejects')",
    ])
    .await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn columns_that_no_table_can_have() {
    let shown = refused(&[
        "CREATE SOURCE s (id BIGINT, Id BIGINT, ID AS id + 1) WITH ('connection' = 'shop', 'topic' = 't')",
        "CREATE STREAMING TABLE t (a STRUCT<x: INT, X: INT>)",
        "CREATE STREAMING TABLE t AS SELECT order_id AS id, customer_id AS ID FROM STREAM(orders_raw)",
        "CREATE STREAMING TABLE t AS SELECT order_id, status AS _alluvium_offset, email AS _Alluvium_x FROM STREAM(orders_raw)",
        "CREATE STREAMING TABLE t AS SELECT order_id, named_struct('a', 1, 'A', 2) AS s FROM STREAM(orders_raw)",
        "CREATE STREAMING TABLE t PARTITIONED BY (order_id, status) AS SELECT order_id, status FROM STREAM(orders_raw)",
        "CREATE STREAMING TABLE t PARTITIONED BY (items, rating) AS SELECT order_id, items, rating FROM STREAM(orders_raw)",
        "CREATE STREAMING TABLE t PARTITIONED BY (status, \"status\") AS SELECT order_id, status FROM STREAM(orders_raw)",
        "CREATE STREAMING TABLE t (id BIGINT, d DATE) PARTITIONED BY (d, `d`)",
        "CREATE STREAMING TABLE t (id BIGINT, m MAP<STRING, INT>) PARTITIONED BY (m)",
        "CREATE STREAMING TABLE t (PRIMARY KEY (id)) AS SELECT order_id FROM STREAM(orders_raw)",
        "CREATE STREAMING TABLE t (PRIMARY KEY (rating)) AS SELECT order_id, rating FROM STREAM(orders_raw)",
    ])
    .await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_table_of_another_dialect_in_a_file_is_told_what_tables_are_called_here() {
    for (statement, hint) in [
        ("CREATE TABLE x (a INT)", "write CREATE STREAMING TABLE"),
        ("CREATE TABLE x AS SELECT 1 AS a", "write CREATE STREAMING TABLE"),
        ("SELECT 1", "ask questions in alluvium sql"),
    ] {
        let shown = refused(&[statement]).await;
        assert!(shown.contains("AL0005") && shown.contains(&format!("help: {hint}\n")), "{statement}: {shown}");
    }
}

#[tokio::test]
async fn slips_in_queries() {
    let shown = refused(&[
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, statuss AS status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, Status FROM STREAM(orders_raw) WHERE o.status = 'a'",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, uper(status) AS status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, upper(items) AS status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.event BY NAME SELECT order_id, status FROM STREAM(orders)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM orders_raw",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT 1 AS order_id, 'x' AS status",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT a.order_id, b.status FROM STREAM(orders_raw) a JOIN STREAM(orders_raw) b ON a.order_id = b.order_id",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) JOIN dim.custmers c USING (customer_id)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, country AS status FROM STREAM(orders_raw) JOIN dim.customers VERSION AS OF 3 c USING (customer_id)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, country AS status FROM STREAM(orders_raw) RIGHT JOIN dim.customers c USING (customer_id)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, country AS status FROM dim.customers c LEFT JOIN STREAM(orders_raw) USING (customer_id)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, country AS status FROM dim.customers c FULL JOIN STREAM(orders_raw) USING (customer_id)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT customer_id AS order_id, country AS status FROM dim.customers c WHERE EXISTS (SELECT 1 FROM STREAM(orders_raw) o WHERE o.customer_id = c.customer_id)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT customer_id, status FROM STREAM(orders_raw) o JOIN dim.customers c ON true",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT _alluvium_offset AS order_id, status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw), generate_series(1, 2)",
        ]).await;
    insta::assert_snapshot!(shown);
}

/// DataFusion's planner drops them: each record would land, whatever they say.
#[tokio::test]
async fn clauses_that_nothing_reads_are_refused() {
    let append = |rest: &str| {
        format!(
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) {rest}"
        )
    };
    let lookup = |rest: &str| append(&format!("JOIN dim.customers {rest} USING (customer_id)"));
    for (case, clause) in [
        (append("PREWHERE amount > 0"), "PREWHERE"),
        (append("TABLESAMPLE (10 PERCENT)"), "TABLESAMPLE"),
        (append("START WITH order_id = 1 CONNECT BY PRIOR order_id = order_id"), "START WITH"),
        (lookup("TABLESAMPLE (10 PERCENT)"), "TABLESAMPLE"),
        (lookup("PARTITION (p0)"), "PARTITION of a table"),
        (append("WHERE abs(order_id) FILTER (WHERE order_id > 1) > 0"), "FILTER of a function of one row"),
        (ORDERS.replace("STREAM(orders_raw))", "STREAM(orders_raw) PREWHERE amount > 0)"), "PREWHERE"),
        (
            ORDERS.replace("status = 'DELETED'", "upper(DISTINCT status) = 'DELETED'"),
            "DISTINCT in a function of one row",
        ),
        (
            ORDERS.replace("struct(updated_at", "struct(abs(order_id) FILTER (WHERE order_id > 1)"),
            "FILTER of a function of one row",
        ),
    ] {
        let shown = refused(&[&case]).await;
        assert!(shown.contains(&format!("{clause} is not supported yet")), "{case}: {shown}");
    }
}

#[tokio::test]
async fn what_could_only_fail_with_every_record() {
    let delete = ORDERS.replace("status = 'DELETED'", "status = 1");
    let literal = ORDERS.replace("status = 'DELETED'", "amount < 'x'");
    let sequence = ORDERS.replace("struct(updated_at", "struct(coalesce(updated_at, TIMESTAMP '2026-13-01')");
    let shown = refused(&[
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) WHERE order_id = 'abc'",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) WHERE updated_at > '2026-99-99'",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) WHERE status = 3",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) WHERE email IN ('a', 1)",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) WHERE updated_at BETWEEN email AND '2026-01-01'",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) WHERE upper(email) < rating",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, CASE email WHEN 1 THEN 'a' END AS status FROM STREAM(orders_raw)",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) o JOIN dim.countries c ON c.code = o.customer_id",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT CAST('abc' AS INT) AS order_id, status FROM STREAM(orders_raw)",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, CASE WHEN rating > 1 THEN CAST(CAST(300 AS TINYINT) AS STRING) END AS status FROM STREAM(orders_raw)",
        "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT 1 / 0 AS order_id, status FROM STREAM(orders_raw)",
        "CREATE SOURCE s (id BIGINT, x AS CAST('abc' AS INT), y AS id + 1) WITH ('connection' = 'shop', 'topic' = 't')",
        "CREATE SOURCE s (id BIGINT, name STRING, y AS name = 3) WITH ('connection' = 'shop', 'topic' = 't')",
        &delete,
        &literal,
        &sequence,
    ])
    .await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn what_has_a_value_is_taken() -> Result<(), Diagnostics> {
    for condition in [
        "order_id = '5' AND updated_at > '2026-01-31' AND amount <> '1.50'",
        "updated_at BETWEEN '2026-01-31T08:30:00Z' AND '2026-02-01'",
        "status = CAST(order_id AS STRING) OR TRY_CAST(email AS BIGINT) = customer_id",
        "order_id IN ('1', '2') AND status IN ('3', email)",
        "TRY_CAST('abc' AS INT) IS NULL AND status = NULL",
        // What is asked for under a condition may never be asked for.
        "CASE WHEN rating = 0 THEN 1 / 0 ELSE 1 END = 1",
        "coalesce(order_id, 1 / 0) = 1",
    ] {
        let query = format!("SELECT order_id, status FROM STREAM(orders_raw) WHERE {condition}");
        let flow = only(&format!("CREATE FLOW f AS INSERT INTO bronze.events BY NAME {query}")).await?;
        assert_eq!(columns(&flow.table_schema), "order_id BIGINT, status STRING", "{condition}");
    }
    Ok(())
}

#[tokio::test]
async fn a_function_that_is_called_with_too_much_or_too_little_shows_how_it_is_called() {
    for call in ["upper(status, email)", "upper()"] {
        let query = format!("SELECT order_id, {call} AS status FROM STREAM(orders_raw)");
        let shown = refused(&[&format!("CREATE FLOW f AS INSERT INTO bronze.events BY NAME {query}")]).await;
        assert!(shown.contains("help: it is called as upper("), "{call}: {shown}");
        assert!(shown.contains("[orders.sql:1:69]"), "{call}: {shown}");
    }
}

#[tokio::test]
async fn the_keys_of_a_source_s_maps_are_strings() -> Result<(), Diagnostics> {
    let source = |data_type: &str| {
        format!("CREATE SOURCE s (id BIGINT, m {data_type}) WITH ('connection' = 'shop', 'topic' = 't');")
    };
    for (data_type, map) in [
        ("MAP<DECIMAL(5,2), INT>", "MAP<DECIMAL(5,2), INT>"),
        ("MAP<BIGINT, STRING>", "MAP<BIGINT, STRING>"),
        ("MAP<BINARY, INT>", "MAP<BINARY, INT>"),
        ("ARRAY<MAP<DATE, INT>>", "MAP<DATE, INT>"),
        ("STRUCT<a: INT, b: MAP<INT, INT>>", "MAP<INT, INT>"),
        ("MAP<STRING, MAP<INT, INT>>", "MAP<INT, INT>"),
    ] {
        let shown = refused(&[&source(data_type)]).await;
        // Lines are broken where they get long.
        let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = format!("a source cannot read {map}:");
        for said in ["AL0105", message.as_str(), "help: write MAP<STRING, ...>", "[orders.sql:1:31]"] {
            assert!(words.contains(said), "{data_type}: {said} is not in\n{shown}");
        }
        assert_eq!(shown.matches("AL0").count(), 1, "{shown}");
    }
    let taken = source("STRUCT<a: MAP<STRING, INT>, b: ARRAY<MAP<VARCHAR(5), DECIMAL(5,2)>>>");
    assert_eq!(compile(&[SHOP, &taken]).await?.flows.len(), 0);
    // What a table holds is made by a query, whatever the type of the keys.
    assert_eq!(compile(&[SHOP, "CREATE STREAMING TABLE t (id BIGINT, m MAP<INT, INT>)"]).await?.flows.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_column_that_is_refused_is_not_missed_as_well() {
    for (column, said) in [("k BIGINT METADATA FROM 'ofset'", "unknown metadata key"), ("id UUID", "type UUID")] {
        let source = format!("CREATE SOURCE s ({column}) WITH ('connection' = 'shop', 'topic' = 't')");
        let shown = refused(&[&source]).await;
        assert!(shown.contains(said), "{column}: {shown}");
        assert!(!shown.contains("needs a column that is not computed"), "{column}: {shown}");
    }
}

#[tokio::test]
async fn what_would_mean_per_batch() {
    let shown = refused(&[
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT count(*) AS order_id, status FROM STREAM(orders_raw) GROUP BY status",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT max(order_id) AS order_id, 'x' AS status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT row_number() OVER (ORDER BY order_id) AS order_id, status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT DISTINCT order_id, status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) ORDER BY order_id LIMIT 5",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, status FROM STREAM(orders_raw) UNION ALL SELECT n, code FROM dim.countries",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME WITH s AS (SELECT * FROM STREAM(orders_raw)) SELECT order_id, status FROM (SELECT DISTINCT order_id, status FROM s)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, CAST(now() AS STRING) AS status FROM STREAM(orders_raw) WHERE updated_at < CURRENT_TIMESTAMP",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, CAST(\"now\"() AS STRING) AS status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, uuid() AS status FROM STREAM(orders_raw) WHERE RANDOM() < 0.5",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, CAST(today() AS STRING) AS status FROM STREAM(orders_raw)",
        ]).await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn slips_between_query_and_table() {
    let shown = refused(&[
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO silver.orders BY NAME SELECT customer_id, amount, updated_at, statu FROM (SELECT *, status AS statu FROM STREAM(orders_raw))",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, upper(status) FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT order_id, order_id AS status, status FROM STREAM(orders_raw)",
            "CREATE FLOW f AS INSERT INTO bronze.events BY NAME SELECT status AS order_id, order_id AS status FROM STREAM(orders_raw)",
            "CREATE STREAMING TABLE t (a DECIMAL(18,2), b INT, c FLOAT, d TIMESTAMP, e TIMESTAMP, f STRUCT<x: INT>);
             CREATE FLOW f AS INSERT INTO t BY NAME SELECT amount * 2 AS a, order_id AS b, rating AS c,
             to_timestamp(status) AS d, CAST(status AS TIMESTAMP_NTZ) AS e, items[1] AS f FROM STREAM(orders_raw)",
            "CREATE STREAMING TABLE t AS SELECT upper(status), to_timestamp(status) AS ts, CAST(order_id AS BIGINT UNSIGNED) AS u FROM STREAM(orders_raw)",
            "CREATE STREAMING TABLE t PARTITIONED BY (day) AS SELECT order_id FROM STREAM(orders_raw)",
            "CREATE STREAMING TABLE t CLUSTER BY (items, day) AS SELECT order_id, items FROM STREAM(orders_raw)",
        ]).await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn slips_in_change_flows() {
    let keys = ORDERS.replace("KEYS (order_id)", "KEYS (order_di)");
    let other = ORDERS.replace("KEYS (order_id)", "KEYS (order_id, customer_id)");
    let unordered = ORDERS.replace("SEQUENCE BY struct(updated_at, kafka_offset)", "");
    let misspelt = ORDERS.replace("struct(updated_at, kafka_offset)", "struct(update_at, kafka_offset)");
    let nested = ORDERS.replace("kafka_offset FROM", "items FROM").replace("struct(updated_at, kafka_offset)", "items");
    let choice = ORDERS.replace("EXCEPT (kafka_offset)", "EXCEPT (kafka_ofset, order_id)");
    let delete = ORDERS.replace("status = 'DELETED'", "amount + 1");
    let lookup = ORDERS.replace("status = 'DELETED'", "order_id IN (SELECT customer_id FROM dim.customers)");
    let aggregate = ORDERS.replace("struct(updated_at, kafka_offset)", "max(updated_at)");
    let stored = ORDERS.replace("COLUMNS * EXCEPT (kafka_offset)", "");
    let keyless = ORDERS
        .replace("silver.orders", "bronze.events")
        .replace("COLUMNS * EXCEPT (kafka_offset)", "COLUMNS (order_id, status)");
    let nullable = "CREATE STREAMING TABLE t (PRIMARY KEY (id));
        CREATE FLOW f AS AUTO CDC INTO t FROM (SELECT customer_id AS id, kafka_offset FROM STREAM(orders_raw)) KEYS (id) SEQUENCE BY kafka_offset";
    let float = "CREATE STREAMING TABLE t (PRIMARY KEY (rating));
        CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(orders_raw) KEYS (rating) SEQUENCE BY rating";
    let twice = format!("{ORDERS};\n{}", ORDERS.replace("CREATE FLOW f", "CREATE FLOW g"));
    let same = format!("{ORDERS};\n{ORDERS}");
    let cases = [
        &keys, &other, &unordered, &misspelt, &nested, &choice, &delete, &lookup, &aggregate, &stored, &keyless,
        nullable, float, &twice, &same,
    ];
    let shown = refused(&cases).await;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn all_errors_of_all_files_are_reported_in_order() {
    let diagnostics = compile(&[
        "CREATE SOURCE s (id UUID) WITH ('connection' = 'x')",
        "CREATE FLOW f AS INSERT INTO t BY NAME SELECT a FROM STREAM(s); CREATE STREAMING TABLE t (id BIGINT, id INT)",
    ])
    .await;
    let shown = diagnostics.err().map(|diagnostics| diagnostics.to_string()).unwrap_or_default();
    insta::assert_snapshot!(shown);
}
