-- Computed columns of the source, casts, filters and functions.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE orders_raw (
  order_id STRING NOT NULL, email STRING, amount STRING, placed_at TIMESTAMP, lines ARRAY<STRUCT<sku: STRING, n: INT>>,
  domain AS lower(split_part(email, '@', 2))
) WITH ('connection' = 'shop', 'topic' = 'orders', 'error-handling.mode' = 'log', 'error-handling.log.target' = 'ops.rejects');

CREATE STREAMING TABLE lake.orders (
  order_id BIGINT NOT NULL, email_hash STRING, domain STRING, amount DECIMAL(10,2), size STRING, day DATE, n_lines BIGINT
);
CREATE FLOW orders_flow AS INSERT INTO lake.orders BY NAME
SELECT CAST(order_id AS BIGINT) AS order_id, encode(sha256(email), 'hex') AS email_hash, domain,
       CAST(amount AS DECIMAL(10,2)) AS amount, CASE WHEN CAST(amount AS DOUBLE) >= 100 THEN 'large' ELSE 'small' END AS size,
       CAST(placed_at AS DATE) AS day, CAST(cardinality(lines) AS BIGINT) AS n_lines
FROM STREAM(orders_raw) WHERE email IS NOT NULL AND domain <> 'test.invalid';
