//! What the module `route` promises, tested: answers, and what hostile requests are told.

use std::sync::Arc;

use url::form_urlencoded;

use super::*;
use crate::upkeep::fixture::Scene;

async fn ask(lookups: &Lookups, query: &str) -> Result<(u16, String)> {
    let response = lookup(lookups, Uuid::nil(), query).await;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
    let body = body.map_err(|cause| Error::internal("no body").with_source(cause))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn key(text: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("key", text).finish()
}

#[tokio::test]
async fn a_key_is_answered_with_the_place_of_its_row_or_null() -> Result<()> {
    let scene = Scene::upserts()?;
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a")), (2, 1, Some("b"))]).await?;
    scene.land(&mut landing, &[(1, 2, None)]).await?;
    let query = format!("table=silver.t&version=2&{}&{}", key(r#"{"id":1}"#), key(r#"{"id":2}"#));
    let (status, body) = ask(&scene.lookups, &query).await?;
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let state = scene.state().await?;
    let file = state.files.values().next().ok_or_else(|| Error::internal("no file"))?;
    assert_eq!((answer["version"].as_u64(), answer["rows"][0].is_null()), (Some(2), true), "{body}");
    assert_eq!(answer["table_id"].as_str(), Some(state.metadata.id.as_str()));
    assert_eq!(answer["run"].as_str(), Some("00000000-0000-0000-0000-000000000000"));
    let row = &answer["rows"][1];
    assert_eq!((row["path"].as_str(), row["row"].as_u64()), (Some(file.path.as_str()), Some(1)), "{body}");
    assert_eq!((row["file_rows"].as_u64(), row["file_bytes"].as_i64()), (Some(2), Some(file.size)), "{body}");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() -> Result<()> {
    let scene = Scene::upserts()?;
    let mut landing = scene.open().await?;
    scene.land(&mut landing, &[(1, 1, Some("a"))]).await?;
    let many = vec![key(r#"{"id":1}"#); KEYS_MAX + 1].join("&");
    let table = "table=silver.t";
    let cases = [
        (String::new(), 400, "the request names no table"),
        ("table=silver.x&key={}".to_owned(), 404, "no flow of this process upserts into silver.x"),
        (format!("table={}", "a.b.c.d"), 400, "error"),
        (format!("table={}", "%00"), 400, "error"),
        (format!("{table}&{table}&{}", key(r#"{"id":1}"#)), 400, "two tables"),
        (table.to_owned(), 400, "the request has no key of silver.t, made of id"),
        (format!("{table}&{}", key(r#"{"id":"x"}"#)), 400, "key column 'id' is BIGINT"),
        (format!("{table}&{}", key("{}")), 400, "a key lacks column 'id'"),
        (format!("{table}&{}", key(r#"{"id":1,"day":"x"}"#)), 400, "'day' is no key column"),
        (format!("{table}&{}", key("'; DROP TABLE t")), 400, "is not JSON"),
        (format!("{table}&{}", key(&"[".repeat(4_000))), 400, "is not JSON"),
        (format!("{table}&{}", key(&"x".repeat(5_000))), 400, "a key has 5000 bytes, 4096 are allowed"),
        (format!("{table}&{many}"), 400, "more than 64 keys"),
        (format!("{table}&x={}", "y".repeat(QUERY_BYTES_MAX)), 400, "32768 are allowed"),
        (format!("{table}&{}&version=-1", key(r#"{"id":1}"#)), 400, "'-1' is not a version"),
        (format!("{table}&keys=1"), 400, "'keys' is none of table, key and version"),
        (format!("{table}&key={{\"id\":%FF}}"), 400, r#"%FF}' does not stand for UTF-8: invalid utf-8"#),
        (format!("{table}&%C3=1"), 400, "'%C3' does not stand for UTF-8"),
    ];
    for (query, status, expected) in cases {
        let (found, body) = ask(&scene.lookups, &query).await?;
        assert!(found == status && body.contains(expected), "{query:.80}: {found} {body}");
    }
    drop(landing);
    let (status, body) = ask(&scene.lookups, &format!("{table}&{}", key(r#"{"id":1}"#))).await?;
    assert!(status == 503 && body.contains("cannot tell at the moment"), "{status} {body}");
    assert_eq!(ask(&Arc::new(Lookups::default()), &format!("{table}&key={{}}")).await?.0, 404);
    Ok(())
}

#[test]
fn a_query_is_decoded_as_it_was_written_or_not_at_all() -> Result<()> {
    let keys = |query: &str| parse(query).map(|asked| asked.keys);
    assert_eq!(keys("&key=%22a+%2B%25%C3%A4%22&&key&key=a=b&")?, ["\"a +%\u{e4}\"", "", "a=b"]);
    assert_eq!(keys("key=%EF%BF%BD")?, ["\u{fffd}"]);
    assert_eq!(keys("key=%zz%")?, ["%zz%"]);
    for bytes in ["%FF", "a%C3", "%ED%A0%80", "%C0%AF"] {
        let message = format!("'{bytes}' does not stand for UTF-8");
        assert!(keys(&format!("key={bytes}")).is_err_and(|error| error.message() == message), "{bytes} is taken");
    }
    Ok(())
}
