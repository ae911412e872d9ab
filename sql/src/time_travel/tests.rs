//! What the module `time_travel` promises, tested.

use super::*;
use crate::parser::parse_statements;
use crate::statement::Statement;

fn parse(sql: &str) -> Result<DfStatement> {
    match parse_statements(sql)?.pop().map(|statement| statement.value) {
        Some(Statement::Sql(statement)) => Ok(*statement),
        other => Err(Error::internal(format!("{sql} is {other:?}"))),
    }
}

fn check(sql: &str, expected: &str) -> Result<()> {
    let mut statement = parse(sql)?;
    pin_versions(&mut statement)?;
    check_no_version_remains(&statement)?;
    assert_eq!(statement.to_string(), expected, "{sql}");
    Ok(())
}

fn check_refused(sql: &str, message: &str) -> Result<()> {
    let mut statement = parse(sql)?;
    match pin_versions(&mut statement) {
        Ok(()) => Err(Error::internal(format!("{sql} was taken as {statement}"))),
        Err(error) => {
            assert_eq!(error.message(), message, "{sql}");
            Ok(())
        }
    }
}

#[test]
fn a_version_becomes_part_of_the_name() -> Result<()> {
    check("SELECT * FROM orders VERSION AS OF 41", r#"SELECT * FROM "alluvium@41"."default"."orders""#)?;
    check("SELECT * FROM silver.orders VERSION AS OF 0 AS o", r#"SELECT * FROM "alluvium@0"."silver"."orders" AS o"#)?;
    check("SELECT * FROM orders", "SELECT * FROM orders")
}

#[test]
fn a_time_is_read_in_utc_unless_it_says_otherwise() -> Result<()> {
    for time in [
        "'1970-01-01T00:01:00Z'",
        "'1970-01-01 00:01:00'",
        "'1970-01-01T01:01:00+01:00'",
        "TIMESTAMP '1970-01-01 00:01:00'",
    ] {
        check(&format!("SELECT * FROM t TIMESTAMP AS OF {time}"), r#"SELECT * FROM "alluvium@60000ms"."default"."t""#)?;
    }
    check("SELECT * FROM t TIMESTAMP AS OF '1970-01-02'", r#"SELECT * FROM "alluvium@86400000ms"."default"."t""#)
}

#[test]
fn versions_are_found_wherever_a_relation_can_stand() -> Result<()> {
    let pinned = r#""alluvium@1"."default"."t""#;
    for template in [
        "SELECT * FROM a JOIN {} ON a.id = t.id",
        "SELECT * FROM a, {}",
        "SELECT * FROM (a JOIN {} ON true)",
        "SELECT * FROM (SELECT * FROM {}) AS s",
        "SELECT * FROM a WHERE id IN (SELECT id FROM {})",
        "SELECT (SELECT max(id) FROM {})",
        "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM {})",
        "WITH c AS (SELECT * FROM {}) SELECT * FROM c",
        "WITH t AS (SELECT * FROM {}) SELECT * FROM t",
        "SELECT * FROM a UNION ALL SELECT * FROM {}",
        "EXPLAIN SELECT * FROM {}",
        "COPY (SELECT * FROM {}) TO 'x.csv' STORED AS CSV",
    ] {
        let expected = parse(&template.replace("{}", "t"))?.to_string();
        let mut statement = parse(&template.replace("{}", "t VERSION AS OF 1"))?;
        pin_versions(&mut statement)?;
        check_no_version_remains(&statement)?;
        let found = statement.to_string();
        assert!(found.contains(pinned), "{template}: {found}");
        // Which `t` is meant shows in its place; the rest of the statement must not change.
        let plain = found.replace(pinned, "t");
        assert_eq!(plain, expected, "{template}");
    }
    Ok(())
}

#[test]
fn what_has_no_versions_is_refused() -> Result<()> {
    check_refused("WITH c AS (SELECT 1) SELECT * FROM c VERSION AS OF 1", "c has no versions: it is not a table")?;
    for (name, clause) in [
        ("system.commits", "VERSION AS OF 1"),
        ("alluvium.system.commits", "VERSION AS OF 1"),
        ("information_schema.tables", "VERSION AS OF 5"),
        ("INFORMATION_SCHEMA.tables", "TIMESTAMP AS OF '2026-03-01'"),
    ] {
        let message = format!("{name} has no versions: it shows what there is now");
        check_refused(&format!("SELECT count(*) FROM {name} {clause}"), &message)?;
    }
    check_refused("SELECT * FROM t TIMESTAMP AS OF 'yesterday'", "'yesterday' is not a time")?;
    check_refused("SELECT * FROM t VERSION AS OF 1.5", "cannot read a table VERSION AS OF 1.5")?;
    check_refused("SELECT * FROM t TIMESTAMP AS OF now()", "cannot read a table TIMESTAMP AS OF now()")
}

#[test]
fn a_version_that_nobody_turned_is_found() -> Result<()> {
    let statement = parse("SELECT * FROM a WHERE id IN (SELECT id FROM t VERSION AS OF 1)")?;
    assert!(check_no_version_remains(&statement).is_err());
    Ok(())
}

#[test]
fn a_cte_is_known_after_itself_only() -> Result<()> {
    // The table t is read by the first CTE; what follows reads the CTE.
    check(
        "WITH t AS (SELECT * FROM t VERSION AS OF 3), u AS (SELECT * FROM t) SELECT * FROM u",
        r#"WITH t AS (SELECT * FROM "alluvium@3"."default"."t"), u AS (SELECT * FROM t) SELECT * FROM u"#,
    )?;
    check_refused(
        "WITH t AS (SELECT 1), u AS (SELECT * FROM t VERSION AS OF 3) SELECT * FROM u",
        "t has no versions: it is not a table",
    )?;
    check_refused(
        "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t VERSION AS OF 3) SELECT * FROM t",
        "t has no versions: it is not a table",
    )?;
    // The CTE of a subquery is not known outside of it.
    check(
        "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) AS s JOIN t VERSION AS OF 2 ON true",
        r#"SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) AS s JOIN "alluvium@2"."default"."t" ON true"#,
    )
}
