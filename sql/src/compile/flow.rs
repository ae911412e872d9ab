//! What `CREATE FLOW` means: a source, a query and a table that fit each other.

mod feed;

use std::sync::Arc;

use alluvium_catalog::{Definition, FlowKind, FlowVersion, Name, Source, Table, TableName};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{ObjectName, Query};

use super::output::{OutputColumn, catalog_columns, check_assignment, derived_schema, output_columns, repeated_name};
use super::places::Place;
use super::plan::{CATALOG, StreamQuery, plan_query};
use super::scope::{Scope, Writer, WrittenFlow, object_span};
use super::source::ResolvedSource;
use super::streamed::{Reads, reads};
use super::table::ResolvedTable;
use super::{shape, typed, upsert};
use crate::diagnostic::{Diagnostic, TextSpan, code};
use crate::options::{WrittenKeyFormat, batch_limits};
use crate::pipeline::{Change, Flow, KeyFormat};
use crate::statement::{CreateFlow, FlowAction, source_text, table_text};
use feed::{add_stream_hint, feed, stream};

/// Returns the flow that `written` means, or reports why there is none.
pub(super) async fn compile(scope: &mut Scope<'_>, written: &WrittenFlow) -> Option<Flow> {
    let parts = Parts::resolve(scope, written).await?;
    let planned = parts.plan(scope, written).await?;
    parts.finish(scope, written, &planned)
}

/// What a flow hangs on, all of it found.
struct Parts {
    query: Query,
    query_span: TextSpan,
    source: Arc<ResolvedSource>,
    connection: alluvium_catalog::Connection,
    table: ResolvedTable,
    lookups: Vec<TableName>,
}

/// What the planner made of a flow's query.
struct Planned {
    output: Vec<OutputColumn>,
    fields: Vec<FieldRef>,
}

impl Parts {
    async fn resolve(scope: &mut Scope<'_>, written: &WrittenFlow) -> Option<Self> {
        let text = &written.source;
        let (into, query, query_span) = feed(written)?;
        let place = Place { source: text, span: query_span.clone() };
        let table_name = scope.table_name(text, into);
        let Reads { streams, lookups: looked_up, offences } = reads(&query, &scope.session.state());
        let is_sound = offences.is_empty();
        offences.into_iter().for_each(|offence| scope.report(place.offence(offence)));
        let source = match stream(&streams, &place) {
            Ok(stream) => scope.source(stream, text, place.of(stream)).await,
            Err(diagnostic) => {
                scope.report(add_stream_hint(diagnostic, &looked_up, scope));
                None
            }
        };
        let table = match table_name {
            Some(name) => {
                let span = object_span(text, into).unwrap_or(written.span.clone());
                let table = scope.table(&name, text, span.clone()).await;
                claim(scope, &name, written, span);
                table
            }
            None => None,
        };
        let lookups = match &source {
            Some(source) => {
                join_group(scope, source, written);
                find_lookups(scope, &looked_up, &place).await
            }
            None => None,
        };
        let connection = match &source {
            Some(source) => {
                let span = source.settings.connection_span.clone();
                scope.connection(&source.definition.connection, &source.text, span).await
            }
            None => None,
        };
        if !is_sound {
            return None;
        }
        Some(Self { query, query_span, source: source?, connection: connection?, table: table?, lookups: lookups? })
    }

    async fn plan(&self, scope: &mut Scope<'_>, written: &WrittenFlow) -> Option<Planned> {
        let place = Place { source: &written.source, span: self.query_span.clone() };
        let query = StreamQuery {
            source: self.source.definition.name.as_str(),
            source_schema: &self.source.schema,
            computed: &self.source.computed,
            query: &self.query,
        };
        if let Some(name) = repeated_name(&self.query) {
            let message = format!("the query gives two columns '{}'", name.value);
            scope.report(
                place.error_at(code::DUPLICATE_COLUMN, name, message).with_hint("give one another name with AS"),
            );
            return None;
        }
        let state = scope.session.state();
        let plan = match plan_query(query, &scope.session).await {
            Ok(plan) => plan,
            Err(error) => {
                place.planner_errors(&error, &self.query).into_iter().for_each(|error| scope.report(error));
                return None;
            }
        };
        if let Err((code, message, hint)) = shape::check(&plan) {
            scope.report(place.error(code, message).with_hint(hint));
            return None;
        }
        let analyzed = match typed::analyzed(plan, &state, &place, &self.query) {
            Ok(plan) => plan,
            Err(errors) => {
                errors.into_iter().for_each(|error| scope.report(error));
                return None;
            }
        };
        let fields: Vec<FieldRef> = analyzed.schema().fields().iter().cloned().collect();
        let output = output_columns(&self.query, &fields, &place);
        if let Some(column) = repeated_column(&output) {
            let message = format!("the query gives two columns '{}'", column.name());
            let error = Diagnostic::new(code::DUPLICATE_COLUMN, &written.source, column.span.clone(), message);
            scope.report(error.with_hint("give one another name with AS"));
            return None;
        }
        Some(Planned { output, fields })
    }

    fn finish(self, scope: &mut Scope<'_>, written: &WrittenFlow, planned: &Planned) -> Option<Flow> {
        let text = &written.source;
        let place = Place { source: text, span: self.query_span.clone() };
        let mut diagnostics = Vec::new();
        let name_span = text.range(written.statement.name.span).unwrap_or(written.span.clone());
        let batch = batch_limits(text, name_span, &written.statement.options, scope.batch, &mut diagnostics);
        let shaped = match &written.statement.action {
            FlowAction::Append { .. } => Ok(upsert::Shape { stored: planned.output.clone(), change: Change::Append }),
            FlowAction::AutoCdc(cdc) => {
                let feed = upsert::Feed { cdc, output: &planned.output, fields: &planned.fields, place: &place };
                upsert::shape(&feed, &self.source, &self.table, &scope.session.state())
            }
        };
        let shape = match shaped {
            Ok(shape) => Some(shape),
            Err(mut errors) => {
                diagnostics.append(&mut errors);
                None
            }
        };
        let settled = shape.as_ref().and_then(|shape| self.settle(shape, &place, &mut diagnostics));
        let key_format = shape.as_ref().and_then(|shape| self.key_format(shape, &place, &mut diagnostics));
        if !diagnostics.is_empty() {
            diagnostics.into_iter().for_each(|diagnostic| scope.report(diagnostic));
            return None;
        }
        let (table, table_schema) = settled?;
        scope.settle_table(table.clone());
        let change = with_stored_sequence(shape?, &table_schema);
        Some(Flow {
            definition: self.definition(written, &table, &change),
            source_schema: Arc::clone(&self.source.schema),
            computed: self.source.computed.clone(),
            table_schema,
            change,
            query: self.query,
            lookups: self.lookups,
            startup: self.source.settings.startup.clone(),
            errors: self.source.settings.errors.clone(),
            limits: self.source.settings.limits,
            key_format: key_format?,
            batch,
            tombstone_retention: table.settings.tombstone_retention,
            upsert: table.settings.upsert,
        })
    }

    /// Returns the table with its columns: declared ones, which the query must fit, or the query's.
    fn settle(
        &self,
        shape: &upsert::Shape,
        place: &Place<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<(ResolvedTable, SchemaRef)> {
        if let Some(schema) = &self.table.schema {
            let is_upsert = !matches!(shape.change, Change::Append);
            let errors = check_assignment(&shape.stored, schema, is_upsert, place);
            let fits = errors.is_empty();
            diagnostics.extend(errors);
            return fits.then(|| (self.table.clone(), Arc::clone(schema)));
        }
        match derived_schema(&shape.stored, &self.table.definition.primary_key, place) {
            Ok(schema) => {
                let mut table = self.table.clone();
                table.definition.columns = catalog_columns(&schema);
                table.schema = Some(Arc::clone(&schema));
                diagnostics.extend(table.derived_errors(&schema));
                Some((table, schema))
            }
            Err(errors) => {
                diagnostics.extend(errors);
                None
            }
        }
    }

    /// Returns how keys are read: as the source says, or as JSON with the source columns that the flow's keys are.
    fn key_format(
        &self,
        shape: &upsert::Shape,
        place: &Place<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<KeyFormat> {
        let keys: &[String] = match &shape.change {
            Change::Upsert { keys, .. } => keys,
            Change::Append => &[],
        };
        let value_columns = self.source.definition.columns.iter();
        let value_columns: Vec<&str> = value_columns
            .filter(|column| column.origin == alluvium_catalog::Origin::Value)
            .map(|column| column.column.name.as_str())
            .collect();
        let source_column = |key: &String| {
            let plain = shape.stored.iter().find(|column| column.name() == key).and_then(|column| column.plain.clone());
            let name = plain.unwrap_or_else(|| key.clone());
            value_columns.contains(&name.as_str()).then_some(name)
        };
        let fields: Vec<String> = keys.iter().filter_map(source_column).collect();
        match &self.source.settings.key_format {
            WrittenKeyFormat::Json(Some(fields)) => Some(KeyFormat::Json { fields: fields.clone() }),
            WrittenKeyFormat::Raw(Some(field)) => Some(KeyFormat::Raw { field: field.clone() }),
            WrittenKeyFormat::Json(None) => {
                // Unnamed, the key of a tombstone is taken to hold the flow's key columns; one that is made of others is
                // not among them, and no tombstone would ever delete.
                let is_made = |column: &&OutputColumn| {
                    column.plain.is_none() && column.made_of.iter().any(|name| value_columns.contains(&name.as_str()))
                };
                let made =
                    shape.stored.iter().filter(|column| keys.iter().any(|key| key == column.name())).find(is_made);
                let Some(made) = made else { return Some(KeyFormat::Json { fields }) };
                let message =
                    format!("key column '{}' is computed, so the key of a tombstone does not hold it", made.name());
                let error = Diagnostic::new(code::MISSING_OPTION, place.source, made.span.clone(), message);
                let source = &self.source.definition.name;
                diagnostics.push(error.with_hint(format!(
                    "say with 'key.fields' of source {source} which of its columns the key of a record holds, such as '{}'",
                    made.made_of.join(", ")
                )));
                None
            }
            WrittenKeyFormat::Raw(None) if keys.is_empty() => Some(KeyFormat::Json { fields }),
            WrittenKeyFormat::Raw(None) => match fields.as_slice() {
                [field] => Some(KeyFormat::Raw { field: field.clone() }),
                _ => {
                    let message = "'key.format' = 'raw' needs 'key.fields', the one column that the key holds";
                    let span = self.source.settings.key_fields_span.clone();
                    let error = Diagnostic::new(code::MISSING_OPTION, &self.source.text, span, message);
                    let key = fields.first().map_or("column", String::as_str);
                    diagnostics.push(error.with_hint(format!("add 'key.fields' = '{key}'")));
                    None
                }
            },
        }
    }

    fn definition(&self, written: &WrittenFlow, table: &ResolvedTable, change: &Change) -> Definition {
        let statement = CreateFlow { or_replace: false, ..written.statement.clone() };
        let sql = statement.to_string();
        let kind = if matches!(change, Change::Append) { FlowKind::Append } else { FlowKind::AutoCdc };
        let sql_hash = sql_hash(&sql, &self.source.definition, &table.definition, &self.connection.name);
        let flow = FlowVersion {
            flow: written.name.clone(),
            kind,
            source: self.source.definition.name.clone(),
            table: table.definition.name.clone(),
            lookups: self.lookups.clone(),
            sql,
            sql_hash,
            file: written.source.name().to_owned(),
            line: written.source.position(written.span.start).line as u64,
        };
        Definition {
            connection: self.connection.clone(),
            source: self.source.definition.clone(),
            table: table.definition.clone(),
            flow,
        }
    }
}

/// Returns a column whose name an earlier one has: wildcards over two tables give such.
fn repeated_column(output: &[OutputColumn]) -> Option<&OutputColumn> {
    let is_repeated = |at: usize| output[..at].iter().any(|earlier| earlier.name() == output[at].name());
    (0..output.len()).find(|at| is_repeated(*at)).map(|at| &output[at])
}

/// Returns the hash of all that decides which rows a flow makes. How the cluster is reached does not.
fn sql_hash(sql: &str, source: &Source, table: &Table, connection: &Name) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [sql, &source_text(source), &table_text(table), connection.as_str()] {
        // The length keeps apart what the text would let run together.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Registers the tables that a query looks up with the planner, without rows.
async fn find_lookups(scope: &mut Scope<'_>, written: &[ObjectName], place: &Place<'_>) -> Option<Vec<TableName>> {
    let mut lookups = Vec::new();
    let mut all_found = true;
    for object in written {
        let span = object_span(place.source, object).unwrap_or(place.span.clone());
        let Some(name) = scope.table_name(place.source, object) else {
            all_found = false;
            continue;
        };
        let Some(schema) = scope.lookup_schema(&name, place.source, span).await else {
            all_found = false;
            continue;
        };
        if let Err(error) = register(&scope.session, &name, schema) {
            let error = place.error(code::PLAN, error.strip_backtrace());
            scope.report(error.with_hint("give the table another name, and look it up by that"));
            all_found = false;
        }
        if !lookups.contains(&name) {
            lookups.push(name);
        }
    }
    all_found.then_some(lookups)
}

fn register(session: &SessionContext, name: &TableName, schema: SchemaRef) -> datafusion::error::Result<()> {
    let reference = TableReference::full(CATALOG, name.schema(), name.table());
    if let Some(catalog) = session.catalog(CATALOG)
        && catalog.schema(name.schema()).is_none()
    {
        catalog.register_schema(name.schema(), Arc::new(MemorySchemaProvider::new()))?;
    }
    let _ = session.deregister_table(reference.clone())?;
    session.register_table(reference, Arc::new(EmptyTable::new(schema))).map(|_| ())
}

/// Notes that a flow writes a table, and reports two that would take each other's rows away.
fn claim(scope: &mut Scope<'_>, table: &TableName, written: &WrittenFlow, span: TextSpan) {
    let upserts = matches!(written.statement.action, FlowAction::AutoCdc(_));
    let writers = scope.writers.entry(table.clone()).or_default();
    let other = writers.iter().find(|other| other.upserts || upserts).map(|other| other.flow.clone());
    writers.push(Writer { flow: written.name.clone(), upserts });
    if let Some(other) = other {
        let message = format!("flow '{other}' writes table {table} as well");
        let diagnostic = Diagnostic::new(code::SHARED_TABLE, &written.source, span, message);
        scope.report(diagnostic.with_hint("a table that AUTO CDC writes has one flow"));
    }
}

/// Notes which consumer group a flow reads in by its source's word, and reports two in one: Kafka deals a topic's partitions
/// out within a group, so each would get a part of the records.
fn join_group(scope: &mut Scope<'_>, source: &ResolvedSource, written: &WrittenFlow) {
    let Source { name, connection, topic, options, .. } = &source.definition;
    let Some(group) = options.get("group.id") else { return };
    let joined = (connection.clone(), topic.clone(), group.clone());
    let Some(other) = scope.groups.insert(joined, written.name.clone()) else { return };
    let span = written.source.range(written.statement.name.span).unwrap_or(written.span.clone());
    let message = format!("flow '{other}' reads topic {topic} in consumer group '{group}' as well");
    let diagnostic = Diagnostic::new(code::SHARED_GROUP, &written.source, span, message)
        .with_label("each would get only a part of the records");
    scope.report(
        diagnostic.with_hint(format!("take 'group.id' out of source {name}: every flow has a group of its own")),
    );
}

/// Drops the claim that the sequence is stored where the table keeps another type, in which it would not compare.
fn with_stored_sequence(shape: upsert::Shape, table: &SchemaRef) -> Change {
    let upsert::Shape { stored, mut change } = shape;
    if let Change::Upsert { stored_sequence, .. } = &mut change {
        let is_same = |name: &String| {
            let had = stored.iter().find(|column| column.name() == name).map(|column| column.field.data_type());
            had.is_some() && had == table.field_with_name(name).ok().map(|field| field.data_type())
        };
        *stored_sequence = stored_sequence.take().filter(|names| names.iter().all(is_same));
    }
    change
}
