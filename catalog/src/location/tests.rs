//! What the module `location` promises, tested.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::{ObjectStoreExt, PutMode, PutPayload};
use proptest::prelude::*;

use super::durable::Flush;
use super::stores::local_disk;
use super::*;
use crate::ErrorKind;

fn refused(text: &str) -> Option<Error> {
    text.parse::<Location>().err()
}

fn check(text: &str, shown: &str, url: &str) -> Result<()> {
    let location: Location = text.parse()?;
    assert_eq!(location.to_string(), shown, "{text:?}");
    assert_eq!(location.url()?.as_str(), url, "{text:?}");
    assert_eq!(location.to_string().parse::<Location>()?, location, "{text:?}");
    assert_eq!(location.url()?.as_str().replace("%20", " ").parse::<Location>()?, location, "{text:?}");
    Ok(())
}

#[test]
fn texts_become_canonical() -> Result<()> {
    check("s3://lake", "s3://lake", "s3://lake/")?;
    check("S3A://lake/silver/orders/", "s3://lake/silver/orders", "s3://lake/silver/orders/")?;
    check("s3://Lake_1/a b/c=2026-01-01", "s3://Lake_1/a b/c=2026-01-01", "s3://Lake_1/a%20b/c=2026-01-01/")?;
    check("/data/./x/../lake//", "/data/lake", "file:///data/lake/")?;
    check("file:///data/lake", "/data/lake", "file:///data/lake/")?;
    check("file://localhost/data/", "/data", "file:///data/")?;
    check("file:/data", "/data", "file:///data/")?;
    check("/", "/", "file:///")?;
    check("memory:///", "memory:///", "memory:///")?;
    check("memory://x/y", "memory:///x/y", "memory:///x/y/")?;
    check("memory:///x//y/", "memory:///x/y", "memory:///x/y/")?;
    Ok(())
}

#[test]
fn relative_paths_start_in_the_current_directory() -> Result<()> {
    let here = std::env::current_dir().map_err(|source| Error::internal("no directory").with_source(source))?;
    assert_eq!("lake/../tables".parse::<Location>()?.local_path(), Some(here.join("tables")));
    assert_eq!(".".parse::<Location>()?.local_path(), Some(here.clone()));
    assert_eq!("..".parse::<Location>()?.local_path(), here.parent().map(FilePath::to_path_buf));
    Ok(())
}

#[test]
fn hostile_texts_are_refused() {
    let long = format!("/{}", "a/".repeat(600));
    let texts = [
        "",
        " ",
        " /a",
        "/a ",
        "/../etc",
        "/a/../../etc",
        "~",
        "~/lake",
        "/a\0b",
        "/a\nb",
        "/a?b",
        "/a#1",
        "/a%2e%2e/b",
        "/a\\b",
        "/a/*.parquet",
        "/a /b",
        "C:\\lake",
        "c:/lake",
        &long,
        "s3:/lake/a",
        "s3:lake",
        "s3://",
        "s3:///a",
        "s3://ab",
        "s3://la ke/a",
        "s3://lake/../a",
        "s3://lake/./a",
        "s3://lake/a//b",
        "s3://lake//",
        "s3://lake//a",
        "s3://lake/a//",
        "s3://a..b",
        "s3://localhost:9000/lake",
        "s3://lake/a?versionId=1",
        "s3://lake/%2e%2e",
        "gs://lake/a",
        "http://lake/a",
        "file://host/a",
        "file://a",
        "file:a",
        "file:",
        "memory:///../a",
        "memory:x",
        "://a",
        "s3://l\u{e4}ke/a",
    ];
    for text in texts {
        assert!(refused(text).is_some_and(|error| error.kind() == ErrorKind::Invalid), "{text:?} was taken");
    }
}

#[test]
fn a_password_in_a_location_is_refused_and_not_shown() {
    for text in ["s3://id:hunter2@lake/a", "hdfs://me:hunter2@host/a"] {
        assert!(refused(text).is_some_and(|error| !format!("{error:?}").contains("hunter2")), "{text:?}");
    }
}

#[test]
fn join_stays_inside() -> Result<()> {
    let base: Location = "s3://lake/silver".parse()?;
    assert_eq!(base.join("orders/_delta_log")?.to_string(), "s3://lake/silver/orders/_delta_log");
    assert_eq!("s3://lake".parse::<Location>()?.join("a")?.to_string(), "s3://lake/a");
    assert_eq!("/".parse::<Location>()?.join("a")?.local_path(), Some(PathBuf::from("/a")));
    for child in ["", "/a", "a/", "..", "a/../../b", ".", "a//b", "a%2fb", "a\0"] {
        assert!(base.join(child).is_err(), "{child:?} was taken");
    }
    Ok(())
}

#[test]
fn serde_form_is_the_text() -> Result<()> {
    let failed = |source: serde_json::Error| Error::internal("serde").with_source(source);
    let location: Location = serde_json::from_str("\"s3a://lake/a/\"").map_err(failed)?;
    assert_eq!(serde_json::to_string(&location).map_err(failed)?, "\"s3://lake/a\"");
    assert!(serde_json::from_str::<Location>("\"gs://x\"").is_err());
    Ok(())
}

proptest! {
    #[test]
    fn parsing_never_fails_otherwise_and_shows_what_it_reads_again(text in "(s3://|s3a://|memory://|file://|/)?[ -~]{0,40}") {
        match text.parse::<Location>() {
            Ok(location) => {
                prop_assert_eq!(location.to_string().parse::<Location>()?, location.clone());
                prop_assert!(location.url()?.as_str().ends_with('/'));
                prop_assert!(!location.to_string().split('/').any(|segment| segment == ".."));
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Invalid),
        }
    }
}

async fn round_trip(stores: &Stores, location: &Location) -> Result<()> {
    let failed = |source| storage_error(format!("cannot use {location}"), source);
    let store = stores.open(location)?;
    let file = Path::from("a/b.json");
    assert_eq!(store.list_with_delimiter(None).await.map_err(failed)?.objects.len(), 0);

    let create = |text: &'static str| {
        let store = Arc::clone(&store);
        let file = file.clone();
        async move { store.put_opts(&file, PutPayload::from_static(text.as_bytes()), PutMode::Create.into()).await }
    };
    create("first").await.map_err(failed)?;
    let again = create("second").await.map_err(failed);
    assert!(again.is_err_and(|error| error.kind() == ErrorKind::Conflict));

    let mut upload = store.put_multipart(&Path::from("a/c.parquet")).await.map_err(failed)?;
    let parts = [upload.put_part("one".into()), upload.put_part("two".into())];
    futures::future::try_join_all(parts).await.map_err(failed)?;
    upload.complete().await.map_err(failed)?;

    // The same folder through the whole store, and through the store for commits.
    let deep = Path::from_iter(location.path().parts().chain(file.parts()));
    for (store, path) in [(stores.root(location)?, deep), (stores.open_for_commit(location)?, file)] {
        let bytes = store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
        assert_eq!(&bytes[..], b"first");
    }
    let listed = store.list_with_delimiter(Some(&Path::from("a"))).await.map_err(failed)?;
    let mut found: Vec<_> = listed.objects.iter().map(|object| (object.location.to_string(), object.size)).collect();
    found.sort();
    assert_eq!(found, [("a/b.json".to_owned(), 5), ("a/c.parquet".to_owned(), 6)]);
    Ok(())
}

#[tokio::test]
async fn memory_is_shared_by_clones_and_not_by_others() -> Result<()> {
    let stores = Stores::new(StorageSettings::default());
    let location: Location = "memory:///lake/x".parse()?;
    round_trip(&stores.clone(), &location).await?;
    assert!(stores.open(&location)?.head(&Path::from("a/b.json")).await.is_ok());
    let others = Stores::new(StorageSettings::default());
    assert!(others.open(&location)?.head(&Path::from("a/b.json")).await.is_err());
    Ok(())
}

#[tokio::test]
async fn disk_keeps_files_whether_they_are_flushed_or_not() -> Result<()> {
    for local_fsync in [true, false] {
        let failed = |source: io::Error| Error::internal("no folder").with_source(source);
        let folder = tempfile::tempdir().map_err(failed)?;
        let location: Location = folder.path().join("not yet/there").display().to_string().parse()?;
        let stores = Stores::new(StorageSettings { local_fsync, ..StorageSettings::default() });
        stores.open(&location)?;
        assert!(!folder.path().join("not yet").exists(), "opening made the folder");
        round_trip(&stores, &location).await?;
        let names: Vec<_> = std::fs::read_dir(folder.path().join("not yet/there/a")).map_err(failed)?.collect();
        assert_eq!(names.len(), 2, "staged files were left");
    }
    Ok(())
}

/// Flushes nothing and notes what it was asked to flush, with whether the file `published` was there by then.
#[derive(Debug)]
struct Watched {
    published: PathBuf,
    seen: Mutex<Vec<(PathBuf, bool)>>,
    is_broken: bool,
}

impl Flush for Watched {
    fn flush(&self, _file: &File, path: &FilePath) -> io::Result<()> {
        let seen = (path.to_owned(), self.published.exists());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        if self.is_broken { Err(io::Error::other("the disk is full")) } else { Ok(()) }
    }
}

/// The ways by which a file gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Create,
    Overwrite,
    Upload,
    Copy,
}

/// Writes `<folder>/new/file` over a disk whose flushes are watched; returns what was seen of them, and the outcome.
async fn watch(
    folder: &FilePath,
    way: Way,
    (local_fsync, is_broken): (bool, bool),
) -> Result<(Vec<(PathBuf, bool)>, object_store::Result<()>)> {
    let published = folder.join("new/file");
    let watched = Arc::new(Watched { published: published.clone(), seen: Mutex::default(), is_broken });
    let settings = StorageSettings { local_fsync, ..StorageSettings::default() };
    let store = local_disk(&settings, Arc::clone(&watched) as Arc<dyn Flush>);
    let location: Location = published.display().to_string().parse()?;
    let path = location.path();
    let written = match way {
        Way::Create => store.put_opts(path, "one".into(), PutMode::Create.into()).await.map(drop),
        Way::Overwrite => store.put(path, "one".into()).await.map(drop),
        Way::Upload => {
            async {
                let mut upload = store.put_multipart(path).await?;
                upload.put_part("one".into()).await?;
                upload.complete().await.map(drop)
            }
            .await
        }
        Way::Copy => {
            let from = folder.join("from");
            std::fs::write(&from, "one").map_err(|source| Error::internal("no file").with_source(source))?;
            let from: Location = from.display().to_string().parse()?;
            store.copy(from.path(), path).await
        }
    };
    let seen = watched.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((seen, written))
}

#[tokio::test]
async fn a_file_is_flushed_before_it_has_its_name_and_its_folders_after() -> Result<()> {
    let failed = |source: io::Error| Error::internal("no folder").with_source(source);
    for way in [Way::Create, Way::Overwrite, Way::Upload, Way::Copy] {
        let folder = tempfile::tempdir().map_err(failed)?;
        let (seen, written) = watch(folder.path(), way, (true, false)).await?;
        written.map_err(|source| storage_error("cannot write", source))?;
        assert_eq!(std::fs::read(folder.path().join("new/file")).map_err(failed)?, b"one", "{way:?}");
        // What is copied was flushed when it was written.
        let n_files = usize::from(way != Way::Copy);
        let (files, folders) = seen.split_at(n_files);
        for (file, is_published) in files {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            assert!(name.starts_with("file#") && !is_published, "{way:?}: {seen:?}");
        }
        let flushed: Vec<PathBuf> = folders.iter().map(|(folder, _)| folder.clone()).collect();
        let expected = [folder.path().join("new"), folder.path().to_owned()];
        assert!(flushed.starts_with(&expected), "{way:?}: {seen:?}");
        assert!(folders.iter().all(|(_, is_published)| *is_published), "{way:?}: {seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn folders_that_are_in_their_place_are_not_flushed_again() -> Result<()> {
    let failed = |source: io::Error| Error::internal("cannot use the folder").with_source(source);
    let folder = tempfile::tempdir().map_err(failed)?;
    if folder.path().metadata().and_then(|metadata| metadata.created()).is_err() {
        // Without the moment at which a folder was made, none is known again.
        return Ok(());
    }
    let table = folder.path().join("table");
    let watched = Arc::new(Watched { published: table.join("none"), seen: Mutex::default(), is_broken: false });
    let store = local_disk(&StorageSettings::default(), Arc::clone(&watched) as Arc<dyn Flush>);
    // Returns the folders that are flushed for a file.
    let write = async |path: PathBuf| {
        watched.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let location: Location = path.display().to_string().parse()?;
        store.put(location.path(), "one".into()).await.map_err(|source| storage_error("cannot write", source))?;
        let seen = watched.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok::<_, Error>(seen.into_iter().map(|(path, _)| path).filter(|path| path.is_dir()).collect::<Vec<_>>())
    };
    assert!(write(table.join("log/a")).await?.starts_with(&[
        table.join("log"),
        table.clone(),
        folder.path().to_owned()
    ]));
    assert_eq!(write(table.join("log/b")).await?, [table.join("log")]);
    assert_eq!(write(table.join("a")).await?, [table.as_path()]);
    assert_eq!(write(table.join("p=1/a")).await?, [table.join("p=1"), table.clone()]);
    // Another folder of that name is not known, and neither is one that somebody else has made.
    std::fs::remove_dir_all(table.join("p=1")).map_err(failed)?;
    assert_eq!(write(table.join("p=1/a")).await?, [table.join("p=1"), table.clone()]);
    std::fs::create_dir(table.join("p=2")).map_err(failed)?;
    assert_eq!(write(table.join("p=2/a")).await?, [table.join("p=2"), table.clone()]);
    assert_eq!(write(table.join("p=2/b")).await?, [table.join("p=2")]);
    let deep = table.join("1/2/3/4/5/6/7");
    let all: Vec<&FilePath> = deep.ancestors().take(8).collect();
    assert_eq!(all.last(), Some(&table.as_path()));
    assert_eq!(write(deep.join("a")).await?, all);
    assert_eq!(write(table.join("1/2/3/a")).await?, [table.join("1/2/3")]);
    Ok(())
}

#[tokio::test]
async fn nothing_is_flushed_where_the_settings_say_so() -> Result<()> {
    for way in [Way::Create, Way::Overwrite, Way::Upload, Way::Copy] {
        let folder = tempfile::tempdir().map_err(|source| Error::internal("no folder").with_source(source))?;
        let (seen, written) = watch(folder.path(), way, (false, true)).await?;
        written.map_err(|source| storage_error("cannot write", source))?;
        assert!(seen.is_empty(), "{way:?}: {seen:?}");
        assert!(folder.path().join("new/file").is_file(), "{way:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_cannot_be_flushed_does_not_get_its_name() -> Result<()> {
    for way in [Way::Create, Way::Overwrite, Way::Upload] {
        let folder = tempfile::tempdir().map_err(|source| Error::internal("no folder").with_source(source))?;
        let (_, written) = watch(folder.path(), way, (true, true)).await?;
        assert!(written.is_err(), "{way:?}");
        let left = std::fs::read_dir(folder.path().join("new")).map(Iterator::count);
        assert!(left.is_ok_and(|n_left| n_left == 0), "{way:?} left a file");
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() -> Result<()> {
    let failed = |source| Error::internal("cannot use the folder").with_source(source);
    let folder = tempfile::tempdir().map_err(|source| Error::internal("no folder").with_source(source))?;
    let store = Stores::new(StorageSettings::default()).open(&folder.path().display().to_string().parse()?)?;
    for is_dropped in [true, false] {
        let mut upload = store.put_multipart(&Path::from("x")).await.map_err(failed)?;
        upload.put_part("one".into()).await.map_err(failed)?;
        if !is_dropped {
            upload.abort().await.map_err(failed)?;
            assert!(upload.complete().await.is_err());
        }
        drop(upload);
        assert_eq!(std::fs::read_dir(folder.path()).map(Iterator::count).unwrap_or(1), 0);
    }
    Ok(())
}

#[test]
fn a_bucket_is_opened_once_per_purpose() -> Result<()> {
    let settings = StorageSettings {
        endpoint: Some("http://localhost:9000".to_owned()),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("hunter2".to_owned()),
        allow_http: Some(true),
        ..StorageSettings::default()
    };
    let stores = Stores::new(settings.clone());
    let (first, second) = (stores.root(&"s3://lake/a".parse()?)?, stores.root(&"s3://lake/b".parse()?)?);
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!format!("{stores:?} {first:?}").contains("hunter2"));
    assert!(stores.open_for_commit(&"s3://lake/a".parse()?).is_ok());
    let closed = Stores::new(StorageSettings { allow_http: None, ..settings });
    assert!(closed.root(&"s3://lake/a".parse()?).is_err_and(|error| error.hint().is_some()));
    Ok(())
}

/// Answers every request with 500 and returns what was asked, head by head.
async fn failing_server(listener: tokio::net::TcpListener, asked: Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    while let Ok((mut socket, _)) = listener.accept().await {
        let mut bytes = vec![0; 4096];
        let mut n_read = 0;
        // The body is the one byte after the head.
        while !bytes[..n_read].ends_with(b"\r\n\r\nx") {
            match socket.read(&mut bytes[n_read..]).await {
                Ok(n_more) if n_more > 0 => n_read += n_more,
                _ => return,
            }
        }
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(String::from_utf8_lossy(&bytes[..n_read]).to_ascii_lowercase());
        let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_commit_is_sent_once_and_conditionally() -> Result<()> {
    let failed = |source: io::Error| Error::internal("no server").with_source(source);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let server = tokio::spawn(failing_server(listener, Arc::clone(&asked)));
    let stores = Stores::new(StorageSettings {
        endpoint: Some(format!("http://{address}")),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("hunter2".to_owned()),
        allow_http: Some(true),
        retries_max: 1,
        ..StorageSettings::default()
    });
    let location: Location = "s3://lake/silver/orders".parse()?;
    let n_asked = || asked.lock().unwrap_or_else(PoisonError::into_inner).len();
    for (store, expected) in [(stores.open_for_commit(&location)?, 1), (stores.open(&location)?, 3)] {
        let put = store.put_opts(&Path::from("_delta_log/0.json"), "x".into(), PutMode::Create.into()).await;
        let error = put.map_err(|source| storage_error("cannot commit", source)).err();
        assert!(
            error.is_some_and(|error| error.kind() == ErrorKind::Unavailable && !error.chain().contains("hunter2"))
        );
        assert_eq!(n_asked(), expected);
    }
    server.abort();
    for head in asked.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        assert!(head.starts_with("put /lake/silver/orders/_delta_log/0.json "), "{head}");
        assert!(head.contains("if-none-match: *") && !head.contains("hunter2"), "{head}");
    }
    Ok(())
}

#[test]
fn a_refused_key_comes_with_the_settings_to_look_at_and_a_refusal_of_the_disk_without() {
    let denied = |source: Box<dyn std::error::Error + Send + Sync>| {
        storage_error("cannot write", object_store::Error::PermissionDenied { path: "a".to_owned(), source })
    };
    let key = denied("403 Forbidden".into());
    assert_eq!(key.kind(), ErrorKind::Invalid);
    for setting in ["secret_access_key", "AWS_SECRET_ACCESS_KEY"] {
        assert!(key.hint().is_some_and(|hint| hint.contains(setting)), "{key:?}");
    }
    let disk = denied(io::Error::from(io::ErrorKind::PermissionDenied).into());
    assert_eq!((disk.kind(), disk.hint()), (ErrorKind::Invalid, None));
}

#[test]
fn a_forgotten_key_and_a_missing_bucket_come_with_the_settings_to_look_at() {
    let generic = |text: &str| {
        let source = Box::new(Error::unavailable("the request failed").with_source(text.to_owned()));
        object_store::Error::Generic { store: "S3", source }
    };
    let forgotten = "Error performing PUT http://169.254.169.254/latest/api/token: Server returned 403 Forbidden";
    let denied =
        object_store::Error::PermissionDenied { path: "token".to_owned(), source: forgotten.to_owned().into() };
    let missing = "Client error with status 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>";
    let not_found = object_store::Error::NotFound { path: "a".to_owned(), source: missing.to_owned().into() };
    let keys: &[&str] = &["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "secret_access_key"];
    let bucket: &[&str] = &["no such bucket", "AWS_ENDPOINT_URL"];
    for (cause, kind, said) in [
        (generic(forgotten), ErrorKind::Unavailable, keys),
        (denied, ErrorKind::Invalid, keys),
        (not_found, ErrorKind::Invalid, bucket),
    ] {
        let error = storage_error("cannot write a", cause);
        assert_eq!(error.kind(), kind, "{error:?}");
        for part in said {
            assert!(error.hint().is_some_and(|hint| hint.contains(part)), "{part}: {error:?}");
        }
    }
    assert_eq!(storage_error("cannot write a", generic("connection reset")).hint(), None);
}

#[test]
fn a_folder_contains_itself_and_what_is_below_it() -> Result<()> {
    for (outer, inner, expected) in [
        ("s3://lake/a", "s3a://lake/a/", true),
        ("s3://lake/a", "s3://lake/a/b", true),
        ("s3://lake", "s3://lake/a", true),
        ("s3://lake/a", "s3://lake/ab", false),
        ("s3://lake/a/b", "s3://lake/a", false),
        ("s3://lake/a", "s3://pond/a", false),
        ("/lake/a", "file:///lake/x/../a/b", true),
        ("/lake/a", "memory:///lake/a", false),
    ] {
        assert_eq!(outer.parse::<Location>()?.contains(&inner.parse()?), expected, "{outer} {inner}");
    }
    Ok(())
}
