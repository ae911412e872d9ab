//! Where reading begins and what is read, on a real broker: the modes of `scan.startup.mode`, offsets that the consumer
//! group has committed, transactions that were committed, aborted or are open, and offsets that retention took away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use alluvium_catalog::{Clock, SystemClock};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Place, Record};
use crate::harness::program::Program;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, reader, services, unique};

const TABLE: &str = "lake.events";

/// How long the broker may take for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// A topic, and a program that lands it.
struct Bench {
    lake: Lake,
    program: Program,
    kafka: String,
    topic: Topic,
}

impl Bench {
    async fn on(kafka: &str, n_partitions: i32) -> TestResult<Self> {
        let (lake, topic) = (Lake::on_disk()?, Topic::create(kafka, n_partitions).await?);
        Ok(Self { program: Program::on(&lake), lake, kafka: kafka.to_owned(), topic })
    }

    /// Writes the SQL file, with `startup` as further options of the source.
    fn write(&self, startup: &str) -> TestResult<String> {
        let (kafka, topic) = (&self.kafka, self.topic.name());
        let sql = format!(
            "CREATE CONNECTION broker TYPE kafka WITH ('bootstrap.servers' = '{kafka}');
CREATE SOURCE events (
  id BIGINT NOT NULL, part INT METADATA FROM 'partition', pos BIGINT METADATA FROM 'offset'
) WITH ('connection' = 'broker', 'topic' = '{topic}'{startup});
CREATE STREAMING TABLE {TABLE} (id BIGINT NOT NULL, part INT, pos BIGINT);
CREATE FLOW events_append AS INSERT INTO {TABLE} BY NAME SELECT id, part, pos FROM STREAM(events);
"
        );
        self.program.write("pipeline.sql", &sql)
    }

    /// Lands what there is.
    fn land(&self, startup: &str) -> TestResult {
        let file = self.write(startup)?;
        self.program.done(&["run", "--once", &file]).map(drop)
    }

    /// Produces `n_records` to each of `partitions`.
    fn produce(&self, partitions: &[i32], n_records: i64) -> TestResult {
        let record = |id| Record::Put { id, seq: 0, note: String::new() };
        let records = (0..n_records).flat_map(|id| partitions.iter().map(move |partition| (*partition, record(id))));
        self.topic.produce(records.collect(), &mut Ledger::default())
    }

    /// Returns the places of the rows.
    async fn places(&self) -> TestResult<BTreeSet<Place>> {
        let rows = reader::deltalake_rows(&self.lake, &self.lake.table(TABLE)?, "SELECT part, pos FROM t").await?;
        let place = |row: &Value| Some((i32::try_from(row["part"].as_i64()?).ok()?, row["pos"].as_i64()?));
        let places: BTreeSet<Place> = rows.iter().filter_map(place).collect();
        assert_eq!(places.len(), rows.len(), "a record is there twice: {rows:?}");
        Ok(places)
    }

    /// Returns where the table stands in `partition`.
    async fn position(&self, partition: i32) -> TestResult<Option<i64>> {
        let app_id = format!("alluvium/events_append/{}/{partition}", self.topic.name());
        let log = reader::log(&self.lake, &self.lake.table(TABLE)?).await?;
        let txns = log.iter().flat_map(|entry| entry.actions("txn"));
        Ok(txns.filter(|txn| txn["appId"] == app_id).filter_map(|txn| txn["version"].as_i64()).last())
    }
}

/// Returns the places of partition `partition` from `first` to before `next`.
fn range(partition: i32, first: i64, next: i64) -> BTreeSet<Place> {
    (first..next).map(|offset| (partition, offset)).collect()
}

/// Produces, lets `startup` decide where to begin, produces more and lands again under another mode, which must not
/// matter any more.
async fn begins(kafka: &str, startup: impl FnOnce(i64) -> String, expected: [BTreeSet<Place>; 2]) -> TestResult {
    let bench = Bench::on(kafka, 2).await?;
    bench.produce(&[0, 1], 5)?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let middle = SystemClock.now().0;
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.produce(&[0, 1], 5)?;
    let startup = startup(middle);
    bench.land(&startup)?;
    assert_eq!(bench.places().await?, expected[0], "{startup}");
    for partition in [0, 1] {
        assert_eq!(bench.position(partition).await?, Some(10), "{startup}: partition {partition}");
    }
    bench.produce(&[0, 1], 2)?;
    bench.land(", 'scan.startup.mode' = 'earliest-offset'")?;
    assert_eq!(bench.places().await?, expected[1], "{startup}, then earliest-offset");
    Ok(())
}

/// Returns the places of both partitions from `first` and `second` to before `next`.
fn both(first: i64, second: i64, next: i64) -> BTreeSet<Place> {
    &range(0, first, next) | &range(1, second, next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earliest_offset_begins_with_the_oldest_record() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    begins(&kafka, |_| ", 'scan.startup.mode' = 'earliest-offset'".to_owned(), [both(0, 0, 10), both(0, 0, 12)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_offset_begins_with_what_comes_after_the_start() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    begins(&kafka, |_| ", 'scan.startup.mode' = 'latest-offset'".to_owned(), [both(10, 10, 10), both(10, 10, 12)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamp_begins_with_the_first_record_at_or_after() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let startup = |middle| format!(", 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '{middle}'");
    begins(&kafka, startup, [both(5, 5, 10), both(5, 5, 12)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn specific_offsets_begin_where_they_say_and_elsewhere_with_the_oldest_record() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let startup = |_| {
        ", 'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = 'partition:1,offset:7'"
            .to_owned()
    };
    begins(&kafka, startup, [both(0, 7, 10), both(0, 7, 12)]).await
}

/// Sets the offsets that `group` has committed, those of partition 0 first, as another program or an operator would.
fn commit_as(group: &str, bench: &Bench, offsets: [i64; 2]) -> TestResult {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(offsets) {
        list.add_partition_offset(bench.topic.name(), partition, Offset::Offset(offset))?;
    }
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &bench.kafka).set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let begun = Instant::now();
    // The process that has just ended may still be leaving the group.
    while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        if begun.elapsed() > LIMIT {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let committed = consumer.committed_offsets(list, LIMIT)?;
    let committed: Vec<Offset> = committed.elements().iter().map(|element| element.offset()).collect();
    assert_eq!(committed, offsets.map(Offset::Offset), "the broker did not take the offsets of {group}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_positions_begins_as_its_startup_mode_says_whatever_its_group_has_committed() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let modes = [
        ("'earliest-offset'", [7, 10], both(0, 0, 10)),
        ("'latest-offset'", [0, 3], BTreeSet::new()),
        ("'specific-offsets', 'scan.startup.specific-offsets' = 'partition:1,offset:7'", [9, 2], both(0, 7, 10)),
    ];
    for (mode, committed, expected) in modes {
        let (bench, group) = (Bench::on(&kafka, 2).await?, unique("group"));
        bench.produce(&[0, 1], 10)?;
        commit_as(&group, &bench, committed)?;
        bench.land(&format!(", 'group.id' = '{group}', 'scan.startup.mode' = {mode}"))?;
        assert_eq!(bench.places().await?, expected, "{mode} of a group at {committed:?}");
        for partition in [0, 1] {
            assert_eq!(bench.position(partition).await?, Some(10), "{mode}: partition {partition}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_goes_on_at_its_own_positions_whatever_its_group_has_committed() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let (bench, group) = (Bench::on(&kafka, 2).await?, unique("group"));
    bench.produce(&[0, 1], 10)?;
    bench.land(&format!(", 'group.id' = '{group}', 'scan.startup.mode' = 'earliest-offset'"))?;
    assert_eq!(bench.places().await?, both(0, 0, 10));
    let startup = format!(", 'group.id' = '{group}', 'scan.startup.mode' = 'latest-offset'");
    // Partition 0 would lose records and partition 1 read some twice; then the other way round.
    for (committed, next) in [([15, 2], 15), ([0, 20], 20)] {
        bench.produce(&[0, 1], 5)?;
        commit_as(&group, &bench, committed)?;
        bench.land(&startup)?;
        assert_eq!(bench.places().await?, both(0, 0, next), "of a group at {committed:?}");
        for partition in [0, 1] {
            assert_eq!(bench.position(partition).await?, Some(next), "partition {partition}");
        }
    }
    Ok(())
}

/// Sends `n_records` to partition 0.
fn send(producer: &BaseProducer, topic: &str, n_records: i64) -> TestResult {
    for id in 0..n_records {
        let value = format!("{{\"id\": {id}}}");
        let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(LIMIT)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_records_never_land_and_positions_move_over_them() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let bench = Bench::on(&kafka, 1).await?;
    let topic = bench.topic.name();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka).set("transactional.id", format!("{topic}-producer"));
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(LIMIT)?;
    // Each transaction ends with a marker, which takes an offset: 0-2 and 3, 4-7 and 8, 9-10 and 11, 12-13 and 14.
    for (n_records, commits) in [(3, true), (4, false), (2, true), (2, false)] {
        producer.begin_transaction()?;
        send(&producer, topic, n_records)?;
        if commits { producer.commit_transaction(LIMIT)? } else { producer.abort_transaction(LIMIT)? }
    }
    bench.land("")?;
    let committed = &range(0, 0, 3) | &range(0, 9, 11);
    assert_eq!(bench.places().await?, committed);
    assert_eq!(bench.position(0).await?, Some(15), "the position stands behind the last marker");

    // What is open is not read, and not passed over either.
    producer.begin_transaction()?;
    send(&producer, topic, 2)?;
    bench.land("")?;
    assert_eq!(bench.places().await?, committed);
    assert_eq!(bench.position(0).await?, Some(15));
    producer.commit_transaction(LIMIT)?;
    bench.land("")?;
    assert_eq!(bench.places().await?, &committed | &range(0, 15, 17));
    assert_eq!(bench.position(0).await?, Some(18));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_retention_took_halt_the_flow_and_the_lost_range_is_named() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let bench = Bench::on(&kafka, 2).await?;
    bench.produce(&[0, 1], 10)?;
    bench.land("")?;
    bench.produce(&[0, 1], 10)?;
    bench.topic.delete_before(1, 15).await?;
    let file = bench.write("")?;
    let ended = bench.program.run(&["run", "--once", &file])?;
    ended.check(1)?;
    let lost = format!("offset 10 of {}/1 is out of range", bench.topic.name());
    for said in [lost.as_str(), "the partition holds [15, 20)", "the 5 offsets [10, 15) are lost", "new name"] {
        assert!(ended.out.contains(said), "{said} is not in\n{}", ended.out);
    }
    let places = bench.places().await?;
    assert!(places.range((1, 10)..).next().is_none(), "partition 1 was read on: {places:?}");
    assert_eq!(bench.position(1).await?, Some(10));
    Ok(())
}
