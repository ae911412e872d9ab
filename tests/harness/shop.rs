//! A small shop on the embedded broker and the local disk, for tests that need tables but no services.
//!
//! One topic of order changes lands twice: as it came in `bronze.orders`, and as the newest state of each order in
//! `silver.orders`, which is nested and partitioned. What cannot become a row is in `ops.orders_rejects`.

use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use alluvium_catalog::Partition;
use serde_json::{Value, json};

use super::TestResult;
use super::lake::Lake;
use super::program::Program;

/// The topic.
const TOPIC: &str = "shop.orders";

/// A shop that has been open for a while.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) lake: Lake,
    pub(crate) program: Program,
    broker: EmbeddedBroker,
}

impl Shop {
    /// Opens a shop on `lake` and lands `n_waves` waves of orders, each by a run of its own.
    pub(crate) async fn open(lake: Lake, n_waves: i64) -> TestResult<Self> {
        let broker = EmbeddedBroker::start(&[(TOPIC, 2)])?;
        let program = Program::on(&lake).with("ALLUVIUM_CHECKPOINT_INTERVAL", "2");
        let shop = Self { lake, program, broker };
        shop.program.write("orders.sql", &pipeline(shop.broker.bootstrap()))?;
        for wave in 0..n_waves {
            shop.sell(wave).await?;
            shop.program.done(&["run", "--once", "orders.sql"])?;
        }
        Ok(shop)
    }

    /// Ends the broker and returns the lake.
    pub(crate) fn without_broker(self) -> Lake {
        self.lake
    }

    /// Returns where the broker is.
    pub(crate) fn bootstrap(&self) -> &str {
        self.broker.bootstrap()
    }

    /// Produces a wave: new orders, changes of older ones, deletes, and a few records that are no orders.
    pub(crate) async fn sell(&self, wave: i64) -> TestResult {
        for index in 0..40 {
            let order_id = wave * 20 + index;
            let value = match index % 10 {
                7 => order(order_id / 2, wave, "DELETED").to_string(),
                9 => format!("{{\"order_id\": \"{order_id}-{wave}\"}}"),
                _ => order(order_id, wave, "PAID").to_string(),
            };
            let key = order_id.to_string();
            let partition = Partition(i32::try_from(order_id % 2)?);
            let message = Message {
                partition: Some(partition),
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                timestamp_ms: Some(1_772_000_000_000 + wave * 60_000 + index),
                ..Message::default()
            };
            self.broker.produce(TOPIC, message).await?;
        }
        Ok(self.broker.flush().await?)
    }
}

fn order(order_id: i64, wave: i64, status: &str) -> Value {
    let tags: &[&str] = [&[][..], &["new"], &["new", "gift"]][usize::try_from(order_id % 3).unwrap_or_default()];
    json!({
        "order_id": order_id,
        "customer": if order_id % 5 == 0 { Value::Null } else { json!(format!("customer \u{e9} {}", order_id % 7)) },
        "amount": format!("{}.{:02}", order_id * 3 + wave, order_id % 100),
        "status": status,
        "updated_at": format!("2026-03-{:02}T12:{:02}:00Z", 1 + order_id % 4, wave),
        "address": {"city": format!("city {}", order_id % 4), "zip": null},
        "tags": tags,
        "attributes": {"lines": order_id % 9, "weight": wave},
        "revision": wave * 1_000 + order_id,
    })
}

/// Returns the SQL file.
pub(crate) fn pipeline(bootstrap: &str) -> String {
    const COLUMNS: &str = "order_id BIGINT NOT NULL, customer STRING, amount DECIMAL(18,2), status STRING, \
                           updated_at TIMESTAMP, address STRUCT<city: STRING, zip: STRING>, tags ARRAY<STRING>, \
                           attributes MAP<STRING, BIGINT>, revision BIGINT";
    format!(
        "CREATE CONNECTION shop TYPE kafka WITH ({});

CREATE SOURCE orders_raw (
  {COLUMNS},
  part INT METADATA FROM 'partition', pos BIGINT METADATA FROM 'offset'
) WITH ('connection' = 'shop', 'topic' = '{TOPIC}', 'error-handling.mode' = 'log',
        'error-handling.log.target' = 'ops.orders_rejects');

CREATE STREAMING TABLE bronze.orders ({COLUMNS}, part INT, pos BIGINT) COMMENT 'Every change of an order as it came';
CREATE FLOW orders_append WITH ('commit.interval' = '300 ms', 'commit.rows' = '25') AS
INSERT INTO bronze.orders BY NAME SELECT * FROM STREAM(orders_raw);

CREATE STREAMING TABLE silver.orders ({COLUMNS}, order_date DATE, PRIMARY KEY (order_id) NOT ENFORCED)
PARTITIONED BY (order_date) COMMENT 'The newest state of each order';
CREATE FLOW orders_upsert WITH ('commit.interval' = '300 ms', 'commit.rows' = '25') AS AUTO CDC INTO silver.orders
FROM (SELECT *, CAST(updated_at AS DATE) AS order_date FROM STREAM(orders_raw))
KEYS (order_id) APPLY AS DELETE WHEN status = 'DELETED' SEQUENCE BY revision COLUMNS * EXCEPT (part, pos)
STORED AS SCD TYPE 1;
",
        embedded_options(bootstrap)
    )
}

/// Returns the options of a connection to the embedded broker, which lets a new member of a group wait until the
/// sessions of those that have left are over; shorter ones would be over before its group has gathered, which takes 3 s.
pub(crate) fn embedded_options(bootstrap: &str) -> String {
    format!("'bootstrap.servers' = '{bootstrap}', 'session.timeout.ms' = '4000', 'heartbeat.interval.ms' = '500'")
}
