//! How late records become visible: a steady stream, a flow that commits each second, and the clock of a reader.
//!
//! A record's lateness is the time from its timestamp, set when it is produced, to the moment at which the version that
//! holds it can be read. The benchmark looks for the next version every two milliseconds, as an impatient reader would.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use alluvium::delta::log::{DeltaLog, LogEntry};
use alluvium_benches::Workload;
use alluvium_benches::child::{read_json, settle, write_json};
use alluvium_benches::report::{TextTable, grouped, megabytes, percentile, show};
use alluvium_catalog::{Clock, Error, Input, Lineage, Result, SystemClock};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::asked::Asked;
use crate::flow::{Batches, FlowKind};
use crate::lake::Lake;
use crate::measure::{Measured, RUN, nursery, plan};
use crate::stages::runtime;
use crate::topic;

/// How often the next version is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long the flow may take to make its table, and to land the last records.
const LIMIT: Duration = Duration::from_secs(60);
/// The flow has joined its group by then.
const JOIN_WAIT: Duration = Duration::from_secs(5);
/// The interval at which the flow commits.
const COMMIT_INTERVAL_MS: u64 = 1_000;

/// When each record of each partition was produced, epoch milliseconds by offset.
type Produced = BTreeMap<i32, Vec<i64>>;

/// Measures both flows.
pub(crate) fn measure(asked: &Asked, name: &str, workload: &Workload) -> Result<Value> {
    let workload = workload.clone().with_records(asked.rate * asked.seconds);
    let runtime = runtime()?;
    let headings = ["freshness", "records/s", "p50 ms", "p99 ms", "most ms", "commits", "CPU s", "peak RSS"];
    let mut table = TextTable::new(&headings);
    let mut results = Vec::new();
    for kind in [FlowKind::Append, FlowKind::Upsert] {
        let seen = Scene { asked, kind, workload: &workload, runtime: &runtime }.play()?;
        let (mut late, measured) = (seen.late, seen.measured);
        let [middle, high, most] = [0.5, 0.99, 1.0].map(|share| percentile(&mut late, share).unwrap_or_default());
        table.row([
            format!("{name}, {}", kind.as_str()),
            grouped(seen.rate),
            format!("{middle:.0}"),
            format!("{high:.0}"),
            format!("{most:.0}"),
            seen.commits.to_string(),
            format!("{:.2}", measured.spent.cpu_seconds),
            megabytes(measured.spent.rss_peak_bytes),
        ]);
        results.push(json!({
            "flow": kind, "rate": seen.rate, "p50_ms": middle, "p99_ms": high, "most_ms": most,
            "commits": seen.commits, "commit_interval_ms": COMMIT_INTERVAL_MS, "spent": measured.spent,
        }));
    }
    show(&format!("\n{}", table.render()))?;
    Ok(json!({"workload": name, "rate": asked.rate, "seconds": asked.seconds, "freshness": results}))
}

/// One flow under a steady stream.
struct Scene<'a> {
    asked: &'a Asked,
    kind: FlowKind,
    workload: &'a Workload,
    runtime: &'a Runtime,
}

/// What was seen of it.
struct Seen {
    /// Milliseconds, one a record.
    late: Vec<f64>,
    commits: u64,
    /// Records a second that were really produced.
    rate: f64,
    measured: Measured,
}

impl Scene<'_> {
    fn play(&self) -> Result<Seen> {
        let lake = Lake::open(self.asked)?;
        let topic = format!("bench-freshness-{}", SystemClock.new_id().simple());
        topic::create(&self.asked.bootstrap, &topic, self.asked.partitions)?;
        let batches = Batches { interval_ms: Some(COMMIT_INTERVAL_MS), ..Batches::default() };
        let plan = plan(self.asked, &lake, self.kind, &topic, batches)?;
        let file = lake.file("plan.json");
        write_json(&file, &plan)?;
        let mut child = nursery(self.asked, &lake).start(RUN, &file)?;
        let seen = self.await_table(&lake, &mut child).and_then(|log| self.watch(&log, &topic));
        let stopped = Command::new("kill").arg(child.id().to_string()).status();
        stopped.map_err(|cause| Error::unavailable("cannot stop the flow").with_source(cause))?;
        settle(child, RUN, &file)?;
        let seen = seen?;
        let measured = read_json(&plan.answer)?;
        topic::remove(&self.asked.bootstrap, &topic)?;
        self.runtime.block_on(lake.remove())?;
        Ok(Seen { measured, ..seen })
    }

    /// Waits until the flow has made its table and joined its group.
    fn await_table(&self, lake: &Lake, child: &mut Child) -> Result<DeltaLog> {
        let log = DeltaLog::open(&lake.stores(), &lake.table(&self.kind.table())?)?;
        let begun = Instant::now();
        while self.runtime.block_on(log.read(0))?.is_none() {
            if begun.elapsed() > LIMIT || matches!(child.try_wait(), Ok(Some(_))) {
                return Err(Error::unavailable("the flow did not make its table"));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        thread::sleep(JOIN_WAIT);
        Ok(log)
    }

    fn watch(&self, log: &DeltaLog, topic: &str) -> Result<Seen> {
        let begun = Instant::now();
        thread::scope(|scope| {
            let produced = scope.spawn(|| self.produce(topic));
            let versions = self.runtime.block_on(self.versions(log, begun))?;
            let (produced, took) = produced.join().map_err(|_| Error::internal("the producer's thread panicked"))??;
            let late = lateness(&versions, &produced)?;
            let rate = late.len() as f64 / took.as_secs_f64().max(1e-9);
            let commits = versions.len() as u64;
            Ok(Seen { late, commits, rate, measured: Measured::default() })
        })
    }

    /// Produces at a steady rate, a thousandth of a second's records at a time.
    fn produce(&self, topic: &str) -> Result<(Produced, Duration)> {
        let producer = topic::prompt_producer(&self.asked.bootstrap)?;
        let mut produced = Produced::new();
        let begun = Instant::now();
        for (index, record) in self.workload.records().enumerate() {
            let due = Duration::from_secs_f64(index as f64 / self.asked.rate as f64);
            let ahead = due.saturating_sub(begun.elapsed());
            if ahead >= Duration::from_millis(1) {
                thread::sleep(ahead);
            }
            let now_ms = SystemClock.now().0;
            let partition = topic::partition_of(record.key, self.asked.partitions);
            send(&producer, topic, (partition, now_ms), &record.value)?;
            produced.entry(partition).or_default().push(now_ms);
        }
        let took = begun.elapsed();
        topic::flush(&producer)?;
        Ok((produced, took))
    }

    /// Returns each version with the moment at which it could be read, until all records have landed.
    async fn versions(&self, log: &DeltaLog, begun: Instant) -> Result<Vec<(i64, LogEntry)>> {
        let deadline = Duration::from_secs(self.asked.seconds) + LIMIT;
        let (mut versions, mut landed): (Vec<(i64, LogEntry)>, u64) = (Vec::new(), 0);
        while landed < self.workload.records {
            let next = versions.last().map_or(1, |(_, entry)| entry.version + 1);
            if let Some(entry) = log.read(next).await? {
                landed += lineage(&entry)?.map_or(0, |lineage| lineage.fate.records_in);
                versions.push((SystemClock.now().0, entry));
                continue;
            }
            if begun.elapsed() > deadline {
                let wanted = self.workload.records;
                return Err(Error::unavailable(format!("{landed} of {wanted} records became visible in time")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(versions)
    }
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    (partition, now_ms): (i32, i64),
    value: &[u8],
) -> Result<()> {
    let record: BaseRecord<'_, [u8], [u8]> =
        BaseRecord::to(topic).partition(partition).payload(value).timestamp(now_ms);
    topic::send(producer, record)
}

/// Returns the lateness of every record, in milliseconds. The producer is alone and in order, so that a record's offset
/// is its number in its partition.
fn lateness(versions: &[(i64, LogEntry)], produced: &Produced) -> Result<Vec<f64>> {
    let mut late = Vec::new();
    for (visible_ms, entry) in versions {
        for input in lineage(entry)?.into_iter().flat_map(|lineage| lineage.inputs) {
            let Input::Kafka { ranges, .. } = input else { continue };
            for range in ranges {
                let bounds = usize::try_from(range.first).ok().zip(usize::try_from(range.next).ok());
                let times = bounds.and_then(|(first, next)| produced.get(&range.partition)?.get(first..next));
                late.extend(times.unwrap_or_default().iter().map(|time_ms| (visible_ms - time_ms) as f64));
            }
        }
    }
    Ok(late)
}

/// Returns the lineage of a version; none of one that lands no batch, such as a compaction.
fn lineage(entry: &LogEntry) -> Result<Option<Lineage>> {
    let Some(lineage) = entry.info.get(Lineage::KEY) else { return Ok(None) };
    serde_json::from_value(lineage.clone()).map(Some).map_err(|cause| {
        Error::data(format!("version {} has no lineage that can be read", entry.version)).with_source(cause)
    })
}
