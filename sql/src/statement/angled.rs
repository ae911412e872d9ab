//! Shows types as the dialect writes them: sqlparser shows `MAP<K, V>` as `Map(K, V)`, which the dialect does not read.

use std::fmt::Display;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, Ident, ObjectName, StructField, VisitMut, VisitorMut,
};

/// Returns `node` as text, with all types in it as [`type_text`] writes them.
pub(super) fn text<T: Display + Clone + VisitMut>(node: &T) -> String {
    let mut node = node.clone();
    let _ = node.visit(&mut Angles);
    node.to_string()
}

/// Returns a type as text.
pub(super) fn type_text(data_type: &DataType) -> String {
    angled(data_type).to_string()
}

struct Angles;

impl VisitorMut for Angles {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { data_type, .. } => *data_type = angled(data_type),
            Expr::TypedString(typed) => typed.data_type = angled(&typed.data_type),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Returns a type that shows itself with angle brackets. It is for showing only: a map has become a name.
fn angled(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Map(key, value) => {
            let name = format!("MAP<{}, {}>", angled(key), angled(value));
            DataType::Custom(ObjectName::from(vec![Ident::new(name)]), Vec::new())
        }
        DataType::Array(ArrayElemTypeDef::AngleBracket(item)) => {
            DataType::Array(ArrayElemTypeDef::AngleBracket(Box::new(angled(item))))
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(item, size)) => {
            DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(angled(item)), *size))
        }
        DataType::Struct(fields, brackets) => {
            let field = |field: &StructField| StructField { field_type: angled(&field.field_type), ..field.clone() };
            DataType::Struct(fields.iter().map(field).collect(), *brackets)
        }
        other => other.clone(),
    }
}
