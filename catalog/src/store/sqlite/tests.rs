//! What the module `sqlite` promises, tested.

use std::path::PathBuf;

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::Timestamp;
use crate::store::suite;

fn folder() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("no folder").with_source(source))?;
    let path = folder.path().join("deep/er/catalog.db");
    Ok((folder, path))
}

fn run(id: u128) -> Run {
    Run { id: Uuid::from_u128(id), started_at: Timestamp(1), ended_at: None, error: None, address: None }
}

#[tokio::test]
async fn suite_holds_in_a_file_and_in_memory() -> Result<()> {
    let (_folder, path) = folder()?;
    suite::all(&SqliteStore::open(&path).await?).await?;
    suite::all(&SqliteStore::open_in_memory().await?).await
}

#[tokio::test]
async fn all_is_there_when_the_file_is_opened_again() -> Result<()> {
    let (_folder, path) = folder()?;
    let first = SqliteStore::open(&path).await?;
    suite::all(&first).await?;
    let all = |store: SqliteStore| async move {
        let parts = (store.connections().await?, store.sources().await?, store.datasets().await?);
        Ok::<_, Error>((parts, store.flows().await?, store.runs(99).await?, store.commits(None, 99).await?))
    };
    let before = all(first.clone()).await?;
    first.close().await;
    assert!(first.runs(1).await.is_err_and(|error| error.kind() == ErrorKind::Closed));
    let again = all(SqliteStore::open(&path).await?).await?;
    assert!(!again.3.is_empty());
    assert_eq!(again, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_handles_share_one_new_file() -> Result<()> {
    let (_folder, path) = folder()?;
    let stores = futures::future::try_join_all((0..6).map(|_| SqliteStore::open(&path))).await?;
    let writers = stores.iter().enumerate().map(|(index, store)| async move {
        for step in 0..20 {
            store.put_run(&run((index * 20 + step) as u128)).await?;
            store.runs(5).await?;
        }
        Ok::<_, Error>(())
    });
    futures::future::try_join_all(writers).await?;
    for store in &stores {
        assert_eq!(store.runs(usize::MAX).await?.len(), 120);
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_open_is_not_replaced_and_one_that_is_replaced_is_not_opened() -> Result<()> {
    let (_folder, path) = folder()?;
    let store = SqliteStore::open(&path).await?;
    let refused = Hold::alone(&path).err().ok_or_else(|| Error::internal("an open catalog was given away"))?;
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.message().contains("another process has it open"), "{refused}");
    store.close().await;

    let alone = Hold::alone(&path)?;
    let refused = SqliteStore::open(&path).await.err().ok_or_else(|| Error::internal("it was opened meanwhile"))?;
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{}", refused.chain());
    drop(alone);
    SqliteStore::open(&path).await.map(drop)
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_is_locked_and_opened_where_it_leads_to() -> Result<()> {
    let (folder, path) = folder()?;
    let failed = |source: std::io::Error| Error::internal("cannot make the link").with_source(source);
    std::fs::create_dir_all(folder.path().join("deep/er")).map_err(failed)?;
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink("deep/er/catalog.db", &link).map_err(failed)?;
    // At first the file is not there yet.
    for _ in 0..2 {
        let store = SqliteStore::open(&link).await?;
        assert!(Hold::alone(&path).is_err() && Hold::alone(&link).is_err());
        store.put_run(&run(1)).await?;
        store.close().await;
        let leads_to = Hold::alone(&link)?.path().to_owned();
        assert_eq!(Hold::alone(&path)?.path(), leads_to);
        assert!(path.is_file() && link.is_symlink());
    }
    Ok(())
}

#[tokio::test]
async fn what_is_flushed_is_in_the_file_itself_unless_a_reader_holds_it_back() -> Result<()> {
    let (_folder, path) = folder()?;
    let (store, other) = (SqliteStore::open(&path).await?, SqliteStore::open(&path).await?);
    let failed = |source| failed(&store.place, "use", source);
    sqlx::query("PRAGMA busy_timeout = 0").execute(&store.writer).await.map_err(failed)?;
    store.put_run(&run(1)).await?;
    let mut reading = other.read().await?;
    sqlx::query("SELECT * FROM runs").fetch_all(&mut *reading).await.map_err(failed)?;
    store.put_run(&run(2)).await?;
    assert!(store.flush().await.is_err_and(|error| error.kind() == ErrorKind::Unavailable));
    reading.rollback().await.map_err(failed)?;

    store.flush().await?;
    let log = std::fs::metadata(path.with_file_name("catalog.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0);
    SqliteStore::open_in_memory().await?.flush().await
}

#[tokio::test]
async fn a_reader_is_not_held_up_by_a_writer() -> Result<()> {
    let (_folder, path) = folder()?;
    let (writing, reading) = (SqliteStore::open(&path).await?, SqliteStore::open(&path).await?);
    let transaction = writing.write().await?;
    assert_eq!(reading.runs(9).await?, []);
    writing.commit(transaction).await
}

#[tokio::test]
async fn what_is_not_a_catalog_is_said_to_be_none() -> Result<()> {
    let (folder, _) = folder()?;
    let path = folder.path().join("catalog.db");
    let failed = |source: std::io::Error| Error::internal("cannot use the file").with_source(source);
    std::fs::write(&path, "this is not a database, and it is longer than a header of 100 bytes ".repeat(9))
        .map_err(failed)?;
    let error = SqliteStore::open(&path).await.err().ok_or_else(|| Error::internal("text was taken"))?;
    assert_eq!(error.kind(), ErrorKind::Data, "{}", error.chain());
    assert!(error.message().contains("catalog.db") && error.hint().is_some_and(|hint| hint.contains("rebuild")));
    let error = SqliteStore::open(folder.path()).await.err().ok_or_else(|| Error::internal("a folder was taken"))?;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    Ok(())
}

#[tokio::test]
async fn damage_inside_is_said_to_be_damage() -> Result<()> {
    let (_folder, path) = folder()?;
    let store = SqliteStore::open(&path).await?;
    store.put_run(&run(1)).await?;
    let spoil = "UPDATE runs SET id = 'not an id'";
    let spoilt = sqlx::query(spoil).execute(&store.writer).await;
    spoilt.map_err(|source| failed(&store.place, "spoil", source))?;
    let error = store.runs(1).await.err().ok_or_else(|| Error::internal("it was read"))?;
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.chain().contains("column id"), "{}", error.chain());
    Ok(())
}

#[tokio::test]
async fn a_newer_schema_is_refused() -> Result<()> {
    let (_folder, path) = folder()?;
    let store = SqliteStore::open(&path).await?;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'of the future', TRUE, X'00', 0)";
    sqlx::query(newer).execute(&store.writer).await.map_err(|source| failed(&store.place, "change", source))?;
    store.close().await;
    let error = SqliteStore::open(&path).await.err().ok_or_else(|| Error::internal("it was opened"))?;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    assert!(error.message().contains(&format!("has schema 9999, newer than {newest}")), "{error}");
    Ok(())
}

#[tokio::test]
async fn those_who_open_a_new_file_at_once_all_open_it() -> Result<()> {
    let (_folder, path) = folder()?;
    let open = || SqliteStore::open(&path);
    tokio::try_join!(open(), open(), open(), open(), open(), open()).map(drop)
}

#[tokio::test]
async fn a_catalog_whose_folder_cannot_be_made_says_which_setting_to_change() -> Result<()> {
    let file = tempfile::NamedTempFile::new().map_err(|cause| Error::internal("no file").with_source(cause))?;
    let refused = SqliteStore::open(&file.path().join("below").join("catalog.db")).await.err();
    let refused = refused.ok_or_else(|| Error::internal("a folder was made below a file"))?;
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.hint().is_some_and(|hint| hint.contains("ALLUVIUM_CATALOG")), "{refused:?}");
    Ok(())
}
