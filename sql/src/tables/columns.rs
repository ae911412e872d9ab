//! The columns of a Delta table, in the order of their declaration and in the order of a scan.
//!
//! A data file holds the columns that the table is not partitioned by; the log holds the values of the others. A scan
//! therefore has the columns of the file first and the partition columns after them, whatever was declared.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::parquet::arrow::RowNumber;

/// The columns of a table.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    /// All, as declared.
    pub(super) declared: SchemaRef,
    /// Those of the data files, then those that the table is partitioned by.
    pub(super) scanned: TableSchema,
    /// The same, and the place of each row: the number of its file, and its own in that file.
    pub(super) placed: TableSchema,
    /// For each declared column its place in a scan.
    places: Vec<usize>,
}

impl Columns {
    /// Returns the columns `declared` of a table that is partitioned by `partitioned_by`.
    pub(super) fn new(declared: SchemaRef, partitioned_by: &[String]) -> Self {
        let is_partition = |field: &FieldRef| partitioned_by.contains(field.name());
        let in_files: Vec<FieldRef> = declared.fields().iter().filter(|field| !is_partition(field)).cloned().collect();
        let in_log: Vec<FieldRef> = declared.fields().iter().filter(|field| is_partition(field)).cloned().collect();
        let (mut next_in_file, mut next_in_log) = (0..in_files.len(), in_files.len()..declared.fields().len());
        let place = |field| if is_partition(field) { next_in_log.next() } else { next_in_file.next() };
        let places = declared.fields().iter().filter_map(place).collect();
        let unused = |name: &str| {
            let is_taken = |name: &String| declared.field_with_name(name).is_ok();
            std::iter::successors(Some(name.to_owned()), |name| Some(format!("{name}_"))).find(|name| !is_taken(name))
        };
        let place_of_row = |name, data_type| Field::new(unused(name).unwrap_or_default(), data_type, false);
        let file = Arc::new(place_of_row("_alluvium_file", DataType::UInt32));
        let row = Arc::new(place_of_row("_alluvium_row", DataType::Int64).with_extension_type(RowNumber));
        let in_files = Arc::new(Schema::new(in_files));
        let placed = TableSchema::builder(Arc::clone(&in_files))
            .with_table_partition_cols([&in_log[..], &[file]].concat())
            .with_virtual_columns(vec![row])
            .build();
        let scanned = TableSchema::builder(in_files).with_table_partition_cols(in_log).build();
        Self { declared, scanned, placed, places }
    }

    /// Returns the schema of the data files.
    pub(super) fn in_files(&self) -> &SchemaRef {
        self.scanned.file_schema()
    }

    /// Returns the schema of the partition columns.
    pub(super) fn in_log(&self) -> SchemaRef {
        Arc::new(Schema::new(self.scanned.table_partition_cols().clone()))
    }

    /// Returns the places in a scan of the declared columns `projection`, or of all.
    pub(super) fn places(&self, projection: Option<&Vec<usize>>) -> Vec<usize> {
        match projection {
            Some(wanted) => wanted.iter().map(|&index| self.places[index]).collect(),
            None => self.places.clone(),
        }
    }

    /// Returns the places in a scan of the declared columns `projection`, or of all, and of the columns that say where a
    /// row is.
    pub(super) fn places_and_rows(&self, projection: Option<&Vec<usize>>) -> Vec<usize> {
        let n_columns = self.scanned.table_schema().fields().len();
        let mut places = self.places(projection);
        places.extend(n_columns..self.placed.table_schema().fields().len());
        places
    }

    /// Tells whether a nested column has members that may not be NULL. Writers do not keep that in their files, so such a
    /// column needs more than a cast.
    pub(super) fn have_required_members(&self) -> bool {
        self.declared.fields().iter().any(|field| has_required_member(field.data_type()))
    }
}

fn has_required_member(data_type: &DataType) -> bool {
    let is_required = |field: &FieldRef| !field.is_nullable() || has_required_member(field.data_type());
    match data_type {
        DataType::Struct(fields) => fields.iter().any(is_required),
        DataType::List(element) => is_required(element),
        // The key of a map is never NULL, in files too.
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair.get(1).is_some_and(is_required),
            _ => true,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn partition_columns_stand_last_in_a_scan() {
        let field = |name| Field::new(name, DataType::Int64, true);
        let columns = Columns::new(
            Arc::new(Schema::new(vec![field("p"), field("a"), field("q"), field("b")])),
            &["q".to_owned(), "p".to_owned()],
        );
        let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        assert_eq!(names(columns.scanned.table_schema()), ["a", "b", "p", "q"]);
        assert_eq!(columns.places(None), [2, 0, 3, 1]);
        assert_eq!(columns.places(Some(&vec![3, 0])), [1, 2]);
        assert_eq!(
            (names(columns.in_files()), names(&columns.in_log())),
            (vec!["a".into(), "b".into()], vec!["p".into(), "q".into()])
        );
    }

    #[test]
    fn members_that_may_not_be_null_are_found_at_any_depth() {
        let check = |data_type: DataType, expected: bool| {
            let schema = Arc::new(Schema::new(vec![Field::new("a", data_type, false)]));
            assert_eq!(Columns::new(schema, &[]).have_required_members(), expected);
        };
        let member = |nullable| Field::new("m", DataType::Int64, nullable);
        check(DataType::Int64, false);
        check(DataType::Struct(vec![member(true)].into()), false);
        check(DataType::new_list(DataType::Struct(vec![member(true), member(false)].into()), true), true);
        check(DataType::new_list(DataType::Int64, false), true);
        let entries = |nullable| {
            let pair = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, nullable)];
            Arc::new(Field::new("entries", DataType::Struct(pair.into()), false))
        };
        check(DataType::Map(entries(true), false), false);
        check(DataType::Map(entries(false), false), true);
    }
}
