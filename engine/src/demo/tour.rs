//! The questions that a first user asks, answered by running them: SQL on the tables, and the catalog's records.

use std::sync::Arc;

use alluvium_catalog::{Commit, Error, Input, Result, TableName};
use alluvium_sql::repl::{Expanded, Format, RenderOptions, Renderer};
use alluvium_sql::session::SessionSettings;
use alluvium_sql::{Session, TableReader};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};

use super::heading;
use super::shop::{Books, Kind, ORDERS};
use crate::cli::catalog::history_text;
use crate::cli::console::{Console, Role, WIDTH};
use crate::cli::table::{TextTable, grouped};
use crate::cli::workspace::Workspace;

/// Commits that are looked through for the one that made a row: more than any demo makes.
const COMMITS_MAX: usize = 10_000;

/// Asks everything and returns whether the tables agree with the shop's books.
///
/// # Errors
/// As of the session and the catalog.
pub(super) async fn run(workspace: &Workspace, books: &Books, console: &mut Console) -> Result<bool> {
    let reader = Arc::new(TableReader::new(workspace.stores.clone(), Arc::clone(&workspace.catalog)));
    let session = Session::open(Arc::clone(&workspace.catalog), reader, &SessionSettings::default())?;
    let tour = Tour { session, workspace };
    heading(console, 3, "What is in the tables?")?;
    tour.ask(
        "SELECT status, count(*) AS orders, sum(amount) AS amount FROM silver.orders\nGROUP BY status ORDER BY orders DESC",
        console,
    )
    .await?;
    heading(console, 4, "What was rejected, and why?")?;
    tour.ask(
        "SELECT flow, class, count(*) AS records FROM ops.orders_dlq\nGROUP BY flow, class ORDER BY flow, class",
        console,
    )
    .await?;
    console.line("   A tombstone has no place in order_events, which adds rows; orders_upsert has")?;
    console.line("   deleted by it. Every reject is kept whole, with its place and the reason:")?;
    tour.ask_one(
        "SELECT topic, partition, \"offset\", CAST(value AS STRING) AS value, message\n\
         FROM ops.orders_dlq WHERE class = 'type_mismatch'\nORDER BY partition, \"offset\" LIMIT 1",
        console,
    )
    .await?;
    if let Some(order) = books.storied_order {
        tour.explain(order, console).await?;
    }
    tour.compare(books, console).await
}

struct Tour<'a> {
    session: Session,
    workspace: &'a Workspace,
}

impl Tour<'_> {
    /// Shows a query and its answer.
    async fn ask(&self, sql: &str, console: &mut Console) -> Result<Vec<RecordBatch>> {
        // Markdown's table is plain text; frames are for terminals.
        let format = if console.style.is_terminal { Format::Table } else { Format::Markdown };
        let width = u16::try_from(WIDTH).ok();
        self.show(sql, RenderOptions { format, width, ..RenderOptions::default() }, console).await
    }

    /// Shows a query and its one row, a line for each column.
    async fn ask_one(&self, sql: &str, console: &mut Console) -> Result<()> {
        let width = u16::try_from(WIDTH).ok();
        let options = RenderOptions { expanded: Expanded::On, width, ..RenderOptions::default() };
        self.show(sql, options, console).await.map(drop)
    }

    async fn show(&self, sql: &str, options: RenderOptions, console: &mut Console) -> Result<Vec<RecordBatch>> {
        for line in sql.lines() {
            let line = console.style.paint(Role::Command, line);
            console.line(format!("   > {line}"))?;
        }
        let answer = self.session.sql(sql).await?;
        let mut renderer = Renderer::new(&answer.schema(), options);
        let rows = answer.collect().await?;
        for batch in &rows {
            // A demo's answers are short: none is cut.
            let _ = renderer.write(batch, console.out())?;
        }
        renderer.finish(console.out())?;
        Ok(rows)
    }

    /// Follows one row back: to the record that made it, the commit that landed it, and what lost against it.
    async fn explain(&self, order: u64, console: &mut Console) -> Result<()> {
        heading(console, 5, &format!("Which commit and which offset made the row of order {order}?"))?;
        let sql = format!(
            "SELECT status, updated_at, _alluvium_partition AS at_partition,\n       _alluvium_offset AS at_offset\nFROM silver.orders WHERE order_id = {order}"
        );
        let rows = self.ask(&sql, console).await?;
        let (partition, offset) = position(&rows)
            .ok_or_else(|| Error::data(format!("silver.orders has no row of order {order}, which the shop has")))?;
        let table: TableName = "silver.orders".parse()?;
        let commits = self.workspace.catalog.commits(Some(&table), COMMITS_MAX).await?;
        let commit = commits.into_iter().find(|commit| covers(commit, partition, offset));
        let commit =
            commit.ok_or_else(|| Error::data(format!("no commit covers {}/{partition}@{offset}", ORDERS.0)))?;
        console.line(format!("   The record at offset {offset} of {}/{partition} made it. The commit:", ORDERS.0))?;
        let flows = self.workspace.catalog.flows().await?;
        let text = history_text(&[commit], &flows, console);
        for line in text.lines() {
            console.line(format!("   {line}"))?;
        }
        console.line("")?;
        console.line("   Everything that was said of this order, as it came:")?;
        let sql = format!(
            "SELECT kafka_offset, op, status, updated_at FROM bronze.order_events\nWHERE order_id = {order} ORDER BY kafka_offset"
        );
        let rows = self.ask(&sql, console).await?;
        for offset in late_offsets(&rows) {
            console.line(format!("   Offset {offset} was late: it tells of an older state, and changed nothing."))?;
        }
        Ok(())
    }

    /// Compares the tables with the books that the shop kept itself.
    async fn compare(&self, books: &Books, console: &mut Console) -> Result<bool> {
        heading(console, 6, "Is that all, and nothing twice?")?;
        let n_malformed = books.of_kind(Kind::Malformed);
        let n_delivered = books.orders.values().filter(|status| **status == "DELIVERED").count() as u64;
        let checks = [
            ("orders that are left", "SELECT count(*) FROM silver.orders", books.orders.len() as u64),
            ("orders delivered", "SELECT count(*) FROM silver.orders WHERE status = 'DELIVERED'", n_delivered),
            ("customers that are left", "SELECT count(*) FROM silver.customers", books.n_customers),
            ("changes of orders", "SELECT count(*) FROM bronze.order_events", books.n_order_events()),
            (
                "malformed records set aside",
                "SELECT count(*) FROM ops.orders_dlq WHERE flow = 'orders_upsert'",
                n_malformed,
            ),
        ];
        let mut table = TextTable::new(&["", ">the shop's books", ">the tables", ""]);
        let mut agrees = true;
        for (what, sql, expected) in checks {
            let found = self.count(sql).await?;
            agrees &= found == expected;
            let verdict = if found == expected { "agree" } else { "DIFFER" };
            table.row([what.to_owned(), grouped(expected), grouped(found), verdict.to_owned()]);
        }
        let text = table.render("   ", console.style);
        console.text(&text)?;
        Ok(agrees)
    }

    async fn count(&self, sql: &str) -> Result<u64> {
        let rows = self.session.sql(sql).await?.collect().await?;
        let count = rows
            .first()
            .and_then(|batch| batch.column(0).as_primitive_opt::<Int64Type>().map(|counts| counts.value(0)));
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }
}

/// Returns the partition and offset in the third and fourth column of the first row.
fn position(rows: &[RecordBatch]) -> Option<(i32, i64)> {
    let batch = rows.iter().find(|batch| batch.num_rows() > 0)?;
    let partition = batch.column(2).as_primitive_opt::<Int32Type>()?.value(0);
    let offset = batch.column(3).as_primitive_opt::<Int64Type>()?.value(0);
    Some((partition, offset))
}

/// Returns the offsets (first column) of records whose time (fourth column) lies before one that was there already.
fn late_offsets(rows: &[RecordBatch]) -> Vec<i64> {
    let mut newest = i64::MIN;
    let mut late = Vec::new();
    for batch in rows {
        let offsets = batch.column(0).as_primitive_opt::<Int64Type>();
        let times = batch.column(3).as_primitive_opt::<TimestampMicrosecondType>();
        let (Some(offsets), Some(times)) = (offsets, times) else { continue };
        for (offset, time) in offsets.values().iter().zip(times.values()) {
            if *time < newest {
                late.push(*offset);
            }
            newest = newest.max(*time);
        }
    }
    late
}

/// Tells whether a commit consumed the record at this position.
fn covers(commit: &Commit, partition: i32, offset: i64) -> bool {
    commit.lineage.inputs.iter().any(|input| match input {
        Input::Kafka { ranges, .. } => {
            ranges.iter().any(|range| range.partition == partition && (range.first..range.next).contains(&offset))
        }
        Input::Table { .. } | Input::Files { .. } => false,
    })
}
