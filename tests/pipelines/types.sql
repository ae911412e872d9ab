-- Every type that a source can declare, as the table keeps it.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE readings (
  id BIGINT NOT NULL, tiny TINYINT, small SMALLINT, whole INT, single FLOAT, ratio DOUBLE, exact DECIMAL(20,4),
  is_on BOOLEAN, label STRING, raw BINARY, day DATE, at TIMESTAMP, local_at TIMESTAMP_NTZ,
  place STRUCT<city: STRING, position: STRUCT<lat: DOUBLE, lon: DOUBLE>>,
  samples ARRAY<INT>, limits MAP<STRING, DOUBLE>, events ARRAY<STRUCT<name: STRING, at: TIMESTAMP>>
) WITH ('connection' = 'shop', 'topic' = 'readings');

CREATE STREAMING TABLE lake.readings (
  id BIGINT NOT NULL, tiny TINYINT, small SMALLINT, whole INT, single FLOAT, ratio DOUBLE, exact DECIMAL(20,4),
  is_on BOOLEAN, label STRING, raw BINARY, day DATE, at TIMESTAMP, local_at TIMESTAMP_NTZ,
  place STRUCT<city: STRING, position: STRUCT<lat: DOUBLE, lon: DOUBLE>>,
  samples ARRAY<INT>, limits MAP<STRING, DOUBLE>, events ARRAY<STRUCT<name: STRING, at: TIMESTAMP>>
);
CREATE FLOW readings_flow AS INSERT INTO lake.readings BY NAME SELECT * FROM STREAM(readings);
