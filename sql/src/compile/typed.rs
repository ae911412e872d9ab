//! Proves that a plan compares like with like, and that every constant in it has a value.
//!
//! The planner casts what does not fit, and a cast fails when it is executed: a constant's when the flow starts, without a
//! place, and a column's with every record. Both are known from the text, so both are errors here. What is under a
//! condition (`CASE`, `coalesce`) may have no value, as it may never be asked for; only a cast of a literal never may.
//! Before it: the planner. After it: the flow's columns; what is executed is planned anew and goes no way of its own.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::{BinaryExpr, Case, Cast, InSubquery};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, Volatility};
use datafusion::sql::sqlparser::ast::Visit;

use super::places::{Met, Place};
use crate::diagnostic::{Diagnostic, code};
use crate::session::failure::words::plain_words;
use crate::types::{quoted, sql_type};

/// Returns `plan`, which `written` at `place` means, with all casts that it needs.
///
/// # Errors
/// What the analyzer says, all comparisons of unlike types, or all constants without a value.
pub(super) fn analyzed(
    plan: LogicalPlan,
    state: &SessionState,
    place: &Place<'_>,
    written: &impl Visit,
) -> Result<LogicalPlan, Vec<Diagnostic>> {
    let refused = |error: DataFusionError| place.planner_errors(&error, written);
    let mismatches = mismatches(&plan).map_err(refused)?;
    if !mismatches.is_empty() {
        return Err(mismatches.iter().map(|mismatch| mismatch.error(place, written)).collect());
    }
    let analyzed = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).map_err(refused)?;
    let casts = broken_casts(&analyzed, state).map_err(refused)?;
    if !casts.is_empty() {
        return Err(casts.iter().map(|cast| cast.error(place, written)).collect());
    }
    let constants = broken_constants(&analyzed, state).map_err(refused)?;
    if !constants.is_empty() {
        return Err(constants.iter().map(|cause| constant_error(cause, place, written)).collect());
    }
    // Whatever else would keep the flow from starting: what is found above has a better place.
    state.optimizer().optimize(analyzed.clone(), state, |_, _| {}).map_err(refused)?;
    Ok(analyzed)
}

/// A text that only the record knows, compared with what is no text: the text would be cast, and fail.
#[derive(Debug)]
struct Mismatch {
    /// The column in the text's expression.
    column: Option<Column>,
    /// Whether the column is all of it.
    is_column: bool,
    /// The type of what it is compared with.
    other: DataType,
    /// What it is compared with, where that is a literal.
    literal: Option<String>,
}

/// One side of a comparison.
struct Side<'a> {
    /// Absent where it is a subquery's column.
    expression: Option<&'a Expr>,
    data_type: DataType,
}

impl<'a> Side<'a> {
    /// Returns nothing where the type cannot be told, which the analyzer will say.
    fn of(expression: &'a Expr, schema: &DFSchema) -> Option<Self> {
        let data_type = expression.get_type(schema).ok()?;
        Some(Self { expression: Some(expression), data_type })
    }

    /// Tells whether it is a text that no constant is: a constant's cast is tried out.
    fn is_text_of_a_record(&self) -> bool {
        self.data_type.is_string() && !self.expression.is_some_and(is_constant)
    }

    fn is_no_text(&self) -> bool {
        self.data_type.is_numeric() || self.data_type.is_temporal() || self.data_type == DataType::Boolean
    }
}

impl Mismatch {
    fn between(one: Option<Side<'_>>, other: Option<Side<'_>>) -> Option<Self> {
        let (one, other) = (one?, other?);
        let (text, value) = match () {
            () if one.is_text_of_a_record() && other.is_no_text() => (one, other),
            () if other.is_text_of_a_record() && one.is_no_text() => (other, one),
            () => return None,
        };
        let literal = match value.expression {
            Some(Expr::Literal(literal, _)) => Some(literal.to_string()),
            _ => None,
        };
        let (column, is_column) = match text.expression {
            Some(Expr::Column(column) | Expr::OuterReferenceColumn(_, column)) => (Some(column.clone()), true),
            Some(expression) => (expression.column_refs().into_iter().min().cloned(), false),
            None => (None, false),
        };
        Some(Self { column, is_column, other: value.data_type, literal })
    }

    fn error(&self, place: &Place<'_>, written: &impl Visit) -> Diagnostic {
        let kind = match &self.other {
            DataType::Boolean => "a BOOLEAN",
            DataType::Date32 | DataType::Date64 => "a date",
            other if other.is_temporal() => "a time",
            _ => "a number",
        };
        let column = self.column.as_ref();
        let (message, operand) = match column.filter(|_| self.is_column) {
            Some(column) => (format!("'{}' is STRING and is compared with {kind}", column.name), quoted(&column.name)),
            None => (format!("a STRING is compared with {kind}"), "..".to_owned()),
        };
        let cast = format!("TRY_CAST({operand} AS {})", type_name(&self.other));
        let hint = match &self.literal {
            Some(literal) => format!("quote the literal, '{literal}', or write {cast}"),
            None => format!("write {cast}, which is NULL where the text is none"),
        };
        let span = column.map_or(place.span.clone(), |column| place.of_column(column, written));
        Diagnostic::new(code::UNLIKE, place.source, span, message).with_hint(hint)
    }
}

/// Returns the comparisons of unlike types in `plan`, which is not analyzed yet: no cast in it was put there.
fn mismatches(plan: &LogicalPlan) -> DfResult<Vec<Mismatch>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        if let LogicalPlan::Join(join) = node {
            for (left, right) in &join.on {
                found.extend(Mismatch::between(Side::of(left, &schema), Side::of(right, &schema)));
            }
        }
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                for (one, other) in compared(part) {
                    found.extend(Mismatch::between(Side::of(one, &schema), Side::of(other, &schema)));
                }
                if let Expr::InSubquery(InSubquery { expr, subquery, .. }) = part {
                    let listed = subquery.subquery.schema().fields().first();
                    let listed = listed.map(|field| Side { expression: None, data_type: field.data_type().clone() });
                    found.extend(Mismatch::between(Side::of(expr, &schema), listed));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Returns the pairs that `expression` itself compares.
fn compared(expression: &Expr) -> Vec<(&Expr, &Expr)> {
    match expression {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            vec![(left.as_ref(), right.as_ref())]
        }
        Expr::Between(between) => {
            vec![(between.expr.as_ref(), between.low.as_ref()), (between.expr.as_ref(), between.high.as_ref())]
        }
        Expr::InList(within) => within.list.iter().map(|item| (within.expr.as_ref(), item)).collect(),
        Expr::Case(Case { expr: Some(operand), when_then_expr, .. }) => {
            when_then_expr.iter().map(|(when, _)| (operand.as_ref(), when.as_ref())).collect()
        }
        _ => Vec::new(),
    }
}

fn is_comparison(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// A literal that is no value of the type that it is cast to.
#[derive(Debug)]
struct BrokenCast {
    /// As it is written, without quotes.
    text: String,
    is_text: bool,
    data_type: DataType,
}

impl BrokenCast {
    fn error(&self, place: &Place<'_>, written: &impl Visit) -> Diagnostic {
        let wanted = type_name(&self.data_type);
        let shown = if self.is_text { format!("'{}'", self.text) } else { self.text.clone() };
        let hint = match &self.data_type {
            DataType::Timestamp(_, Some(_)) => "write a time such as '2026-01-31T08:30:00Z'".to_owned(),
            DataType::Timestamp(_, None) => "write a time such as '2026-01-31T08:30:00'".to_owned(),
            DataType::Date32 | DataType::Date64 => "write a date such as '2026-01-31'".to_owned(),
            DataType::Boolean => "write true or false".to_owned(),
            other if other.is_numeric() => format!("write a number that {wanted} can hold"),
            _ => format!("write a value that {wanted} can hold"),
        };
        let span = place.of_literal(&self.text, written).unwrap_or(place.span.clone());
        let message = format!("{shown} cannot be read as {wanted}");
        Diagnostic::new(code::NO_VALUE, place.source, span, message).with_hint(hint)
    }
}

/// Returns the casts of literals in `plan` that fail, wherever they stand: the optimizer tries them all out.
fn broken_casts(plan: &LogicalPlan, state: &SessionState) -> DfResult<Vec<BrokenCast>> {
    let mut broken = Vec::new();
    each_expression(plan, |expression| {
        expression.apply(|part| {
            if let Expr::Cast(Cast { expr, field }) = part
                && let Expr::Literal(literal, _) = expr.as_ref()
                && !literal.is_null()
                && !literal.data_type().is_nested()
                && evaluate(part, state).is_err()
            {
                let (text, is_text) = literal_text(literal);
                broken.push(BrokenCast { text, is_text, data_type: field.data_type().clone() });
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(broken)
}

/// Returns a literal without quotes, and whether it has some.
fn literal_text(literal: &ScalarValue) -> (String, bool) {
    match literal {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            (text.clone(), true)
        }
        other => (other.to_string(), false),
    }
}

/// Returns why constants in `plan` have no value that are always asked for.
fn broken_constants(plan: &LogicalPlan, state: &SessionState) -> DfResult<Vec<DataFusionError>> {
    let mut broken = Vec::new();
    each_expression(plan, |expression| {
        expression.apply(|part| match part {
            Expr::Literal(..) | Expr::Column(_) | Expr::Case(_) | Expr::HigherOrderFunction(_) => {
                Ok(TreeNodeRecursion::Jump)
            }
            Expr::ScalarFunction(call) if call.func.short_circuits() => Ok(TreeNodeRecursion::Jump),
            constant if is_constant(constant) => {
                broken.extend(evaluate(constant, state).err());
                Ok(TreeNodeRecursion::Jump)
            }
            _ => Ok(TreeNodeRecursion::Continue),
        })
    })?;
    Ok(broken)
}

fn constant_error(cause: &DataFusionError, place: &Place<'_>, written: &impl Visit) -> Diagnostic {
    let why = plain_words(cause);
    let span = place.of_failure(&why, Met::Planning, written);
    let message = format!("a constant has no value: {why}");
    Diagnostic::new(code::NO_VALUE, place.source, span.unwrap_or(place.span.clone()), message)
        .with_label("would fail with every record")
        .with_hint("write what it is meant to be, or NULL")
}

/// Visits the expressions of all nodes of `plan`, those of subqueries too.
fn each_expression(
    plan: &LogicalPlan,
    mut visit: impl FnMut(&Expr) -> DfResult<TreeNodeRecursion>,
) -> DfResult<TreeNodeRecursion> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(&mut visit)?;
        Ok(TreeNodeRecursion::Continue)
    })
}

/// Tells whether `expression` has the same value for every record, and in every run.
fn is_constant(expression: &Expr) -> bool {
    matches!(expression.exists(|part| Ok(varies(part))), Ok(false))
}

/// Tells whether `part` of an expression has a value of its own that is not known from the text.
fn varies(part: &Expr) -> bool {
    match part {
        Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::BinaryExpr(_)
        | Expr::Like(_)
        | Expr::SimilarTo(_)
        | Expr::Not(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::TryCast(_)
        | Expr::InList(_) => false,
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        _ => true,
    }
}

/// Computes a constant and forgets what it is.
fn evaluate(constant: &Expr, state: &SessionState) -> DfResult<()> {
    let planned = state.create_physical_expr(constant.clone(), &DFSchema::empty())?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    planned.evaluate(&row).map(|_| ())
}

/// Returns the name of a type as it is declared: the planner compares times in nanoseconds, which no column has.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP_NTZ".to_owned(),
        other => sql_type(other),
    }
}
