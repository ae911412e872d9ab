-- Orders joined with a registered folder of CSV files as it is when the orders come.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE orders_raw (order_id BIGINT NOT NULL, country STRING)
WITH ('connection' = 'shop', 'topic' = 'orders');

CREATE STREAMING TABLE lake.orders (order_id BIGINT NOT NULL, country STRING, rate DOUBLE);
CREATE FLOW orders_flow AS INSERT INTO lake.orders BY NAME
SELECT o.order_id, c.name AS country, c.rate FROM STREAM(orders_raw) o LEFT JOIN ref.countries c ON o.country = c.code;
