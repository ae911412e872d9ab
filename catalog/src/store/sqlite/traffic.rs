//! The ways that data took, added up over all commits by the database.

use sqlx::SqliteConnection;

use super::definitions::{from_text, table_name, to_count};
use super::failure::Cause;
use crate::{Edge, Node, Seen};

type Result<T> = std::result::Result<T, Cause>;

#[derive(sqlx::FromRow)]
struct Row {
    schema_name: String,
    table_name: String,
    flow: String,
    topic: Option<String>,
    input_schema: Option<String>,
    input_table: Option<String>,
    n_commits: i64,
    n_records: i64,
    version: Option<i64>,
}

/// Returns every way with how often it was taken, in order.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<(Edge, Seen)>> {
    const ALL: &str = "SELECT commits.schema_name, commits.table_name, commits.flow,
            inputs.topic, inputs.input_schema, inputs.input_table, COUNT(*) AS n_commits,
            SUM(CASE WHEN inputs.kind = 'kafka' THEN commits.records_in ELSE 0 END) AS n_records,
            MAX(inputs.input_version) AS version
        FROM commit_inputs AS inputs
        JOIN commits ON commits.location = inputs.location AND commits.delta_version = inputs.delta_version
        GROUP BY commits.schema_name, commits.table_name, commits.flow,
            inputs.topic, inputs.input_schema, inputs.input_table";

    let rows: Vec<Row> = sqlx::query_as(ALL).fetch_all(connection).await?;
    let mut traffic = rows.into_iter().map(Row::into_seen).collect::<Result<Vec<_>>>()?;
    traffic.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(traffic)
}

impl Row {
    fn into_seen(self) -> Result<(Edge, Seen)> {
        let from = match (self.topic, self.input_schema, self.input_table) {
            (Some(topic), ..) => Node::Topic(from_text("topic", topic)?),
            (None, Some(schema), Some(table)) => Node::Table(table_name(&schema, &table)?),
            _ => return Err(Cause::damaged("topic", "an input is neither a topic nor a table")),
        };
        let to = table_name(&self.schema_name, &self.table_name)?;
        let seen = Seen {
            commits: to_count("n_commits", self.n_commits)?,
            records: to_count("n_records", self.n_records)?,
            version: self.version.map(|version| to_count("input_version", version)).transpose()?,
        };
        Ok((Edge { from, to, flow: from_text("flow", self.flow)? }, seen))
    }
}
