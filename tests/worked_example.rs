//! The worked example of `docs/UPSERT.md`: its records, produced and landed by the program as the page says, leave the log
//! entries, places, sidecars and costs that the page shows.
//!
//! The page is the script. Its statements and its tables of records are what is run, and each block is held against what
//! is on disk then. What a page cannot know is compared by its name instead: a path or a size that stands twice on the
//! page must be the same both times on disk, whatever it is.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use alluvium::key::{KeyForm, Keys};
use alluvium::order::Sequence;
use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use alluvium::write::index::{KeyIndex, read_snapshot};
use alluvium_catalog::Partition;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use chrono::DateTime;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use serde_json::{Value, json};

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::shop::embedded_options;
use page::{Page, Record, ShownIndex, actions_of, block_with, first_records, records, shown};

const TOPIC: &str = "upsert-doc.orders";

/// The clause that makes the table copy-on-write, as the page has it.
const COPY_ON_WRITE: &str = "TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write')";

/// The table of the example, and what its page calls things.
struct Orders {
    /// Goes with all that lies in it.
    _lake: Lake,
    program: Program,
    broker: EmbeddedBroker,
    folder: PathBuf,
    /// What stands on disk for a path or a size of the page.
    named: BTreeMap<String, Value>,
}

impl Orders {
    fn open(statements: &str) -> TestResult<Self> {
        let (lake, broker) = (Lake::on_disk()?, EmbeddedBroker::start(&[(TOPIC, 1)])?);
        let program = Program::on(&lake);
        let connection = embedded_options(broker.bootstrap());
        program.write("shop.sql", &format!("CREATE CONNECTION shop TYPE kafka WITH ({connection});\n{statements}"))?;
        let folder = lake.table("silver.orders")?.local_path().ok_or("the lake is not on disk")?;
        Ok(Self { _lake: lake, program, broker, folder, named: BTreeMap::new() })
    }

    /// Lands `records` as one batch, by a process of its own.
    async fn land<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> TestResult {
        for record in records {
            let (key, value) = (record.id().to_string(), record.value());
            let (key, value) = (Some(key.as_bytes()), value.as_ref().map(String::as_bytes));
            let message = Message { partition: Some(Partition(0)), key, value, ..Message::default() };
            self.broker.produce(TOPIC, message).await?;
        }
        self.broker.flush().await?;
        self.program.done(&["run", "--once", "shop.sql"])?;
        Ok(())
    }

    /// Returns the lines of a version, but for the flow's definition.
    fn version(&self, version: u64) -> TestResult<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join(format!("_delta_log/{version:020}.json")))?;
        let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(lines.into_iter().filter(|line| line.get("metaData").is_none()).collect())
    }

    /// Checks that a version is what a block of the page shows: the same actions in the same order, and each as it says.
    fn check_version(&mut self, version: u64, block: &str) -> TestResult {
        let found = self.version(version)?;
        self.check_actions(&found, block).map_err(|error| format!("version {version}: {error}\n{found:#?}").into())
    }

    fn check_actions(&mut self, found: &[Value], block: &str) -> TestResult {
        let shown = shown(block)?;
        if shown.len() != found.len() {
            return Err(format!("{} actions are shown, and {} are there", shown.len(), found.len()).into());
        }
        shown.iter().zip(found).try_for_each(|(shown, found)| self.fits(shown, found, "action"))
    }

    /// Checks that what is shown is found; what is left out on the page may be anything.
    fn fits(&mut self, shown: &Value, found: &Value, at: &str) -> TestResult {
        let Value::Object(fields) = shown else {
            return if shown == found { Ok(()) } else { Err(format!("{at} is {found}, and {shown} is shown").into()) };
        };
        for (name, shown) in fields {
            let found = found.get(name).ok_or_else(|| format!("{at} has no {name}"))?;
            match name.as_str() {
                "path" | "size" | "alluvium.tombstones" => {
                    self.name(name, shown, found)?;
                }
                "stats" => {
                    let parse = |text: &Value| -> TestResult<Value> {
                        Ok(serde_json::from_str(text.as_str().ok_or("stats are no text")?)?)
                    };
                    self.fits(&parse(shown)?, &parse(found)?, "stats")?;
                }
                _ => self.fits(shown, found, name)?,
            }
        }
        Ok(())
    }

    /// Notes what stands on disk for what is shown; it must be the same each time, and no path has two names.
    fn name(&mut self, what: &str, shown: &Value, found: &Value) -> TestResult {
        let name = format!("{what} {shown}");
        let other = self
            .named
            .iter()
            .find(|(other, known)| other.starts_with("path ") && what == "path" && **other != name && *known == found);
        if let Some((other, _)) = other {
            return Err(format!("{found} is both {other} and {name}").into());
        }
        match self.named.insert(name, found.clone()) {
            Some(known) if known != *found => {
                Err(format!("{what} {shown} was {known} before, and is {found} now").into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the path of what the page calls `name`.
    fn path_of(&self, name: &str) -> TestResult<&str> {
        let known = self.named.get(&format!("path {}", json!(name))).and_then(Value::as_str);
        known.ok_or_else(|| format!("no version has added {name}").into())
    }

    /// Returns the key index that the run which made `version` has left.
    fn index(&self, version: u64) -> TestResult<KeyIndex> {
        let bytes = fs::read(self.folder.join(format!("_alluvium/index/{version:020}.snapshot")))?;
        let (of, index) = read_snapshot(&bytes)?;
        assert_eq!(of.version, version);
        Ok(index)
    }

    /// Checks the index of a version against the block that shows it: places, remembered deletes, and nothing beside.
    fn check_index(&self, block: &str) -> TestResult {
        let shown = ShownIndex::parse(block)?;
        let index = self.index(shown.version)?;
        let mut places = BTreeMap::new();
        for (id, (file, row)) in &shown.places {
            places.insert(*id, (self.path_of(file)?.to_owned(), *row));
        }
        let ids: Vec<i64> = (1..=20).collect();
        let keys = keys(&ids)?;
        let each: Vec<_> = ids.iter().enumerate().map(|(at, id)| (*id, keys.get(at), keys.hashes()[at])).collect();
        let found = each.iter().filter_map(|(id, key, hash)| {
            let place = index.find_one(*key, *hash)?;
            Some((*id, (index.file(place.file())?.path.clone(), place.row())))
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), places, "version {}", shown.version);
        let deletes = each.iter().filter_map(|(id, key, hash)| {
            let order = &index.deleted(*key, *hash)?.order;
            let Some(Sequence::Number(micros)) = order.sequence else { return None };
            Some((*id, (micros, order.inherited, order.offset)))
        });
        assert_eq!(deletes.collect::<BTreeMap<_, _>>(), shown.deletes, "version {}", shown.version);
        let taken = index.footprint();
        assert_eq!((taken.n_keys, taken.n_deletes), (places.len() as u64, shown.deletes.len() as u64));
        Ok(())
    }

    /// Asks the program for rows.
    fn sql(&self, text: &str) -> TestResult<Vec<Value>> {
        let rows = self.program.json(&["sql", "--quiet", "--json", "-c", text])?;
        Ok(rows.as_array().cloned().unwrap_or_default())
    }
}

fn keys(ids: &[i64]) -> TestResult<Keys> {
    let column: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    Ok(KeyForm::try_new(vec![DataType::Int64])?.pack(&[column])?)
}

/// Checks the sidecar of the third step against the lines that show it.
fn check_sidecar(orders: &Orders, block: &str) -> TestResult {
    let lines: Vec<Vec<&str>> =
        block.lines().take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect();
    let (head, rows) = lines.split_first().ok_or("no sidecar is shown")?;
    let path = orders.named.iter().find(|(name, _)| name.starts_with("alluvium.tombstones ")).ok_or("no sidecar")?.1;
    let file = fs::File::open(orders.folder.join(path.as_str().ok_or("the sidecar has no path")?))?;
    let batches = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?.collect::<Result<Vec<RecordBatch>, _>>()?;
    let [batch] = &batches[..] else { return Err(format!("{} batches", batches.len()).into()) };
    let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[..], head[1..], "the columns of a sidecar");
    let column = |at: usize| -> TestResult<Vec<i64>> {
        let numbers = cast(batch.column(at), &DataType::Int64)?;
        Ok(numbers.as_primitive::<Int64Type>().values().to_vec())
    };
    let mut shown: [Vec<i64>; 5] = Default::default();
    for row in rows {
        let [id, day, time, partition, offset, over_row] = row[..] else {
            return Err(format!("{row:?} is no delete").into());
        };
        let (at, over_row) = (DateTime::parse_from_rfc3339(&format!("{day}T{time}Z"))?, over_row.parse::<bool>()?);
        let position: [i64; 2] = [partition.parse()?, offset.parse()?];
        let cells: [i64; 5] = [id.parse()?, at.timestamp_micros(), position[0], position[1], i64::from(over_row)];
        shown.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
    }
    assert_eq!([column(0)?, column(1)?, column(2)?, column(3)?, column(4)?], shown);
    Ok(())
}

/// What the lineage record of a version says of its cost, held against its actions: new files, vectors, files touched.
fn effort(orders: &Orders, version: u64) -> TestResult<Value> {
    let actions = orders.version(version)?;
    let all = |kind: &str| actions.iter().filter_map(|action| action.get(kind)).collect::<Vec<_>>();
    let (infos, adds, removes) = (all("commitInfo"), all("add"), all("remove"));
    let removed: BTreeSet<&str> = removes.iter().filter_map(|remove| remove["path"].as_str()).collect();
    let is_new = |add: &&&Value| add["path"].as_str().is_some_and(|path| !removed.contains(path));
    let batch_bytes: u64 = adds.iter().filter(is_new).filter_map(|add| add["size"].as_u64()).sum();
    let vectors: u64 = adds.iter().filter_map(|add| add["deletionVector"]["sizeInBytes"].as_u64()).sum();
    let effort = infos.first().ok_or("no commitInfo")?["alluvium.lineage"]["effort"].clone();
    // Nothing is left of it on disk; the page tells where there was something.
    let discarded = effort["discarded_bytes"].as_u64().ok_or("no discarded_bytes")?;
    let counted = json!({
        "files_touched": removes.len(),
        "batch_bytes": batch_bytes,
        "discarded_bytes": discarded,
        "bytes_written": batch_bytes + discarded + vectors,
    });
    assert_eq!(effort, counted, "version {version}");
    Ok(effort)
}

/// Checks the table of costs, commit by commit; of bytes, what vectors add to the others, and whether any were discarded.
fn check_costs(orders: &Orders, block: &str) -> TestResult {
    let lines: Vec<Vec<&str>> = block.lines().map(|line| line.split_whitespace().collect()).collect();
    let (head, rows) = lines.split_first().ok_or("no costs are shown")?;
    let asked = head.join(", ");
    let asked = format!("SELECT {asked} FROM system.commits WHERE flow = 'orders_upsert' ORDER BY version");
    let found = orders.sql(&asked)?;
    assert_eq!(found.len(), rows.len(), "{found:?}");
    for (row, found) in rows.iter().zip(&found) {
        let mut shown = BTreeMap::new();
        for (name, cell) in head.iter().zip(row) {
            shown.insert(*name, cell.parse::<u64>()?);
        }
        for (name, shown) in shown.iter().filter(|(name, _)| !name.contains("bytes")) {
            assert_eq!(found[*name], json!(shown), "{name} of {found}");
        }
        let bytes = ["batch_bytes", "discarded_bytes", "bytes_written"];
        let vectors = |[own, discarded, written]: [Option<u64>; 3]| written?.checked_sub(own? + discarded?);
        let (found_bytes, shown_bytes) =
            (bytes.map(|name| found[name].as_u64()), bytes.map(|name| shown.get(name).copied()));
        assert_eq!(vectors(found_bytes), vectors(shown_bytes), "vectors of {found}");
        assert_eq!(found_bytes[1] > Some(0), shown_bytes[1] > Some(0), "what {found} discarded");
    }
    Ok(())
}

/// Checks that `EXPLAIN UPSERT` sums up what the log says of these versions.
fn check_explained(orders: &Orders, versions: &[u64]) -> TestResult {
    let efforts = versions.iter().map(|version| effort(orders, *version)).collect::<TestResult<Vec<_>>>()?;
    let numbers = |name: &str| efforts.iter().filter_map(|effort| effort[name].as_u64()).collect::<Vec<u64>>();
    let sum = |name: &str| numbers(name).iter().sum::<u64>();
    let explained = orders.sql("EXPLAIN UPSERT orders_upsert")?;
    let [explained] = &explained[..] else { return Err(format!("{explained:?}").into()) };
    let n_commits = versions.len();
    let counts = [
        ("commits", n_commits as u64),
        ("files_touched_max", numbers("files_touched").into_iter().max().unwrap_or_default()),
        ("batch_bytes", sum("batch_bytes")),
        ("discarded_bytes", sum("discarded_bytes")),
        ("bytes_written", sum("bytes_written")),
    ];
    for (name, wanted) in counts {
        assert_eq!(explained[name], json!(wanted), "{name} of {explained}");
    }
    let amplified = |written: u64, own: u64| written as f64 / own as f64;
    let each = numbers("bytes_written").into_iter().zip(numbers("batch_bytes"));
    let ratios = [
        ("files_touched", sum("files_touched") as f64 / n_commits as f64),
        ("amplification", amplified(sum("bytes_written"), sum("batch_bytes"))),
        ("amplification_max", each.map(|(written, own)| amplified(written, own)).fold(0.0, f64::max)),
    ];
    for (name, wanted) in ratios {
        let found = explained[name].as_f64().ok_or_else(|| format!("no {name} in {explained}"))?;
        assert!((found - wanted).abs() < 1e-9, "{name} is {found}, and the log says {wanted}");
    }
    assert_eq!((&explained["table"], &explained["mode"]), (&json!("silver.orders"), &json!("merge-on-read")));
    Ok(())
}

/// Lands the records of a step's table, and checks that each has the fate that it tells.
async fn land_step(orders: &Orders, page: &Page, number: u32, first: usize) -> TestResult {
    let records = records(page.step(number)?, first)?;
    assert_eq!(records.len(), 4, "step {number}");
    orders.land(records.iter().map(|(record, _)| record)).await?;
    let info = orders.version(u64::from(number))?.first().ok_or("an empty version")?["commitInfo"].clone();
    let count = |wanted: &str| records.iter().filter(|(_, fate)| fate == wanted).count();
    let fate = &info["alluvium.lineage"]["fate"];
    assert_eq!((&fate["applied"], &fate["merged"]), (&json!(count("applied")), &json!(count("merged"))), "{fate}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worked_example_leaves_what_its_page_shows() -> TestResult {
    let page = Page::read()?;
    let mut orders = Orders::open(&page.statements()?)?;
    page.says("Compaction was off until step 4 (`upkeep.compaction = false`).")?;
    orders.program.write("alluvium.toml", "[upkeep]\ncompaction = false\n")?;

    orders.land(&first_records(&page)?).await?;
    orders.check_version(1, actions_of(page.step(1)?).first().ok_or("step 1 shows no actions")?)?;
    orders.check_index(&block_with(page.step(1)?, "key index at version 1")?)?;

    land_step(&orders, &page, 2, 8).await?;
    orders.check_version(2, actions_of(page.step(2)?).first().ok_or("step 2 shows no actions")?)?;

    land_step(&orders, &page, 3, 12).await?;
    orders.check_version(3, actions_of(page.step(3)?).first().ok_or("step 3 shows no actions")?)?;
    let block = block_with(page.step(3)?, "key index at version 3")?;
    check_sidecar(&orders, &block)?;
    orders.check_index(&block)?;
    page.says("A: rows 0, 1, 3, 4 of 8 deleted")?;
    let hidden = orders.index(3)?.deleted_rows(orders.path_of("A")?).cloned();
    assert_eq!(hidden, Some(RoaringTreemap::from_iter([0, 1, 3, 4])));

    page.says("Offset 16, order 1, PACKED at 11:00, is late by the delete of 12:01 (`merged`).")?;
    page.says("Offset 17, order 4, REOPENED at 12:30, is newer than its delete")?;
    orders.program.write("alluvium.toml", "")?;
    orders.land(&[Record::order(1, "PACKED", "11:00"), Record::order(4, "REOPENED", "12:30")]).await?;
    page.says("Besides `commitInfo`, version 4 is a `txn` and one `add`.")?;
    let block = r#"{"commitInfo":{}}
{"txn":{"version":18}}
{"add":{"path":"D","dataChange":true}}"#;
    orders.check_version(4, block)?;
    orders.check_version(5, actions_of(page.step(4)?).first().ok_or("step 4 shows no actions")?)?;
    orders.check_index(&block_with(page.step(4)?, "key index at version 5")?)?;
    page.says("`SELECT *, _alluvium_offset FROM silver.orders` still says offset 2 of order 3.")?;
    let moved = orders.sql("SELECT *, _alluvium_offset FROM silver.orders WHERE order_id = 3")?;
    assert_eq!(moved.iter().map(|row| &row["_alluvium_offset"]).collect::<Vec<_>>(), [2], "{moved:?}");

    check_costs(&orders, &block_with(page.section("## What it costs")?, "rows_inserted")?)?;
    check_explained(&orders, &[1, 2, 3, 4])?;
    page.says("`alluvium vacuum silver.orders --dry-run` counted none here")?;
    let counted = orders.program.json(&["vacuum", "silver.orders", "--dry-run", "--json"])?;
    assert_eq!(counted["files"], 0, "{counted}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_step_in_copy_on_write_is_the_commit_that_the_page_shows() -> TestResult {
    let page = Page::read()?;
    page.says(COPY_ON_WRITE)?;
    let statements = page.statements()?;
    let key = "PRIMARY KEY (order_id) NOT ENFORCED)";
    assert_eq!(statements.matches(key).count(), 1, "{statements}");
    let mut orders = Orders::open(&statements.replace(key, &format!("{key} {COPY_ON_WRITE}")))?;
    orders.program.write("alluvium.toml", "[upkeep]\ncompaction = false\n")?;
    orders.land(&first_records(&page)?).await?;
    orders.check_version(1, actions_of(page.step(1)?).first().ok_or("step 1 shows no actions")?)?;
    land_step(&orders, &page, 2, 8).await?;
    let files: Vec<Value> =
        orders.version(2)?.into_iter().filter(|action| action.get("txn").is_none()).skip(1).collect();
    let shown = actions_of(page.section("## Against copy-on-write")?);
    orders.check_actions(&files, shown.first().ok_or("no commit is shown")?)
}
