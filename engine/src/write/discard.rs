//! Removes data files with which no commit was tried.
//!
//! It is a courtesy: a file that stays is an orphan for vacuum. So nobody waits for it longer than a moment, and a store that
//! takes files and removes none holds up no batch.

use std::time::Duration;

use alluvium_catalog::Location;
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

/// How long a store may take to remove them.
const LIMIT: Duration = Duration::from_secs(5);

/// Removes the files at `paths` of the log of the table at `location`, many in one request where the store takes that.
pub(crate) async fn discard(store: &dyn ObjectStore, location: &Location, paths: impl IntoIterator<Item = &str>) {
    if let Err((n_files, cause)) = remove(store, paths, LIMIT).await {
        tracing::warn!(table = %location, n_files, cause, "files that no commit names stay for vacuum");
    }
}

/// Removes the files, or returns how many of them stay when `limit` is over, and why.
async fn remove(
    store: &dyn ObjectStore,
    paths: impl IntoIterator<Item = &str>,
    limit: Duration,
) -> Result<(), (usize, String)> {
    let places: Vec<_> = paths.into_iter().map(|path| Path::parse(path).map_err(object_store::Error::from)).collect();
    if places.is_empty() {
        return Ok(());
    }
    let (n_files, mut n_removed, mut refusal) = (places.len(), 0, None);
    let mut removed = store.delete_stream(futures::stream::iter(places).boxed());
    let removing = async {
        while let Some(file) = removed.next().await {
            match file {
                Ok(_) => n_removed += 1,
                Err(cause) => refusal = Some(cause.to_string()),
            }
        }
    };
    if tokio::time::timeout(limit, removing).await.is_err() {
        refusal = Some(format!("no answer within {limit:?}"));
    }
    refusal.map_or(Ok(()), |cause| Err((n_files - n_removed, cause)))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::hooked_store::{Hook, HookedStore};

    type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

    const PATHS: [&str; 3] = ["part-1.parquet", "city=a%2520b/part-2.parquet", "city=c/part-3.parquet"];

    /// What a store does when it is to remove files.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    enum Manner {
        #[default]
        Removes,
        Refuses,
        Hangs,
    }

    #[derive(Debug, Default)]
    struct Mannered(Manner);

    impl Hook for Mannered {
        fn before_delete(&self) -> BoxFuture<'static, object_store::Result<()>> {
            let refusal = || object_store::Error::Generic { store: "mannered", source: "read only".into() };
            match self.0 {
                Manner::Removes => futures::future::ready(Ok(())).boxed(),
                Manner::Refuses => futures::future::ready(Err(refusal())).boxed(),
                Manner::Hangs => futures::future::pending().boxed(),
            }
        }
    }

    /// Removes files, and returns how many are left, and what is said of them.
    async fn left(manner: Manner, limit: Duration) -> TestResult<(usize, Option<(usize, String)>)> {
        let store = HookedStore { hook: Mannered(manner), ..HookedStore::default() };
        for path in PATHS {
            store.put(&Path::parse(path)?, "rows".into()).await?;
        }
        let told = remove(&store, PATHS, limit).await;
        Ok((store.list(None).count().await, told.err()))
    }

    #[tokio::test]
    async fn files_are_removed_where_the_store_does_it_and_waited_for_no_longer_than_a_moment() -> TestResult {
        assert_eq!(left(Manner::Removes, LIMIT).await?, (0, None));
        let (n_left, told) = left(Manner::Refuses, LIMIT).await?;
        assert!(n_left == 3 && told.is_some_and(|(n_told, cause)| n_told == 3 && cause.contains("read only")));
        let (n_left, told) = left(Manner::Hangs, Duration::from_millis(1)).await?;
        assert_eq!((n_left, told), (3, Some((3, "no answer within 1ms".to_owned()))));
        Ok(())
    }
}
