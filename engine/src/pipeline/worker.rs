//! One half of the pipeline: at rest, or at work in a task of its own.

use std::fmt;
use std::future::{Future, pending};

use alluvium_catalog::{Error, Result};
use tokio_util::task::AbortOnDropHandle;

/// Owns a doer of work `D`, which its task owns while it works.
pub(super) struct Worker<D, O> {
    name: &'static str,
    state: State<D, O>,
}

enum State<D, O> {
    Resting(Box<D>),
    Working(AbortOnDropHandle<(D, O)>),
    /// Its task panicked, or it was abandoned.
    Gone,
}

impl<D: Send + 'static, O: Send + 'static> Worker<D, O> {
    /// Returns a worker at rest, called `name` in errors.
    pub(super) fn new(name: &'static str, doer: D) -> Self {
        Self { name, state: State::Resting(Box::new(doer)) }
    }

    /// Tells whether work may begin.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.state, State::Resting(_))
    }

    /// Returns the doer, unless it is at work.
    pub(super) fn resting(&mut self) -> Option<&mut D> {
        match &mut self.state {
            State::Resting(doer) => Some(doer),
            State::Working(_) | State::Gone => None,
        }
    }

    /// Begins `work` in a task, which goes on whether [`done`](Self::done) is awaited or not.
    ///
    /// # Errors
    /// `Internal` when the worker is not at rest.
    pub(super) fn begin<F>(&mut self, work: impl FnOnce(D) -> F) -> Result<()>
    where
        F: Future<Output = (D, O)> + Send + 'static,
    {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Resting(doer) => {
                self.state = State::Working(AbortOnDropHandle::new(tokio::spawn(work(*doer))));
                Ok(())
            }
            other => {
                self.state = other;
                Err(Error::internal(format!("the {} half of a flow is at work already", self.name)))
            }
        }
    }

    /// Drops the doer and what it is at, at its next await.
    pub(super) fn abandon(&mut self) {
        self.state = State::Gone;
    }

    /// Waits for the work under way and returns what came of it; waits for ever while at rest. Cancel-safe: a wait that
    /// is given up loses nothing.
    ///
    /// # Errors
    /// `Internal` when the task panicked.
    pub(super) async fn done(&mut self) -> Result<O> {
        let State::Working(task) = &mut self.state else {
            return match self.state {
                State::Gone => Err(Error::internal(format!("the {} half of a flow is gone", self.name))),
                _ => pending().await,
            };
        };
        match task.await {
            Ok((doer, outcome)) => {
                self.state = State::Resting(Box::new(doer));
                Ok(outcome)
            }
            Err(cause) => {
                self.state = State::Gone;
                Err(Error::internal(format!("the {} half of a flow stopped", self.name)).with_source(cause))
            }
        }
    }
}

impl<D, O> fmt::Debug for Worker<D, O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Resting(_) => "resting",
            State::Working(_) => "working",
            State::Gone => "gone",
        };
        formatter.debug_struct("Worker").field("name", &self.name).field("state", &state).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_rests_works_and_rests_again() -> Result<()> {
        let mut worker = Worker::new("first", 1_u32);
        worker.begin(|doer| async move { (doer + 1, "done") })?;
        assert!(!worker.is_resting());
        assert!(worker.begin(|doer| async move { (doer, "twice") }).is_err());
        assert_eq!(worker.done().await?, "done");
        assert_eq!(worker.resting(), Some(&mut 2));
        Ok(())
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_nothing() -> Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let mut worker = Worker::new("first", ());
        worker.begin(|doer| async move { (doer, told.await.is_ok()) })?;
        tokio::select! {
            biased;
            _ = worker.done() => return Err(Error::internal("done too early")),
            () = tokio::task::yield_now() => {}
        }
        assert!(tell.send(()).is_ok());
        assert!(worker.done().await?);
        Ok(())
    }

    #[tokio::test]
    async fn work_that_is_abandoned_ends_though_nothing_it_waits_for_does() -> Result<()> {
        let (mut worker, held) = (Worker::new("first", ()), std::sync::Arc::new(()));
        let holds = std::sync::Arc::clone(&held);
        worker.begin(|doer| async move {
            pending::<()>().await;
            drop(holds);
            (doer, ())
        })?;
        worker.abandon();
        assert!(worker.resting().is_none() && worker.done().await.is_err());
        while std::sync::Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_doer_that_panicked_is_gone() -> Result<()> {
        let mut worker: Worker<u32, u32> = Worker::new("first", 0);
        worker.begin(|doer| async move { (doer, 1 / doer) })?;
        assert!(worker.done().await.is_err());
        assert!(worker.resting().is_none() && worker.done().await.is_err());
        Ok(())
    }
}
