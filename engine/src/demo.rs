//! `alluvium demo`: the whole path on a made-up shop, with a broker inside this process and tables on local disk.
//!
//! It feeds records, runs `sql/examples/orders.sql` as `alluvium run --once` would, asks the tables and the catalog the
//! questions that a first user asks, and compares the tables with the shop's own books. What it leaves on disk is an
//! ordinary warehouse with its catalog. Every figure that it prints was measured or read, not made up.

mod chance;
mod place;
mod shop;
mod tour;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium_catalog::{Error, Result};
use alluvium_sql::SourceText;
use clap::Args;
use indicatif::MultiProgress;

use crate::cli::console::{Console, Role};
use crate::cli::failure::Exit;
use crate::cli::progress::Progress;
use crate::cli::run::{summary_text, world};
use crate::cli::table::grouped;
use crate::cli::workspace::Workspace;
use crate::cli::{check, settings_of};
use crate::shutdown::Shutdown;
use crate::source::kafka::embedded::{EmbeddedBroker, Message};
use crate::supervise::{self, RunOptions, Summary};
use place::Place;
use shop::{Books, CUSTOMERS, Kind, ORDERS, Stream, open_shop};

/// The pipeline that the demo runs.
const PIPELINE: &str = include_str!("../../sql/examples/orders.sql");

/// The address in the pipeline that gives way to the embedded broker's.
const ADDRESS: &str = "'bootstrap.servers' = 'localhost:9092'";

/// The shop's seed: any other number makes another shop.
const SEED: u64 = 20_260_302;

/// The embedded broker keeps the newest 5 MiB of each partition; this many records stay below half of that.
const RECORDS_MAX: u64 = 60_000;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many records, 1,000 to 60,000
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=RECORDS_MAX))]
    records: u64,
    /// Where the tables are left
    #[arg(long, default_value = "alluvium-demo", value_name = "DIR")]
    keep: PathBuf,
}

/// Runs the demo to its end.
///
/// # Errors
/// `Invalid` when the folder is not a demo's or cannot be written; otherwise as of the engine.
pub(crate) async fn run(
    arguments: DemoArgs,
    program: &str,
    console: &mut Console,
    bars: MultiProgress,
) -> Result<Exit> {
    let begun = Instant::now();
    let place = Place::prepare(&arguments.keep)?;
    let stream = open_shop(SEED, usize::try_from(arguments.records).unwrap_or(usize::MAX));
    // Small batches make some commits out of a short stream, so that there is a history to look at.
    let rows = (arguments.records / 8).max(250);
    let settings_text = format!("warehouse = \"warehouse\"\n\n[batch]\nrows = {rows}\n\n[listen]\nmetrics = \"off\"\n");
    let settings = settings_of(&place.write("alluvium.toml", &settings_text)?)?;
    let broker = EmbeddedBroker::start(&[ORDERS, CUSTOMERS])?;
    let pipeline = with_address(PIPELINE, broker.bootstrap())?;
    place.write("orders.sql", &pipeline)?;

    introduce(&place, console)?;
    let feed = feed(&broker, &stream).await?;
    show_feed(&stream.books, feed, console)?;

    let workspace = Workspace::open(&settings).await?;
    let shutdown = Shutdown::new();
    let listener = shutdown.listen(settings.limits().drain_timeout)?;
    let landed = land(&workspace, &place, pipeline, &shutdown, console.err_style.is_terminal.then_some(bars)).await;
    listener.close().await;
    let (summary, land) = match landed {
        Ok(landed) => landed,
        Err(error) => {
            workspace.close().await;
            return Err(error);
        }
    };
    if shutdown.is_draining() {
        workspace.close().await;
        console.line("   stopped before the end; what has landed is whole")?;
        return Ok(Exit::Interrupted);
    }
    show_landing(&summary, land, console)?;
    let toured = match summary.flows.iter().find_map(|flow| flow.halted.as_ref()) {
        Some(halt) => Err(Error::internal(format!("a flow of the demo stopped: {}", halt.reason))),
        None => tour::run(&workspace, &stream.books, console).await,
    };
    workspace.close().await;
    let agrees = toured?;
    say_what_next(&place, program, begun.elapsed(), console)?;
    Ok(if agrees { Exit::Done } else { Exit::Failed })
}

/// Returns the pipeline with the embedded broker's address.
fn with_address(pipeline: &str, bootstrap: &str) -> Result<String> {
    if !pipeline.contains(ADDRESS) {
        return Err(Error::internal(format!("the example pipeline does not say {ADDRESS}")));
    }
    Ok(pipeline.replace(ADDRESS, &format!("'bootstrap.servers' = '{bootstrap}'")))
}

async fn feed(broker: &EmbeddedBroker, stream: &Stream) -> Result<Duration> {
    let begun = Instant::now();
    for record in &stream.records {
        let message = Message {
            key: Some(&record.key),
            value: record.value.as_deref(),
            timestamp_ms: Some(record.timestamp_ms),
            ..Message::default()
        };
        broker.produce(record.topic, message).await?;
    }
    broker.flush().await?;
    Ok(begun.elapsed())
}

async fn land(
    workspace: &Workspace,
    place: &Place,
    pipeline: String,
    shutdown: &Shutdown,
    bars: Option<MultiProgress>,
) -> Result<(Summary, Duration)> {
    let begun = Instant::now();
    let name = place.path("orders.sql").display().to_string();
    let compiled = check::compile_texts(&[Arc::new(SourceText::new(name, pipeline))], workspace).await?;
    let world = Arc::new(world(workspace)?);
    let progress = bars.map(|bars| Progress::start(bars, Arc::clone(&world.metrics)));
    let ran = Box::pin(supervise::run(
        compiled.flows,
        world,
        RunOptions { once: true, ..RunOptions::default() },
        shutdown.clone(),
    ))
    .await;
    if let Some(progress) = progress {
        progress.close().await;
    }
    Ok((ran?, begun.elapsed()))
}

fn introduce(place: &Place, console: &mut Console) -> Result<()> {
    let title = console.style.paint(Role::Strong, "Alluvium demo");
    console.line(format!("{title}: Kafka topics become Delta tables, exactly once"))?;
    console.line(format!("a broker inside this process, a made-up shop, tables in {}", place.display()))
}

fn show_feed(books: &Books, took: Duration, console: &mut Console) -> Result<()> {
    heading(console, 1, "A shop sends its changes to Kafka")?;
    for (topic, n_partitions) in [ORDERS, CUSTOMERS] {
        let records = grouped(books.of_topic(topic));
        console.line(format!("   {records:>7} records to {topic}, {n_partitions} partitions"))?;
    }
    let kinds = [
        (Kind::Insert, "inserts"),
        (Kind::Update, "updates"),
        (Kind::Delete, "deletes"),
        (Kind::Tombstone, "tombstones (records without a value, which delete their key)"),
        (Kind::Late, "late: a newer state was sent before them"),
        (Kind::Duplicate, "duplicates"),
        (Kind::Malformed, "malformed"),
    ];
    for (kind, word) in kinds {
        console.line(format!("   {:>7} {word}", grouped(books.of_kind(kind))))?;
    }
    console.line(format!("   sent in {:.2} s", took.as_secs_f64()))
}

fn show_landing(summary: &Summary, took: Duration, console: &mut Console) -> Result<()> {
    heading(console, 2, "orders.sql lands them: alluvium run --once orders.sql")?;
    let text = summary_text(summary, "   ", console);
    console.text(&text)?;
    let records: u64 = summary.flows.iter().map(|flow| flow.fate.records_in).sum();
    let rate = (records as f64 / took.as_secs_f64().max(0.001)) as u64;
    let seconds = took.as_secs_f64();
    console.line(format!("   {} records in {seconds:.2} s: {}/s", grouped(records), grouped(rate)))
}

fn say_what_next(place: &Place, program: &str, took: Duration, console: &mut Console) -> Result<()> {
    console.line("")?;
    let title = console.style.paint(Role::Strong, "What next");
    console.line(format!("{title}  (all of this took {:.1} s)", took.as_secs_f64()))?;
    let with = format!("{} --config {}", word(program), word(&place.path("alluvium.toml").display().to_string()));
    let pipeline = word(&place.path("orders.sql").display().to_string());
    let commands = [
        ("query the tables", format!("{with} sql")),
        ("every commit of a table", format!("{with} catalog history silver.orders")),
        ("where a table comes from", format!("{with} catalog lineage silver.orders")),
        ("what is there", format!("{with} catalog list")),
        ("check the pipeline, then change it", format!("{with} check {pipeline}")),
    ];
    for (what, command) in commands {
        let what = console.style.paint(Role::Faint, &format!("# {what}"));
        let command = console.style.paint(Role::Command, &command);
        console.line(format!("   {what}"))?;
        console.line(format!("   {command}"))?;
    }
    Ok(())
}

/// Returns `text` as one word to a shell.
fn word(text: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "/._-+=:,@%".contains(char);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Writes the heading of a part.
fn heading(console: &mut Console, number: u32, text: &str) -> Result<()> {
    let text = console.style.paint(Role::Strong, &format!("{number}. {text}"));
    console.line("")?;
    console.line(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell_whatever_is_in_it() {
        assert_eq!(word("alluvium-demo/orders.sql"), "alluvium-demo/orders.sql");
        assert_eq!(word("my demo/orders.sql"), "'my demo/orders.sql'");
        assert_eq!(word("ann's $HOME"), r"'ann'\''s $HOME'");
    }

    #[test]
    fn the_example_gets_the_brokers_address() -> Result<()> {
        let pipeline = with_address(PIPELINE, "127.0.0.1:4711")?;
        assert!(pipeline.contains("'bootstrap.servers' = '127.0.0.1:4711'"));
        assert!(!pipeline.contains(ADDRESS));
        assert!(with_address("SELECT 1", "127.0.0.1:4711").is_err());
        Ok(())
    }
}
