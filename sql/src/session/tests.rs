//! What the module `session` promises, tested.

use alluvium_catalog::{Effort, FlowKind, Timestamp};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::execution::SessionStateDefaults;

use super::*;
use crate::tables::fixture::{
    Lake, TestResult, VectorPlace, append, append_with, commit_vectors, lines, live_adds, people, with_hidden,
};

fn open(lake: &Lake) -> Result<Session> {
    let settings = SessionSettings { threads: 2, ..SessionSettings::default() };
    Session::open(Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>, Arc::clone(&lake.reader), &settings)
}

async fn check(session: &Session, sql: &str, expected: &[&str]) -> TestResult {
    let rows = session.sql(sql).await.map_err(|error| format!("{sql}: {}", error.chain()))?.collect().await?;
    assert_eq!(lines(&rows)?, expected, "{sql}");
    Ok(())
}

async fn refusal(session: &Session, sql: &str) -> TestResult<Error> {
    match session.sql(sql).await {
        Ok(_) => Err(format!("{sql} was taken").into()),
        Err(error) => Ok(error),
    }
}

/// Two tables with hidden columns: `silver.orders` with versions 1 and 2, and `names`.
async fn lake() -> TestResult<Lake> {
    let lake = Lake::new()?;
    let first = with_hidden(&people(&[(1, "ann")])?)?;
    let second = with_hidden(&people(&[(2, "bob"), (3, "cid")])?)?;
    lake.table("silver.orders", &[first.clone(), second]).await?;
    lake.table("names", &[first]).await?;
    Ok(lake)
}

#[tokio::test]
async fn queries_see_what_was_registered_and_committed_since() -> TestResult {
    let lake = Lake::new()?;
    let session = open(&lake)?;
    assert!(refusal(&session, "SELECT * FROM later").await?.chain().contains("'alluvium.default.later' not found"));
    let location = lake.table("later", &[people(&[(1, "ann")])?]).await?;
    check(&session, "SELECT * FROM later", &["id|name", "1|ann"]).await?;
    append(&location, people(&[(2, "bob")])?).await?;
    check(&session, "SELECT count(*) AS n FROM later", &["n", "2"]).await
}

/// DataFusion 55 would skip the second file: it forgets a least value when a batch has none.
#[tokio::test]
async fn least_and_greatest_values_are_found_past_rows_that_have_none() -> TestResult {
    let lake = Lake::new()?;
    let column = |ids: std::ops::Range<i64>, name: Option<&str>| -> TestResult<RecordBatch> {
        let names: StringArray = ids.clone().map(|_| name).collect();
        let columns: [(&str, ArrayRef, bool); 2] =
            [("id", Arc::new(Int64Array::from_iter_values(ids)), true), ("name", Arc::new(names), true)];
        Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
    };
    lake.table("t", &[column(100..30_000, None)?, column(1..3, Some("ann"))?]).await?;
    for threads in [1, 2] {
        let settings = SessionSettings { threads, ..SessionSettings::default() };
        let catalog = Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>;
        let session = Session::open(catalog, Arc::clone(&lake.reader), &settings)?;
        let sql = "SELECT min(name) AS least, max(id) AS most FROM t";
        check(&session, sql, &["least|most", "ann|29999"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn versions_are_read_in_joins_subqueries_and_ctes() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let old = "silver.orders VERSION AS OF 1";
    check(&session, &format!("SELECT * FROM {old}"), &["id|name", "1|ann"]).await?;
    check(&session, &format!("SELECT orders.name, silver.orders.id FROM {old}"), &["name|id", "ann|1"]).await?;
    check(
        &session,
        &format!("SELECT count(*) AS n FROM silver.orders o LEFT JOIN {old} v ON o.id = v.id WHERE v.id IS NULL"),
        &["n", "2"],
    )
    .await?;
    check(
        &session,
        &format!("SELECT count(*) AS n FROM silver.orders WHERE id IN (SELECT id FROM {old})"),
        &["n", "1"],
    )
    .await?;
    check(&session, &format!("WITH old AS (SELECT * FROM {old}) SELECT count(*) AS n FROM old"), &["n", "1"]).await?;
    check(&session, "SELECT count(*) AS n FROM silver.orders TIMESTAMP AS OF '2999-01-01'", &["n", "3"]).await?;
    let error = refusal(&session, "SELECT * FROM silver.orders VERSION AS OF 9").await?;
    assert_eq!(error.hint(), Some("versions 0 to 2 can be read"));
    let error = refusal(&session, "SELECT * FROM names JOIN silver.orders VERSION AS OF 9 ON true").await?;
    assert_eq!(error.hint(), Some("versions 0 to 2 can be read"));
    Ok(())
}

/// Dates the commits of a table, that of version 0 first.
fn date(location: &Location, times: &[&str]) -> TestResult {
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    for (version, time) in (0_u64..).zip(times) {
        let millis = u64::try_from(time.parse::<Timestamp>()?.0)?;
        let commit = std::fs::File::options().write(true).open(log.join(format!("{version:020}.json")))?;
        commit.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_time_reads_the_rows_that_stood_then() -> TestResult {
    let lake = Lake::new()?;
    let batches = [people(&[(1, "ann")])?, people(&[(2, "bob")])?, people(&[(3, "cid")])?];
    let location = lake.table("silver.orders", &batches).await?;
    date(&location, &["2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z", "2026-03-01T14:00:00Z", "2026-03-02T12:00:00Z"])?;
    let session = open(&lake)?;
    for (time, n_rows) in [
        ("2026-03-01T12:00:00Z", "0"),
        ("2026-03-01T12:59:59.999Z", "0"),
        ("2026-03-01T13:00:00Z", "1"),
        ("2026-03-01T13:30:00Z", "1"),
        ("2026-03-01T13:59:59.999Z", "1"),
        ("2026-03-01T14:00:00Z", "2"),
        ("2026-03-01T15:00:00+01:00", "2"),
        ("2026-03-02", "2"),
        ("2026-03-02T12:00:00Z", "3"),
    ] {
        let sql = format!("SELECT count(*) AS n FROM silver.orders TIMESTAMP AS OF '{time}'");
        check(&session, &sql, &["n", n_rows]).await?;
    }
    let old = "silver.orders TIMESTAMP AS OF '2026-03-01T13:30:00Z'";
    check(&session, &format!("SELECT * FROM {old}"), &["id|name", "1|ann"]).await?;
    check(
        &session,
        &format!("SELECT count(*) AS n FROM silver.orders o LEFT JOIN {old} v ON o.id = v.id WHERE v.id IS NULL"),
        &["n", "2"],
    )
    .await?;
    let early = refusal(&session, "SELECT * FROM silver.orders TIMESTAMP AS OF '2026-03-01T11:59:59.999Z'").await?;
    assert_eq!(early.kind(), alluvium_catalog::ErrorKind::Invalid, "{}", early.chain());
    let said = format!("the table at {location} had no version at 2026-03-01T11:59:59.999Z");
    assert!(early.chain().contains(&said), "{}", early.chain());
    assert_eq!(early.hint(), Some("its oldest version that can be read is 0 of 2026-03-01T12:00:00.000Z"));
    Ok(())
}

#[tokio::test]
async fn what_shows_the_present_is_not_read_at_a_version() -> TestResult {
    let lake = lake().await?;
    lake.catalog.put_commit(&crate::system::samples::commit()?).await?;
    let session = open(&lake)?;
    check(&session, "SELECT count(*) AS n FROM system.commits", &["n", "1"]).await?;
    for (name, clause) in [
        ("system.commits", "VERSION AS OF 1"),
        ("system.commits", "TIMESTAMP AS OF '2026-03-01'"),
        ("information_schema.tables", "VERSION AS OF 5"),
    ] {
        let error = refusal(&session, &format!("SELECT count(*) FROM {name} {clause}")).await?;
        assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Invalid, "{name} {clause}: {}", error.chain());
        assert_eq!(error.message(), format!("{name} has no versions: it shows what there is now"));
    }
    // Nor by the name that stands for a version.
    refusal(&session, "SELECT count(*) FROM \"alluvium@1\".system.commits").await?;
    Ok(())
}

#[tokio::test]
async fn no_star_shows_hidden_columns() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let both = "1|ann|1|ann";
    for sql in [
        "SELECT * FROM silver.orders o JOIN names n ON o.id = n.id",
        "SELECT o.*, n.* FROM silver.orders o JOIN names n ON o.id = n.id",
        "SELECT * FROM (SELECT * FROM silver.orders) o JOIN names n ON o.id = n.id",
        "SELECT * FROM silver.orders o JOIN names n ON o.id = n.id WHERE o._alluvium_offset = 100",
        "SELECT * FROM silver.orders o JOIN names n ON o.id = n.id AND o._alluvium_offset = n._alluvium_offset",
        "WITH o AS (SELECT * FROM silver.orders) SELECT * FROM o JOIN names n ON o.id = n.id ORDER BY n._alluvium_offset",
    ] {
        check(&session, sql, &["id|name|id|name", both]).await?;
    }
    check(&session, "SELECT * FROM silver.orders a JOIN names b USING (id)", &["id|name|name", "1|ann|ann"]).await?;
    check(&session, "SELECT * FROM silver.orders NATURAL JOIN names", &["id|name", "1|ann"]).await?;
    check(&session, "SELECT orders.* FROM silver.orders WHERE id = 1", &["id|name", "1|ann"]).await?;
    check(&session, "SELECT silver.orders.* FROM silver.orders VERSION AS OF 1", &["id|name", "1|ann"]).await?;
    check(&session, "SELECT * EXCEPT (_alluvium_offset, name) FROM names", &["id", "1"]).await?;
    check(&session, "SELECT * EXCEPT (_alluvium_offset) FROM names", &["id|name", "1|ann"]).await
}

#[tokio::test]
async fn joins_by_names_do_not_meet_hidden_columns_that_are_named() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let other = with_hidden(&people(&[(3, "cid"), (1, "ann")])?)?;
    lake.table("late", &[other]).await?;
    // Row 1 is at offset 100 of one and 101 of the other.
    let natural = "FROM names NATURAL JOIN late";
    check(&session, &format!("SELECT * {natural}"), &["id|name", "1|ann"]).await?;
    for sql in [
        format!("SELECT id, late._alluvium_offset {natural}"),
        format!("SELECT * {natural} WHERE id IN (SELECT id FROM silver.orders WHERE _alluvium_offset = 100)"),
    ] {
        let error = refusal(&session, &sql).await?;
        assert_eq!(
            error.message(),
            "NATURAL JOIN would join by hidden columns, too, where the statement names one",
            "{sql}"
        );
    }
    let using = "FROM names JOIN late USING (id)";
    check(&session, &format!("SELECT * {using} WHERE late._alluvium_offset = 101"), &["id|name|name", "1|ann|ann"])
        .await?;
    let either = format!("SELECT * {} WHERE late._alluvium_offset = 101", using.replace("JOIN", "RIGHT JOIN"));
    let error = refusal(&session, &either).await?;
    assert!(error.message().starts_with("cannot tell which columns '*' means"), "{}", error.chain());
    Ok(())
}

async fn check_unread(session: &Session, sql: &str, clause: &str) -> TestResult {
    let error = refusal(session, sql).await?;
    assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Invalid, "{sql}: {}", error.chain());
    assert_eq!(error.message(), format!("{clause} is not supported yet"), "{sql}");
    assert!(error.hint().is_some(), "{sql}");
    Ok(())
}

#[tokio::test]
async fn clauses_that_nothing_reads_are_refused() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    for (sql, clause) in [
        ("SELECT * FROM silver.orders PREWHERE id = 1", "PREWHERE"),
        ("EXPLAIN SELECT * FROM silver.orders PREWHERE id = 1", "PREWHERE"),
        ("SELECT count(*) FROM names WHERE id IN (SELECT id FROM silver.orders PREWHERE id > 1)", "PREWHERE"),
        ("WITH o AS (SELECT * FROM silver.orders PREWHERE id = 1) SELECT * FROM o", "PREWHERE"),
        ("SELECT count(*) FROM silver.orders TABLESAMPLE (1 ROWS)", "TABLESAMPLE"),
        ("SELECT count(*) FROM (SELECT * FROM silver.orders) TABLESAMPLE (1 ROWS)", "TABLESAMPLE"),
        ("SELECT count(*) FROM silver.orders PARTITION (p0)", "PARTITION of a table"),
        ("SELECT id FROM silver.orders START WITH id = 1 CONNECT BY PRIOR id = id", "START WITH"),
        ("SELECT name, count(*) FROM silver.orders GROUP BY name WITH ROLLUP", "GROUP BY .. WITH ROLLUP"),
        ("SELECT name, count(*) FROM silver.orders GROUP BY name WITH TOTALS", "GROUP BY .. WITH TOTALS"),
        ("SELECT id FROM silver.orders FOR UPDATE", "FOR UPDATE"),
    ] {
        check_unread(&session, sql, clause).await?;
    }
    let rolled = "SELECT count(*) AS n FROM silver.orders WHERE id < 3 GROUP BY ROLLUP (name) ORDER BY n";
    check(&session, rolled, &["n", "1", "1", "2"]).await
}

/// DataFusion reads of such a CTE the two sides of its UNION: the first query here would never end.
#[tokio::test]
async fn what_a_cte_of_with_recursive_loses_is_refused() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let counted = |cte: &str| format!("WITH RECURSIVE r AS ({cte}) SELECT count(*) AS n FROM r");
    let numbers = "SELECT 1 AS n UNION ALL SELECT n + 1 AS n FROM r";
    let ids = "SELECT id FROM names UNION ALL SELECT id FROM silver.orders";
    for (cte, clause) in [
        (format!("{numbers} LIMIT 3"), "LIMIT in a CTE of WITH RECURSIVE"),
        (format!("{ids} LIMIT 1 OFFSET 1"), "LIMIT in a CTE of WITH RECURSIVE"),
        (format!("{ids} ORDER BY id"), "ORDER BY in a CTE of WITH RECURSIVE"),
        (format!("WITH names AS (SELECT 7 AS id) {ids}"), "WITH in a CTE of WITH RECURSIVE"),
        (format!("{ids} |> WHERE id = 1"), "|> in a CTE of WITH RECURSIVE"),
    ] {
        check_unread(&session, &counted(&cte), clause).await?;
    }
    check(&session, &counted(&format!("{numbers} WHERE n < 9")), &["n", "9"]).await?;
    check(&session, &counted(&format!("({ids}) LIMIT 3")), &["n", "3"]).await?;
    check(&session, &counted("SELECT id FROM silver.orders LIMIT 2"), &["n", "2"]).await
}

#[tokio::test]
async fn what_a_call_or_a_star_says_and_nothing_reads_is_refused() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let windows = "FROM silver.orders WINDOW w AS (PARTITION BY name)";
    for (sql, clause) in [
        (format!("SELECT sum(id) OVER (w ORDER BY id) {windows}"), "a window made of another one"),
        (format!("SELECT sum(id) OVER v {windows}, v AS (w ORDER BY id)"), "a window made of another one"),
        (format!("SELECT name {windows} ORDER BY count(*) OVER w"), "OVER window in ORDER BY"),
        (
            "SELECT name, count(*), row_number() OVER (ORDER BY name) FROM silver.orders GROUP BY name \
             QUALIFY count(*) OVER w > 1 WINDOW w AS (ORDER BY name)"
                .to_owned(),
            "OVER window in QUALIFY",
        ),
        ("SELECT abs(sum(id)) OVER (PARTITION BY name) FROM silver.orders".to_owned(), "OVER of a function of one row"),
        ("SELECT abs(sum(id)) FILTER (WHERE id > 1) FROM silver.orders".to_owned(), "FILTER of a function of one row"),
        ("SELECT UPPER(DISTINCT name) FROM silver.orders".to_owned(), "DISTINCT in a function of one row"),
        (
            "SELECT row_number() FILTER (WHERE id > 1) OVER (ORDER BY id) FROM silver.orders".to_owned(),
            "FILTER or DISTINCT of a window function",
        ),
        ("SELECT sum(1)(id) FROM silver.orders".to_owned(), "a call with two lists of arguments"),
        ("SELECT * ILIKE 'i%' FROM names".to_owned(), "* ILIKE"),
        ("SELECT n.* ILIKE 'i%' FROM names n".to_owned(), "* ILIKE"),
        (
            "SELECT * FROM silver.orders |> AGGREGATE count(*) AS n DESC GROUP BY name".to_owned(),
            "ASC or DESC in |> AGGREGATE",
        ),
    ] {
        check_unread(&session, &sql, clause).await?;
    }
    let named = "SELECT id, sum(id) OVER w AS s FROM silver.orders WINDOW w AS (PARTITION BY name) ORDER BY id";
    check(&session, named, &["id|s", "1|1", "2|2", "3|3"]).await?;
    let filtered = "SELECT abs(sum(id) FILTER (WHERE id > 1)) AS n, count(DISTINCT name) AS m FROM silver.orders";
    check(&session, filtered, &["n|m", "5|3"]).await
}

#[tokio::test]
async fn hidden_columns_are_there_when_they_are_named() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let header = "id|name|_alluvium_offset";
    check(&session, "SELECT _alluvium_partition FROM names", &["_alluvium_partition", "0"]).await?;
    check(&session, "SELECT *, _alluvium_offset FROM names", &[header, "1|ann|100"]).await?;
    check(&session, "SELECT n.*, n._alluvium_offset FROM names AS n", &[header, "1|ann|100"]).await?;
    check(&session, "SELECT names.*, _alluvium_offset FROM names VERSION AS OF 1", &[header, "1|ann|100"]).await?;
    check(&session, "WITH n AS (SELECT *, _alluvium_offset FROM names) SELECT * FROM n", &[header, "1|ann|100"])
        .await?;
    check(
        &session,
        "SELECT count(*) AS n FROM names WHERE id IN (SELECT id FROM silver.orders WHERE _alluvium_offset = 100)",
        &["n", "1"],
    )
    .await?;
    check(&session, "SELECT id FROM silver.orders ORDER BY _alluvium_offset DESC, id LIMIT 1", &["id", "3"]).await
}

#[tokio::test]
async fn what_writes_or_defines_is_refused() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    for sql in [
        "INSERT INTO names VALUES (2, 'bob')",
        "EXPLAIN ANALYZE INSERT INTO names VALUES (2, 'bob')",
        "DELETE FROM names",
        "UPDATE names SET id = 2",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "CREATE SCHEMA x",
        "CREATE DATABASE x",
        "DROP SCHEMA silver",
        "CREATE CONNECTION c TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092')",
    ] {
        let error = refusal(&session, sql).await?;
        assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Invalid, "{sql}: {}", error.chain());
    }
    check(&session, "SELECT count(*) AS n FROM names", &["n", "1"]).await
}

#[tokio::test]
async fn a_session_keeps_no_prepared_statements() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    for sql in ["PREPARE p AS SELECT count(*) AS n FROM names", "EXECUTE p", "DEALLOCATE p"] {
        let error = refusal(&session, sql).await?;
        assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Invalid, "{sql}: {}", error.chain());
        assert_eq!(error.message(), "a session keeps no prepared statements", "{sql}");
        assert_eq!(error.hint(), Some("send the query itself: it reads tables at the version that is newest then"));
    }
    Ok(())
}

#[tokio::test]
async fn filters_are_not_left_to_the_reader_of_files_by_a_setting() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let error = refusal(&session, "SET datafusion.execution.parquet.pushdown_filters = true").await?;
    assert_eq!(
        error.message(),
        "cannot set datafusion.execution.parquet.pushdown_filters: a session decides it for each query"
    );
    session.sql("SET datafusion.execution.batch_size = 100").await?.collect().await?;
    Ok(())
}

#[tokio::test]
async fn settings_that_would_make_answers_wrong_are_not_changed() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    for setting in [
        "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown",
        "datafusion.optimizer.enable_dynamic_filter_pushdown",
        "datafusion.execution.parquet.coerce_int96",
        "datafusion.catalog.default_schema",
        "datafusion.runtime.list_files_cache_limit",
    ] {
        for (sql, verb) in [(format!("SET {setting} = 'true'"), "set"), (format!("RESET {setting}"), "reset")] {
            let error = refusal(&session, &sql).await?;
            assert_eq!(error.message(), format!("cannot {verb} {setting}: a session decides it for each query"));
            assert!(error.hint().is_some(), "{sql}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_query_whose_deletion_vectors_do_not_fit_into_memory_says_which_setting_gives_more() -> TestResult {
    const SQL: &str = "SELECT id FROM people";
    let lake = Lake::new()?;
    let rows: Vec<(i64, &str)> = (0..100).map(|id| (id, "x")).collect();
    let location = lake.table("people", &[people(&rows)?]).await?;
    let path = live_adds(&location, 1)?[0]["path"].as_str().ok_or("no path")?.to_owned();
    let deleted = roaring::RoaringTreemap::from_iter((0..100).step_by(2));
    commit_vectors(&location, 1, &std::collections::BTreeMap::from([(path, deleted)]), VectorPlace::Inline)?;
    // Their bits take a byte for eight rows.
    let session = |memory_bytes_max| {
        let settings = SessionSettings { threads: 1, memory_bytes_max, ..SessionSettings::default() };
        Session::open(Arc::clone(&lake.catalog) as Arc<dyn CatalogStore>, Arc::clone(&lake.reader), &settings)
    };
    let refused = session(12)?.sql(SQL).await?.collect().await.err().ok_or("more memory was taken than there is")?;
    assert_eq!(refused.kind(), alluvium_catalog::ErrorKind::Invalid, "{}", refused.chain());
    assert!(refused.hint().is_some_and(|hint| hint.contains("ALLUVIUM_SQL_MEMORY")), "{refused:?}");
    // What one query was granted, the next gets again.
    let roomy = session(1024)?;
    for _ in 0..100 {
        let rows = roomy.sql(SQL).await?.collect().await?;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 50);
    }
    Ok(())
}

#[tokio::test]
async fn a_path_is_not_a_table_and_an_external_table_is() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let folder = lake.location("out")?.to_string();
    std::fs::create_dir_all(&folder)?;
    let file = format!("{folder}/people.csv");
    let refused = refusal(&session, &format!("COPY (SELECT * FROM names) TO '{file}' STORED AS CSV")).await?;
    assert!(refused.message().contains("a session only reads"), "{}", refused.message());
    std::fs::write(&file, "id,name\n1,ann\n")?;
    refusal(&session, &format!("SELECT * FROM '{file}'")).await?;
    refusal(&session, &format!("SELECT * FROM \"{file}\"")).await?;
    let create = |name: &str| {
        format!("CREATE EXTERNAL TABLE {name} STORED AS CSV LOCATION '{file}' OPTIONS ('format.has_header' 'true')")
    };
    session.sql(&create("mine")).await?.collect().await?;
    session.sql(&create("own.mine")).await?.collect().await?;
    check(&session, "SELECT * FROM mine JOIN own.mine AS other USING (id)", &["id|name|name", "1|ann|ann"]).await?;
    let taken = refusal(&session, &create("names")).await?;
    assert_eq!(taken.message(), "cannot create default.names: the catalog has a table of this name");
    Ok(())
}

#[tokio::test]
async fn only_a_table_of_the_session_is_dropped() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    for sql in ["DROP TABLE silver.orders", "DROP TABLE IF EXISTS silver.orders", "DROP TABLE alluvium.silver.orders"] {
        let error = refusal(&session, sql).await?;
        assert_eq!(error.message(), "cannot drop silver.orders: a session only reads", "{sql}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.starts_with("alluvium catalog forget silver.orders "), "{sql}: {hint}");
    }
    for sql in ["DROP TABLE IF EXISTS names", "DROP TABLE IF EXISTS system.commits"] {
        refusal(&session, sql).await?;
    }
    check(&session, "SELECT count(*) AS n FROM silver.orders", &["n", "3"]).await?;
    let folder = lake.location("out")?.to_string();
    std::fs::create_dir_all(&folder)?;
    let file = format!("{folder}/mine.csv");
    std::fs::write(&file, "id\n1\n")?;
    session.sql(&format!("CREATE EXTERNAL TABLE mine STORED AS CSV LOCATION '{file}'")).await?.collect().await?;
    session.sql("SELECT * FROM mine").await?;
    session.sql("DROP TABLE mine").await?.collect().await?;
    refusal(&session, "SELECT * FROM mine").await?;
    session.sql("DROP TABLE IF EXISTS mine").await?.collect().await?;
    Ok(())
}

#[tokio::test]
async fn no_function_of_datafusion_is_missing() -> TestResult {
    fn names<'a>(name: &'a str, aliases: &'a [String]) -> impl Iterator<Item = &'a str> {
        std::iter::once(name).chain(aliases.iter().map(String::as_str))
    }
    let lake = Lake::new()?;
    let flows = dialect_session(SessionConfig::new(), Arc::default());
    for state in [open(&lake)?.context.state(), flows.state()] {
        for function in SessionStateDefaults::default_scalar_functions() {
            for name in names(function.name(), function.aliases()) {
                assert!(state.scalar_functions().contains_key(name), "scalar {name}");
            }
        }
        for function in SessionStateDefaults::default_aggregate_functions() {
            for name in names(function.name(), function.aliases()) {
                assert!(state.aggregate_functions().contains_key(name), "aggregate {name}");
            }
        }
        for function in SessionStateDefaults::default_window_functions() {
            for name in names(function.name(), function.aliases()) {
                assert!(state.window_functions().contains_key(name), "window {name}");
            }
        }
    }
    // So that the lists above are known to hold what the crate's features bring.
    for call in [
        "sha256('a')",
        "date_trunc('day', TIMESTAMP '2026-01-01')",
        "encode('a', 'hex')",
        "sqrt(4)",
        "array_length([1])",
        "regexp_like('a', 'a')",
        "upper('a')",
        "initcap('a')",
        "median(1)",
        "row_number() OVER ()",
    ] {
        open(&lake)?.sql(&format!("SELECT {call} AS x")).await?.collect().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_name_has_its_place_and_the_nearest_name() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let error = refusal(&session, "SELECT *\nFROM silver.ordrs").await?;
    assert_eq!(error.hint(), Some("did you mean 'silver.orders'?"));
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<failure::Cause>());
    let place = cause.and_then(|cause| cause.error().diagnostic()).and_then(|diagnostic| diagnostic.span);
    assert_eq!(place.map(|span| span.start.line), Some(2));
    let error = refusal(&session, "SELECT nam FROM names").await?;
    assert!(error.chain().contains("nam"), "{}", error.chain());
    Ok(())
}

/// Whether the footer is known decides which of the reader's requests meets it.
#[tokio::test]
async fn a_data_file_that_is_gone_or_cannot_be_read_is_unavailable_each_with_its_hint() -> TestResult {
    const SQL: &str = "SELECT name FROM people";
    for is_footer_known in [false, true] {
        let lake = Lake::new()?;
        let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
        let session = open(&lake)?;
        if is_footer_known {
            check(&session, SQL, &["name", "ann"]).await?;
        }
        let path = live_adds(&location, 1)?[0]["path"].as_str().ok_or("no path")?.to_owned();
        let file = location.local_path().ok_or("not on disk")?.join(path);
        std::fs::remove_file(&file)?;
        let gone = session.sql(SQL).await?.collect().await.err().ok_or("a file that is gone was read")?;
        assert_eq!(gone.kind(), alluvium_catalog::ErrorKind::Unavailable, "{is_footer_known}: {}", gone.chain());
        assert!(gone.hint().is_some_and(|hint| hint.contains("vacuum")), "{gone:?}");
        assert!(!gone.chain().contains("Object Store error"), "{}", gone.chain());
        if !is_footer_known {
            std::fs::write(&file, b"PAR1")?;
            let cut = session.sql(SQL).await?.collect().await.err().ok_or("a file that is cut short was read")?;
            assert!(cut.hint().is_some_and(|hint| hint.contains("cut short")), "{}: {:?}", cut.chain(), cut.hint());
            std::fs::remove_file(&file)?;
        }
        // A link to itself is there, and nobody can open it.
        std::os::unix::fs::symlink(&file, &file)?;
        let refused = session.sql(SQL).await?.collect().await.err().ok_or("a link to itself was read")?;
        assert_eq!(refused.kind(), alluvium_catalog::ErrorKind::Unavailable, "{is_footer_known}: {}", refused.chain());
        assert!(refused.hint().is_some_and(|hint| hint.starts_with("try again")), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_location_can_be_queried_without_being_registered() -> TestResult {
    let lake = Lake::new()?;
    let session = open(&lake)?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    lake.catalog.drop_dataset(&"people".parse()?).await?;
    let names: Vec<String> = session.open_location(&location).await?.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["default.t", "default.people"]);
    check(&session, "SELECT * FROM t AS a JOIN people AS b USING (id)", &["id|name|name", "1|ann|ann"]).await?;
    append(&location, people(&[(2, "bob")])?).await?;
    check(&session, "SELECT count(*) AS n FROM t", &["n", "2"]).await?;
    check(&session, "SELECT count(*) AS n FROM t VERSION AS OF 1", &["n", "1"]).await?;
    assert!(session.open_location(&lake.location("nothing")?).await.is_err());
    Ok(())
}

#[tokio::test]
async fn history_shows_what_made_each_version() -> TestResult {
    let lake = Lake::new()?;
    let session = open(&lake)?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    let lineage = serde_json::json!({
        "v": 1, "flow": "people_in", "sql_hash": "5eed", "run": uuid(1), "write_id": uuid(2), "engine": "0.1.0",
        "inputs": [{"kind": "kafka", "topic": "shop.people", "ranges": [
            {"partition": 0, "first": 5, "next": 9, "records": 4}, {"partition": 1, "first": 0, "next": 1, "records": 1}
        ]}],
        "fate": {"records_in": 5, "applied": 2, "filtered": 3},
        "rows_inserted": 2, "rows_updated": 0, "rows_deleted": 0, "millis": {}
    });
    let properties = deltalake::kernel::transaction::CommitProperties::default()
        .with_metadata([("alluvium.lineage".to_owned(), lineage)]);
    append_with(&location, people(&[(2, "bob"), (3, "cid")])?, properties).await?;
    let answer = session.sql("DESCRIBE HISTORY people LIMIT 2").await?;
    let rows = answer.collect().await?;
    let shown = rows[0].project(&[0, 2, 3, 4, 5, 6, 8])?;
    assert_eq!(
        lines(&[shown])?,
        [
            "version|operation|flow|inputs|records_in|applied|filtered",
            "2|WRITE|people_in|shop.people 0@[5,9) 1@[0,1)|5|2|3",
            "1|WRITE|||||",
        ]
    );
    let all = session.sql("DESCRIBE HISTORY default.people").await?.collect().await?;
    assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    let unknown = refusal(&session, "DESCRIBE HISTORY peopel").await?;
    assert_eq!(unknown.hint(), Some("did you mean 'default.people'?"));
    Ok(())
}

#[tokio::test]
async fn explain_upsert_sums_up_what_commits_cost() -> TestResult {
    let lake = Lake::new()?;
    let mut definition = crate::system::samples::definition()?;
    definition.flow.kind = FlowKind::AutoCdc;
    definition.table.properties.insert("alluvium.upsert".to_owned(), "copy-on-write".to_owned());
    definition.table.properties.insert("alluvium.upsert.rewrite.max".to_owned(), "2 KB".to_owned());
    lake.catalog.put_definition(&definition).await?;
    lake.catalog.put_dataset(&dataset_of(&definition)).await?;
    let mut commit = crate::system::samples::commit()?;
    lake.catalog.put_commit(&commit).await?;
    commit.version += 1;
    commit.lineage.effort = Effort { files_touched: 1, batch_bytes: 488, discarded_bytes: 500, bytes_written: 1360 };
    lake.catalog.put_commit(&commit).await?;
    // What the flow rejected was appended to another table, which is none of the flow's costs.
    let mut rejected = commit.clone();
    rejected.table = "silver.rejects".parse()?;
    rejected.location = "memory:///silver/rejects".parse()?;
    rejected.lineage.effort = Effort { batch_bytes: 77, bytes_written: 77, ..Effort::default() };
    lake.catalog.put_commit(&rejected).await?;
    let session = open(&lake)?;
    let flow = &commit.lineage.flow;
    let wanted = [
        "commits|files_touched|files_touched_max|batch_bytes|discarded_bytes|bytes_written|amplification|amplification_max",
        "2|2.0|3|1000|600|2000|2.0|2.7868852459016393",
    ];
    let rows = session.sql(&format!("EXPLAIN UPSERT {flow}")).await?.collect().await?;
    assert_eq!(lines(&[rows[0].project(&[0, 1])?])?, ["flow|table", "orders_in|silver.orders"]);
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert_eq!(lines(&[rows[0].project(&[2, 5, 6, 8, 9, 10, 11, 12])?])?, wanted);
    let wanted = ["mode|rewrite_max|rewrite_policy", "copy-on-write|2048|split"];
    assert_eq!(lines(&[rows[0].project(&[13, 14, 15])?])?, wanted);
    assert_eq!(refusal(&session, "EXPLAIN UPSERT orders_inn").await?.hint(), Some("did you mean 'orders_in'?"));
    definition.flow.kind = FlowKind::Append;
    definition.flow.sql_hash = "other".to_owned();
    lake.catalog.put_definition(&definition).await?;
    let refused = refusal(&session, &format!("EXPLAIN UPSERT {flow}")).await?;
    assert!(refused.message().contains("has no keys to upsert by"), "{}", refused.message());
    Ok(())
}

fn dataset_of(definition: &alluvium_catalog::Definition) -> Dataset {
    Dataset {
        name: definition.table.name.clone(),
        kind: DatasetKind::Delta,
        location: definition.table.location.clone(),
        owner: None,
        description: None,
        tags: Vec::new(),
        table: Some(definition.table.clone()),
    }
}

fn uuid(last: u8) -> String {
    format!("00000000-0000-0000-0000-0000000000{last:02}")
}

#[tokio::test]
async fn tables_are_listed_without_being_opened() -> TestResult {
    let lake = lake().await?;
    lake.register("broken", DatasetKind::Delta, &lake.location("nothing")?).await?;
    let session = open(&lake)?;
    check(
        &session,
        "SELECT table_schema, table_name FROM information_schema.tables \
         WHERE table_schema NOT IN ('information_schema', 'system') ORDER BY 1, 2",
        &["table_schema|table_name", "default|broken", "default|names", "silver|orders"],
    )
    .await?;
    check(&session, "SELECT count(*) AS n FROM names", &["n", "1"]).await?;
    refusal(&session, "SELECT * FROM broken").await?;
    Ok(())
}

#[tokio::test]
async fn a_failing_row_is_bad_data() -> TestResult {
    let lake = lake().await?;
    let session = open(&lake)?;
    let answer = session.sql("SELECT CAST(name AS BIGINT) FROM names").await?;
    let error = answer.collect().await.err().ok_or("the cast went well")?;
    assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Data, "{}", error.chain());
    Ok(())
}

#[derive(Debug)]
struct Canned;

#[async_trait]
impl Peek for Canned {
    async fn peek(&self, source: &Name) -> Result<RecordBatch> {
        let rows: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        RecordBatch::try_from_iter([(source.as_str(), rows)])
            .map_err(|cause| Error::internal("rows").with_source(cause))
    }
}

#[tokio::test]
async fn a_source_is_peeked_at_where_that_is_possible() -> TestResult {
    let lake = Lake::new()?;
    lake.catalog.put_definition(&crate::system::samples::definition()?).await?;
    assert!(open(&lake)?.sql("SELECT * FROM orders_raw").await.is_err());
    let session = open(&lake)?.with_peek(Arc::new(Canned));
    check(&session, "SELECT max(orders_raw) AS top FROM orders_raw", &["top", "8"]).await
}

#[tokio::test]
async fn one_statement_is_taken_at_a_time() -> TestResult {
    let lake = Lake::new()?;
    let session = open(&lake)?;
    assert_eq!(refusal(&session, "SELECT 1; SELECT 2").await?.message(), "the text has more than one statement");
    assert_eq!(refusal(&session, "  ").await?.message(), "there is no statement in the text");
    check(&session, "SELECT 1 AS one;", &["one", "1"]).await
}
