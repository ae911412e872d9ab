//! The pipeline of the exactly-once tests: one topic, an append flow and an upsert flow, one dead-letter table for both.

use super::topic::Topic;

/// The append table.
pub(crate) const JOURNAL: &str = "lake.journal";
/// The upsert table.
pub(crate) const STATE: &str = "lake.state";
/// The dead letters of both flows.
pub(crate) const REJECTS: &str = "ops.rejects";

/// How the pipeline differs from test to test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variant {
    /// Further options of the connection, as SQL: `, 'key' = 'value'`.
    pub(crate) connection: String,
    /// `commit.interval` of both flows.
    pub(crate) interval: Option<&'static str>,
    /// `commit.rows` of both flows.
    pub(crate) rows: Option<usize>,
    /// What follows the columns of the upsert table.
    pub(crate) clauses: &'static str,
}

/// Returns the SQL file over `topic`.
pub(crate) fn both_flows(bootstrap: &str, topic: &Topic, variant: &Variant) -> String {
    let interval = variant.interval.unwrap_or("300 ms");
    let rows = variant.rows.unwrap_or(10_000);
    let batch = format!("WITH ('commit.interval' = '{interval}', 'commit.rows' = '{rows}')");
    let (topic, connection, clauses) = (topic.name(), &variant.connection, variant.clauses);
    format!(
        "CREATE CONNECTION broker TYPE kafka WITH ('bootstrap.servers' = '{bootstrap}'{connection});

CREATE SOURCE events (
  id BIGINT NOT NULL, seq BIGINT NOT NULL, op STRING, note STRING,
  part INT METADATA FROM 'partition', pos BIGINT METADATA FROM 'offset'
) WITH ('connection' = 'broker', 'topic' = '{topic}', 'scan.startup.mode' = 'earliest-offset',
        'error-handling.mode' = 'log', 'error-handling.log.target' = '{REJECTS}');

CREATE STREAMING TABLE {JOURNAL} (id BIGINT NOT NULL, seq BIGINT NOT NULL, op STRING, note STRING, part INT, pos BIGINT);
CREATE FLOW journal {batch} AS INSERT INTO {JOURNAL} BY NAME
SELECT id, seq, op, note, part, pos FROM STREAM(events) WHERE op <> 'skip';

CREATE STREAMING TABLE {STATE} (
  id BIGINT NOT NULL, seq BIGINT, note STRING, part INT, pos BIGINT, PRIMARY KEY (id) NOT ENFORCED
) {clauses};
CREATE FLOW state {batch} AS AUTO CDC INTO {STATE}
FROM (SELECT id, seq, op, note, part, pos FROM STREAM(events) WHERE op <> 'skip')
KEYS (id) APPLY AS DELETE WHEN op = 'd' SEQUENCE BY seq COLUMNS * EXCEPT (op) STORED AS SCD TYPE 1;
"
    )
}
