//! Finds credentials that are written into a text, so that no error shows the line with one in it.
//!
//! A text with errors may not parse, so this reads no grammar: only strings, comments, and `'key' = 'value'`.

use super::TextSpan;

/// Tells whether a key names something that must not be written down, also with a slip in it.
pub(crate) fn is_credential(key: &str) -> bool {
    /// A key that contains one of these names a credential in librdkafka, Kafka's clients or a schema registry.
    const SIGNS: [&str; 10] =
        ["password", "passwd", "pasw", "passphrase", "secret", "token", "jaas", "credential", "key.pem", "userinfo"];
    let key = key.to_ascii_lowercase();
    SIGNS.iter().any(|sign| key.contains(sign))
}

/// Returns `text` with asterisks for the bytes of credentials; no other byte moves.
pub(super) fn masked(text: &str) -> String {
    let mut shown = text.to_owned();
    for span in credentials(text) {
        let stars = "*".repeat(span.len());
        shown.replace_range(span, &stars);
    }
    shown
}

/// Returns the places of credentials, without their quotes.
fn credentials(text: &str) -> Vec<TextSpan> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    // The string before the last `=`, if nothing but space stands between.
    let (mut last, mut key): (Option<TextSpan>, Option<TextSpan>) = (None, None);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\'' => {
                let string = string_at(bytes, at);
                at = (string.end + 1).min(bytes.len());
                match key.take().and_then(|key| text.get(key)) {
                    Some(key) if is_credential(key) => found.push(string.clone()),
                    Some(key) => found.extend(user_in_address(text, key, &string)),
                    None => {}
                }
                last = Some(string);
            }
            b'=' => {
                key = last.take();
                at += 1;
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = after(bytes, at, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = after(bytes, at + 2, b"*/"),
            byte => {
                if !byte.is_ascii_whitespace() {
                    (last, key) = (None, None);
                }
                at += 1;
            }
        }
    }
    found
}

/// Returns the place of what stands before the last '@' of an address, or of several: a password may hold any character.
fn user_in_address(text: &str, key: &str, value: &TextSpan) -> Option<TextSpan> {
    let address = text.get(value.clone())?;
    let end = address.rfind('@')?;
    if !address.contains("://") && !key.to_ascii_lowercase().contains("server") {
        return None;
    }
    let is_scheme = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    let scheme = address.split_once("://").filter(|(scheme, _)| is_scheme(scheme));
    let start = scheme.map_or(0, |(scheme, _)| scheme.len() + "://".len());
    Some(value.start + start..value.start + end)
}

/// Returns the place of the string whose quote is at `start`, without its quotes; an open one ends with its line.
fn string_at(bytes: &[u8], start: usize) -> TextSpan {
    let first = start + 1;
    let mut at = first;
    while at < bytes.len() {
        if bytes[at] == b'\'' && bytes.get(at + 1) == Some(&b'\'') {
            at += 2;
        } else if bytes[at] == b'\'' {
            return first..at;
        } else {
            at += 1;
        }
    }
    let line = bytes[first.min(bytes.len())..].iter().position(|byte| *byte == b'\n');
    first.min(bytes.len())..line.map_or(bytes.len(), |line| first + line)
}

fn after(bytes: &[u8], start: usize, end: &[u8]) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    rest.windows(end.len()).position(|window| window == end).map_or(bytes.len(), |found| start + found + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_masked_and_nothing_moves() {
        for (text, shown) in [
            ("'sasl.password' = 'hunter2'", "'sasl.password' = '*******'"),
            ("'sasl.pasword'='it''s', 'topic' = 't'", "'sasl.pasword'='*****', 'topic' = 't'"),
            ("-- it's a 'secret' = 'x'\n'token' = 'ä'", "-- it's a 'secret' = 'x'\n'token' = '**'"),
            ("/* ' */ 'jaas' /* = */ = 'x'", "/* ' */ 'jaas' /* = */ = '*'"),
            ("'password' = secret('env', 'NAME')", "'password' = secret('env', 'NAME')"),
            ("WHERE a = 'token' AND b = 'x'", "WHERE a = 'token' AND b = 'x'"),
            ("'password' = 'never closed\nSELECT 1", "'password' = '************\nSELECT 1"),
            ("'password' = '", "'password' = '"),
            ("'bootstrap.servers' = 'SSL://ann:x@b:1'", "'bootstrap.servers' = 'SSL://*****@b:1'"),
            ("'bootstrap.servers' = 'ann:x://y@b:1'", "'bootstrap.servers' = '*********@b:1'"),
            ("'bootstrap.server' = 'a:1,ann:x@b:1'", "'bootstrap.server' = '*********@b:1'"),
            (
                "'bootstrap.servers' = 'a:1,b:2', 'client.id' = 'me@b'",
                "'bootstrap.servers' = 'a:1,b:2', 'client.id' = 'me@b'",
            ),
        ] {
            assert_eq!(masked(text), shown);
        }
    }
}
