//! The definitions of the flows that write a table, kept in the table itself: one property a flow, so that flows of one
//! table do not take each other's away.
//!
//! They survive log clean-up, so a lost catalog is written again from the tables alone, and they tell which flow keeps an
//! upsert table, and by which key. Pure.
//!
//! Before it: [`create`](super::create) has loaded the table. After it: [`land`](super::land) writes what is missing.

use std::collections::{BTreeMap, BTreeSet};

use alluvium_catalog::{Definition, Error, FlowKind, FlowVersion, Location, Name, Result};
use alluvium_sql::sequence_of_flow;

use crate::delta::action::Metadata;

/// What the properties begin with; under this very name, one flow's definition was kept before each had its own.
const PROPERTY: &str = "alluvium.definition";

/// Returns the property that holds the definition of `flow`.
pub fn property_of(flow: &Name) -> String {
    format!("{PROPERTY}.{flow}")
}

/// Returns the definitions that a table's properties hold, by flow.
///
/// # Errors
/// `Data` when one cannot be read.
pub fn held(properties: &BTreeMap<String, String>, location: &Location) -> Result<Vec<Definition>> {
    let of_flow = format!("{PROPERTY}.");
    let mut definitions: BTreeMap<Name, Definition> = BTreeMap::new();
    // The shared property comes first and gives way to a flow's own.
    for (key, text) in properties.range(PROPERTY.to_owned()..).take_while(|(key, _)| key.starts_with(PROPERTY)) {
        if key != PROPERTY && !key.starts_with(&of_flow) {
            continue;
        }
        let definition: Definition = serde_json::from_str(text).map_err(|source| {
            Error::data(format!("cannot read the property {key} of the table at {location}")).with_source(source)
        })?;
        definitions.insert(definition.flow.flow.clone(), definition);
    }
    Ok(definitions.into_values().collect())
}

/// Tells whether two definitions say the same, wherever the files lie that they were read from.
pub fn same(one: &Definition, other: &Definition) -> bool {
    let placeless = |definition: &Definition| Definition {
        flow: FlowVersion { file: String::new(), line: 0, ..definition.flow.clone() },
        ..definition.clone()
    };
    placeless(one) == placeless(other)
}

/// Tells whether the table holds a definition of the flow, be it another one.
pub(super) fn is_held(metadata: &Metadata, definition: &Definition) -> bool {
    metadata.configuration.contains_key(&property_of(&definition.flow.flow))
}

/// Returns `metadata` with `definition`; `None` when it holds the same already. An AUTO CDC flow takes the place of
/// another one, which [`check_keeper`] says whether it may.
pub(super) fn with_definition(metadata: &Metadata, definition: &Definition) -> Option<Metadata> {
    let key = property_of(&definition.flow.flow);
    // What cannot be read is written again.
    let read = |text: &String| serde_json::from_str::<Definition>(text).ok();
    if metadata.configuration.get(&key).and_then(read).is_some_and(|held| same(&held, definition)) {
        return None;
    }
    let text = serde_json::to_string(definition).ok()?;
    let mut metadata = metadata.clone();
    let of_flow = format!("{PROPERTY}.");
    metadata.configuration.retain(|key, text| {
        let held = (key == PROPERTY || key.starts_with(&of_flow)).then(|| read(text)).flatten();
        let is_ours = |held: &Definition| key == PROPERTY && held.flow.flow == definition.flow.flow;
        let is_replaced = |held: &Definition| {
            held.flow.flow != definition.flow.flow
                && [held, definition].iter().all(|one| one.flow.kind == FlowKind::AutoCdc)
        };
        !held.is_some_and(|held| is_ours(&held) || is_replaced(&held))
    });
    metadata.configuration.insert(key, text);
    Some(metadata)
}

/// Checks that `definition` changes a table with these properties as it was changed so far: an upsert table has one row
/// a key, under one key.
///
/// # Errors
/// `Invalid`, naming the key that the table is kept by; `Data` when a definition cannot be read.
pub fn check_key(definition: &Definition, properties: &BTreeMap<String, String>, at: &Location) -> Result<()> {
    let (flow, names) = (&definition.flow.flow, |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>());
    for held in upserts(properties, at)? {
        let (keeper, key) = (&held.flow.flow, held.table.primary_key.join(", "));
        if definition.flow.kind == FlowKind::Append {
            return Err(Error::invalid(format!(
                "the table at {at} has one row a key ({key}) by flow {keeper} (AUTO CDC), and flow {flow} appends to it"
            ))
            .with_hint("append to another table"));
        }
        if names(&held.table.primary_key) != names(&definition.table.primary_key) {
            return Err(Error::invalid(format!(
                "the table at {at} has one row a key ({key}) by flow {keeper}, and flow {flow} says PRIMARY KEY ({})",
                definition.table.primary_key.join(", ")
            ))
            .with_hint(format!(
                "rows under the old key would stay: set PRIMARY KEY and KEYS back to ({key}), or write into another \
                 table or LOCATION, which is filled from the topic's start"
            )));
        }
    }
    Ok(())
}

/// Checks that `definition`, whose SEQUENCE BY has its values in a hidden column, orders changes as the rows of a table
/// with these properties are ordered: the values that they have are not computed anew.
///
/// # Errors
/// `Invalid`, naming both orders; `Data` when a definition cannot be read.
pub fn check_sequence(definition: &Definition, properties: &BTreeMap<String, String>, at: &Location) -> Result<()> {
    let flow = &definition.flow.flow;
    let Some(now) = sequence_of_flow(&definition.flow.sql) else { return Ok(()) };
    for held in upserts(properties, at)? {
        let (keeper, former) = (&held.flow.flow, sequence_of_flow(&held.flow.sql));
        if let Some(former) = former.filter(|former| *former != now) {
            return Err(Error::invalid(format!(
                "rows of the table at {at} are ordered by SEQUENCE BY {former} of flow {keeper}, and flow {flow} says \
                 SEQUENCE BY {now}"
            ))
            .with_hint(format!(
                "rows keep the values of {former}, which do not compare with those of {now}: set SEQUENCE BY back to \
                 {former}, or write into another table or LOCATION, which is filled from the topic's start"
            )));
        }
    }
    Ok(())
}

/// Checks that no other flow keeps an upsert table with these properties.
///
/// # Errors
/// `Invalid`, naming who keeps the table; `Data` when a definition cannot be read.
pub fn check_keeper(definition: &Definition, properties: &BTreeMap<String, String>, at: &Location) -> Result<()> {
    let flow = &definition.flow.flow;
    let Some(held) = upserts(properties, at)?.into_iter().find(|held| held.flow.flow != *flow) else { return Ok(()) };
    let keeper = &held.flow.flow;
    Err(Error::invalid(format!(
        "the table at {at} is kept by flow {keeper} (AUTO CDC), so flow {flow} cannot write it"
    ))
    .with_hint(format!(
        "call the flow {keeper} again, or give it a table of its own; or, where {keeper} has stopped for good, let \
             {flow} take the table over: start it once with --accept-source {flow}"
    )))
}

/// Returns the AUTO CDC definitions that a table's properties hold.
fn upserts(properties: &BTreeMap<String, String>, at: &Location) -> Result<Vec<Definition>> {
    let mut held = held(properties, at)?;
    held.retain(|held| held.flow.kind == FlowKind::AutoCdc);
    Ok(held)
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::ErrorKind;
    use serde_json::json;

    use super::*;

    fn definition(flow: &str, kind: &str, key: &[&str]) -> Result<Definition> {
        serde_json::from_value(json!({
            "connection": {"name": "shop", "kind": "kafka", "options": {}},
            "source": {"name": "raw", "connection": "shop", "topic": "orders", "columns": [], "options": {},
                       "comment": null},
            "table": {"name": "silver.orders", "location": "memory:///lake/orders", "columns": [], "primary_key": key,
                      "partitioned_by": [], "comment": null, "properties": {}},
            "flow": {"flow": flow, "kind": kind, "source": "raw", "table": "silver.orders", "lookups": [],
                     "sql": "text", "sql_hash": "ab", "file": "orders.sql", "line": 1},
        }))
        .map_err(|source| Error::internal("test value").with_source(source))
    }

    fn added(metadata: &Metadata, definition: &Definition) -> Result<Metadata> {
        with_definition(metadata, definition).ok_or_else(|| Error::internal("it is held already"))
    }

    #[test]
    fn each_flow_has_a_property_of_its_own_and_files_do_not_count() -> Result<()> {
        let (one, other) = (definition("one", "append", &[])?, definition("other", "append", &[])?);
        let both = added(&added(&Metadata::default(), &one)?, &other)?;
        assert_eq!(both.configuration.len(), 2);
        let moved = Definition {
            flow: FlowVersion { file: "/elsewhere/orders.sql".to_owned(), line: 40, ..one.flow.clone() },
            ..one.clone()
        };
        assert!(with_definition(&both, &moved).is_none() && with_definition(&both, &other).is_none());
        let changed = Definition { flow: FlowVersion { sql_hash: "cd".to_owned(), ..one.flow.clone() }, ..one };
        assert_eq!(held(&added(&both, &changed)?.configuration, &other.table.location)?, [changed, other]);
        Ok(())
    }

    #[test]
    fn the_shared_property_is_read_and_gives_way_to_its_flows_own() -> Result<()> {
        let (one, other) = (definition("one", "append", &[])?, definition("other", "append", &[])?);
        let text = |definition: &Definition| serde_json::to_string(definition).map_err(|_| Error::internal("no JSON"));
        let mut metadata = Metadata::default();
        metadata.configuration.insert(PROPERTY.to_owned(), text(&one)?);
        metadata.configuration.insert(format!("{PROPERTY}s"), "another's".to_owned());
        let with_other = added(&metadata, &other)?;
        assert_eq!(held(&with_other.configuration, &one.table.location)?, [one.clone(), other]);
        let own = added(&with_other, &one)?;
        assert!(!own.configuration.contains_key(PROPERTY));
        assert_eq!(held(&own.configuration, &one.table.location)?.len(), 2);
        let damaged = BTreeMap::from([(PROPERTY.to_owned(), "{}".to_owned())]);
        assert!(held(&damaged, &one.table.location).is_err());
        Ok(())
    }

    #[test]
    fn an_upsert_table_is_kept_by_one_flow_and_one_key() -> Result<()> {
        let keeper = definition("keeper", "auto_cdc", &["id", "day"])?;
        let (kept, at) = (added(&Metadata::default(), &keeper)?, keeper.table.location.clone());
        let check = |flow: &str, kind: &str, key: &[&str]| -> Result<String> {
            let definition = definition(flow, kind, key)?;
            let checked = check_key(&definition, &kept.configuration, &at)
                .and_then(|()| check_keeper(&definition, &kept.configuration, &at));
            Ok(checked.err().map_or("may write".to_owned(), |error| error.message().to_owned()))
        };
        assert_eq!(check("keeper", "auto_cdc", &["day", "id"])?, "may write");
        let (both, one): (&[&str], &[&str]) = (&["id", "day"], &["id"]);
        for (flow, kind, key, said) in [
            ("keeper", "auto_cdc", one, "a key (id, day) by flow keeper, and flow keeper says PRIMARY KEY (id)"),
            ("keeper", "append", both, "by flow keeper (AUTO CDC), and flow keeper appends to it"),
            ("renamed", "auto_cdc", both, "is kept by flow keeper (AUTO CDC), so flow renamed cannot write it"),
            ("renamed", "auto_cdc", one, "a key (id, day) by flow keeper, and flow renamed says PRIMARY KEY (id)"),
            ("log", "append", one, "by flow keeper (AUTO CDC), and flow log appends to it"),
        ] {
            let message = check(flow, kind, key)?;
            assert!(message.ends_with(said), "{message}");
        }
        let appended = added(&Metadata::default(), &definition("one", "append", &[])?)?.configuration;
        check_key(&definition("other", "append", &[])?, &appended, &at)?;
        check_keeper(&definition("other", "append", &[])?, &appended, &at)?;

        let renamed = definition("renamed", "auto_cdc", &["id", "day"])?;
        assert_eq!(held(&added(&kept, &renamed)?.configuration, &at)?, [renamed], "it took the table over");
        Ok(())
    }

    #[test]
    fn rows_that_keep_the_values_of_one_sequence_are_not_ordered_by_another() -> Result<()> {
        let by = |flow: &str, sequence: &str| -> Result<Definition> {
            let mut definition = definition(flow, "auto_cdc", &["id"])?;
            definition.flow.sql = format!(
                "CREATE FLOW {flow} AS AUTO CDC INTO silver.orders FROM STREAM(raw) KEYS (id) SEQUENCE BY {sequence}"
            );
            Ok(definition)
        };
        let keeper = by("keeper", "seq + 1")?;
        let (kept, at) = (added(&Metadata::default(), &keeper)?, keeper.table.location.clone());
        let check = |definition: &Definition| check_sequence(definition, &kept.configuration, &at);
        check(&keeper)?;
        check(&by("keeper", "(seq  + 1)")?)?;
        check(&definition("keeper", "auto_cdc", &["id"])?)?;
        for flow in ["keeper", "successor"] {
            let refused = check(&by(flow, "seq * 2")?).map_err(|error| (error.kind(), error.message().to_owned()));
            let said = format!("SEQUENCE BY seq + 1 of flow keeper, and flow {flow} says SEQUENCE BY seq * 2");
            assert!(
                matches!(&refused, Err((ErrorKind::Invalid, message)) if message.ends_with(&said)),
                "{refused:?} is not {said}"
            );
        }
        check_sequence(&by("keeper", "seq * 2")?, &BTreeMap::new(), &at)
    }
}
