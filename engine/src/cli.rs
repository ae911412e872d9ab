//! The command line: what is asked for is parsed here, done by one file a command, and answered by an exit code.
//!
//! Everything is shown through a [`Console`]; settings come from [`config`](crate::config) alone. This module starts the
//! runtime and the telemetry and ends both; it never ends the process, `main.rs` does.

pub(crate) mod catalog;
pub(crate) mod check;
pub mod console;
pub mod failure;
mod find;
mod lineage;
mod names;
mod peek;
pub(crate) mod progress;
mod register;
pub(crate) mod run;
mod show;
mod sql;
mod statements;
pub(crate) mod table;
mod upkeep;
pub(crate) mod workspace;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use alluvium_catalog::{Error, Result};
use clap::error::ErrorKind as ClapErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use indicatif::{MultiProgress, ProgressDrawTarget};

use crate::config::{Environment, Flags, Settings};
use crate::demo::{self, DemoArgs};
use crate::telemetry::{LogTarget, Telemetry};
use console::Console;
use failure::{Exit, render};

pub(crate) use names::CatalogNames;

/// The stack of a worker thread: planning a deeply nested query recurses, and debug builds have large frames.
const STACK_BYTES: usize = 8 << 20;

/// What a run logs when nothing else is asked for: its own course, and only the troubles of libraries.
const RUN_LOG: &str = "warn,alluvium=info,alluvium_catalog=info,alluvium_sql=info";

/// Lands Kafka topics in Delta tables, exactly once, by SQL files
#[derive(Debug, Parser)]
#[command(name = "alluvium", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Globals {
    /// Settings [default: alluvium.toml, if there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where tables live [default: ./warehouse]
    #[arg(long, global = true, value_name = "LOCATION")]
    warehouse: Option<String>,
    /// The catalog's file [default: in the warehouse]
    #[arg(long, global = true, value_name = "PATH")]
    catalog: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows it all on a made-up shop; needs nothing else, ends by itself
    Demo(DemoArgs),
    /// Compiles SQL files and shows their flows; touches no data
    Check(check::CheckArgs),
    /// Runs the flows of SQL files until stopped
    Run(run::RunArgs),
    /// Rewrites a table's small and worn files into few
    Optimize(upkeep::OptimizeArgs),
    /// Removes files that no version within the retention needs
    Vacuum(upkeep::VacuumArgs),
    /// Queries the catalog's tables, or one table by its location
    Sql(sql::SqlArgs),
    /// Shows and changes what the catalog knows
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
}

/// Does what the arguments say and returns how it went; all that is to be shown has been shown.
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: &Environment, mut console: Console) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = arguments.first().map_or_else(|| "alluvium".to_owned(), |name| name.display().to_string());
    let parsed = Cli::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse_usage(&error, &mut console),
    };
    let Globals { config, warehouse, catalog } = cli.globals;
    let settings = match Settings::load(&Flags { config, warehouse, catalog }, environment) {
        Ok(settings) => settings,
        Err(error) => {
            let text = render(&error, console.err_style);
            console.note(&text);
            return Exit::Usage;
        }
    };
    let work = Work { command: cli.command, matches, settings, program };
    match work.run(&mut console) {
        Ok(exit) => exit,
        Err(error) => {
            let text = render(&error, console.err_style);
            console.note(&text);
            Exit::of(&error)
        }
    }
}

/// Returns the settings of one file, whatever the environment and the command line say.
///
/// # Errors
/// As of [`Settings::load`].
pub(crate) fn settings_of(file: &Path) -> Result<Settings> {
    let flags = Flags { config: Some(file.to_owned()), ..Flags::default() };
    Settings::load(&flags, &Environment::default())
}

/// Shows what clap says: help and version are answers, everything else is a wrong usage.
fn refuse_usage(error: &clap::Error, console: &mut Console) -> Exit {
    let text = error.render();
    if error.use_stderr() {
        let shown = if console.err_style.has_colour { text.ansi().to_string() } else { text.to_string() };
        console.note(&shown);
        return Exit::Usage;
    }
    let shown = if console.style.has_colour { text.ansi().to_string() } else { text.to_string() };
    let is_answer = matches!(error.kind(), ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion);
    match console.text(&shown) {
        Ok(()) if is_answer => Exit::Done,
        Ok(()) => Exit::Usage,
        Err(error) => Exit::of(&error),
    }
}

/// One command with everything that it needs.
struct Work {
    command: Command,
    matches: ArgMatches,
    settings: Settings,
    /// How the program was called, for commands that it proposes.
    program: String,
}

impl Work {
    fn run(self, console: &mut Console) -> Result<Exit> {
        let bars = MultiProgress::with_draw_target(if console.err_style.is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let target = LogTarget::new(bars.clone(), console.err_style);
        // Commands that answer at once are not interrupted by what goes well.
        let level = if matches!(self.command, Command::Run(_)) { RUN_LOG } else { "warn" };
        let telemetry = Telemetry::start(self.settings.log(), level, self.settings.otlp(), target)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_stack_size(STACK_BYTES)
            .build()
            .map_err(|source| Error::internal("cannot start the runtime").with_source(source))?;
        let done = runtime.block_on(Box::pin(self.dispatch(console, bars)));
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        telemetry.stop();
        done
    }

    async fn dispatch(self, console: &mut Console, bars: MultiProgress) -> Result<Exit> {
        let settings = &self.settings;
        match self.command {
            Command::Demo(arguments) => demo::run(arguments, &self.program, console, bars).await,
            Command::Check(arguments) => check::run(&arguments, settings, console).await,
            Command::Run(arguments) => run::run(&arguments, settings, console, bars).await,
            Command::Optimize(arguments) => {
                upkeep::run_optimize(&arguments, settings, console, bars).await.map(|()| Exit::Done)
            }
            Command::Vacuum(arguments) => {
                upkeep::run_vacuum(&arguments, settings, console, bars).await.map(|()| Exit::Done)
            }
            Command::Sql(arguments) => {
                let matches = self.matches.subcommand_matches("sql");
                sql::run(&arguments, matches, settings, console).await
            }
            Command::Catalog(command) => catalog::run(command, settings, console).await.map(|()| Exit::Done),
        }
    }
}

#[cfg(test)]
mod tests;
