//! The columns of an upsert table: the declared ones, and the hidden ones that keep the order of its rows.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::{HIDDEN_OFFSET, HIDDEN_PARTITION, HIDDEN_SEQUENCE};
use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

/// The columns that an upsert table orders its rows by.
#[derive(Debug, Clone)]
pub struct UpsertColumns {
    /// The declared columns.
    pub declared: SchemaRef,
    /// The key columns.
    pub keys: Vec<String>,
    /// The types of the fields of SEQUENCE BY.
    pub sequence: Vec<DataType>,
    /// The text of SEQUENCE BY: values of another one say nothing beside those of this one.
    pub sequence_by: String,
    /// The stored columns that hold the sequence; `None` where the hidden column does.
    pub stored_sequence: Option<Vec<String>>,
}

impl UpsertColumns {
    /// Returns the table's columns: the declared ones, then the hidden ones.
    pub fn stored(&self) -> SchemaRef {
        let mut fields: Vec<Arc<Field>> = self.declared.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(HIDDEN_PARTITION, DataType::Int32, true)));
        fields.push(Arc::new(Field::new(HIDDEN_OFFSET, DataType::Int64, true)));
        if self.stored_sequence.is_none() {
            fields.push(Arc::new(Field::new(HIDDEN_SEQUENCE, self.hidden_sequence_type(), true)));
        }
        Arc::new(Schema::new(fields))
    }

    pub(super) fn hidden_sequence_type(&self) -> DataType {
        match &self.sequence[..] {
            [single] => single.clone(),
            several => DataType::Struct(sequence_fields(several)),
        }
    }

    /// Returns the value of the hidden sequence column.
    pub(super) fn hidden_sequence(&self, sequence: &[ArrayRef]) -> Result<ArrayRef> {
        if let [single] = sequence {
            return Ok(Arc::clone(single));
        }
        let fields = sequence_fields(&self.sequence);
        StructArray::try_new(fields, sequence.to_vec(), None)
            .map(|column| Arc::new(column) as ArrayRef)
            .map_err(|cause| Error::internal("cannot store SEQUENCE BY").with_source(cause))
    }
}

/// The fields of the hidden sequence column, `f0`, `f1`, ...
fn sequence_fields(types: &[DataType]) -> Fields {
    types.iter().enumerate().map(|(index, field)| Field::new(format!("f{index}"), field.clone(), true)).collect()
}
