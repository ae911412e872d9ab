-- What cannot become a row, by class; a source that drops its rejects; and limits.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE kept (id BIGINT NOT NULL, amount DECIMAL(6,2), at TIMESTAMP)
WITH ('connection' = 'shop', 'topic' = 'mixed', 'error-handling.mode' = 'log', 'error-handling.log.target' = 'ops.rejects',
      'record.max.bytes' = '200', 'json.max.depth' = '4');
CREATE SOURCE dropped (id BIGINT NOT NULL, amount DECIMAL(6,2), at TIMESTAMP)
WITH ('connection' = 'shop', 'topic' = 'mixed', 'error-handling.mode' = 'ignore');

CREATE STREAMING TABLE lake.kept (id BIGINT NOT NULL, amount DECIMAL(6,2), at TIMESTAMP, share DECIMAL(10,2));
CREATE FLOW kept_flow AS INSERT INTO lake.kept BY NAME
SELECT id, amount, at, CAST(1000 / id AS DECIMAL(10,2)) AS share FROM STREAM(kept);
CREATE STREAMING TABLE lake.dropped (id BIGINT NOT NULL, amount DECIMAL(6,2), at TIMESTAMP);
CREATE FLOW dropped_flow AS INSERT INTO lake.dropped BY NAME SELECT id, amount, at FROM STREAM(dropped);
