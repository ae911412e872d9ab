//! How S3 and the local disk are reached: what `alluvium.toml` says and what the environment says over it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use serde::Deserialize;
use url::Url;

use crate::{Error, Result};

/// Variables that name an identity which is fetched rather than given: roles of pods and containers.
const IDENTITY_KEYS: [(&str, AmazonS3ConfigKey); 6] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

/// How the stores behind locations are reached. Every key is optional.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// Where S3 is, such as `http://localhost:9000`; without it, AWS.
    pub endpoint: Option<String>,
    /// The region; without it, `us-east-1`.
    pub region: Option<String>,
    /// The access key's id.
    pub access_key_id: Option<String>,
    /// The access key's secret.
    pub secret_access_key: Option<String>,
    /// The token that belongs to a temporary access key.
    pub session_token: Option<String>,
    /// Whether an `http://` endpoint is accepted. What travels over it can be read and changed on the way.
    pub allow_http: Option<bool>,
    /// Whether the bucket is part of the host's name (`https://bucket.host`) rather than of the path.
    pub virtual_hosted_style: bool,
    /// How long one request may take, its body included.
    pub request_timeout_ms: u64,
    /// How long a connection may take to open.
    pub connect_timeout_ms: u64,
    /// How many times a request is tried again; commits never are.
    pub retries_max: usize,
    /// How long a request is tried again at most, from its first attempt on.
    pub retry_timeout_ms: u64,
    /// Whether files on the local disk are flushed to it before they count as written.
    pub local_fsync: bool,
    /// Variables that say where an identity is fetched, by their names; they stand in the environment only.
    #[serde(skip)]
    pub identity: BTreeMap<String, String>,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: None,
            virtual_hosted_style: false,
            // Long enough for an upload part of 64 MiB over 20 Mbit/s.
            request_timeout_ms: 30_000,
            connect_timeout_ms: 5_000,
            retries_max: 10,
            // Below 5 minutes, after which S3 refuses a signature.
            retry_timeout_ms: 180_000,
            local_fsync: true,
            identity: BTreeMap::new(),
        }
    }
}

impl StorageSettings {
    /// Returns these settings with what the environment says laid over them. `lookup` returns a variable's value.
    ///
    /// Read are `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_ALLOW_HTTP`, and the variables by which pods and containers
    /// are given a role. The key, its secret and its token are taken together: those of two identities never mix.
    ///
    /// # Errors
    /// `Invalid` when half of an access key is set, or `AWS_ALLOW_HTTP` is neither true nor false.
    pub fn with_environment(mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        self.endpoint = get("AWS_ENDPOINT_URL_S3").or_else(|| get("AWS_ENDPOINT_URL")).or(self.endpoint);
        self.region = get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")).or(self.region);
        match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
            (None, None) => {}
            (Some(id), Some(secret)) => {
                self.access_key_id = Some(id);
                self.secret_access_key = Some(secret);
                self.session_token = get("AWS_SESSION_TOKEN");
            }
            (Some(_), None) => return Err(half_a_key("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
            (None, Some(_)) => return Err(half_a_key("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")),
        }
        if let Some(value) = get("AWS_ALLOW_HTTP") {
            self.allow_http = Some(read_bool("AWS_ALLOW_HTTP", &value)?);
        }
        self.identity = IDENTITY_KEYS.iter().filter_map(|(name, _)| Some(((*name).to_owned(), get(name)?))).collect();
        Ok(self)
    }

    /// Returns the builder of a client for `bucket`, all but its retries and timeouts.
    pub(super) fn s3_builder(&self, bucket: &str) -> Result<AmazonS3Builder> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(self.virtual_hosted_style)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"));
        if let Some(endpoint) = &self.endpoint {
            self.check_endpoint(endpoint)?;
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(id), Some(secret)) => {
                builder = builder.with_access_key_id(id).with_secret_access_key(secret);
                if let Some(token) = &self.session_token {
                    builder = builder.with_token(token);
                }
            }
            (Some(_), None) => return Err(half_a_key("access_key_id", "secret_access_key")),
            (None, Some(_)) => return Err(half_a_key("secret_access_key", "access_key_id")),
            (None, None) => {
                for (name, key) in IDENTITY_KEYS {
                    if let Some(value) = self.identity.get(name) {
                        builder = builder.with_config(key, value);
                    }
                }
            }
        }
        Ok(builder)
    }

    /// Returns the options of an HTTP client whose requests take at most `request_timeout`.
    pub(super) fn client_options(&self, request_timeout: Duration) -> ClientOptions {
        ClientOptions::new()
            .with_allow_http(self.allow_http == Some(true))
            .with_connect_timeout(Duration::from_millis(self.connect_timeout_ms))
            .with_timeout(request_timeout)
    }

    fn check_endpoint(&self, endpoint: &str) -> Result<()> {
        let url = Url::parse(endpoint)
            .map_err(|source| Error::invalid("the storage endpoint is not a URL").with_source(source))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("the storage endpoint holds a credential")
                .with_hint("set access_key_id and secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        let host = url.host_str().unwrap_or_default();
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http == Some(true) => {}
            "http" => {
                return Err(Error::invalid(format!("the storage endpoint {endpoint} is not encrypted")).with_hint(
                    "use https, or set allow_http = true (AWS_ALLOW_HTTP=true) where the network is yours",
                ));
            }
            other => return Err(Error::invalid(format!("the storage endpoint has the scheme {other}, not https"))),
        }
        let has_identity = self.access_key_id.is_some() || self.secret_access_key.is_some();
        if !has_identity && self.identity.is_empty() && !host.ends_with(".amazonaws.com") {
            // The client would go and ask EC2's metadata service for a role, and wait.
            return Err(Error::invalid(format!("no credentials for the storage endpoint {endpoint}"))
                .with_hint("set access_key_id and secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        Ok(())
    }
}

impl fmt::Debug for StorageSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "***");
        formatter
            .debug_struct("StorageSettings")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &hidden(&self.secret_access_key))
            .field("session_token", &hidden(&self.session_token))
            .field("allow_http", &self.allow_http)
            .field("virtual_hosted_style", &self.virtual_hosted_style)
            .field("request_timeout_ms", &self.request_timeout_ms)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("retries_max", &self.retries_max)
            .field("retry_timeout_ms", &self.retry_timeout_ms)
            .field("local_fsync", &self.local_fsync)
            .field("identity", &self.identity)
            .finish()
    }
}

fn half_a_key(present: &str, absent: &str) -> Error {
    Error::invalid(format!("{present} is set, but {absent} is not"))
        .with_hint("an access key is an id and a secret; set both or neither")
}

fn read_bool(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Error::invalid(format!("{name} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<StorageSettings> {
        let file = StorageSettings {
            access_key_id: Some("file-id".to_owned()),
            secret_access_key: Some("file-secret".to_owned()),
            session_token: Some("file-token".to_owned()),
            ..StorageSettings::default()
        };
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        file.with_environment(&lookup)
    }

    #[test]
    fn environment_goes_over_the_file_but_identities_do_not_mix() -> Result<()> {
        let settings = with(&[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", "http://localhost:9000"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_REGION", ""),
            ("AWS_ALLOW_HTTP", "TRUE"),
        ])?;
        assert_eq!(settings.access_key_id.as_deref(), Some("id"));
        assert_eq!(settings.session_token, None);
        assert_eq!(settings.region.as_deref(), Some("eu-west-1"));
        assert_eq!(settings.allow_http, Some(true));
        assert!(settings.s3_builder("lake").is_ok());
        assert_eq!(with(&[])?.session_token.as_deref(), Some("file-token"));
        assert!(with(&[("AWS_ACCESS_KEY_ID", "id")]).is_err());
        assert!(with(&[("AWS_ALLOW_HTTP", "perhaps")]).is_err());
        Ok(())
    }

    #[test]
    fn unsafe_endpoints_are_refused() -> Result<()> {
        for endpoint in ["http://localhost:9000", "ftp://localhost", "localhost:9000", "https://id:hunter2@host"] {
            let settings = StorageSettings { endpoint: Some(endpoint.to_owned()), ..with(&[])? };
            let refused = settings.s3_builder("lake").map_err(|error| error.chain());
            assert!(refused.as_ref().is_err_and(|text| !text.contains("hunter2")), "{endpoint}: {refused:?}");
        }
        let anonymous = StorageSettings { endpoint: Some("https://minio".to_owned()), ..StorageSettings::default() };
        assert!(anonymous.s3_builder("lake").is_err_and(|error| error.message().starts_with("no credentials")));
        Ok(())
    }

    #[test]
    fn secrets_are_not_shown_and_unknown_keys_refused() -> Result<()> {
        let shown = format!("{:?}", with(&[])?);
        assert!(shown.contains("file-id") && !shown.contains("file-secret") && !shown.contains("file-token"));
        assert!(toml::from_str::<StorageSettings>("allow_http = true").is_ok_and(|read| read.allow_http == Some(true)));
        assert!(toml::from_str::<StorageSettings>("endpont = 'x'").is_err());
        assert!(toml::from_str::<StorageSettings>("identity = []").is_err());
        Ok(())
    }
}
