-- Orders joined with customers as these are when the orders come.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE customers_raw (id BIGINT NOT NULL, name STRING, version BIGINT)
WITH ('connection' = 'shop', 'topic' = 'customers');
CREATE SOURCE orders_raw (order_id BIGINT NOT NULL, customer_id BIGINT)
WITH ('connection' = 'shop', 'topic' = 'orders');

CREATE STREAMING TABLE lake.customers (id BIGINT NOT NULL, name STRING, version BIGINT, PRIMARY KEY (id) NOT ENFORCED);
CREATE FLOW customers_flow AS AUTO CDC INTO lake.customers FROM STREAM(customers_raw)
KEYS (id) SEQUENCE BY version STORED AS SCD TYPE 1;

CREATE STREAMING TABLE lake.orders (order_id BIGINT NOT NULL, customer STRING);
CREATE FLOW orders_flow AS INSERT INTO lake.orders BY NAME
SELECT o.order_id, c.name AS customer FROM STREAM(orders_raw) o LEFT JOIN lake.customers c ON o.customer_id = c.id;
