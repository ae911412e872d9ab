//! Matches the columns that a query gives with those that a table has, by name and type.
//!
//! Only what loses nothing happens by itself (`INT` to `BIGINT`); for the rest the error says which CAST to write.

use std::ops::ControlFlow;
use std::sync::Arc;

use alluvium_catalog::Column;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr, Spanned, visit_expressions};

use super::places::Place;
use super::source::{HIDDEN_HINT, is_hidden, repeated};
use crate::diagnostic::{Diagnostic, TextSpan, code};
use crate::parser::parse_type;
use crate::types::{arrow_type, sql_type};

/// A column that a query gives.
#[derive(Debug, Clone)]
pub(super) struct OutputColumn {
    pub(super) field: FieldRef,
    /// Where it is written.
    pub(super) span: TextSpan,
    /// The column that it is without change, if it is one.
    pub(super) plain: Option<String>,
    /// The columns that it is computed from, as far as its own expression names them.
    pub(super) made_of: Vec<String>,
    /// How it is computed, as text; empty where a wildcard stands for it.
    expression: String,
}

impl OutputColumn {
    pub(super) fn name(&self) -> &str {
        self.field.name()
    }
}

/// Returns the columns that `query` gives by `fields`, each with its place.
pub(super) fn output_columns(query: &Query, fields: &[FieldRef], place: &Place<'_>) -> Vec<OutputColumn> {
    let items = select(&query.body).map(|select| select.projection.as_slice()).unwrap_or_default();
    let wild = items.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let column = |(at, field): (usize, &FieldRef)| {
        let item = match items.get(at) {
            Some(item) if !wild && items.len() == fields.len() => Some(item),
            _ => items.iter().find(|item| item_name(item).is_some_and(|name| name.value == *field.name())),
        };
        let span = item.and_then(|item| place.source.range(item_span(item))).unwrap_or(place.span.clone());
        let plain = match item {
            Some(item) => item_column(item).map(|ident| ident.value.clone()),
            None => wild.then(|| field.name().clone()),
        };
        let expression = item.and_then(item_expression).map(ToString::to_string).unwrap_or_default();
        let made_of = item.and_then(item_expression).map(columns_in).unwrap_or_default();
        OutputColumn { field: Arc::clone(field), span, plain, made_of, expression }
    };
    fields.iter().enumerate().map(column).collect()
}

fn select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => select(&query.body),
        _ => None,
    }
}

fn item_name(item: &SelectItem) -> Option<&Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        SelectItem::UnnamedExpr(_) => item_column(item),
        _ => None,
    }
}

fn item_span(item: &SelectItem) -> datafusion::sql::sqlparser::tokenizer::Span {
    match item {
        SelectItem::UnnamedExpr(_) => item_column(item).map_or_else(|| item.span(), |ident| ident.span),
        _ => item.span(),
    }
}

/// Returns the column that an item is, renamed or not.
fn item_column(item: &SelectItem) -> Option<&Ident> {
    match item_expression(item)? {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(idents) => idents.last(),
        _ => None,
    }
}

fn item_expression(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// Returns the names of the columns in `expression`.
fn columns_in(expression: &Expr) -> Vec<String> {
    let mut names = Vec::new();
    let _: ControlFlow<()> = visit_expressions(expression, |part| {
        match part {
            Expr::Identifier(ident) => names.push(ident.value.clone()),
            Expr::CompoundIdentifier(idents) => names.extend(idents.last().map(|ident| ident.value.clone())),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    names
}

/// Returns a name that two columns of the query are given, at its second place.
pub(super) fn repeated_name(query: &Query) -> Option<&Ident> {
    let items = select(&query.body)?.projection.as_slice();
    let names: Vec<&Ident> = items.iter().filter_map(item_name).collect();
    let is_repeated = |at: usize| names[..at].iter().any(|earlier| earlier.value == names[at].value);
    (0..names.len()).find(|at| is_repeated(*at)).map(|at| names[at])
}

/// Checks that `output` gives exactly the columns of `table`, each in a type that becomes the table's without loss.
pub(super) fn check_assignment(
    output: &[OutputColumn],
    table: &Schema,
    is_upsert: bool,
    place: &Place<'_>,
) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let names = || table.fields().iter().map(|field| field.name().as_str());
    for column in output {
        let Ok(target) = table.field_with_name(column.name()) else {
            diagnostics.push(extra(column, names(), is_upsert, place));
            continue;
        };
        if !becomes(column.field.data_type(), target.data_type()) {
            let (got, wanted) = (sql_type(column.field.data_type()), sql_type(target.data_type()));
            let message = format!("column '{}' is {wanted} in the table, but the query gives {got}", column.name());
            let operand = if column.expression.is_empty() { column.name() } else { &column.expression };
            let diagnostic = Diagnostic::new(code::TYPE_MISMATCH, place.source, column.span.clone(), message);
            diagnostics.push(diagnostic.with_hint(format!("write CAST({operand} AS {wanted}) AS {}", column.name())));
        }
    }
    for field in table.fields() {
        if !output.iter().any(|column| column.name() == field.name()) {
            let message = format!("the query gives no column '{}'", field.name());
            let data_type = sql_type(field.data_type());
            let hint = if field.is_nullable() {
                format!("add CAST(NULL AS {data_type}) AS {}", field.name())
            } else {
                format!("add {data_type} AS {}: it is NOT NULL in the table", field.name())
            };
            diagnostics.push(place.error(code::MISSING_OUTPUT, message).with_hint(hint));
        }
    }
    diagnostics
}

fn extra<'a>(
    column: &OutputColumn,
    names: impl Iterator<Item = &'a str>,
    is_upsert: bool,
    place: &Place<'_>,
) -> Diagnostic {
    let message = format!("the table has no column '{}'", column.name());
    let diagnostic = Diagnostic::new(code::EXTRA_OUTPUT, place.source, column.span.clone(), message);
    if is_upsert {
        return diagnostic.with_hint(format!("leave it out of the table with COLUMNS * EXCEPT ({})", column.name()));
    }
    diagnostic.with_nearest(column.name(), names)
}

/// Returns the columns of a table that takes what `output` gives; `keys` may not be NULL.
///
/// # Errors
/// The columns that no table can hold.
pub(super) fn derived_schema(
    output: &[OutputColumn],
    keys: &[String],
    place: &Place<'_>,
) -> Result<SchemaRef, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut fields: Vec<Field> = Vec::new();
    for (at, column) in output.iter().enumerate() {
        let error = |code, message: String| Diagnostic::new(code, place.source, column.span.clone(), message);
        let name = column.name();
        if let Some(earlier) = output[..at].iter().find(|earlier| earlier.name().eq_ignore_ascii_case(name)) {
            let error = error(code::DUPLICATE_COLUMN, repeated(name, earlier.name()));
            diagnostics.push(error.with_hint("give one another name with AS"));
        }
        if is_hidden(name) {
            let error = error(code::BAD_COLUMN, format!("a column cannot be named '{name}'"));
            diagnostics.push(error.with_hint(HIDDEN_HINT));
        }
        if !name.chars().all(|next| next.is_alphanumeric() || matches!(next, '_' | '-')) {
            diagnostics.push(error(code::BAD_TYPE, "the column has no name".to_owned()).with_hint("name it with AS"));
            continue;
        }
        match stored_type(column.field.data_type()) {
            // What the planner holds for never NULL is no promise that a reader of the table should rely on.
            Ok(data_type) => fields.push(Field::new(name, data_type, !keys.iter().any(|key| key == name))),
            Err(why) => {
                let written = sql_type(column.field.data_type());
                let message = format!("column '{name}' is {written}, which a table cannot hold{why}");
                diagnostics.push(error(code::BAD_TYPE, message).with_hint("write CAST(.. AS type)"));
            }
        }
    }
    if diagnostics.is_empty() { Ok(Arc::new(Schema::new(fields))) } else { Err(diagnostics) }
}

/// Returns the type in which a table stores values of a query's column, or why there is none.
fn stored_type(given: &DataType) -> Result<DataType, String> {
    let parsed = parse_type(&sql_type(given)).map_err(|_| String::new())?;
    // Of a scalar the type itself says what is wrong.
    let why = |error: alluvium_catalog::Error| format!(": {}", error.message());
    arrow_type(&parsed).map_err(|error| if given.is_nested() { why(error) } else { String::new() })
}

/// Returns the columns of `schema` as the catalog keeps them.
pub(super) fn catalog_columns(schema: &Schema) -> Vec<Column> {
    let column = |field: &FieldRef| Column {
        name: field.name().clone(),
        data_type: sql_type(field.data_type()),
        nullable: field.is_nullable(),
        comment: None,
        tags: Vec::new(),
    };
    schema.fields().iter().map(column).collect()
}

/// Tells whether every value of type `from` is one of type `to`.
fn becomes(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Decimal128, Decimal256, Dictionary, Float32, Float64, Int8, Int16, Int32, Int64,
        LargeBinary, LargeList, LargeUtf8, List, ListView, Map, Null, Struct, Timestamp, UInt8, UInt16, UInt32, UInt64,
        Utf8, Utf8View,
    };
    match (from, to) {
        _ if from == to => true,
        (Null, _) => true,
        (Dictionary(_, values), _) => becomes(values, to),
        (LargeUtf8 | Utf8View, Utf8) | (LargeBinary | BinaryView, Binary) => true,
        (Int8 | UInt8, Int16 | Int32 | Int64 | Float32 | Float64) => true,
        (Int16 | UInt16, Int32 | Int64 | Float32 | Float64) | (Int32 | UInt32, Int64 | Float64) => true,
        (Float32, Float64) => true,
        (Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64, Decimal128(precision, scale)) => {
            i16::from(*precision) - i16::from(*scale) >= digits(from)
        }
        (Decimal128(had, had_scale) | Decimal256(had, had_scale), Decimal128(precision, scale)) => {
            let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
            scale >= had_scale && whole(*precision, *scale) >= whole(*had, *had_scale)
        }
        (Timestamp(had, from_zone), Timestamp(unit, to_zone)) => {
            // An instant is the same in every zone; a finer unit would lose digits.
            from_zone.is_some() == to_zone.is_some() && had <= unit
        }
        (List(from) | LargeList(from) | ListView(from), List(to)) => becomes(from.data_type(), to.data_type()),
        (Map(from, _), Map(to, _)) => match (from.data_type(), to.data_type()) {
            (Struct(from), Struct(to)) => {
                from.iter().zip(to).all(|(from, to)| becomes(from.data_type(), to.data_type()))
            }
            _ => false,
        },
        (Struct(from), Struct(to)) => {
            let pairs = || from.iter().zip(to);
            from.len() == to.len()
                && pairs().all(|(from, to)| from.name() == to.name() && becomes(from.data_type(), to.data_type()))
        }
        _ => false,
    }
}

/// How many decimal digits the values of an integer type have at most.
fn digits(data_type: &DataType) -> i16 {
    match data_type {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        _ => 20,
    }
}
