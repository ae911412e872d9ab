//! The command line as users meet it: errors in SQL files with their places, settings, exit codes, and the demo.

use std::time::Duration;

use serde_json::json;

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;

/// Runs `check` on a file and returns what it says; it must refuse the file.
fn refusal(sql: &str) -> TestResult<String> {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    program.write("pipeline.sql", sql)?;
    let ended = program.run(&["check", "pipeline.sql"])?;
    ended.check(1)?;
    assert!(ended.out.is_empty(), "errors go to standard error:\n{}", ended.out);
    Ok(ended.err)
}

/// Holds what is said to a snapshot.
fn holds(name: &str, said: &str) {
    // The program is called after its file, and the one under test has another name than the released one.
    let said = said.replace("alluvium-under-test", "alluvium");
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, said);
    });
}

/// A pipeline without an error, for changes that bring one in.
const SOUND: &str = "CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
CREATE SOURCE orders_raw (order_id BIGINT NOT NULL, email STRING, amount DECIMAL(18,2), updated_at TIMESTAMP)
WITH ('connection' = 'shop', 'topic' = 'orders');
CREATE STREAMING TABLE silver.orders (order_id BIGINT NOT NULL, amount DECIMAL(18,2), updated_at TIMESTAMP,
  PRIMARY KEY (order_id) NOT ENFORCED);
CREATE FLOW orders_upsert AS AUTO CDC INTO silver.orders
FROM (SELECT order_id, amount, updated_at FROM STREAM(orders_raw))
KEYS (order_id) SEQUENCE BY updated_at STORED AS SCD TYPE 1;
";

#[test]
fn a_sound_pipeline_is_shown_and_touches_nothing() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    program.write("pipeline.sql", SOUND)?;
    let shown = program.done(&["check", "pipeline.sql"])?;
    assert!(shown.contains("orders_upsert") && shown.contains("silver.orders"), "{shown}");
    assert!(lake.warehouse().local_path().is_some_and(|folder| !folder.exists()), "check wrote into the warehouse");
    let json = program.json(&["check", "--json", "pipeline.sql"])?;
    assert_eq!(json["ok"], true, "{json}");
    Ok(())
}

#[test]
fn a_broker_that_is_not_there_ends_a_run_with_three_and_is_told_once() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake).with("ALLUVIUM_ONCE_TIMEOUT", "4s");
    program.write("pipeline.sql", &SOUND.replace("localhost:9092", "127.0.0.1:1"))?;
    let begun = std::time::Instant::now();
    let ended = program.run(&["run", "--once", "--json", "pipeline.sql"])?;
    ended.check(3)?;
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    let summary: serde_json::Value = serde_json::from_str(&ended.out)?;
    assert_eq!(summary["flows"][0]["kind"], "unavailable", "{summary}");
    let reason = summary["flows"][0]["halted"].as_str().unwrap_or_default();
    assert!(reason.contains("no broker of connection shop at 127.0.0.1:1"), "{reason}");
    // librdkafka tries several times a second: one broker lost, all brokers lost, one flow halted.
    let loud = ended.err.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert!(loud <= 4, "{loud} warnings\n{}", ended.err);
    Ok(())
}

#[test]
fn every_error_in_a_file_is_shown_at_its_place() -> TestResult {
    let cases: [(&str, &str, &str); 10] = [
        ("check_misspelt_column", "SELECT order_id, amount,", "SELECT order_id, amuont,"),
        ("check_misspelt_option", "'topic' =", "'topics' ="),
        ("check_literal_password", "'localhost:9092'", "'localhost:9092', 'sasl.password' = 'hunter2'"),
        ("check_missing_sequence", " SEQUENCE BY updated_at", ""),
        ("check_nullable_key", "silver.orders (order_id BIGINT NOT NULL", "silver.orders (order_id BIGINT"),
        ("check_type_mismatch", "SELECT order_id, amount, ", "SELECT order_id, email AS amount, "),
        ("check_syntax", "CREATE FLOW orders_upsert AS AUTO CDC INTO", "CREATE FLOW orders_upsert AS AUTO CDC"),
        ("check_unknown_source", "STREAM(orders_raw)", "STREAM(orders)"),
        (
            "check_aggregate",
            "SELECT order_id, amount, updated_at FROM",
            "SELECT order_id, sum(amount) AS amount, max(updated_at) AS updated_at FROM",
        ),
        ("check_owned_option", "'localhost:9092'", "'localhost:9092', 'enable.auto.commit' = 'true'"),
    ];
    for (name, sound, broken) in cases {
        assert!(SOUND.contains(sound), "{name}");
        let mut sql = SOUND.replacen(sound, broken, 1);
        if name == "check_aggregate" {
            sql = sql.replace("STREAM(orders_raw))", "STREAM(orders_raw) GROUP BY order_id)");
        }
        let said = refusal(&sql)?;
        assert!(said.contains("pipeline.sql:"), "{name} names no place:\n{said}");
        assert!(!said.contains("hunter2") || name != "check_literal_password", "the password is repeated:\n{said}");
        holds(name, &said);
    }
    Ok(())
}

#[test]
fn all_errors_of_a_file_come_at_once() -> TestResult {
    let sql = SOUND
        .replace("'topic' =", "'topics' =")
        .replace("silver.orders (order_id BIGINT NOT NULL", "silver.orders (order_id BIGNIT");
    holds("check_several", &refusal(&sql)?);
    Ok(())
}

#[test]
fn what_cannot_be_understood_exits_with_two() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    program.run(&["chekc"])?.check(2)?;
    program.run(&["run"])?.check(2)?;
    program.run(&["--config", "nowhere.toml", "check", "x.sql"])?.check(2)?;
    program.write("alluvium.toml", "[batch]\nrow = 5\n")?;
    let ended = program.run(&["catalog", "list"])?;
    ended.check(2)?;
    holds("settings_unknown_key", &ended.err.replace(&lake.folder().display().to_string(), "[folder]"));
    std::fs::remove_file(program.folder().join("alluvium.toml"))?;
    let ended = Program::on(&lake).with("ALLUVIUM_WAREHOUS", "x").run(&["catalog", "list"])?;
    ended.check(2)?;
    holds("settings_unknown_variable", &ended.err);
    Ok(())
}

#[test]
fn a_run_with_settings_that_are_no_settings_ends_with_two_and_touches_nothing() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    program.write("pipeline.sql", SOUND)?;
    for (text, place, said) in [
        ("warehouse = \"lake\n", "alluvium.toml:1:", ""),
        ("[batch]\nrows = \"many\"\n", "alluvium.toml:2:", "whole number"),
        ("[batch\nrows = 5\n", "alluvium.toml:1:", ""),
        ("\u{0}\u{1}\u{2}", "alluvium.toml:1:", ""),
        ("[limits]\ndrain_timeout = \"10 parsecs\"\n", "alluvium.toml:2:", "duration"),
    ] {
        program.write("alluvium.toml", text)?;
        let ended = program.run(&["run", "--once", "pipeline.sql"])?;
        ended.check(2)?;
        assert!(ended.out.is_empty(), "{text:?}: {}", ended.out);
        assert!(ended.err.starts_with("error: ") && ended.err.contains(place), "{text:?}: {}", ended.err);
        assert!(ended.err.contains(said), "{text:?}: {}", ended.err);
        assert!(!lake.folder().join("catalog.db").exists(), "{text:?}: something was made");
    }
    std::fs::remove_file(program.folder().join("alluvium.toml"))?;
    std::fs::write(program.folder().join("latin.toml"), b"warehouse = \"\xe9\"\n")?;
    let ended = program.run(&["--config", "latin.toml", "run", "--once", "pipeline.sql"])?;
    ended.check(2)?;
    assert!(ended.err.contains("hint: --config names a file of TOML, in UTF-8"), "{}", ended.err);
    let ended = program.run(&["--config", ".", "run", "--once", "pipeline.sql"])?;
    ended.check(2)?;
    assert!(ended.err.contains("is a folder"), "{}", ended.err);
    Ok(())
}

#[test]
fn a_file_without_flows_registers_what_it_defines() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    let (definitions, _) = SOUND.split_once("CREATE FLOW").ok_or("there is no flow")?;
    program.write("definitions.sql", definitions)?;
    let told = program.done(&["run", "definitions.sql"])?;
    assert!(told.contains("registered 1 connection, 1 source, 1 table"), "{told}");
    let listed = program.json(&["catalog", "list", "--json"])?;
    for (what, name) in [("datasets", "silver.orders"), ("sources", "orders_raw"), ("connections", "shop")] {
        assert_eq!(listed[what][0]["name"], name, "{listed}");
    }
    let shown = program.done(&["catalog", "show", "silver.orders"])?;
    assert!(shown.contains("order_id") && shown.contains("BIGINT"), "{shown}");
    // A table that has columns only by its flow is registered, too, and a flow may come later.
    program.write("bare.sql", "CREATE STREAMING TABLE bronze.events;")?;
    program.done(&["run", "--once", "bare.sql"])?;
    program.done(&["catalog", "show", "bronze.events"])?;
    Ok(())
}

#[test]
fn a_missing_file_ends_every_command_alike() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    for arguments in [&["check", "nowhere.sql"][..], &["run", "nowhere.sql"], &["sql", "-f", "nowhere.sql"]] {
        let ended = program.run(arguments)?;
        ended.check(1)?;
        assert!(ended.err.contains("cannot read nowhere.sql"), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains("hint: is the name spelt right?"), "{arguments:?}: {}", ended.err);
    }
    Ok(())
}

#[test]
fn what_is_no_text_ends_every_command_alike_and_says_what_to_do() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    std::fs::write(program.folder().join("latin.sql"), b"SELECT '\xe9';")?;
    std::fs::create_dir(program.folder().join("folder.sql"))?;
    for (file, hint) in [("latin.sql", "hint: save the file as UTF-8"), ("folder.sql", "hint: name the files in")] {
        for arguments in [&["check", file][..], &["run", file], &["sql", "-f", file]] {
            let ended = program.run(arguments)?;
            ended.check(1)?;
            assert!(ended.err.contains(&format!("cannot read {file}")), "{arguments:?}: {}", ended.err);
            assert!(ended.err.contains(hint), "{arguments:?}: {}", ended.err);
        }
    }
    Ok(())
}

#[test]
fn a_format_that_there_is_not_is_refused_with_those_that_there_are() -> TestResult {
    let lake = Lake::on_disk()?;
    let ended = Program::on(&lake).run(&["sql", "--format", "xml", "-c", "SELECT 1"])?;
    ended.check(2)?;
    assert!(ended.err.contains("formats are table, csv, tsv, json, ndjson, markdown"), "{}", ended.err);
    Ok(())
}

#[test]
fn a_file_that_is_not_there_is_named() -> TestResult {
    let lake = Lake::on_disk()?;
    let ended = Program::on(&lake).run(&["check", "nowhere.sql"])?;
    ended.check(1)?;
    assert!(ended.err.contains("nowhere.sql"), "{}", ended.err);
    Ok(())
}

#[test]
fn help_names_every_command() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    holds("help", &program.done(&["--help"])?);
    let version = program.done(&["--version"])?;
    assert_eq!(version.trim(), concat!("alluvium ", env!("CARGO_PKG_VERSION")));
    Ok(())
}

#[test]
fn the_demo_runs_to_its_end_with_nothing_else_installed() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake).alone()?;
    let ended = program.start(&["demo"])?.wait(Duration::from_secs(180))?;
    ended.check(0)?;
    for word in ["silver.orders", "rejected", "agree", "catalog history"] {
        assert!(ended.out.contains(word), "the demo does not say '{word}':\n{}", ended.out);
    }
    Ok(())
}

/// The settings that the demo leaves behind.
const DEMO_SETTINGS: [&str; 2] = ["--config", "alluvium-demo/alluvium.toml"];

/// Runs the demo on few records; returns what it said, and the program as somebody has it who has set nothing.
fn demo(lake: &Lake) -> TestResult<(String, Program)> {
    let program = Program::on(lake).with("ALLUVIUM_WAREHOUSE", "").with("ALLUVIUM_CATALOG", "");
    let ended = program.start(&["demo", "--records", "2000"])?.wait(Duration::from_secs(180))?;
    ended.check(0)?;
    Ok((ended.out, program))
}

/// Returns what stands between the first `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> TestResult<&'a str> {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.map(|(found, _)| found).ok_or_else(|| format!("there is no '{before}..{after}' in\n{text}").into())
}

#[test]
fn the_commit_and_the_offset_that_the_demo_names_are_those_that_made_the_row() -> TestResult {
    let lake = Lake::on_disk()?;
    let (said, program) = demo(&lake)?;
    let order = between(&said, "made the row of order ", "?")?;
    let record = between(&said, "The record at offset ", " made it.")?;
    let (offset, partition) = record.split_once(" of shop.orders/").ok_or("the record has no place")?;
    let (offset, partition): (i64, i64) = (offset.parse()?, partition.parse()?);
    let version: u64 = between(&said, "made it. The commit:\n   version ", " ")?.parse()?;

    let sql = format!(
        "SELECT _alluvium_partition AS part, _alluvium_offset AS pos FROM silver.orders WHERE order_id = {order}"
    );
    let rows = program.json(&[&DEMO_SETTINGS[..], &["sql", "--quiet", "--json", "-c", &sql]].concat())?;
    assert_eq!(rows, json!([{"part": partition, "pos": offset}]));
    let asked = ["catalog", "history", "silver.orders", "--limit", "1000", "--json"];
    let history = program.json(&[&DEMO_SETTINGS[..], &asked].concat())?;
    let commits = history.as_array().ok_or("the history is no list")?;
    let commit = commits.iter().find(|commit| commit["version"] == version).ok_or("there is no such commit")?;
    let inputs = commit["lineage"]["inputs"].as_array().ok_or("the commit has no inputs")?;
    let mut ranges = inputs.iter().filter_map(|input| input["ranges"].as_array()).flatten();
    let covers = ranges.any(|range| {
        let bounds = range["first"].as_i64().zip(range["next"].as_i64());
        range["partition"] == partition && bounds.is_some_and(|(first, next)| (first..next).contains(&offset))
    });
    assert!(covers, "version {version} has not read {offset} of partition {partition}: {commit}");
    Ok(())
}

#[test]
fn the_commands_that_the_demo_proposes_at_its_end_run_and_show_its_tables() -> TestResult {
    let lake = Lake::on_disk()?;
    let (said, program) = demo(&lake)?;
    let (_, next) = said.split_once("What next").ok_or("the demo does not say what next")?;
    let called = env!("CARGO_BIN_EXE_alluvium-under-test");
    let commands = next.lines().filter_map(|line| line.trim_start().strip_prefix(called));
    let commands: Vec<Vec<&str>> = commands.map(|command| command.split_whitespace().collect()).collect();
    let expected = [
        ("sql", ""),
        ("history", "orders_upsert"),
        ("lineage", "shop.orders"),
        ("list", "silver.orders"),
        ("check", "orders_upsert"),
    ];
    assert_eq!(commands.len(), expected.len(), "{next}");
    for (word, part) in expected {
        let command = commands.iter().find(|command| command.contains(&word));
        let command = command.ok_or_else(|| format!("no command with {word} in\n{next}"))?;
        let shown = program.done(command)?;
        assert!(shown.contains(part), "{command:?} does not show {part}:\n{shown}");
        if word == "sql" {
            let count = "SELECT count(*) AS n FROM silver.orders";
            let rows = program.json(&[command.as_slice(), &["--quiet", "--json", "-c", count]].concat())?;
            assert!(rows[0]["n"].as_i64().is_some_and(|n| n > 0), "{rows}");
        }
    }
    Ok(())
}
