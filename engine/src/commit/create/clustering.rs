//! Brings the clustering columns of a table that exists in line with those declared: one commit, before the first batch.
//!
//! What was declared without CLUSTER BY leaves the table's own alone. No file is rewritten here: upkeep does that, later.
//! Source: Delta transaction log protocol, section "Writer Requirements for Clustered Table".

use alluvium_catalog::{Clock, Error, Result};
use serde_json::json;

use super::{Blueprint, ENGINE_INFO, arrow_schema, encode};
use crate::delta::action::{Action, INDEXED_COLUMNS, Protocol};
use crate::delta::clustering::{FEATURES, clustering_action};
use crate::delta::log::{DeltaLog, PutOutcome};
use crate::delta::state::TableState;

/// Commits of others that may come first before the start is given up.
const ATTEMPTS_MAX: u32 = 20;

/// From this writer version on, features are listed.
const LISTED_VERSION: i32 = 7;

impl Blueprint {
    /// Returns the actions that have a new table clustered as declared.
    pub(super) fn first_clustering(&self) -> Result<Option<Action>> {
        match self.clustered_by.as_deref() {
            None | Some([]) => Ok(None),
            Some(columns) => domain(columns).map(Some),
        }
    }

    /// Tells whether a new table is clustered.
    pub(super) fn is_clustered(&self) -> bool {
        self.clustered_by.as_ref().is_some_and(|columns| !columns.is_empty())
    }

    /// Commits the declared clustering columns where the table has others, and returns the table as it is then.
    pub(super) async fn settle_clustering(
        &self,
        log: &DeltaLog,
        mut state: TableState,
        clock: &dyn Clock,
    ) -> Result<TableState> {
        let Some(wanted) = &self.clustered_by else { return check_bounds(log, &state).map(|()| state) };
        for _attempt in 0..ATTEMPTS_MAX {
            if state.is_clustered_by(wanted) {
                return Ok(state);
            }
            let actions = change(log, &state, wanted)?;
            let (version, write_id) = (state.version + 1, clock.new_id());
            let info = json!({
                "timestamp": clock.now().0,
                "operation": "CLUSTER BY",
                "operationParameters": {
                    "oldClusteringColumns": state.clustering().join(","), "newClusteringColumns": wanted.join(","),
                },
                "readVersion": state.version,
                "isBlindAppend": false,
                "engineInfo": ENGINE_INFO,
                "txnId": write_id,
            });
            match log.put(version, encode(&info, &actions)?, write_id).await {
                PutOutcome::Landed => {
                    state.apply(version, &actions);
                    return Ok(state);
                }
                PutOutcome::Taken => {
                    state.refresh(log).await?;
                    self.check(log, &state)?;
                }
                PutOutcome::Unknown => {
                    let at = log.location();
                    return Err(Error::unavailable(format!(
                        "cannot commit the clustering columns of the table at {at}"
                    )));
                }
            }
        }
        Err(Error::conflict(format!(
            "cannot commit the clustering columns of the table at {}: other commits came first {ATTEMPTS_MAX} times",
            log.location()
        )))
    }
}

/// Checks that files of this program have bounds for what another writer has clustered the table by, as every writer's
/// must.
fn check_bounds(log: &DeltaLog, state: &TableState) -> Result<()> {
    let schema = arrow_schema(log, state)?;
    for path in state.clustering_paths().unwrap_or_default() {
        let is_bounded = match path.as_slice() {
            [name] => schema.index_of(name).is_ok_and(|position| position < INDEXED_COLUMNS),
            _ => false,
        };
        if !is_bounded {
            let (at, column) = (log.location(), path.join("."));
            return Err(Error::invalid(format!(
                "the table at {at} is clustered by '{column}', which files get no bounds for"
            ))
            .with_hint(format!("cluster it by columns among the first {INDEXED_COLUMNS} that lie in no other")));
        }
    }
    Ok(())
}

/// Returns the actions that have the table of `state` clustered by `wanted`.
fn change(log: &DeltaLog, state: &TableState, wanted: &[String]) -> Result<Vec<Action>> {
    let schema = arrow_schema(log, state)?;
    for column in wanted {
        if schema.index_of(column).is_ok_and(|position| position < INDEXED_COLUMNS) {
            continue;
        }
        return Err(Error::invalid(format!("the table at {} cannot be clustered by '{column}'", log.location()))
            .with_hint(format!("a clustering column is among the first {INDEXED_COLUMNS} of the table")));
    }
    let protocol = upgraded(log, &state.protocol)?.map(Action::Protocol);
    Ok(protocol.into_iter().chain([domain(wanted)?]).collect())
}

/// Returns the protocol with the features of a clustered table; `None` when it has them.
fn upgraded(log: &DeltaLog, protocol: &Protocol) -> Result<Option<Protocol>> {
    let mut features: Vec<String> = match (protocol.min_writer_version, &protocol.writer_features) {
        (_, Some(listed)) => listed.clone(),
        // What older versions imply has to be listed once a list is there.
        (1, None) => Vec::new(),
        (2, None) => vec!["appendOnly".to_owned(), "invariants".to_owned()],
        (3, None) => vec!["appendOnly".to_owned(), "invariants".to_owned(), "checkConstraints".to_owned()],
        (version, None) => {
            let message = format!("cannot cluster the table at {}: it has writer version {version}", log.location());
            return Err(Error::invalid(message).with_hint("ALTER TABLE .. CLUSTER BY (..) with its owner's tool"));
        }
    };
    let missing: Vec<&str> =
        FEATURES.into_iter().filter(|wanted| !features.iter().any(|feature| feature == wanted)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    features.extend(missing.into_iter().map(str::to_owned));
    Ok(Some(Protocol { min_writer_version: LISTED_VERSION, writer_features: Some(features), ..protocol.clone() }))
}

fn domain(columns: &[String]) -> Result<Action> {
    clustering_action(columns)
        .map(Action::DomainMetadata)
        .map_err(|cause| Error::internal("cannot write clustering columns as JSON").with_source(cause))
}
