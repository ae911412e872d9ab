//! `alluvium sql`: opens a session on the catalog's tables, or on one table by its location, and hands it to the REPL.

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use alluvium_catalog::{Location, Result};
use alluvium_sql::repl::{self, Format, Input, Repl, ReplOptions, ScriptFrom, SessionBackend};
use alluvium_sql::session::SessionSettings;
use alluvium_sql::{Session, TableReader};
use clap::{ArgMatches, Args};

use super::check;
use super::console::Console;
use super::failure::Exit;
use super::peek::TopicPeek;
use super::statements::TableUpkeep;
use super::workspace::Workspace;
use crate::config::Settings;
use crate::lookup::Engines;

#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// A Delta table to open as t: s3://bucket/folder or a path
    #[arg(value_name = "LOCATION")]
    location: Option<Location>,
    /// Statements to run; repeatable
    // A statement may begin with a comment.
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    commands: Vec<String>,
    /// A file of statements, or - for stdin; repeatable
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// table, csv, tsv, json, ndjson or markdown
    #[arg(long, value_name = "FORMAT", value_parser = format_named)]
    format: Option<Format>,
    /// Write JSON, as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Go on after a statement that failed
    #[arg(long)]
    keep_going: bool,
    /// Write rows and errors, nothing else
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the REPL to its end.
///
/// # Errors
/// What opening the catalog or the location says; errors in statements are shown by the REPL.
pub(super) async fn run(
    arguments: &SqlArgs,
    matches: Option<&ArgMatches>,
    settings: &Settings,
    console: &mut Console,
) -> Result<Exit> {
    // One table by its location needs no catalog, and makes none.
    let workspace = match arguments.location {
        Some(_) => Workspace::open_if_there(settings).await?,
        None => Workspace::open(settings).await?,
    };
    let ran = run_in(&workspace, arguments, matches, console).await;
    workspace.close().await;
    ran
}

async fn run_in(
    workspace: &Workspace,
    arguments: &SqlArgs,
    matches: Option<&ArgMatches>,
    console: &mut Console,
) -> Result<Exit> {
    let reader = Arc::new(TableReader::new(workspace.stores.clone(), Arc::clone(&workspace.catalog)));
    let limits = SessionSettings {
        memory_bytes_max: workspace.settings.limits().sql_memory_bytes.get(),
        ..SessionSettings::default()
    };
    let engines = Arc::new(Engines::new(Arc::clone(&workspace.catalog)));
    let session = Session::open(Arc::clone(&workspace.catalog), Arc::clone(&reader), &limits)?.with_locate(engines);
    if let Some(location) = &arguments.location {
        session.open_location(location).await?;
    }
    let input = arguments.input(matches, console.reads_terminal);
    let options = arguments.options(&input, workspace, console);
    let (out, err) = console.take();
    let handles = repl::Console { stdin: Box::new(BufReader::new(std::io::stdin())), out, err };
    let peek = Arc::new(TopicPeek::new(check::compiler(workspace), reader));
    let upkeep = Arc::new(TableUpkeep::new(workspace));
    let backend = SessionBackend::new(session, Arc::clone(&workspace.catalog)).with_peek(peek).with_upkeep(upkeep);
    // What is defined in memory would be lost at the end.
    let backend = if workspace.is_kept() {
        let warehouse = workspace.settings.warehouse().clone();
        backend.with_definitions(check::compiler(workspace), workspace.stores.clone(), warehouse)
    } else {
        backend
    };
    let repl = Repl::new(Arc::new(backend), options, handles);
    Ok(match Box::pin(repl.run(input)).await {
        repl::Exit::Ok => Exit::Done,
        repl::Exit::SqlError => Exit::Failed,
        repl::Exit::Unavailable => Exit::Unavailable,
        repl::Exit::Interrupted => Exit::Interrupted,
    })
}

/// Reads a format; of what is none the command line says which there are.
fn format_named(text: &str) -> Result<Format, String> {
    text.parse::<Format>().map_err(|error| match error.hint() {
        Some(hint) => format!("{}: {hint}", error.message()),
        None => error.message().to_owned(),
    })
}

impl SqlArgs {
    /// Returns what is run: `-c` and `-f` in the order they were given, else whatever stands behind standard input.
    fn input(&self, matches: Option<&ArgMatches>, reads_terminal: bool) -> Input {
        let places = |name: &str| -> Vec<usize> {
            matches.and_then(|matches| matches.indices_of(name)).map(Iterator::collect).unwrap_or_default()
        };
        let commands = self.commands.iter().cloned().map(ScriptFrom::Argument);
        let files = self.files.iter().cloned().map(|file| match file.to_str() {
            Some("-") => ScriptFrom::Stdin,
            _ => ScriptFrom::File(file),
        });
        let mut scripts: Vec<(usize, ScriptFrom)> =
            places("commands").into_iter().zip(commands).chain(places("files").into_iter().zip(files)).collect();
        scripts.sort_by_key(|(place, _)| *place);
        if !scripts.is_empty() {
            return Input::Scripts(scripts.into_iter().map(|(_, script)| script).collect());
        }
        if reads_terminal { Input::Terminal } else { Input::Scripts(vec![ScriptFrom::Stdin]) }
    }

    fn options(&self, input: &Input, workspace: &Workspace, console: &Console) -> ReplOptions {
        let format = if self.json { Some(Format::Json) } else { self.format };
        let mut options = match input {
            Input::Terminal => ReplOptions { history: workspace.history_file(), ..ReplOptions::terminal() },
            Input::Scripts(_) => ReplOptions::script(Format::Table),
        };
        if let Some(format) = format {
            options.render.format = format;
        }
        options.is_coloured = console.err_style.has_colour;
        options.keep_going = self.keep_going;
        options.is_quiet = self.quiet;
        options
    }
}
