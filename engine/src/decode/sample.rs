//! Flows and batches for tests, made by hand: the compiler is another crate's business.

use std::collections::BTreeMap;
use std::time::Duration;

use alluvium_catalog::{
    Column, Connection, Definition, Error, FlowKind, FlowVersion, MetadataKey, Offset, OffsetRange, Origin, Partition,
    Result, Source, SourceColumn, Span, Table,
};
use alluvium_sql::{BatchLimits, Change, ErrorMode, Flow, KeyFormat, RecordLimits, Startup, sql_type};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::{ast, dialect::GenericDialect, parser::Parser};

use crate::hop::{Fetched, Headers, Record, Records};

/// A column of a source: name, type, whether it may be null, and what it is filled from where not from the value.
pub(crate) type Declared = (&'static str, DataType, bool, Option<MetadataKey>);

/// Returns a value column that may be null.
pub(crate) fn value(name: &'static str, data_type: DataType) -> Declared {
    (name, data_type, true, None)
}

/// Returns the type `TIMESTAMP`.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Returns a flow that adds the rows of a source with `columns`.
pub(crate) fn append_flow(columns: &[Declared]) -> Result<Flow> {
    let fields = columns.iter().map(|(name, data_type, nullable, _)| Field::new(*name, data_type.clone(), *nullable));
    let source_schema = SchemaRef::new(Schema::new(fields.collect::<Fields>()));
    Ok(Flow {
        definition: definition(columns)?,
        table_schema: SchemaRef::clone(&source_schema),
        source_schema,
        computed: Vec::new(),
        change: Change::Append,
        query: query()?,
        lookups: Vec::new(),
        startup: Startup::Earliest,
        errors: ErrorMode::Fail,
        limits: RecordLimits::default(),
        key_format: KeyFormat::Json { fields: Vec::new() },
        batch: BatchLimits::default(),
        tombstone_retention: Duration::from_secs(1),
        upsert: alluvium_sql::UpsertOptions::default(),
    })
}

/// Returns a flow that keeps one row a key, whose tombstones carry their key in `key_format`.
pub(crate) fn upsert_flow(columns: &[Declared], key_format: KeyFormat) -> Result<Flow> {
    let keys = match &key_format {
        KeyFormat::Json { fields } => fields.clone(),
        KeyFormat::Raw { field } => vec![field.clone()],
    };
    let change = Change::Upsert { keys, sequence: Vec::new(), delete_when: None, stored_sequence: None };
    Ok(Flow { change, key_format, ..append_flow(columns)? })
}

/// Returns records of partition 3 with these values, their offsets from 100 on, and the given key and headers.
pub(crate) fn fetched(values: &[Option<&[u8]>], key: Option<&[u8]>, headers: &Headers) -> Result<Fetched> {
    let mut records = Records::default();
    let mut next = Offset(100);
    for value in values {
        let record =
            Record { partition: Partition(3), offset: next, timestamp_ms: Some(1_767_225_600_123), key, value: *value };
        records.push(record, headers.clone());
        next = next.succ();
    }
    let mut span = Span::new();
    let range = OffsetRange { first: Offset(100), next, records: 0 };
    span.extend(Partition(3), range).map_err(|misfit| Error::internal(misfit.to_string()))?;
    Ok(Fetched { records, span, took: Duration::from_millis(7) })
}

fn query() -> Result<ast::Query> {
    let statements =
        Parser::parse_sql(&GenericDialect {}, "SELECT 1").map_err(|error| Error::internal(error.to_string()))?;
    match statements.into_iter().next() {
        Some(ast::Statement::Query(query)) => Ok(*query),
        other => Err(Error::internal(format!("not a query: {other:?}"))),
    }
}

fn definition(columns: &[Declared]) -> Result<Definition> {
    let columns = columns.iter().map(|(name, data_type, nullable, metadata)| SourceColumn {
        column: Column {
            name: (*name).to_owned(),
            data_type: sql_type(data_type),
            nullable: *nullable,
            comment: None,
            tags: Vec::new(),
        },
        origin: metadata.clone().map_or(Origin::Value, Origin::Metadata),
    });
    Ok(Definition {
        connection: Connection { name: "shop".parse()?, kind: "kafka".to_owned(), options: BTreeMap::new() },
        source: Source {
            name: "orders_raw".parse()?,
            connection: "shop".parse()?,
            topic: "shop.orders".parse()?,
            columns: columns.collect(),
            options: BTreeMap::new(),
            comment: None,
        },
        table: Table {
            name: "silver.orders".parse()?,
            location: "memory:///orders".parse()?,
            columns: Vec::new(),
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            clustered_by: None,
            comment: None,
            properties: BTreeMap::new(),
        },
        flow: FlowVersion {
            flow: "orders_upsert".parse()?,
            kind: FlowKind::Append,
            source: "orders_raw".parse()?,
            table: "silver.orders".parse()?,
            lookups: Vec::new(),
            sql: "SELECT 1".to_owned(),
            sql_hash: "cafe".to_owned(),
            file: "orders.sql".to_owned(),
            line: 1,
        },
    })
}
