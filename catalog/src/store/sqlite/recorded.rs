//! Which commits of the table at a place are recorded: found, noted and forgotten, as rows.

use std::ops::RangeInclusive;

use sqlx::SqliteConnection;

use super::commits::id;
use super::definitions::{from_count, to_count};
use super::failure::Cause;
use crate::Location;
use crate::store::{Witness, Written};

type Result<T> = std::result::Result<T, Cause>;

/// Notes up to which version a table's commits are recorded; an older note changes nothing.
pub(super) async fn put(connection: &mut SqliteConnection, location: &Location, version: u64) -> Result<()> {
    const PUT: &str = "INSERT INTO recorded (location, delta_version) VALUES (?1, ?2)
        ON CONFLICT (location) DO UPDATE SET delta_version = excluded.delta_version
        WHERE excluded.delta_version > recorded.delta_version";

    let query = sqlx::query(PUT).bind(location.to_string()).bind(from_count("delta_version", version)?);
    query.execute(connection).await?;
    Ok(())
}

/// As [`put`], where the note is at `former` or later; tells whether it is.
pub(super) async fn raise(
    connection: &mut SqliteConnection,
    location: &Location,
    former: u64,
    version: u64,
) -> Result<bool> {
    const RAISE: &str = "UPDATE recorded SET delta_version = MAX(delta_version, ?3)
        WHERE location = ?1 AND delta_version >= ?2";

    let query = sqlx::query(RAISE).bind(location.to_string()).bind(from_count("delta_version", former)?);
    let raised = query.bind(from_count("delta_version", version)?).execute(connection).await?;
    Ok(raised.rows_affected() > 0)
}

/// Returns up to which version the commits of the table at `location` are recorded.
pub(super) async fn up_to(connection: &mut SqliteConnection, location: &Location) -> Result<Option<u64>> {
    const UP_TO: &str = "SELECT delta_version FROM recorded WHERE location = ?1";

    let query = sqlx::query_scalar(UP_TO).bind(location.to_string());
    let version: Option<i64> = query.fetch_optional(connection).await?;
    version.map(|version| to_count("delta_version", version)).transpose()
}

/// Removes the commits of the table at `location` that have one of `versions`, and sets the note back to before them;
/// nothing where `witness` is gone. Tells whether it was there.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    location: &Location,
    versions: &[RangeInclusive<u64>],
    witness: Witness,
) -> Result<bool> {
    const FORGET: &str = "DELETE FROM commits WHERE location = ?1 AND delta_version BETWEEN ?2 AND ?3";

    if !is_there(connection, location, witness).await? {
        return Ok(false);
    }
    for range in versions {
        let query = sqlx::query(FORGET).bind(location.to_string());
        query.bind(bound(*range.start())).bind(bound(*range.end())).execute(&mut *connection).await?;
    }
    let first = versions.iter().map(|range| *range.start()).min();
    if let Some(first) = first {
        set_back(connection, location, first).await?;
    }
    Ok(true)
}

/// Returns the oldest and then the newest commit of the table at `location` among `versions`, which are in order.
pub(super) async fn written(
    connection: &mut SqliteConnection,
    location: &Location,
    versions: &[RangeInclusive<u64>],
) -> Result<Vec<Written>> {
    const OLDEST: &str = "SELECT delta_version, write_id FROM commits
        WHERE location = ?1 AND delta_version BETWEEN ?2 AND ?3 ORDER BY delta_version LIMIT 1";
    const NEWEST: &str = "SELECT delta_version, write_id FROM commits
        WHERE location = ?1 AND delta_version BETWEEN ?2 AND ?3 ORDER BY delta_version DESC LIMIT 1";

    let mut written = Vec::new();
    // Ranges are few, and most logs have a commit of a flow in the first and in the last.
    for range in versions {
        if let Some(oldest) = find(connection, OLDEST, location, range).await? {
            written.push(oldest);
            break;
        }
    }
    for range in versions.iter().rev() {
        if let Some(newest) = find(connection, NEWEST, location, range).await? {
            written.push(newest);
            break;
        }
    }
    written.dedup();
    Ok(written)
}

async fn find(
    connection: &mut SqliteConnection,
    statement: &'static str,
    location: &Location,
    range: &RangeInclusive<u64>,
) -> Result<Option<Written>> {
    let query = sqlx::query_as(statement).bind(location.to_string());
    let query = query.bind(bound(*range.start())).bind(bound(*range.end()));
    let row: Option<(i64, String)> = query.fetch_optional(connection).await?;
    let Some((version, write_id)) = row else { return Ok(None) };
    Ok(Some(Written { version: to_count("delta_version", version)?, write_id: id("write_id", &write_id)? }))
}

async fn is_there(connection: &mut SqliteConnection, location: &Location, witness: Witness) -> Result<bool> {
    const COUNT: &str = "SELECT COUNT(*) FROM commits WHERE location = ?1 AND delta_version = ?2 AND write_id = ?3";

    match witness {
        Witness::Commit(Written { version, write_id }) => {
            let query = sqlx::query_scalar(COUNT).bind(location.to_string()).bind(bound(version));
            let count: i64 = query.bind(write_id.to_string()).fetch_one(connection).await?;
            Ok(count > 0)
        }
        Witness::Recorded(version) => Ok(up_to(connection, location).await? == Some(version)),
    }
}

/// Sets the note of the table at `location` back to before `first`.
async fn set_back(connection: &mut SqliteConnection, location: &Location, first: u64) -> Result<()> {
    const SET_BACK: &str =
        "UPDATE recorded SET delta_version = ?2 - 1 WHERE location = ?1 AND delta_version >= ?2 AND ?2 > 0";
    const DROP_NOTE: &str = "DELETE FROM recorded WHERE location = ?1 AND ?2 = 0";

    for statement in [SET_BACK, DROP_NOTE] {
        sqlx::query(statement).bind(location.to_string()).bind(bound(first)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Returns the bound of a range of versions as it is compared: no row has a version above the largest number of SQLite.
fn bound(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
