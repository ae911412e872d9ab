//! How the program is asked to stop: first to drain, then to abort.
//!
//! *Draining* means that no new batch is begun and the open one lands; *aborting* means that it is dropped, which is
//! safe, since nothing but a commit makes a batch visible. A [`Shutdown`] only says so; whoever runs something watches
//! it: a drain at batch edges, an abort at every wait. It never ends the process.

use std::future::pending;
use std::time::Duration;

use alluvium_catalog::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Says whether to go on, to drain or to abort. Clones speak of the same stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    aborting: CancellationToken,
}

impl Shutdown {
    /// Returns a shutdown that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for no new batch; the open one shall land.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Asks to drop the open batch as well. An aborting shutdown is draining, too.
    pub fn abort(&self) {
        self.draining.cancel();
        self.aborting.cancel();
    }

    /// Tells whether no new batch may begin.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Tells whether the open batch is to be dropped.
    pub fn is_aborting(&self) -> bool {
        self.aborting.is_cancelled()
    }

    /// Returns a token that is cancelled when no new batch may begin.
    pub fn drain_token(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Waits until no new batch may begin.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Waits until the open batch is to be dropped.
    pub async fn aborting(&self) {
        self.aborting.cancelled().await;
    }

    /// Begins to listen for SIGTERM and SIGINT: the first drains, a second or `drain_timeout` after the first aborts.
    ///
    /// # Errors
    /// `Internal` when the process cannot install signal handlers.
    pub fn listen(&self, drain_timeout: Duration) -> Result<Listener> {
        let install =
            |kind| signal(kind).map_err(|source| Error::internal("cannot listen for signals").with_source(source));
        let signals =
            Signals { terminate: install(SignalKind::terminate())?, interrupt: install(SignalKind::interrupt())? };
        let stop = CancellationToken::new();
        let watch = watch(self.clone(), signals, drain_timeout);
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = watch => {}
                }
            }
        });
        Ok(Listener { task, stop })
    }
}

/// The task that listens for signals; whoever began it ends it by [`close`](Self::close).
#[derive(Debug)]
pub struct Listener {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Listener {
    /// Ends the task and joins it. Later signals are not acted on by it any more.
    pub async fn close(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "signal listener failed");
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            else => pending().await,
        }
    }
}

async fn watch(shutdown: Shutdown, mut signals: Signals, drain_timeout: Duration) {
    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = shutdown.draining() => "request",
    };
    tracing::info!(signal, drain_timeout_seconds = drain_timeout.as_secs(), "draining");
    shutdown.drain();
    tokio::select! {
        signal = signals.next() => tracing::warn!(signal, "aborting at a second signal"),
        () = tokio::time::sleep(drain_timeout) => tracing::warn!("aborting: not drained within the drain timeout"),
    }
    shutdown.abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn abort_is_seen_by_every_clone_as_drain_and_abort() {
        let shutdown = Shutdown::new();
        let seen = shutdown.clone();
        assert!(!seen.is_draining());
        shutdown.drain();
        assert!(seen.is_draining() && !seen.is_aborting());
        shutdown.abort();
        seen.draining().await;
        seen.aborting().await;
    }

    #[tokio::test]
    async fn drain_that_outlasts_its_timeout_aborts() -> Result<()> {
        let shutdown = Shutdown::new();
        let listener = shutdown.listen(Duration::from_millis(10))?;
        shutdown.drain();
        tokio::time::timeout(Duration::from_secs(10), shutdown.aborting())
            .await
            .map_err(|source| Error::internal("never aborted").with_source(source))?;
        listener.close().await;
        Ok(())
    }

    #[tokio::test]
    async fn listener_without_a_signal_ends_when_closed() -> Result<()> {
        let shutdown = Shutdown::new();
        let listener = shutdown.listen(Duration::from_secs(3600))?;
        tokio::time::timeout(Duration::from_secs(10), listener.close())
            .await
            .map_err(|source| Error::internal("never joined").with_source(source))?;
        assert!(!shutdown.is_draining());
        Ok(())
    }
}
