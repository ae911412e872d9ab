//! What the scan of a Delta table promises, tested: above all that it reads what deltalake's own scan reads.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::common::stats::Precision;
use datafusion::datasource::physical_plan::FileGroupPartitioner;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::DeltaTableBuilder;
use roaring::RoaringTreemap;
use serde_json::json;

use super::super::fixture::{
    Lake, TestResult, VectorPlace, actions, append, commit_vectors, create, lines, live_adds, n_rows, people,
    write_commit,
};
use super::super::{OpenTable, Version, delta};
use super::*;
use crate::compile::plan::dialect_session;

/// Chance that is the same on each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (self.below(5) > 0).then_some(value)
    }
}

/// A session that splits even the smallest file.
fn session(threads: usize) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(threads).with_batch_size(50);
    config.options_mut().optimizer.repartition_file_min_size = 1;
    dialect_session(config, Arc::default())
}

async fn plan(table: &OpenTable, query: &str) -> TestResult<Arc<dyn ExecutionPlan>> {
    let session = session(3);
    session.register_table("t", table.provider_with_hidden())?;
    Ok(session.sql(query).await?.create_physical_plan().await?)
}

/// Returns the rows of an answer, without the line of column names.
async fn answer(table: &OpenTable, query: &str) -> TestResult<Vec<String>> {
    let session = session(3);
    session.register_table("t", table.provider_with_hidden())?;
    rows(&session, query).await
}

async fn rows(session: &SessionContext, query: &str) -> TestResult<Vec<String>> {
    let batches = session.sql(query).await?.collect().await.map_err(|cause| format!("{query}: {cause}"))?;
    Ok(lines(&batches)?.into_iter().skip(1).collect())
}

/// The data files that a plan opens.
fn files_of(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut files = Vec::new();
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>()
        && let Some((config, _)) = scan.downcast_to_file_source::<ParquetSource>()
    {
        files.extend(config.file_groups.iter().flat_map(FileGroup::iter).map(|file| file.path().to_string()));
    }
    files.extend(plan.children().into_iter().flat_map(files_of));
    files.sort();
    files.dedup();
    files
}

fn text_of(plan: &Arc<dyn ExecutionPlan>) -> String {
    displayable(plan.as_ref()).indent(true).to_string()
}

/// Appends with row groups of 40 rows, pages of 10, and bloom filters.
async fn append_in_groups(location: &Location, batch: RecordBatch) -> TestResult {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(40))
        .set_data_page_row_count_limit(10)
        .set_write_batch_size(10)
        .set_bloom_filter_enabled(true)
        .build();
    let table = DeltaTableBuilder::from_url(location.url()?)?.load().await?;
    table.write([batch]).with_writer_properties(properties).await?;
    Ok(())
}

fn random_rows(dice: &mut Dice, first_id: i64, n_rows: i64, partition: &[Option<&str>]) -> TestResult<RecordBatch> {
    let ids: Vec<i64> = (first_id..first_id + n_rows).collect();
    let chosen: Vec<Option<&str>> =
        ids.iter().map(|_| partition[dice.below(partition.len() as u64) as usize]).collect();
    let names: Vec<Option<String>> = ids.iter().map(|id| dice.maybe(format!("name {}", id % 97))).collect();
    let counts: Vec<Option<i32>> = ids.iter().map(|id| dice.maybe(*id as i32 / 3)).collect();
    let amounts: Vec<Option<f64>> = ids.iter().map(|id| dice.maybe(*id as f64 / 7.0)).collect();
    let days: Vec<Option<i32>> = ids.iter().map(|id| dice.maybe(20_000 + *id as i32 / 50)).collect();
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("id", Arc::new(Int64Array::from(ids)), true),
        ("part", Arc::new(StringArray::from(chosen)), true),
        ("name", Arc::new(StringArray::from(names)), true),
        ("n", Arc::new(Int32Array::from(counts)), true),
        ("amount", Arc::new(Float64Array::from(amounts)), true),
        ("day", Arc::new(Date32Array::from(days)), true),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn random_vector(dice: &mut Dice, n_rows: u64) -> RoaringTreemap {
    match dice.below(7) {
        6 => RoaringTreemap::from_iter((0..n_rows).filter(|row| row / 300 % 2 == 0)),
        0 => RoaringTreemap::new(),
        1 => RoaringTreemap::from_iter(0..n_rows),
        2 => RoaringTreemap::from_iter((0..n_rows).filter(|row| row % 2 == 0)),
        3 => {
            let first = dice.below(n_rows);
            RoaringTreemap::from_iter(first..(first + dice.below(100)).min(n_rows))
        }
        4 => RoaringTreemap::from_iter([n_rows - 1]),
        _ => RoaringTreemap::from_iter((0..n_rows).filter(|_| dice.below(20) == 0)),
    }
}

/// Queries of a random table; those without ORDER BY are compared as sets.
const QUERIES: [&str; 27] = [
    "SELECT * FROM t",
    "SELECT amount, id, part FROM t",
    "SELECT part FROM t",
    "SELECT count(*) FROM t",
    "SELECT count(*), count(id), count(name), count(n), count(part), count(amount), count(day) FROM t",
    "SELECT min(id), max(id), min(n), max(n), min(day), max(day) FROM t",
    "SELECT min(name), max(name), min(part), max(part), min(amount), max(amount), sum(id) FROM t",
    "SELECT * FROM t WHERE id = 117",
    "SELECT id FROM t WHERE id IN (3, 117, 290, 100000)",
    "SELECT id, name FROM t WHERE id BETWEEN 90 AND 130",
    "SELECT id FROM t WHERE id % 7 = 3 AND amount > 10",
    "SELECT id FROM t WHERE name = 'name 13'",
    "SELECT id FROM t WHERE name > 'name 8' OR n < 5",
    "SELECT id FROM t WHERE n IS NULL",
    "SELECT id FROM t WHERE n IS NOT NULL AND name IS NULL",
    "SELECT id FROM t WHERE part = 'a b%/c'",
    "SELECT id FROM t WHERE part IS NULL",
    "SELECT id FROM t WHERE part IN ('x', 'y') AND n > 20",
    "SELECT id FROM t WHERE part = 'x' OR id < 40",
    "SELECT count(*) FROM t WHERE part = 'x'",
    "SELECT count(*) FROM t WHERE day >= DATE '2024-10-05'",
    "SELECT part, count(*), sum(n) FROM t GROUP BY part",
    "SELECT id FROM t ORDER BY id DESC LIMIT 9",
    "SELECT count(*) FROM (SELECT * FROM t LIMIT 60)",
    "SELECT a.id, b.name FROM t a JOIN t b ON a.id = b.id + 1 WHERE b.n > 3",
    "SELECT id FROM t WHERE amount > 20 ORDER BY amount DESC, id LIMIT 7",
    "SELECT count(*) FROM t WHERE id / 3 = n",
];

async fn check_random_table(seed: u64) -> TestResult {
    let mut dice = Dice(seed);
    let lake = Lake::new()?;
    let location = lake.location("random")?;
    let parts: &[Option<&str>] =
        if dice.below(2) == 0 { &[Some("x"), Some("y"), Some("a b%/c"), None] } else { &[Some("x"), None] };
    let schema = random_rows(&mut dice, 0, 1, parts)?.schema();
    let partitioned_by: &[&str] = if dice.below(2) == 0 { &["part"] } else { &[] };
    create(&location, &schema, partitioned_by).await?;
    let mut next_id = 0;
    let mut version = 0;
    for _ in 0..2 + dice.below(3) {
        // Now and then so many that blocks of deleted rows are few runs.
        let rows_max = if dice.below(3) == 0 { 2_000 } else { 200 };
        let n_rows = 1 + dice.below(rows_max) as i64;
        append_in_groups(&location, random_rows(&mut dice, next_id, n_rows, parts)?).await?;
        next_id += n_rows;
        version += 1;
    }
    for place in [VectorPlace::Inline, VectorPlace::File] {
        let mut vectors = BTreeMap::new();
        for add in live_adds(&location, version)? {
            // Files that have a vector keep it in the second round, so that both places are read in one scan.
            if add["deletionVector"].is_null() && dice.below(3) > 0 {
                let path = add["path"].as_str().ok_or("no path")?.to_owned();
                vectors.insert(path, random_vector(&mut dice, n_rows(&add)?));
            }
        }
        commit_vectors(&location, version, &vectors, place)?;
        version += 1;
    }
    let table = lake.reader.open(&location, Version::Latest).await?;
    let session = session(1 + dice.below(4) as usize);
    for query in QUERIES {
        let mut answers = Vec::new();
        let theirs: Arc<dyn TableProvider> = Arc::new(delta::deltalake_scan(&location, &table.snapshot)?);
        for provider in [theirs, table.provider()] {
            session.deregister_table("t")?;
            session.register_table("t", provider)?;
            let mut rows = rows(&session, query).await?;
            if !query.contains("ORDER BY") {
                rows.sort();
            }
            answers.push(rows);
        }
        assert_eq!(answers[1], answers[0], "seed {seed}: {query}");
    }
    Ok(())
}

#[tokio::test]
async fn random_tables_are_read_as_deltalake_reads_them() -> TestResult {
    for seed in 0..12 {
        check_random_table(seed).await?;
    }
    Ok(())
}

/// Three files: ids 0 to 9, 10 to 19 and 20 to 29.
async fn thirty(lake: &Lake) -> TestResult<Location> {
    let batch = |first: i64| people(&(first..first + 10).map(|id| (id, "x")).collect::<Vec<_>>());
    lake.table("people", &[batch(0)?, batch(10)?, batch(20)?]).await
}

/// Deletes these rows of each of the files of version 3.
async fn thirty_without(lake: &Lake, deleted: &[u64]) -> TestResult<OpenTable> {
    let location = thirty(lake).await?;
    let mut vectors = BTreeMap::new();
    for add in live_adds(&location, 3)? {
        let path = add["path"].as_str().ok_or("no path")?.to_owned();
        vectors.insert(path, RoaringTreemap::from_iter(deleted.iter().copied()));
    }
    commit_vectors(&location, 3, &vectors, VectorPlace::File)?;
    Ok(lake.reader.open(&location, Version::Latest).await?)
}

#[tokio::test]
async fn a_key_opens_the_file_whose_bounds_hold_it() -> TestResult {
    let lake = Lake::new()?;
    let table = thirty_without(&lake, &[3]).await?;
    let check = async |query: &str, n_files: usize, n_rows: usize| -> TestResult {
        assert_eq!(files_of(&plan(&table, query).await?).len(), n_files, "{query}");
        assert_eq!(answer(&table, query).await?.len(), n_rows, "{query}");
        Ok(())
    };
    check("SELECT * FROM t WHERE id = 14", 1, 1).await?;
    check("SELECT * FROM t WHERE id = 13", 1, 0).await?;
    check("SELECT * FROM t WHERE id IN (4, 24)", 2, 2).await?;
    check("SELECT * FROM t WHERE id >= 15", 2, 14).await?;
    check("SELECT * FROM t WHERE id > 1000", 0, 0).await?;
    check("SELECT * FROM t WHERE id IS NULL", 0, 0).await?;
    check("SELECT * FROM t WHERE name = 'x'", 3, 27).await
}

#[tokio::test]
async fn partition_values_decide_which_files_are_opened() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("people")?;
    let schema = people(&[])?.schema();
    create(&location, &schema, &["name"]).await?;
    append(&location, people(&[(1, "a"), (2, "b"), (3, "c")])?).await?;
    let is_of_a = |action: &serde_json::Value| action["add"]["partitionValues"]["name"] == "a";
    let mut unnamed = actions(&location, 1)?.into_iter().find(is_of_a).ok_or("no file for a")?;
    unnamed["add"]["partitionValues"]["name"] = json!(null);
    write_commit(&location, 2, &[unnamed])?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let check = async |condition: &str, n_files: usize| -> TestResult {
        let query = format!("SELECT id FROM t WHERE {condition}");
        let planned = plan(&table, &query).await?;
        assert_eq!(files_of(&planned).len(), n_files, "{condition}");
        assert!(!text_of(&planned).contains("FilterExec"), "{condition} was left to the rows");
        assert_eq!(answer(&table, &query).await?.len(), n_files, "{condition}");
        Ok(())
    };
    check("name IS NULL", 1).await?;
    check("name IS NOT NULL", 2).await?;
    check("name >= 'c'", 1).await?;
    check("upper(name) LIKE 'C%'", 1).await?;
    check("name = 'nobody'", 0).await?;
    let counted = plan(&table, "SELECT count(*) FROM t WHERE name = 'c'").await?;
    assert!(files_of(&counted).is_empty(), "{}", text_of(&counted));
    Ok(())
}

#[tokio::test]
async fn counts_come_from_the_log_without_reading_files() -> TestResult {
    let lake = Lake::new()?;
    let table = thirty_without(&lake, &[0, 9]).await?;
    let counted = plan(&table, "SELECT count(*) FROM t").await?;
    assert!(files_of(&counted).is_empty(), "{}", text_of(&counted));
    assert_eq!(answer(&table, "SELECT count(*) FROM t").await?, ["24"]);
    let rows = table.provider().statistics().ok_or("a query was planned, and nothing is known")?.num_rows;
    assert_eq!(rows, Precision::Exact(24));
    Ok(())
}

#[tokio::test]
async fn a_session_reads_the_footer_of_a_file_once() -> TestResult {
    let lake = Lake::new()?;
    let location = thirty(&lake).await?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let (session, query) = (session(3), "SELECT id FROM t ORDER BY id");
    session.register_table("t", table.provider_with_hidden())?;
    let expected: Vec<String> = (0..30).map(|id| id.to_string()).collect();
    assert_eq!(rows(&session, query).await?, expected);
    // Whoever reads a footer again finds out: it ends with a magic number.
    let mut n_damaged = 0;
    for entry in std::fs::read_dir(location.local_path().ok_or("not on disk")?)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            let mut bytes = std::fs::read(&path)?;
            let place = bytes.len() - 1;
            bytes[place] ^= 1;
            std::fs::write(&path, bytes)?;
            n_damaged += 1;
        }
    }
    assert_eq!(n_damaged, 3);
    assert_eq!(rows(&session, query).await?, expected);
    session.runtime_env().cache_manager.get_file_metadata_cache().clear();
    let refused = rows(&session, query).await.err().ok_or("a damaged footer was taken")?.to_string();
    assert!(refused.contains("Corrupt footer"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn bounds_of_files_with_deleted_rows_never_answer_min_or_max() -> TestResult {
    let lake = Lake::new()?;
    let query = "SELECT min(id), max(id), count(id), count(name) FROM t";
    let whole = lake.reader.open(&thirty(&lake).await?, Version::At(3)).await?;
    assert!(files_of(&plan(&whole, query).await?).is_empty(), "exact bounds were not used");
    assert_eq!(answer(&whole, query).await?[0], "0|29|30|30");
    let lake = Lake::new()?;
    let table = thirty_without(&lake, &[0, 9]).await?;
    assert_eq!(files_of(&plan(&table, query).await?).len(), 3);
    assert_eq!(answer(&table, query).await?[0], "1|28|24|24");
    Ok(())
}

#[tokio::test]
async fn files_without_live_rows_are_not_opened() -> TestResult {
    let lake = Lake::new()?;
    let all: Vec<u64> = (0..10).collect();
    let table = thirty_without(&lake, &all).await?;
    assert!(files_of(&plan(&table, "SELECT id FROM t").await?).is_empty());
    assert_eq!(answer(&table, "SELECT count(*), max(id) FROM t").await?[0], "0|");
    let empty = lake.reader.open(table.location(), Version::At(0)).await?;
    assert_eq!(answer(&empty, "SELECT count(*), max(id) FROM t").await?[0], "0|");
    assert!(answer(&empty, "SELECT name, id FROM t").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_limit_opens_no_more_files_than_it_needs() -> TestResult {
    let lake = Lake::new()?;
    let table = thirty_without(&lake, &[0]).await?;
    let check = async |limit: usize, n_files: usize| -> TestResult {
        let query = format!("SELECT id FROM t LIMIT {limit}");
        assert_eq!(files_of(&plan(&table, &query).await?).len(), n_files, "{query}");
        assert_eq!(answer(&table, &query).await?.len(), limit.min(27), "{query}");
        Ok(())
    };
    check(9, 1).await?;
    check(10, 2).await?;
    check(100, 3).await?;
    assert_eq!(answer(&table, "SELECT id FROM t WHERE id > 25 LIMIT 3").await?.len(), 3);
    Ok(())
}

/// The cut between two ranges must not fall behind the begin of a file that was meant for the second one.
#[test]
fn a_scan_gives_each_thread_the_files_that_make_it_as_long_as_the_others() {
    /// Where a file's first row group lies.
    const FIRST_BYTE: i64 = 4;
    let mut dice = Dice(7);
    for round in 0..300 {
        let (n_threads, each) = (2 + dice.below(7), 1 + dice.below(4));
        // Files of about the same size, as batches make them, so that each thread gets as many.
        let sizes = (0..n_threads * each).map(|_| 1_000_000 + dice.below(if round % 3 == 0 { 1 } else { 20_000 }));
        let files: Vec<_> = sizes.map(|size| PartitionedFile::new("file", size)).collect();
        let n_threads = usize::try_from(n_threads).unwrap_or_default();
        let partitioner =
            FileGroupPartitioner::new().with_target_partitions(n_threads).with_repartition_file_min_size(1);
        let cut = partitioner.repartition_file_groups(&groups(files, n_threads)).unwrap_or_default();
        let begins = |file: &&PartitionedFile| {
            file.range.as_ref().is_none_or(|range| (range.start..range.end).contains(&FIRST_BYTE))
        };
        let read: Vec<usize> = cut.iter().map(|group| group.iter().filter(begins).count()).collect();
        assert_eq!(read, vec![usize::try_from(each).unwrap_or_default(); n_threads], "round {round}");
    }
}

#[tokio::test]
async fn a_file_is_read_in_ranges_whatever_its_vector_deletes() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("wide")?;
    let ids: Vec<(i64, &str)> = (0..1_000).map(|id| (id, "x")).collect();
    create(&location, &people(&[])?.schema(), &[]).await?;
    append_in_groups(&location, people(&ids)?).await?;
    let path = live_adds(&location, 1)?[0]["path"].as_str().ok_or("no path")?.to_owned();
    let deleted = RoaringTreemap::from_iter((0..1_000).filter(|id| id % 3 == 0 || (200..300).contains(id)));
    let expected: Vec<String> = (0..1_000).filter(|id| !deleted.contains(*id)).map(|id| id.to_string()).collect();
    commit_vectors(&location, 1, &BTreeMap::from([(path, deleted)]), VectorPlace::File)?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let planned = plan(&table, "SELECT id FROM t").await?;
    assert_eq!(planned.properties().output_partitioning().partition_count(), 3, "{}", text_of(&planned));
    assert_eq!(answer(&table, "SELECT id FROM t ORDER BY id").await?, expected);
    let even = answer(&table, "SELECT id FROM t WHERE id % 2 = 0 AND id > 195 ORDER BY id").await?;
    let expected: Vec<&String> =
        expected.iter().filter(|id| id.parse().is_ok_and(|id: u64| id.is_multiple_of(2) && id > 195)).collect();
    assert_eq!(even.iter().collect::<Vec<_>>(), expected);
    Ok(())
}

#[tokio::test]
async fn a_flipped_bit_in_a_vector_refuses_the_rows_of_its_file_and_names_it() -> TestResult {
    let lake = Lake::new()?;
    let table = thirty_without(&lake, &[1, 3, 5]).await?;
    let folder = lake.location("people")?.local_path().ok_or("not on disk")?;
    let names = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<TestResult<Vec<_>>>()?;
    let file = names.iter().find(|path| path.extension().is_some_and(|end| end == "bin")).ok_or("no vectors")?;
    let mut bytes = std::fs::read(file)?;
    // Within the last vector, which is that of one of three files.
    let place = bytes.len() - 6;
    bytes[place] ^= 1;
    std::fs::write(file, &bytes)?;
    let refused = answer(&table, "SELECT sum(id) FROM t").await.err().ok_or("a damaged vector was taken")?.to_string();
    let name = file.file_name().ok_or("no name")?.to_string_lossy();
    assert!(refused.contains(&*name) && refused.contains("does not have its checksum"), "{refused}");

    bytes[place] ^= 1;
    std::fs::write(file, &bytes)?;
    assert_eq!(answer(&table, "SELECT count(DISTINCT id) FROM t").await?, ["21"]);
    Ok(())
}

#[tokio::test]
async fn filters_reach_the_parquet_reader_beside_vectors() -> TestResult {
    let lake = Lake::new()?;
    let table = thirty_without(&lake, &[0]).await?;
    let text = text_of(&plan(&table, "SELECT id FROM t WHERE id > 5 AND name LIKE 'x%' AND id NOT IN (7, 9)").await?);
    assert!(text.contains("predicate=id") && !text.contains("FilterExec"), "{text}");
    assert_eq!(answer(&table, "SELECT count(*) FROM t WHERE id > 5 AND id NOT IN (7, 9)").await?, ["20"]);
    Ok(())
}

#[tokio::test]
async fn a_filter_that_fails_for_a_deleted_row_alone_does_not_fail() -> TestResult {
    let lake = Lake::new()?;
    // Zero and twenty rows more of each file are deleted.
    let table = thirty_without(&lake, &[0]).await?;
    for query in ["SELECT id FROM t WHERE 100 / id > 19", "SELECT id FROM t WHERE 100 / id > 19 AND id < 29"] {
        let text = text_of(&plan(&table, query).await?);
        assert!(text.contains("LiveRowsExec") && text.contains("FilterExec"), "{text}");
        assert_eq!(answer(&table, &format!("{query} ORDER BY id")).await?, ["1", "2", "3", "4", "5"]);
    }
    let text = text_of(&plan(&table, "SELECT id FROM t WHERE 100 / id > 19 AND id < 29").await?);
    assert!(text.contains("predicate=id"), "{text}");
    Ok(())
}

#[tokio::test]
async fn columns_are_not_mistaken_for_the_places_of_rows() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("named")?;
    let column = |first: i64| Arc::new(Int64Array::from_iter_values(first..first + 10)) as ArrayRef;
    let names = ["_alluvium_row", "id", "_alluvium_file", "_alluvium_row_"];
    let columns = names.iter().zip([100, 0, 200, 300]).map(|(name, first)| (*name, column(first), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    create(&location, &batch.schema(), &[]).await?;
    append(&location, batch).await?;
    let path = live_adds(&location, 1)?[0]["path"].as_str().ok_or("no path")?.to_owned();
    let deleted = RoaringTreemap::from_iter([0, 2, 4, 6, 8]);
    commit_vectors(&location, 1, &BTreeMap::from([(path, deleted)]), VectorPlace::Inline)?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let query = "SELECT id, _alluvium_row, _alluvium_file, _alluvium_row_ FROM t WHERE _alluvium_row < 104";
    assert_eq!(answer(&table, query).await?, ["1|101|201|301", "3|103|203|303"]);
    Ok(())
}

#[tokio::test]
async fn columns_that_a_file_does_not_have_are_null() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    let created = actions(&location, 0)?;
    let mut metadata = created.into_iter().find(|action| action["metaData"].is_object()).ok_or("no metadata")?;
    let text = metadata["metaData"]["schemaString"].as_str().ok_or("no schema")?;
    let mut schema: serde_json::Value = serde_json::from_str(text)?;
    let member = json!({"name": "city", "type": "string", "nullable": true, "metadata": {}});
    let nested = json!({"type": "struct", "fields": [member]});
    let fields = schema["fields"].as_array_mut().ok_or("no fields")?;
    fields.push(json!({"name": "age", "type": "integer", "nullable": true, "metadata": {}}));
    fields.push(json!({"name": "home", "type": nested, "nullable": true, "metadata": {}}));
    metadata["metaData"]["schemaString"] = json!(schema.to_string());
    write_commit(&location, 2, &[metadata])?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(answer(&table, "SELECT age, id, home FROM t").await?, ["|1|"]);
    assert_eq!(answer(&table, "SELECT id FROM t WHERE age IS NULL AND home.city IS NULL").await?.len(), 1);
    assert!(answer(&table, "SELECT id FROM t WHERE age > 3").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn nested_columns_come_as_they_were_written() -> TestResult {
    use arrow::array::{ListArray, StructArray};
    use arrow::datatypes::Int64Type;

    let lake = Lake::new()?;
    let location = lake.location("nested")?;
    let members =
        Fields::from(vec![Field::new("city", DataType::Utf8, true), Field::new("zip", DataType::Int64, true)]);
    let cities: ArrayRef = Arc::new(StringArray::from(vec![Some("bonn"), None]));
    let zips: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(2)]));
    let homes = StructArray::try_new(members, vec![cities, zips], None)?;
    let counts = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let columns: [(&str, ArrayRef, bool); 3] =
        [("id", ids, true), ("home", Arc::new(homes), true), ("counts", Arc::new(counts), true)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    create(&location, &batch.schema(), &[]).await?;
    append(&location, batch).await?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(answer(&table, "SELECT counts, home.city, id FROM t ORDER BY id").await?, ["[1, ]|bonn|1", "||2"]);
    assert_eq!(answer(&table, "SELECT id FROM t WHERE home.zip = 2").await?, ["2"]);
    Ok(())
}

#[tokio::test]
async fn a_vector_that_does_not_fit_its_file_is_bad_data() -> TestResult {
    let lake = Lake::new()?;
    let location = thirty(&lake).await?;
    let path = live_adds(&location, 3)?[0]["path"].as_str().ok_or("no path")?.to_owned();
    let far = BTreeMap::from([(path.clone(), RoaringTreemap::from_iter([10]))]);
    commit_vectors(&location, 3, &far, VectorPlace::Inline)?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let refused = answer(&table, "SELECT id FROM t").await.err().ok_or("a row that is not there was deleted")?;
    assert!(refused.to_string().contains("of a file of 10 rows"), "{refused}");
    let near = BTreeMap::from([(path, RoaringTreemap::from_iter([1]))]);
    commit_vectors(&location, 3, &near, VectorPlace::File)?;
    let folder = location.local_path().ok_or("not on disk")?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let mut bytes = std::fs::read(&path)?;
            if let Some(byte) = bytes.get_mut(12) {
                *byte ^= 1;
            }
            std::fs::write(&path, bytes)?;
        }
    }
    let table = lake.reader.open(&location, Version::Latest).await?;
    let refused = answer(&table, "SELECT id FROM t").await.err().ok_or("a damaged vector was read")?;
    assert!(refused.to_string().contains("checksum"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_file_outside_the_table_is_not_read() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    let mut foreign = actions(&location, 1)?.into_iter().find(|action| action["add"].is_object()).ok_or("no add")?;
    foreign["add"]["path"] = json!("file:///elsewhere/part-0.parquet");
    write_commit(&location, 2, &[foreign])?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let refused = answer(&table, "SELECT id FROM t").await.err().ok_or("a foreign file was read")?;
    assert!(refused.to_string().contains("it lies outside the table"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn tables_with_mapped_columns_are_read_by_deltalake() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann"), (2, "bob")])?]).await?;
    let created = actions(&location, 0)?;
    let mut metadata = created.into_iter().find(|action| action["metaData"].is_object()).ok_or("no metadata")?;
    let text = metadata["metaData"]["schemaString"].as_str().ok_or("no schema")?;
    let mut schema: serde_json::Value = serde_json::from_str(text)?;
    let fields = schema["fields"].as_array_mut().ok_or("no fields")?;
    for (index, field) in fields.iter_mut().enumerate() {
        let physical = field["name"].clone();
        field["metadata"] = json!({"delta.columnMapping.id": index + 1, "delta.columnMapping.physicalName": physical});
    }
    fields[1]["name"] = json!("called");
    metadata["metaData"]["schemaString"] = json!(schema.to_string());
    metadata["metaData"]["configuration"] =
        json!({"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2"});
    let protocol = json!({"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}});
    write_commit(&location, 2, &[protocol, metadata])?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(answer(&table, "SELECT called, id FROM t WHERE called = 'bob'").await?, ["bob|2"]);
    assert!(!text_of(&plan(&table, "SELECT id FROM t").await?).starts_with("DataSourceExec"));
    Ok(())
}

#[tokio::test]
async fn schemas_without_nested_members_or_with_optional_ones_are_our_own() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("strict")?;
    let members = Fields::from(vec![Field::new("city", DataType::Utf8, false)]);
    let schema =
        Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("home", DataType::Struct(members), true)]);
    create(&location, &schema, &[]).await?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let plain = lake.reader.open(&thirty(&lake).await?, Version::Latest).await?;
    assert!(text_of(&plan(&plain, "SELECT id FROM t").await?).starts_with("DataSourceExec"));
    assert!(!text_of(&plan(&table, "SELECT id FROM t").await?).starts_with("DataSourceExec"));
    Ok(())
}

/// Writes a table with these columns, and a file of another writer as its version 1.
async fn of_another_writer(lake: &Lake, schema: &Schema, file: &[u8], n_rows: usize) -> TestResult<Location> {
    let location = lake.location("foreign")?;
    create(&location, schema, &[]).await?;
    std::fs::write(location.local_path().ok_or("not on disk")?.join("foreign.parquet"), file)?;
    let add = json!({"add": {
        "path": "foreign.parquet", "partitionValues": {}, "size": file.len(), "modificationTime": 0,
        "dataChange": true, "stats": json!({"numRecords": n_rows}).to_string()
    }});
    write_commit(&location, 1, &[add])?;
    Ok(location)
}

/// Deletes the first row of the file of another writer, which makes version 2.
fn delete_the_first(location: &Location) -> TestResult {
    let vectors = BTreeMap::from([("foreign.parquet".to_owned(), RoaringTreemap::from_iter([0]))]);
    commit_vectors(location, 1, &vectors, VectorPlace::Inline)
}

/// Other writers leave NaN out of bounds, by which all rows of this file seem to match.
#[tokio::test]
async fn a_nan_in_a_file_of_another_writer_is_no_match_of_filters_that_it_does_not_match() -> TestResult {
    use datafusion::parquet::arrow::ArrowWriter;

    let columns: [(&str, ArrayRef, bool); 2] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4])), true),
        ("x", Arc::new(Float64Array::from(vec![1.0, 1.0, f64::NAN, 1.0])), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = ArrowWriter::try_new(Vec::<u8>::new(), batch.schema(), None)?;
    writer.write(&batch)?;
    let lake = Lake::new()?;
    let location = of_another_writer(&lake, &batch.schema(), &writer.into_inner()?, 4).await?;
    delete_the_first(&location)?;
    for (version, expected) in [(1, ["1", "2", "4"].as_slice()), (2, ["2", "4"].as_slice())] {
        let table = lake.reader.open(&location, Version::At(version)).await?;
        for condition in ["x < 10", "x = 1", "x <= 1 AND id > 0", "NOT x > 1", "x BETWEEN 0 AND 2"] {
            let query = format!("SELECT id FROM t WHERE {condition} ORDER BY id");
            let text = text_of(&plan(&table, &query).await?);
            assert!(text.contains("FilterExec") && text.contains("predicate="), "{text}");
            assert_eq!(answer(&table, &query).await?, expected, "{condition} at version {version}");
        }
        assert_eq!(answer(&table, "SELECT count(*) FROM t WHERE x = 1").await?, [expected.len().to_string()]);
        let last = "SELECT id FROM t WHERE x < 10 ORDER BY x, id DESC LIMIT 1";
        assert_eq!(answer(&table, last).await?, ["4"], "version {version}");
        assert_eq!(answer(&table, "SELECT id FROM t WHERE x < 10 LIMIT 9").await?.len(), expected.len());
        let joined = "SELECT a.id FROM t a JOIN t b ON a.x = b.x AND a.id = b.id WHERE b.x < 10 ORDER BY 1";
        assert_eq!(answer(&table, joined).await?, expected, "version {version}");
        // Filters on other columns are left to the reader as ever.
        let text = text_of(&plan(&table, "SELECT x FROM t WHERE id > 1").await?);
        assert!(text.contains("predicate=id") && !text.contains("FilterExec"), "{text}");
    }
    Ok(())
}

/// Of two empty lists deltalake told that two elements are none: a column of nothing but NULLs, it seemed.
#[tokio::test]
async fn lists_without_elements_are_no_nulls_whatever_another_writer_tells_of_elements() -> TestResult {
    use arrow::array::ListArray;
    use arrow::buffer::OffsetBuffer;
    use datafusion::parquet::arrow::ArrowWriter;

    let element = Arc::new(Field::new("element", DataType::Int64, true));
    let none: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
    let lists = ListArray::try_new(element, OffsetBuffer::from_lengths([0, 0]), none, None)?;
    let columns: [(&str, ArrayRef, bool); 2] =
        [("id", Arc::new(Int64Array::from(vec![1, 2])), true), ("l", Arc::new(lists), true)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = ArrowWriter::try_new(Vec::<u8>::new(), batch.schema(), None)?;
    writer.write(&batch)?;
    let lake = Lake::new()?;
    let location = of_another_writer(&lake, &batch.schema(), &writer.into_inner()?, 2).await?;
    let mut add = actions(&location, 1)?.pop().ok_or("no file was added")?;
    add["add"]["stats"] = json!(json!({"numRecords": 2, "nullCount": {"id": 0, "l": 2}}).to_string());
    write_commit(&location, 2, &[add])?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(answer(&table, "SELECT count(l) FROM t").await?, ["2"]);
    assert_eq!(answer(&table, "SELECT id FROM t WHERE l IS NOT NULL ORDER BY id").await?, ["1", "2"]);
    assert_eq!(answer(&table, "SELECT l, id FROM t ORDER BY id").await?, ["[]|1", "[]|2"]);
    Ok(())
}

/// A file with a column that Spark keeps as INT96, on its own and as a member: the last day that there is, and the first.
fn with_int96() -> TestResult<Vec<u8>> {
    use datafusion::parquet::data_type::{Int64Type, Int96, Int96Type};
    use datafusion::parquet::file::writer::SerializedFileWriter;
    use datafusion::parquet::schema::parser::parse_message_type;

    let schema = "message spark_schema {
        required int64 id; required int96 seen; required group home { required int96 moved; }
    }";
    let on_day = |day: u32| {
        let mut time = Int96::new();
        time.set_data(0, 0, 2_440_588 + day);
        time
    };
    let days = [on_day(2_932_896), on_day(0)];
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::<u8>::new(), Arc::new(parse_message_type(schema)?), properties)?;
    let mut group = writer.next_row_group()?;
    let mut ids = group.next_column()?.ok_or("no column for ids")?;
    ids.typed::<Int64Type>().write_batch(&[1, 2], None, None)?;
    ids.close()?;
    for _ in ["seen", "moved"] {
        let mut column = group.next_column()?.ok_or("no column for times")?;
        column.typed::<Int96Type>().write_batch(&days, None, None)?;
        column.close()?;
    }
    group.close()?;
    Ok(writer.into_inner()?)
}

#[tokio::test]
async fn times_of_spark_beyond_those_that_nanoseconds_hold_come_whole() -> TestResult {
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    let home = Fields::from(vec![Field::new("moved", time.clone(), true)]);
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("seen", time, true),
        Field::new("home", DataType::Struct(home), true),
    ]);
    let lake = Lake::new()?;
    let location = of_another_writer(&lake, &schema, &with_int96()?, 2).await?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let session = session(2);
    session.register_table("t", table.provider_with_hidden())?;
    let last = "1|9999-12-31T00:00:00Z|9999-12-31T00:00:00Z";
    let later = "SELECT id FROM t WHERE seen > TIMESTAMP '5000-01-01T00:00:00Z'";
    for setting in ["us", "ns"] {
        rows(&session, &format!("SET datafusion.execution.parquet.coerce_int96 = '{setting}'")).await?;
        let read = rows(&session, "SELECT id, seen, home.moved FROM t ORDER BY id").await?;
        assert_eq!(read, [last, "2|1970-01-01T00:00:00Z|1970-01-01T00:00:00Z"], "set to {setting}");
        assert_eq!(rows(&session, later).await?, ["1"], "set to {setting}");
        assert_eq!(rows(&session, "SELECT max(seen) FROM t").await?, ["9999-12-31T00:00:00Z"]);
    }
    delete_the_first(&location)?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert!(answer(&table, later).await?.is_empty());
    assert_eq!(answer(&table, "SELECT seen FROM t").await?, ["1970-01-01T00:00:00Z"]);
    Ok(())
}

#[tokio::test]
async fn times_of_spark_in_a_file_without_log_come_whole() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("files")?;
    let folder = location.local_path().ok_or("not on disk")?;
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("a.parquet"), with_int96()?)?;
    let session = session(2);
    let files = lake.reader.open_files(alluvium_catalog::DatasetKind::Parquet, &location, &session.state()).await?;
    session.register_table("registered", files)?;
    let external = format!("CREATE EXTERNAL TABLE pointed_at STORED AS PARQUET LOCATION '{location}/a.parquet'");
    rows(&session, &external).await?;
    for name in ["registered", "pointed_at"] {
        let seen = rows(&session, &format!("SELECT seen FROM {name} WHERE id = 1")).await?;
        assert!(seen.len() == 1 && seen[0].starts_with("9999-12-31"), "{name}: {seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_bits_of_scattered_deletes_are_granted_for_as_long_as_their_scan_lives() -> TestResult {
    let lake = Lake::new()?;
    let table = thirty_without(&lake, &[3]).await?;
    let session = session(3);
    session.register_table("t", table.provider_with_hidden())?;
    let pool = Arc::clone(&session.runtime_env().memory_pool);
    let planned = session.sql("SELECT id FROM t").await?.create_physical_plan().await?;
    let held = pool.reserved();
    assert!(held > 0);
    let reading = planned.execute(0, session.task_ctx())?;
    drop(planned);
    assert_eq!(pool.reserved(), held, "a reader still needs them");
    drop(reading);
    assert_eq!(pool.reserved(), 0);
    Ok(())
}
