//! What the module `transform` promises, tested.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alluvium_catalog::{Definition, ErrorKind};
use arrow::array::{Array, Int32Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;

use super::*;
use crate::parser::parse_statements;
use crate::pipeline::{BatchLimits, ErrorMode, KeyFormat, RecordLimits, Startup};
use crate::statement::Statement;
use crate::tables::fixture::{Lake, TestResult, append, lines, people};

fn query(sql: &str) -> TestResult<ast::Query> {
    match parse_statements(sql)?.pop().map(|statement| statement.value) {
        Some(Statement::Sql(statement)) => match *statement {
            DfStatement::Statement(statement) => match *statement {
                ast::Statement::Query(query) => Ok(*query),
                other => Err(format!("{other} is not a query").into()),
            },
            other => Err(format!("{other} is not a query").into()),
        },
        other => Err(format!("{sql} is {other:?}").into()),
    }
}

/// Returns the expression that `SELECT` of it selects.
fn expression(sql: &str) -> TestResult<ast::Expr> {
    let ast::SetExpr::Select(select) = *query(&format!("SELECT {sql}"))?.body else {
        return Err(format!("{sql} is not an expression").into());
    };
    match select.projection.into_iter().next() {
        Some(ast::SelectItem::UnnamedExpr(expression)) => Ok(expression),
        other => Err(format!("{sql} is {other:?}").into()),
    }
}

fn fields(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<_> = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// The stream of these tests: `id BIGINT, name STRING, price STRING, tags ARRAY<STRING>, place STRUCT<city, zip>, at BIGINT`.
fn source_schema() -> SchemaRef {
    let tags = DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)));
    let place = DataType::Struct(
        vec![Field::new("city", DataType::Utf8, true), Field::new("zip", DataType::Int32, true)].into(),
    );
    fields(&[
        ("id", DataType::Int64),
        ("name", DataType::Utf8),
        ("price", DataType::Utf8),
        ("tags", tags),
        ("place", place),
        ("at", DataType::Int64),
    ])
}

fn append_flow(sql: &str, table: &[(&str, DataType)]) -> TestResult<Flow> {
    let mut definition: Definition = crate::system::samples::definition()?;
    definition.source.name = "s".parse()?;
    Ok(Flow {
        definition,
        source_schema: source_schema(),
        computed: Vec::new(),
        table_schema: fields(table),
        change: Change::Append,
        query: query(sql)?,
        lookups: Vec::new(),
        startup: Startup::Earliest,
        errors: ErrorMode::Fail,
        limits: RecordLimits::default(),
        key_format: KeyFormat::Json { fields: vec!["id".to_owned()] },
        batch: BatchLimits::default(),
        tombstone_retention: Duration::ZERO,
        upsert: crate::pipeline::UpsertOptions::default(),
    })
}

fn upsert_flow(
    sql: &str,
    table: &[(&str, DataType)],
    sequence: &[&str],
    delete_when: Option<&str>,
) -> TestResult<Flow> {
    let change = Change::Upsert {
        keys: vec!["id".to_owned()],
        sequence: sequence.iter().map(|field| expression(field)).collect::<TestResult<_>>()?,
        delete_when: delete_when.map(expression).transpose()?,
        stored_sequence: None,
    };
    Ok(Flow { change, ..append_flow(sql, table)? })
}

/// Returns records as decoding delivers them; record n is at partition n % 2, offset n.
fn records(json: &[&str]) -> TestResult<RecordBatch> {
    let mut decoder = ReaderBuilder::new(source_schema()).with_batch_size(json.len()).build_decoder()?;
    for record in json {
        decoder.decode(record.as_bytes())?;
    }
    let decoded = decoder.flush()?.ok_or("no records")?;
    positioned(&decoded)
}

fn positioned(decoded: &RecordBatch) -> TestResult<RecordBatch> {
    let n_rows = i32::try_from(decoded.num_rows())?;
    let mut columns = decoded.columns().to_vec();
    columns.push(Arc::new(Int32Array::from_iter_values((0..n_rows).map(|row| row % 2))));
    columns.push(Arc::new(Int64Array::from_iter_values((0..n_rows).map(i64::from))));
    Ok(RecordBatch::try_new(crate::compile::plan::stream_schema(decoded.schema_ref()), columns)?)
}

/// Returns the rows as lines, each with its offset behind a `@`.
fn shown(shaped: &Shaped) -> TestResult<Vec<String>> {
    let rows = lines(std::slice::from_ref(&shaped.rows))?;
    let offsets = shaped.offsets.values().iter();
    assert!(
        offsets.clone().zip(shaped.partitions.values()).all(|(offset, partition)| offset % 2 == i64::from(*partition))
    );
    Ok(rows.into_iter().skip(1).zip(offsets).map(|(row, offset)| format!("{row}@{offset}")).collect())
}

async fn apply(flow: &Flow, json: &[&str]) -> TestResult<Shaped> {
    let transform = Transform::compile(flow, Arc::clone(&Lake::new()?.reader)).await.map_err(|error| error.chain())?;
    let applied = transform.apply(records(json)?).await.map_err(|error| error.chain())?;
    assert_eq!(applied.lookups, []);
    Ok(applied.shaped)
}

const ID: (&str, DataType) = ("id", DataType::Int64);
const NAME: (&str, DataType) = ("name", DataType::Utf8);
const ANN: &str =
    r#"{"id": 1, "name": "ann", "price": "1.50", "tags": ["x", "y"], "place": {"city": "Ulm", "zip": 89}, "at": 10}"#;
const BOB: &str = r#"{"id": 2, "name": "bob", "price": "2", "tags": [], "place": {"city": "Rom"}, "at": 20}"#;
const CID: &str = r#"{"id": 3, "tags": ["z"], "at": 30}"#;

#[tokio::test]
async fn columns_are_found_by_name_and_cast() -> TestResult {
    let table = [("price", DataType::Decimal128(8, 2)), ("id", DataType::Int32), NAME];
    let flow = append_flow("SELECT id, name, price FROM STREAM(s)", &table)?;
    let shaped = apply(&flow, &[ANN, BOB, CID]).await?;
    assert_eq!(shown(&shaped)?, ["1.50|1|ann@0", "2.00|2|bob@1", "|3|@2"]);
    assert_eq!(shaped.rows.schema().field(0).data_type(), &DataType::Decimal128(8, 2));
    assert!(shaped.sequence.is_empty() && shaped.deletes.is_none());
    Ok(())
}

#[tokio::test]
async fn star_is_every_column_of_the_source_and_no_hidden_one() -> TestResult {
    let schema = source_schema();
    let table: Vec<(&str, DataType)> =
        schema.fields().iter().map(|field| (field.name().as_str(), field.data_type().clone())).collect();
    let shaped = apply(&append_flow("SELECT * FROM STREAM(s)", &table)?, &[ANN]).await?;
    assert_eq!(shown(&shaped)?, ["1|ann|1.50|[x, y]|{city: Ulm, zip: 89}|10@0"]);
    Ok(())
}

#[tokio::test]
async fn filters_keep_the_order_and_the_positions() -> TestResult {
    let flow = append_flow("SELECT id FROM STREAM(s) AS t WHERE t.name IS NULL OR name = 'ann'", &[ID])?;
    let many: Vec<&str> = [ANN, BOB, CID].into_iter().cycle().take(30_000).collect();
    let shaped = apply(&flow, &many).await?;
    assert_eq!(shaped.rows.num_rows(), 20_000);
    assert!(shaped.offsets.values().is_sorted(), "rows moved");
    assert_eq!(shown(&shaped)?[..3], ["1@0", "3@2", "1@3"]);
    Ok(())
}

#[tokio::test]
async fn a_filter_can_leave_nothing() -> TestResult {
    let shaped = apply(&append_flow("SELECT id FROM STREAM(s) WHERE false", &[ID])?, &[ANN]).await?;
    assert_eq!((shaped.rows.num_rows(), shaped.offsets.len()), (0, 0));
    Ok(())
}

#[tokio::test]
async fn expressions_cases_fields_and_subqueries_are_computed() -> TestResult {
    let table = [ID, ("class", DataType::Utf8), ("city", DataType::Utf8), ("twice", DataType::Float64)];
    let sql = "SELECT id, class, place['city'] AS city, 2 * CAST(price AS DOUBLE) AS twice FROM \
               (SELECT *, CASE WHEN at > 15 THEN 'late' ELSE upper(name) END AS class FROM STREAM(s)) AS q";
    let shaped = apply(&append_flow(sql, &table)?, &[ANN, BOB]).await?;
    assert_eq!(shown(&shaped)?, ["1|ANN|Ulm|3.0@0", "2|late|Rom|4.0@1"]);
    Ok(())
}

#[tokio::test]
async fn a_cte_is_as_good_as_a_subquery() -> TestResult {
    let sql = "WITH q AS (SELECT id + 1 AS id FROM STREAM(s) WHERE at < 25), r AS (SELECT id FROM q) SELECT id FROM r";
    assert_eq!(shown(&apply(&append_flow(sql, &[ID])?, &[ANN, BOB, CID]).await?)?, ["2@0", "3@1"]);
    Ok(())
}

#[tokio::test]
async fn computed_columns_build_on_each_other() -> TestResult {
    let table = [("later", DataType::Int64), ("much_later", DataType::Int64)];
    let flow = Flow {
        computed: vec![
            ("later".to_owned(), expression("at + 1")?),
            ("much_later".to_owned(), expression("later * 100")?),
        ],
        ..append_flow("SELECT later, much_later FROM STREAM(s)", &table)?
    };
    assert_eq!(shown(&apply(&flow, &[ANN]).await?)?, ["11|1100@0"]);
    Ok(())
}

#[tokio::test]
async fn an_unnested_record_keeps_its_position_in_every_row() -> TestResult {
    let flow = append_flow("SELECT id, unnest(tags) AS tag FROM STREAM(s)", &[ID, ("tag", DataType::Utf8)])?;
    let shaped = apply(&flow, &[ANN, BOB, CID]).await?;
    assert_eq!(shown(&shaped)?, ["1|x@0", "1|y@0", "3|z@2"]);
    Ok(())
}

#[tokio::test]
async fn sequence_fields_and_deletes_come_beside_the_rows() -> TestResult {
    let sql = "SELECT id, name, at, price FROM STREAM(s)";
    let flow = upsert_flow(sql, &[ID, NAME], &["at", "lower(price)"], Some("name = 'bob'"))?;
    let shaped = apply(&flow, &[ANN, BOB, CID]).await?;
    assert_eq!(shown(&shaped)?, ["1|ann@0", "2|bob@1", "3|@2"]);
    let sequence = RecordBatch::try_from_iter_with_nullable([
        ("at", Arc::clone(&shaped.sequence[0]), true),
        ("price", Arc::clone(&shaped.sequence[1]), true),
    ])?;
    assert_eq!(lines(&[sequence])?, ["at|price", "10|1.50", "20|2", "30|"]);
    // The name of the third is NULL, so whether it is 'bob' is not known, and it is no delete.
    assert_eq!(shaped.deletes, Some(BooleanArray::from(vec![false, true, false])));
    Ok(())
}

#[tokio::test]
async fn a_row_that_cannot_be_computed_is_bad_data_of_the_flow() -> TestResult {
    let flow = append_flow("SELECT CAST(name AS BIGINT) AS id FROM STREAM(s)", &[ID])?;
    let transform = Transform::compile(&flow, Arc::clone(&Lake::new()?.reader)).await?;
    let error = transform.apply(records(&[ANN])?).await.err().ok_or("the cast went well")?;
    assert_eq!(error.kind(), ErrorKind::Data);
    assert_eq!(error.message(), "cannot apply the query of flow orders_in");
    assert!(error.chain().contains("ann"), "{}", error.chain());
    // The plan is as good as before.
    let fine = records(&[r#"{"name": "12"}"#])?;
    assert_eq!(shown(&transform.apply(fine).await?.shaped)?, ["12@0"]);
    Ok(())
}

#[tokio::test]
async fn what_would_mean_per_batch_does_not_compile() -> TestResult {
    for sql in [
        "SELECT max(id) AS id FROM STREAM(s)",
        "SELECT DISTINCT id FROM STREAM(s)",
        "SELECT id FROM STREAM(s) LIMIT 5",
        "SELECT id FROM (SELECT id, row_number() OVER () AS n FROM STREAM(s)) AS q WHERE n = 1",
        "SELECT id FROM STREAM(s) UNION ALL SELECT id FROM STREAM(s)",
        "SELECT a.id FROM STREAM(s) AS a JOIN STREAM(s) AS b ON a.id = b.id",
        "SELECT 1 AS id",
    ] {
        let compiled = Transform::compile(&append_flow(sql, &[ID])?, Arc::clone(&Lake::new()?.reader)).await;
        let error = compiled.err().ok_or_else(|| format!("{sql} was compiled"))?;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {}", error.chain());
    }
    Ok(())
}

fn with_lookup(sql: &str, table: &[(&str, DataType)]) -> TestResult<Flow> {
    Ok(Flow { lookups: vec!["ref.people".parse()?], ..append_flow(sql, table)? })
}

#[tokio::test]
async fn a_lookup_reads_the_newest_version_of_its_table() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("ref.people", &[people(&[(1, "Ann A.")])?]).await?;
    let sql = "SELECT s.id, p.name FROM STREAM(s) AS s JOIN ref.people AS p ON s.id = p.id";
    let transform = Transform::compile(&with_lookup(sql, &[ID, NAME])?, Arc::clone(&lake.reader)).await?;
    let applied = transform.apply(records(&[ANN, BOB])?).await?;
    assert_eq!(shown(&applied.shaped)?, ["1|Ann A.@0"]);
    assert_eq!(applied.lookups, [("ref.people".parse()?, Some(1))]);

    append(&location, people(&[(2, "Bob B.")])?).await?;
    let applied = transform.apply(records(&[ANN, BOB])?).await?;
    let mut rows = shown(&applied.shaped)?;
    rows.sort();
    assert_eq!(rows, ["1|Ann A.@0", "2|Bob B.@1"]);
    assert_eq!(applied.lookups, [("ref.people".parse()?, Some(2))]);
    Ok(())
}

#[tokio::test]
async fn a_join_that_takes_more_memory_than_it_may_names_the_setting() -> TestResult {
    let lake = Lake::new()?;
    lake.table("ref.people", &[people(&[(1, "Ann A.")])?]).await?;
    let sql = "SELECT s.id, p.name FROM STREAM(s) AS s JOIN ref.people AS p ON s.id = p.id";
    let flow = with_lookup(sql, &[ID, NAME])?;
    let transform = Transform::compile_within(&flow, Arc::clone(&lake.reader), 1).await?;
    let error = transform.apply(records(&[ANN, BOB])?).await.err().ok_or("one byte was enough for a join")?;
    // Not `Unavailable`: the flow would be opened again and again.
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.hint().is_some_and(|hint| hint.contains("limits.sql_memory")), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_lookup_of_files_reads_those_that_are_there_now() -> TestResult {
    let sql = "SELECT s.id, p.name FROM STREAM(s) AS s JOIN ref.people AS p ON s.id = p.id";
    for (kind, name, lines) in [
        (DatasetKind::Csv, "people.csv", ["id,name\n1,Ann\n", "id,name\n1,Zoe\n", "id,name\n2,Bob\n"]),
        (
            DatasetKind::Json,
            "people.json",
            ["{\"id\":1,\"name\":\"Ann\"}\n", "{\"id\":1,\"name\":\"Zoe\"}\n", "{\"id\":2,\"name\":\"Bob\"}\n"],
        ),
    ] {
        let lake = Lake::new()?;
        let location = lake.location("ref/people")?;
        let folder = location.local_path().ok_or("no folder")?;
        std::fs::create_dir_all(&folder)?;
        let [before, after, more] = lines;
        std::fs::write(folder.join(name), before)?;
        lake.register("ref.people", kind, &location).await?;
        let transform = Transform::compile(&with_lookup(sql, &[ID, NAME])?, Arc::clone(&lake.reader)).await?;
        let applied = transform.apply(records(&[ANN, BOB])?).await?;
        assert_eq!(shown(&applied.shaped)?, ["1|Ann@0"]);
        assert_eq!(applied.lookups, [("ref.people".parse()?, None)]);

        // One file of the same length in place of the old one, and one that was not there.
        std::fs::write(folder.join(name), after)?;
        std::fs::write(folder.join(format!("more-{name}")), more)?;
        let mut rows = shown(&transform.apply(records(&[ANN, BOB])?).await?.shaped)?;
        rows.sort();
        assert_eq!(rows, ["1|Zoe@0", "2|Bob@1"], "{kind:?}");
        std::fs::remove_dir_all(&folder)?;
        assert!(transform.apply(records(&[ANN])?).await.is_err(), "{kind:?}: nothing to join is no empty table");
    }
    Ok(())
}

#[tokio::test]
async fn a_lookup_of_parquet_files_keeps_their_types() -> TestResult {
    let lake = Lake::new()?;
    // The data files of a Delta table, seen as mere files.
    let location = lake.table("ref.table", &[people(&[(1, "Ann")])?]).await?;
    lake.register("ref.people", DatasetKind::Parquet, &location).await?;
    let sql = "SELECT s.id, p.name FROM STREAM(s) AS s JOIN ref.people AS p ON s.id = p.id";
    let transform = Transform::compile(&with_lookup(sql, &[ID, NAME])?, Arc::clone(&lake.reader)).await?;
    assert_eq!(shown(&transform.apply(records(&[ANN, BOB])?).await?.shaped)?, ["1|Ann@0"]);
    append(&location, people(&[(2, "Bob")])?).await?;
    let mut rows = shown(&transform.apply(records(&[ANN, BOB])?).await?.shaped)?;
    rows.sort();
    assert_eq!(rows, ["1|Ann@0", "2|Bob@1"]);
    Ok(())
}

#[tokio::test]
async fn parts_of_a_batch_read_the_version_that_was_pinned() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("ref.people", &[people(&[(1, "Ann A.")])?]).await?;
    let sql = "SELECT s.id, p.name FROM STREAM(s) AS s JOIN ref.people AS p ON s.id = p.id";
    let transform = Transform::compile(&with_lookup(sql, &[ID, NAME])?, Arc::clone(&lake.reader)).await?;
    let (batch, pinned) = (records(&[ANN, BOB])?, transform.pin(2).await?);
    append(&location, people(&[(2, "Bob B.")])?).await?;
    let parts = [
        transform.apply_pinned(&pinned, batch.slice(0, 1)).await?,
        transform.apply_pinned(&pinned, batch.slice(1, 1)).await?,
    ];
    assert_eq!([shown(&parts[0])?, shown(&parts[1])?].concat(), ["1|Ann A.@0"]);
    assert_eq!(pinned.into_lookups(), [("ref.people".parse()?, Some(1))]);
    Ok(())
}

#[tokio::test]
async fn lookups_may_miss_aggregate_and_stand_on_either_side() -> TestResult {
    let lake = Lake::new()?;
    lake.table("ref.people", &[people(&[(1, "A"), (1, "B"), (9, "C")])?]).await?;
    for (sql, expected) in [
        (
            "SELECT s.id, p.name FROM STREAM(s) s LEFT JOIN (SELECT id, min(name) AS name FROM ref.people GROUP BY id) p ON s.id = p.id",
            vec!["1|A@0", "2|@1"],
        ),
        ("SELECT s.id, p.name FROM ref.people p RIGHT JOIN STREAM(s) s ON s.id = p.id", vec!["1|A@0", "1|B@0", "2|@1"]),
        ("SELECT id, name FROM STREAM(s) WHERE id IN (SELECT id FROM ref.people)", vec!["1|ann@0"]),
        (
            "SELECT id, name FROM STREAM(s) AS s WHERE NOT EXISTS (SELECT 1 FROM ref.people p WHERE p.id = s.id)",
            vec!["2|bob@1"],
        ),
        ("SELECT id, (SELECT max(name) FROM ref.people) AS name FROM STREAM(s)", vec!["1|C@0", "2|C@1"]),
    ] {
        let transform = Transform::compile(&with_lookup(sql, &[ID, NAME])?, Arc::clone(&lake.reader)).await;
        let transform = transform.map_err(|error| format!("{sql}: {}", error.chain()))?;
        let applied =
            transform.apply(records(&[ANN, BOB])?).await.map_err(|error| format!("{sql}: {}", error.chain()))?;
        let mut rows = shown(&applied.shaped)?;
        rows.sort();
        assert_eq!(rows, expected, "{sql}");
    }
    let made_up = "SELECT p.id, p.name FROM STREAM(s) s RIGHT JOIN ref.people p ON s.id = p.id";
    assert!(Transform::compile(&with_lookup(made_up, &[ID, NAME])?, Arc::clone(&lake.reader)).await.is_err());
    Ok(())
}

/// Tombstones of the keys 1 and 2, and one whose key is missing.
fn tombstones() -> TestResult<RecordBatch> {
    records(&[r#"{"id": 1}"#, r#"{"id": 2}"#, "{}"])
}

async fn delete(flow: &Flow, lake: &Lake) -> TestResult<Shaped> {
    let transform = Transform::compile(flow, Arc::clone(&lake.reader)).await.map_err(|error| error.chain())?;
    Ok(transform.apply_tombstones(tombstones()?).await.map_err(|error| error.chain())?)
}

#[tokio::test]
async fn a_tombstone_gives_its_key_whatever_the_filter_says() -> TestResult {
    let sql =
        "SELECT q.id, name FROM (SELECT id * 10 AS id, name, at FROM STREAM(s) WHERE name <> 'x') AS q WHERE at > 0";
    let flow = upsert_flow(sql, &[NAME, ID], &["id"], Some("name = 'bob'"))?;
    let shaped = delete(&flow, &Lake::new()?).await?;
    assert_eq!(shown(&shaped)?, ["|10@0", "|20@1", "|@2"]);
    assert_eq!(shaped.deletes, Some(BooleanArray::from(vec![true; 3])));
    assert_eq!(shaped.sequence[0].null_count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_tombstone_has_null_where_its_value_is_asked_for() -> TestResult {
    let lake = Lake::new()?;
    lake.table("ref.people", &[people(&[(1, "A")])?]).await?;
    let sql = "SELECT s.id, p.name, unnest(s.tags) AS tag, s.place['zip'] AS zip, at \
               FROM STREAM(s) s JOIN ref.people p ON s.id = p.id";
    let flow = Flow {
        lookups: vec!["ref.people".parse()?],
        ..upsert_flow(sql, &[ID, NAME, ("tag", DataType::Utf8)], &["at", "zip", "tag", "name"], None)?
    };
    let shaped = delete(&flow, &lake).await?;
    assert_eq!(shown(&shaped)?, ["1||@0", "2||@1", "||@2"]);
    let types: Vec<_> =
        shaped.sequence.iter().map(|values| (values.data_type().clone(), values.null_count())).collect();
    assert_eq!(types, [(DataType::Int64, 3), (DataType::Int32, 3), (DataType::Utf8, 3), (DataType::Utf8, 3)]);
    Ok(())
}

#[tokio::test]
async fn columns_that_are_never_null_can_be_null_in_tombstones() -> TestResult {
    let strict = |field: &Arc<Field>| field.as_ref().clone().with_nullable(field.name() != "name");
    let schema = Schema::new(source_schema().fields().iter().map(strict).collect::<Vec<_>>());
    let flow = Flow {
        source_schema: Arc::new(schema),
        ..upsert_flow("SELECT coalesce(name, 'none') AS id FROM STREAM(s)", &[("id", DataType::Utf8)], &["id"], None)?
    };
    assert_eq!(shown(&delete(&flow, &Lake::new()?).await?)?, ["none@0", "none@1", "none@2"]);
    Ok(())
}

#[tokio::test]
async fn appends_have_no_use_for_tombstones() -> TestResult {
    let flow = append_flow("SELECT id FROM STREAM(s)", &[ID])?;
    let transform = Transform::compile(&flow, Arc::clone(&Lake::new()?.reader)).await?;
    assert!(transform.apply_tombstones(tombstones()?).await.is_err());
    Ok(())
}

/// A plan that is built for each batch takes milliseconds; one that is only executed takes far less than one.
#[tokio::test]
async fn the_overhead_of_a_batch_is_small() -> TestResult {
    let flow = upsert_flow("SELECT id, name, at FROM STREAM(s) WHERE at > 0", &[ID, NAME], &["at"], None)?;
    let transform = Transform::compile(&flow, Arc::clone(&Lake::new()?.reader)).await?;
    let batch = records(&[ANN])?;
    let mut millis = BTreeMap::new();
    for round in 0..50 {
        let start = Instant::now();
        transform.apply(batch.clone()).await?;
        millis.insert(start.elapsed(), round);
    }
    let best = millis.keys().next().copied().unwrap_or_default();
    assert!(best < Duration::from_millis(5), "a batch of one row takes {best:?}");
    Ok(())
}
