//! What `CREATE STREAMING TABLE` means.

use std::sync::Arc;

use alluvium_catalog::{Location, Name, Table, TableName};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::Ident;

use super::scope::object_span;
use super::source::{catalog_column, check_column_name, column_type};
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};
use crate::options::{OF_UPSERTS, TableSettings, table_settings};
use crate::statement::{CreateStreamingTable, WrittenOption};
use crate::types::sql_type;

/// A table with its columns and settings understood.
#[derive(Debug, Clone)]
pub(super) struct ResolvedTable {
    /// As the catalog keeps it.
    pub(super) definition: Table,
    /// Its columns; `None` where they are those of the first flow.
    pub(super) schema: Option<SchemaRef>,
    /// What its properties mean.
    pub(super) settings: TableSettings,
    /// Where it is written.
    pub(super) written: WrittenTable,
}

/// A table as it stands in its text.
#[derive(Debug, Clone)]
pub(super) struct WrittenTable {
    pub(super) text: Arc<SourceText>,
    /// The place of its LOCATION, or where there is none of its name.
    pub(super) location_span: TextSpan,
    /// The place of its name.
    span: TextSpan,
    created: CreateStreamingTable,
}

impl ResolvedTable {
    /// Returns what is wrong with the key, the partitions and the clustering of a table that has its columns, `schema`, from
    /// a query.
    pub(super) fn derived_errors(&self, schema: &SchemaRef) -> Vec<Diagnostic> {
        let mut diagnostics = Vec::new();
        let WrittenTable { text, created, span, .. } = &self.written;
        let table = Checked { source: text, created, schema, lacks: "the query gives no column" };
        table.check_key(&mut diagnostics);
        table.check_partitions(span.clone(), &mut diagnostics);
        table.check_clustering(&self.settings.written, &mut diagnostics);
        diagnostics
    }

    /// Returns what is wrong with the properties of a table to which flows, of which `flow` is one, only add rows.
    pub(super) fn appended_errors(&self, flow: &Name) -> Vec<Diagnostic> {
        let WrittenTable { text, created, .. } = &self.written;
        let is_unread = |option: &&WrittenOption| OF_UPSERTS.contains(&option.key.value.as_str());
        let unread = created.properties.iter().filter(is_unread);
        unread
            .map(|option| {
                let message = format!("nobody reads '{}': flow '{flow}' only adds rows", option.key.value);
                Diagnostic::new(code::UNKNOWN_OPTION, text, option.key.span.clone(), message)
                    .with_hint("take it out, or write the table by AUTO CDC, which supersedes rows")
            })
            .collect()
    }
}

/// Returns the table that `created` means, or reports why there is none.
pub(super) fn resolve_table(
    source: &Arc<SourceText>,
    created: &CreateStreamingTable,
    name: &TableName,
    warehouse: &Location,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<ResolvedTable> {
    let before = diagnostics.len();
    let span = object_span(source, &created.name).unwrap_or(0..0);
    let settings = table_settings(source, span.clone(), &created.properties, diagnostics);
    let location = location(source, created, name, warehouse, diagnostics);
    let schema = columns(source, created, diagnostics);
    let columns = created.columns.iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| catalog_column(column, field.data_type())).collect();
    let table = Checked { source, created, schema: &schema, lacks: "the table has no column" };
    table.check_clause(diagnostics);
    if schema.fields().len() == created.columns.len() && !created.columns.is_empty() {
        table.check_key(diagnostics);
        table.check_partitions(span.clone(), diagnostics);
        table.check_clustering(&settings.written, diagnostics);
    }
    if diagnostics.len() > before {
        return None;
    }
    let names = |idents: &[Ident]| idents.iter().map(|ident| ident.value.clone()).collect();
    let definition = Table {
        name: name.clone(),
        location: location?,
        columns,
        primary_key: created.primary_key.as_ref().map(|key| names(&key.value)).unwrap_or_default(),
        partitioned_by: names(&created.partitioned_by),
        clustered_by: created.clustered_by.as_deref().map(names),
        comment: created.comment.clone(),
        properties: settings.written.clone(),
    };
    let schema = (!created.columns.is_empty()).then_some(schema);
    let written = WrittenTable {
        text: Arc::clone(source),
        location_span: created.location.as_ref().map_or(span.clone(), |location| location.span.clone()),
        span,
        created: created.clone(),
    };
    Some(ResolvedTable { definition, schema, settings, written })
}

fn location(
    source: &Arc<SourceText>,
    created: &CreateStreamingTable,
    name: &TableName,
    warehouse: &Location,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Location> {
    let (found, span) = match &created.location {
        Some(written) => (written.value.parse(), written.span.clone()),
        None => (
            warehouse.join(&format!("{}/{}", name.schema(), name.table())),
            object_span(source, &created.name).unwrap_or(0..0),
        ),
    };
    match found {
        Ok(location) => Some(location),
        Err(error) => {
            let diagnostic = Diagnostic::new(code::BAD_OPTION, source, span, error.message());
            diagnostics
                .push(diagnostic.with_hint(error.hint().unwrap_or("write LOCATION 's3://bucket/folder', or a path")));
            None
        }
    }
}

/// Returns the declared columns; fewer than declared where some are reported.
fn columns(source: &Arc<SourceText>, created: &CreateStreamingTable, diagnostics: &mut Vec<Diagnostic>) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    for column in &created.columns {
        let earlier = fields.iter().find(|field| field.name().eq_ignore_ascii_case(&column.name.value));
        check_column_name(source, &column.name, earlier.map(|field| field.name().as_str()), diagnostics);
        if let Some(character) = column.name.value.chars().find(|next| " ,;{}()\n\t=".contains(*next)) {
            let span = source.range(column.name.span).unwrap_or(0..0);
            let message = format!("a table's column cannot have {character:?} in its name");
            let hint = "rename it in the flow with AS; Delta tables without column mapping refuse it";
            diagnostics.push(Diagnostic::new(code::BAD_COLUMN, source, span, message).with_hint(hint));
        }
        if let Some(data_type) = column_type(source, column, diagnostics) {
            fields.push(Field::new(&column.name.value, data_type, column.nullable));
        }
    }
    Arc::new(Schema::new(fields))
}

/// A table whose columns have types.
pub(super) struct Checked<'a> {
    pub(super) source: &'a Arc<SourceText>,
    pub(super) created: &'a CreateStreamingTable,
    pub(super) schema: &'a SchemaRef,
    /// How an error about a column that is not there begins.
    lacks: &'static str,
}

impl Checked<'_> {
    fn check_key(&self, diagnostics: &mut Vec<Diagnostic>) {
        let key = self.created.primary_key.as_ref().map(|key| key.value.as_slice()).unwrap_or_default();
        for (at, ident) in key.iter().enumerate() {
            let Some(field) = self.listed(ident, &key[..at], diagnostics) else { continue };
            if field.is_nullable() {
                let message = format!("key column '{}' may be NULL", ident.value);
                let hint = format!("declare it {} NOT NULL", sql_type(field.data_type()));
                diagnostics.push(self.error(code::NULLABLE_KEY, ident, message).with_hint(hint));
            }
            if !can_be_key(field.data_type()) {
                let message = format!("key column '{}' cannot be {}", ident.value, sql_type(field.data_type()));
                let hint = "a key is of integers, DECIMAL, STRING, BINARY, BOOLEAN, DATE or TIMESTAMP";
                diagnostics.push(self.error(code::BAD_KEYS, ident, message).with_hint(hint));
            }
        }
    }

    fn check_partitions(&self, span: TextSpan, diagnostics: &mut Vec<Diagnostic>) {
        let partitions = &self.created.partitioned_by;
        let mut all_exist = true;
        for (at, ident) in partitions.iter().enumerate() {
            let Some(field) = self.listed(ident, &partitions[..at], diagnostics) else {
                all_exist = false;
                continue;
            };
            if !can_be_partition(field.data_type()) {
                let data_type = sql_type(field.data_type());
                let message = format!("a table cannot be partitioned by '{}', which is {data_type}", ident.value);
                let hint = "partition by integers, DECIMAL, STRING, BOOLEAN, DATE or TIMESTAMP";
                diagnostics.push(self.error(code::BAD_PARTITION, ident, message).with_hint(hint));
            }
        }
        if all_exist && partitions.len() == self.schema.fields().len() {
            let message = "a table needs a column that it is not partitioned by";
            let at = partitions.last().and_then(|last| self.source.range(last.span)).unwrap_or(span);
            let diagnostic = Diagnostic::new(code::BAD_PARTITION, self.source, at, message);
            diagnostics.push(diagnostic.with_hint("leave a column out of PARTITIONED BY: files hold the others"));
        }
    }

    /// Returns the column that `ident` lists, or reports that there is none or that `earlier` ones list it.
    pub(super) fn listed(&self, ident: &Ident, earlier: &[Ident], diagnostics: &mut Vec<Diagnostic>) -> Option<&Field> {
        if earlier.iter().any(|other| other.value == ident.value) {
            let message = format!("column '{}' is listed twice", ident.value);
            diagnostics.push(self.error(code::DUPLICATE_COLUMN, ident, message).with_hint("list it once"));
            return None;
        }
        let field = self.schema.field_with_name(&ident.value).ok();
        if field.is_none() {
            let names = self.schema.fields().iter().map(|field| field.name().as_str());
            let message = format!("{} '{}'", self.lacks, ident.value);
            diagnostics.push(self.error(code::UNKNOWN_COLUMN, ident, message).with_nearest(&ident.value, names));
        }
        field
    }

    pub(super) fn error(&self, code: &'static str, ident: &Ident, message: String) -> Diagnostic {
        Diagnostic::new(code, self.source, self.source.range(ident.span).unwrap_or(0..0), message)
    }
}

/// Tells whether values of a type are equal exactly when their bytes are.
pub(super) fn can_be_key(data_type: &DataType) -> bool {
    !(data_type.is_nested() || data_type.is_floating())
}

/// Tells whether a type makes sensible folders, with one spelling a value.
fn can_be_partition(data_type: &DataType) -> bool {
    !(data_type.is_nested() || data_type.is_floating() || matches!(data_type, DataType::Binary))
}
