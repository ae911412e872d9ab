//! What queries find in files that hold a NaN.

use std::collections::BTreeMap;

use alluvium_catalog::store::{CatalogStore, MemoryStore};
use alluvium_catalog::{Dataset, DatasetKind};
use alluvium_sql::session::SessionSettings;
use alluvium_sql::{Session, TableReader};
use arrow::array::Float64Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;

use super::*;
use crate::commit::create::{Blueprint, encode as encode_commit};
use crate::delta::action::Action;
use crate::delta::log::PutOutcome;
use crate::upkeep::fixture::Scene;

/// Makes a table of one file for each of `files`, which are the values of its column `x`, and opens a session on it.
async fn session_on(files: [[f64; 2]; 2]) -> Result<Session> {
    let scene = Scene::appends()?;
    let log = scene.log()?;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
    let blueprint = Blueprint {
        schema: Arc::clone(&schema),
        partitioned_by: Vec::new(),
        clustered_by: None,
        deletion_vectors: false,
        comment: None,
        properties: BTreeMap::new(),
    };
    let state = blueprint.open_or_create(&log, scene.clock.as_ref()).await?;
    let folder = DataFolder {
        store: Arc::clone(log.store()),
        location: scene.location.clone(),
        partitioned_by: Vec::new(),
        clock: Arc::clone(&scene.clock),
    };
    let mut actions = Vec::new();
    for values in files {
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Float64Array::from(values.to_vec()))])
            .map_err(|cause| Error::internal("the rows cannot be made").with_source(cause))?;
        actions.extend(folder.write(&rows).await?.into_iter().map(|file| Action::Add(file.add)));
    }
    let write_id = scene.clock.new_id();
    let info = serde_json::json!({"operation": "WRITE", "txnId": write_id});
    match log.put(state.version + 1, encode_commit(&info, &actions)?, write_id).await {
        PutOutcome::Landed => {}
        PutOutcome::Taken | PutOutcome::Unknown => return Err(Error::internal("the files cannot be committed")),
    }
    let catalog: Arc<dyn CatalogStore> = Arc::new(MemoryStore::default());
    let dataset = Dataset {
        name: "silver.t".parse()?,
        kind: DatasetKind::Delta,
        location: scene.location.clone(),
        owner: None,
        description: None,
        tags: Vec::new(),
        table: None,
    };
    catalog.put_dataset(&dataset).await?;
    let reader = Arc::new(TableReader::new(scene.stores.clone(), Arc::clone(&catalog)));
    Session::open(catalog, reader, &SessionSettings { threads: 2, ..SessionSettings::default() })
}

/// Returns the one value that `sql` yields.
async fn value(session: &Session, sql: &str) -> Result<String> {
    let rows = session.sql(sql).await?.collect().await?;
    let table = pretty_format_batches(&rows).map_err(|cause| Error::internal("rows").with_source(cause))?.to_string();
    let line = table.lines().nth(3).unwrap_or_default();
    Ok(line.trim_matches(['|', ' ']).to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nan_is_found_as_the_greatest_number_in_every_file() -> Result<()> {
    let session = session_on([[1.0, f64::NAN], [20.0, f64::NAN]]).await?;
    for (sql, expected) in [
        ("SELECT count(*) FROM silver.t WHERE x > 10", "3"),
        ("SELECT count(*) FROM silver.t WHERE x + 0 > 10", "3"),
        ("SELECT count(*) FROM silver.t WHERE x IS NULL", "0"),
        ("SELECT x FROM silver.t ORDER BY x DESC LIMIT 1", "NaN"),
    ] {
        assert_eq!(value(&session, sql).await?, expected, "{sql}");
    }
    Ok(())
}
