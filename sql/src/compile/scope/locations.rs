//! Finds tables that would lie in each other's folders: two logs in one folder, or files that another table reads as its
//! own.
//!
//! It looks at the tables and dead-letter tables that the files define, in the order written, and then at what the catalog
//! has under other names.

use std::sync::Arc;

use alluvium_catalog::{Dataset, DatasetKind, Location, TableName};

use super::Scope;
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};
use crate::pipeline::ErrorMode;

/// A table and where it is to be.
struct Placed {
    name: TableName,
    location: Location,
    text: Arc<SourceText>,
    /// The LOCATION, or where there is none the name.
    span: TextSpan,
    is_dead_letters: bool,
}

impl Scope<'_> {
    /// Reports tables in, around or at the place of another, and dead-letter tables that are something else already.
    pub(in crate::compile) async fn check_locations(&mut self) {
        let placed = self.placed();
        let Some(first) = placed.first() else { return };
        let listed = self.names.datasets().await;
        let Some(registered) = self.asked(listed, &first.text, first.span.clone()) else { return };
        for (at, table) in placed.iter().enumerate() {
            let taken = registered.iter().find(|dataset| dataset.name == table.name).and_then(|it| table.taken(it));
            let earlier = placed[..at].iter().find_map(|other| {
                let clash = table.clash(&other.name, &other.location, "table")?;
                Some(clash.with_hint(table.advice(&format!("give {} another place", other.name))))
            });
            let known = || {
                let is_other = |dataset: &&Dataset| !placed.iter().any(|placed| placed.name == dataset.name);
                let mut others = registered.iter().filter(is_other);
                others.find_map(|other| {
                    let clash = table.clash(&other.name, &other.location, "registered dataset")?;
                    Some(clash.with_hint(table.advice(&format!("alluvium catalog forget {}", other.name))))
                })
            };
            if let Some(diagnostic) = taken.or(earlier).or_else(known) {
                self.report(diagnostic);
            }
        }
    }

    /// Returns the tables of the files, then the dead-letter tables of their sources, each once.
    fn placed(&self) -> Vec<Placed> {
        let tables = self.order.iter().filter_map(|name| self.tables.get(name)?.as_ref());
        let mut placed: Vec<Placed> = tables
            .map(|table| Placed {
                name: table.definition.name.clone(),
                location: table.definition.location.clone(),
                text: Arc::clone(&table.written.text),
                span: table.written.location_span.clone(),
                is_dead_letters: false,
            })
            .collect();
        for source in self.sources.values().flatten() {
            let ErrorMode::Log(name) = &source.settings.errors else { continue };
            // Where the name is that of another table, that is what is reported.
            if placed.iter().any(|known| known.name == *name) {
                continue;
            }
            let Ok(location) = self.warehouse.join(&format!("{}/{}", name.schema(), name.table())) else { continue };
            placed.push(Placed {
                name: name.clone(),
                location,
                text: Arc::clone(&source.text),
                span: source.settings.errors_span.clone(),
                is_dead_letters: true,
            });
        }
        placed
    }
}

impl Placed {
    /// Returns the error of lying at, in or around the table `other`.
    fn clash(&self, other: &TableName, place: &Location, what: &str) -> Option<Diagnostic> {
        if self.name == *other {
            return None;
        }
        let (name, location) = (&self.name, &self.location);
        let message = match (place.contains(location), location.contains(place)) {
            (true, true) => format!("table {name} would be at {location}, where {what} {other} is"),
            (true, false) => format!("table {name} would be at {location}, inside {what} {other} at {place}"),
            (false, true) => format!("table {name} would be at {location}, around {what} {other} at {place}"),
            (false, false) => return None,
        };
        Some(Diagnostic::new(code::SHARED_LOCATION, &self.text, self.span.clone(), message))
    }

    /// Says how the table gets a place of its own, or else `otherwise`.
    fn advice(&self, otherwise: &str) -> String {
        if self.is_dead_letters {
            return format!("name another 'error-handling.log.target', or {otherwise}");
        }
        format!("give it a LOCATION of its own (without one it is at <warehouse>/<schema>/<table>), or {otherwise}")
    }

    /// Returns the error of a name under which the catalog has something else.
    fn taken(&self, known: &Dataset) -> Option<Diagnostic> {
        let name = &self.name;
        let (message, hint) = match (self.is_dead_letters, known.kind) {
            (true, DatasetKind::Delta) if known.table.is_some() => {
                (format!("table {name} takes the rows of a flow and cannot take rejects"), "name another table")
            }
            (false, DatasetKind::DeadLetter) => {
                (format!("table {name} takes the rejects of a source and cannot hold other rows"), "name it otherwise")
            }
            (_, DatasetKind::Parquet | DatasetKind::Csv | DatasetKind::Json) => {
                (format!("{name} is registered as files at {}, not as a table", known.location), "name it otherwise")
            }
            _ => return None,
        };
        Some(Diagnostic::new(code::SHARED_TABLE, &self.text, self.span.clone(), message).with_hint(hint))
    }
}
