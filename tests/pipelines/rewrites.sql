-- The changes of `changes`, into files that are written anew: in one partition and in several, with a cap and without.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE changes (
  shop STRING NOT NULL, id BIGINT NOT NULL, op STRING, note STRING, updated_at TIMESTAMP, pos BIGINT METADATA FROM 'offset'
) WITH ('connection' = 'shop', 'topic' = 'changes', 'key.fields' = 'shop, id');

CREATE STREAMING TABLE lake.stock (
  shop STRING NOT NULL, id BIGINT NOT NULL, note STRING, PRIMARY KEY (shop, id) NOT ENFORCED
) TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write');
CREATE FLOW stock_flow AS AUTO CDC INTO lake.stock FROM STREAM(changes)
KEYS (shop, id) APPLY AS DELETE WHEN op = 'delete' SEQUENCE BY struct(updated_at, pos) COLUMNS (shop, id, note)
STORED AS SCD TYPE 1;

CREATE STREAMING TABLE lake.shelf (
  shop STRING NOT NULL, id BIGINT NOT NULL, note STRING, PRIMARY KEY (shop, id) NOT ENFORCED
) PARTITIONED BY (shop)
  TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write', 'alluvium.upsert.rewrite.max' = '1');
CREATE FLOW shelf_flow AS AUTO CDC INTO lake.shelf FROM STREAM(changes)
KEYS (shop, id) APPLY AS DELETE WHEN op = 'delete' SEQUENCE BY struct(updated_at, pos) COLUMNS (shop, id, note)
STORED AS SCD TYPE 1;
