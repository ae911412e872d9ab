//! Queries by key over a table that batches land in: the index and a scan answer the same, whatever has happened to it.

use std::collections::BTreeSet;

use alluvium_catalog::store::{CatalogStore, MemoryStore};
use alluvium_catalog::{Dataset, DatasetKind, Error, Result, Table};
use alluvium_sql::session::SessionSettings;
use alluvium_sql::{Session, TableReader};
use arrow::util::pretty::pretty_format_batches;
use proptest::prelude::*;

use super::*;
use crate::commit::land::{Landing, Swapped};
use crate::delta::action::{Action, Add};
use crate::delta::log::PutOutcome;
use crate::upkeep::fixture::Scene;

/// A table, the flow that lands in it, and two sessions on it, of which one may ask the flow's index.
struct Place {
    scene: Scene,
    landing: Landing,
    by_key: Session,
    by_scan: Session,
    next: i64,
}

#[derive(Debug, Clone)]
enum Step {
    /// These keys get new rows, or are deleted.
    Land(BTreeSet<(i64, bool)>),
    Compact,
    Restart,
    /// Another writer adds a file that is there already, so that its keys have two rows.
    Double,
}

fn step() -> impl Strategy<Value = Step> {
    let records = prop::collection::btree_map(0..12_i64, prop::bool::weighted(0.25), 1..8);
    prop_oneof![
        6 => records.prop_map(|records| Step::Land(records.into_iter().collect())),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
        1 => Just(Step::Double),
    ]
}

impl Place {
    async fn new(partitioned_by: &[&str]) -> Result<Self> {
        let partitioned_by: Vec<String> = partitioned_by.iter().map(|name| (*name).to_owned()).collect();
        let scene = Scene { partitioned_by: partitioned_by.clone(), ..Scene::upserts()? };
        let catalog: Arc<dyn CatalogStore> = Arc::new(MemoryStore::default());
        let table = Table {
            name: "silver.t".parse()?,
            location: scene.location.clone(),
            columns: Vec::new(),
            primary_key: vec!["id".to_owned()],
            partitioned_by,
            clustered_by: None,
            comment: None,
            properties: Default::default(),
        };
        let dataset = Dataset {
            name: table.name.clone(),
            kind: DatasetKind::Delta,
            location: scene.location.clone(),
            owner: None,
            description: None,
            tags: Vec::new(),
            table: Some(table),
        };
        catalog.put_dataset(&dataset).await?;
        let session = || {
            let reader = Arc::new(TableReader::new(scene.stores.clone(), Arc::clone(&catalog)));
            Session::open(Arc::clone(&catalog), reader, &SessionSettings { threads: 2, ..SessionSettings::default() })
        };
        let by_key = session()?.with_locate(Arc::clone(&scene.lookups) as Arc<dyn Locate>);
        let (by_scan, landing) = (session()?, scene.open().await?);
        Ok(Self { scene, landing, by_key, by_scan, next: 0 })
    }

    async fn apply(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Land(records) => {
                self.next += 1;
                let seq = self.next;
                let note = |deletes: bool| (!deletes).then_some(["a", "b", "c"][usize::try_from(seq % 3).unwrap_or(0)]);
                let records: Vec<_> = records.iter().map(|(id, deletes)| (*id, seq, note(*deletes))).collect();
                self.scene.land(&mut self.landing, &records).await
            }
            Step::Compact => {
                self.landing.catch_up().await?;
                let Some(compaction) = self.scene.compact(&self.landing).await? else { return Ok(()) };
                match self.landing.swap(&compaction).await? {
                    Swapped::Landed { .. } | Swapped::GivenUp(_) => Ok(()),
                    Swapped::Overtaken => Err(Error::internal("nobody else commits")),
                }
            }
            Step::Restart => {
                self.landing = self.scene.open().await?;
                Ok(())
            }
            Step::Double => self.double().await,
        }
    }

    /// Commits a live file once more, under another name.
    async fn double(&mut self) -> Result<()> {
        let state = self.scene.state().await?;
        let Some(add) = state.files.values().find(|add| add.deletion_vector.is_none()) else { return Ok(()) };
        let failed = |cause| Error::internal("cannot copy a file").with_source(cause);
        let (store, copy) = (self.landing.log().store(), format!("{}-copy.parquet", add.path));
        let (from, to) = (add.path.as_str().into(), object_store::path::Path::from(copy.as_str()));
        object_store::ObjectStoreExt::copy(store.as_ref(), &from, &to).await.map_err(failed)?;
        let add = Add { path: copy, ..add.clone() };
        let write_id = self.scene.clock.new_id();
        let info = serde_json::json!({"operation": "WRITE", "txnId": write_id});
        let bytes = crate::commit::create::encode(&info, &[Action::Add(add)])?;
        match self.landing.log().put(state.version + 1, bytes, write_id).await {
            PutOutcome::Landed => Ok(()),
            PutOutcome::Taken | PutOutcome::Unknown => Err(Error::internal("the other writer cannot commit")),
        }
    }

    /// Asks both sessions and returns what both say.
    async fn ask(&self, filter: &str) -> Result<String> {
        let sql = format!("SELECT id, day, seq, note, _alluvium_offset FROM silver.t WHERE {filter} ORDER BY id, seq");
        let by_key = text(&self.by_key, &sql).await?;
        assert_eq!(by_key, text(&self.by_scan, &sql).await?, "{filter}");
        Ok(by_key)
    }

    /// Tells whether a query is served by the index.
    async fn is_looked_up(&self, filter: &str) -> Result<bool> {
        let plan = text(&self.by_key, &format!("EXPLAIN SELECT * FROM silver.t WHERE {filter}")).await?;
        Ok(plan.contains("KeyLookupExec"))
    }
}

async fn text(session: &Session, sql: &str) -> Result<String> {
    let rows = session.sql(sql).await?.collect().await?;
    let table = pretty_format_batches(&rows).map_err(|cause| Error::internal("rows").with_source(cause))?;
    Ok(table.to_string())
}

async fn live(steps: Vec<Step>, partitioned_by: &[&str]) -> Result<()> {
    let mut place = Place::new(partitioned_by).await?;
    let mut is_doubled = false;
    for step in steps {
        place.apply(&step).await?;
        // Only a batch makes the flow look at what others have committed.
        is_doubled = matches!(step, Step::Double) || (is_doubled && !matches!(step, Step::Land(_)));
        for id in 0..12 {
            place.ask(&format!("id = {id}")).await?;
            place.ask(&format!("{id} = id AND day = 'even'")).await?;
        }
        place.ask("id IN (1, 2, 3, 99)").await?;
        place.ask("(id = 4 OR id = 5) AND note <> 'a'").await?;
        place.ask("id = NULL").await?;
        if !is_doubled {
            assert!(place.is_looked_up("id = 3").await?, "not looked up after {step:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn queries_by_key_answer_as_a_scan_does(steps in prop::collection::vec(step(), 1..8), by_day in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let partitioned_by: &[&str] = if by_day { &["day"] } else { &[] };
        if let Err(error) = runtime.block_on(live(steps, partitioned_by)) {
            return Err(TestCaseError::fail(error.chain()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_joins_and_other_filters_are_not_served_by_the_index() -> Result<()> {
    let mut place = Place::new(&[]).await?;
    let land = |keys: std::ops::Range<i64>| Step::Land(keys.map(|key| (key, false)).collect());
    place.apply(&land(0..6)).await?;
    place.apply(&land(0..3)).await?;
    assert!(place.is_looked_up("id = 1").await?);
    assert!(place.is_looked_up("CAST(1 AS BIGINT) = id AND note = 'x'").await?);
    for filter in ["id > 1", "note = 'a'", "id = seq", "id <> 1", "id = 1 OR seq = 2", "id IN (SELECT 1)"] {
        assert!(!place.is_looked_up(filter).await?, "{filter}");
    }
    let old = "SELECT seq FROM silver.t VERSION AS OF 1 WHERE id = 1";
    assert!(!text(&place.by_key, &format!("EXPLAIN {old}")).await?.contains("KeyLookupExec"));
    assert_eq!(text(&place.by_key, old).await?, text(&place.by_scan, old).await?);
    let both = "SELECT a.seq, b.seq FROM silver.t a JOIN silver.t b ON a.id = b.id WHERE a.id = 1 AND b.id = 1";
    assert_eq!(text(&place.by_key, both).await?, text(&place.by_scan, both).await?);
    assert!(place.ask("id = 77").await?.lines().count() < 5, "no such key");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_behind_its_table_or_without_its_writer_serves_nothing() -> Result<()> {
    let mut place = Place::new(&[]).await?;
    place.apply(&Step::Land([(1, false), (2, false)].into())).await?;
    assert!(place.is_looked_up("id = 1").await?);
    place.apply(&Step::Double).await?;
    assert!(!place.is_looked_up("id = 1").await?, "another writer's commit is not known yet");
    assert_eq!(place.ask("id = 1").await?.lines().count(), 6, "a scan finds both rows");
    place.landing.catch_up().await?;
    assert!(!place.is_looked_up("id = 1").await?, "a key has two rows until the next batch");
    place.apply(&Step::Land([(3, false)].into())).await?;
    assert!(place.is_looked_up("id = 1").await?);
    let Place { landing, scene, by_key, .. } = place;
    drop(landing);
    let lookup = scene.lookups.of_table(&"silver.t".parse()?).ok_or_else(|| Error::internal("not registered"))?;
    let key: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1]));
    assert_eq!(lookup.find(&[key], 0).await?, None);
    assert!(text(&by_key, "SELECT count(*) AS n FROM silver.t WHERE id = 1").await?.contains("| 1 |"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_other_columns_or_types_are_not_looked_up() -> Result<()> {
    let mut place = Place::new(&[]).await?;
    place.apply(&Step::Land([(1, false)].into())).await?;
    let ask = async |name: &str, column: ArrayRef| -> Result<Option<Located>> {
        let keys = arrow::array::RecordBatch::try_from_iter([(name, column)])
            .map_err(|cause| Error::internal("keys").with_source(cause))?;
        Ok(place.scene.lookups.locate(&Wanted { table: "silver.t".parse()?, seen: 0, keys }).await)
    };
    let long: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1, 8]));
    let found = ask("id", Arc::clone(&long)).await?.ok_or_else(|| Error::internal("not found"))?;
    assert!(found.version == 1 && found.rows[0].is_some() && found.rows[1].is_none(), "{found:?}");
    assert_eq!(ask("ids", long).await?, None);
    assert_eq!(ask("id", Arc::new(arrow::array::Int32Array::from(vec![1]))).await?, None);
    Ok(())
}
