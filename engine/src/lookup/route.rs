//! `GET /v1/lookup?table=silver.orders&key={"order_id":7}`: where the row of a key is, by a key index of this process.
//!
//! `key` may come several times, up to [`KEYS_MAX`]; `version` is the newest version that the asker has seen, and lets a
//! request wait for a commit that is landing. Whatever is wrong with a request is said with a 4xx; 503 means that the
//! index cannot tell at the moment.

use alluvium_catalog::{Error, ErrorKind, Result, TableName};
use alluvium_sql::locate::Located;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::json;
use uuid::Uuid;

use super::answer::Answer;
use super::{Lookups, keys, located};

/// The most keys of a request.
pub(super) const KEYS_MAX: usize = 64;

/// The longest query of a request.
pub(super) const QUERY_BYTES_MAX: usize = 32_768;

/// What a request says.
#[derive(Debug, Default)]
struct Asked {
    table: Option<TableName>,
    keys: Vec<String>,
    version: u64,
}

/// Why there is no answer.
enum Refusal {
    /// Something is wrong with the request.
    Request(Error),
    /// No flow of this process upserts into the table.
    Unknown(TableName),
    /// The index cannot tell now.
    Busy(TableName),
    /// The engine failed.
    Engine(Error),
}

/// Answers the request whose query is `query`, as `run`.
pub(crate) async fn lookup(lookups: &Lookups, run: Uuid, query: &str) -> Response {
    let (status, error) = match find(lookups, query).await {
        Ok(located) => return axum::Json(Answer::new(run, located)).into_response(),
        Err(Refusal::Request(error)) => (StatusCode::BAD_REQUEST, error.chain()),
        Err(Refusal::Unknown(table)) => {
            (StatusCode::NOT_FOUND, format!("no flow of this process upserts into {table}"))
        }
        Err(Refusal::Busy(table)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the key index of {table} cannot tell at the moment"))
        }
        Err(Refusal::Engine(error)) => {
            tracing::error!(error = %error.chain(), "a look-up failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "the look-up failed; the log says why".to_owned())
        }
    };
    (status, axum::Json(json!({ "error": error }))).into_response()
}

async fn find(lookups: &Lookups, query: &str) -> std::result::Result<Located, Refusal> {
    let asked = parse(query).map_err(Refusal::Request)?;
    let Some(table) = asked.table else {
        return Err(Refusal::Request(Error::invalid("the request names no table: add table=schema.table")));
    };
    let Some(lookup) = lookups.of_table(&table) else { return Err(Refusal::Unknown(table)) };
    if asked.keys.is_empty() {
        let names: Vec<&str> = lookup.keys().map(|(name, _)| name).collect();
        let names = names.join(", ");
        return Err(Refusal::Request(Error::invalid(format!("the request has no key of {table}, made of {names}"))));
    }
    let columns = keys::from_texts(&asked.keys, lookup.keys()).map_err(Refusal::Request)?;
    match lookup.find(&columns, asked.version).await {
        Ok(Some(found)) => Ok(located(lookup.table_id(), found)),
        Ok(None) => Err(Refusal::Busy(table)),
        // A value that its type holds and a key does not, such as a decimal of too many digits.
        Err(error) if error.kind() == ErrorKind::Data => Err(Refusal::Request(error)),
        Err(error) => Err(Refusal::Engine(error)),
    }
}

fn parse(query: &str) -> Result<Asked> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid(format!("the query has {} bytes, {QUERY_BYTES_MAX} are allowed", query.len())));
    }
    let mut asked = Asked::default();
    for member in query.split('&').filter(|member| !member.is_empty()) {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        match name.as_str() {
            "table" if asked.table.is_some() => return Err(Error::invalid("the request names two tables")),
            "table" => asked.table = Some(value.parse()?),
            "key" if asked.keys.len() == KEYS_MAX => {
                return Err(Error::invalid(format!("the request has more than {KEYS_MAX} keys")));
            }
            "key" => asked.keys.push(value),
            "version" => {
                let number = value.parse();
                asked.version = number.map_err(|_| Error::invalid(format!("'{value}' is not a version")))?;
            }
            _ => return Err(Error::invalid(format!("'{name}' is none of table, key and version"))),
        }
    }
    Ok(asked)
}

/// Returns what a name or value of a query stands for. Bytes that are no text are refused: replaced by a sign that
/// stands for any of them, they would ask for another key.
fn decoded(text: &str) -> Result<String> {
    match percent_decode_str(&text.replace('+', " ")).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(cause) => Err(Error::invalid(format!("'{text}' does not stand for UTF-8")).with_source(cause)),
    }
}

#[cfg(test)]
mod tests;
