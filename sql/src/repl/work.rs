//! One statement at work: a task of its own that plans, runs and hands over rows, and can be stopped at any time.
//!
//! The REPL waits for rows and for Ctrl-C at once, so the statement must not run on the REPL's own task: planning and
//! sorting can keep a thread for long.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::backend::{Backend, Written};

/// Batches between the statement and the screen: one being shown, one ready.
const PARTS_MAX: usize = 2;

/// How long a stopped statement may take to end. One that is deep in a computation ends at its next await; nobody waits
/// for that at a prompt.
const STOP_MAX: Duration = Duration::from_secs(2);

/// What a statement hands over, in this order: the beginning once, then batches.
#[derive(Debug)]
pub(super) enum Part {
    /// The answer's columns and notes.
    Begin {
        /// The columns.
        schema: SchemaRef,
        /// What the reader should know.
        notes: Vec<String>,
    },
    /// Rows.
    Rows(RecordBatch),
}

/// A statement at work. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Work {
    parts: mpsc::Receiver<Result<Part>>,
    task: JoinHandle<()>,
    is_joined: bool,
}

impl Work {
    /// Begins to run `written`.
    pub(super) fn start(backend: Arc<dyn Backend>, written: Written) -> Self {
        let (sender, parts) = mpsc::channel(PARTS_MAX);
        let task = tokio::spawn(async move {
            if let Err(error) = hand_over(backend.as_ref(), written, &sender).await {
                // A receiver that is gone wants to hear of no error.
                let _: Result<_, _> = sender.send(Err(error)).await;
            }
        });
        Self { parts, task, is_joined: false }
    }

    /// Returns the next part, or none when the statement is done. It can be given up while waiting.
    ///
    /// # Errors
    /// What the statement says; `Internal` when it panicked. It is done after that.
    pub(super) async fn next(&mut self) -> Option<Result<Part>> {
        if let Some(part) = self.parts.recv().await {
            return Some(part);
        }
        if self.is_joined {
            return None;
        }
        let joined = (&mut self.task).await;
        self.is_joined = true;
        match joined {
            Err(source) if source.is_panic() => {
                Some(Err(Error::internal("the statement hit a defect in this program").with_source(source)))
            }
            _ => None,
        }
    }

    /// Stops the statement and tells whether it has ended.
    pub(super) async fn stop(mut self) -> bool {
        self.parts.close();
        self.task.abort();
        self.is_joined || tokio::time::timeout(STOP_MAX, &mut self.task).await.is_ok()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hand_over(backend: &dyn Backend, written: Written, parts: &mpsc::Sender<Result<Part>>) -> Result<()> {
    let mut answer = backend.run(written).await?;
    let begin = Part::Begin { schema: answer.schema, notes: answer.notes };
    let mut is_wanted = parts.send(Ok(begin)).await.is_ok();
    while is_wanted {
        let Some(batch) = answer.rows.next().await else { break };
        is_wanted = parts.send(Ok(Part::Rows(batch?))).await.is_ok();
    }
    Ok(())
}
