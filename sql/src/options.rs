//! The options of connections, sources, flows and tables: their names, meanings, defaults and values.
//!
//! Every option is known here or refused, with the nearest known name: a misspelt option that is silently ignored is the
//! most expensive kind. A credential is a reference or an error.

mod connection;
mod delta;
mod flow;
mod reading;
mod source;
mod table;
mod tuning;
pub(crate) mod units;

pub(crate) use connection::connection_options;
pub(crate) use flow::batch_limits;
pub(crate) use source::{SourceSettings, WrittenKeyFormat, source_settings};
pub(crate) use table::{OF_UPSERTS, TableSettings, kept_upsert_options, table_settings};

/// An option that exists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Its key.
    pub(crate) key: &'static str,
    /// What it means if it is not given.
    pub(crate) default: Option<&'static str>,
    /// What it is and which values it has.
    pub(crate) doc: &'static str,
}

/// An option that librdkafka or Delta knows, and why nobody may set it here.
pub(crate) type Owned = (&'static str, &'static str);

#[cfg(test)]
mod tests;
