//! Proves at start that a store keeps the one promise that exactly-once stands on: of parallel conditional creates of
//! one key, exactly one wins. "S3-compatible" does not mean it.

use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Location, Result, storage_error};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// Creates that race for one key. Stores that check and write in two steps were caught by fewer.
const RACERS: usize = 16;

/// Races [`RACERS`] conditional creates and one more after them; exactly one must have won.
///
/// # Errors
/// `Unavailable` when the store does not answer; `Invalid` when it refuses the key or has no such bucket, or when not exactly
/// one wins: the store cannot be used.
pub async fn prove_conditional_create(store: &Arc<dyn ObjectStore>, at: &Location, clock: &dyn Clock) -> Result<()> {
    let path = Path::from(format!("_alluvium/probe/{}", clock.new_id()));
    let create = |racer: usize| {
        let (store, path) = (Arc::clone(store), path.clone());
        async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            store.put_opts(&path, format!("racer {racer}").into_bytes().into(), options).await
        }
    };
    let mut outcomes: Vec<_> = futures::stream::iter(0..RACERS).map(create).buffer_unordered(RACERS).collect().await;
    outcomes.push(create(RACERS).await);
    let wins = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let n_refused = outcomes.iter().filter(|outcome| outcome.as_ref().is_err_and(is_refusal)).count();
    // The winner may not know it: an answer that is lost and asked for again says that the key exists.
    let has_silent_winner = wins == 0 && n_refused >= RACERS && exists(store, &path, at).await?;
    if let Err(cause) = store.delete(&path).await {
        tracing::debug!(%path, %cause, "cannot remove the probe");
    }
    if wins == 1 || has_silent_winner {
        return Ok(());
    }
    let unexpected = outcomes.into_iter().filter_map(std::result::Result::err).find(|cause| !is_refusal(cause));
    if wins == 0
        && let Some(cause) = unexpected
    {
        return Err(storage_error(format!("cannot write to {at}"), cause));
    }
    Err(Error::invalid(format!(
        "the store of {at} let {wins} of {} conditional creates of one key succeed, where exactly one may",
        RACERS + 1
    ))
    .with_hint(
        "exactly-once commits need a store that honours If-None-Match: use AWS S3, a current MinIO, or local disk",
    ))
}

async fn exists(store: &Arc<dyn ObjectStore>, path: &Path, at: &Location) -> Result<bool> {
    match store.head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(cause) => Err(storage_error(format!("cannot read from {at}"), cause)),
    }
}

fn is_refusal(cause: &object_store::Error) -> bool {
    matches!(cause, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::SystemClock;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn memory_has_one_winner() -> Result<()> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        prove_conditional_create(&store, &"memory:///t".parse()?, &SystemClock).await
    }
}
