//! What the module `kafka` promises, tested.

use std::collections::BTreeMap;

use alluvium_catalog::{ErrorKind, Offset, OptionValue, Partition};
use bytes::Bytes;
use rdkafka::client::ClientContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;

use super::embedded::{EmbeddedBroker, Message};
use super::*;
use crate::hop::{Fetched, Records};

const TOPIC: &str = "orders";

/// The positions of a table that does not exist.
#[derive(Debug, Default)]
struct Table(Mutex<BTreeMap<Partition, Offset>>);

impl Table {
    fn positions(&self) -> MutexGuard<'_, BTreeMap<Partition, Offset>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn land(&self, span: &Span) {
        self.positions().extend(span.iter().map(|(partition, range)| (partition, range.next)));
    }
}

#[async_trait]
impl TablePositions for Table {
    async fn positions(&self) -> Result<BTreeMap<Partition, Offset>> {
        Ok(self.positions().clone())
    }
}

struct Bench {
    broker: EmbeddedBroker,
    table: Arc<Table>,
    settings: KafkaSettings,
}

impl Bench {
    fn new(n_partitions: i32) -> Result<Self> {
        let broker = EmbeddedBroker::start(&[(TOPIC, n_partitions)])?;
        let mut settings = KafkaSettings::new(broker.connection("shop".parse()?), TOPIC.parse()?, "alluvium-test");
        // The mock cluster lets a session time pass before it forms a group anew.
        for (key, value) in [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")] {
            settings.connection.options.insert(key.to_owned(), OptionValue::Text(value.to_owned()));
        }
        settings.limits = BatchLimits { rows_max: 1_000, bytes_max: 1 << 20, interval: Duration::from_millis(300) };
        Ok(Self { broker, table: Arc::default(), settings })
    }

    async fn produce(&self, partition: i32, n_records: usize) -> Result<()> {
        for index in 0..n_records {
            let value = format!("{partition}-{index}");
            let message = Message {
                partition: Some(Partition(partition)),
                key: Some(b"key"),
                value: Some(value.as_bytes()),
                ..Message::default()
            };
            self.broker.produce(TOPIC, message).await?;
        }
        self.broker.flush().await
    }

    async fn open(&self) -> Result<KafkaSource> {
        KafkaSource::open(self.settings.clone(), Arc::clone(&self.table) as Arc<dyn TablePositions>).await
    }
}

/// Waits for something; joining a group takes some seconds, in which a source is idle.
async fn awaited(source: &mut KafkaSource) -> Result<Fetch> {
    for _ in 0..100 {
        match source.fetch().await? {
            Fetch::Idle => {}
            other => return Ok(other),
        }
    }
    Err(Error::internal("nothing came"))
}

async fn batch(source: &mut KafkaSource) -> Result<Fetched> {
    match awaited(source).await? {
        Fetch::Batch(fetched) => Ok(*fetched),
        other => Err(Error::internal(format!("expected a batch, got {other:?}"))),
    }
}

/// Fetches until every position of `expected` was handed out, and lands it.
async fn read_until(source: &mut KafkaSource, table: &Table, expected: &[(i32, i64)]) -> Result<usize> {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(partition, next)| (Partition(*partition), Offset(*next))).collect();
    let mut n_records = 0;
    while *table.positions() != expected {
        let fetched = batch(source).await?;
        n_records += fetched.records.len();
        table.land(&fetched.span);
        source.acknowledge(&fetched.span);
    }
    Ok(n_records)
}

fn values(records: &Records) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_whole_and_in_order() -> Result<()> {
    let bench = Bench::new(1)?;
    let headers = vec![("h".to_owned(), Some(Bytes::from_static(b"1"))), ("h".to_owned(), None)];
    let tombstone = Message { key: Some(b"k"), headers: headers.clone(), timestamp_ms: Some(42), ..Message::default() };
    bench.broker.produce(TOPIC, tombstone).await?;
    bench.produce(0, 2).await?;
    let mut source = bench.open().await?;
    let fetched = batch(&mut source).await?;
    assert_eq!(fetched.span.to_string(), "0@[0,3)");
    let first = fetched.records.get(0).ok_or_else(|| Error::internal("no record"))?;
    assert_eq!((first.key, first.value, first.timestamp_ms), (Some(&b"k"[..]), None, Some(42)));
    assert_eq!(fetched.records.headers(0), headers);
    assert_eq!(values(&fetched.records), ["", "0-0", "0-1"]);
    assert!(source.holds(&fetched.span));
    assert!(source.identity().cluster.is_some());
    // 16 bytes in base64.
    assert!(source.identity().topic_id.is_some_and(|id| id.len() == 22));
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_close_by_rows_and_touch() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.limits.rows_max = 10;
    bench.produce(0, 25).await?;
    let mut source = bench.open().await?;
    let mut spans = Vec::new();
    for _ in 0..3 {
        spans.push(batch(&mut source).await?.span.to_string());
    }
    assert_eq!(spans, ["0@[0,10)", "0@[10,20)", "0@[20,25)"]);
    assert!(matches!(source.fetch().await?, Fetch::Idle));
    assert_eq!(source.lag(), [Lag { partition: Partition(0), records: 0 }]);
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_a_partition_is_read_from_librdkafkas_words() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.produce(0, 3).await?;
    let connection = &bench.settings.connection;
    let consumer = client::consumer(connection, &client::client_config(connection, "words")?)?;
    let start = poll::list(TOPIC, [(Partition(0), rdkafka::Offset::Beginning)])?;
    consumer.assign(&start).map_err(|error| Error::internal("not assigned").with_source(error))?;
    let is_end = |polled: Option<Result<_, KafkaError>>| matches!(polled, Some(Err(KafkaError::PartitionEOF(0))));
    let polls = std::iter::repeat_with(|| is_end(consumer.poll(Duration::from_millis(50)))).take(600);
    assert!(polls.into_iter().any(|is_end| is_end), "the end is reached");
    assert_eq!(consumer.context().take_end_reached(), Some(Offset(3)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_modes_begin_where_they_say() -> Result<()> {
    for (startup, landed, expected) in [
        (Startup::Earliest, None, "5 0@[0,5)"),
        (Startup::Latest, None, "0 0@[5,5)"),
        (Startup::Offsets(BTreeMap::from([(Partition(0), Offset(3))])), None, "2 0@[3,5)"),
        (Startup::Latest, Some(Offset(1)), "4 0@[1,5)"),
    ] {
        let mut bench = Bench::new(1)?;
        bench.settings.startup = startup;
        bench.table.positions().extend(landed.map(|offset| (Partition(0), offset)));
        bench.produce(0, 5).await?;
        let mut source = bench.open().await?;
        let fetched = batch(&mut source).await?;
        assert_eq!(format!("{} {}", fetched.records.len(), fetched.span), expected);
        source.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_did_not_land_stays_when_the_source_is_opened_again() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.startup = Startup::Latest;
    bench.produce(0, 3).await?;
    let mut source = bench.open().await?;
    assert_eq!(batch(&mut source).await?.span.to_string(), "0@[3,3)");
    // Nothing of it lands, the source is closed, and the topic grows.
    source.close().await?;
    bench.produce(0, 2).await?;
    let mut source = bench.open().await?;
    assert_eq!(read_until(&mut source, &bench.table, &[(0, 5)]).await?, 2);
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn once_drains_to_the_ends_of_the_start() -> Result<()> {
    let mut bench = Bench::new(3)?;
    bench.settings.once = true;
    bench.produce(0, 5).await?;
    bench.produce(1, 7).await?;
    let mut source = bench.open().await?;
    bench.produce(0, 2).await?;
    let fetched = batch(&mut source).await?;
    assert_eq!(fetched.span.to_string(), "0@[0,5) 1@[0,7)");
    assert!(matches!(source.fetch().await?, Fetch::Drained));
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn once_on_an_empty_topic_drains_without_a_batch() -> Result<()> {
    let mut bench = Bench::new(2)?;
    bench.settings.once = true;
    let mut source = bench.open().await?;
    let mut fetch = source.fetch().await?;
    while matches!(fetch, Fetch::Idle) {
        fetch = source.fetch().await?;
    }
    assert!(matches!(fetch, Fetch::Drained), "{fetch:?}");
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn resync_goes_on_from_the_table_without_gap_or_repetition() -> Result<()> {
    let mut bench = Bench::new(2)?;
    bench.settings.limits.rows_max = 100;
    bench.produce(0, 500).await?;
    bench.produce(1, 500).await?;
    let mut source = bench.open().await?;
    for _ in 0..5 {
        let landed = batch(&mut source).await?;
        bench.table.land(&landed.span);
        let lost = batch(&mut source).await?;
        assert!(source.holds(&lost.span));
        source.resync().await?;
        assert!(!source.holds(&lost.span));
    }
    let before: i64 = bench.table.positions().values().map(|offset| offset.0).sum();
    let n_records = read_until(&mut source, &bench.table, &[(0, 500), (1, 500)]).await?;
    assert_eq!(i64::try_from(n_records).ok(), Some(1_000 - before));
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_engine_pauses_and_loses_nothing() -> Result<()> {
    let mut bench = Bench::new(2)?;
    bench.settings.limits.rows_max = 50;
    bench.produce(0, 400).await?;
    bench.produce(1, 400).await?;
    let mut source = bench.open().await?;
    let first = batch(&mut source).await?;
    bench.table.land(&first.span);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let n_records = read_until(&mut source, &bench.table, &[(0, 400), (1, 400)]).await?;
    assert_eq!(n_records + first.records.len(), 800);
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_backed_up_gives_partitions_away() -> Result<()> {
    let mut bench = Bench::new(2)?;
    bench.settings.limits.rows_max = 50;
    bench.produce(0, 400).await?;
    bench.produce(1, 400).await?;
    let mut first = bench.open().await?;
    bench.table.land(&batch(&mut first).await?.span);
    // One batch waits and one is full: the partitions are paused after two seconds, and nobody fetches.
    tokio::time::sleep(poll::GRACE + Duration::from_secs(1)).await;
    let mut second = bench.open().await?;
    let taken = batch(&mut second).await?;
    assert_eq!(taken.span.iter().count(), 1, "{}", taken.span);
    second.close().await?;
    first.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn second_member_takes_over_partitions_and_fences_their_batches() -> Result<()> {
    let bench = Bench::new(4)?;
    for partition in 0..4 {
        bench.produce(partition, 10).await?;
    }
    let mut first = bench.open().await?;
    let n_first = read_until(&mut first, &bench.table, &[(0, 10), (1, 10), (2, 10), (3, 10)]).await?;
    assert_eq!(n_first, 40);
    for partition in 0..4 {
        bench.produce(partition, 5).await?;
    }
    let mut unlanded = Vec::new();
    while unlanded.iter().map(|fetched: &Fetched| fetched.records.len()).sum::<usize>() < 20 {
        unlanded.push(batch(&mut first).await?);
    }
    let mut second = bench.open().await?;
    let taken = batch(&mut second).await?;
    let moved: Vec<_> = taken.span.iter().map(|(partition, _)| partition).collect();
    assert!(!moved.is_empty() && moved.len() < 4, "{moved:?}");
    for fetched in &unlanded {
        let has_moved = fetched.span.iter().any(|(partition, _)| moved.contains(&partition));
        assert_eq!(first.holds(&fetched.span), !has_moved, "{} {moved:?}", fetched.span);
    }
    assert!(taken.span.iter().all(|(_, range)| range.first == Offset(10)), "{}", taken.span);
    assert!(second.holds(&taken.span));
    second.close().await?;
    first.resync().await?;
    read_until(&mut first, &bench.table, &[(0, 15), (1, 15), (2, 15), (3, 15)]).await?;
    first.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn position_out_of_range_is_told_and_not_reset() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.produce(0, 5).await?;
    bench.table.positions().insert(Partition(0), Offset(9));
    let mut source = bench.open().await?;
    let error = batch(&mut source).await.err().ok_or_else(|| Error::internal("a batch came"))?;
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().contains("offset 9 of orders/0") && error.message().contains("[0, 5)"), "{error}");
    // The engine asks again when a batch that it had fetched before does not land.
    for again in [source.resync().await.err(), source.fetch().await.err()] {
        assert_eq!(again.map(|again| (again.kind(), again.chain())), Some((error.kind(), error.chain())));
    }
    source.close().await
}

#[test]
fn failure_says_the_same_however_often_it_is_asked_for() {
    let shared = Shared::default();
    assert!(shared.failure().is_none());
    let cause = Error::data("byte 3 is wrong").with_source(Error::closed("end of file"));
    shared.fail(Error::unavailable("cannot seek").with_source(cause).with_hint("wait"));
    let shown = |error: Error| format!("{} {error} | {} | {:?}", error.kind(), error.chain(), error.hint());
    let expected = r#"unavailable cannot seek | cannot seek: byte 3 is wrong: end of file | Some("wait")"#;
    for _ in 0..3 {
        assert_eq!(shared.failure().map(shown).as_deref(), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn look_for_a_topic_that_seems_gone_takes_no_record_away() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.produce(0, 3).await?;
    let (connection, topic) = (&bench.settings.connection, &bench.settings.topic);
    let consumer = Unassigned::create(connection, topic, "look")?.into_consumer();
    let start = poll::list(TOPIC, [(Partition(0), rdkafka::Offset::Beginning)])?;
    consumer.assign(&start).map_err(|error| Error::internal("not assigned").with_source(error))?;
    // A refusal of long ago, after which the brokers let us in.
    consumer.context().error(KafkaError::Global(RDKafkaErrorCode::Authentication), "no such user");
    let (limit, stop) = (Duration::from_secs(2), CancellationToken::new());
    connect::TopicView { consumer: &consumer, connection, topic }.look_again(limit, limit, || stop.is_cancelled())?;
    let gone: Topic = "gone".parse()?;
    let view = connect::TopicView { consumer: &consumer, connection, topic: &gone };
    // Long enough for the records to come meanwhile.
    let error = view
        .look_again(limit, 2 * limit, || stop.is_cancelled())
        .err()
        .ok_or_else(|| Error::internal("it is there"))?;
    assert!(error.message().starts_with("there is no topic gone"), "{error}");
    let polls = std::iter::repeat_with(|| consumer.poll(Duration::from_millis(50))).take(600);
    let records = polls.filter_map(|polled| polled?.ok());
    let offsets: Vec<_> = records.map(|record| record.offset()).take(3).collect();
    assert_eq!(offsets, [0, 1, 2]);
    stop.cancel();
    let stopped = view.look_again(limit, 2 * limit, || stop.is_cancelled()).err().map(|error| error.kind());
    assert_eq!(stopped, Some(ErrorKind::Closed), "a stop waits for the whole look");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_moved_away_from_the_table_is_told() -> Result<()> {
    let bench = Bench::new(1)?;
    bench.produce(0, 10).await?;
    bench.table.positions().insert(Partition(0), Offset(10));
    // The broker keeps 5 MiB of a partition.
    let value = vec![b'x'; 100_000];
    for _ in 0..100 {
        bench.broker.produce(TOPIC, Message { value: Some(&value), ..Message::default() }).await?;
        bench.broker.flush().await?;
    }
    let mut source = bench.open().await?;
    let error = batch(&mut source).await.err().ok_or_else(|| Error::internal("a batch came"))?;
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().contains("are lost") && error.message().contains("offset 10 of orders/0"), "{error}");
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_topic_and_silent_broker_are_told_in_time() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.topic = "order".parse()?;
    let error = bench.open().await.err().ok_or_else(|| Error::internal("it opened"))?;
    assert_eq!((error.kind(), error.hint().is_some()), (ErrorKind::Invalid, true), "{error}");
    let nowhere = OptionValue::Text("127.0.0.1:1".to_owned());
    bench.settings.connection.options.insert("bootstrap.servers".to_owned(), nowhere);
    bench.settings.connect_limit = Duration::from_secs(3);
    let error = bench.open().await.err().ok_or_else(|| Error::internal("it opened"))?;
    assert_eq!((error.kind(), error.hint().is_some()), (ErrorKind::Unavailable, true), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_hands_out_what_there_is() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.limits.interval = Duration::from_secs(60);
    bench.produce(0, 5).await?;
    let mut source = bench.open().await?;
    while !source.shared.is_filling.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.settings.stop.cancel();
    let fetched = batch(&mut source).await?;
    assert_eq!(fetched.span.to_string(), "0@[0,5)");
    assert!(source.holds(&fetched.span));
    assert!(matches!(source.fetch().await?, Fetch::Stopped));
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn source_that_begins_again_after_a_stop_is_stopped_again() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.limits.rows_max = 2;
    bench.produce(0, 5).await?;
    let mut source = bench.open().await?;
    assert_eq!(batch(&mut source).await?.span.to_string(), "0@[0,2)");
    // The next batch waits to be fetched, and behind it the last one and the stop, when all of that is forgotten.
    bench.settings.stop.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        source.resync().await?;
        assert!(matches!(awaited(&mut source).await?, Fetch::Stopped));
        // One that waited to be fetched comes, too.
        let again = source.fetch().await?;
        let rest = if matches!(again, Fetch::Stopped) { source.fetch().await? } else { again };
        assert!(matches!(rest, Fetch::Idle), "{rest:?}");
    }
    source.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn peek_shows_the_newest_of_each_partition() -> Result<()> {
    let bench = Bench::new(2)?;
    bench.produce(0, 5).await?;
    bench.produce(1, 2).await?;
    let limits = PeekLimits { records_max: 3, ..PeekLimits::default() };
    let records = peek(&bench.settings.connection, &bench.settings.topic, limits).await?;
    assert_eq!(values(&records), ["0-4", "1-1", "0-3", "1-0", "0-2"]);
    let empty = EmbeddedBroker::start(&[(TOPIC, 1)])?;
    assert!(peek(&empty.connection("shop".parse()?), &bench.settings.topic, limits).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn once_keeps_its_first_ends_when_it_is_opened_again() -> Result<()> {
    let mut bench = Bench::new(1)?;
    bench.settings.once = true;
    bench.produce(0, 3).await?;
    let mut source = bench.open().await?;
    assert!(!source.is_ready(), "no partition is assigned yet");
    let first = batch(&mut source).await?;
    assert_eq!(first.span.to_string(), "0@[0,3)");
    assert!(source.is_ready());
    // Nothing of it lands, the source is closed, and the topic grows.
    source.close().await?;
    bench.produce(0, 4).await?;
    let mut source = bench.open().await?;
    assert_eq!(read_until(&mut source, &bench.table, &[(0, 3)]).await?, 3);
    loop {
        match source.fetch().await? {
            Fetch::Drained => break,
            Fetch::Idle => {}
            other => return Err(Error::internal(format!("expected the end, got {other:?}"))),
        }
    }
    source.close().await
}
