//! Commits and what they read, as rows.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::definitions::{from_count, from_json, from_text, table_name, to_count, to_json};
use super::failure::Cause;
use crate::{Commit, Effort, Fate, Input, Lineage, Name, StageMillis, TableName, Timestamp};

type Result<T> = std::result::Result<T, Cause>;

/// Writes a commit and its inputs, unless they are there; those of another write at their place give way.
pub(super) async fn put(connection: &mut SqliteConnection, commit: &Commit) -> Result<()> {
    const PUT: &str = "INSERT INTO commits (
            location, delta_version, schema_name, table_name, committed_at, lineage_format, flow, sql_hash,
            run_id, write_id, engine_version, definition_json,
            records_in, records_applied, records_merged, records_filtered, records_dropped, records_quarantined,
            records_dead_lettered, rows_inserted, rows_updated, rows_deleted,
            fetch_ms, decode_ms, transform_ms, write_ms,
            files_added, files_removed, bytes_added, vectors_written, files_touched, batch_bytes, bytes_written,
            discarded_bytes)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
            ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34)
        ON CONFLICT (location, delta_version) DO NOTHING";

    drop_other(connection, commit).await?;
    let Commit { table, location, version, committed_at, lineage, .. } = commit;
    let definition =
        lineage.definition.as_ref().map(|definition| to_json("definition_json", definition)).transpose()?;
    let mut query = sqlx::query(PUT)
        .bind(location.to_string())
        .bind(from_count("delta_version", *version)?)
        .bind(table.schema())
        .bind(table.table())
        .bind(committed_at.0)
        .bind(i64::from(lineage.v))
        .bind(lineage.flow.as_str())
        .bind(&lineage.sql_hash)
        .bind(lineage.run.to_string())
        .bind(lineage.write_id.to_string())
        .bind(&lineage.engine)
        .bind(definition);
    for (column, count) in counts_of(commit) {
        query = query.bind(from_count(column, count)?);
    }
    let put = query.execute(&mut *connection).await?;
    if put.rows_affected() == 0 {
        return Ok(());
    }
    for (ordinal, input) in (0_i64..).zip(&lineage.inputs) {
        put_input(connection, commit, ordinal, input).await?;
    }
    Ok(())
}

/// Removes the commit of another write at the place and version of `commit`; its inputs go with it.
async fn drop_other(connection: &mut SqliteConnection, commit: &Commit) -> Result<()> {
    const DROP: &str = "DELETE FROM commits WHERE location = ?1 AND delta_version = ?2 AND write_id <> ?3";

    let query = sqlx::query(DROP).bind(commit.location.to_string());
    let query = query.bind(from_count("delta_version", commit.version)?).bind(commit.lineage.write_id.to_string());
    query.execute(connection).await?;
    Ok(())
}

/// Whose commits are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of<'a> {
    All,
    Table(&'a TableName),
    Flow(&'a Name),
}

impl Of<'_> {
    /// Returns the condition on commits, and what it binds from `?2` on.
    fn condition(&self) -> (&'static str, Vec<&str>) {
        match self {
            Self::All => ("TRUE", Vec::new()),
            Self::Table(table) => ("schema_name = ?2 AND table_name = ?3", vec![table.schema(), table.table()]),
            Self::Flow(flow) => ("flow = ?2", vec![flow.as_str()]),
        }
    }
}

/// Returns commits, newest first, at most `limit`.
pub(super) async fn newest(connection: &mut SqliteConnection, of: Of<'_>, limit: i64) -> Result<Vec<Commit>> {
    const NEWEST_FIRST: &str = "ORDER BY committed_at DESC, delta_version DESC, location LIMIT ?1";

    let (condition, bound) = of.condition();
    let commits = format!("SELECT * FROM commits WHERE {condition} {NEWEST_FIRST}");
    let inputs = format!(
        "SELECT inputs.* FROM commit_inputs AS inputs
         JOIN (SELECT location, delta_version FROM commits WHERE {condition} {NEWEST_FIRST}) AS newest
         ON inputs.location = newest.location AND inputs.delta_version = newest.delta_version
         ORDER BY inputs.location, inputs.delta_version, inputs.ordinal"
    );
    // Both texts are put together from constants; whatever is asked for is bound.
    let mut commits = sqlx::query_as(sqlx::AssertSqlSafe(commits)).bind(limit);
    let mut inputs = sqlx::query_as(sqlx::AssertSqlSafe(inputs)).bind(limit);
    for value in bound {
        commits = commits.bind(value.to_owned());
        inputs = inputs.bind(value.to_owned());
    }
    let commits: Vec<CommitRow> = commits.fetch_all(&mut *connection).await?;
    let inputs: Vec<InputRow> = inputs.fetch_all(&mut *connection).await?;
    let mut inputs_of: BTreeMap<(String, i64), Vec<Input>> = BTreeMap::new();
    for row in inputs {
        inputs_of.entry((row.location.clone(), row.delta_version)).or_default().push(row.into_input()?);
    }
    let commit = |row: CommitRow| {
        let inputs = inputs_of.remove(&(row.location.clone(), row.delta_version)).unwrap_or_default();
        row.into_commit(inputs)
    };
    commits.into_iter().map(commit).collect()
}

/// Returns the newest version of `table`, at the place where it is registered if it is.
pub(super) async fn last_version(connection: &mut SqliteConnection, table: &TableName) -> Result<Option<u64>> {
    const LAST: &str = "SELECT MAX(delta_version) FROM commits WHERE schema_name = ?1 AND table_name = ?2
        AND location = COALESCE(
            (SELECT datasets.location FROM datasets WHERE schema_name = ?1 AND table_name = ?2), commits.location)";

    let query = sqlx::query_scalar(LAST).bind(table.schema()).bind(table.table());
    let version: Option<i64> = query.fetch_one(connection).await?;
    version.map(|version| to_count("delta_version", version)).transpose()
}

/// Returns the numbers of a commit, in the order in which [`put`] names their columns.
fn counts_of(commit: &Commit) -> [(&'static str, u64); 22] {
    let Commit { files_added, files_removed, bytes_added, vectors_written, lineage, .. } = commit;
    let Lineage { fate, millis, effort, rows_inserted, rows_updated, rows_deleted, .. } = lineage;
    [
        ("records_in", fate.records_in),
        ("records_applied", fate.applied),
        ("records_merged", fate.merged),
        ("records_filtered", fate.filtered),
        ("records_dropped", fate.dropped),
        ("records_quarantined", fate.quarantined),
        ("records_dead_lettered", fate.dead_lettered),
        ("rows_inserted", *rows_inserted),
        ("rows_updated", *rows_updated),
        ("rows_deleted", *rows_deleted),
        ("fetch_ms", millis.fetch),
        ("decode_ms", millis.decode),
        ("transform_ms", millis.transform),
        ("write_ms", millis.write),
        ("files_added", *files_added),
        ("files_removed", *files_removed),
        ("bytes_added", *bytes_added),
        ("vectors_written", *vectors_written),
        ("files_touched", effort.files_touched),
        ("batch_bytes", effort.batch_bytes),
        ("bytes_written", effort.bytes_written),
        ("discarded_bytes", effort.discarded_bytes),
    ]
}

async fn put_input(connection: &mut SqliteConnection, commit: &Commit, ordinal: i64, input: &Input) -> Result<()> {
    const PUT_TOPIC: &str = "INSERT INTO commit_inputs
            (location, delta_version, ordinal, kind, cluster, topic, topic_id, ranges_json)
        VALUES (?1, ?2, ?3, 'kafka', ?4, ?5, ?6, ?7)";
    const PUT_TABLE: &str = "INSERT INTO commit_inputs
            (location, delta_version, ordinal, kind, input_schema, input_table, input_version)
        VALUES (?1, ?2, ?3, 'table', ?4, ?5, ?6)";
    const PUT_FILES: &str = "INSERT INTO commit_inputs
            (location, delta_version, ordinal, kind, input_schema, input_table)
        VALUES (?1, ?2, ?3, 'files', ?4, ?5)";

    let version = from_count("delta_version", commit.version)?;
    let query = match input {
        Input::Kafka { cluster, topic, topic_id, ranges } => {
            let query = sqlx::query(PUT_TOPIC).bind(commit.location.to_string()).bind(version).bind(ordinal);
            let query = query.bind(cluster.as_deref()).bind(topic.as_str()).bind(topic_id.as_deref());
            query.bind(to_json("ranges_json", ranges)?)
        }
        Input::Table { table, version: seen } => {
            let query = sqlx::query(PUT_TABLE).bind(commit.location.to_string()).bind(version).bind(ordinal);
            query.bind(table.schema()).bind(table.table()).bind(from_count("input_version", *seen)?)
        }
        Input::Files { dataset } => {
            let query = sqlx::query(PUT_FILES).bind(commit.location.to_string()).bind(version).bind(ordinal);
            query.bind(dataset.schema()).bind(dataset.table())
        }
    };
    query.execute(connection).await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct CommitRow {
    location: String,
    delta_version: i64,
    schema_name: String,
    table_name: String,
    committed_at: i64,
    lineage_format: i64,
    flow: String,
    sql_hash: String,
    run_id: String,
    write_id: String,
    engine_version: String,
    definition_json: Option<String>,
    records_in: i64,
    records_applied: i64,
    records_merged: i64,
    records_filtered: i64,
    records_dropped: i64,
    records_quarantined: i64,
    records_dead_lettered: i64,
    rows_inserted: i64,
    rows_updated: i64,
    rows_deleted: i64,
    fetch_ms: i64,
    decode_ms: i64,
    transform_ms: i64,
    write_ms: i64,
    files_added: i64,
    files_removed: i64,
    bytes_added: i64,
    vectors_written: i64,
    files_touched: i64,
    batch_bytes: i64,
    bytes_written: i64,
    discarded_bytes: i64,
}

impl CommitRow {
    fn into_commit(self, inputs: Vec<Input>) -> Result<Commit> {
        Ok(Commit {
            table: table_name(&self.schema_name, &self.table_name)?,
            version: to_count("delta_version", self.delta_version)?,
            committed_at: Timestamp(self.committed_at),
            files_added: to_count("files_added", self.files_added)?,
            files_removed: to_count("files_removed", self.files_removed)?,
            bytes_added: to_count("bytes_added", self.bytes_added)?,
            vectors_written: to_count("vectors_written", self.vectors_written)?,
            lineage: self.lineage(inputs)?,
            location: from_text("location", self.location)?,
        })
    }

    fn lineage(&self, inputs: Vec<Input>) -> Result<Lineage> {
        let definition = self.definition_json.as_deref();
        Ok(Lineage {
            v: self.lineage_format.try_into().map_err(|source| Cause::damaged("lineage_format", source))?,
            flow: from_text("flow", self.flow.clone())?,
            sql_hash: self.sql_hash.clone(),
            run: id("run_id", &self.run_id)?,
            write_id: id("write_id", &self.write_id)?,
            engine: self.engine_version.clone(),
            inputs,
            fate: self.fate()?,
            rows_inserted: to_count("rows_inserted", self.rows_inserted)?,
            rows_updated: to_count("rows_updated", self.rows_updated)?,
            rows_deleted: to_count("rows_deleted", self.rows_deleted)?,
            effort: self.effort()?,
            millis: self.millis()?,
            definition: definition.map(|definition| from_json("definition_json", definition)).transpose()?,
        })
    }

    fn fate(&self) -> Result<Fate> {
        Ok(Fate {
            records_in: to_count("records_in", self.records_in)?,
            applied: to_count("records_applied", self.records_applied)?,
            merged: to_count("records_merged", self.records_merged)?,
            filtered: to_count("records_filtered", self.records_filtered)?,
            dropped: to_count("records_dropped", self.records_dropped)?,
            quarantined: to_count("records_quarantined", self.records_quarantined)?,
            dead_lettered: to_count("records_dead_lettered", self.records_dead_lettered)?,
        })
    }

    fn effort(&self) -> Result<Effort> {
        Ok(Effort {
            files_touched: to_count("files_touched", self.files_touched)?,
            batch_bytes: to_count("batch_bytes", self.batch_bytes)?,
            bytes_written: to_count("bytes_written", self.bytes_written)?,
            discarded_bytes: to_count("discarded_bytes", self.discarded_bytes)?,
        })
    }

    fn millis(&self) -> Result<StageMillis> {
        Ok(StageMillis {
            fetch: to_count("fetch_ms", self.fetch_ms)?,
            decode: to_count("decode_ms", self.decode_ms)?,
            transform: to_count("transform_ms", self.transform_ms)?,
            write: to_count("write_ms", self.write_ms)?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct InputRow {
    location: String,
    delta_version: i64,
    kind: String,
    cluster: Option<String>,
    topic: Option<String>,
    topic_id: Option<String>,
    ranges_json: Option<String>,
    input_schema: Option<String>,
    input_table: Option<String>,
    input_version: Option<i64>,
}

impl InputRow {
    fn into_input(self) -> Result<Input> {
        match self.kind.as_str() {
            "kafka" => Ok(Input::Kafka {
                cluster: self.cluster,
                topic: from_text("topic", present("topic", self.topic)?)?,
                topic_id: self.topic_id,
                ranges: from_json("ranges_json", &present("ranges_json", self.ranges_json)?)?,
            }),
            "table" => Ok(Input::Table {
                table: table_name(
                    &present("input_schema", self.input_schema)?,
                    &present("input_table", self.input_table)?,
                )?,
                version: to_count("input_version", present("input_version", self.input_version)?)?,
            }),
            "files" => Ok(Input::Files {
                dataset: table_name(
                    &present("input_schema", self.input_schema)?,
                    &present("input_table", self.input_table)?,
                )?,
            }),
            kind => Err(Cause::damaged("kind", format!("'{kind}' is not a kind of input"))),
        }
    }
}

fn present<T>(column: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Cause::damaged(column, "it is NULL"))
}

pub(super) fn id(column: &'static str, text: &str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|source| Cause::damaged(column, source))
}
