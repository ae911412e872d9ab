//! Finds out which keys a query asks for: filters that leave, for every key column, a few values.
//!
//! Only what is certain counts: a column itself beside literals of its own type, `=`, `IN` and `OR` of these, and a BOOLEAN
//! column or its negation as a condition. Whatever else a filter does, it stays in the plan, so that the keys found here may
//! be too many but never too few.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// The most keys that are looked up for one query; a scan reads more of them in one go.
const KEYS_MAX: usize = 32;

/// Returns the keys, a row each, that rows which match `filters` can have; `None` where the filters leave a key column of
/// `names` open, or allow too many.
pub(super) fn keys_of(filters: &[Expr], names: &[String], schema: &Schema) -> Option<RecordBatch> {
    if names.is_empty() {
        return None;
    }
    let mut keys: Vec<Vec<ScalarValue>> = vec![Vec::new()];
    for name in names {
        let field = schema.field_with_name(name).ok()?;
        let column = KeyColumn { name, data_type: field.data_type() };
        let values = filters.iter().find_map(|filter| column.values(filter))?;
        if keys.len() * values.len() > KEYS_MAX {
            return None;
        }
        let with = |key: &Vec<ScalarValue>, value: &ScalarValue| [key.as_slice(), std::slice::from_ref(value)].concat();
        keys = keys.iter().flat_map(|key| values.iter().map(move |value| with(key, value))).collect();
    }
    let mut columns = Vec::with_capacity(names.len());
    let mut fields = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let column = ScalarValue::iter_to_array(keys.iter().map(|key| key[index].clone())).ok()?;
        fields.push(Field::new(name, column.data_type().clone(), false));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()
}

/// A key column that is looked for in filters.
#[derive(Clone, Copy)]
struct KeyColumn<'a> {
    name: &'a str,
    data_type: &'a DataType,
}

impl KeyColumn<'_> {
    /// Returns the values, each once, that the column has in all rows that match `filter`; `None` where it can have any.
    fn values(self, filter: &Expr) -> Option<Vec<ScalarValue>> {
        let mut values = match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => vec![self.equal(left, right)?],
            // What is left of `column = TRUE` and of `column = FALSE` in a plan that was simplified.
            Expr::Column(_) if self.is_condition(filter) => vec![ScalarValue::from(true)],
            Expr::Not(negated) if self.is_condition(negated) => vec![ScalarValue::from(false)],
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.values(left).or_else(|| self.values(right))?
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                [self.values(left)?, self.values(right)?].concat()
            }
            Expr::InList(list) if !list.negated && self.is(&list.expr) && list.list.len() <= KEYS_MAX => {
                list.list.iter().map(|item| self.literal(item)).collect::<Option<_>>()?
            }
            _ => return None,
        };
        let mut index = 0;
        while index < values.len() {
            let is_known = values[..index].contains(&values[index]);
            if is_known {
                values.swap_remove(index);
            } else {
                index += 1;
            }
        }
        (values.len() <= KEYS_MAX).then_some(values)
    }

    fn equal(self, left: &Expr, right: &Expr) -> Option<ScalarValue> {
        match (self.is(left), self.is(right)) {
            (true, false) => self.literal(right),
            (false, true) => self.literal(left),
            _ => None,
        }
    }

    fn is(self, expression: &Expr) -> bool {
        matches!(expression, Expr::Column(column) if column.name == self.name)
    }

    fn is_condition(self, expression: &Expr) -> bool {
        *self.data_type == DataType::Boolean && self.is(expression)
    }

    /// Returns the value of a literal that is compared with the column as it is. A value of another type is compared by
    /// rules of its own, and NULL with nothing at all.
    fn literal(self, expression: &Expr) -> Option<ScalarValue> {
        let value = match expression {
            Expr::Literal(value, _) => value.clone(),
            Expr::Cast(cast) => match cast.expr.as_ref() {
                Expr::Literal(value, _) => value.cast_to(cast.field.data_type()).ok()?,
                _ => return None,
            },
            _ => return None,
        };
        let value = match (self.data_type, value) {
            (DataType::Utf8, ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text)) => ScalarValue::Utf8(text),
            (_, value) => value,
        };
        let is_sure = !value.is_null() && !self.data_type.is_floating() && !self.data_type.is_nested();
        (is_sure && value.data_type() == *self.data_type).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use datafusion::prelude::{col, lit};

    use super::*;

    fn schema() -> Schema {
        let zone = Some("UTC".into());
        Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("part", DataType::Int32, false),
            Field::new("name", DataType::Utf8, false),
            Field::new("price", DataType::Decimal128(18, 2), false),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, zone), false),
            Field::new("weight", DataType::Float64, false),
            Field::new("is_on", DataType::Boolean, false),
        ])
    }

    /// Checks the keys over `names` that `filters` leave, each as text.
    fn check(filters: &[Expr], names: &[&str], expected: Option<&[&str]>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = keys_of(filters, &names, &schema()).map(|keys| {
            let cell = |row, column: &arrow::array::ArrayRef| {
                arrow::util::display::array_value_to_string(column, row).unwrap_or_default()
            };
            let line = |row| keys.columns().iter().map(|column| cell(row, column)).collect::<Vec<_>>().join(" ");
            (0..keys.num_rows()).map(line).collect::<Vec<_>>()
        });
        let expected = expected.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected, "{filters:?}");
    }

    #[test]
    fn equalities_of_every_key_column_make_a_key() {
        let id = || col("id").eq(lit(7_i64));
        check(&[id()], &["id"], Some(&["7"]));
        check(&[lit(7_i64).eq(col("id"))], &["id"], Some(&["7"]));
        check(&[col("name").eq(lit("x")), id()], &["id"], Some(&["7"]));
        check(&[id().and(col("name").eq(lit("x ")))], &["id", "name"], Some(&["7 x "]));
        check(&[id()], &["id", "name"], None);
        check(&[id()], &[], None);
        check(&[col("id").gt(lit(7_i64))], &["id"], None);
        check(&[col("id").not_eq(lit(7_i64))], &["id"], None);
        check(&[col("id").eq(col("part"))], &["id"], None);
    }

    #[test]
    fn lists_and_alternatives_make_several_each_once() {
        let one_of = |values: std::ops::Range<i64>| col("id").in_list(values.map(lit).collect(), false);
        check(&[one_of(1..4)], &["id"], Some(&["1", "2", "3"]));
        check(&[col("id").eq(lit(1_i64)).or(col("id").eq(lit(2_i64))).or(one_of(1..3))], &["id"], Some(&["1", "2"]));
        check(
            &[one_of(1..3), col("part").in_list(vec![lit(8), lit(9)], false)],
            &["id", "part"],
            Some(&["1 8", "1 9", "2 8", "2 9"]),
        );
        check(&[one_of(0..33)], &["id"], None);
        check(&[one_of(0..7), col("part").in_list((0..7).map(lit).collect(), false)], &["id", "part"], None);
        check(&[col("id").in_list(vec![lit(1_i64)], true)], &["id"], None);
        check(&[col("id").eq(lit(1_i64)).or(col("part").eq(lit(2)))], &["id"], None);
    }

    #[test]
    fn a_truth_value_is_a_condition_itself() {
        check(&[col("is_on")], &["is_on"], Some(&["true"]));
        check(&[!col("is_on")], &["is_on"], Some(&["false"]));
        check(&[col("is_on").eq(lit(false))], &["is_on"], Some(&["false"]));
        check(&[!col("is_on"), col("id").eq(lit(7_i64))], &["id", "is_on"], Some(&["7 false"]));
        check(&[col("is_on").or(!col("is_on"))], &["is_on"], Some(&["true", "false"]));
        check(&[col("is_on").or(col("id").eq(lit(7_i64)))], &["is_on"], None);
        check(&[!col("is_on").eq(lit(true))], &["is_on"], None);
        check(&[col("id")], &["id"], None);
        check(&[col("is_on")], &["id"], None);
    }

    #[test]
    fn only_values_of_the_columns_own_type_count() {
        check(&[col("id").eq(lit(7_i32))], &["id"], None);
        check(&[col("id").eq(lit(ScalarValue::Int64(None)))], &["id"], None);
        check(&[col("id").in_list(vec![lit(1_i64), lit(ScalarValue::Int64(None))], false)], &["id"], None);
        check(&[col("weight").eq(lit(1.5))], &["weight"], None);
        let price = |scale| col("price").eq(lit(ScalarValue::Decimal128(Some(1_050), 18, scale)));
        check(&[price(2)], &["price"], Some(&["10.50"]));
        check(&[price(3)], &["price"], None);
        let at =
            |zone: Option<&str>| col("at").eq(lit(ScalarValue::TimestampMicrosecond(Some(1), zone.map(Into::into))));
        check(&[at(None)], &["at"], None);
        check(&[at(Some("+02:00"))], &["at"], None);
        assert!(keys_of(&[at(Some("UTC"))], &["at".to_owned()], &schema()).is_some());
        check(&[col("name").eq(lit(ScalarValue::Utf8View(Some("a ".to_owned()))))], &["name"], Some(&["a "]));
        let cast = |value: Expr, to| datafusion::logical_expr::cast(value, to);
        check(&[col("id").eq(cast(lit(7_i32), DataType::Int64))], &["id"], Some(&["7"]));
        check(&[cast(col("id"), DataType::Int32).eq(lit(7_i32))], &["id"], None);
    }
}
