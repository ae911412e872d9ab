//! What every [`CatalogStore`] must do, as cases that can be run against any of them.
//!
//! A case returns an error that says what it expected and what it found; it never panics. Each uses names of its own,
//! so that they run one after the other on one store, in any order but for the first, which wants it empty.

pub mod commits;
pub mod definitions;
pub mod runs;
mod samples;

use std::fmt;
use std::panic::Location;

use super::CatalogStore;
use crate::{Error, Result, TableName};

/// Runs every case against an empty store.
///
/// # Errors
/// `Internal` with the case that does not hold, or what the store itself said.
pub async fn all(store: &dyn CatalogStore) -> Result<()> {
    an_empty_store_answers(store).await?;
    definitions::a_definition_comes_back_whole(store).await?;
    definitions::connections_and_sources_stand_alone_and_are_replaced(store).await?;
    definitions::a_text_adds_a_version_only_when_it_changes(store).await?;
    definitions::one_version_is_added_when_many_say_the_same(store).await?;
    definitions::a_definition_keeps_what_people_said_of_the_table(store).await?;
    definitions::a_registration_keeps_the_declared_table(store).await?;
    commits::a_dropped_dataset_keeps_its_commits(store).await?;
    definitions::datasets_come_in_order_of_their_names(store).await?;
    runs::a_run_ends_once(store).await?;
    runs::runs_come_newest_first_up_to_the_limit(store).await?;
    runs::a_run_listens_until_it_has_ended(store).await?;
    commits::a_commit_comes_back_whole(store).await?;
    commits::a_commit_is_recorded_once(store).await?;
    commits::a_commit_of_another_write_replaces_the_former(store).await?;
    commits::commits_are_forgotten_by_version(store).await?;
    commits::nothing_is_forgotten_where_the_witness_is_gone(store).await?;
    commits::the_ends_of_what_is_recorded_are_among_the_versions(store).await?;
    commits::commits_come_newest_first_up_to_the_limit(store).await?;
    commits::commits_of_a_flow_come_newest_first_up_to_the_limit(store).await?;
    commits::traffic_adds_up_what_commits_read(store).await?;
    commits::what_is_recorded_never_goes_back(store).await?;
    commits::a_note_is_raised_from_where_it_was_left(store).await?;
    commits::the_last_version_is_that_of_the_registered_place(store).await
}

/// An empty store has nothing, and says so without an error.
///
/// # Errors
/// As [`all`].
pub async fn an_empty_store_answers(store: &dyn CatalogStore) -> Result<()> {
    let name: TableName = "empty.table".parse()?;
    ensure_eq("connections", &store.connections().await?, &Vec::new())?;
    ensure_eq("sources", &store.sources().await?, &Vec::new())?;
    ensure_eq("datasets", &store.datasets().await?, &Vec::new())?;
    ensure_eq("dataset", &store.dataset(&name).await?, &None)?;
    ensure_eq("flows", &store.flows().await?, &Vec::new())?;
    ensure_eq("flow", &store.flow(&"empty".parse()?).await?, &Vec::new())?;
    ensure_eq("runs", &store.runs(9).await?, &Vec::new())?;
    ensure_eq("commits", &store.commits(None, 9).await?, &Vec::new())?;
    ensure_eq("last version", &store.last_version(&name).await?, &None)?;
    ensure_eq("dropped", &store.drop_dataset(&name).await?, &false)
}

fn ensure(what: &str, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::internal(format!("{what}: not as it was put"))) }
}

#[track_caller]
fn ensure_eq<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let place = Location::caller();
    Err(Error::internal(format!("{what} (case at {place}): expected {expected:?}, found {found:?}")))
}
