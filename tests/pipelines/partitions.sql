-- Partitions by several columns, with values that paths would have to escape, and rows that move between partitions.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE visits (id BIGINT NOT NULL, country STRING, day DATE, seq BIGINT) WITH ('connection' = 'shop', 'topic' = 'visits');

CREATE STREAMING TABLE lake.visits (id BIGINT NOT NULL, country STRING, day DATE, seq BIGINT) PARTITIONED BY (country, day);
CREATE FLOW visits_flow AS INSERT INTO lake.visits BY NAME SELECT * FROM STREAM(visits);

CREATE STREAMING TABLE lake.visitors (id BIGINT NOT NULL, country STRING, seq BIGINT, PRIMARY KEY (id) NOT ENFORCED)
PARTITIONED BY (country);
CREATE FLOW visitors_flow AS AUTO CDC INTO lake.visitors FROM (SELECT id, country, seq FROM STREAM(visits))
KEYS (id) SEQUENCE BY seq STORED AS SCD TYPE 1;
