//! docker-compose.yml and the Dockerfiles beside what they start. No container engine is needed here: that names, ports,
//! keys and settings of the files fit each other is what can be held without one. The files are read line by line; that
//! they are YAML as the engine reads it is not shown here.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;

fn root() -> TestResult<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the crate lies nowhere")?.to_owned())
}

fn read(path: &str) -> TestResult<String> {
    Ok(fs::read_to_string(root()?.join(path)).map_err(|error| format!("{path}: {error}"))?)
}

/// Returns the scalars of a YAML file in order: each key with its value, without quotes.
fn scalars(yaml: &str) -> Vec<(&str, &str)> {
    let lines = yaml.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(": "));
    pairs.map(|(key, value)| (key.trim_start_matches("- "), value.trim_matches('"'))).collect()
}

fn value<'a>(scalars: &[(&str, &'a str)], key: &str) -> TestResult<&'a str> {
    let found = scalars.iter().find(|(name, _)| *name == key);
    Ok(found.ok_or_else(|| format!("docker-compose.yml says nothing of {key}"))?.1)
}

#[test]
fn the_settings_of_compose_are_settings_of_the_program() -> TestResult {
    let compose = read("docker-compose.yml")?;
    let lake = Lake::on_disk()?;
    // The folder of the image's catalog is not on this machine.
    let is_ours =
        |name: &str| name.starts_with("AWS_") || (name.starts_with("ALLUVIUM_") && name != "ALLUVIUM_CATALOG");
    let variables = scalars(&compose).into_iter().filter(|(name, _)| is_ours(name));
    let program = variables.fold(Program::on(&lake), |program, (name, value)| program.with(name, value));
    let pipeline = root()?.join("sql/examples/orders.sql");
    let shown = program.done(&["check", pipeline.to_str().ok_or("the path is not UTF-8")?])?;
    assert!(shown.contains("s3://lake"), "the tables do not lie in the warehouse of compose:\n{shown}");
    Ok(())
}

#[test]
fn the_services_of_compose_know_each_other() -> TestResult {
    let (compose, pipeline) = (read("docker-compose.yml")?, read("sql/examples/orders.sql")?);
    let scalars = scalars(&compose);
    let broker = value(&scalars, "KAFKA_ADVERTISED_LISTENERS")?.trim_start_matches("PLAINTEXT://");
    assert!(
        pipeline.contains(&format!("'bootstrap.servers' = '{broker}'")),
        "the pipeline looks elsewhere than {broker}"
    );
    // Without its topic a flow does not become ready, and the health check does not pass.
    let created = compose.lines().find_map(|line| line.trim().strip_prefix("for topic in ")?.strip_suffix("; do"));
    let mut created: Vec<&str> = created.ok_or("nobody creates topics")?.split(' ').collect();
    let mut read: Vec<&str> =
        pipeline.split("'topic' = '").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
    for topics in [&mut created, &mut read] {
        topics.sort_unstable();
        topics.dedup();
    }
    assert!(!read.is_empty() && created == read, "compose creates {created:?}, the pipeline reads {read:?}");
    for (ours, theirs) in [("AWS_ACCESS_KEY_ID", "MINIO_ROOT_USER"), ("AWS_SECRET_ACCESS_KEY", "MINIO_ROOT_PASSWORD")] {
        assert_eq!(value(&scalars, ours)?, value(&scalars, theirs)?);
    }
    let bucket = value(&scalars, "ALLUVIUM_WAREHOUSE")?.trim_start_matches("s3://");
    assert!(compose.contains(&format!("$$AWS_ENDPOINT_URL/{bucket}\"")), "nobody creates bucket {bucket}");
    let listen = value(&scalars, "ALLUVIUM_LISTEN")?.replace(':', "/");
    assert!(compose.contains(&format!("/dev/tcp/{listen}")), "the health check asks elsewhere than {listen}");
    Ok(())
}

#[test]
fn what_compose_and_dockerfiles_name_is_there() -> TestResult {
    let compose = read("docker-compose.yml")?;
    let mut context = PathBuf::new();
    let mut n_dockerfiles = 0;
    for (key, value) in scalars(&compose) {
        match key {
            "context" => context = root()?.join(value),
            "dockerfile" => {
                assert!(context.join(value).is_file(), "{value} is not in {}", context.display());
                n_dockerfiles += 1;
            }
            _ => {}
        }
    }
    assert_eq!(n_dockerfiles, 3);
    let mounts = compose.lines().filter_map(|line| line.trim().strip_prefix("- ./")?.split_once(':'));
    for (folder, inside) in mounts {
        assert!(root()?.join(folder).is_dir(), "{folder} is not there");
        let command = format!("\"{}/orders.sql\"", inside.trim_end_matches(":ro"));
        assert!(compose.contains(&command) && root()?.join(folder).join("orders.sql").is_file(), "{command}");
    }

    let dockerfile = read("engine/Dockerfile")?;
    let toolchain = read("rust-toolchain.toml")?;
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).ok_or("no channel")?;
    let channel = channel.trim_matches('"');
    for line in [format!("FROM rust:{channel}-bookworm AS build"), format!("ENV RUSTUP_TOOLCHAIN={channel}")] {
        assert!(dockerfile.lines().any(|written| written == line), "engine/Dockerfile has not {line}");
    }
    let copied = dockerfile.lines().find_map(|line| line.strip_prefix("COPY --from=build ")?.split_once(' '));
    let (copied, _) = copied.ok_or("engine/Dockerfile copies nothing from its build")?;
    assert!(dockerfile.contains(&format!("cp target/release/alluvium {copied}")), "nothing is built as {copied}");
    Ok(())
}
