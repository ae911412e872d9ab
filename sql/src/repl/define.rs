//! Keeps in the catalog what is typed: connections and sources. Tables and flows are the business of files that run.
//!
//! A definition goes the way of a file's: the compiler reads and checks it. Secrets are references by then; a literal
//! one was refused.

use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Connection, Error, Name, Result, Source};

use crate::compile::{Compiler, Definitions};
use crate::diagnostic::{SourceText, nearest};
use crate::statement::Statement;

/// What a definition says of one that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// There is none.
    Absent,
    /// `OR REPLACE`
    Replaced,
    /// `IF NOT EXISTS`
    Kept,
}

/// Defines the connection or source of `statement`, all of `text`, and returns what was done, for people. `None` where
/// the statement defines neither.
///
/// # Errors
/// `Invalid` when the definition is wrong, exists already, or names a connection that does not; what the catalog says.
pub(super) async fn define(
    compiler: &Compiler,
    catalog: &dyn CatalogStore,
    text: &Arc<SourceText>,
    statement: &Statement,
) -> Result<Option<String>> {
    let (or_replace, if_not_exists) = match statement {
        Statement::CreateConnection(written) => (written.or_replace, written.if_not_exists),
        Statement::CreateSource(written) => (written.or_replace, written.if_not_exists),
        _ => return Ok(None),
    };
    let Definitions { connections, sources, .. } = compiler.definitions(std::slice::from_ref(text))?;
    let mut done = Vec::new();
    for connection in &connections {
        let is_known = catalog.connections().await?.iter().any(|known| known.name == connection.name);
        let before = before("connection", &connection.name, is_known, (or_replace, if_not_exists))?;
        done.push(put_connection(catalog, connection, before).await?);
    }
    for source in &sources {
        let is_known = catalog.sources().await?.iter().any(|known| known.name == source.name);
        let before = before("source", &source.name, is_known, (or_replace, if_not_exists))?;
        done.push(put_source(catalog, source, before).await?);
    }
    Ok(Some(done.join("\n")))
}

fn before(what: &str, name: &Name, is_known: bool, (or_replace, if_not_exists): (bool, bool)) -> Result<Before> {
    match (is_known, or_replace, if_not_exists) {
        (false, _, _) => Ok(Before::Absent),
        (true, true, _) => Ok(Before::Replaced),
        (true, false, true) => Ok(Before::Kept),
        (true, false, false) => Err(Error::invalid(format!("{what} {name} exists already"))
            .with_hint(format!("write CREATE OR REPLACE {}", what.to_uppercase()))),
    }
}

async fn put_connection(catalog: &dyn CatalogStore, connection: &Connection, before: Before) -> Result<String> {
    if before != Before::Kept {
        catalog.put_connection(connection).await?;
    }
    Ok(told("connection", &connection.name, before))
}

async fn put_source(catalog: &dyn CatalogStore, source: &Source, before: Before) -> Result<String> {
    let known = catalog.connections().await?;
    if !known.iter().any(|connection| connection.name == source.connection) {
        let error = Error::invalid(format!(
            "source {} names connection {}, which is not there",
            source.name, source.connection
        ));
        return Err(
            match nearest(source.connection.as_str(), known.iter().map(|connection| connection.name.as_str())) {
                Some(hint) => error.with_hint(hint),
                None => error.with_hint("create the connection first"),
            },
        );
    }
    if before != Before::Kept {
        catalog.put_source(source).await?;
    }
    Ok(told("source", &source.name, before))
}

fn told(what: &str, name: &Name, before: Before) -> String {
    match before {
        Before::Absent => format!("{what} {name} created"),
        Before::Replaced => format!("{what} {name} replaced"),
        Before::Kept => format!("{what} {name} exists already and was kept"),
    }
}
