-- A shop's change stream becomes tables: one row an order, one row a customer, and every change that there ever was.
--
-- `alluvium demo` runs this file against a broker of its own. With yours: put its address into the connection, then
-- `alluvium check orders.sql` and `alluvium run orders.sql`.

CREATE CONNECTION shop TYPE kafka WITH (
  'bootstrap.servers' = 'localhost:9092'
);

-- A record is the state of an order after a change: {"op": "update", "order_id": 7, "status": "PAID", ...}.
-- A record that does not fit these columns goes to ops.orders_dlq, with the reason, and spoils nothing else.
CREATE SOURCE orders_raw (
  order_id    BIGINT NOT NULL,
  customer_id BIGINT,
  amount      DECIMAL(18,2),
  currency    STRING,
  status      STRING,
  items       ARRAY<STRUCT<sku: STRING, quantity: INT>>,
  op          STRING COMMENT 'insert, update or delete',
  updated_at  TIMESTAMP,
  kafka_time   TIMESTAMP METADATA FROM 'timestamp',
  kafka_offset BIGINT    METADATA FROM 'offset'
) COMMENT 'changes of orders' WITH (
  'connection' = 'shop',
  'topic' = 'shop.orders',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'error-handling.mode' = 'log',
  'error-handling.log.target' = 'ops.orders_dlq'
);

CREATE SOURCE customers_raw (
  customer_id BIGINT NOT NULL,
  name        STRING,
  email       STRING TAGS (pii),
  country     STRING,
  op          STRING COMMENT 'insert, update or delete',
  updated_at  TIMESTAMP
) COMMENT 'changes of customers' WITH (
  'connection' = 'shop',
  'topic' = 'shop.customers',
  'error-handling.mode' = 'log',
  'error-handling.log.target' = 'ops.customers_dlq'
);

-- The newest state of each order. A late record does not overwrite a newer one, and does not bring a deleted order back.
CREATE OR REFRESH STREAMING TABLE silver.orders (
  order_id    BIGINT NOT NULL,
  customer_id BIGINT,
  amount      DECIMAL(18,2),
  currency    STRING,
  status      STRING,
  n_items     BIGINT,
  updated_at  TIMESTAMP,
  PRIMARY KEY (order_id) NOT ENFORCED
) COMMENT 'one row an order, its newest state';

CREATE FLOW orders_upsert WITH ('commit.interval' = '2 seconds') AS
AUTO CDC INTO silver.orders
FROM (
  SELECT order_id, customer_id, amount, upper(currency) AS currency, status,
         CAST(cardinality(items) AS BIGINT) AS n_items, op, updated_at
  FROM STREAM(orders_raw)
)
KEYS (order_id)
APPLY AS DELETE WHEN op = 'delete'
SEQUENCE BY updated_at
COLUMNS * EXCEPT (op)
STORED AS SCD TYPE 1;

-- The newest state of each customer, with the address only as a hash.
CREATE OR REFRESH STREAMING TABLE silver.customers (
  customer_id BIGINT NOT NULL,
  name        STRING,
  email_hash  STRING,
  country     STRING,
  updated_at  TIMESTAMP,
  PRIMARY KEY (customer_id) NOT ENFORCED
) COMMENT 'one row a customer, its newest state';

CREATE FLOW customers_upsert WITH ('commit.interval' = '2 seconds') AS
AUTO CDC INTO silver.customers
FROM (
  SELECT customer_id, name, encode(sha256(email), 'hex') AS email_hash, country, op, updated_at
  FROM STREAM(customers_raw)
)
KEYS (customer_id)
APPLY AS DELETE WHEN op = 'delete'
SEQUENCE BY updated_at
COLUMNS * EXCEPT (op)
STORED AS SCD TYPE 1;

-- Every change of every order, as it came.
CREATE OR REFRESH STREAMING TABLE bronze.order_events (
  order_id     BIGINT NOT NULL,
  op           STRING,
  status       STRING,
  amount       DECIMAL(18,2),
  updated_at   TIMESTAMP,
  kafka_time   TIMESTAMP,
  kafka_offset BIGINT,
  event_date   DATE
) PARTITIONED BY (event_date) COMMENT 'all changes of orders';

CREATE FLOW order_events WITH ('commit.interval' = '2 seconds') AS
INSERT INTO bronze.order_events BY NAME
SELECT order_id, op, status, amount, updated_at, kafka_time, kafka_offset, CAST(kafka_time AS DATE) AS event_date
FROM STREAM(orders_raw);
