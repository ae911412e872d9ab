//! Every kind of table that can be written, each one entry of [`KINDS`] with its records.

use serde_json::json;

use super::appends::{
    distinct, dripped, hive_null, locked, named, nested, numbered, partitioned, scalars, spread, wall_clock,
};
use super::changes::{changes, composite, large, rearranged, replaced, shelved, stamped, tended, tended_nested, worn};
use super::kind::{Effect, Flow, Kind, Made, Shows};

/// Every kind of table.
pub(super) const KINDS: [Kind; 30] = [
    Kind {
        name: "scalars",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, is_on BOOLEAN, tiny TINYINT, small SMALLINT, whole INT, ratio FLOAT, \
                      precise DOUBLE, exact DECIMAL(9,2), money DECIMAL(18,4), huge DECIMAL(38,10), label STRING, \
                      bytes BINARY, day DATE, at TIMESTAMP",
            batch: 4,
            records: scalars,
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1, Shows::Versions(2)],
        filters: &["id < 0", "label > 'label 3'", "exact < 0", "day <= DATE '1582-10-04'"],
    },
    Kind {
        name: "nested",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRUCT<city: STRING, position: STRUCT<lat: DOUBLE, lon: DOUBLE>>, \
                      samples ARRAY<INT>, grid ARRAY<ARRAY<DECIMAL(10,2)>>, limits MAP<STRING, DOUBLE>, \
                      events ARRAY<STRUCT<name: STRING, at: TIMESTAMP, bytes: BINARY>>, \
                      deep MAP<STRING, ARRAY<STRUCT<days: ARRAY<DATE>, notes: MAP<STRING, STRING>>>>",
            batch: 3,
            records: nested,
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1],
        filters: &["place IS NULL"],
    },
    Kind {
        name: "wall_clock",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, local_at TIMESTAMP_NTZ, at TIMESTAMP, \
                      visits ARRAY<STRUCT<local_at: TIMESTAMP_NTZ>>",
            records: wall_clock,
            ..APPEND
        }),
        shows: &[Shows::WriterFeature("timestampNtz"), Shows::WriterFeature("invariants")],
        filters: &["local_at < TIMESTAMP '1950-01-01 00:00:00'"],
    },
    Kind {
        name: "partitioned",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRING, day DATE, note STRING",
            clauses: "PARTITIONED BY (place, day)",
            batch: 20,
            records: partitioned,
            ..APPEND
        }),
        shows: &[Shows::NullPartition, Shows::ReaderVersion1],
        filters: &[
            "place = 'a b'",
            "place IS NULL",
            "place LIKE 'it_s'",
            "day = DATE '0001-01-01'",
            "place > 'a' AND day > DATE '2026-03-01'",
        ],
    },
    Kind {
        name: "hive_null",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRING",
            clauses: "PARTITIONED BY (place)",
            records: hive_null,
            ..APPEND
        }),
        shows: &[Shows::NullPartition],
        filters: &[],
    },
    Kind {
        name: "numbered",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, whole INT, big BIGINT NOT NULL, is_on BOOLEAN, exact DECIMAL(10,3), \
                      at TIMESTAMP",
            clauses: "PARTITIONED BY (whole, big, is_on, exact, at)",
            records: numbered,
            ..APPEND
        }),
        shows: &[Shows::NullPartition],
        filters: &["whole < 0", "exact > 1", "is_on IS NULL"],
    },
    // Files of so many rows have columns without a dictionary.
    Kind {
        name: "distinct",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, exact DECIMAL(18,2), at TIMESTAMP, note STRING, kind STRING",
            interval: "30 seconds",
            batch: 16_500,
            records: distinct,
            ..APPEND
        }),
        shows: &[Shows::Versions(2)],
        filters: &["id BETWEEN 16490 AND 16510", "note = 'note 20000'", "exact < 1"],
    },
    Kind {
        name: "named",
        made: Made::By(Flow {
            columns: "`select` BIGINT NOT NULL, `a.b` STRING, `n\u{e4}me` STRING, `Upper` INT, `it's` INT, `50%` INT, \
                      `a\"b` INT, `a/b-c:d` STRUCT<`x.y`: INT, `\u{e9}` INT>",
            records: named,
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1],
        filters: &[],
    },
    Kind {
        name: "dripped",
        made: Made::By(Flow { has_checkpoints: true, batch: 1, ..DRIP }),
        shows: &[Shows::Checkpoint, Shows::Versions(15)],
        filters: &["id BETWEEN 30 AND 31"],
    },
    Kind {
        name: "locked",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, local_at TIMESTAMP_NTZ NOT NULL",
            clauses: "TBLPROPERTIES ('delta.appendOnly' = 'true')",
            records: locked,
            ..APPEND
        }),
        shows: &[Shows::WriterFeature("appendOnly"), Shows::WriterFeature("invariants")],
        filters: &[],
    },
    Kind { name: "empty", made: Made::By(Flow { records: Vec::new, ..DRIP }), shows: &[Shows::NoFiles], filters: &[] },
    Kind {
        name: "upserted",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, amount DECIMAL(18,2)",
            effect: Effect::Upsert { keys: "id" },
            batch: 10,
            records: || changes(8, |key| json!({"id": key})),
            ..APPEND
        }),
        shows: &[Shows::Vectors, Shows::WriterFeature("deletionVectors"), Shows::WriterFeature("invariants")],
        filters: &["id >= 4", "amount > 20"],
    },
    Kind {
        name: "moved",
        made: Made::By(Flow {
            columns: "shop STRING NOT NULL, code BINARY NOT NULL, day DATE NOT NULL, exact DECIMAL(10,2) NOT NULL, \
                      seq BIGINT, op STRING, note STRING, place STRUCT<city: STRING>, local_at TIMESTAMP_NTZ",
            clauses: "PARTITIONED BY (note)",
            effect: Effect::Upsert { keys: "shop, code, day, exact" },
            has_checkpoints: true,
            batch: 4,
            records: || changes(8, composite),
            ..APPEND
        }),
        shows: &[Shows::Vectors, Shows::Checkpoint, Shows::NullPartition, Shows::WriterFeature("timestampNtz")],
        filters: &["note = 'left'", "note IS NULL"],
    },
    Kind {
        name: "spaced",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, place STRING",
            clauses: "PARTITIONED BY (place)",
            effect: Effect::Upsert { keys: "id" },
            batch: 10,
            records: || changes(8, |key| json!({"id": key, "place": "New York"})),
            ..APPEND
        }),
        shows: &[Shows::Vectors],
        filters: &[],
    },
    Kind {
        name: "replaced",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING",
            effect: Effect::Upsert { keys: "id" },
            has_checkpoints: true,
            batch: 5,
            records: replaced,
            ..APPEND
        }),
        shows: &[Shows::FilesRemovedWhole, Shows::Checkpoint],
        filters: &[],
    },
    Kind {
        name: "clustered",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRING, day DATE, note STRING",
            clauses: "CLUSTER BY (day, place)",
            has_checkpoints: true,
            batch: 4,
            records: partitioned,
            ..APPEND
        }),
        shows: &[
            Shows::Clustered,
            Shows::Checkpoint,
            Shows::ReaderVersion1,
            Shows::WriterFeature("clustering"),
            Shows::WriterFeature("domainMetadata"),
        ],
        filters: &["day = DATE '2026-03-01'", "place IS NULL", "place = 'a b'"],
    },
    Kind {
        name: "clustered_upserts",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, amount DECIMAL(18,2)",
            clauses: "CLUSTER BY (amount)",
            effect: Effect::Upsert { keys: "id" },
            batch: 4,
            records: || changes(8, |key| json!({"id": key})),
            ..APPEND
        }),
        shows: &[Shows::Clustered, Shows::Vectors, Shows::WriterFeature("clustering")],
        filters: &["amount > 20", "id >= 4"],
    },
    Kind {
        name: "rewritten",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, amount DECIMAL(18,2), \
                      place STRUCT<city: STRING>",
            clauses: "TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write')",
            effect: Effect::Upsert { keys: "id" },
            batch: 10,
            records: || changes(8, |key| json!({"id": key, "place": {"city": format!("city {key}")}})),
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1, Shows::FilesRemovedWhole],
        filters: &["id >= 4", "amount > 20"],
    },
    Kind {
        name: "rewritten_apart",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, place STRING, note STRING",
            clauses: "PARTITIONED BY (place, note) TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write')",
            effect: Effect::Upsert { keys: "id" },
            has_checkpoints: true,
            batch: 4,
            records: || changes(8, shelved),
            ..APPEND
        }),
        shows: &[Shows::ReaderVersion1, Shows::FilesRemovedWhole, Shows::Checkpoint, Shows::NullPartition],
        filters: &["place = 'New York'", "place IS NULL"],
    },
    Kind {
        name: "checkpointed_v2",
        made: Made::By(Flow {
            clauses: "TBLPROPERTIES ('delta.checkpointPolicy' = 'v2')",
            has_checkpoints: true,
            batch: 4,
            ..DRIP
        }),
        shows: &[Shows::Checkpoint, Shows::Sidecars, Shows::WriterFeature("v2Checkpoint")],
        filters: &["id BETWEEN 30 AND 31"],
    },
    Kind {
        name: "upserted_v2",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, amount DECIMAL(18,2)",
            clauses: "TBLPROPERTIES ('delta.checkpointPolicy' = 'v2', \
                      'delta.logRetentionDuration' = 'interval 1 seconds')",
            effect: Effect::Upsert { keys: "id" },
            has_checkpoints: true,
            batch: 2,
            records: || changes(8, |key| json!({"id": key})),
            ..APPEND
        }),
        shows: &[Shows::Vectors, Shows::Checkpoint, Shows::Sidecars, Shows::LogCleanedUp],
        filters: &["id >= 4", "amount > 20"],
    },
    Kind {
        name: "vectors_in_a_file",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING",
            effect: Effect::Upsert { keys: "id" },
            interval: "5 seconds",
            batch: 650,
            records: worn,
            ..APPEND
        }),
        shows: &[Shows::VectorFile],
        filters: &["id < 100", "note >= 'late'"],
    },
    Kind {
        name: "large",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING",
            effect: Effect::Upsert { keys: "id" },
            interval: "30 seconds",
            batch: 16_500,
            records: large,
            ..APPEND
        }),
        shows: &[Shows::Compacted, Shows::Versions(5)],
        filters: &["id BETWEEN 32990 AND 100010", "note = 'again'"],
    },
    Kind {
        name: "tended",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING",
            clauses: "TBLPROPERTIES ('delta.logRetentionDuration' = 'interval 1 seconds')",
            effect: Effect::Upsert { keys: "id" },
            has_checkpoints: true,
            interval: "5 seconds",
            batch: 20,
            records: tended,
        }),
        shows: &[Shows::Compacted, Shows::Vacuumed, Shows::Checkpoint, Shows::LogCleanedUp],
        filters: &["id < 50", "note = 'again'"],
    },
    Kind {
        name: "merged",
        made: Made::By(Flow { batch: 5, ..DRIP }),
        shows: &[Shows::Merged, Shows::ReaderVersion1],
        filters: &["id BETWEEN 29 AND 31"],
    },
    Kind {
        name: "merged_apart",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, place STRING, note STRING",
            clauses: "PARTITIONED BY (place)",
            batch: 8,
            records: spread,
            ..APPEND
        }),
        shows: &[Shows::Merged, Shows::NullPartition, Shows::ReaderVersion1],
        filters: &["place = 'New York'", "place IS NULL", "id > 40"],
    },
    Kind {
        name: "merged_and_rewritten",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, place STRING, note STRING",
            clauses: "PARTITIONED BY (place) TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write')",
            effect: Effect::Upsert { keys: "id" },
            batch: 10,
            records: rearranged,
            ..APPEND
        }),
        shows: &[Shows::Merged, Shows::FilesRemovedWhole, Shows::ReaderVersion1],
        filters: &["place = 'north'", "id >= 100", "note = 'moved'"],
    },
    Kind {
        name: "tended_nested",
        made: Made::By(Flow {
            columns: "id BIGINT NOT NULL, seq BIGINT, op STRING, note STRING, \
                      place STRUCT<city: STRING, position: STRUCT<lat: DOUBLE, lon: DOUBLE>>, samples ARRAY<INT>, \
                      limits MAP<STRING, DOUBLE>, events ARRAY<STRUCT<name: STRING, at: TIMESTAMP>>",
            effect: Effect::Upsert { keys: "id" },
            interval: "5 seconds",
            batch: 20,
            records: tended_nested,
            ..APPEND
        }),
        shows: &[Shows::Compacted],
        filters: &["id < 50", "place IS NULL"],
    },
    Kind {
        name: "stamped",
        made: Made::By(Flow {
            columns: "at TIMESTAMP NOT NULL, is_on BOOLEAN NOT NULL, device STRING NOT NULL, seq BIGINT, op STRING, \
                      note STRING",
            effect: Effect::Upsert { keys: "at, is_on, device" },
            batch: 5,
            records: stamped,
            ..APPEND
        }),
        shows: &[Shows::Vectors],
        filters: &["is_on = true", "device > '8c0a1f3e-5d27-4b11-9c1e-000000000000'"],
    },
    Kind {
        name: "rejects",
        made: Made::FromRejectsOf("scalars"),
        shows: &[Shows::ReaderVersion1, Shows::Versions(2)],
        filters: &[],
    },
];

/// What most append flows have in common.
const APPEND: Flow = Flow {
    columns: "",
    clauses: "",
    effect: Effect::Append,
    has_checkpoints: false,
    interval: "200 ms",
    batch: 100,
    records: Vec::new,
};

const DRIP: Flow = Flow { columns: "id BIGINT NOT NULL, note STRING", records: dripped, ..APPEND };
