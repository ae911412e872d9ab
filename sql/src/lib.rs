//! What a query or a transform means: the dialect, its compiler, the session that reads tables, and the REPL.
//!
//! ```text
//! file --parser--> Statement --compile--> Pipeline { Flow, .. } --Transform--> rows of the table
//! REPL --parser--> Statement --session--> rows on the screen
//! ```
//! One parser and one executor serve files and REPL. This crate never talks to Kafka and never writes a table.

mod visible;
pub mod diagnostic;
pub mod statement;
mod parser;
mod types;
mod scan_by;
mod options;
mod compile;
mod sequence;
pub mod pipeline;
pub mod transform;
pub mod locate;
pub mod tables;
mod time_travel;
mod unread;
mod system;
pub mod session;
pub mod repl;

pub use compile::{Compiler, Definitions, Names};
pub use diagnostic::{Diagnostic, Diagnostics, SourceText, unreadable};
pub use parser::{parse_file, parse_statements};
pub use pipeline::{
    BatchLimits, Change, ErrorMode, Flow, HIDDEN_OFFSET, HIDDEN_OVER_ROW, HIDDEN_PARTITION, HIDDEN_SEQUENCE, KeyFormat,
    Pipeline, RecordLimits, RewriteCap, RewritePolicy, Startup, UpsertMode, UpsertOptions,
};
pub use sequence::{sequence_of_flow, sequence_text};
pub use session::Session;
pub use tables::{OpenTable, TableReader};
pub use transform::{Shaped, Transform};
pub use types::{arrow_type, sql_type};
