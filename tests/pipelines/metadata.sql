-- What Kafka tells beside the value.
CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'broker:9092');

CREATE SOURCE events (
  what STRING, record_key STRING METADATA FROM 'key', topic_name STRING METADATA FROM 'topic',
  part INT METADATA FROM 'partition', pos BIGINT METADATA FROM 'offset', at TIMESTAMP METADATA FROM 'timestamp',
  trace STRING METADATA FROM 'headers.trace-id', origin BINARY METADATA FROM 'headers.origin'
) WITH ('connection' = 'shop', 'topic' = 'events');

CREATE STREAMING TABLE lake.events (
  what STRING, record_key STRING, topic_name STRING, part INT, pos BIGINT, at TIMESTAMP, trace STRING, origin BINARY
);
CREATE FLOW events_flow AS INSERT INTO lake.events BY NAME SELECT * FROM STREAM(events);
