//! What `CREATE CONNECTION` and `CREATE SOURCE` mean.

use std::sync::Arc;

use alluvium_catalog::{Column, Connection, MetadataKey, Origin, Source, SourceColumn};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{Expr, Ident};

use super::places::Place;
use super::plan::stream_plan;
use super::scope::OTHER_NAME;
use super::streamed::expression_offences;
use super::typed;
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};
use crate::options::{SourceSettings, WrittenKeyFormat, connection_options, source_settings};
use crate::statement::{self, CreateConnection, CreateSource, Spanned};
use crate::types::{arrow_type, sql_type};

/// How the names of our own columns begin.
const HIDDEN_PREFIX: &str = "_alluvium_";

/// What to do about a column that is named like one of ours.
pub(super) const HIDDEN_HINT: &str = "names that begin with _alluvium_ are the program's own";

/// A source with its columns and settings understood.
#[derive(Debug)]
pub(super) struct ResolvedSource {
    /// The text that defines it.
    pub(super) text: Arc<SourceText>,
    /// The place of its name.
    pub(super) span: TextSpan,
    /// As the catalog keeps it.
    pub(super) definition: Source,
    /// The columns that decoding delivers.
    pub(super) schema: SchemaRef,
    /// The computed columns.
    pub(super) computed: Vec<(String, Expr)>,
    /// What its options mean.
    pub(super) settings: SourceSettings,
}

/// Returns the connection that `created` means, or reports why there is none.
pub(super) fn resolve_connection(
    source: &Arc<SourceText>,
    created: &CreateConnection,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Connection> {
    let before = diagnostics.len();
    let span = |ident: &Ident| source.range(ident.span).unwrap_or(0..0);
    if !created.kind.value.eq_ignore_ascii_case("kafka") {
        let message = format!("connections of type '{}' do not exist", created.kind.value);
        let diagnostic = Diagnostic::new(code::BAD_OPTION, source, span(&created.kind), message);
        diagnostics.push(diagnostic.with_hint("write TYPE kafka"));
    }
    let options = connection_options(source, span(&created.name), &created.options, diagnostics);
    let name = created.name.value.parse().ok()?;
    (diagnostics.len() == before).then(|| Connection { name, kind: "kafka".to_owned(), options })
}

/// Returns the source that `created` means, or reports why there is none.
pub(super) fn resolve_source(
    source: &Arc<SourceText>,
    created: &CreateSource,
    state: &SessionState,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<ResolvedSource> {
    let before = diagnostics.len();
    let span = source.range(created.name.span).unwrap_or(0..0);
    let mut columns = Columns {
        source,
        diagnostics,
        fields: Vec::new(),
        computed: Vec::new(),
        spans: Vec::new(),
        listed: Vec::new(),
    };
    created.columns.iter().for_each(|column| columns.add(column));
    let Columns { fields, computed, spans: computed_spans, listed, .. } = columns;
    // A column that is refused may well have been meant to be it.
    if fields.is_empty() && diagnostics.len() == before {
        let message = "a source needs a column that is not computed";
        let hint = "declare a field of the record, as in (id BIGINT), or a METADATA column";
        diagnostics.push(Diagnostic::new(code::BAD_COLUMN, source, span.clone(), message).with_hint(hint));
    }
    let settings = source_settings(source, span.clone(), &created.options, diagnostics);
    let schema = Arc::new(Schema::new(fields));
    check_key_fields(source, &settings, &listed, diagnostics);
    if diagnostics.len() > before {
        return None;
    }
    let mut all_sound = true;
    for ((at, span), (_, expression)) in computed_spans.iter().enumerate().zip(&computed) {
        let place = Place { source, span: span.clone() };
        let offences = expression_offences(expression, state).into_iter().map(|offence| place.offence(offence));
        let mut errors: Vec<Diagnostic> = offences.collect();
        // A column is planned over the earlier ones: what is wrong with them has been said.
        if errors.is_empty() && all_sound {
            errors = computed_errors(&created.name.value, &schema, &computed[..=at], &place, state);
        }
        all_sound &= errors.is_empty();
        diagnostics.extend(errors);
    }
    if diagnostics.len() > before {
        return None;
    }
    let definition = Source {
        name: created.name.value.parse().ok()?,
        connection: settings.connection.clone()?,
        topic: settings.topic.clone()?,
        columns: listed,
        options: settings.written.clone(),
        comment: created.comment.clone(),
    };
    Some(ResolvedSource { text: Arc::clone(source), span, definition, schema, computed, settings })
}

/// Returns what is wrong with the last of the computed columns.
fn computed_errors(
    name: &str,
    schema: &SchemaRef,
    computed: &[(String, Expr)],
    place: &Place<'_>,
    state: &SessionState,
) -> Vec<Diagnostic> {
    let Some((_, expression)) = computed.last() else { return Vec::new() };
    let planned = stream_plan(name, schema, computed, state);
    let checked = planned
        .map_err(|error| place.planner_errors(&error, expression))
        .and_then(|plan| typed::analyzed(plan, state, place, expression));
    checked.err().unwrap_or_default()
}

fn check_key_fields(
    source: &Arc<SourceText>,
    settings: &SourceSettings,
    columns: &[SourceColumn],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let fields = match &settings.key_format {
        WrittenKeyFormat::Json(fields) => fields.as_deref().unwrap_or_default(),
        WrittenKeyFormat::Raw(field) => field.as_slice(),
    };
    let values =
        columns.iter().filter(|column| column.origin == Origin::Value).map(|column| column.column.name.as_str());
    let values: Vec<&str> = values.collect();
    for field in fields.iter().filter(|field| !values.contains(&field.as_str())) {
        let span = settings.key_fields_span.clone();
        let message = format!("'key.fields' names '{field}', which is not a column of the record's value");
        let diagnostic = Diagnostic::new(code::UNKNOWN_COLUMN, source, span, message)
            .with_hint(format!("declare {field} with its type in CREATE SOURCE"));
        diagnostics.push(diagnostic.with_nearest(field, values.iter().copied()));
    }
}

/// The columns of a source so far.
struct Columns<'a> {
    source: &'a Arc<SourceText>,
    diagnostics: &'a mut Vec<Diagnostic>,
    fields: Vec<Field>,
    computed: Vec<(String, Expr)>,
    spans: Vec<TextSpan>,
    listed: Vec<SourceColumn>,
}

impl Columns<'_> {
    fn add(&mut self, column: &statement::SourceColumn) {
        match column {
            statement::SourceColumn::Stored { column, metadata } => self.add_stored(column, metadata.as_ref()),
            statement::SourceColumn::Computed { name, expression } => self.add_computed(name, expression),
        }
    }

    fn add_stored(&mut self, column: &statement::Column, metadata: Option<&Spanned<String>>) {
        self.check_name(&column.name);
        let Some(data_type) = column_type(self.source, column, self.diagnostics) else { return };
        let origin = match metadata {
            None => self.value_origin(column, &data_type),
            Some(key) => self.metadata_origin(column, key, &data_type),
        };
        let Some(origin) = origin else { return };
        self.listed.push(SourceColumn { column: catalog_column(column, &data_type), origin });
        self.fields.push(Field::new(&column.name.value, data_type, column.nullable));
    }

    fn add_computed(&mut self, name: &Ident, expression: &Spanned<Expr>) {
        self.check_name(name);
        let column = Column {
            name: name.value.clone(),
            data_type: String::new(),
            nullable: true,
            comment: None,
            tags: Vec::new(),
        };
        self.listed.push(SourceColumn { column, origin: Origin::Computed(expression.value.to_string()) });
        self.computed.push((name.value.clone(), expression.value.clone()));
        self.spans.push(expression.span.clone());
    }

    fn check_name(&mut self, name: &Ident) {
        let mut listed = self.listed.iter().map(|listed| listed.column.name.as_str());
        let earlier = listed.find(|listed| listed.eq_ignore_ascii_case(&name.value));
        check_column_name(self.source, name, earlier, self.diagnostics);
    }

    /// Returns the origin of a field of the record, or reports a map with keys other than strings: JSON has nothing
    /// else, and where two of its keys say one number (`1.0`, `1.00`) the map would have one key twice.
    fn value_origin(&mut self, column: &statement::Column, data_type: &DataType) -> Option<Origin> {
        let Some(map) = map_without_string_keys(data_type) else { return Some(Origin::Value) };
        let message = format!("a source cannot read {}: the keys of a map in JSON are strings", sql_type(map));
        let diagnostic = Diagnostic::new(code::BAD_TYPE, self.source, column.data_type.span.clone(), message);
        self.diagnostics.push(diagnostic.with_hint("write MAP<STRING, ...>"));
        None
    }

    fn metadata_origin(
        &mut self,
        column: &statement::Column,
        key: &Spanned<String>,
        data_type: &DataType,
    ) -> Option<Origin> {
        let Some(metadata) = metadata_key(&key.value) else {
            let message = format!("unknown metadata key '{}'", key.value);
            let keys = ["key", "topic", "partition", "offset", "timestamp", "headers.<name>"];
            let diagnostic = Diagnostic::new(code::BAD_COLUMN, self.source, key.span.clone(), message);
            self.diagnostics.push(diagnostic.with_nearest(&key.value, keys));
            return None;
        };
        let (fits, choices) = metadata_types(&metadata, data_type);
        if !fits {
            let message = format!("metadata '{}' cannot be read as {}", key.value, sql_type(data_type));
            let diagnostic = Diagnostic::new(code::BAD_TYPE, self.source, column.data_type.span.clone(), message);
            self.diagnostics.push(diagnostic.with_hint(format!("declare it {choices}")));
            return None;
        }
        Some(Origin::Metadata(metadata))
    }
}

/// Returns the first map in a type, itself included, whose keys are not strings.
fn map_without_string_keys(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(element) => map_without_string_keys(element.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| map_without_string_keys(field.data_type())),
        DataType::Map(entries, _) => {
            let DataType::Struct(entry) = entries.data_type() else { return None };
            let [key, value] = entry.as_ref() else { return None };
            if *key.data_type() != DataType::Utf8 {
                return Some(data_type);
            }
            map_without_string_keys(value.data_type())
        }
        _ => None,
    }
}

fn metadata_key(text: &str) -> Option<MetadataKey> {
    match text {
        "key" => Some(MetadataKey::Key),
        "topic" => Some(MetadataKey::Topic),
        "partition" => Some(MetadataKey::Partition),
        "offset" => Some(MetadataKey::Offset),
        "timestamp" => Some(MetadataKey::Timestamp),
        _ => {
            let header = text.strip_prefix("headers.")?;
            (!header.is_empty()).then(|| MetadataKey::Header(header.to_owned()))
        }
    }
}

/// Tells whether a column of `data_type` can hold `key`, and which types can.
fn metadata_types(key: &MetadataKey, data_type: &DataType) -> (bool, &'static str) {
    match key {
        MetadataKey::Key | MetadataKey::Header(_) => {
            (matches!(data_type, DataType::Binary | DataType::Utf8), "BINARY or STRING")
        }
        MetadataKey::Topic => (*data_type == DataType::Utf8, "STRING"),
        MetadataKey::Partition => (matches!(data_type, DataType::Int32 | DataType::Int64), "INT or BIGINT"),
        MetadataKey::Offset => (*data_type == DataType::Int64, "BIGINT"),
        MetadataKey::Timestamp => {
            let instant = matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, Some(_)));
            (instant || *data_type == DataType::Int64, "TIMESTAMP or BIGINT")
        }
    }
}

/// Returns the Arrow type of a column, or reports that it has none.
pub(super) fn column_type(
    source: &Arc<SourceText>,
    column: &statement::Column,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<DataType> {
    match arrow_type(&column.data_type.value) {
        Ok(data_type) => Some(data_type),
        Err(error) => {
            let span = column.data_type.span.clone();
            let diagnostic = Diagnostic::new(code::BAD_TYPE, source, span, error.message());
            diagnostics.push(
                diagnostic.with_hint(error.hint().unwrap_or("flatten it: declare the inner fields that are needed")),
            );
            None
        }
    }
}

/// Returns a column as the catalog keeps it.
pub(super) fn catalog_column(column: &statement::Column, data_type: &DataType) -> Column {
    Column {
        name: column.name.value.clone(),
        data_type: sql_type(data_type),
        nullable: column.nullable,
        comment: column.comment.clone(),
        tags: column.tags.iter().map(|tag| tag.value.clone()).collect(),
    }
}

/// Reports a name that no column can have, or that `earlier`, one before it, has in this or another case: Spark and Hive
/// read column names without their case, so two must differ by more.
pub(super) fn check_column_name(
    source: &Arc<SourceText>,
    name: &Ident,
    earlier: Option<&str>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let span = source.range(name.span).unwrap_or(0..0);
    if let Some(earlier) = earlier {
        let error = Diagnostic::new(code::DUPLICATE_COLUMN, source, span.clone(), repeated(&name.value, earlier));
        diagnostics.push(error.with_hint(OTHER_NAME));
    }
    if name.value.is_empty() || is_hidden(&name.value) {
        let message = format!("a column cannot be named '{}'", name.value);
        diagnostics.push(Diagnostic::new(code::BAD_COLUMN, source, span, message).with_hint(HIDDEN_HINT));
    }
}

/// Says that a column has the name of an earlier one.
pub(super) fn repeated(name: &str, earlier: &str) -> String {
    if name == earlier {
        return format!("column '{name}' is defined twice");
    }
    format!("columns '{earlier}' and '{name}' differ only in case")
}

/// Tells whether a name looks like one of our own columns.
pub(super) fn is_hidden(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with(HIDDEN_PREFIX)
}
