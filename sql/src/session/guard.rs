//! What a session refuses: everything that writes tables or defines things that outlive it.

use alluvium_catalog::{Error, Location, Result, TableName};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{CopyToStatement, CreateExternalTable, Statement as DfStatement};
use std::sync::Arc;

use super::catalogs::QueryCatalogs;
use super::{failure, pin, table_name};
use crate::tables::TableReader;

/// Settings by which later queries would be answered wrongly, and what does instead of setting them.
const DECIDED: [(&str, &str); 7] = [
    // The reader of parquet files takes NaN for a match of filters that it does not match.
    (
        "datafusion.execution.parquet.pushdown_filters",
        "rows of Delta tables are filtered by the reader wherever that is right",
    ),
    // Nanoseconds wrap around after the year 2262.
    ("datafusion.execution.parquet.coerce_int96", "times of INT96 are read in microseconds, which hold all of them"),
    // MIN and MAX would skip rows behind a batch of nothing but NULLs. The second switches the first.
    ("datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown", "MIN and MAX would miss rows"),
    ("datafusion.optimizer.enable_dynamic_filter_pushdown", "set enable_join_.. and enable_topk_.. of it instead"),
    // Versions and hidden columns are looked for in `default`.
    ("datafusion.catalog.default_schema", "write schema.table"),
    ("datafusion.catalog.default_catalog", "write schema.table"),
    // Files that are added to a folder would not be seen.
    ("datafusion.runtime.list_files_cache_limit", "folders are listed by each query, so that it sees all their files"),
];

/// Makes ready what a statement needs to reach, and refuses an external table under the name of another.
///
/// # Errors
/// `Invalid` when the name is taken or reserved.
pub(super) fn prepare(
    statement: &DfStatement,
    context: &SessionContext,
    catalogs: &QueryCatalogs,
    reader: &TableReader,
) -> Result<()> {
    match statement {
        DfStatement::CreateExternalTable(create) => {
            prepare_schema(create, context, catalogs)?;
            create.locations.iter().try_for_each(|location| register(location, context, reader))
        }
        DfStatement::CopyTo(CopyToStatement { target, .. }) => register(target, context, reader),
        DfStatement::Explain(explain) => prepare(&explain.statement, context, catalogs, reader),
        DfStatement::Statement(_) | DfStatement::Reset(_) => Ok(()),
    }
}

fn prepare_schema(create: &CreateExternalTable, context: &SessionContext, catalogs: &QueryCatalogs) -> Result<()> {
    let name = table_name(&create.name)?;
    name.check_free()?;
    if catalogs.dataset(&name).is_some() {
        return Err(Error::invalid(format!("cannot create {name}: the catalog has a table of this name")));
    }
    let Some(memory) = context.catalog(pin::CATALOG) else {
        return Ok(());
    };
    if memory.schema(name.schema()).is_none() {
        memory
            .register_schema(name.schema(), Arc::new(MemorySchemaProvider::new()))
            .map_err(|cause| failure::from_datafusion(format!("cannot create {name}"), cause))?;
    }
    Ok(())
}

/// What is not a location of ours is DataFusion's to judge.
fn register(location: &str, context: &SessionContext, reader: &TableReader) -> Result<()> {
    match location.parse::<Location>() {
        Ok(location) => reader.register_store(&location, &context.state()),
        Err(_) => Ok(()),
    }
}

/// Refuses a plan that writes or defines, wherever in it: also below `EXPLAIN ANALYZE`, which would run it.
///
/// # Errors
/// `Invalid` with what to use instead.
pub(super) fn check(plan: &LogicalPlan, catalogs: &QueryCatalogs) -> Result<()> {
    let mut refused = None;
    let visited = plan.apply_with_subqueries(|node| {
        refused = refusal(node, catalogs);
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.map_err(|cause| failure::from_datafusion("cannot check the statement", cause))?;
    refused.map_or(Ok(()), Err)
}

fn refusal(node: &LogicalPlan, catalogs: &QueryCatalogs) -> Option<Error> {
    match node {
        LogicalPlan::Dml(dml) => Some(
            Error::invalid(format!("cannot run {} on {}: a session only reads", dml.op, dml.table_name))
                .with_hint("rows come into tables by flows: CREATE FLOW in a file, and alluvium run FILE"),
        ),
        LogicalPlan::Copy(copy) => Some(
            Error::invalid(format!("cannot copy to {}: a session only reads", copy.output_url))
                .with_hint("\\o FILE writes answers to a file, in the format that \\format sets"),
        ),
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(_)) => None,
        LogicalPlan::Ddl(DdlStatement::DropTable(drop)) => drop_refusal(&drop.name, catalogs),
        LogicalPlan::Ddl(ddl) => {
            Some(Error::invalid(format!("cannot run {}: a session only reads", ddl.name())).with_hint(
                "tables are declared in a file (CREATE STREAMING TABLE) or registered (alluvium catalog register)",
            ))
        }
        LogicalPlan::Statement(statement) => statement_refusal(statement),
        _ => None,
    }
}

/// Refuses what would make later queries answer wrongly: a prepared plan reads its tables at the versions that were newest
/// when it was prepared, and some settings are not for a session to change.
fn statement_refusal(statement: &Statement) -> Option<Error> {
    match statement {
        Statement::Prepare(_) | Statement::Execute(_) | Statement::Deallocate(_) => Some(
            Error::invalid("a session keeps no prepared statements")
                .with_hint("send the query itself: it reads tables at the version that is newest then"),
        ),
        Statement::SetVariable(set) => setting_refusal("set", &set.variable),
        Statement::ResetVariable(reset) => setting_refusal("reset", &reset.variable),
        _ => None,
    }
}

fn setting_refusal(verb: &str, setting: &str) -> Option<Error> {
    let (_, hint) = DECIDED.iter().find(|(decided, _)| *decided == setting)?;
    let error = Error::invalid(format!("cannot {verb} {setting}: a session decides it for each query"));
    Some(error.with_hint(*hint))
}

/// Refuses to drop a table that is not the session's own: DataFusion looks among those only, and would not find it.
fn drop_refusal(name: &TableReference, catalogs: &QueryCatalogs) -> Option<Error> {
    let schema = name.schema().unwrap_or(TableName::DEFAULT_SCHEMA);
    let name = TableName::try_new(schema, name.table()).ok()?;
    if name.check_free().is_err() {
        return Some(Error::invalid(format!("cannot drop {name}: the session makes it up when it is asked for")));
    }
    catalogs.dataset(&name)?;
    Some(Error::invalid(format!("cannot drop {name}: a session only reads")).with_hint(format!(
        "alluvium catalog forget {name} takes the name out of the catalog; the files stay where they are"
    )))
}
