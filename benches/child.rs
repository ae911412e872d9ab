//! Runs one measurement in a process of its own, so that its CPU time and its peak of memory are its own.
//!
//! The benchmark starts itself again with `--child TASK PLAN`. The child writes what it measured as JSON to the file
//! that the plan names; what it says otherwise goes to a log beside it, whose end is shown when the child fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use alluvium_catalog::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The argument that makes a benchmark a child.
const FLAG: &str = "--child";

/// How children are started.
#[derive(Debug, Clone, Default)]
pub struct Nursery {
    /// Cores that a child may use, the first ones; all when not set.
    pub cores: Option<usize>,
    /// Variables beside those of this process.
    pub variables: Vec<(&'static str, String)>,
}

/// Returns the task and the plan's file when this process is a child.
pub fn task() -> Option<(String, PathBuf)> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == FLAG).then_some(())?;
    Some((arguments.next()?, arguments.next()?.into()))
}

/// Reads a JSON file.
///
/// # Errors
/// `Data` when it is not what is expected.
pub fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::data(format!("cannot read {}", file.display())).with_source(cause)
    };
    let text = fs::read(file).map_err(|cause| failed(cause.into()))?;
    serde_json::from_slice(&text).map_err(|cause| failed(cause.into()))
}

/// Writes a JSON file.
///
/// # Errors
/// `Unavailable` when it cannot be written.
pub fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::unavailable(format!("cannot write {}", file.display())).with_source(cause)
    };
    let text = serde_json::to_vec(value).map_err(|cause| failed(cause.into()))?;
    fs::write(file, text).map_err(|cause| failed(cause.into()))
}

impl Nursery {
    /// Tells whether children can be held to some cores: `taskset` of util-linux does it.
    pub fn can_limit_cores() -> bool {
        let asked = Command::new("taskset").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    }

    /// Starts a child; its standard output goes to `<plan>.out`, its log to `<plan>.log`.
    ///
    /// # Errors
    /// `Unavailable` when the process cannot be started.
    pub fn start(&self, task: &str, plan: &Path) -> Result<Child> {
        let failed = |cause| Error::unavailable(format!("cannot start the child for {task}")).with_source(cause);
        let own = std::env::current_exe().map_err(failed)?;
        let mut command = match self.cores {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.arg("--cpu-list").arg(format!("0-{}", cores.max(1) - 1)).arg(own);
                command
            }
            None => Command::new(own),
        };
        command.args([FLAG, task]).arg(plan).envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command.stdout(File::create(plan.with_extension("out")).map_err(failed)?);
        command.stderr(File::create(plan.with_extension("log")).map_err(failed)?);
        command.spawn().map_err(failed)
    }

    /// Runs a child to its end.
    ///
    /// # Errors
    /// `Internal` when it fails, with the end of its log.
    pub fn run(&self, task: &str, plan: &Path) -> Result<()> {
        settle(self.start(task, plan)?, task, plan)
    }
}

/// Waits for a child.
///
/// # Errors
/// `Internal` when it fails, with the end of its log.
pub fn settle(mut child: Child, task: &str, plan: &Path) -> Result<()> {
    let failed = |cause| Error::unavailable(format!("cannot wait for the child for {task}")).with_source(cause);
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(plan.with_extension("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let end = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n");
    Err(Error::internal(format!("the child for {task} ended with {status}:\n{end}")))
}
