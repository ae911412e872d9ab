-- The catalog, as docs/FORMATS.md describes it. Only what SQLite and Postgres both understand.
-- Ids and names are text, times are milliseconds since 1970 in UTC, and columns that end in _json hold JSON text.

CREATE TABLE connections (
    name         TEXT NOT NULL PRIMARY KEY,
    kind         TEXT NOT NULL,
    options_json TEXT NOT NULL
);

CREATE TABLE sources (
    name         TEXT NOT NULL PRIMARY KEY,
    connection   TEXT NOT NULL REFERENCES connections (name),
    topic        TEXT NOT NULL,
    columns_json TEXT NOT NULL,
    options_json TEXT NOT NULL,
    comment      TEXT
);

CREATE TABLE datasets (
    schema_name TEXT NOT NULL,
    table_name  TEXT NOT NULL,
    kind        TEXT NOT NULL,
    location    TEXT NOT NULL,
    owner       TEXT,
    description TEXT,
    tags_json   TEXT NOT NULL,
    table_json  TEXT,
    PRIMARY KEY (schema_name, table_name)
);

-- A flow's texts, in the order in which they were put to work. A text that returns is a new version.
CREATE TABLE flow_versions (
    flow        TEXT   NOT NULL,
    seq         BIGINT NOT NULL,
    kind        TEXT   NOT NULL,
    schema_name TEXT   NOT NULL,
    table_name  TEXT   NOT NULL,
    sql_text    TEXT   NOT NULL,
    sql_hash    TEXT   NOT NULL,
    file        TEXT   NOT NULL,
    line        BIGINT NOT NULL,
    PRIMARY KEY (flow, seq)
);

-- What a flow version reads: its source (role stream, ordinal 0) and the tables that it looks up (role lookup).
CREATE TABLE flow_inputs (
    flow    TEXT   NOT NULL,
    seq     BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    role    TEXT   NOT NULL,
    input   TEXT   NOT NULL,
    PRIMARY KEY (flow, seq, ordinal),
    FOREIGN KEY (flow, seq) REFERENCES flow_versions (flow, seq) ON DELETE CASCADE
);

CREATE TABLE runs (
    id         TEXT   NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    ended_at   BIGINT,
    error      TEXT
);

CREATE INDEX runs_by_start ON runs (started_at, id);

-- One row per Delta version. Nothing refers to runs or flow versions by key: a commit may be recorded again from the
-- table's log when those are lost.
CREATE TABLE commits (
    location              TEXT   NOT NULL,
    delta_version         BIGINT NOT NULL,
    schema_name           TEXT   NOT NULL,
    table_name            TEXT   NOT NULL,
    committed_at          BIGINT NOT NULL,
    lineage_format        BIGINT NOT NULL,
    flow                  TEXT   NOT NULL,
    sql_hash              TEXT   NOT NULL,
    run_id                TEXT   NOT NULL,
    write_id              TEXT   NOT NULL,
    engine_version        TEXT   NOT NULL,
    records_in            BIGINT NOT NULL,
    records_applied       BIGINT NOT NULL,
    records_merged        BIGINT NOT NULL,
    records_filtered      BIGINT NOT NULL,
    records_dropped       BIGINT NOT NULL,
    records_quarantined   BIGINT NOT NULL,
    records_dead_lettered BIGINT NOT NULL,
    rows_inserted         BIGINT NOT NULL,
    rows_updated          BIGINT NOT NULL,
    rows_deleted          BIGINT NOT NULL,
    fetch_ms              BIGINT NOT NULL,
    decode_ms             BIGINT NOT NULL,
    transform_ms          BIGINT NOT NULL,
    write_ms              BIGINT NOT NULL,
    commit_ms             BIGINT NOT NULL,
    files_added           BIGINT NOT NULL,
    files_removed         BIGINT NOT NULL,
    bytes_added           BIGINT NOT NULL,
    vectors_written       BIGINT NOT NULL,
    definition_json       TEXT,
    PRIMARY KEY (location, delta_version)
);

CREATE INDEX commits_by_time ON commits (committed_at, delta_version);
CREATE INDEX commits_by_table ON commits (schema_name, table_name, committed_at, delta_version);

-- What a commit read. Kafka: topic and ranges_json ([{partition, first, next, records}, ..], next exclusive).
-- Table: the schema, the table and the Delta version that was looked up.
CREATE TABLE commit_inputs (
    location      TEXT   NOT NULL,
    delta_version BIGINT NOT NULL,
    ordinal       BIGINT NOT NULL,
    kind          TEXT   NOT NULL,
    cluster       TEXT,
    topic         TEXT,
    topic_id      TEXT,
    ranges_json   TEXT,
    input_schema  TEXT,
    input_table   TEXT,
    input_version BIGINT,
    PRIMARY KEY (location, delta_version, ordinal),
    FOREIGN KEY (location, delta_version) REFERENCES commits (location, delta_version) ON DELETE CASCADE
);
