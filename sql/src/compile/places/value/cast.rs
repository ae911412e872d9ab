//! Which expressions cast a value to the type that a message names: by a word, by what they compare, or on their own.

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, DataType, Expr, Value, ValueWithSpan};

use super::column_name;

/// Functions that never answer with a text, so that a number beside them casts nothing.
const NUMBERS: [&str; 7] = ["count", "sum", "avg", "length", "char_length", "abs", "round"];

/// Tells whether `said`, which is lowercase and without quotes, is about a value that could not be cast.
pub(super) fn is_of_cast(said: &str) -> bool {
    let casts = ["cannot cast", "can't cast", "failed to cast", "parsing ", "to store in a decimal"];
    casts.iter().any(|part| said.contains(part))
}

/// Returns the first word of the type that a value could not be cast to, lowercase.
pub(super) fn cast_type(said: &str) -> Option<&str> {
    /// Types whose texts have a parser, which names itself.
    const PARSED: [&str; 4] = ["timestamp", "date", "time", "interval"];
    let word = |text: &str| text.find(|char: char| !char.is_ascii_alphanumeric()).unwrap_or(text.len());
    let behind = [" to value of ", " to type ", "cannot cast to ", " to store in a "].into_iter();
    let mut named = behind.filter_map(|before| said.split_once(before).map(|(_, rest)| &rest[..word(rest)]));
    let parsed = || said.split_once("parsing ").map(|(_, rest)| &rest[..word(rest)]);
    let name = named.next().or_else(|| parsed().filter(|name| PARSED.contains(name)))?;
    // Messages about digits spell out the width.
    Some(if name.starts_with("decimal") { "decimal" } else { name })
}

/// Returns the first word of a type as messages spell it, lowercase.
pub(super) fn type_word(data_type: &DataType) -> String {
    let written = data_type.to_string().to_lowercase();
    let word = written.split([' ', '(', '<']).next().unwrap_or_default();
    let spelt = match word {
        "integer" | "int4" => "int",
        "int8" => "bigint",
        "int2" => "smallint",
        "real" | "float4" => "float",
        "float8" => "double",
        "numeric" | "dec" => "decimal",
        "bool" => "boolean",
        "varchar" | "text" | "char" => "string",
        "timestamp_ntz" | "timestamptz" | "datetime" => "timestamp",
        other => other,
    };
    spelt.to_owned()
}

/// Tells whether `expr` casts what is not of that type to `wanted`, as far as the text says.
pub(super) fn casts(expr: &Expr, wanted: Option<&str>) -> bool {
    casts_to(expr, wanted) || compares_unlike(expr, wanted) || reads_time(expr, wanted)
}

fn casts_to(expr: &Expr, wanted: Option<&str>) -> bool {
    match expr {
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, .. } => {
            wanted.is_none_or(|wanted| type_word(data_type) == wanted)
        }
        _ => false,
    }
}

/// Tells whether `expr` compares what can be a text with what is none, or columns that can differ in type: that casts.
fn compares_unlike(expr: &Expr, wanted: Option<&str>) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    let unlike = |one: &Expr, other: &Expr| {
        let columns = column_name(one).zip(column_name(other));
        (may_be_text(one) && is_of_type(other, wanted))
            || (may_be_text(other) && is_of_type(one, wanted))
            || columns.is_some_and(|(one, other)| one != other)
    };
    match expr {
        Expr::BinaryOp { left, op: Eq | NotEq | Lt | LtEq | Gt | GtEq, right } => unlike(left, right),
        Expr::Between { expr, low, high, .. } => unlike(expr, low) || unlike(expr, high),
        Expr::InList { expr, list, .. } => list.iter().any(|item| unlike(expr, item)),
        _ => false,
    }
}

/// Tells whether `expr` is a literal that a text beside it is cast to `wanted` for.
fn is_of_type(expr: &Expr, wanted: Option<&str>) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => {
            wanted.is_none_or(|wanted| matches!(wanted, "bigint" | "double" | "decimal"))
        }
        Expr::TypedString(typed) => wanted.is_none_or(|wanted| type_word(&typed.data_type) == wanted),
        _ => false,
    }
}

fn may_be_text(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => may_be_text(inner),
        Expr::BinaryOp { op, .. } => *op == BinaryOperator::StringConcat,
        Expr::Function(call) => !NUMBERS.contains(&call.name.to_string().to_lowercase().as_str()),
        Expr::Value(_) | Expr::TypedString(_) | Expr::Cast { .. } | Expr::UnaryOp { .. } | Expr::Extract { .. } => {
            false
        }
        _ => true,
    }
}

/// Tells whether `expr` calls a function of times, which read texts on their own.
fn reads_time(expr: &Expr, wanted: Option<&str>) -> bool {
    let is_time = matches!(wanted, Some("timestamp" | "date" | "time"));
    match expr {
        Expr::Function(call) if is_time => {
            let name = call.name.to_string().to_lowercase();
            name.contains("date") || name.contains("time")
        }
        _ => false,
    }
}
