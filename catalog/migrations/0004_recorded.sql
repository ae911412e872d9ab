-- Up to which version of the table at a location every commit of a flow is recorded; what may lack begins after it.
CREATE TABLE recorded (
    location      TEXT   NOT NULL PRIMARY KEY,
    delta_version BIGINT NOT NULL
);

-- The history of one flow, into whichever tables.
CREATE INDEX commits_by_flow ON commits (flow, committed_at, delta_version);

-- It was always zero: the record is written before the commit ends. How long commits take is a metric.
ALTER TABLE commits DROP COLUMN commit_ms;
