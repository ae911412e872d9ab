//! Runs as rows: put, and read back, all or those that may answer over HTTP.

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::failure::Cause;
use crate::Timestamp;
use crate::store::{LISTENING_MAX, Run};

type Row = (String, i64, Option<i64>, Option<String>, Option<String>);

/// Records a run's begin or end; what an earlier record says and this one does not, stays.
pub(super) async fn put(connection: &mut SqliteConnection, run: &Run) -> Result<(), Cause> {
    const PUT: &str = "INSERT INTO runs (id, started_at, ended_at, error, address) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (id) DO UPDATE SET started_at = excluded.started_at,
            ended_at = COALESCE(excluded.ended_at, runs.ended_at), error = COALESCE(excluded.error, runs.error),
            address = COALESCE(excluded.address, runs.address)";

    sqlx::query(PUT)
        .bind(run.id.to_string())
        .bind(run.started_at.0)
        .bind(run.ended_at.map(|time| time.0))
        .bind(run.error.as_deref())
        .bind(run.address.map(|address| address.to_string()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns runs, newest first.
pub(super) async fn newest(connection: &mut SqliteConnection, limit: i64) -> Result<Vec<Run>, Cause> {
    const RUNS: &str =
        "SELECT id, started_at, ended_at, error, address FROM runs ORDER BY started_at DESC, id DESC LIMIT ?1";

    let rows: Vec<Row> = sqlx::query_as(RUNS).bind(limit).fetch_all(connection).await?;
    rows.into_iter().map(run).collect()
}

/// Returns the runs with an address and without an end, newest first.
pub(super) async fn listening(connection: &mut SqliteConnection) -> Result<Vec<Run>, Cause> {
    const LISTENING: &str = "SELECT id, started_at, ended_at, error, address FROM runs
        WHERE ended_at IS NULL AND address IS NOT NULL ORDER BY started_at DESC, id DESC LIMIT ?1";

    let limit = i64::try_from(LISTENING_MAX).unwrap_or(i64::MAX);
    let rows: Vec<Row> = sqlx::query_as(LISTENING).bind(limit).fetch_all(connection).await?;
    rows.into_iter().map(run).collect()
}

fn run((id, started_at, ended_at, error, address): Row) -> Result<Run, Cause> {
    let id = Uuid::parse_str(&id).map_err(|source| Cause::damaged("id", source))?;
    let address = address.map(|text| text.parse()).transpose();
    let address = address.map_err(|source| Cause::damaged("address", source))?;
    Ok(Run { id, started_at: Timestamp(started_at), ended_at: ended_at.map(Timestamp), error, address })
}
