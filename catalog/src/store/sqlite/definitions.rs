//! Connections, sources, datasets and flows as rows.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer};
use sqlx::SqliteConnection;

use super::failure::Cause;
use crate::lineage::Definition;
use crate::store::FlowEntry;
use crate::{Connection, Dataset, DatasetKind, FlowVersion, Name, Source, Table, TableName};

type Result<T> = std::result::Result<T, Cause>;

/// Writes all of `definition` and returns the place of its flow version.
pub(super) async fn put(connection: &mut SqliteConnection, definition: &Definition) -> Result<u64> {
    put_connection(connection, &definition.connection).await?;
    put_source(connection, &definition.source).await?;
    put_table(connection, &definition.table).await?;
    put_flow(connection, &definition.flow).await
}

pub(super) async fn put_dataset(connection: &mut SqliteConnection, dataset: &Dataset) -> Result<()> {
    const PUT: &str = "INSERT INTO datasets
            (schema_name, table_name, kind, location, owner, description, tags_json, table_json)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        ON CONFLICT (schema_name, table_name) DO UPDATE SET
            kind = excluded.kind, location = excluded.location, owner = excluded.owner,
            description = excluded.description, tags_json = excluded.tags_json,
            table_json = COALESCE(excluded.table_json, datasets.table_json)";

    let table = dataset.table.as_ref().map(|table| to_json("table_json", table)).transpose()?;
    sqlx::query(PUT)
        .bind(dataset.name.schema())
        .bind(dataset.name.table())
        .bind(to_word("kind", &dataset.kind)?)
        .bind(dataset.location.to_string())
        .bind(dataset.owner.as_deref())
        .bind(dataset.description.as_deref())
        .bind(to_json("tags_json", &dataset.tags)?)
        .bind(table)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn connections(connection: &mut SqliteConnection) -> Result<Vec<Connection>> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT name, kind, options_json FROM connections ORDER BY name").fetch_all(connection).await?;
    rows.into_iter()
        .map(|(name, kind, options)| {
            Ok(Connection { name: from_text("name", name)?, kind, options: from_json("options_json", &options)? })
        })
        .collect()
}

pub(super) async fn sources(connection: &mut SqliteConnection) -> Result<Vec<Source>> {
    const SOURCES: &str =
        "SELECT name, connection, topic, columns_json, options_json, comment FROM sources ORDER BY name";

    let rows: Vec<SourceRow> = sqlx::query_as(SOURCES).fetch_all(connection).await?;
    rows.into_iter().map(SourceRow::into_source).collect()
}

/// Returns the dataset `name`, or all by name.
pub(super) async fn datasets(connection: &mut SqliteConnection, name: Option<&TableName>) -> Result<Vec<Dataset>> {
    const ALL: &str = "SELECT * FROM datasets ORDER BY schema_name, table_name";
    const ONE: &str = "SELECT * FROM datasets WHERE schema_name = ?1 AND table_name = ?2";

    let query = match name {
        None => sqlx::query_as(ALL),
        Some(name) => sqlx::query_as(ONE).bind(name.schema()).bind(name.table()),
    };
    let rows: Vec<DatasetRow> = query.fetch_all(connection).await?;
    rows.into_iter().map(DatasetRow::into_dataset).collect()
}

/// Returns the versions of the flow `name`, or of all, by flow and place.
pub(super) async fn flows(connection: &mut SqliteConnection, name: Option<&Name>) -> Result<Vec<FlowEntry>> {
    const ALL: &str = "SELECT * FROM flow_versions ORDER BY flow, seq";
    const ONE: &str = "SELECT * FROM flow_versions WHERE flow = ?1 ORDER BY seq";
    const INPUTS_OF_ALL: &str = "SELECT flow, seq, role, input FROM flow_inputs ORDER BY flow, seq, ordinal";
    const INPUTS_OF_ONE: &str = "SELECT flow, seq, role, input FROM flow_inputs WHERE flow = ?1 ORDER BY seq, ordinal";

    let (versions, inputs) = match name {
        None => (sqlx::query_as(ALL), sqlx::query_as(INPUTS_OF_ALL)),
        Some(name) => (sqlx::query_as(ONE).bind(name.as_str()), sqlx::query_as(INPUTS_OF_ONE).bind(name.as_str())),
    };
    let versions: Vec<FlowRow> = versions.fetch_all(&mut *connection).await?;
    let inputs: Vec<(String, i64, String, String)> = inputs.fetch_all(&mut *connection).await?;
    let mut inputs_of: BTreeMap<(String, i64), Vec<(String, String)>> = BTreeMap::new();
    for (flow, seq, role, input) in inputs {
        inputs_of.entry((flow, seq)).or_default().push((role, input));
    }
    let entry = |row: FlowRow| {
        let inputs = inputs_of.remove(&(row.flow.clone(), row.seq)).unwrap_or_default();
        row.into_entry(inputs)
    };
    versions.into_iter().map(entry).collect()
}

#[derive(sqlx::FromRow)]
struct SourceRow {
    name: String,
    connection: String,
    topic: String,
    columns_json: String,
    options_json: String,
    comment: Option<String>,
}

impl SourceRow {
    fn into_source(self) -> Result<Source> {
        Ok(Source {
            name: from_text("name", self.name)?,
            connection: from_text("connection", self.connection)?,
            topic: from_text("topic", self.topic)?,
            columns: from_json("columns_json", &self.columns_json)?,
            options: from_json("options_json", &self.options_json)?,
            comment: self.comment,
        })
    }
}

#[derive(sqlx::FromRow)]
struct DatasetRow {
    schema_name: String,
    table_name: String,
    kind: String,
    location: String,
    owner: Option<String>,
    description: Option<String>,
    tags_json: String,
    table_json: Option<String>,
}

impl DatasetRow {
    fn into_dataset(self) -> Result<Dataset> {
        Ok(Dataset {
            name: table_name(&self.schema_name, &self.table_name)?,
            kind: from_word("kind", &self.kind)?,
            location: from_text("location", self.location)?,
            owner: self.owner,
            description: self.description,
            tags: from_json("tags_json", &self.tags_json)?,
            table: self.table_json.map(|table| from_json("table_json", &table)).transpose()?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct FlowRow {
    flow: String,
    seq: i64,
    kind: String,
    schema_name: String,
    table_name: String,
    sql_text: String,
    sql_hash: String,
    file: String,
    line: i64,
}

impl FlowRow {
    fn into_entry(self, inputs: Vec<(String, String)>) -> Result<FlowEntry> {
        let mut source = None;
        let mut lookups = Vec::new();
        for (role, input) in inputs {
            match role.as_str() {
                STREAM => source = Some(from_text("input", input)?),
                LOOKUP => lookups.push(from_text("input", input)?),
                _ => return Err(Cause::damaged("role", format!("'{role}' is not a role"))),
            }
        }
        let version = FlowVersion {
            flow: from_text("flow", self.flow)?,
            kind: from_word("kind", &self.kind)?,
            source: source.ok_or_else(|| Cause::damaged("role", "the flow version has no source"))?,
            table: table_name(&self.schema_name, &self.table_name)?,
            lookups,
            sql: self.sql_text,
            sql_hash: self.sql_hash,
            file: self.file,
            line: to_count("line", self.line)?,
        };
        Ok(FlowEntry { seq: to_count("seq", self.seq)?, version })
    }
}

/// The role of a flow's source.
const STREAM: &str = "stream";

/// The role of a table that a flow looks up.
const LOOKUP: &str = "lookup";

pub(super) async fn put_connection(connection: &mut SqliteConnection, put: &Connection) -> Result<()> {
    const PUT: &str = "INSERT INTO connections (name, kind, options_json) VALUES (?1, ?2, ?3)
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, options_json = excluded.options_json";

    let query = sqlx::query(PUT).bind(put.name.as_str()).bind(&put.kind);
    query.bind(to_json("options_json", &put.options)?).execute(connection).await?;
    Ok(())
}

pub(super) async fn put_source(connection: &mut SqliteConnection, source: &Source) -> Result<()> {
    const PUT: &str = "INSERT INTO sources (name, connection, topic, columns_json, options_json, comment)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (name) DO UPDATE SET
            connection = excluded.connection, topic = excluded.topic, columns_json = excluded.columns_json,
            options_json = excluded.options_json, comment = excluded.comment";

    sqlx::query(PUT)
        .bind(source.name.as_str())
        .bind(source.connection.as_str())
        .bind(source.topic.as_str())
        .bind(to_json("columns_json", &source.columns)?)
        .bind(to_json("options_json", &source.options)?)
        .bind(source.comment.as_deref())
        .execute(connection)
        .await?;
    Ok(())
}

/// Registers a declared table; what people said of it stays.
async fn put_table(connection: &mut SqliteConnection, table: &Table) -> Result<()> {
    const PUT: &str = "INSERT INTO datasets
            (schema_name, table_name, kind, location, description, tags_json, table_json)
        VALUES (?1, ?2, ?3, ?4, ?5, '[]', ?6)
        ON CONFLICT (schema_name, table_name) DO UPDATE SET
            kind = excluded.kind, location = excluded.location, table_json = excluded.table_json,
            description = COALESCE(excluded.description, datasets.description)";

    sqlx::query(PUT)
        .bind(table.name.schema())
        .bind(table.name.table())
        .bind(to_word("kind", &DatasetKind::Delta)?)
        .bind(table.location.to_string())
        .bind(table.comment.as_deref())
        .bind(to_json("table_json", table)?)
        .execute(connection)
        .await?;
    Ok(())
}

async fn put_flow(connection: &mut SqliteConnection, flow: &FlowVersion) -> Result<u64> {
    const NEWEST: &str = "SELECT seq, sql_hash FROM flow_versions WHERE flow = ?1 ORDER BY seq DESC LIMIT 1";
    const ADD: &str = "INSERT INTO flow_versions
            (flow, seq, kind, schema_name, table_name, sql_text, sql_hash, file, line)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    const ADD_INPUT: &str = "INSERT INTO flow_inputs (flow, seq, ordinal, role, input) VALUES (?1, ?2, ?3, ?4, ?5)";

    let newest: Option<(i64, String)> =
        sqlx::query_as(NEWEST).bind(flow.flow.as_str()).fetch_optional(&mut *connection).await?;
    let seq = match newest {
        Some((seq, hash)) if hash == flow.sql_hash => return to_count("seq", seq),
        newest => newest.map_or(1, |(seq, _)| seq + 1),
    };
    sqlx::query(ADD)
        .bind(flow.flow.as_str())
        .bind(seq)
        .bind(to_word("kind", &flow.kind)?)
        .bind(flow.table.schema())
        .bind(flow.table.table())
        .bind(&flow.sql)
        .bind(&flow.sql_hash)
        .bind(&flow.file)
        .bind(from_count("line", flow.line)?)
        .execute(&mut *connection)
        .await?;
    let lookups = flow.lookups.iter().map(|table| (LOOKUP, table.to_string()));
    let inputs = std::iter::once((STREAM, flow.source.to_string())).chain(lookups);
    for (ordinal, (role, input)) in (0_i64..).zip(inputs) {
        let query = sqlx::query(ADD_INPUT).bind(flow.flow.as_str()).bind(seq).bind(ordinal).bind(role);
        query.bind(input).execute(&mut *connection).await?;
    }
    to_count("seq", seq)
}

pub(super) fn table_name(schema: &str, table: &str) -> Result<TableName> {
    TableName::try_new(schema, table).map_err(|source| Cause::damaged("table_name", source))
}

pub(super) fn to_json(column: &'static str, value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Cause::unstorable(column, source))
}

pub(super) fn from_json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| Cause::damaged(column, source))
}

pub(super) fn from_text<T: TryFrom<String, Error = crate::Error>>(column: &'static str, text: String) -> Result<T> {
    text.try_into().map_err(|source| Cause::damaged(column, source))
}

pub(super) fn to_count(column: &'static str, number: i64) -> Result<u64> {
    number.try_into().map_err(|source: std::num::TryFromIntError| Cause::damaged(column, source))
}

pub(super) fn from_count(column: &'static str, number: u64) -> Result<i64> {
    number.try_into().map_err(|source: std::num::TryFromIntError| Cause::unstorable(column, source))
}

/// Returns the word that serde writes for the variant of an enum.
fn to_word(column: &'static str, variant: &impl Serialize) -> Result<String> {
    match serde_json::to_value(variant).map_err(|source| Cause::unstorable(column, source))? {
        serde_json::Value::String(word) => Ok(word),
        _ => Err(Cause::unstorable(column, "the value is not a word")),
    }
}

fn from_word<T: DeserializeOwned>(column: &'static str, word: &str) -> Result<T> {
    let deserializer: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = word.into_deserializer();
    T::deserialize(deserializer).map_err(|source| Cause::damaged(column, source))
}
