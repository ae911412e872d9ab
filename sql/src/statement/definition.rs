//! The catalog's definitions as SQL text, so that they are compiled the same way as a file's statements.

use alluvium_catalog::{Column, Connection, OptionValue, Origin, Source, Table};

use super::string_literal;
use crate::types::quoted;

/// Returns the `CREATE CONNECTION` that defines `connection`.
pub(crate) fn connection_text(connection: &Connection) -> String {
    let options = connection.options.iter().map(|(key, value)| match value {
        OptionValue::Text(text) => format!("{} = {}", string_literal(key), string_literal(text)),
        OptionValue::Secret(secret) => format!("{} = {secret}", string_literal(key)),
    });
    format!("CREATE CONNECTION {} TYPE {} WITH ({})", quoted(connection.name.as_str()), connection.kind, list(options))
}

/// Returns the `CREATE SOURCE` that defines `source`.
pub(crate) fn source_text(source: &Source) -> String {
    let columns = source.columns.iter().map(|column| match &column.origin {
        Origin::Value => column_text(&column.column, ""),
        Origin::Metadata(key) => {
            let key = string_literal(&key.to_string());
            column_text(&column.column, &format!(" METADATA FROM {key}"))
        }
        Origin::Computed(expression) => format!("{} AS {expression}", quoted(&column.column.name)),
    });
    let options =
        source.options.iter().map(|(key, value)| format!("{} = {}", string_literal(key), string_literal(value)));
    format!(
        "CREATE SOURCE {} ({}){} WITH ({})",
        quoted(source.name.as_str()),
        list(columns),
        comment_text(source.comment.as_deref()),
        list(options)
    )
}

/// Returns the `CREATE STREAMING TABLE` that defines `table`.
pub(crate) fn table_text(table: &Table) -> String {
    let name = format!("{}.{}", quoted(table.name.schema()), quoted(table.name.table()));
    let mut text = format!("CREATE STREAMING TABLE {name}");
    let mut parts: Vec<String> = table.columns.iter().map(|column| column_text(column, "")).collect();
    if !table.primary_key.is_empty() {
        parts.push(format!("PRIMARY KEY ({}) NOT ENFORCED", list(table.primary_key.iter().map(|name| quoted(name)))));
    }
    if !parts.is_empty() {
        text += &format!(" ({})", list(parts));
    }
    if !table.partitioned_by.is_empty() {
        text += &format!(" PARTITIONED BY ({})", list(table.partitioned_by.iter().map(|name| quoted(name))));
    }
    match table.clustered_by.as_deref() {
        Some([]) => text += " CLUSTER BY NONE",
        Some(columns) => text += &format!(" CLUSTER BY ({})", list(columns.iter().map(|name| quoted(name)))),
        None => {}
    }
    text += &format!(" LOCATION {}", string_literal(&table.location.to_string()));
    text += &comment_text(table.comment.as_deref());
    if !table.properties.is_empty() {
        let properties = table.properties.iter();
        let properties = properties.map(|(key, value)| format!("{} = {}", string_literal(key), string_literal(value)));
        text += &format!(" TBLPROPERTIES ({})", list(properties));
    }
    text
}

fn column_text(column: &Column, origin: &str) -> String {
    let not_null = if column.nullable { "" } else { " NOT NULL" };
    let comment = comment_text(column.comment.as_deref());
    let tags = match column.tags.as_slice() {
        [] => String::new(),
        tags => format!(" TAGS ({})", list(tags.iter().map(|tag| quoted(tag)))),
    };
    format!("{} {}{not_null}{origin}{comment}{tags}", quoted(&column.name), column.data_type)
}

fn comment_text(comment: Option<&str>) -> String {
    comment.map(|comment| format!(" COMMENT {}", string_literal(comment))).unwrap_or_default()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}
