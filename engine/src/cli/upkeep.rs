//! `alluvium optimize` and `alluvium vacuum`: the engine's upkeep, at once and of one table, because somebody asked.
//!
//! Both may run while `alluvium run` writes the table: they commit as any other writer does.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Clock, Error, Location, Result, SystemClock, TableName, parse_bytes, parse_duration};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::console::Console;
use super::find::unknown_name;
use super::table::{TextTable, counted, grouped, sized};
use super::workspace::Workspace;
use crate::config::Settings;
use crate::delta::log::DeltaLog;
use crate::delta::state::TableState;
use crate::upkeep::optimize::{Extent, Optimized, optimize};
use crate::upkeep::plan::Aims;
use crate::upkeep::vacuum::{Mode, Vacuumed, retention, vacuum};

#[derive(Debug, Args)]
pub(crate) struct OptimizeArgs {
    /// schema.table, or where a Delta table lies
    #[arg(value_name = "TABLE|LOCATION")]
    table: String,
    /// Rewrite all of a clustered table
    #[arg(long)]
    full: bool,
    /// The size of files to aim at [default: 128 MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    target_size: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VacuumArgs {
    /// schema.table, or where a Delta table lies
    #[arg(value_name = "TABLE|LOCATION")]
    table: String,
    /// How long files are kept [default: 168h or more]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retention: Option<Duration>,
    /// Count the files that may go, remove none
    #[arg(long)]
    dry_run: bool,
    /// Take a retention that is shorter than is safe
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compacts a table.
///
/// # Errors
/// As of [`optimize`]; `Invalid` when the catalog does not know the name.
pub(super) async fn run_optimize(
    arguments: &OptimizeArgs,
    settings: &Settings,
    console: &mut Console,
    bars: MultiProgress,
) -> Result<()> {
    let log = open(&arguments.table, settings).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let aims = Aims::all(&settings.limits().upkeep);
    let aims = Aims { target_bytes: arguments.target_size.unwrap_or(aims.target_bytes), ..aims };
    let bar = Bar::begin(&bars, format!("compacting {}", arguments.table));
    let told = |done: &Optimized| {
        let under_way = match done.under_way {
            0 => String::new(),
            n_files => format!(", {} under way", counted(n_files, "file")),
        };
        bar.tell(format!("{} into {}{under_way}", counted(done.files_before, "file"), grouped(done.files_after)));
    };
    let extent = if arguments.full { Extent::Full } else { Extent::Worthwhile };
    let done = Box::pin(optimize(log, &aims, extent, &clock, told)).await;
    bar.end();
    let done = done?;
    if arguments.json {
        return console.json(&json!({
            "table": arguments.table, "version": done.version, "commits": done.commits,
            "files_before": done.files_before, "bytes_before": done.bytes_before,
            "files_after": done.files_after, "bytes_after": done.bytes_after,
        }));
    }
    let mut table = TextTable::new(&["", ">files", ">bytes"]);
    table.row(["rewritten".to_owned(), grouped(done.files_before), sized(done.bytes_before)]);
    table.row(["into".to_owned(), grouped(done.files_after), sized(done.bytes_after)]);
    let text = table.render("", console.style);
    console.text(&text)?;
    console.line(format!("{} stands at version {}", arguments.table, done.version))
}

/// Removes, or counts, the files of a table that no version within the retention names.
///
/// # Errors
/// As of [`vacuum`]; `Invalid` when the catalog does not know the name, or the retention is short and not forced.
pub(super) async fn run_vacuum(
    arguments: &VacuumArgs,
    settings: &Settings,
    console: &mut Console,
    bars: MultiProgress,
) -> Result<()> {
    let log = open(&arguments.table, settings).await?;
    let kept_for = kept_for(&log, arguments.retention, arguments.force).await?;
    let mode = if arguments.dry_run { Mode::DryRun } else { Mode::Remove };
    let bar = Bar::begin(&bars, format!("vacuuming {}", arguments.table));
    let told = |done: &Vacuumed| bar.tell(format!("{} of {}", grouped(done.removed), counted(done.files, "file")));
    let done = Box::pin(vacuum(&log, kept_for, mode, &SystemClock, told)).await;
    bar.end();
    show_vacuumed(arguments, kept_for, &done?, console)
}

/// Returns how long the files of a table are kept, where so long was asked for.
///
/// # Errors
/// `Invalid` when there is no table, or the retention is short and not forced.
pub(super) async fn kept_for(log: &DeltaLog, asked: Option<Duration>, may_be_short: bool) -> Result<Duration> {
    let state = TableState::load(log)
        .await?
        .ok_or_else(|| Error::invalid(format!("there is no Delta table at {}", log.location())))?;
    retention(&state, log.location(), asked, may_be_short)
}

fn show_vacuumed(arguments: &VacuumArgs, kept_for: Duration, done: &Vacuumed, console: &mut Console) -> Result<()> {
    if arguments.json {
        return console.json(&json!({
            "table": arguments.table, "dry_run": arguments.dry_run, "retention_hours": kept_for.as_secs() / 3_600,
            "files": done.files, "bytes": done.bytes, "removed": done.removed, "kept": done.kept,
            "oldest_version": done.oldest_version, "sample": done.sample,
        }));
    }
    let mut table = TextTable::new(&["", ">files", ">bytes"]);
    let word = if arguments.dry_run { "may go" } else { "removed" };
    table.row([word.to_owned(), grouped(done.files), sized(done.bytes)]);
    table.row(["stay".to_owned(), grouped(done.kept), String::new()]);
    let text = table.render("", console.style);
    console.text(&text)?;
    for path in done.sample.iter().filter(|_| arguments.dry_run) {
        console.line(format!("  {}", path.replace(char::is_control, " ")))?;
    }
    console.line(format!("versions from {} on can be read", done.oldest_version))
}

/// Returns the log of the table that the catalog knows by this name, or that lies there.
async fn open(table: &str, settings: &Settings) -> Result<DeltaLog> {
    let workspace = Workspace::open_if_there(settings).await?;
    let found = find(table, &workspace).await;
    let log = found.and_then(|location| DeltaLog::open(&workspace.stores, &location));
    workspace.close().await;
    log
}

async fn find(table: &str, workspace: &Workspace) -> Result<Location> {
    if let Ok(name) = table.parse::<TableName>()
        && let Some(dataset) = workspace.catalog.dataset(&name).await?
    {
        return Ok(dataset.location);
    }
    // A name has no slash and a location has one, so that a slip in a name does not become a folder.
    if table.contains('/') {
        return table.parse();
    }
    Err(unknown_name(table, workspace.catalog.as_ref()).await?)
}

/// One line about work under way; hidden where nobody sees it.
struct Bar(ProgressBar);

impl Bar {
    fn begin(bars: &MultiProgress, what: String) -> Self {
        let bar = bars.add(ProgressBar::no_length());
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix}  {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    fn tell(&self, text: String) {
        self.0.set_message(text);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn size(text: &str) -> std::result::Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes >= 1 << 20 { Ok(bytes) } else { Err("write 1 MiB or more, such as 128MiB".to_owned()) }
}
