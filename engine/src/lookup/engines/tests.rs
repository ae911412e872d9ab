//! What the module `engines` promises, tested: a live engine is found, and whatever else listens costs nothing but time
//! within its bounds.

use alluvium_catalog::store::{MemoryStore, Run};
use alluvium_catalog::{Clock, Error, Result, SystemClock, Timestamp};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::config::Listen;
use crate::metrics::Metrics;
use crate::serve::{Server, Shown};
use crate::upkeep::fixture::Scene;

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn wanted(id: i64, seen: u64) -> Result<Wanted> {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![id]));
    let keys = RecordBatch::try_from_iter([("id", ids)]).map_err(|cause| Error::internal("keys").with_source(cause))?;
    Ok(Wanted { table: "silver.t".parse()?, seen, keys })
}

async fn serve(scene: &Scene, run: Uuid) -> Result<Server> {
    let shown = Shown {
        metrics: Arc::new(Metrics::try_new()?),
        clock: Arc::clone(&scene.clock),
        lookups: Arc::clone(&scene.lookups),
        run,
    };
    Server::open(Listen::At(any()), shown).await?.ok_or_else(|| Error::internal("nothing is served"))
}

async fn put(catalog: &MemoryStore, id: Uuid, started_at: i64, address: SocketAddr) -> Result<()> {
    let run = Run { id, started_at: Timestamp(started_at), ended_at: None, error: None, address: Some(address) };
    catalog.put_run(&run).await
}

/// Returns an address at which nothing listens any more.
async fn closed() -> Result<SocketAddr> {
    let failed = |cause| Error::internal("cannot listen").with_source(cause);
    TcpListener::bind(any()).await.map_err(failed)?.local_addr().map_err(failed)
}

/// Listens, answers every connection with `answer` after `wait`, and returns where.
async fn listen(answer: String, wait: Duration) -> Result<SocketAddr> {
    let failed = |cause| Error::internal("cannot listen").with_source(cause);
    let listener = TcpListener::bind(any()).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::time::sleep(wait).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(address)
}

#[tokio::test]
async fn the_engine_that_has_the_table_is_found_behind_others() -> Result<()> {
    let (scene, clock) = (Scene::upserts()?, SystemClock);
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a"))]).await?;
    let (run, other) = (clock.new_id(), clock.new_id());
    let (server, idle) = (serve(&scene, run).await?, serve(&Scene::upserts()?, other).await?);
    let catalog = Arc::new(MemoryStore::default());
    put(&catalog, run, 1, server.address()).await?;
    put(&catalog, other, 2, idle.address()).await?;
    put(&catalog, clock.new_id(), 3, closed().await?).await?;
    let engines = Engines::new(Arc::clone(&catalog) as Arc<dyn CatalogStore>);
    let found = engines.locate(&wanted(1, 1)?).await.ok_or_else(|| Error::internal("not found"))?;
    assert_eq!((found.version, found.rows.len()), (1, 1));
    assert!(found.rows[0].as_ref().is_some_and(|row| row.row == 0), "{found:?}");
    let none = engines.locate(&wanted(2, 1)?).await.ok_or_else(|| Error::internal("not found"))?;
    assert_eq!(none.rows, [None]);
    assert_eq!(engines.locate(&wanted(1, 9)?).await, None, "an index that is behind is of no use");
    server.close().await;
    tokio::time::sleep(PAUSE_FOR).await;
    assert_eq!(engines.locate(&wanted(1, 1)?).await, None);
    idle.close().await;
    Ok(())
}

#[tokio::test]
async fn whatever_else_listens_is_asked_once_and_left_alone() -> Result<()> {
    let (scene, clock) = (Scene::upserts()?, SystemClock);
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a"))]).await?;
    let server = serve(&scene, clock.new_id()).await?;
    let ok = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n{}", "x".repeat(2 << 20));
    let cases = [
        ("another run at its port", server.address()),
        ("nobody", closed().await?),
        ("nonsense", listen("220 mail ESMTP\r\n".to_owned(), Duration::ZERO).await?),
        ("another page", listen(ok("<html>"), Duration::ZERO).await?),
        ("half an answer", listen(ok(r#"{"run": "x", "rows": []}"#), Duration::ZERO).await?),
        ("too much", listen(endless, Duration::ZERO).await?),
        ("nothing, ever", listen(String::new(), Duration::from_secs(60)).await?),
    ];
    for (what, address) in cases {
        let catalog = Arc::new(MemoryStore::default());
        put(&catalog, clock.new_id(), 1, address).await?;
        let engines = Engines::new(catalog as Arc<dyn CatalogStore>);
        let begun = Instant::now();
        assert_eq!(engines.locate(&wanted(1, 1)?).await, None, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what} took {:?}", begun.elapsed());
        let run = engines.listening().await[0].newest;
        assert!(engines.is_shunned(run, &"silver.t".parse()?), "{what}");
        assert_eq!(engines.locate(&wanted(1, 1)?).await, None, "{what}");
    }
    server.close().await;
    Ok(())
}

#[tokio::test]
async fn a_newer_run_at_the_same_address_of_another_machine_hides_no_engine() -> Result<()> {
    let (scene, clock) = (Scene::upserts()?, SystemClock);
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a"))]).await?;
    let run = clock.new_id();
    let server = serve(&scene, run).await?;
    let catalog = Arc::new(MemoryStore::default());
    put(&catalog, run, 1, server.address()).await?;
    put(&catalog, clock.new_id(), 2, server.address()).await?;
    let engines = Engines::new(catalog as Arc<dyn CatalogStore>);
    let found = engines.locate(&wanted(1, 1)?).await.ok_or_else(|| Error::internal("not found"))?;
    assert_eq!((found.version, found.rows.len()), (1, 1));
    server.close().await;
    Ok(())
}

#[tokio::test]
async fn a_key_that_no_engine_takes_does_not_cost_the_others_theirs() -> Result<()> {
    let (scene, clock) = (Scene::upserts()?, SystemClock);
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a"))]).await?;
    let run = clock.new_id();
    let server = serve(&scene, run).await?;
    let catalog = Arc::new(MemoryStore::default());
    put(&catalog, run, 1, server.address()).await?;
    let engines = Engines::new(catalog as Arc<dyn CatalogStore>);
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(5_000)]));
    let keys = RecordBatch::try_from_iter([("id", long)]);
    let keys = keys.map_err(|cause| Error::internal("keys").with_source(cause))?;
    assert_eq!(engines.locate(&Wanted { keys, ..wanted(1, 1)? }).await, None);
    assert!(engines.locate(&wanted(1, 1)?).await.is_some(), "the engine was left alone");
    server.close().await;
    Ok(())
}

#[tokio::test]
async fn only_this_machine_is_asked_and_once_an_address() -> Result<()> {
    let (catalog, clock) = (Arc::new(MemoryStore::default()), SystemClock);
    let (old, new) = (clock.new_id(), clock.new_id());
    put(&catalog, old, 1, SocketAddr::from(([127, 0, 0, 1], 9464))).await?;
    put(&catalog, new, 2, SocketAddr::from(([127, 0, 0, 1], 9464))).await?;
    put(&catalog, clock.new_id(), 3, SocketAddr::from(([192, 0, 2, 1], 9464))).await?;
    let engines = Engines::new(catalog as Arc<dyn CatalogStore>);
    let listening = engines.listening().await;
    let runs: Vec<_> = listening.iter().map(|known| (known.newest, known.others.as_slice())).collect();
    assert_eq!(runs, [(new, &[old][..])]);
    Ok(())
}
