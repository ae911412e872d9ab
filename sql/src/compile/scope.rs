//! The names that statements may use: what the files define, and behind that the catalog.
//!
//! A definition from the catalog is written as SQL and goes the way of a file's, so that there is one meaning. A broken
//! definition keeps its name: what hangs on it is not "unknown".

mod find;
mod locations;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use alluvium_catalog::{Connection, Error, Location, Name, TableName, Topic};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, Ident, ObjectName};

use super::plan::dialect_session;
use super::source::{ResolvedSource, resolve_connection, resolve_source};
use super::table::{ResolvedTable, resolve_table};
use super::{Definitions, Names};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, TextSpan, code};
use crate::pipeline::{BatchLimits, ErrorMode};
use crate::statement::{CreateFlow, FlowAction, Spanned, Statement};

/// What to do about two of one name.
pub(super) const OTHER_NAME: &str = "give one of the two another name, or take it out";

/// The statements of one file.
pub(super) type Parsed = (Arc<SourceText>, Vec<Spanned<Statement>>);

/// A flow and the file it stands in.
#[derive(Debug)]
pub(super) struct WrittenFlow {
    pub(super) source: Arc<SourceText>,
    pub(super) span: TextSpan,
    pub(super) name: Name,
    pub(super) statement: CreateFlow,
}

/// Who writes a table.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) flow: Name,
    pub(super) upserts: bool,
}

/// Definitions by name; `None` where one is broken.
pub(super) struct Scope<'a> {
    warehouse: &'a Location,
    names: &'a dyn Names,
    /// When the batches of flows close that do not say so.
    pub(super) batch: BatchLimits,
    /// Plans queries; holds the tables that they look up.
    pub(super) session: SessionContext,
    connections: BTreeMap<Name, Option<Connection>>,
    sources: BTreeMap<Name, Option<Arc<ResolvedSource>>>,
    tables: BTreeMap<TableName, Option<ResolvedTable>>,
    /// The names of `tables` in the order defined.
    order: Vec<TableName>,
    flows: BTreeMap<Name, TextSpan>,
    pub(super) writers: BTreeMap<TableName, Vec<Writer>>,
    /// The flow of each connection, topic and consumer group that a source names.
    pub(super) groups: BTreeMap<(Name, Topic, String), Name>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(warehouse: &'a Location, names: &'a dyn Names, batch: BatchLimits) -> Self {
        Self {
            warehouse,
            names,
            batch,
            session: dialect_session(SessionConfig::new(), Arc::default()),
            connections: BTreeMap::new(),
            sources: BTreeMap::new(),
            tables: BTreeMap::new(),
            order: Vec::new(),
            flows: BTreeMap::new(),
            writers: BTreeMap::new(),
            groups: BTreeMap::new(),
            diagnostics: Vec::new(),
        }
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    /// Returns what was defined beside flows.
    pub(super) fn into_definitions(self) -> Result<Definitions, Diagnostics> {
        if !self.diagnostics.is_empty() {
            return Err(Diagnostics(self.diagnostics).sorted());
        }
        Ok(Definitions {
            connections: self.connections.into_values().flatten().collect(),
            sources: self.sources.into_values().flatten().map(|source| source.definition.clone()).collect(),
            tables: self.tables.into_values().flatten().map(|table| table.definition).collect(),
        })
    }

    /// Takes in all definitions of `files` and returns the flows in the order written.
    pub(super) fn define(&mut self, files: Vec<Parsed>) -> Vec<WrittenFlow> {
        let mut flows = Vec::new();
        for (source, statements) in files {
            for statement in statements {
                self.define_statement(&source, statement, &mut flows);
            }
        }
        flows
    }

    fn define_statement(
        &mut self,
        source: &Arc<SourceText>,
        statement: Spanned<Statement>,
        flows: &mut Vec<WrittenFlow>,
    ) {
        let span = statement.span;
        match statement.value {
            Statement::CreateConnection(connection) => {
                let resolved = resolve_connection(source, &connection, &mut self.diagnostics);
                if let Some(name) = self.name(source, &connection.name, "connection") {
                    self.define_connection(source, &connection.name, name, resolved);
                }
            }
            Statement::CreateSource(created) => {
                let resolved = resolve_source(source, &created, &self.session.state(), &mut self.diagnostics);
                let resolved = resolved.map(Arc::new);
                if let Some(name) = self.name(source, &created.name, "source") {
                    self.define_source(source, &created.name, name, resolved);
                }
            }
            Statement::CreateStreamingTable(created) => {
                let Some(name) = self.table_name(source, &created.name) else { return };
                let resolved = resolve_table(source, &created, &name, self.warehouse, &mut self.diagnostics);
                let at = object_span(source, &created.name).unwrap_or(span.clone());
                if self.tables.contains_key(&name) {
                    let message = format!("table '{name}' is defined twice");
                    self.report(Diagnostic::new(code::DUPLICATE, source, at, message).with_hint(OTHER_NAME));
                    return;
                }
                self.tables.insert(name.clone(), resolved);
                self.order.push(name.clone());
                if let Err(error) = name.check_free() {
                    self.report(bad_name(source, at, &error, "table"));
                }
                if let Some(query) = created.query {
                    let ident = last_ident(&created.name);
                    let action = FlowAction::Append { into: created.name, query };
                    let statement =
                        CreateFlow { or_replace: false, name: ident, comment: None, options: Vec::new(), action };
                    self.add_flow(source, span, statement, flows);
                }
            }
            Statement::CreateFlow(statement) => self.add_flow(source, span, *statement, flows),
            other @ (Statement::DescribeHistory(_)
            | Statement::ExplainUpsert(_)
            | Statement::Show(_)
            | Statement::Optimize(_)
            | Statement::Vacuum(_)
            | Statement::Sql(_)) => {
                let diagnostic = Diagnostic::new(code::MISPLACED, source, span, "a pipeline file only defines things");
                self.report(diagnostic.with_hint(instead_of(&other)));
            }
        }
    }

    fn define_connection(&mut self, source: &Arc<SourceText>, ident: &Ident, name: Name, resolved: Option<Connection>) {
        match self.connections.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(resolved);
            }
            Entry::Occupied(_) => self.duplicate(source, ident, "connection"),
        }
    }

    fn define_source(
        &mut self,
        source: &Arc<SourceText>,
        ident: &Ident,
        name: Name,
        resolved: Option<Arc<ResolvedSource>>,
    ) {
        match self.sources.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(resolved);
            }
            Entry::Occupied(_) => self.duplicate(source, ident, "source"),
        }
    }

    fn add_flow(
        &mut self,
        source: &Arc<SourceText>,
        span: TextSpan,
        statement: CreateFlow,
        flows: &mut Vec<WrittenFlow>,
    ) {
        let Some(name) = self.name(source, &statement.name, "flow") else { return };
        if self.flows.insert(name.clone(), span.clone()).is_some() {
            self.duplicate(source, &statement.name, "flow");
            return;
        }
        flows.push(WrittenFlow { source: Arc::clone(source), span, name, statement });
    }

    fn duplicate(&mut self, source: &Arc<SourceText>, ident: &Ident, what: &str) {
        let span = source.range(ident.span).unwrap_or(0..0);
        let message = format!("{what} '{}' is defined twice", ident.value);
        self.report(Diagnostic::new(code::DUPLICATE, source, span, message).with_hint(OTHER_NAME));
    }

    fn name(&mut self, source: &Arc<SourceText>, ident: &Ident, what: &str) -> Option<Name> {
        match ident.value.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                let span = source.range(ident.span).unwrap_or(0..0);
                self.report(bad_name(source, span, &error, what));
                None
            }
        }
    }

    /// Returns the table that `written` names, and reports a name that no table can have.
    pub(super) fn table_name(&mut self, source: &Arc<SourceText>, written: &ObjectName) -> Option<TableName> {
        match named(written) {
            Ok(name) => Some(name),
            Err(error) => {
                let span = object_span(source, written).unwrap_or(0..0);
                self.report(bad_name(source, span, &error, "table"));
                None
            }
        }
    }

    /// Tells whether a source has this name.
    pub(super) fn has_source(&self, name: &str) -> bool {
        self.sources.keys().any(|known| known.as_str() == name)
    }

    /// Keeps the columns that a flow gave to a table which was declared without.
    pub(super) fn settle_table(&mut self, table: ResolvedTable) {
        self.tables.insert(table.definition.name.clone(), Some(table));
    }

    /// Reports properties that say how rows are superseded where `flows` only add rows. It looks at the tables that the
    /// files define: a flow of another file may upsert into one that only the catalog has.
    pub(super) fn check_appended(&mut self, flows: &[WrittenFlow]) {
        let mut written: BTreeMap<TableName, Vec<Writer>> = BTreeMap::new();
        for flow in flows {
            let (into, upserts) = match &flow.statement.action {
                FlowAction::Append { into, .. } => (into, false),
                FlowAction::AutoCdc(cdc) => (&cdc.into, true),
            };
            // A name that no table can have is reported where the flow is compiled.
            let Ok(table) = named(into) else { continue };
            written.entry(table).or_default().push(Writer { flow: flow.name.clone(), upserts });
        }
        for (name, writers) in written {
            let Some(Some(table)) = self.tables.get(&name) else { continue };
            let [first, ..] = writers.as_slice() else { continue };
            if !writers.iter().any(|writer| writer.upserts) {
                let errors = table.appended_errors(&first.flow);
                self.diagnostics.extend(errors);
            }
        }
    }

    /// Reports dead-letter tables that flows write as well.
    pub(super) fn check_tables(&mut self) {
        let sources: Vec<Arc<ResolvedSource>> = self.sources.values().flatten().cloned().collect();
        for source in sources {
            let ErrorMode::Log(target) = &source.settings.errors else { continue };
            if self.writers.contains_key(target) || self.tables.contains_key(target) {
                let name = &source.definition.name;
                let message = format!("table {target} takes the rejects of source '{name}' and cannot hold other rows");
                let diagnostic = Diagnostic::new(code::SHARED_TABLE, &source.text, source.span.clone(), message);
                self.report(diagnostic.with_hint("give the rejects a table of their own, which needs no CREATE"));
            }
        }
    }
}

/// Returns the table that `written` names.
fn named(written: &ObjectName) -> Result<TableName, Error> {
    let parts: Option<Vec<&str>> =
        written.0.iter().map(|part| part.as_ident().map(|ident| ident.value.as_str())).collect();
    match parts.as_deref() {
        Some([table]) => TableName::try_new(TableName::DEFAULT_SCHEMA, table),
        Some([schema, table]) => TableName::try_new(schema, table),
        _ => Err(Error::invalid(format!("{written} is not a table name")).with_hint("write schema.table")),
    }
}

/// Returns what to write or where to go instead of a statement that defines nothing of a pipeline.
fn instead_of(statement: &Statement) -> &'static str {
    let is_table = |sql: &DfStatement| match sql {
        DfStatement::Statement(sql) => matches!(sql.as_ref(), ast::Statement::CreateTable(_)),
        _ => false,
    };
    match statement {
        Statement::Sql(sql) if is_table(sql) => "write CREATE STREAMING TABLE",
        _ => "ask questions in alluvium sql",
    }
}

/// Returns the place of a name with its schema.
pub(super) fn object_span(source: &SourceText, name: &ObjectName) -> Option<TextSpan> {
    let first = source.range(name.0.first()?.as_ident()?.span)?;
    let last = source.range(name.0.last()?.as_ident()?.span)?;
    Some(first.start..last.end)
}

fn last_ident(name: &ObjectName) -> Ident {
    name.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| Ident::new(name.to_string()))
}

fn bad_name(source: &Arc<SourceText>, span: TextSpan, error: &Error, what: &str) -> Diagnostic {
    let message = error.message().replace(" is not a name", &format!(" cannot be the name of a {what}"));
    let diagnostic = Diagnostic::new(code::BAD_NAME, source, span, message);
    let otherwise = "write another name, of letters, digits and '_'";
    diagnostic.with_hint(error.hint().unwrap_or(otherwise))
}
