//! What the module `tables` promises, tested.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryFromArrow;
use serde_json::{Value, json};

use super::fixture::{Lake, TestResult, append, create, lines, people, with_hidden};
use super::*;

async fn rows(provider: Arc<dyn TableProvider>) -> TestResult<Vec<String>> {
    let context = SessionContext::new();
    lines(&context.read_table(provider)?.sort_by(vec![datafusion::prelude::col("id")])?.collect().await?)
}

async fn refusal(lake: &Lake, location: &Location, version: Version) -> TestResult<Error> {
    match lake.reader.open(location, version).await {
        Ok(table) => Err(format!("version {} of {location} was opened", table.version()).into()),
        Err(error) => Ok(error),
    }
}

#[tokio::test]
async fn each_version_is_read_as_it_was() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?, people(&[(2, "bob")])?]).await?;
    let newest = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(newest.version(), 2);
    assert_eq!(rows(newest.provider()).await?, ["id|name", "1|ann", "2|bob"]);
    let first = lake.reader.open(&location, Version::At(1)).await?;
    assert_eq!(rows(first.provider()).await?, ["id|name", "1|ann"]);

    append(&location, people(&[(3, "cid")])?).await?;
    assert_eq!(rows(newest.provider()).await?.len(), 3, "an open table moved");
    let refreshed = lake.reader.refresh(&newest).await?;
    assert_eq!(refreshed.version(), 3);
    assert_eq!(lake.reader.refresh(&refreshed).await?.version(), 3);
    assert_eq!(rows(refreshed.provider()).await?.len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_second_opening_reads_only_what_the_log_has_gained() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?, people(&[(2, "bob")])?]).await?;
    let first = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(rows(first.provider()).await?.len(), 3);
    // Whoever reads this commit again finds out.
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    let commit = std::fs::read(log.join("00000000000000000001.json"))?;
    std::fs::write(log.join("00000000000000000001.json"), "no JSON")?;
    let again = lake.reader.open(&location, Version::Latest).await?;
    assert!(Arc::ptr_eq(&first.snapshot, &again.snapshot) && Arc::ptr_eq(&first.provider, &again.provider));
    assert_eq!(rows(again.provider()).await?.len(), 3, "its files are known");
    fixture::write_commit(&location, 3, &[json!({"commitInfo": {"operation": "nothing"}})])?;
    let followed = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(followed.version(), 3);
    std::fs::write(log.join("00000000000000000001.json"), commit)?;
    assert_eq!(rows(followed.provider()).await?.len(), 3);
    let old = lake.reader.open(&location, Version::At(1)).await?;
    assert_eq!((old.version(), rows(old.provider()).await?.len()), (1, 2));
    assert_eq!(lake.reader.open(&location, Version::Latest).await?.version(), 3, "an old version is not kept");
    Ok(())
}

#[tokio::test]
async fn a_log_that_grows_by_little_is_followed_without_a_list() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    let nothing = json!({"commitInfo": {"operation": "nothing"}});
    let commit = |version| fixture::write_commit(&location, version, std::slice::from_ref(&nothing));
    assert_eq!(lake.reader.open(&location, Version::Latest).await?.version(), 1);
    // A hole in the log: whoever lists it finds out.
    commit(999)?;
    commit(2)?;
    commit(3)?;
    let followed = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!((followed.version(), followed.listed), (3, 1));
    assert!(Lake::new()?.reader.open(&location, Version::Latest).await.is_err(), "the hole was not found");
    std::fs::remove_file(location.local_path().ok_or("not on disk")?.join(format!("_delta_log/{:020}.json", 999)))?;
    // One by one beyond the bound, then by more than it at once.
    for version in 4..=2 * VERSIONS_MAX {
        commit(version)?;
        assert_eq!(lake.reader.open(&location, Version::Latest).await?.version(), version);
    }
    for version in 2 * VERSIONS_MAX + 1..4 * VERSIONS_MAX {
        commit(version)?;
    }
    let listed = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!((listed.version(), listed.listed), (4 * VERSIONS_MAX - 1, 4 * VERSIONS_MAX - 1));
    assert_eq!(rows(listed.provider()).await?, ["id|name", "1|ann"]);
    append(&location, people(&[(2, "bob")])?).await?;
    assert_eq!(rows(lake.reader.open(&location, Version::Latest).await?.provider()).await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_table_made_anew_at_its_place_is_noticed() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?, people(&[(2, "bob")])?]).await?;
    let folder = location.local_path().ok_or("not on disk")?;
    let opened = lake.reader.open(&location, Version::Latest).await?;
    std::fs::remove_dir_all(&folder)?;
    let gone = refusal(&lake, &location, Version::Latest).await?;
    assert_eq!(gone.message(), format!("there is no Delta table at {location}"));
    // As many versions, then more of them, then fewer.
    for batches in [vec![(3, "cid"), (4, "dan")], vec![(5, "eve"), (6, "fay"), (7, "gus")], vec![(8, "hal")]] {
        let _ = std::fs::remove_dir_all(&folder);
        let n_rows = batches.len();
        let batches = batches.into_iter().map(|row| people(&[row])).collect::<TestResult<Vec<_>>>()?;
        lake.table("people", &batches).await?;
        for table in [lake.reader.open(&location, Version::Latest).await?, lake.reader.refresh(&opened).await?] {
            assert_eq!((table.version(), rows(table.provider()).await?.len()), (n_rows as u64, n_rows + 1));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_log_that_was_cleaned_up_is_read_from_its_checkpoint() -> TestResult {
    let lake = Lake::new()?;
    let mut batches = Vec::new();
    for id in 0..4 {
        batches.push(people(&[(id, "x")])?);
    }
    let location = lake.table("people", &batches).await?;
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    let clean = |versions: std::ops::Range<u64>| -> TestResult {
        for version in versions {
            std::fs::remove_file(log.join(format!("{version:020}.json")))?;
        }
        Ok(())
    };
    let checkpoint = async || -> TestResult {
        let mut table = DeltaTable::new(delta::log_store(&lake.reader.stores, &location)?);
        table.load().await?;
        Ok(deltalake::checkpoints::create_checkpoint(&table, None).await?)
    };
    let opened = lake.reader.open(&location, Version::Latest).await?;
    checkpoint().await?;
    clean(0..4)?;
    // It was opened by commits that are gone now, and lists its files only here.
    assert_eq!(rows(opened.provider()).await?.len(), 5);
    append(&location, people(&[(4, "y")])?).await?;
    checkpoint().await?;
    append(&location, people(&[(5, "z")])?).await?;
    clean(4..6)?;
    let reopened = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!((reopened.version(), rows(reopened.provider()).await?.len()), (6, 7));
    Ok(())
}

#[tokio::test]
async fn a_version_that_is_not_there_names_those_that_are() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    let error = refusal(&lake, &location, Version::At(7)).await?;
    assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Invalid);
    assert_eq!(error.message(), format!("version 7 of the table at {location} does not exist"));
    assert_eq!(error.hint(), Some("versions 0 to 1 can be read"));
    Ok(())
}

#[tokio::test]
async fn a_folder_without_log_is_not_a_table() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("nothing")?;
    for version in [Version::Latest, Version::At(0), Version::AsOf(Timestamp(0))] {
        let error = refusal(&lake, &location, version).await?;
        assert_eq!(error.message(), format!("there is no Delta table at {location}"));
    }
    let error = lake.reader.history(&location, 5).await.err().ok_or("a history without table")?;
    assert_eq!(error.message(), format!("there is no Delta table at {location}"));
    Ok(())
}

#[tokio::test]
async fn a_damaged_log_is_bad_data() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log/00000000000000000001.json");
    std::fs::write(&log, "{\"add\": ")?;
    let error = refusal(&lake, &location, Version::Latest).await;
    // The kernel reads lazily, so the damage may first show when rows are read.
    if let Ok(error) = error {
        assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Data);
    }
    assert!(lake.reader.history(&location, 5).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_time_finds_the_version_that_stood_then() -> TestResult {
    let lake = Lake::new()?;
    let location = five_versions(&lake).await?;
    let history = lake.reader.history(&location, usize::MAX).await?;
    assert_eq!(history.iter().map(|entry| entry.version).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
    for entry in &history {
        let found = lake.reader.open(&location, Version::AsOf(entry.committed_at)).await?.version();
        assert_eq!(found, entry.version, "at {}", entry.committed_at);
    }
    let early = refusal(&lake, &location, Version::AsOf(Timestamp(1_000))).await?;
    assert_eq!(early.message(), format!("the table at {location} had no version at 1970-01-01T00:00:01.000Z"));
    assert!(early.hint().is_some_and(|hint| hint.starts_with("its oldest version that can be read is 0 of ")));
    Ok(())
}

/// Lets the store have got the commits of a table at these times, that of version `first` first.
fn date(location: &Location, first: u64, times_ms: &[u64]) -> TestResult {
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    for (version, time_ms) in (first..).zip(times_ms) {
        let commit = std::fs::File::options().write(true).open(log.join(format!("{version:020}.json")))?;
        commit.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_millis(*time_ms))?;
    }
    Ok(())
}

/// Checks which version each time finds.
async fn check_times(lake: &Lake, location: &Location, expected: &[(i64, u64)]) -> TestResult {
    for (time_ms, version) in expected {
        let found = lake.reader.open(location, Version::AsOf(Timestamp(*time_ms))).await?.version();
        assert_eq!(found, *version, "at {time_ms} ms");
    }
    Ok(())
}

/// Checks that a time is before all versions, and which of them is told to be the oldest.
async fn check_too_early(lake: &Lake, location: &Location, time_ms: i64, oldest: &str) -> TestResult {
    let error = refusal(lake, location, Version::AsOf(Timestamp(time_ms))).await?;
    assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Invalid, "{}", error.chain());
    assert_eq!(error.hint(), Some(format!("its oldest version that can be read is {oldest}").as_str()));
    Ok(())
}

/// Writes a table of five versions.
async fn five_versions(lake: &Lake) -> TestResult<Location> {
    let mut batches = Vec::new();
    for id in 0..4 {
        batches.push(people(&[(id, "x")])?);
    }
    lake.table("people", &batches).await
}

#[tokio::test]
async fn a_clock_that_went_back_takes_no_version_out_of_order() -> TestResult {
    let lake = Lake::new()?;
    let location = five_versions(&lake).await?;
    date(&location, 0, &[10, 20, 100, 30, 40])?;
    check_times(&lake, &location, &[(10, 0), (19, 0), (20, 1), (35, 1), (50, 1), (99, 1)]).await?;
    check_times(&lake, &location, &[(100, 2), (101, 3), (102, 4), (9_999, 4)]).await?;
    check_too_early(&lake, &location, 9, "0 of 1970-01-01T00:00:00.010Z").await?;
    let history = lake.reader.history(&location, 3).await?;
    let times: Vec<i64> = history.iter().map(|entry| entry.committed_at.0).collect();
    assert_eq!(times, [102, 101, 100], "history shows the times that find its versions");
    Ok(())
}

#[tokio::test]
async fn commits_of_one_moment_are_a_millisecond_apart() -> TestResult {
    let lake = Lake::new()?;
    let location = five_versions(&lake).await?;
    date(&location, 0, &[10, 10, 10, 10, 50])?;
    check_times(&lake, &location, &[(10, 0), (11, 1), (12, 2), (13, 3), (49, 3), (50, 4)]).await?;
    check_too_early(&lake, &location, 9, "0 of 1970-01-01T00:00:00.010Z").await
}

#[tokio::test]
async fn a_time_in_a_cleaned_log_finds_what_it_still_has() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(0, "x")])?, people(&[(1, "x")])?]).await?;
    let mut table = DeltaTable::new(delta::log_store(&lake.reader.stores, &location)?);
    table.load().await?;
    deltalake::checkpoints::create_checkpoint(&table, None).await?;
    append(&location, people(&[(2, "x")])?).await?;
    append(&location, people(&[(3, "x")])?).await?;
    date(&location, 0, &[100, 200, 150, 30, 400])?;
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    // Version 1 cannot be read any more, and still tells that the clock was further then.
    std::fs::remove_file(log.join(format!("{:020}.json", 0)))?;
    check_too_early(&lake, &location, 200, "2 of 1970-01-01T00:00:00.201Z").await?;
    check_times(&lake, &location, &[(201, 2), (202, 3), (399, 3), (400, 4)]).await?;
    std::fs::remove_file(log.join(format!("{:020}.json", 1)))?;
    check_too_early(&lake, &location, 149, "2 of 1970-01-01T00:00:00.150Z").await?;
    check_times(&lake, &location, &[(150, 2), (151, 3), (399, 3), (400, 4), (9_999, 4)]).await
}

#[tokio::test]
async fn times_that_commits_carry_go_over_those_of_the_store() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    for (version, time_ms) in (2..).zip([2_000, 2_001, 3_000, 4_000]) {
        let info = json!({"commitInfo": {"operation": "nothing", "timestamp": 7, "inCommitTimestamp": time_ms}});
        fixture::write_commit(&location, version, &[info])?;
    }
    date(&location, 0, &[1_000, 900, 9_000, 8_000, 7_000, 6_000])?;
    check_too_early(&lake, &location, 999, "0 of 1970-01-01T00:00:01.000Z").await?;
    check_times(&lake, &location, &[(1_000, 0), (1_001, 1), (1_999, 1), (2_000, 2), (2_001, 3)]).await?;
    check_times(&lake, &location, &[(2_999, 3), (3_000, 4), (3_999, 4), (4_000, 5), (9_999, 5)]).await?;
    let history = lake.reader.history(&location, usize::MAX).await?;
    let times: Vec<i64> = history.iter().map(|entry| entry.committed_at.0).collect();
    assert_eq!(times, [4_000, 3_000, 2_001, 2_000, 1_001, 1_000]);

    // Once a table carries times no longer, those that its old commits carry count for nothing.
    fixture::write_commit(&location, 6, &[json!({"commitInfo": {"operation": "nothing", "timestamp": 7}})])?;
    date(&location, 6, &[5_000])?;
    let history = lake.reader.history(&location, usize::MAX).await?;
    let times: Vec<i64> = history.iter().map(|entry| entry.committed_at.0).collect();
    assert_eq!(times, [9_004, 9_003, 9_002, 9_001, 9_000, 1_001, 1_000]);
    let shown: Vec<(i64, u64)> = history.iter().map(|entry| (entry.committed_at.0, entry.version)).collect();
    check_times(&lake, &location, &shown).await?;
    // The oldest version that is left carries a time, too.
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    std::fs::remove_file(log.join(format!("{:020}.json", 0)))?;
    std::fs::write(log.join(format!("{:020}.checkpoint.parquet", 6)), "never read")?;
    let carrying = json!({"commitInfo": {"operation": "nothing", "inCommitTimestamp": 1}});
    fixture::write_commit(&location, 6, &[carrying])?;
    fixture::write_commit(&location, 7, &[json!({"commitInfo": {"operation": "nothing"}})])?;
    date(&location, 6, &[5_000, 6_000])?;
    check_too_early(&lake, &location, 9_003, "6 of 1970-01-01T00:00:09.004Z").await
}

#[tokio::test]
async fn hidden_columns_are_left_out_of_the_plain_provider() -> TestResult {
    let lake = Lake::new()?;
    let batch = with_hidden(&people(&[(1, "ann"), (2, "bob")])?)?;
    let location = lake.table("people", &[batch]).await?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(table.schema().fields().len(), 4);
    assert_eq!(rows(table.provider()).await?, ["id|name", "1|ann", "2|bob"]);
    assert_eq!(
        rows(table.provider_with_hidden()).await?,
        ["id|name|_alluvium_partition|_alluvium_offset", "1|ann|0|100", "2|bob|0|101"]
    );
    Ok(())
}

#[tokio::test]
async fn columns_have_the_types_and_the_order_that_were_declared() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.location("people")?;
    let schema = Schema::new(vec![Field::new("name", DataType::Utf8, true), Field::new("id", DataType::Int64, true)]);
    create(&location, &schema, &["name"]).await?;
    let batch = people(&[(1, "ann"), (2, "bob")])?.project(&[1, 0])?;
    append(&location, batch).await?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    let types: Vec<_> = table.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Int64]);
    let delivered = SessionContext::new().read_table(table.provider())?.collect().await?;
    assert_eq!(delivered[0].schema().field(0).data_type(), &DataType::Utf8);
    assert_eq!(rows(table.provider()).await?, ["name|id", "ann|1", "bob|2"]);
    Ok(())
}

/// Deletes rows 1 and 3 of the one file of version 1 by a deletion vector inside the log, as the protocol lays it out.
fn delete_by_vector(location: &Location) -> TestResult {
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    let commit = std::fs::read_to_string(log.join("00000000000000000001.json"))?;
    let actions: Vec<Value> = commit.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let add = actions.iter().find_map(|action| action.get("add")).ok_or("no add")?;
    let vector = json!({
        "storageType": "i", "pathOrInlineDv": VECTOR_OF_1_AND_3, "sizeInBytes": 36, "cardinality": 2
    });
    let mut with_vector = add.clone();
    with_vector["deletionVector"] = vector;
    let created = std::fs::read_to_string(log.join("00000000000000000000.json"))?;
    let created: Vec<Value> = created.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut metadata = created.iter().find_map(|action| action.get("metaData")).ok_or("no metadata")?.clone();
    metadata["configuration"]["delta.enableDeletionVectors"] = json!("true");
    let features = json!(["deletionVectors"]);
    let lines = [
        json!({"protocol": {
            "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features
        }}),
        json!({"metaData": metadata}),
        json!({"remove": {
            "path": add["path"], "deletionTimestamp": 0, "dataChange": true, "extendedFileMetadata": true,
            "partitionValues": add["partitionValues"], "size": add["size"]
        }}),
        json!({"add": with_vector}),
    ];
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    Ok(std::fs::write(log.join("00000000000000000002.json"), text.join("\n"))?)
}

/// z85 of: magic 1681511377, one bitmap, key 0, and a portable Roaring bitmap of the values 1 and 3.
const VECTOR_OF_1_AND_3: &str = "^Bg9^0rr910000000000iXQKl0rr91000315c8Xg0rri4";

#[tokio::test]
async fn rows_in_a_deletion_vector_are_gone() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")])?]).await?;
    delete_by_vector(&location)?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(rows(table.provider()).await?, ["id|name", "0|a", "2|c", "4|e"]);
    let counted = SessionContext::new().read_table(table.provider())?.count().await?;
    assert_eq!(counted, 3);
    let before = lake.reader.open(&location, Version::At(1)).await?;
    assert_eq!(rows(before.provider()).await?.len(), 6);
    Ok(())
}

#[tokio::test]
async fn features_that_cannot_be_read_are_named() -> TestResult {
    let lake = Lake::new()?;
    let location = lake.table("people", &[people(&[(1, "ann")])?]).await?;
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log/00000000000000000002.json");
    let features = json!(["whatComesNext"]);
    let protocol = json!({"protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features
    }});
    std::fs::write(log, protocol.to_string())?;
    let error = refusal(&lake, &location, Version::Latest).await?;
    assert!(error.chain().contains("whatComesNext"), "{}", error.chain());
    assert_eq!(error.kind(), alluvium_catalog::ErrorKind::Invalid);
    Ok(())
}

#[tokio::test]
async fn folders_of_files_are_tables() -> TestResult {
    let lake = Lake::new()?;
    let session = SessionContext::new();
    for (kind, name, text) in [
        (DatasetKind::Csv, "a.csv", "id,name\n1,ann\n2,bob\n"),
        (DatasetKind::Json, "a.json", "{\"id\":1,\"name\":\"ann\"}\n{\"id\":2,\"name\":\"bob\"}\n"),
    ] {
        let location = lake.location(name.trim_start_matches("a."))?;
        let folder = location.local_path().ok_or("not on disk")?;
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), text)?;
        std::fs::write(folder.join("notes.txt"), "not a table")?;
        let provider = lake.reader.open_files(kind, &location, &session.state()).await?;
        let frame = session.read_table(provider)?.sort_by(vec![datafusion::prelude::col("id")])?;
        assert_eq!(lines(&frame.collect().await?)?, ["id|name", "1|ann", "2|bob"]);
    }
    let empty = lake.location("empty")?;
    std::fs::create_dir_all(empty.local_path().ok_or("not on disk")?)?;
    let refused = lake.reader.open_files(DatasetKind::Parquet, &empty, &session.state()).await;
    assert!(refused.is_err(), "an empty folder was opened");
    Ok(())
}

#[tokio::test]
async fn an_unknown_name_has_the_nearest_as_hint() -> TestResult {
    let lake = Lake::new()?;
    lake.table("silver.orders", &[people(&[(1, "ann")])?]).await?;
    assert_eq!(lake.reader.dataset(&"silver.orders".parse()?).await?.name.table(), "orders");
    let error = lake.reader.dataset(&"silver.ordres".parse()?).await.err().ok_or("a dataset was found")?;
    assert_eq!(error.hint(), Some("did you mean 'silver.orders'?"));
    Ok(())
}

#[tokio::test]
async fn tables_are_reached_through_the_given_stores_only() -> TestResult {
    let lake = Lake::new()?;
    let location: Location = "memory:///lake/people".parse()?;
    let batch = people(&[(1, "ann")])?;
    let columns = StructType::try_from_arrow(batch.schema().as_ref())?;
    let table = DeltaTable::new(delta::log_store(&lake.reader.stores, &location)?);
    table.create().with_columns(columns.fields().cloned()).await?.write([batch]).await?;
    let table = lake.reader.open(&location, Version::Latest).await?;
    assert_eq!(rows(table.provider()).await?, ["id|name", "1|ann"]);
    Ok(())
}
