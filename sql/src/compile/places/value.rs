//! Finds the places of failures that come without one: of values, and of calls, literals and types that are refused.
//!
//! A message says what failed. Where one part of the text alone can have failed so, that is the place; of several none
//! is taken: a healthy one that is underlined misleads more than none. The types of columns are not known here.

mod cast;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query,
    Spanned, Value, ValueWithSpan, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use cast::{cast_type, casts, is_of_cast, type_word};

use super::Place;
use crate::diagnostic::TextSpan;
use crate::session::failure::words::{is_of_file, unquoted};

/// Shorter names of functions are words that messages use otherwise.
const FUNCTION_NAME_MIN: usize = 6;

/// When a failure was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    /// Before any row was read: what failed is written in the text.
    Planning,
    /// While rows were read: what could not be cast is a value of theirs.
    Running,
}

impl Place<'_> {
    /// Returns the place of what a failure is about, if only one can be meant: a call, a literal that `message` quotes,
    /// a cast, an operation, or the table whose file holds the value.
    pub(crate) fn of_failure(&self, message: &str, met: Met, planned: &impl Visit) -> Option<TextSpan> {
        if is_of_file(message) {
            return self.one(&tables(planned));
        }
        let called = function_name(message).map(|name| calls(planned, name, message)).unwrap_or_default();
        if !called.is_empty() {
            return self.one(&called);
        }
        let said = unquoted(message).to_lowercase();
        if said.starts_with("divide by zero") {
            return self.of_division(planned);
        }
        let is_of_cast = is_of_cast(&said);
        if is_of_cast && met == Met::Running {
            return self.of_cast(&said, planned);
        }
        let quoted = literals(planned, |value| is_quoted(value, message));
        if !quoted.is_empty() {
            return self.one(&quoted);
        }
        match () {
            () if is_of_cast => self.of_cast(&said, planned),
            () if said.contains("overflow") => {
                let operator = said.split_once(" on: ").and_then(|(_, operation)| operation.split(' ').nth(1));
                let is_meant = |op: &BinaryOperator| operator.is_none_or(|operator| op.to_string() == operator);
                self.only(planned, |expr| is_operation(expr, |op| is_arithmetic(op) && is_meant(op)))
            }
            () if said.contains("regular expression") || said.contains("regex") => {
                self.one(&expressions(planned, matched_by_pattern))
            }
            () => self.one(&expressions(planned, |expr| named_call(expr, &said))),
        }
    }

    /// Returns the place of a literal that is `text`, apart from quotes, if there is one alone.
    pub(in crate::compile) fn of_literal(&self, text: &str, planned: &impl Visit) -> Option<TextSpan> {
        self.one(&literals(planned, |value| match value {
            Value::SingleQuotedString(written) | Value::Number(written, _) => written == text,
            _ => false,
        }))
    }

    /// Returns the place of what the planner refuses in words of its own.
    pub(super) fn of_refusal(&self, message: &str, planned: &impl Visit) -> Option<TextSpan> {
        if let Some(written) = message.strip_prefix("unsupported SQL type ") {
            return self.of_type(written, planned);
        }
        if let Some((_, number)) = message.split_once(" out of bounds, specified: ") {
            return self.of_literal(number.split(',').next()?, planned);
        }
        let (_, predicate) = message.split_once("non-boolean predicate '")?;
        let column = predicate.split('\'').next()?.rsplit('.').next()?;
        self.one(&expressions(planned, |expr| (column_name(expr) == Some(column)).then(|| expr.span())))
    }

    /// Returns the place of a type that is written in one cast alone.
    fn of_type(&self, written: &str, planned: &impl Visit) -> Option<TextSpan> {
        let written = written.strip_prefix("(precision/scale not supported) ").unwrap_or(written);
        let name = written.split([' ', '(', '<']).next().filter(|name| !name.is_empty())?;
        let named = expressions(planned, |expr| match expr {
            Expr::Cast { data_type: DataType::Custom(custom, _), .. } if custom.to_string() == name => {
                Some(custom.span())
            }
            _ => None,
        });
        if !named.is_empty() {
            return self.one(&named);
        }
        // The types of the grammar have no place: it is the first word of that name behind what is cast.
        let operands = expressions(planned, |expr| match expr {
            Expr::Cast { expr: operand, data_type, .. } if data_type.to_string().contains(name) => Some(operand.span()),
            _ => None,
        });
        let operand = self.one(&operands)?;
        let behind = self.source.text().get(operand.end..)?.to_ascii_uppercase();
        let start = operand.end + behind.find(&name.to_ascii_uppercase())?;
        Some(start..start + name.len())
    }

    /// Returns the place at which a literal zero divides, or that of the only division.
    fn of_division(&self, planned: &impl Visit) -> Option<TextSpan> {
        let by_zero = expressions(planned, |expr| match expr {
            Expr::BinaryOp { op, right, .. } if is_division(op) && is_zero(right) => Some(expr.span()),
            _ => None,
        });
        if by_zero.is_empty() { self.only(planned, |expr| is_operation(expr, is_division)) } else { self.one(&by_zero) }
    }

    /// Returns the place of the only thing that casts to the type that `said` names: by a word, or by what it compares.
    fn of_cast(&self, said: &str, planned: &impl Visit) -> Option<TextSpan> {
        let wanted = cast_type(said);
        self.only(planned, |expr| casts(expr, wanted))
    }

    /// Returns the place of the one expression that `is_meant` tells; nothing where there are several.
    fn only(&self, planned: &impl Visit, is_meant: impl Fn(&Expr) -> bool) -> Option<TextSpan> {
        self.one(&expressions(planned, |expr| is_meant(expr).then(|| expr.span())))
    }

    fn one(&self, spans: &[Span]) -> Option<TextSpan> {
        match spans {
            [span] => self.source.range(*span),
            _ => None,
        }
    }
}

/// Returns what `find` finds in the expressions of `planned`.
fn expressions(planned: &impl Visit, find: impl Fn(&Expr) -> Option<Span>) -> Vec<Span> {
    struct Find<F> {
        find: F,
        found: Vec<Span>,
    }
    impl<F: Fn(&Expr) -> Option<Span>> Visitor for Find<F> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.found.extend((self.find)(expr));
            ControlFlow::Continue(())
        }
    }
    let mut find = Find { find, found: Vec::new() };
    let _ = planned.visit(&mut find);
    find.found
}

/// Returns the places of the literals that `is_meant` tells.
fn literals(planned: &impl Visit, is_meant: impl Fn(&Value) -> bool) -> Vec<Span> {
    struct Find<F> {
        is_meant: F,
        found: Vec<Span>,
    }
    impl<F: Fn(&Value) -> bool> Visitor for Find<F> {
        type Break = ();
        fn pre_visit_value(&mut self, literal: &ValueWithSpan) -> ControlFlow<()> {
            if (self.is_meant)(&literal.value) {
                self.found.push(literal.span);
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find { is_meant, found: Vec::new() };
    let _ = planned.visit(&mut find);
    find.found
}

/// Returns the places of the tables that `planned` reads; a query of its own that it names is none.
fn tables(planned: &impl Visit) -> Vec<Span> {
    #[derive(Default)]
    struct Find {
        named: Vec<(String, Span)>,
        queries: Vec<String>,
    }
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let with = query.with.iter().flat_map(|with| &with.cte_tables);
            self.queries.extend(with.map(|cte| cte.alias.name.to_string()));
            ControlFlow::Continue(())
        }
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            self.named.push((relation.to_string(), relation.span()));
            ControlFlow::Continue(())
        }
    }
    let mut find = Find::default();
    let _ = planned.visit(&mut find);
    let Find { named, queries } = find;
    named.into_iter().filter(|(name, _)| !queries.contains(name)).map(|(_, span)| span).collect()
}

/// Returns the calls of the function `name` that `message` can be about: those with the arguments that it speaks of, or
/// all where none has them.
fn calls(planned: &impl Visit, name: &str, message: &str) -> Vec<Span> {
    let all = |is_meant: &dyn Fn(&Function) -> bool| {
        expressions(planned, |expr| match expr {
            Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case(name) && is_meant(call) => {
                Some(call.name.span())
            }
            _ => None,
        })
    };
    let fitting = all(&|call: &Function| fits(call, message));
    if fitting.is_empty() { all(&|_: &Function| true) } else { fitting }
}

/// Tells whether `call` has the number of arguments, or arguments of the types, that `message` says were given.
fn fits(call: &Function, message: &str) -> bool {
    let arguments: &[FunctionArg] = match &call.args {
        FunctionArguments::List(list) => &list.args,
        _ => &[],
    };
    if let Some(n_given) = n_given(message) {
        return arguments.len() == n_given;
    }
    let types = message.split_once("takes no such arguments: ").and_then(|(_, call)| call.split_once('('));
    let Some((_, types)) = types else { return true };
    let types: Vec<&str> = types.trim_end_matches(')').split(", ").collect();
    types.len() == arguments.len() && arguments.iter().zip(types).all(|(argument, name)| may_have(argument, name))
}

/// Returns how many arguments `message` says were given.
fn n_given(message: &str) -> Option<usize> {
    if message.contains(" does not support zero arguments") {
        return Some(0);
    }
    let (_, given) = message.split_once("but received ")?;
    given.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// Tells whether an argument can have a type, as far as its text says.
fn may_have(argument: &FunctionArg, data_type: &str) -> bool {
    let (FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
    | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }
    | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(expr), .. }) = argument
    else {
        return true;
    };
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }) => data_type == "STRING",
        Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => data_type != "STRING",
        Expr::Cast { data_type: written, .. } => type_word(written) == data_type.to_lowercase(),
        _ => true,
    }
}

/// Returns the function that a message of the planner's is about.
fn function_name(message: &str) -> Option<&str> {
    let begun = ["function '", "the function '", "'"].into_iter().find_map(|begin| message.strip_prefix(begin))?;
    begun.split_once('\'').map(|(name, _)| name)
}

/// Returns the place of a call whose name is a word of `said`.
fn named_call(expr: &Expr, said: &str) -> Option<Span> {
    let Expr::Function(call) = expr else { return None };
    let name = call.name.to_string().to_lowercase();
    let mut words = said.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    (name.len() >= FUNCTION_NAME_MIN && words.any(|word| word == name)).then(|| call.name.span())
}

/// Returns the place of what takes a regular expression.
fn matched_by_pattern(expr: &Expr) -> Option<Span> {
    use BinaryOperator::{PGRegexIMatch, PGRegexMatch, PGRegexNotIMatch, PGRegexNotMatch};
    match expr {
        Expr::Function(call) if call.name.to_string().to_lowercase().starts_with("regexp") => Some(call.name.span()),
        Expr::BinaryOp { op: PGRegexMatch | PGRegexIMatch | PGRegexNotMatch | PGRegexNotIMatch, .. }
        | Expr::SimilarTo { .. } => Some(expr.span()),
        _ => None,
    }
}

fn is_quoted(value: &Value, message: &str) -> bool {
    match value {
        Value::SingleQuotedString(written) => {
            message.contains(&format!("'{written}'")) || message.contains(&format!("\"{written}\""))
        }
        _ => false,
    }
}

/// Returns the name of a column, apart from its table's.
fn column_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(ident) => Some(&ident.value),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.as_str()),
        _ => None,
    }
}

fn is_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            digits.chars().all(|digit| matches!(digit, '0' | '.'))
        }
        _ => false,
    }
}

fn is_operation(expr: &Expr, is_meant: impl Fn(&BinaryOperator) -> bool) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if is_meant(op))
}

fn is_division(operator: &BinaryOperator) -> bool {
    matches!(operator, BinaryOperator::Divide | BinaryOperator::Modulo)
}

fn is_arithmetic(operator: &BinaryOperator) -> bool {
    matches!(operator, BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply) || is_division(operator)
}
