//! Keeps what is typed, in the catalog and in the warehouse's registry: connections and sources. Tables and flows are the
//! business of files that run.
//!
//! A definition goes the way of a file's: the compiler reads and checks it. Secrets are references by then; a literal
//! one was refused.

use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Error, Location, Name, Registry, Result, Source, Stores};

use crate::compile::{Compiler, Definitions};
use crate::diagnostic::{SourceText, nearest};
use crate::statement::Statement;

/// How definitions are understood, and where they are written beside the catalog's own record.
#[derive(Debug)]
pub(super) struct Defining {
    pub(super) compiler: Compiler,
    pub(super) stores: Stores,
    pub(super) warehouse: Location,
}

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
/// `Invalid` when the definition is wrong, exists already, or names a connection that does not; what the catalog and the
/// warehouse's store say.
pub(super) async fn define(
    defining: &Defining,
    catalog: &dyn CatalogStore,
    text: &Arc<SourceText>,
    statement: &Statement,
) -> Result<Option<String>> {
    let (or_replace, if_not_exists) = match statement {
        Statement::CreateConnection(written) => (written.or_replace, written.if_not_exists),
        Statement::CreateSource(written) => (written.or_replace, written.if_not_exists),
        _ => return Ok(None),
    };
    let Definitions { connections, sources, .. } = defining.compiler.definitions(std::slice::from_ref(text))?;
    let mut done = Vec::new();
    for connection in &connections {
        let is_known = catalog.connections().await?.iter().any(|known| known.name == connection.name);
        let before = before("connection", &connection.name, is_known, (or_replace, if_not_exists))?;
        if before != Before::Kept {
            defining.registry()?.put_connection(connection).await?;
            catalog.put_connection(connection).await?;
        }
        done.push(told("connection", &connection.name, before));
    }
    for source in &sources {
        let is_known = catalog.sources().await?.iter().any(|known| known.name == source.name);
        let before = before("source", &source.name, is_known, (or_replace, if_not_exists))?;
        check_connection(catalog, source).await?;
        if before != Before::Kept {
            defining.registry()?.put_source(source).await?;
            catalog.put_source(source).await?;
        }
        done.push(told("source", &source.name, before));
    }
    Ok(Some(done.join("\n")))
}

impl Defining {
    /// Returns the warehouse's registry. It is written first: from it the catalog's record can be made again.
    fn registry(&self) -> Result<Registry> {
        Ok(Registry::new(self.stores.open(&self.warehouse)?))
    }
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

/// Refuses a source whose connection is not there.
async fn check_connection(catalog: &dyn CatalogStore, source: &Source) -> Result<()> {
    let known = catalog.connections().await?;
    if known.iter().any(|connection| connection.name == source.connection) {
        return Ok(());
    }
    let error =
        Error::invalid(format!("source {} names connection {}, which is not there", source.name, source.connection));
    Err(match nearest(source.connection.as_str(), known.iter().map(|connection| connection.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error.with_hint("create the connection first"),
    })
}

fn told(what: &str, name: &Name, before: Before) -> String {
    match before {
        Before::Absent => format!("{what} {name} created"),
        Before::Replaced => format!("{what} {name} replaced"),
        Before::Kept => format!("{what} {name} exists already and was kept"),
    }
}
