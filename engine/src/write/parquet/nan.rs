//! Which columns of floats hold a NaN: these get no bounds.
//!
//! The bounds of parquet leave NaN out, and queries order it above all numbers: by its bounds, a file or page of 1 and NaN
//! would be skipped for `x > 10`, though NaN matches. So the encoders write no statistics for such a column, and the Delta log
//! has no bounds of it.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use parquet::schema::types::ColumnPath;

/// Returns the columns of `rows`, members of structs included, that hold a NaN. Elements of lists and maps are left out: no
/// filter is held against their bounds.
pub(in crate::write) fn columns_with_nan(rows: &RecordBatch) -> HashSet<ColumnPath> {
    let mut found = HashSet::new();
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        collect(column.as_ref(), vec![field.name().clone()], &mut found);
    }
    found
}

fn collect(column: &dyn Array, path: Vec<String>, found: &mut HashSet<ColumnPath>) {
    let has_nan = match column.data_type() {
        DataType::Float32 => holds(column.as_primitive::<Float32Type>(), f32::is_nan),
        DataType::Float64 => holds(column.as_primitive::<Float64Type>(), f64::is_nan),
        DataType::Struct(fields) => {
            for (field, member) in fields.iter().zip(column.as_struct().columns()) {
                let mut path = path.clone();
                path.push(field.name().clone());
                collect(member.as_ref(), path, found);
            }
            false
        }
        _ => false,
    };
    if has_nan {
        found.insert(ColumnPath::new(path));
    }
}

/// Tells whether a value that is not NULL is NaN.
fn holds<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, is_nan: fn(T::Native) -> bool) -> bool {
    // What lies behind a NULL may be NaN, too, so only where there is one are the NULLs looked at.
    values.values().iter().copied().any(is_nan) && values.iter().flatten().any(is_nan)
}
