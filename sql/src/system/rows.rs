//! The rows of each system table, from what the catalog store returns. Pure.

use alluvium_catalog::store::{FlowEntry, Run, places};
use alluvium_catalog::{
    Commit, Connection, Dataset, Fate, Input, Lineage, PartitionRange, Result, Source, StageMillis,
};
use arrow::array::RecordBatch;
use serde::Serialize;

use super::columns::{Columns, json};

/// `system.connections`. Options hold references to secrets, never secrets.
pub(super) fn connections(connections: &[Connection]) -> Result<RecordBatch> {
    Columns::new()
        .text("name", connections.iter().map(|connection| Some(connection.name.to_string())))
        .text("kind", connections.iter().map(|connection| Some(connection.kind.clone())))
        .text("options", connections.iter().map(|connection| json(&connection.options)))
        .finish()
}

/// `system.sources`.
pub(super) fn sources(sources: &[Source]) -> Result<RecordBatch> {
    Columns::new()
        .text("name", sources.iter().map(|source| Some(source.name.to_string())))
        .text("connection", sources.iter().map(|source| Some(source.connection.to_string())))
        .text("topic", sources.iter().map(|source| Some(source.topic.to_string())))
        .text("columns", sources.iter().map(|source| json(&source.columns)))
        .text("options", sources.iter().map(|source| json(&source.options)))
        .text("comment", sources.iter().map(|source| source.comment.clone()))
        .finish()
}

/// `system.datasets`.
pub(super) fn datasets(datasets: &[Dataset]) -> Result<RecordBatch> {
    let table = |dataset: &Dataset| dataset.table.clone();
    Columns::new()
        .text("schema", datasets.iter().map(|dataset| Some(dataset.name.schema().to_owned())))
        .text("name", datasets.iter().map(|dataset| Some(dataset.name.table().to_owned())))
        .text("kind", datasets.iter().map(|dataset| word(&dataset.kind)))
        .text("location", datasets.iter().map(|dataset| Some(dataset.location.to_string())))
        .text("owner", datasets.iter().map(|dataset| dataset.owner.clone()))
        .text("description", datasets.iter().map(description))
        .text("tags", datasets.iter().map(|dataset| json(&dataset.tags)))
        .text("columns", datasets.iter().map(|dataset| json(&table(dataset)?.columns)))
        .text("primary_key", datasets.iter().map(|dataset| Some(table(dataset)?.primary_key.join(", "))))
        .text("partitioned_by", datasets.iter().map(|dataset| Some(table(dataset)?.partitioned_by.join(", "))))
        .text("properties", datasets.iter().map(|dataset| json(&table(dataset)?.properties)))
        .finish()
}

/// What was registered says more than what was declared.
fn description(dataset: &Dataset) -> Option<String> {
    dataset.description.clone().or_else(|| dataset.table.as_ref()?.comment.clone())
}

/// `system.flows`: one row a version.
pub(super) fn flows(flows: &[FlowEntry]) -> Result<RecordBatch> {
    let lookups = |entry: &FlowEntry| entry.version.lookups.iter().map(ToString::to_string).collect::<Vec<_>>();
    Columns::new()
        .text("flow", flows.iter().map(|entry| Some(entry.version.flow.to_string())))
        .count("version", flows.iter().map(|entry| Some(entry.seq)))
        .text("kind", flows.iter().map(|entry| word(&entry.version.kind)))
        .text("source", flows.iter().map(|entry| Some(entry.version.source.to_string())))
        .text("table", flows.iter().map(|entry| Some(entry.version.table.to_string())))
        .text("lookups", flows.iter().map(|entry| Some(lookups(entry).join(", "))))
        .text("sql", flows.iter().map(|entry| Some(entry.version.sql.clone())))
        .text("sql_hash", flows.iter().map(|entry| Some(entry.version.sql_hash.clone())))
        .text("file", flows.iter().map(|entry| Some(entry.version.file.clone())))
        .count("line", flows.iter().map(|entry| Some(entry.version.line)))
        .finish()
}

/// `system.runs`.
pub(super) fn runs(runs: &[Run]) -> Result<RecordBatch> {
    Columns::new()
        .text("run", runs.iter().map(|run| Some(run.id.to_string())))
        .time("started_at", runs.iter().map(|run| Some(run.started_at)))
        .time("ended_at", runs.iter().map(|run| run.ended_at))
        .text("error", runs.iter().map(|run| run.error.clone()))
        .text("address", runs.iter().map(|run| run.address.map(|address| address.to_string())))
        .finish()
}

/// `system.commits`: fates and timings a column each, inputs as text and as JSON. `flows` tells the flows' versions.
pub(super) fn commits(commits: &[Commit], flows: &[FlowEntry]) -> Result<RecordBatch> {
    let places = places(flows);
    let place = |lineage: &Lineage| places.get(&(&lineage.flow, lineage.sql_hash.as_str())).copied();
    let fate = |get: fn(&Fate) -> u64| commits.iter().map(move |commit| Some(get(&commit.lineage.fate)));
    let millis = |get: fn(&StageMillis) -> u64| commits.iter().map(move |commit| Some(get(&commit.lineage.millis)));
    let count = |get: fn(&Commit) -> u64| commits.iter().map(move |commit| Some(get(commit)));
    Columns::new()
        .text("table", commits.iter().map(|commit| Some(commit.table.to_string())))
        .count("version", count(|commit| commit.version))
        .time("committed_at", commits.iter().map(|commit| Some(commit.committed_at)))
        .text("flow", commits.iter().map(|commit| Some(commit.lineage.flow.to_string())))
        .count("flow_version", commits.iter().map(|commit| place(&commit.lineage)))
        .text("sql_hash", commits.iter().map(|commit| Some(commit.lineage.sql_hash.clone())))
        .text("run", commits.iter().map(|commit| Some(commit.lineage.run.to_string())))
        .text("inputs", commits.iter().map(|commit| Some(commit.lineage.inputs_text())))
        .text("inputs_json", commits.iter().map(|commit| json(&commit.lineage.inputs)))
        .count("records_in", fate(|fate| fate.records_in))
        .count("applied", fate(|fate| fate.applied))
        .count("merged", fate(|fate| fate.merged))
        .count("filtered", fate(|fate| fate.filtered))
        .count("dropped", fate(|fate| fate.dropped))
        .count("quarantined", fate(|fate| fate.quarantined))
        .count("dead_lettered", fate(|fate| fate.dead_lettered))
        .truth("balanced", commits.iter().map(|commit| Some(commit.lineage.fate.is_balanced())))
        .count("rows_inserted", count(|commit| commit.lineage.rows_inserted))
        .count("rows_updated", count(|commit| commit.lineage.rows_updated))
        .count("rows_deleted", count(|commit| commit.lineage.rows_deleted))
        .count("files_added", count(|commit| commit.files_added))
        .count("files_removed", count(|commit| commit.files_removed))
        .count("bytes_added", count(|commit| commit.bytes_added))
        .count("vectors_written", count(|commit| commit.vectors_written))
        .count("files_touched", count(|commit| commit.lineage.effort.files_touched))
        .count("batch_bytes", count(|commit| commit.lineage.effort.batch_bytes))
        .count("discarded_bytes", count(|commit| commit.lineage.effort.discarded_bytes))
        .count("bytes_written", count(|commit| commit.lineage.effort.bytes_written))
        .ratio("amplification", commits.iter().map(|commit| commit.lineage.effort.amplification()))
        .count("fetch_ms", millis(|millis| millis.fetch))
        .count("decode_ms", millis(|millis| millis.decode))
        .count("transform_ms", millis(|millis| millis.transform))
        .count("write_ms", millis(|millis| millis.write))
        .text("engine", commits.iter().map(|commit| Some(commit.lineage.engine.clone())))
        .text("write_id", commits.iter().map(|commit| Some(commit.lineage.write_id.to_string())))
        .text("location", commits.iter().map(|commit| Some(commit.location.to_string())))
        .finish()
}

/// One row of `system.commit_inputs`: a range of a topic, or a table or files that were looked up.
struct CommitInput<'a> {
    commit: &'a Commit,
    input: &'a Input,
    range: Option<PartitionRange>,
}

impl CommitInput<'_> {
    fn topic(&self) -> Option<String> {
        match self.input {
            Input::Kafka { topic, .. } => Some(topic.to_string()),
            Input::Table { .. } | Input::Files { .. } => None,
        }
    }

    fn cluster(&self) -> Option<String> {
        match self.input {
            Input::Kafka { cluster, .. } => cluster.clone(),
            Input::Table { .. } | Input::Files { .. } => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self.input {
            Input::Kafka { .. } => "kafka",
            Input::Table { .. } => "table",
            Input::Files { .. } => "files",
        }
    }

    /// What was looked up, and its version where it has versions.
    fn lookup(&self) -> (Option<String>, Option<u64>) {
        match self.input {
            Input::Kafka { .. } => (None, None),
            Input::Table { table, version } => (Some(table.to_string()), Some(*version)),
            Input::Files { dataset } => (Some(dataset.to_string()), None),
        }
    }
}

/// `system.commit_inputs`: one row for each range of a partition and each table that was looked up.
pub(super) fn commit_inputs(commits: &[Commit]) -> Result<RecordBatch> {
    let rows: Vec<CommitInput<'_>> = commits.iter().flat_map(inputs_of).collect();
    let range = |get: fn(PartitionRange) -> i64| rows.iter().map(move |row| row.range.map(get));
    Columns::new()
        .text("table", rows.iter().map(|row| Some(row.commit.table.to_string())))
        .count("version", rows.iter().map(|row| Some(row.commit.version)))
        .text("kind", rows.iter().map(|row| Some(row.kind().to_owned())))
        .text("cluster", rows.iter().map(CommitInput::cluster))
        .text("topic", rows.iter().map(CommitInput::topic))
        .number("partition", range(|range| i64::from(range.partition)))
        .number("first_offset", range(|range| range.first))
        .number("next_offset", range(|range| range.next))
        .count("records", rows.iter().map(|row| row.range.map(|range| range.records)))
        .text("lookup_table", rows.iter().map(|row| row.lookup().0))
        .count("lookup_version", rows.iter().map(|row| row.lookup().1))
        .finish()
}

fn inputs_of(commit: &Commit) -> Vec<CommitInput<'_>> {
    let mut rows = Vec::new();
    for input in &commit.lineage.inputs {
        match input {
            Input::Kafka { ranges, .. } => {
                rows.extend(ranges.iter().map(|&range| CommitInput { commit, input, range: Some(range) }));
            }
            Input::Table { .. } | Input::Files { .. } => rows.push(CommitInput { commit, input, range: None }),
        }
    }
    rows
}

/// Returns the word that stored records use for `value`.
fn word<T: Serialize>(value: &T) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}
