//! Tests of the canonical form.

use crate::diagnostic::Diagnostics;
use crate::parser::parse_statements;

fn check(text: &str) -> Result<String, Diagnostics> {
    let mut shown = Vec::new();
    for statement in parse_statements(text)? {
        let canonical = statement.value.to_string();
        let again = parse_statements(&canonical)?;
        assert_eq!(again.len(), 1, "{canonical}");
        assert_eq!(again[0].value, statement.value, "{canonical}");
        assert_eq!(again[0].value.to_string(), canonical, "the canonical form is not stable");
        shown.push(canonical);
    }
    Ok(shown.join(";\n\n"))
}

#[test]
fn the_example_is_shown_so_that_it_is_read_again() -> Result<(), Diagnostics> {
    let shown = check(include_str!("../../examples/orders.sql"))?;
    insta::assert_snapshot!(shown);
    Ok(())
}

#[test]
fn every_clause_is_shown_so_that_it_is_read_again() -> Result<(), Diagnostics> {
    let shown = check(
        r#"
        create or replace connection if not exists `my-shop` type kafka with (
          'bootstrap.servers' = 'a:1,b:2', 'sasl.password' = secret('env', 'IT''S'), 'socket.timeout.ms' = 500,
          'socket.keepalive.enable' = true);
        create or replace source s (
          "Order Id" bigint not null comment 'it''s the key' tags (pii, `x y`), k bytea metadata from 'key', topic string metadata,
          nested ROW<a INT, b ARRAY<MAP<STRING, STRUCT<`c d`: DECIMAL(5, 1)>>>>, seen timestamp_ltz(3), day as cast(seen as date)
        ) comment 'raw' with ('topic' = 't');
        create streaming table if not exists t as select a, b from stream s where a > 1 and b in ('x', 'y');
        create or refresh streaming table a.t (id int not null, d date, constraint pk primary key (id)) partitioned by (d)
          location 's3://lake/t' comment 'c' tblproperties ('delta.appendOnly' = 'true', 'n' = -1);
        create flow f as insert into a.t by name with x as (select * from stream(s)) select x.id, cast(m as map<string, array<map<int, int>>>) as m, case when a then 1 else 2 end as c from x left join dim.d on d.id = x.id;
        create or replace flow f comment 'does' with ('commit.interval' = '10 seconds') as auto cdc into t from stream(s)
          keys (id) sequence by (ts, off) columns (id, d);
        describe history a.t limit 3;
        desc history t;
        show sources; show flows; show connections; show commits; show commits for a.t;
        create streaming table c (a int, `b c` date) cluster by (a, `b c`) comment 'c'; create streaming table d cluster by none as select a from stream(s);
        optimize a.t; optimize a.t full; vacuum t; vacuum t retain 200 hours dry run; vacuum a.t dry run
        "#,
    )?;
    insta::assert_snapshot!(shown);
    Ok(())
}

#[test]
fn places_do_not_take_part_in_equality() -> Result<(), Diagnostics> {
    let statements = parse_statements("SHOW FLOWS;\n\n  SHOW  FLOWS")?;
    assert_eq!(statements[0], statements[1]);
    assert_ne!(statements[0].span, statements[1].span);
    Ok(())
}
