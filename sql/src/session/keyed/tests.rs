//! What the module `keyed` promises, tested: a right answer is taken, and any other leaves the query as it was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Dataset, DatasetKind, Location, Table};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;

use super::*;
use crate::locate::LocatedRow;
use crate::session::{Session, SessionSettings};
use crate::tables::Version;
use crate::tables::fixture::{Lake, TestResult, actions, append, lines, live_adds, n_rows, people, with_hidden};

/// Says what it was told to say, whatever is asked.
#[derive(Debug)]
struct Scripted {
    says: Mutex<Option<Located>>,
    /// Rows that are committed while it is asked.
    commits: Mutex<Option<(Location, i64)>>,
    asked: Mutex<Vec<Wanted>>,
}

#[async_trait]
impl Locate for Scripted {
    async fn locate(&self, wanted: &Wanted) -> Option<Located> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(wanted.clone());
        let commit = self.commits.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((location, id)) = commit {
            append(&location, with_hidden(&people(&[(id, "new")]).ok()?).ok()?).await.ok()?;
        }
        self.says.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Scene {
    lake: Lake,
    location: Location,
    session: Session,
    engine: Arc<Scripted>,
}

impl Scene {
    /// Returns the table `silver.people` of the ids 1 to 3, in one file, and a session on it.
    async fn new() -> TestResult<Self> {
        let lake = Lake::new()?;
        let batch = with_hidden(&people(&[(1, "ann"), (2, "bob"), (3, "cid")])?)?;
        let location = lake.table("silver.people", &[batch]).await?;
        let table = Table {
            name: "silver.people".parse()?,
            location: location.clone(),
            columns: Vec::new(),
            primary_key: vec!["id".to_owned()],
            partitioned_by: Vec::new(),
            clustered_by: None,
            comment: None,
            properties: Default::default(),
        };
        let dataset = Dataset {
            name: table.name.clone(),
            kind: DatasetKind::Delta,
            location: location.clone(),
            owner: None,
            description: None,
            tags: Vec::new(),
            table: Some(table),
        };
        lake.catalog.put_dataset(&dataset).await?;
        let (says, commits, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
        let engine = Arc::new(Scripted { says, commits, asked });
        let catalog = Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>;
        let session = Session::open(catalog, Arc::clone(&lake.reader), &SessionSettings::default())?;
        let session = session.with_locate(Arc::clone(&engine) as Arc<dyn Locate>);
        Ok(Self { lake, location, session, engine })
    }

    /// Returns the place of `row` in the file that `version` has added first.
    fn located(&self, version: u64, row: u64) -> TestResult<Located> {
        let created = actions(&self.location, 0)?;
        let id = created.iter().find_map(|action| action["metaData"]["id"].as_str()).ok_or("no id")?;
        let add = live_adds(&self.location, 1)?.pop().ok_or("no file")?;
        let row = LocatedRow {
            path: add["path"].as_str().ok_or("no path")?.to_owned(),
            size: add["size"].as_u64().ok_or("no size")?,
            n_rows: n_rows(&add)?,
            partition_values: HashMap::new(),
            row,
        };
        Ok(Located { table_id: id.to_owned(), version, rows: vec![Some(row)] })
    }

    fn say(&self, located: Option<Located>) {
        *self.engine.says.lock().unwrap_or_else(PoisonError::into_inner) = located;
    }

    /// Returns the answer to a query for id 2, and whether places were read for it.
    async fn ask(&self) -> TestResult<(Vec<String>, bool)> {
        let sql = "SELECT id, name, _alluvium_offset FROM silver.people WHERE id = 2";
        let plan = lines(&self.session.sql(&format!("EXPLAIN {sql}")).await?.collect().await?)?;
        let rows = lines(&self.session.sql(sql).await?.collect().await?)?;
        Ok((rows, plan.iter().any(|line| line.contains("KeyLookupExec"))))
    }
}

#[tokio::test]
async fn a_place_in_the_version_that_is_read_is_read_alone() -> TestResult {
    let scene = Scene::new().await?;
    assert_eq!(scene.ask().await?, (vec!["id|name|_alluvium_offset".to_owned(), "2|bob|101".to_owned()], false));
    scene.say(Some(scene.located(1, 1)?));
    assert_eq!(scene.ask().await?, (vec!["id|name|_alluvium_offset".to_owned(), "2|bob|101".to_owned()], true));
    let wanted = scene.engine.asked.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or("not asked")?;
    assert_eq!((wanted.table.to_string().as_str(), wanted.seen), ("silver.people", 1));
    assert_eq!(wanted.keys.column(0).as_primitive::<Int64Type>().values(), &[2]);
    // The filter is kept: a place that is wrong brings no row in.
    scene.say(Some(scene.located(1, 0)?));
    assert!(scene.ask().await?.0.iter().all(|line| !line.starts_with('1')), "a wrong row");
    let none = Located { rows: vec![None], ..scene.located(1, 0)? };
    scene.say(Some(none));
    let (rows, is_looked_up) = scene.ask().await?;
    assert!(rows.len() <= 1 && is_looked_up, "{rows:?}");
    let counted = scene.session.sql("SELECT count(*) AS n FROM silver.people WHERE id = 2").await?.collect().await?;
    assert_eq!(lines(&counted)?, ["n", "0"]);
    Ok(())
}

#[tokio::test]
async fn whatever_does_not_fit_the_table_is_not_taken() -> TestResult {
    let scene = Scene::new().await?;
    let right = scene.located(1, 1)?;
    let row = |change: &dyn Fn(&mut LocatedRow)| {
        let mut row = right.rows[0].clone();
        row.iter_mut().for_each(change);
        Located { rows: vec![row], ..right.clone() }
    };
    let cases = [
        Located { version: 0, ..right.clone() },
        Located { version: 9, ..right.clone() },
        Located { table_id: "another".to_owned(), ..right.clone() },
        Located { rows: Vec::new(), ..right.clone() },
        Located { rows: vec![None, None], ..right.clone() },
        row(&|row| row.row = 3),
        row(&|row| row.row = u64::MAX),
        row(&|row| row.path = "/etc/passwd".to_owned()),
        row(&|row| row.path = "../people/x.parquet".to_owned()),
        row(&|row| row.path = "s3://bucket/x.parquet".to_owned()),
    ];
    for case in cases {
        scene.say(Some(case.clone()));
        let (rows, is_looked_up) = scene.ask().await?;
        assert_eq!((rows.get(1).map(String::as_str), is_looked_up), (Some("2|bob|101"), false), "{case:?}");
    }
    // Once the files have been listed, a file that is none of them is known.
    for case in [row(&|row| row.path = "part-1.parquet".to_owned()), row(&|row| row.n_rows = 9)] {
        scene.say(Some(case.clone()));
        assert_eq!(scene.ask().await?.0.get(1).map(String::as_str), Some("2|bob|101"), "{case:?}");
    }
    Ok(())
}

#[tokio::test]
async fn places_that_no_selection_can_be_made_of_are_not_taken() -> TestResult {
    let scene = Scene::new().await?;
    let one = scene.located(1, 1)?;
    let and_another = |change: &dyn Fn(&mut LocatedRow)| {
        let mut another = one.rows[0].clone();
        another.iter_mut().for_each(change);
        Located { rows: vec![one.rows[0].clone(), another], ..one.clone() }
    };
    let cases = [and_another(&|_| {}), and_another(&|row| (row.row, row.n_rows) = (5, 9))];
    for case in cases {
        scene.say(Some(case.clone()));
        let sql = "SELECT id FROM silver.people WHERE id IN (1, 2) ORDER BY id";
        assert_eq!(lines(&scene.session.sql(sql).await?.collect().await?)?, ["id", "1", "2"], "{case:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_recursive_query_finds_a_row_in_each_iteration() -> TestResult {
    let scene = Scene::new().await?;
    let sql = "WITH RECURSIVE r AS (SELECT CAST(1 AS BIGINT) AS n UNION ALL SELECT r.n + 1 AS n \
               FROM r CROSS JOIN (SELECT id FROM silver.people WHERE id = 2) p WHERE r.n < 5) \
               SELECT count(*) AS n FROM r";
    let scanned = lines(&scene.session.sql(sql).await?.collect().await?)?;
    assert_eq!(scanned, ["n", "5"]);
    scene.say(Some(scene.located(1, 1)?));
    let plan = lines(&scene.session.sql(&format!("EXPLAIN {sql}")).await?.collect().await?)?.join("\n");
    assert!(plan.contains("KeyLookupExec"), "{plan}");
    assert_eq!(lines(&scene.session.sql(sql).await?.collect().await?)?, scanned);
    Ok(())
}

#[tokio::test]
async fn an_engine_that_is_a_commit_ahead_is_followed() -> TestResult {
    let scene = Scene::new().await?;
    scene.say(Some(scene.located(2, 1)?));
    let commit = |id| {
        *scene.engine.commits.lock().unwrap_or_else(PoisonError::into_inner) = Some((scene.location.clone(), id));
    };
    commit(4);
    let explained = scene.session.sql("EXPLAIN SELECT * FROM silver.people WHERE id = 2").await?.collect().await?;
    let plan = lines(&explained)?.join("\n");
    assert!(plan.contains("KeyLookupExec: version=2, keys=1, rows=1"), "{plan}");
    assert_eq!(scene.ask().await?, (vec!["id|name|_alluvium_offset".to_owned(), "2|bob|101".to_owned()], true));
    // All scans of a query read one version, whichever comes first.
    scene.say(Some(scene.located(3, 1)?));
    commit(5);
    let sql = "SELECT count(*) AS n FROM silver.people a CROSS JOIN (SELECT * FROM silver.people WHERE id = 2) b";
    let rows = lines(&scene.session.sql(sql).await?.collect().await?)?;
    assert!(rows == ["n", "4"] || rows == ["n", "5"], "{rows:?}");
    assert_eq!(scene.lake.reader.open(&scene.location, Version::Latest).await?.version(), 3);
    Ok(())
}
