//! The program in a control group that limits its memory, as containers do: a flow whose key index outgrows its part of
//! that halts, before the kernel kills the process, and goes on without the limit. Such a group is not among what every
//! run must have.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use alluvium_catalog::{Partition, sized};
use serde_json::Value;

use crate::harness::lake::Lake;
use crate::harness::program::Program;
use crate::harness::shop::embedded_options;
use crate::harness::{TestResult, reader, services, unique};

/// The memory of the group, of which key indexes may take half where no setting says otherwise.
const LIMIT: u64 = 384 << 20;

/// A key takes at least its bytes in the index, and at most 40 and one and a quarter times that: half of the group has
/// room for more than 60 % of these, and for less than 85.
const RECORDS: i64 = 240_000;
const KEY_BYTES: i64 = 1_000;

/// How long the process may take that lands most of them.
const RUN_LIMIT: Duration = Duration::from_secs(240);

const TOPIC: &str = "numbers";
const TABLE: &str = "lake.newest";

/// What a version of control groups calls its files (memory.rst and cgroup-v2.rst of the kernel).
struct Version {
    root: &'static str,
    limit: &'static str,
    /// The file that limits swap, where there is any, and what leaves none.
    swap: (&'static str, u64),
    peak: &'static str,
    /// Has a line `oom_kill 0`.
    events: &'static str,
}

static VERSIONS: [Version; 2] = [
    Version {
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        // Memory is in this one, too.
        swap: ("memory.memsw.limit_in_bytes", LIMIT),
        peak: "memory.max_usage_in_bytes",
        events: "memory.oom_control",
    },
    Version {
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        swap: ("memory.swap.max", 0),
        // Kernels before 5.19 do not have it.
        peak: "memory.peak",
        events: "memory.events",
    },
];

/// A control group of a test's own. It goes when this is dropped, which must be after its processes have ended.
struct Group {
    folder: PathBuf,
    version: &'static Version,
}

impl Group {
    /// Makes a group that may take [`LIMIT`], or says that the test goes without.
    fn limited() -> TestResult<Option<Self>> {
        let mut refusals = Vec::new();
        for version in &VERSIONS {
            let group = Self { folder: Path::new(version.root).join(unique("alluvium-test")), version };
            match group.make() {
                Ok(()) => return Ok(Some(group)),
                Err(error) => refusals.push(format!("none below {}: {error}", version.root)),
            }
        }
        services::leave_out("a control group that limits memory", &refusals.join("; "))?;
        Ok(None)
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir(&self.folder)?;
        self.write(self.version.limit, LIMIT)?;
        let (swap, bytes) = self.version.swap;
        if self.folder.join(swap).exists() { self.write(swap, bytes) } else { Ok(()) }
    }

    /// Writes into a file that must be there: where no groups are mounted, a folder is only a folder.
    fn write(&self, file: &str, bytes: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.folder.join(file))?.write_all(bytes.to_string().as_bytes())
    }

    /// Returns the bytes that it took at most, where the kernel tells.
    fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(self.version.peak)).ok()?.trim().parse().ok()
    }

    /// Returns how many of its processes were killed for memory.
    fn n_killed(&self) -> TestResult<u64> {
        let events = fs::read_to_string(self.folder.join(self.version.events))?;
        let told = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(told.ok_or("the group does not tell of kills")?.trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let begun = Instant::now();
        // It may count as busy for a moment after its last process was waited for.
        while fs::remove_dir(&self.folder).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
            && begun.elapsed() < Duration::from_secs(2)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One flow that makes long keys of short records, so that little but its index takes memory. librdkafka would queue
/// all such records that there are, each with some hundreds of bytes that it does not count.
fn growing(bootstrap: &str) -> String {
    format!(
        "CREATE CONNECTION broker TYPE kafka
WITH ({}, 'queued.min.messages' = '2000', 'fetch.message.max.bytes' = '65536');
CREATE SOURCE numbers (n STRING NOT NULL, pos BIGINT METADATA FROM 'offset')
WITH ('connection' = 'broker', 'topic' = '{TOPIC}', 'key.fields' = 'n');
CREATE STREAMING TABLE {TABLE} (id STRING NOT NULL, pos BIGINT, PRIMARY KEY (id) NOT ENFORCED);
CREATE FLOW outgrows WITH ('commit.rows' = '4000') AS AUTO CDC INTO {TABLE}
FROM (SELECT lpad(n, {KEY_BYTES}, '0') AS id, pos FROM STREAM(numbers))
KEYS (id) SEQUENCE BY pos STORED AS SCD TYPE 1;
",
        embedded_options(bootstrap)
    )
}

/// Produces a record for each key, to two partitions: a partition of the embedded broker keeps no more than 5 MiB.
async fn produce(broker: &EmbeddedBroker) -> TestResult {
    for number in 0..RECORDS {
        let (partition, value) = (Partition(i32::try_from(number % 2)?), format!("{{\"n\": \"{number}\"}}"));
        let message = Message { partition: Some(partition), value: Some(value.as_bytes()), ..Message::default() };
        broker.produce(TOPIC, message).await?;
    }
    Ok(broker.flush().await?)
}

/// Returns how many rows the table has, and how many keys.
async fn counts(lake: &Lake) -> TestResult<(i64, i64)> {
    let sql = "SELECT count(*) AS n_rows, count(DISTINCT id) AS n_keys FROM t";
    let rows = reader::deltalake_rows(lake, &lake.table(TABLE)?, sql).await?;
    let count = |name: &str| rows.first().and_then(|row| row[name].as_i64()).ok_or("the reader does not count");
    Ok((count("n_rows")?, count("n_keys")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_index_that_outgrows_half_of_a_group_halts_its_flow_and_the_kernel_kills_nobody() -> TestResult {
    let Some(group) = Group::limited()? else { return Ok(()) };
    let (lake, broker) = (Lake::on_disk()?, EmbeddedBroker::start(&[(TOPIC, 2)])?);
    let told = Command::new("stat").args(["-f", "-c", "%T"]).arg(lake.folder()).output()?;
    if told.stdout.trim_ascii() == b"tmpfs" {
        return services::leave_out("temporary files on a disk", "in memory they count against the control group");
    }
    produce(&broker).await?;
    let program = Program::on(&lake);
    let file = program.write("keys.sql", &growing(broker.bootstrap()))?;
    let once: &[&str] = &["run", "--once", "--json", &file];
    let ended = program.clone().in_group(&group.folder).start(once)?.wait(RUN_LIMIT)?;
    assert_eq!(group.n_killed()?, 0, "{}\n{}", ended.status, ended.err);
    ended.check(1)?;
    let summary: Value = serde_json::from_str(&ended.out)?;
    let flow = &summary["flows"][0];
    let (reason, allowed) = (flow["halted"].as_str().unwrap_or_default(), LIMIT / 2);
    let said = format!("index.total_memory allows {allowed} for all");
    assert!(flow["kind"] == "invalid" && reason.contains(&said), "{flow}");
    assert!(group.peak().is_none_or(|peak| peak > allowed), "the process was not in the group: {:?}", group.peak());
    let landed = flow["fate"]["records_in"].as_i64().unwrap_or_default();
    assert!((1..RECORDS).contains(&landed), "{flow}");
    assert_eq!(counts(&lake).await?, (landed, landed));

    let summary = program.json(once)?;
    assert_eq!(summary["flows"][0]["fate"]["records_in"].as_i64(), Some(RECORDS - landed), "{summary}");
    assert_eq!(counts(&lake).await?, (RECORDS, RECORDS));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_above_the_memory_of_the_group_is_warned_of() -> TestResult {
    let Some(group) = Group::limited()? else { return Ok(()) };
    let (lake, broker) = (Lake::on_disk()?, EmbeddedBroker::start(&[(TOPIC, 2)])?);
    let program = Program::on(&lake).with("ALLUVIUM_INDEX_TOTAL_MEMORY", "1 GiB").in_group(&group.folder);
    let file = program.write("keys.sql", &growing(broker.bootstrap()))?;
    let ended = program.run(&["run", "--once", &file])?;
    ended.check(0)?;
    let warning = ended.err.lines().find(|line| line.contains("key indexes may outgrow the memory"));
    assert!(warning.is_some_and(|line| line.contains(&sized(LIMIT))), "{}", ended.err);
    Ok(())
}
