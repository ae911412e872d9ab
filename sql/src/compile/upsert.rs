//! What AUTO CDC adds to a query: keys, order, deletes, and which columns are stored.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::DFSchema;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{EmptyRelation, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Expr, ExprWithAlias, Ident};

use super::output::OutputColumn;
use super::places::Place;
use super::source::ResolvedSource;
use super::streamed::expression_offences;
use super::table::{ResolvedTable, can_be_key};
use super::typed;
use crate::diagnostic::{Diagnostic, code};
use crate::pipeline::{Change, UpsertMode};
use crate::sequence::sequence_fields;
use crate::statement::{AutoCdc, ColumnChoice, Spanned};
use crate::types::sql_type;

/// AUTO CDC and what its query gives.
pub(super) struct Feed<'a> {
    pub(super) cdc: &'a AutoCdc,
    pub(super) output: &'a [OutputColumn],
    pub(super) fields: &'a [FieldRef],
    pub(super) place: &'a Place<'a>,
}

/// How rows change a table, and which columns of the query it stores.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) stored: Vec<OutputColumn>,
    pub(super) change: Change,
}

/// Returns how `feed` changes `table`.
///
/// # Errors
/// All that is wrong with its clauses.
pub(super) fn shape(
    feed: &Feed<'_>,
    source: &ResolvedSource,
    table: &ResolvedTable,
    state: &SessionState,
) -> Result<Shape, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let stored = feed.stored(&mut diagnostics);
    feed.check_keys(source, table, &stored, &mut diagnostics);
    feed.check_properties(table, &mut diagnostics);
    let sequence = feed.sequence(state, &mut diagnostics);
    feed.check_delete(state, &mut diagnostics);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let is_stored = |name: &String| stored.iter().any(|column| column.name() == name);
    let names: Option<Vec<String>> = sequence.iter().map(identifier).collect();
    let stored_sequence = names.filter(|names| names.iter().all(is_stored));
    let delete_when = feed.cdc.delete_when.as_ref().map(|expression| expression.value.clone());
    let keys = table.definition.primary_key.clone();
    Ok(Shape { stored, change: Change::Upsert { keys, sequence, delete_when, stored_sequence } })
}

impl Feed<'_> {
    /// Returns the columns that the table stores.
    fn stored(&self, diagnostics: &mut Vec<Diagnostic>) -> Vec<OutputColumn> {
        let Some(choice) = &self.cdc.columns else { return self.output.to_vec() };
        let (ColumnChoice::Only(names) | ColumnChoice::Except(names)) = choice;
        for (at, ident) in names.iter().enumerate() {
            if names[..at].contains(ident) {
                let message = format!("column '{}' is listed twice", ident.value);
                let error = self.place.error_at(code::DUPLICATE_COLUMN, ident, message);
                diagnostics.push(error.with_hint("list it once"));
            }
            if self.find(ident).is_none() {
                diagnostics.push(self.unknown(ident));
            }
        }
        let is_listed = |column: &&OutputColumn| names.iter().any(|ident| ident.value == column.name());
        let keeps_listed = matches!(choice, ColumnChoice::Only(_));
        self.output.iter().filter(|column| is_listed(column) == keeps_listed).cloned().collect()
    }

    /// Refuses properties under which rows cannot be superseded. Copy-on-write needs no vectors: without them is what it is
    /// for, and that it is not with them is said where the properties are read.
    fn check_properties(&self, table: &ResolvedTable, diagnostics: &mut Vec<Diagnostic>) {
        let mut refuse = |key: &str, value: &str, hint: &str| {
            let written = table.definition.properties.get(key);
            if written.is_some_and(|written| written.eq_ignore_ascii_case(value)) {
                let message =
                    format!("table {} sets '{key}' = '{value}', and AUTO CDC supersedes rows", table.definition.name);
                let error = Diagnostic::new(code::BAD_OPTION, self.place.source, self.cdc.keys.span.clone(), message);
                diagnostics.push(error.with_hint(hint));
            }
        };
        refuse("delta.appendOnly", "true", "take the property out, or add rows by INSERT INTO");
        if table.settings.upsert.mode == UpsertMode::MergeOnRead {
            let hint = "take the property out, or add 'alluvium.upsert' = 'copy-on-write'";
            refuse("delta.enableDeletionVectors", "false", hint);
        }
    }

    fn check_keys(
        &self,
        source: &ResolvedSource,
        table: &ResolvedTable,
        stored: &[OutputColumn],
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let (keys, primary_key) = (&self.cdc.keys, &table.definition.primary_key);
        let name = &table.definition.name;
        let written = keys.value.iter().map(|ident| ident.value.as_str()).collect::<Vec<_>>().join(", ");
        for ident in &keys.value {
            match self.find(ident) {
                None => diagnostics.push(self.unknown(ident)),
                Some(column) => diagnostics.extend(self.key_errors(ident, column, source)),
            }
            if self.find(ident).is_some() && !stored.iter().any(|column| column.name() == ident.value) {
                let message = format!("key column '{}' is not stored", ident.value);
                diagnostics.push(self.place.error_at(code::BAD_KEYS, ident, message).with_hint("COLUMNS must keep it"));
            }
        }
        let error = |message| Diagnostic::new(code::BAD_KEYS, self.place.source, keys.span.clone(), message);
        let all_exist = keys.value.iter().all(|ident| self.find(ident).is_some());
        let is_key = |ident: &Ident| primary_key.contains(&ident.value);
        if primary_key.is_empty() {
            let message = format!("table {name} has no PRIMARY KEY");
            let hint = format!("add PRIMARY KEY ({written}) NOT ENFORCED to CREATE STREAMING TABLE {name}");
            diagnostics.push(error(message).with_hint(hint));
        } else if all_exist && (keys.value.len() != primary_key.len() || !keys.value.iter().all(is_key)) {
            let message = format!("KEYS ({written}) are not the primary key of table {name}");
            diagnostics.push(error(message).with_hint(format!("write KEYS ({})", primary_key.join(", "))));
        }
    }

    fn key_errors(&self, ident: &Ident, column: &OutputColumn, source: &ResolvedSource) -> Vec<Diagnostic> {
        let mut diagnostics = Vec::new();
        if !can_be_key(column.field.data_type()) {
            let message = format!("key column '{}' cannot be {}", ident.value, sql_type(column.field.data_type()));
            let hint = "a key is of integers, DECIMAL, STRING, BINARY, BOOLEAN, DATE or TIMESTAMP";
            diagnostics.push(self.place.error_at(code::BAD_KEYS, ident, message).with_hint(hint));
        }
        // What an expression gives is not known to be NULL or not; such a row is a reject when it comes.
        let declared = column.plain.as_ref().and_then(|name| source.schema.field_with_name(name).ok());
        if let Some(field) = declared.filter(|field| field.is_nullable()) {
            let message = format!("key column '{}' may be NULL in source '{}'", field.name(), source.definition.name);
            let hint = format!("declare it {} {} NOT NULL in CREATE SOURCE", field.name(), sql_type(field.data_type()));
            diagnostics.push(self.place.error_at(code::NULLABLE_KEY, ident, message).with_hint(hint));
        }
        diagnostics
    }

    /// Returns the fields of SEQUENCE BY, most significant first.
    fn sequence(&self, state: &SessionState, diagnostics: &mut Vec<Diagnostic>) -> Vec<Expr> {
        let Some(written) = &self.cdc.sequence_by else {
            let keys = self.cdc.keys.span.clone();
            let error = Diagnostic::new(code::NO_SEQUENCE, self.place.source, keys, "AUTO CDC needs SEQUENCE BY");
            let error = error.with_label("without an order, a late record would overwrite newer data");
            diagnostics.push(error.with_hint(self.sequence_hint()));
            return Vec::new();
        };
        let fields = sequence_fields(&written.value);
        for field in &fields {
            let Some(data_type) = self.expression_type(field, written, state, diagnostics) else { continue };
            if data_type.is_nested() || data_type.is_floating() || data_type == DataType::Null {
                let message = format!("SEQUENCE BY cannot be {}", sql_type(&data_type));
                let error = Diagnostic::new(code::TYPE_MISMATCH, self.place.source, written.span.clone(), message);
                let hint = "order by integers, DECIMAL, TIMESTAMP, DATE or STRING; by several as struct(a, b)";
                diagnostics.push(error.with_hint(hint));
            }
        }
        fields
    }

    fn sequence_hint(&self) -> String {
        let is_time = |column: &&OutputColumn| matches!(column.field.data_type(), DataType::Timestamp(..));
        match self.output.iter().find(is_time) {
            Some(column) => format!("write SEQUENCE BY {}", column.name()),
            None => "write SEQUENCE BY column, or SEQUENCE BY struct(first, second)".to_owned(),
        }
    }

    fn check_delete(&self, state: &SessionState, diagnostics: &mut Vec<Diagnostic>) {
        let Some(written) = &self.cdc.delete_when else { return };
        let Some(data_type) = self.expression_type(&written.value, written, state, diagnostics) else { return };
        if data_type != DataType::Boolean {
            let message = format!("APPLY AS DELETE WHEN needs a condition, but this is {}", sql_type(&data_type));
            let error = Diagnostic::new(code::TYPE_MISMATCH, self.place.source, written.span.clone(), message);
            diagnostics.push(error.with_hint(format!("compare it with a value, as in {} = ..", written.value)));
        }
    }

    /// Returns the type of an expression over the query's columns, or reports what is wrong with it.
    fn expression_type(
        &self,
        expression: &Expr,
        written: &Spanned<Expr>,
        state: &SessionState,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<DataType> {
        let place = Place { source: self.place.source, span: written.span.clone() };
        let offences = expression_offences(expression, state);
        if !offences.is_empty() {
            diagnostics.extend(offences.into_iter().map(|offence| place.offence(offence)));
            return None;
        }
        let planned = DFSchema::try_from(Schema::new(self.fields.to_vec())).and_then(|schema| {
            let parsed = ExprWithAlias { expr: expression.clone(), alias: None };
            let planned = state.create_logical_expr_from_sql_expr(parsed, &schema)?;
            let data_type = planned.get_type(&schema)?;
            let rows = EmptyRelation { produce_one_row: false, schema: Arc::new(schema) };
            let plan = LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(rows)).project([planned])?.build()?;
            Ok((data_type, plan))
        });
        let checked = match planned {
            Ok((data_type, plan)) => typed::analyzed(plan, state, &place, expression).map(|_| data_type),
            Err(error) => Err(place.planner_errors(&error, expression)),
        };
        checked.map_err(|mut errors| diagnostics.append(&mut errors)).ok()
    }

    fn find(&self, ident: &Ident) -> Option<&OutputColumn> {
        self.output.iter().find(|column| column.name() == ident.value)
    }

    fn unknown(&self, ident: &Ident) -> Diagnostic {
        let message = format!("column '{}' not found", ident.value);
        let names = self.output.iter().map(OutputColumn::name);
        self.place.error_at(code::UNKNOWN_COLUMN, ident, message).with_nearest(&ident.value, names)
    }
}

fn identifier(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::Nested(inner) => identifier(inner),
        _ => None,
    }
}
