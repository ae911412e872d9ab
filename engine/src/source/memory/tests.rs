//! What the module `memory` promises, tested.

use std::collections::BTreeSet;
use std::time::Duration;

use alluvium_catalog::{Error, ErrorKind, Timestamp};

use super::*;

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);
/// Short, because tests wait for it; long beside what a batch takes.
const INTERVAL: Duration = Duration::from_millis(200);

/// The positions of a table that does not exist.
#[derive(Debug, Default)]
struct Table(Mutex<BTreeMap<Partition, Offset>>);

#[async_trait]
impl TablePositions for Table {
    async fn positions(&self) -> Result<BTreeMap<Partition, Offset>> {
        Ok(lock(&self.0).clone())
    }
}

impl Table {
    fn land(&self, span: &Span) {
        lock(&self.0).extend(span.iter().map(|(partition, range)| (partition, range.next)));
    }
}

struct Bench {
    broker: MemoryBroker,
    topic: Topic,
    table: Arc<Table>,
    settings: MemorySettings,
}

impl Bench {
    fn new(n_partitions: usize) -> Result<Self> {
        let (broker, topic): (_, Topic) = (MemoryBroker::default(), "orders".parse()?);
        broker.create_topic(&topic, n_partitions);
        let mut settings = MemorySettings::new(topic.clone());
        settings.limits = BatchLimits { rows_max: 4, bytes_max: 1 << 20, interval: INTERVAL };
        Ok(Self { broker, topic, table: Arc::default(), settings })
    }

    fn append(&self, partition: Partition, n_records: usize) -> Result<()> {
        (0..n_records).try_for_each(|index| {
            let record = MemoryRecord { timestamp_ms: Some(index as i64), ..MemoryRecord::of("v") };
            self.broker.append(&self.topic, partition, record).map(|_| ())
        })
    }

    fn open(&self) -> Result<MemorySource> {
        let table = Arc::clone(&self.table) as Arc<dyn TablePositions>;
        MemorySource::open(&self.broker, self.settings.clone(), table)
    }
}

fn shown(fetch: &Fetch) -> String {
    match fetch {
        Fetch::Batch(fetched) => format!("{} {}", fetched.records.len(), fetched.span),
        other => format!("{other:?}"),
    }
}

async fn check(source: &mut MemorySource, expected: &str) -> Result<Span> {
    let fetch = source.fetch().await?;
    assert_eq!(shown(&fetch), expected);
    Ok(match fetch {
        Fetch::Batch(fetched) => fetched.span,
        _ => Span::new(),
    })
}

#[tokio::test]
async fn batches_close_by_rows_and_then_by_interval() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.append(P0, 6)?;
    let mut source = bench.open()?;
    check(&mut source, "4 0@[0,4)").await?;
    let begun = Instant::now();
    check(&mut source, "2 0@[4,6)").await?;
    assert!(begun.elapsed() >= INTERVAL);
    check(&mut source, "Idle").await?;
    assert!(begun.elapsed() >= 2 * INTERVAL);
    Ok(())
}

#[tokio::test]
async fn record_that_comes_late_wakes_the_source() -> Result<()> {
    let bench = Bench::new(1)?;
    let mut source = bench.open()?;
    let (broker, topic) = (bench.broker.clone(), bench.topic.clone());
    let producer = tokio::spawn(async move {
        tokio::time::sleep(INTERVAL / 2).await;
        broker.append(&topic, P0, MemoryRecord::of("v"))
    });
    let begun = Instant::now();
    check(&mut source, "1 0@[0,1)").await?;
    assert!(begun.elapsed() >= INTERVAL * 3 / 2, "half until it came, one until its batch closed");
    producer.await.map_err(|error| Error::internal("producer").with_source(error))??;
    Ok(())
}

#[tokio::test]
async fn gaps_are_covered_inside_and_at_the_end() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.append(P0, 3)?;
    bench.broker.compact(&bench.topic, P0, Offset(1))?;
    bench.broker.skip(&bench.topic, P0, 2)?;
    bench.settings.once = true;
    let mut source = bench.open()?;
    check(&mut source, "2 0@[0,5)").await?;
    check(&mut source, "Drained").await?;
    Ok(())
}

#[tokio::test]
async fn once_stops_at_the_ends_of_the_start() -> Result<()> {
    let mut bench = Bench::new(2)?;
    bench.append(P0, 2)?;
    bench.settings.once = true;
    let mut source = bench.open()?;
    bench.append(P0, 5)?;
    bench.append(P1, 5)?;
    check(&mut source, "2 0@[0,2)").await?;
    check(&mut source, "Drained").await?;
    Ok(())
}

#[tokio::test]
async fn once_on_an_empty_or_finished_topic_drains_at_once() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.once = true;
    check(&mut bench.open()?, "Drained").await?;
    bench.append(P0, 1)?;
    let mut source = bench.open()?;
    bench.table.land(&check(&mut source, "1 0@[0,1)").await?);
    check(&mut bench.open()?, "Drained").await?;
    Ok(())
}

#[tokio::test]
async fn resync_goes_on_from_the_table() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.append(P0, 8)?;
    let mut source = bench.open()?;
    let first = check(&mut source, "4 0@[0,4)").await?;
    assert!(source.holds(&first));
    bench.table.land(&first);
    let second = check(&mut source, "4 0@[4,8)").await?;
    source.resync().await?;
    assert!(!source.holds(&second));
    let again = check(&mut source, "4 0@[4,8)").await?;
    assert!(source.holds(&again));
    source.acknowledge(&again);
    assert_eq!(source.member().acknowledged(), BTreeMap::from([(P0, Offset(8))]));
    Ok(())
}

#[tokio::test]
async fn latest_is_remembered_before_anything_landed() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.append(P0, 3)?;
    bench.settings.startup = Startup::Latest;
    let mut source = bench.open()?;
    check(&mut source, "0 0@[3,3)").await?;
    bench.append(P0, 2)?;
    source.resync().await?;
    check(&mut source, "2 0@[3,5)").await?;
    Ok(())
}

#[tokio::test]
async fn startup_modes_begin_where_they_say() -> Result<()> {
    let named = BTreeMap::from([(P0, Offset(3))]);
    for (startup, expected) in [
        (Startup::Earliest, "4 0@[0,4)"),
        (Startup::Timestamp(Timestamp(2)), "4 0@[2,6)"),
        (Startup::Offsets(named), "4 0@[3,7)"),
    ] {
        let mut bench = Bench::new(1)?;
        bench.append(P0, 8)?;
        bench.settings.startup = startup;
        check(&mut bench.open()?, expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn revoke_drops_what_is_in_flight() -> Result<()> {
    let mut bench = Bench::new(2)?;
    bench.settings.limits.rows_max = 100;
    bench.append(P0, 2)?;
    bench.append(P1, 3)?;
    let mut source = bench.open()?;
    let member = source.member();
    let both = check(&mut source, "5 0@[0,2) 1@[0,3)").await?;
    bench.append(P0, 1)?;
    bench.append(P1, 1)?;
    member.revoke(&[P1]);
    assert!(!source.holds(&both));
    let first = check(&mut source, "1 0@[2,3)").await?;
    assert!(source.holds(&first));
    member.assign(&[P1]);
    let again = check(&mut source, "4 1@[0,4)").await?;
    assert!(source.holds(&again) && !source.holds(&both));
    Ok(())
}

#[tokio::test]
async fn lost_offsets_end_reading_with_the_range() -> Result<()> {
    for (bend, said) in [(0, "the 3 offsets [2, 5) are lost"), (1, "the 1 offsets [1, 2)"), (2, "the 2 offsets [0, 2)")]
    {
        let bench = Bench::new(1)?;
        bench.append(P0, 6)?;
        lock(&bench.table.0).insert(P0, Offset(2));
        match bend {
            0 => bench.broker.retain_from(&bench.topic, P0, Offset(5))?,
            1 => bench.broker.truncate(&bench.topic, P0, Offset(1))?,
            _ => bench.broker.create_topic(&bench.topic, 1),
        }
        let error = bench.open()?.fetch().await.err();
        assert_eq!(error.as_ref().map(Error::kind), Some(ErrorKind::Data));
        assert!(error.is_some_and(|error| error.message().contains(said)), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn stop_hands_out_what_there_is() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.append(P0, 2)?;
    let mut source = bench.open()?;
    let stop = bench.settings.stop.clone();
    let stopper = tokio::spawn(async move {
        tokio::time::sleep(INTERVAL / 4).await;
        stop.cancel();
    });
    check(&mut source, "2 0@[0,2)").await?;
    check(&mut source, "Stopped").await?;
    stopper.await.map_err(|error| Error::internal("stopper").with_source(error))?;
    source.close().await
}

#[tokio::test]
async fn stop_is_told_once_and_once_more_after_a_resync() -> Result<()> {
    let mut bench = Bench::new(1)?;
    // A start that the table does not know opens a batch each time, which is never closed after the stop.
    bench.settings.startup = Startup::Latest;
    bench.append(P0, 2)?;
    let mut source = bench.open()?;
    bench.settings.stop.cancel();
    check(&mut source, "0 0@[2,2)").await?;
    for _ in 0..2 {
        check(&mut source, "Stopped").await?;
        bench.append(P0, 1)?;
        check(&mut source, "Idle").await?;
        source.resync().await?;
    }
    check(&mut source, "Stopped").await?;
    source.close().await
}

#[tokio::test]
async fn lag_and_identity_are_told() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.append(P0, 6)?;
    let mut source = bench.open()?;
    check(&mut source, "4 0@[0,4)").await?;
    assert_eq!(source.lag(), [Lag { partition: P0, records: 2 }]);
    let before = source.identity();
    bench.broker.create_topic(&bench.topic, 1);
    assert_ne!(source.identity(), before);
    Ok(())
}

#[tokio::test]
async fn partition_that_is_added_later_begins_at_its_start() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.startup = Startup::Latest;
    bench.append(P0, 2)?;
    let mut source = bench.open()?;
    let added = bench.broker.add_partition(&bench.topic)?;
    bench.append(added, 2)?;
    source.member().assign(&[added]);
    check(&mut source, "2 0@[2,2) 1@[0,2)").await?;
    let offsets: BTreeSet<_> = source.intake.positions().into_values().collect();
    assert_eq!(offsets, BTreeSet::from([Offset(2)]));
    Ok(())
}
