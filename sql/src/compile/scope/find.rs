//! Finds what statements name: in the files first, then in the catalog.

use std::sync::Arc;

use alluvium_catalog::{Connection, Name, TableName};
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::Ident;

use super::Scope;
use crate::compile::source::ResolvedSource;
use crate::compile::table::ResolvedTable;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, TextSpan, code};
use crate::parser::parse_file;
use crate::statement::{connection_text, source_text, table_text};

/// What to do when the catalog does not answer.
const CATALOG_HINT: &str = "the setting catalog (ALLUVIUM_CATALOG) says where the catalog is; can that be read?";

impl Scope<'_> {
    /// Returns a connection; reports one that is unknown, and returns `None` for that and for a broken one.
    pub(in crate::compile) async fn connection(
        &mut self,
        name: &Name,
        source: &Arc<SourceText>,
        span: TextSpan,
    ) -> Option<Connection> {
        if !self.connections.contains_key(name) {
            let found = self.names.connection(name).await;
            let found = self.asked(found, source, span.clone())?;
            let Some(connection) = found else {
                let known = self.connections.keys().map(Name::as_str);
                let message = format!("connection '{name}' is not defined");
                let diagnostic = Diagnostic::new(code::UNKNOWN_NAME, source, span, message);
                let hint =
                    format!("write CREATE CONNECTION {name} TYPE kafka WITH ('bootstrap.servers' = 'host:port')");
                let diagnostic = diagnostic.with_hint(hint).with_nearest(name.as_str(), known);
                self.report(diagnostic);
                // It keeps its name, so that it is reported once.
                self.connections.insert(name.clone(), None);
                return None;
            };
            self.define_text(&format!("catalog: connection {name}"), &connection_text(&connection));
        }
        self.connections.get(name).cloned().flatten()
    }

    /// Reports the unknown connections of sources that no flow reads.
    pub(in crate::compile) async fn check_sources(&mut self) {
        let sources: Vec<Arc<ResolvedSource>> = self.sources.values().flatten().cloned().collect();
        for source in sources {
            let span = source.settings.connection_span.clone();
            self.connection(&source.definition.connection, &source.text, span).await;
        }
    }

    /// Returns a source; reports one that is unknown, and returns `None` for that and for a broken one.
    pub(in crate::compile) async fn source(
        &mut self,
        ident: &Ident,
        source: &Arc<SourceText>,
        span: TextSpan,
    ) -> Option<Arc<ResolvedSource>> {
        let name = self.name(source, ident, "source")?;
        if !self.sources.contains_key(&name) {
            let found = self.names.source(&name).await;
            let found = self.asked(found, source, span.clone())?;
            let Some(definition) = found else {
                let known = self.sources.keys().map(Name::as_str);
                let message = format!("source '{name}' is not defined");
                let diagnostic = Diagnostic::new(code::UNKNOWN_NAME, source, span, message);
                let hint = format!("write CREATE SOURCE {name} (..) WITH ('connection' = '..', 'topic' = '..')");
                let diagnostic = diagnostic.with_hint(hint).with_nearest(name.as_str(), known);
                self.report(diagnostic);
                return None;
            };
            self.define_text(&format!("catalog: source {name}"), &source_text(&definition));
        }
        self.sources.get(&name).cloned().flatten()
    }

    /// Returns a declared table; reports one that is unknown, and returns `None` for that and for a broken one.
    pub(in crate::compile) async fn table(
        &mut self,
        name: &TableName,
        source: &Arc<SourceText>,
        span: TextSpan,
    ) -> Option<ResolvedTable> {
        if !self.tables.contains_key(name) {
            let found = self.names.table(name).await;
            let found = self.asked(found, source, span.clone())?;
            let Some(definition) = found else {
                let known: Vec<String> = self.tables.keys().map(ToString::to_string).collect();
                let message = format!("table '{name}' is not defined");
                let diagnostic = Diagnostic::new(code::UNKNOWN_NAME, source, span, message)
                    .with_hint(format!("write CREATE STREAMING TABLE {name} (..)"))
                    .with_nearest(&name.to_string(), known.iter().map(String::as_str));
                self.report(diagnostic);
                return None;
            };
            self.define_text(&format!("catalog: table {name}"), &table_text(&definition));
        }
        self.tables.get(name).cloned().flatten()
    }

    /// Returns the columns of a table that a query looks up; reports one that is unknown. A broken one gives `None`.
    pub(in crate::compile) async fn lookup_schema(
        &mut self,
        name: &TableName,
        source: &Arc<SourceText>,
        span: TextSpan,
    ) -> Option<SchemaRef> {
        if let Some(table) = self.tables.get(name) {
            let schema = table.as_ref()?.schema.clone();
            if schema.is_none() {
                let message = format!("table '{name}' has no columns yet");
                self.report(
                    Diagnostic::new(code::UNKNOWN_NAME, source, span, message).with_hint("declare its columns"),
                );
            }
            return schema;
        }
        let found = self.names.table_schema(name).await;
        if let Some(schema) = self.asked(found, source, span.clone())? {
            return Some(schema);
        }
        let mut known: Vec<String> = self.tables.keys().map(ToString::to_string).collect();
        let listed = self.names.datasets().await;
        known.extend(self.asked(listed, source, span.clone())?.iter().map(|dataset| dataset.name.to_string()));
        let written =
            if name.schema() == TableName::DEFAULT_SCHEMA { name.table().to_owned() } else { name.to_string() };
        let diagnostic = Diagnostic::new(code::UNKNOWN_NAME, source, span, format!("table '{written}' not found"));
        let diagnostic = if self.has_source(&written) {
            diagnostic.with_hint(format!("{written} is a source: write STREAM({written})"))
        } else {
            let hint =
                format!("write CREATE STREAMING TABLE {written} (..), or register it: alluvium catalog register");
            diagnostic.with_hint(hint).with_nearest(&written, known.iter().map(String::as_str))
        };
        self.report(diagnostic);
        None
    }

    pub(super) fn asked<T>(
        &mut self,
        answer: alluvium_catalog::Result<T>,
        source: &Arc<SourceText>,
        span: TextSpan,
    ) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                let message = format!("cannot ask the catalog: {}", error.chain());
                let diagnostic = Diagnostic::new(code::CATALOG, source, span, message);
                self.report(diagnostic.with_hint(error.hint().unwrap_or(CATALOG_HINT)));
                None
            }
        }
    }

    /// Defines what the catalog holds, as text.
    fn define_text(&mut self, name: &str, text: &str) {
        let source = Arc::new(SourceText::new(name, text));
        match parse_file(&source) {
            Ok(statements) => {
                let flows = self.define(vec![(source, statements)]);
                debug_assert!(flows.is_empty(), "definitions of the catalog are no flows");
            }
            Err(Diagnostics(diagnostics)) => self.diagnostics.extend(diagnostics),
        }
    }
}
