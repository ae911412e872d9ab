//! Keys of every shape that a table can have one of: SQL that names a key is served by the index of a running engine, however
//! it writes the values, and is answered as by a scan.

use std::fmt::Write;
use std::time::{Duration, Instant};

use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use alluvium_catalog::Partition;

use super::{Asker, LIMIT, text};
use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::shop::embedded_options;
use crate::histories::keys::{self, IDS, Keys, SHAPES, Spelling};

/// How long a query is planned again and again until the index serves it: a session leaves an engine alone for a while that
/// was too busy to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The id of a key that no record has. Each of those before it has one record that puts a row, and some have another.
const ABSENT: i64 = IDS - 1;

/// The ids that are asked for: those of the nearest values, and the last ones.
const ASKED: [i64; 9] = [0, 1, 2, 3, 4, 5, 7, ABSENT - 1, ABSENT];

/// What rows say: of keys that were put once, and of keys that were put twice.
const NOTES: [&str; 2] = ["first", "second"];

/// A table with keys of one shape.
struct Shaped {
    /// The table is `lake.<name>`.
    name: String,
    keys: Keys,
}

impl Shaped {
    fn new(seed: u64) -> TestResult<Self> {
        Ok(Self { name: format!("shape_{seed}"), keys: Keys::of_seed(seed)? })
    }

    /// Returns the definitions of the table and its flow.
    fn sql(&self) -> String {
        let Self { name, keys } = self;
        let (columns, key) = (keys.declared(), keys.names());
        // A commit of all keys, and one of what comes to some of them after that.
        format!(
            "
CREATE SOURCE {name}_in ({columns}, seq BIGINT, op STRING, note STRING)
WITH ('connection' = 'broker', 'topic' = '{name}');
CREATE STREAMING TABLE lake.{name} ({columns}, seq BIGINT, note STRING, PRIMARY KEY ({key}) NOT ENFORCED);
CREATE FLOW {name}_flow WITH ('commit.interval' = '300 ms', 'commit.rows' = '{ABSENT}') AS
AUTO CDC INTO lake.{name} FROM STREAM({name}_in) KEYS ({key}) APPLY AS DELETE WHEN op = 'd' SEQUENCE BY seq
COLUMNS * EXCEPT (op) STORED AS SCD TYPE 1;
"
        )
    }

    async fn produce(&self, broker: &EmbeddedBroker) -> TestResult {
        let written = |id: i64, spelling, rest: &str| format!("{{{},{rest}}}", self.keys.members(id, spelling));
        let first = (0..ABSENT).map(|id| written(id, Spelling::Usual, r#""seq":1,"op":"u","note":"first""#));
        let second = (0..ABSENT).filter_map(|id| match note(id) {
            Some("first") => None,
            Some(_) => Some(written(id, Spelling::Other, r#""seq":2,"op":"u","note":"second""#)),
            None => Some(written(id, Spelling::Other, r#""seq":2,"op":"d""#)),
        });
        for record in first.chain(second) {
            let value = Some(record.as_bytes());
            broker.produce(&self.name, Message { partition: Some(Partition(0)), value, ..Message::default() }).await?;
        }
        Ok(())
    }

    /// Waits until all records have landed.
    async fn wait(&self, asker: &Asker) -> TestResult {
        let (begun, ids): (_, Vec<i64>) = (Instant::now(), (0..IDS).collect());
        let sql = format!("SELECT note FROM lake.{}", self.name);
        loop {
            // The table need not be there yet.
            let rows = text(&asker.by_scan, &sql).await;
            if rows.as_ref().is_ok_and(|rows| counted(rows) == expected(&ids)) {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("the records did not land; at last: {rows:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks for rows by whole keys, and by a part of one.
    async fn check(&self, asker: &Asker) -> TestResult {
        self.wait(asker).await?;
        for id in ASKED {
            let condition = self.keys.conditions(id, usize::try_from(id)?).join(" AND ");
            self.check_looked_up(asker, &condition, usize::from(note(id).is_some())).await?;
            self.check_rows(asker, &condition, &[id]).await?;
        }
        match &self.keys.conditions(0, 0)[..] {
            [part, _, ..] => self.check_part(asker, part).await,
            _ => Ok(()),
        }
    }

    /// Checks that the index serves a query for one key, which has `n_rows`.
    async fn check_looked_up(&self, asker: &Asker, condition: &str, n_rows: usize) -> TestResult {
        let begun = Instant::now();
        loop {
            let plan = self.plan(asker, condition).await?;
            if plan.contains("KeyLookupExec") && plan.contains(&format!("keys=1, rows={n_rows},")) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{condition} is not looked up, with {n_rows} rows:\n{plan}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Checks a query for all keys that have the first key's value in one column: the index knows whole keys only.
    async fn check_part(&self, asker: &Asker, part: &str) -> TestResult {
        let plan = self.plan(asker, part).await?;
        if plan.contains("KeyLookupExec") {
            return Err(format!("{part} is no whole key, and is looked up:\n{plan}").into());
        }
        let ids: Vec<i64> = (0..IDS).filter(|id| self.keys.conditions(*id, 0)[0] == part).collect();
        self.check_rows(asker, part, &ids).await
    }

    /// Checks that a query has the rows of `ids`, with and without an engine.
    async fn check_rows(&self, asker: &Asker, condition: &str, ids: &[i64]) -> TestResult {
        let sql = format!("SELECT * FROM lake.{} WHERE {condition} ORDER BY {}", self.name, self.keys.names());
        let (by_key, by_scan) = (text(&asker.by_key, &sql).await?, text(&asker.by_scan, &sql).await?);
        if by_key != by_scan {
            return Err(format!("{condition} has with an engine\n{by_key}\nand by a scan\n{by_scan}").into());
        }
        if counted(&by_key) != expected(ids) {
            return Err(format!("{condition} has\n{by_key}\nwhere rows of {ids:?} should be").into());
        }
        Ok(())
    }

    async fn plan(&self, asker: &Asker, condition: &str) -> TestResult<String> {
        text(&asker.by_key, &format!("EXPLAIN SELECT * FROM lake.{} WHERE {condition}", self.name)).await
    }
}

/// Returns what the row of a key says; nothing where it was deleted, or never put.
fn note(id: i64) -> Option<&'static str> {
    match id % 3 {
        0 if id != ABSENT => Some("first"),
        1 if id != ABSENT => Some("second"),
        _ => None,
    }
}

/// Returns how many rows of each note the keys have.
fn expected(ids: &[i64]) -> [usize; 2] {
    NOTES.map(|wanted| ids.iter().filter(|id| note(**id) == Some(wanted)).count())
}

/// Returns how many rows of each note an answer has.
fn counted(rows: &str) -> [usize; 2] {
    NOTES.map(|note| rows.matches(note).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_shape_are_looked_up_however_sql_writes_them() -> TestResult {
    let all = (0..SHAPES.len() as u64).map(Shaped::new).collect::<TestResult<Vec<_>>>()?;
    let topics: Vec<(&str, i32)> = all.iter().map(|shaped| (shaped.name.as_str(), 1)).collect();
    let broker = EmbeddedBroker::start(&topics)?;
    let mut sql = format!("CREATE CONNECTION broker TYPE kafka WITH ({});\n", embedded_options(broker.bootstrap()));
    for shaped in &all {
        shaped.produce(&broker).await?;
        sql.push_str(&shaped.sql());
    }
    broker.flush().await?;
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake).with("ALLUVIUM_LISTEN", "127.0.0.1:0");
    program.write("shapes.sql", &sql)?;
    let mut running = program.start(&["run", "shapes.sql"])?;
    running.wait_for("serving", 1, LIMIT)?;
    let asker = Asker::on(&lake).await?;
    let mut report = String::new();
    for (seed, shaped) in (0..).zip(&all) {
        if let Err(error) = shaped.check(&asker).await {
            writeln!(report, "keys {:?}: {error}", keys::shape(seed))?;
        }
    }
    running.terminate()?;
    running.wait(LIMIT)?.check(0)?;
    if report.is_empty() { Ok(()) } else { Err(report.into()) }
}
