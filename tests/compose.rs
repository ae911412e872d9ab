//! docker-compose.yml beside what it starts, the program and the README's tour. No container engine is needed here: that
//! names, ports, keys, settings and files fit each other, and that every image is pinned, can be held without one.
//!
//! `dockerfiles` looks at how images are made; `tour` runs what the services run, without containers.

mod dockerfiles;
mod tour;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::docs::{Block, fenced};
use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::Program;

/// docker-compose.yml, with its aliases followed and each `<<` merged.
#[derive(Debug)]
struct Compose {
    file: Value,
}

impl Compose {
    fn open() -> TestResult<Self> {
        let file = serde_saphyr::from_str(&read("docker-compose.yml")?).map_err(|error| error.to_string())?;
        Ok(Self { file })
    }

    fn services(&self) -> TestResult<&Map<String, Value>> {
        Ok(self.file["services"].as_object().ok_or("docker-compose.yml has no services")?)
    }

    fn value(&self, service: &str, path: &str) -> TestResult<&Value> {
        let found = self.file["services"][service].pointer(path);
        Ok(found.ok_or_else(|| format!("docker-compose.yml says nothing of {path} of {service}"))?)
    }

    /// Returns the text at the end of a path of keys.
    fn text(&self, service: &str, path: &str) -> TestResult<&str> {
        let text = self.value(service, path)?.as_str();
        Ok(text.ok_or_else(|| format!("{path} of {service} is no text"))?)
    }

    /// Returns the words of a command, as a container gets them.
    fn words(&self, service: &str, path: &str) -> TestResult<Vec<String>> {
        let words = self.value(service, path)?.as_array().into_iter().flatten();
        let words: Option<Vec<String>> = words.map(|word| Some(word.as_str()?.replace("$$", "$"))).collect();
        let words = words.filter(|words| !words.is_empty());
        Ok(words.ok_or_else(|| format!("{path} of {service} is no list of words"))?)
    }

    /// Returns the topics that a service creates.
    fn topics(&self) -> TestResult<BTreeSet<String>> {
        let script = self.words("kafka-topics", "/command")?.pop().unwrap_or_default();
        let topics = script.lines().find_map(|line| line.strip_prefix("for topic in ")?.strip_suffix("; do"));
        Ok(topics.ok_or("nobody creates topics")?.split(' ').map(str::to_owned).collect())
    }
}

fn root() -> TestResult<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the crate lies nowhere")?.to_owned())
}

fn read(path: &str) -> TestResult<String> {
    Ok(fs::read_to_string(root()?.join(path)).map_err(|error| format!("{path}: {error}"))?)
}

/// Returns the README's block of commands for compose.
fn tour() -> TestResult<Block> {
    let blocks = fenced("README.md", &read("README.md")?);
    Ok(blocks.into_iter().find(|block| block.text.contains("docker compose up")).ok_or("the README has no tour")?)
}

/// Returns the ports of this machine that a text names.
fn local_ports(text: &str) -> BTreeSet<String> {
    let after = text.split("localhost:").skip(1);
    after.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect()
}

#[test]
fn the_settings_of_compose_are_settings_of_the_program() -> TestResult {
    let (compose, lake, page) = (Compose::open()?, Lake::on_disk()?, read("docs/guide/settings.md")?);
    let mut program = Program::on(&lake);
    let settings = compose.value("alluvium", "/environment")?.as_object().ok_or("alluvium has no settings")?;
    for (name, value) in settings {
        // What begins with ALLUVIUM_ and is not known, the program refuses; to others it would be blind.
        assert!(page.contains(&format!("`{name}`")), "{name} is no variable that the program reads");
        // The folder of the image's catalog is not on this machine.
        if name != "ALLUVIUM_CATALOG" {
            program = program.with(name, value.as_str().ok_or_else(|| format!("{name} is no text"))?);
        }
    }
    let pipeline = root()?.join("sql/examples/orders.sql");
    let shown = program.done(&["check", pipeline.to_str().ok_or("the path is not UTF-8")?])?;
    assert!(shown.contains("s3://lake"), "the tables do not lie in the warehouse of compose:\n{shown}");
    Ok(())
}

#[test]
fn the_services_of_compose_know_each_other() -> TestResult {
    let (compose, pipeline) = (Compose::open()?, read("sql/examples/orders.sql")?);
    let broker = compose.text("kafka", "/environment/KAFKA_ADVERTISED_LISTENERS")?.trim_start_matches("PLAINTEXT://");
    assert!(
        pipeline.contains(&format!("'bootstrap.servers' = '{broker}'")),
        "the pipeline looks elsewhere than {broker}"
    );
    // Without its topic a flow does not become ready, and the health check does not pass.
    let topics = pipeline.split("'topic' = '").skip(1).filter_map(|rest| rest.split('\'').next());
    assert_eq!(topics.map(str::to_owned).collect::<BTreeSet<_>>(), compose.topics()?);
    for (ours, theirs) in [("AWS_ACCESS_KEY_ID", "MINIO_ROOT_USER"), ("AWS_SECRET_ACCESS_KEY", "MINIO_ROOT_PASSWORD")] {
        let known = compose.text("minio", &format!("/environment/{theirs}"))?;
        for service in ["alluvium", "minio-bucket"] {
            assert_eq!(compose.text(service, &format!("/environment/{ours}"))?, known, "{service}");
        }
    }
    let bucket = compose.text("alluvium", "/environment/ALLUVIUM_WAREHOUSE")?.trim_start_matches("s3://");
    let maker = compose.words("minio-bucket", "/command")?.concat();
    assert!(maker.contains(&format!("$AWS_ENDPOINT_URL/{bucket}\"")), "nobody creates bucket {bucket}");
    let listen = compose.text("alluvium", "/environment/ALLUVIUM_LISTEN")?.replace(':', "/");
    let check = compose.words("alluvium", "/healthcheck/test")?.concat();
    assert!(check.contains(&format!("/dev/tcp/{listen}")), "the health check asks elsewhere than {listen}");
    Ok(())
}

#[test]
fn what_a_service_waits_for_can_come() -> TestResult {
    let compose = Compose::open()?;
    let services = compose.services()?;
    let mut n_waits = 0;
    for (name, service) in services {
        if let Some(network) = service["network_mode"].as_str() {
            let other = network.strip_prefix("service:").ok_or_else(|| format!("{name} has network {network}"))?;
            assert!(services.contains_key(other), "{name} shares the network of {other}, which is no service");
        }
        for (awaited, wait) in service["depends_on"].as_object().into_iter().flatten() {
            let other =
                services.get(awaited).ok_or_else(|| format!("{name} waits for {awaited}, which is no service"))?;
            match wait["condition"].as_str() {
                Some("service_healthy") => {
                    assert!(other["healthcheck"]["test"].is_array(), "nothing tells whether {awaited} is healthy");
                }
                // What is started again after a good end never has ended.
                Some("service_completed_successfully") => assert_eq!(other["restart"], "on-failure", "{awaited}"),
                condition => return Err(format!("{name} waits until {awaited} is {condition:?}").into()),
            }
            n_waits += 1;
        }
    }
    assert!(n_waits > 0, "nobody waits for anything");
    Ok(())
}

#[test]
fn what_services_mount_is_there_and_holds_the_pipeline() -> TestResult {
    let compose = Compose::open()?;
    let mut used = BTreeSet::new();
    let mut inside = Vec::new();
    for (name, service) in compose.services()? {
        for key in ["configs", "env_file", "extends", "networks", "secrets"] {
            assert!(service[key].is_null(), "{key} of {name} names what no test looks for");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().ok_or_else(|| format!("{name} mounts {volume}"))?;
            let (from, to) = volume.split_once(':').ok_or_else(|| format!("{name} mounts {volume}"))?;
            match from.strip_prefix("./") {
                Some(folder) => inside.push((root()?.join(folder), to.trim_end_matches(":ro"))),
                None => used.extend([from]),
            }
        }
    }
    let declared = compose.file["volumes"].as_object().into_iter().flatten();
    let declared: BTreeSet<&str> = declared.map(|(name, _)| name.as_str()).collect();
    assert_eq!(used, declared, "volumes that are used, and that are declared");
    let command = compose.words("alluvium", "/command")?;
    let found = inside.iter().any(|(folder, mounted)| {
        let file = command.iter().find_map(|word| word.strip_prefix(*mounted)?.strip_prefix('/'));
        file.is_some_and(|file| folder.join(file).is_file())
    });
    assert!(found, "{command:?} finds no file in {inside:?}");
    Ok(())
}

#[test]
fn ports_that_the_host_uses_are_published_on_loopback_alone() -> TestResult {
    let compose = Compose::open()?;
    let mut published = BTreeSet::new();
    for (name, service) in compose.services()? {
        for port in service["ports"].as_array().into_iter().flatten() {
            let parts: Vec<&str> = port.as_str().unwrap_or_default().split(':').collect();
            // Clients are told where the broker is by the port that it has inside.
            let ["127.0.0.1", outside, inside] = parts[..] else {
                return Err(format!("{name} publishes {port}").into());
            };
            assert_eq!(outside, inside, "{name}");
            published.insert(outside.to_owned());
        }
    }
    let mut used = local_ports(&read("sql/examples/orders.sql")?);
    used.extend(local_ports(&tour()?.text));
    let endpoint = compose.text("alluvium", "/environment/AWS_ENDPOINT_URL")?;
    used.extend(endpoint.rsplit(':').next().map(str::to_owned));
    assert_eq!(
        published, used,
        "ports that are published, and that the pipeline, the tour and readers of the tables use"
    );
    Ok(())
}
