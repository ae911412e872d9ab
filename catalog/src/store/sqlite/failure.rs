//! What can go wrong between the catalog and SQLite, and who has to act on it.

use sqlx::migrate::MigrateError;

use crate::{Error, ErrorKind};

/// Why a statement or a row failed; [`Cause::at`] says where.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] sqlx::Error),
    /// A stored value is not what this program writes.
    #[error("column {column} is not what it should be")]
    Damaged { column: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// A value cannot be stored.
    #[error("column {column} cannot hold the value")]
    Unstorable { column: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Cause {
    pub(super) fn damaged(column: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Damaged { column, source: source.into() }
    }

    pub(super) fn unstorable(
        column: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unstorable { column, source: source.into() }
    }

    /// Turns the cause into this program's error about the catalog at `place`.
    pub(super) fn at(self, place: &str) -> Error {
        match self {
            Self::Sqlite(source) => failed(place, "use", source),
            Self::Damaged { .. } => damaged(place).with_source(self),
            Self::Unstorable { .. } => Error::internal(format!("cannot write catalog {place}")).with_source(self),
        }
    }
}

/// Turns what SQLite said when it was asked to `verb` the catalog at `place` into this program's error.
pub(super) fn failed(place: &str, verb: &str, source: sqlx::Error) -> Error {
    match kind_of(&source) {
        ErrorKind::Data => damaged(place).with_source(source),
        kind => Error::new(kind, format!("cannot {verb} catalog {place}")).with_source(source),
    }
}

pub(super) fn migration_failed(place: &str, source: MigrateError) -> Error {
    match source {
        MigrateError::VersionMissing(version) => {
            let known = super::MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
            Error::invalid(format!(
                "catalog {place} has schema {version}, newer than {known}, which this program knows"
            ))
            .with_hint("use the program that wrote it, or a newer one")
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => failed(place, "open", source),
        other => damaged(place).with_source(other),
    }
}

fn damaged(place: &str) -> Error {
    Error::data(format!("catalog {place} is damaged or is not a catalog"))
        .with_hint("move the file away and run 'alluvium catalog rebuild': the tables hold all that flows wrote")
}

fn kind_of(error: &sqlx::Error) -> ErrorKind {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<i32>().ok());
            code.map_or(ErrorKind::Internal, kind_of_code)
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => ErrorKind::Unavailable,
        sqlx::Error::PoolClosed => ErrorKind::Closed,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Data,
        _ => ErrorKind::Internal,
    }
}

/// Returns who has to act on SQLite's result `code` (<https://www.sqlite.org/rescode.html>).
fn kind_of_code(code: i32) -> ErrorKind {
    // The low byte is the primary result code; the rest says more about it.
    match code & 0xff {
        // SQLITE_PERM, _READONLY, _CANTOPEN, _AUTH
        3 | 8 | 14 | 23 => ErrorKind::Invalid,
        // SQLITE_BUSY, _LOCKED, _IOERR, _FULL, _PROTOCOL
        5 | 6 | 10 | 13 | 15 => ErrorKind::Unavailable,
        // SQLITE_CORRUPT, _NOTADB
        11 | 26 => ErrorKind::Data,
        _ => ErrorKind::Internal,
    }
}
