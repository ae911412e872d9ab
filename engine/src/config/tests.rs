//! What the module `config` promises, tested.

use std::path::Path;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::new(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn settings(text: &str, variables: &[(&str, &str)]) -> Result<Settings> {
    let environment = environment(variables);
    environment.refuse_unknown()?;
    let mut values = document::parse(Path::new("/etc/alluvium.toml"), text)?;
    values.lay_over_variables(&environment)?;
    Settings::build(&values, &environment)
}

fn refusal(text: &str, variables: &[(&str, &str)]) -> String {
    match settings(text, variables) {
        Ok(settings) => format!("taken: {settings:?}"),
        Err(error) => format!("{} | {}", error.chain(), error.hint().unwrap_or("no hint")),
    }
}

fn check_refused(text: &str, variables: &[(&str, &str)], expected: &str) {
    let refusal = refusal(text, variables);
    assert!(refusal.contains(expected), "{text:?} {variables:?}\n  gave {refusal}\n  not  {expected}");
}

#[test]
fn written_defaults_are_the_defaults() -> Result<()> {
    let mut text = String::new();
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        text.push_str(&format!("{} = {}\n", key.path, key.default));
    }
    let (mut written, empty) = (settings(&text, &[])?, settings("", &[])?);
    // It lies beside the catalog, and that beside the file where one names the warehouse.
    written.limits.index.snapshot_folder.clone_from(&empty.limits.index.snapshot_folder);
    assert_eq!(written.storage, empty.storage);
    assert_eq!(written.batch, empty.batch);
    assert_eq!(written.limits, empty.limits);
    assert_eq!(written.log, empty.log);
    assert_eq!(empty.listen, Listen::Preferred("127.0.0.1:9464".parse().map_err(|_| Error::internal("address"))?));
    assert_eq!(empty.warehouse, "./warehouse".parse()?);
    assert!(empty.catalog.ends_with("warehouse/_alluvium/catalog.db"));
    Ok(())
}

#[test]
fn variables_go_over_the_file() -> Result<()> {
    let text = "warehouse = 's3://lake/a'\n[batch]\ninterval = '20s'\nrows = 5\n[log]\nlevel = 'warn'\n";
    let settings = settings(
        text,
        &[
            ("ALLUVIUM_WAREHOUSE", "s3://lake/b"),
            ("ALLUVIUM_COMMIT_INTERVAL", "250ms"),
            ("ALLUVIUM_LISTEN", "off"),
            ("ALLUVIUM_LOG", ""),
            ("ALLUVIUM_TEST_KAFKA", "anything"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
            ("AWS_ENDPOINT_URL", "http://localhost:9000"),
        ],
    )?;
    assert_eq!(settings.warehouse().to_string(), "s3://lake/b");
    assert_eq!(settings.batch().interval, Duration::from_millis(250));
    assert_eq!(settings.batch().rows_max, 5);
    assert_eq!(settings.listen(), Listen::Off);
    assert_eq!(settings.log().filter(), Some("warn"));
    assert_eq!(settings.otlp().map(Url::as_str), Some("http://localhost:4318/"));
    assert_eq!(settings.storage().endpoint.as_deref(), Some("http://localhost:9000"));
    assert_eq!(settings.catalog(), Path::new("alluvium.db"));
    Ok(())
}

#[test]
fn relative_paths_of_a_file_begin_at_the_file() -> Result<()> {
    let settings = settings("warehouse = 'lake'\ncatalog = 'sqlite://meta/c.db'", &[])?;
    assert_eq!(settings.warehouse().to_string(), "/etc/lake");
    assert_eq!(settings.catalog(), Path::new("/etc/meta/c.db"));
    for (warehouse, expected) in
        [("file:/data/lake", "/data/lake"), ("/data/lake", "/data/lake"), ("a/b:c", "/etc/a/b:c")]
    {
        let settings = self::settings(&format!("warehouse = '{warehouse}'"), &[])?;
        assert_eq!(settings.warehouse().to_string(), expected);
    }
    Ok(())
}

#[test]
fn snapshots_lie_beside_the_catalog_where_nothing_else_is_said() -> Result<()> {
    for (text, expected) in [
        ("warehouse = 's3://lake/a'", Some("alluvium.db.index")),
        ("catalog = '/var/lib/c.db'", Some("/var/lib/c.db.index")),
        ("catalog = '/var/lib/c.db'\n[index]\nsnapshot_folder = 'keys'", Some("/etc/keys")),
        ("index.snapshot_folder = '/fast/keys'", Some("/fast/keys")),
        ("index.snapshot_folder = ''", None),
    ] {
        let folder = settings(text, &[])?.limits.index.snapshot_folder;
        assert_eq!(folder, expected.map(str::parse).transpose()?, "{text}");
    }
    let variable = settings("index.snapshot_folder = ''", &[("ALLUVIUM_INDEX_SNAPSHOT_FOLDER", "here")])?;
    assert_eq!(variable.limits.index.snapshot_folder, Some("here".parse()?));
    Ok(())
}

#[test]
fn the_memory_of_all_key_indexes_is_bounded_by_a_setting_where_there_is_one() -> Result<()> {
    let check = |text: &str, variables: &[(&str, &str)], expected: Option<u64>| -> Result<()> {
        let total = settings(text, variables)?.limits.index.total_bytes_max;
        assert_eq!(total, expected, "{text} {variables:?}");
        Ok(())
    };
    check("", &[], None)?;
    check("index.total_memory = '12 GiB'", &[], Some(12 << 30))?;
    check("index.total_memory = 1_048_576", &[], Some(1 << 20))?;
    check("index.total_memory = '12 GiB'", &[("ALLUVIUM_INDEX_TOTAL_MEMORY", "3 GiB")], Some(3 << 30))
}

#[test]
fn unknown_names_are_refused_with_their_place_and_the_nearest_one() {
    check_refused("\n[batch]\n  intervall = '5s'", &[], "/etc/alluvium.toml:3:3: unknown key batch.intervall");
    check_refused("[batch]\nintervall = '5s'", &[], "did you mean batch.interval?");
    check_refused("interval = '5s'", &[], "did you mean batch.interval?");
    check_refused("[bach]\nrows = 1", &[], "did you mean batch?");
    check_refused("pipelines = []", &[], "known are warehouse, catalog,");
    check_refused("batch = 5", &[], "batch is a section, not a value");
    check_refused("", &[("ALLUVIUM_WAREHAUS", "x")], "unknown environment variable ALLUVIUM_WAREHAUS");
    check_refused("", &[("ALLUVIUM_WAREHAUS", "x")], "did you mean ALLUVIUM_WAREHOUSE?");
}

#[test]
fn variables_beside_a_service_of_our_name_are_no_settings() -> Result<()> {
    // As a pod has them beside a service with a named port 9464.
    let of_service = [
        ("ALLUVIUM_SERVICE_HOST", "10.0.0.11"),
        ("ALLUVIUM_SERVICE_PORT", "9464"),
        ("ALLUVIUM_SERVICE_PORT_METRICS", "9464"),
        ("ALLUVIUM_PORT", "tcp://10.0.0.11:9464"),
        ("ALLUVIUM_PORT_9464_TCP", "tcp://10.0.0.11:9464"),
        ("ALLUVIUM_PORT_9464_TCP_PROTO", "tcp"),
    ];
    settings("", &of_service)?;
    for name in ["ALLUVIUM_PORTS", "ALLUVIUM_SERVICE", "ALLUVIUM_SERVICE_PORTS"] {
        check_refused("", &[(name, "9464")], &format!("unknown environment variable {name}"));
    }
    Ok(())
}

#[test]
fn hostile_values_are_refused_with_their_place() {
    let cases = [
        ("warehouse = 5", "/etc/alluvium.toml:1:1: warehouse: not a value"),
        ("warehouse = 'ftp://x/y'", "warehouse: "),
        ("warehouse = 's3://id:secret@lake/x'", "holds no credentials"),
        ("warehouse = 's3:/lake/x'", "a scheme is followed by ://"),
        ("warehouse = '~/lake'", "means something to a shell only"),
        ("catalog = 'postgres://u:p@h/db'", "Postgres cannot keep the catalog yet"),
        ("catalog = ':memory:'", "cannot be the catalog's file"),
        ("catalog = '~/c.db'", "/etc/alluvium.toml:1:1: catalog: '~/c.db' cannot be the catalog's file"),
        ("catalog = 'sqlite://~/c.db'", "means something to a shell only"),
        ("catalog = 'file:/data/c.db'", "write a path or sqlite://path"),
        ("index.snapshot_folder = 's3://lake/keys'", "index.snapshot_folder: snapshots are kept on the local disk"),
        ("index.snapshot_folder = 3", "index.snapshot_folder"),
        ("index.total_memory = 0", "index.total_memory: 0 bytes is out of range"),
        ("index.total_memory = '1 KiB'", "index.total_memory: 1024 bytes is out of range"),
        ("index.total_memory = 'half'", "a number of bytes"),
        ("batch.rows = 0", "0 is out of range"),
        ("batch.rows = -1", "not a value"),
        ("batch.rows = 1.5", "it is a fraction"),
        ("batch.rows = 99999999999999999999", "it is a number too large"),
        ("batch.rows = [1]", "it is a list"),
        ("batch.bytes = '4 GiB'", "out of range"),
        ("batch.bytes = '99999999999999 GiB'", "not a value"),
        ("batch.interval = 10", "a duration with its unit"),
        ("batch.interval = '10'", "a duration with its unit"),
        ("batch.interval = '-1s'", "a duration with its unit"),
        ("batch.interval = '0s'", "out of range"),
        ("limits.commit_attempts = 0", "out of range"),
        ("limits.retry_wait_min = '20s'", "limits.retry_wait_min: 20s is longer than limits.retry_wait_max"),
        ("limits.retry_wait_max = '5ms'", "limits.retry_wait_max: 5ms is shorter than"),
        ("listen.metrics = '0.0.0.0:9464'", "not a loopback address"),
        ("listen.metrics = '[::]:9464'", "not a loopback address"),
        ("listen.metrics = 'localhost'", "not a value"),
        ("log.format = 'xml'", "one of auto, text, json"),
        ("log.level = 'alluvium=loud'", "log.level: 'alluvium=loud' is not a log level"),
        ("otlp.endpoint = 'http://user:hunter2@host'", "without credentials"),
        ("otlp.endpoint = 'file:///etc'", "without credentials"),
        ("storage.access_key_id = 'id'\nstorage.allow_http = 'yes'", "true or false"),
        ("warehouse = 'a'\nwarehouse = 'b'", "/etc/alluvium.toml:2:"),
        ("[batch\nrows = 1", "/etc/alluvium.toml:1:"),
    ];
    for (text, expected) in cases {
        check_refused(text, &[], expected);
    }
}

#[test]
fn values_behind_wrong_keys_are_not_repeated() {
    for text in ["batch.interval = 'hunter2'", "otlp.endpoint = 'http://u:hunter2@h'", "secret = 'hunter2"] {
        let refusal = refusal(text, &[]);
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn nesting_without_end_is_an_error_and_no_crash() {
    let text = format!("a = {}", "[".repeat(100_000));
    check_refused(&text, &[], "/etc/alluvium.toml:1:");
    let text = format!("{}x = 1", "a.".repeat(20_000));
    check_refused(&text, &[], "/etc/alluvium.toml:1:");
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let flags = Flags { config: Some(PathBuf::from("/nowhere/alluvium.toml")), ..Flags::default() };
    let refused = Settings::load(&flags, &Environment::default()).map_err(|error| error.to_string());
    assert!(refused.is_err_and(|text| text.contains("/nowhere/alluvium.toml does not exist")));
}

#[cfg(unix)]
#[test]
fn settings_may_come_from_what_is_no_regular_file() -> Result<()> {
    let flags = Flags { config: Some(PathBuf::from("/dev/null")), ..Flags::default() };
    let usual: Location = "./warehouse".parse()?;
    assert_eq!(*Settings::load(&flags, &Environment::default())?.warehouse(), usual);
    // Not there for another reason than that nobody made it.
    let flags = Flags { config: Some(PathBuf::from("/dev/null/alluvium.toml")), ..Flags::default() };
    let refused = Settings::load(&flags, &Environment::default()).map_err(|error| error.to_string());
    assert!(refused.is_err_and(|text| text.starts_with("cannot read settings file /dev/null/alluvium.toml")));
    Ok(())
}

#[test]
fn a_folder_in_the_settings_place_is_named_as_one() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let flags = Flags { config: Some(folder.path().to_owned()), ..Flags::default() };
    let refused = |flags: &Flags| Settings::load(flags, &Environment::default()).err();
    let error = refused(&flags).ok_or_else(|| Error::internal("a folder was read"))?;
    assert!(error.message().ends_with("is a folder"), "{error}");
    let written = std::fs::write(folder.path().join("alluvium.toml"), "");
    written.map_err(|source| Error::internal("test file").with_source(source))?;
    let error = refused(&flags).ok_or_else(|| Error::internal("a folder was read"))?;
    assert!(error.hint().is_some_and(|hint| hint.ends_with("/alluvium.toml?")), "{error}");
    Ok(())
}

#[test]
fn units_are_those_of_sql() -> Result<()> {
    let text = "[batch]\nbytes = \"256 MB\"\ninterval = \"10 seconds\"\n";
    let folder = tempfile::tempdir().map_err(|source| Error::internal("test folder").with_source(source))?;
    let file = folder.path().join("alluvium.toml");
    std::fs::write(&file, text).map_err(|source| Error::internal("test file").with_source(source))?;
    let flags = Flags { config: Some(file), ..Flags::default() };
    let batch = Settings::load(&flags, &Environment::default())?.batch();
    assert_eq!((batch.bytes_max, batch.interval), (256 << 20, Duration::from_secs(10)));
    Ok(())
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../docs/guide/settings.md");
    for key in KEYS {
        let or_dash = |text: &str| if text.is_empty() { String::from("-") } else { format!("`{text}`") };
        let (variable, default) = (or_dash(key.variable), or_dash(key.default));
        let row = format!("| `{}` | {variable} | {default} | {} |", key.path, key.meaning);
        assert!(page.contains(&row), "docs/guide/settings.md lacks the row\n{row}");
    }
}
