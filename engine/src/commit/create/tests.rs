//! What an existing table may be like: every refusal with its message, and what is taken.

use alluvium_catalog::{ManualClock, Timestamp};
use arrow::datatypes::Fields;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::{Value, json};

use super::*;

/// `id BIGINT NOT NULL, note STRING, day DATE, place STRUCT<lat DOUBLE NOT NULL>`, partitioned by `day`.
fn blueprint(deletion_vectors: bool) -> Blueprint {
    let place = DataType::Struct(Fields::from(vec![Field::new("lat", DataType::Float64, false)]));
    Blueprint {
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("note", DataType::Utf8, true),
            Field::new("day", DataType::Date32, true),
            Field::new("place", place, true),
        ])),
        partitioned_by: vec!["day".to_owned()],
        clustered_by: None,
        deletion_vectors,
        comment: None,
        properties: BTreeMap::new(),
    }
}

/// Returns `blueprint` with `fields` in the place of those of the same name.
fn with_fields(blueprint: Blueprint, fields: &[Field]) -> Blueprint {
    let kept =
        blueprint.schema.fields().iter().map(|field| {
            fields.iter().find(|changed| changed.name() == field.name()).unwrap_or(field.as_ref()).clone()
        });
    Blueprint { schema: Arc::new(Schema::new(kept.collect::<Vec<_>>())), ..blueprint }
}

/// Opens `wanted` on the table of `blueprint(true)` after `change`; returns what is said against it.
async fn open(wanted: &Blueprint, change: impl FnOnce(&mut Protocol, &mut Metadata)) -> Result<String> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = ManualClock::new(1, Timestamp(0));
    let log = DeltaLog::with_stores("memory:///t".parse()?, Arc::clone(&store), store);
    let mut actions = blueprint(true).first_actions(&log, &clock)?;
    if let [Action::Protocol(protocol), Action::MetaData(metadata)] = &mut actions[..] {
        change(protocol, metadata);
    }
    let write_id = clock.new_id();
    let put = log.put(0, encode(&json!({"txnId": write_id}), &actions)?, write_id).await;
    assert_eq!(put, PutOutcome::Landed);
    Ok(match wanted.open_or_create(&log, &clock).await {
        Ok(_) => "taken".to_owned(),
        Err(error) => match error.hint() {
            Some(hint) => format!("{}: {}\n  hint: {hint}", error.kind(), error.message()),
            None => format!("{}: {}", error.kind(), error.message()),
        },
    })
}

/// Returns a change that sets a table property.
fn property(key: &'static str, value: &'static str) -> impl FnOnce(&mut Protocol, &mut Metadata) {
    move |_, metadata| drop(metadata.configuration.insert(key.to_owned(), value.to_owned()))
}

/// Returns a change of the column at `place` of the schema's JSON.
fn column(place: &'static str, key: &'static str, value: Value) -> impl FnOnce(&mut Protocol, &mut Metadata) {
    move |_, metadata| {
        let mut schema: Value = serde_json::from_str(&metadata.schema_string).unwrap_or_default();
        if let Some(at) = schema.pointer_mut(place) {
            at[key] = value;
        }
        metadata.schema_string = schema.to_string();
    }
}

fn legacy(reader: i32, writer: i32) -> impl FnOnce(&mut Protocol, &mut Metadata) {
    move |protocol, _| {
        *protocol = Protocol { min_reader_version: reader, min_writer_version: writer, ..Protocol::default() }
    }
}

fn feature(name: &'static str) -> impl FnOnce(&mut Protocol, &mut Metadata) {
    move |protocol, _| protocol.writer_features.get_or_insert_default().push(name.to_owned())
}

#[tokio::test]
async fn a_table_that_a_flow_cannot_write_is_refused_with_what_to_do() -> Result<()> {
    let (append, upsert) = (blueprint(false), blueprint(true));
    let unpartitioned = Blueprint { partitioned_by: Vec::new(), ..blueprint(false) };
    let mut more = append.schema.fields().to_vec();
    more.push(Arc::new(Field::new("extra", DataType::Int32, true)));
    let wider = Blueprint { schema: Arc::new(Schema::new(more)), ..blueprint(false) };
    let narrower =
        Blueprint { schema: Arc::new(Schema::new(append.schema.fields()[1..].to_vec())), ..blueprint(false) };
    let retyped = with_fields(blueprint(false), &[Field::new("note", DataType::Int32, true)]);
    let renamed = DataType::Struct(Fields::from(vec![Field::new("latitude", DataType::Float64, false)]));
    let renamed = with_fields(blueprint(false), &[Field::new("place", renamed, true)]);
    let looser = with_fields(blueprint(false), &[Field::new("id", DataType::Int64, true)]);
    let inner = DataType::Struct(Fields::from(vec![Field::new("lat", DataType::Float64, true)]));
    let looser_inside = with_fields(blueprint(false), &[Field::new("place", inner, true)]);
    let same = |_: &mut Protocol, _: &mut Metadata| {};
    let said = [
        open(&append, property("delta.setTransactionRetentionDuration", "interval 1 days")).await?,
        open(&unpartitioned, same).await?,
        open(&wider, same).await?,
        open(&narrower, same).await?,
        open(&retyped, same).await?,
        open(&renamed, same).await?,
        open(&looser, same).await?,
        open(&looser_inside, same).await?,
        open(&upsert, property("delta.appendOnly", "true")).await?,
        open(&upsert, property("delta.enableDeletionVectors", "false")).await?,
        open(&upsert, legacy(1, 2)).await?,
        open(&append, feature("rowTracking")).await?,
        open(&append, property("delta.columnMapping.mode", "name")).await?,
        open(&append, property("delta.constraints.positive", "id > 0")).await?,
        open(&append, property("delta.enableChangeDataFeed", "true")).await?,
        open(&append, column("/fields/1/metadata", "delta.invariants", json!("{\"expression\":{}}"))).await?,
        open(&append, column("/fields/3/type/fields/0/metadata", "delta.invariants", json!("{}"))).await?,
        open(&append, column("/fields/2/metadata", "delta.generationExpression", json!("CAST(t AS DATE)"))).await?,
        open(&append, column("/fields/0/metadata", "delta.identity.start", json!(1))).await?,
        open(&append, legacy(1, 8)).await?,
    ];
    insta::assert_snapshot!(said.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_rule_holds_in_whatever_letters_spark_keeps_it() -> Result<()> {
    for said in ["True", "TRUE"] {
        let refused = open(&blueprint(true), property("delta.appendOnly", said)).await?;
        assert!(refused.contains("only takes new rows"), "{said}: {refused}");
        let refused = open(&blueprint(false), property("delta.enableChangeDataFeed", said)).await?;
        assert!(refused.contains("keeps a change data feed"), "{said}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn a_table_that_could_have_rules_and_has_none_is_taken() -> Result<()> {
    let append = blueprint(false);
    for writer in 2..=6 {
        assert_eq!(open(&append, legacy(1, writer)).await?, "taken", "writer version {writer}");
    }
    assert_eq!(open(&append, property("delta.enableChangeDataFeed", "false")).await?, "taken");
    assert_eq!(open(&append, property("delta.appendOnly", "true")).await?, "taken");
    assert_eq!(open(&append, feature("checkConstraints")).await?, "taken");
    assert_eq!(open(&append, property("delta.columnMapping.mode", "none")).await?, "taken");
    assert_eq!(open(&blueprint(true), |_, _| {}).await?, "taken");
    Ok(())
}

#[tokio::test]
async fn a_flow_that_declares_more_not_null_than_the_table_is_taken() -> Result<()> {
    let stricter = with_fields(blueprint(false), &[Field::new("note", DataType::Utf8, false)]);
    assert_eq!(open(&stricter, |_, _| {}).await?, "taken");
    Ok(())
}

/// Returns the properties of a table that is made as `wanted` says, as its log holds them.
async fn made(wanted: &Blueprint) -> Result<BTreeMap<String, String>> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = DeltaLog::with_stores("memory:///t".parse()?, Arc::clone(&store), store);
    let state = wanted.open_or_create(&log, &ManualClock::new(1, Timestamp(0))).await?;
    assert_eq!(state.version, 0);
    Ok(state.metadata.configuration)
}

#[tokio::test]
async fn a_new_table_has_properties_fit_for_streaming_and_what_is_declared_goes_over_them() -> Result<()> {
    let streaming = [
        ("delta.checkpointInterval", "100"),
        ("delta.logRetentionDuration", "interval 7 days"),
        ("delta.dataSkippingNumIndexedCols", "32"),
    ];
    let vectors = [("delta.enableDeletionVectors", "true"), ("delta.deletedFileRetentionDuration", "interval 1 days")];
    let owned = |properties: &[(&str, &str)]| -> BTreeMap<String, String> {
        properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let (append, upsert) = (owned(&streaming), owned(&[&streaming[..], &vectors].concat()));
    assert_eq!(made(&blueprint(false)).await?, append);
    assert_eq!(made(&blueprint(true)).await?, upsert);
    let declared = owned(&[("delta.checkpointInterval", "10"), ("delta.appendOnly", "true")]);
    let wanted = Blueprint { properties: declared.clone(), ..blueprint(false) };
    let expected: BTreeMap<String, String> = append.into_iter().chain(declared).collect();
    assert_eq!(made(&wanted).await?, expected);
    Ok(())
}
