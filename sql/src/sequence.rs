//! SEQUENCE BY as fields and as text. By the text, versions of a flow are told apart that order changes otherwise.

use datafusion::sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

use crate::parser::parse_statements;
use crate::statement::{FlowAction, Statement};

/// Returns the text of SEQUENCE BY with these fields.
pub fn sequence_text(fields: &[Expr]) -> String {
    fields.iter().map(Expr::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the text of SEQUENCE BY of a flow whose statement is `sql`; `None` where that is no AUTO CDC flow, or cannot
/// be read.
pub fn sequence_of_flow(sql: &str) -> Option<String> {
    let statements = parse_statements(sql).ok()?;
    statements.iter().find_map(|statement| {
        let Statement::CreateFlow(flow) = &statement.value else { return None };
        let FlowAction::AutoCdc(cdc) = &flow.action else { return None };
        cdc.sequence_by.as_ref().map(|written| sequence_text(&sequence_fields(&written.value)))
    })
}

/// Returns `a, b` of `struct(a, b)` and `(a, b)`, and any other expression as it is.
pub(crate) fn sequence_fields(written: &Expr) -> Vec<Expr> {
    let unnamed = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    };
    match written {
        Expr::Struct { values, fields } if fields.is_empty() => values.clone(),
        Expr::Tuple(values) => values.clone(),
        Expr::Nested(inner) => sequence_fields(inner),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("struct") => match &function.args {
            FunctionArguments::List(list) => {
                let fields: Option<Vec<Expr>> = list.args.iter().map(unnamed).collect();
                fields.unwrap_or_else(|| vec![written.clone()])
            }
            _ => vec![written.clone()],
        },
        other => vec![other.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_fields_however_they_are_written() {
        let text = |sequence: &str| {
            sequence_of_flow(&format!(
                "CREATE FLOW f AS AUTO CDC INTO t FROM STREAM(s) KEYS (id) SEQUENCE BY {sequence} STORED AS SCD TYPE 1"
            ))
        };
        for (written, expected) in [
            ("a", "a"),
            ("(a)", "a"),
            ("struct(a, b)", "a, b"),
            ("(a,  b)", "a, b"),
            ("a  +  b", "a + b"),
            ("a * b", "a * b"),
        ] {
            assert_eq!(text(written).as_deref(), Some(expected), "{written}");
        }
        assert_eq!(sequence_of_flow("CREATE FLOW f AS INSERT INTO t BY NAME SELECT id FROM STREAM(s)"), None);
        assert_eq!(sequence_of_flow("text"), None);
    }
}
