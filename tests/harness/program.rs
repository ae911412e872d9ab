//! The program as a process of its own: started, waited for with a limit, asked to stop, or killed.
//!
//! Its output goes to files, so that nothing blocks on a pipe. A process that is dropped while it runs is killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::lake::Lake;
use super::{TestResult, unique};

/// How long a command may take that waits for nothing.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The program with its settings: a lake, a catalog of its own, and no listener.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    folder: PathBuf,
    variables: Vec<(String, String)>,
    group: Option<PathBuf>,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    arguments: String,
    out: PathBuf,
    err: PathBuf,
}

impl Program {
    /// Returns the program, set up to work on `lake`.
    pub(crate) fn on(lake: &Lake) -> Self {
        let own = [
            ("ALLUVIUM_WAREHOUSE", lake.warehouse().to_string()),
            ("ALLUVIUM_CATALOG", lake.folder().join("catalog.db").display().to_string()),
            ("ALLUVIUM_LISTEN", "off".to_owned()),
            ("ALLUVIUM_LOG_FORMAT", "text".to_owned()),
            ("NO_COLOR", "1".to_owned()),
        ];
        let variables = lake.variables().into_iter().chain(own).map(|(name, value)| (name.to_owned(), value));
        Self { folder: lake.folder().to_owned(), variables: variables.collect(), group: None }
    }

    /// Sets a variable for processes started from now on.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Has processes started in the control group with this folder from now on.
    #[must_use]
    pub(crate) fn in_group(self, folder: &Path) -> Self {
        Self { group: Some(folder.to_owned()), ..self }
    }

    /// Takes everything away that a machine may have set up: all variables, what is on the PATH, and what is at home.
    pub(crate) fn alone(mut self) -> TestResult<Self> {
        let home = self.folder.join("home");
        fs::create_dir_all(&home)?;
        let bare = [("PATH", String::new()), ("HOME", home.display().to_string())];
        self.variables = bare.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(self)
    }

    /// Returns the folder that processes are started in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into the folder and returns its path as the program is given it.
    pub(crate) fn write(&self, name: &str, text: &str) -> TestResult<String> {
        fs::write(self.folder.join(name), text)?;
        Ok(name.to_owned())
    }

    /// Starts a process.
    pub(crate) fn start(&self, arguments: &[&str]) -> TestResult<Running> {
        let output = self.folder.join(unique("process"));
        let (out, err) = (output.with_extension("out"), output.with_extension("err"));
        let child = self
            .command()
            .args(arguments)
            .current_dir(&self.folder)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()?;
        Ok(Running { child, arguments: arguments.join(" "), out, err })
    }

    /// Returns the command that arguments are given to. A shell enters the group, if there is one, and becomes the
    /// program, which is in it from its first instruction on.
    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_alluvium-under-test");
        let Some(group) = &self.group else { return Command::new(program) };
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#]).arg(group).arg(program);
        shell
    }

    /// Runs a process on a terminal of its own and types `steps` into it (`harness/terminal.py`), by `python`.
    pub(crate) fn on_terminal(
        &self,
        python: &Path,
        arguments: &[&str],
        steps: &serde_json::Value,
    ) -> TestResult<Finished> {
        let typist = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/terminal.py");
        let keys = self.folder.join(unique("keys"));
        fs::write(&keys, steps.to_string())?;
        let done = Command::new(python)
            .arg(typist)
            .arg(env!("CARGO_BIN_EXE_alluvium-under-test"))
            .args(arguments)
            .current_dir(&self.folder)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("TERM", "xterm-256color")
            .stdin(File::open(&keys)?)
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Finished { status: done.status, out: text(&done.stdout), err: text(&done.stderr) })
    }

    /// Runs a process to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> TestResult<Finished> {
        self.start(arguments)?.wait(LIMIT)
    }

    /// Runs a process to its end, which must be a good one, and returns what it wrote.
    pub(crate) fn done(&self, arguments: &[&str]) -> TestResult<String> {
        let finished = self.run(arguments)?;
        finished.check(0)?;
        Ok(finished.out)
    }

    /// Runs a process that writes JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> TestResult<serde_json::Value> {
        let out = self.done(arguments)?;
        serde_json::from_str(&out).map_err(|error| format!("{arguments:?} wrote no JSON: {error}\n{out}").into())
    }
}

impl Finished {
    /// Checks the exit code.
    pub(crate) fn check(&self, code: i32) -> TestResult {
        if self.status.code() == Some(code) {
            return Ok(());
        }
        Err(format!("ended with {}, not {code}\n--- out\n{}\n--- err\n{}", self.status, self.out, self.err).into())
    }
}

impl Running {
    /// Waits for the end.
    pub(crate) fn wait(mut self, limit: Duration) -> TestResult<Finished> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return self.finished(status);
            }
            if begun.elapsed() > limit {
                let (_, err) = self.output()?;
                return Err(format!("'{}' did not end within {limit:?}\n--- err\n{err}", self.arguments).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the process at once; it gets to do nothing more.
    pub(crate) fn kill(mut self) -> TestResult<Finished> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.finished(status)
    }

    /// Asks the process to stop, as a supervisor of processes does.
    pub(crate) fn terminate(&self) -> TestResult {
        self.signal("TERM")
    }

    /// Sends a signal, such as INT.
    pub(crate) fn signal(&self, name: &str) -> TestResult {
        let asked = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        if asked.success() { Ok(()) } else { Err(format!("cannot signal '{}'", self.arguments).into()) }
    }

    /// Tells whether the process still runs.
    pub(crate) fn is_running(&mut self) -> TestResult<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until the process has written `text` to standard error `n_times`.
    pub(crate) fn wait_for(&mut self, text: &str, n_times: usize, limit: Duration) -> TestResult {
        let begun = Instant::now();
        loop {
            let (_, err) = self.output()?;
            if err.matches(text).count() >= n_times {
                return Ok(());
            }
            if begun.elapsed() > limit || !self.is_running()? {
                return Err(format!("'{}' did not say '{text}' {n_times} times\n--- err\n{err}", self.arguments).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns what the process has written to standard error so far.
    pub(crate) fn said(&self) -> TestResult<String> {
        self.output().map(|(_, err)| err)
    }

    fn output(&self) -> TestResult<(String, String)> {
        let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok((read(&self.out)?, read(&self.err)?))
    }

    fn finished(&self, status: ExitStatus) -> TestResult<Finished> {
        let (out, err) = self.output()?;
        Ok(Finished { status, out, err })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
