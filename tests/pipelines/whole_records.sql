-- A record has one fate: where one of its rows is refused, all are. A delete without a place in the order is refused, too.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE baskets (id BIGINT NOT NULL, tags ARRAY<STRING>)
WITH ('connection' = 'shop', 'topic' = 'baskets', 'error-handling.mode' = 'log', 'error-handling.log.target' = 'ops.rejects');
CREATE STREAMING TABLE lake.tags (id BIGINT NOT NULL, tag STRING NOT NULL);
CREATE FLOW tags_flow AS INSERT INTO lake.tags BY NAME SELECT id, unnest(tags) AS tag FROM STREAM(baskets);

CREATE SOURCE changes (id BIGINT NOT NULL, seq BIGINT, op STRING)
WITH ('connection' = 'shop', 'topic' = 'changes', 'error-handling.mode' = 'log', 'error-handling.log.target' = 'ops.rejects');
CREATE STREAMING TABLE lake.state (id BIGINT NOT NULL, seq BIGINT, PRIMARY KEY (id) NOT ENFORCED);
CREATE FLOW state_flow AS AUTO CDC INTO lake.state FROM STREAM(changes) KEYS (id) APPLY AS DELETE WHEN op = 'delete'
SEQUENCE BY seq COLUMNS * EXCEPT (op) STORED AS SCD TYPE 1;
