//! What configurations become; `problem_tests` has those that are wrong.
//! Must never depend on this machine: files are made, variables handed in.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::*;

const MINIMAL: &str = include_str!("../../config/minimal.toml");
const REFERENCE: &str = include_str!("../../config/reference.toml");

fn accepted(text: &str) -> Config {
    Config::parse(text, "f.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

// === the shipped files ===

#[test]
fn minimal_is_accepted() {
    let config = accepted(MINIMAL);
    let shop = &config.databases["shop"];
    assert_eq!(shop.primary.to_string(), "10.0.0.1:5432");
    assert_eq!(shop.replicas.len(), 2);
    assert_eq!(shop.routing, Routing::On);
    assert!(matches!(config.users["app"].password, Some(Password::Plain(_))));
}

#[test]
fn reference_equals_the_defaults() {
    let config = accepted(REFERENCE);
    assert_eq!(config.listen, Listen::default());
    assert_eq!(config.auth, Auth::default());
    assert_eq!(config.stats, Stats::default());
    assert_eq!(config.alerts, Alerts::default());
    assert_eq!(config.pool, Pool::default());
    assert_eq!(config.log, Log::default());
    assert_eq!(config.workers, 0);
    assert_eq!(config.shutdown_timeout, Config::SHUTDOWN_TIMEOUT);
    let shop = Database::new("shop", "10.0.0.1:5432".parse().unwrap());
    assert_eq!(config.databases["shop"], shop);
    assert_eq!(config.users["app"].terms, Overrides::default());
    // And the defaults are what a file without any of these keys gives.
    let empty = accepted(&format!(
        "{}\n[users.app]\npassword = \"change-me\"",
        "[databases.shop]\nprimary = \"10.0.0.1\"\n[peers.2]\naddress = \"10.0.0.7\""
    ));
    assert_eq!(config, empty);
}

/// The section that a line begins, which may be an example.
fn header(line: &str) -> Option<&str> {
    let section = line.trim_start_matches("# ").strip_prefix('[')?.strip_suffix(']')?;
    Some(section.trim_matches(['[', ']'])).filter(|name| !name.contains(' '))
}

#[test]
fn reference_names_every_key_once() {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(name) = header(line) {
            section = ["shop", "app", "2", "orders", "grafana", "ops"]
                .iter()
                .fold(format!("{name}."), |section, name| section.replace(&format!(".{name}."), ".NAME."));
            section.pop();
        }
        let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") else {
            continue;
        };
        if key.contains(' ') {
            continue; // prose
        }
        found.push(
            reader::join(&section, key)
                .replace(".groups.replica-1", ".groups.NAME")
                .replace("strategies.menu", "strategies.NAME")
                .replace("warm_up.settings", "warm_up.settings.NAME")
                .replace("traces.headers", "traces.headers.NAME"),
        );
    }
    let schema = schema::all_keys();
    assert_eq!(found.len(), schema.len());
    assert_eq!(BTreeSet::from_iter(found), BTreeSet::from_iter(schema));
}

#[test]
fn examples_in_the_reference_can_be_uncommented() {
    let is_example = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
        key.is_some_and(|(key, _)| !key.contains(' ')) || (line.starts_with("# ") && header(line).is_some())
    };
    let line = |line: &str| {
        if is_example(line) { line.replacen("# ", "", 1) } else { line.to_owned() }
    };
    let text: Vec<String> = REFERENCE.lines().map(line).collect();
    let text = text.join("\n");
    let tree = DeTable::parse(&text).unwrap();
    let mut reader = Reader::new::<RawConfig>(Source::new("reference.toml", &text));
    assert!(read_around_syntax(&mut reader, &text, tree).is_some());
    assert_eq!(Problems::of_text(reader.problems).to_string(), "");
}

// === values ===

/// Every key that takes a value without a file, none at its default.
const EVERYTHING: &str = r#"
workers = 3
shutdown_timeout = 0
[listen]
address = "*"
port = 0
max_client_conn = 7
client_login_timeout = "500ms"
auth_type = "md5"
max_packet_size = "64KiB"
tcp_keepalive = false
tcp_keepidle = 0
tcp_keepintvl = "3s"
tcp_keepcnt = 4
tcp_user_timeout = "1500ms"
listen_backlog = 9
so_reuseport = true
unix_socket_dir = "/run/weir"
unix_socket_mode = "0770"
unix_socket_group = "staff"
proxy_protocol = ["10.0.0.0/8", "::1"]
connection_rate_per_address = 11
connection_rate_per_user = 12
instance_id = 5
[stats]
address = "off"
max_shapes = 5
[console]
admin_users = ["root"]
stats_users = ["watcher", "grafana"]
stats_period = "7s"
[pool]
pool_mode = "statement"
session_state = "strict"
max_pinned_servers = 3
pin_idle_timeout = "9s"
default_pool_size = 4
min_pool_size = 1
reserve_pool_size = 3
reserve_pool_timeout = "2s"
max_db_connections = 30
max_user_connections = 20
server_connect_burst = 2
server_order = "rotate"
max_waiting_clients = 100
query_wait_timeout = "0"
query_wait_timeout_action = "close"
query_wait_notify = 0
transaction_timeout = "1m"
query_timeout = "30s"
catalog_refresh = "5s"
breaker_failures = 0
breaker_pause = "3s"
slow_start = 0
zone = "a"
server_reset_query = ""
server_idle_timeout = 0
server_lifetime = "2m"
client_idle_timeout = "1h"
max_prepared_statements = 9
max_server_prepared_bytes = 4096
max_client_prepared_bytes = "5KiB"
max_prepared_bytes = "1GiB"
max_db_client_connections = 10
max_user_client_connections = 11
[log]
level = "warn,pgweir::pool=debug"
format = "json"
[databases."odd name"]
dbname = "shop"
primary = "/run/pg:5433"
replicas = ["[::1]:1", "h"]
user = "role"
password = "secret"
pool_size = 2
max_client_connections = 0
pool_mode = "session"
session_state = "pgbouncer"
max_db_connections = 6
routing = "off"
server_tls_sslmode = "verify-full"
[users.a]
password = "md5d8578edf8458ce06fbc5bb76a58c5ca4"
[users.b]
password = "p"
pool_size = 1
max_client_connections = 6
query_timeout = 0
max_pinned_servers = 0
pin_idle_timeout = 0
max_user_connections = 5
[peers.5]
address = "this:1"
[peers.6]
address = "that"
[peers.63]
address = "/run/weir:5432"
"#;

#[test]
fn every_setting_arrives() {
    let config = accepted(EVERYTHING);
    assert_eq!((config.workers, config.shutdown_timeout), (3, Duration::ZERO));
    assert_eq!(
        config.listen,
        Listen {
            address: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
            port: 0,
            max_client_conn: 7,
            client_login_timeout: Duration::from_millis(500),
            auth_type: AuthType::Md5,
            max_packet_size: 65_536,
            tcp: Tcp {
                keepalive: false,
                keepidle: None,
                keepintvl: Some(Duration::from_secs(3)),
                keepcnt: 4,
                user_timeout: Some(Duration::from_millis(1500)),
            },
            listen_backlog: 9,
            so_reuseport: true,
            unix_socket: Some(UnixSocket {
                directory: "/run/weir".into(),
                mode: 0o770,
                group: Some("staff".to_owned()),
            }),
            proxy_protocol: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
            connection_rate_per_address: 11,
            connection_rate_per_user: 12,
            instance_id: 5,
            ..Listen::default()
        }
    );
    assert_eq!(config.stats, Stats { address: None, max_shapes: 5, ..Stats::default() });
    let console = Console {
        admin_users: vec!["root".into()],
        stats_users: vec!["watcher".into(), "grafana".into()],
        stats_period: Duration::from_secs(7),
    };
    assert_eq!(config.console, console);
    assert_eq!(
        config.pool,
        Pool {
            pool_mode: PoolMode::Statement,
            session_state: SessionState::Strict,
            max_pinned_servers: 3,
            pin_idle_timeout: Some(Duration::from_secs(9)),
            default_pool_size: 4,
            min_pool_size: 1,
            reserve_pool_size: 3,
            reserve_pool_timeout: Duration::from_secs(2),
            max_db_connections: 30,
            max_user_connections: 20,
            server_connect_burst: 2,
            server_order: ServerOrder::Rotate,
            max_waiting_clients: 100,
            query_wait_timeout: None,
            query_wait_timeout_action: WaitAction::Close,
            query_wait_notify: None,
            transaction_timeout: Some(Duration::from_secs(60)),
            query_timeout: Some(Duration::from_secs(30)),
            catalog_refresh: Some(Duration::from_secs(5)),
            breaker_failures: 0,
            breaker_pause: Duration::from_secs(3),
            slow_start: Duration::ZERO,
            zone: Some("a".to_owned()),
            server_reset_query: String::new(),
            server_idle_timeout: None,
            server_lifetime: Some(Duration::from_secs(120)),
            client_idle_timeout: Some(Duration::from_secs(3600)),
            max_prepared_statements: 9,
            max_server_prepared_bytes: 4096,
            max_client_prepared_bytes: 5120,
            max_prepared_bytes: 1 << 30,
            max_db_client_connections: 10,
            max_user_client_connections: 11,
            ..Pool::default()
        }
    );
    assert_eq!(config.log, Log { level: "warn,pgweir::pool=debug".to_owned(), format: LogFormat::Json });
}

#[test]
fn every_name_arrives() {
    let config = accepted(EVERYTHING);
    let database = &config.databases["odd name"];
    let (a, b) = (&config.users["a"], &config.users["b"]);
    assert_eq!((database.name.as_str(), database.dbname.as_str()), ("odd name", "shop"));
    assert_eq!(database.replicas.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::1]:1", "h:5432"]);
    assert_eq!((database.routing, database.server_tls_sslmode), (Routing::Off, SslMode::VerifyFull));
    let (of_a, of_b) = (config.terms("odd name", "a"), config.terms("odd name", "b"));
    assert_eq!((of_a.pool_size, of_b.pool_size), (2, 1));
    assert_eq!((of_a.query_timeout, of_b.query_timeout), (Some(Duration::from_secs(30)), None));
    assert_eq!((of_a.pool_mode, config.terms("other", "b").pool_mode), (PoolMode::Session, PoolMode::Statement));
    assert_eq!(
        (of_a.session_state, config.terms("other", "b").session_state),
        (SessionState::PgBouncer, SessionState::Strict)
    );
    assert_eq!((of_a.max_pinned_servers, of_b.max_pinned_servers), (3, 0));
    assert_eq!((of_a.pin_idle_timeout, of_b.pin_idle_timeout), (Some(Duration::from_secs(9)), None));
    assert_eq!((config.max_db_connections("odd name"), config.max_db_connections("other")), (6, 30));
    assert_eq!((config.max_user_connections("a"), config.max_user_connections("b")), (20, 5));
    assert_eq!(config.database_client_limit(database), None);
    assert_eq!(
        config.database_client_limit(&Database::new("x", "h".parse().unwrap())),
        Some((10, "max_db_client_connections"))
    );
    assert_eq!(config.user_client_limit(a), Some((11, "max_user_client_connections")));
    assert_eq!(config.user_client_limit(b), Some((6, "max_client_connections")));
    // A section for this instance itself may stand there and means nothing.
    let peers: Vec<_> = config.peers.iter().map(|(number, address)| (*number, address.to_string())).collect();
    assert_eq!(peers, [(6, "that:6432".to_owned()), (63, "/run/weir:5432".to_owned())]);
    assert_eq!(database.server_login(b).0, "role");
    assert_eq!(database.server_login(b).1.unwrap().secret().expose(), "secret");
    assert!(matches!(a.password, Some(Password::Md5(_))));
    assert_eq!(config, accepted(EVERYTHING));
    assert_ne!(config, accepted(&EVERYTHING.replace("\"secret\"", "\"secreT\"")));
    assert!(!format!("{config:?}").contains("secret\""));
}

#[test]
fn certificates_and_secret_files_start_at_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = super::warning_tests::identity();
    for (name, content) in [("c.pem", &*cert), ("k.pem", &*key), ("two", "hunter2\n\n"), ("crlf", "hunter2\r\n")] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let text = "
        [listen]
        client_tls_cert_file = \"c.pem\"
        client_tls_key_file = \"k.pem\"
        [databases.d]
        primary = \"h\"
        [users.one]
        password = { env = \"NAME\" }
        [users.two]
        password = { file = \"two\" }
        [users.crlf]
        password.file = \"crlf\"
    ";
    let variable = |name: &str| (name == "NAME").then(|| "hunter2\n".to_owned());
    let outside = Outside { directory: dir.path(), variable: &variable };
    let config = super::parse(text, "f.toml", outside).unwrap();
    assert_eq!(config.listen.client_tls_sslmode, TlsMode::Allow);
    assert_eq!(config.listen.client_tls_cert_file, Some(dir.path().join("c.pem")));
    let secret = |user: &str| config.users[user].password.as_ref().unwrap().secret().expose().to_owned();
    // Of a file one line end goes; a variable is taken as it is.
    assert_eq!(
        (secret("one"), secret("two"), secret("crlf")),
        ("hunter2\n".into(), "hunter2\n".into(), "hunter2".into())
    );
    // The same through the file system.
    let path = dir.path().join("pgweir.toml");
    std::fs::write(&path, text.replace("{ env = \"NAME\" }", "{ file = \"crlf\" }")).unwrap();
    assert_eq!(Config::load(&path).unwrap().users.len(), 3);
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgweir.toml");
    let said = |path: &Path| Config::load(path).unwrap_err().to_string().replace(&path.display().to_string(), "PATH");
    assert_eq!(
        said(&path),
        "error: cannot read the configuration: no such file\n --> PATH\n  = expected a readable TOML file in UTF-8\n"
    );
    std::fs::write(&path, b"workers = 1\n\xff").unwrap();
    assert!(said(&path).starts_with("error: cannot read the configuration: line 2 is not UTF-8\n"));
}

#[test]
fn no_problem_shows_a_secret() {
    for line in [
        "password = \"hunter2",
        "password = hunter2",
        "pasword = \"hunter2\"",
        "passphrase = 'hunter2' x",
        "password = [[\"hunter2\"]]",
        "password = [\"hunter2\", 5]",
        "password = [\n\"a\",\n\"hunter2\" \"b\",\n]",
        "password = { value = \"hunter2\" }",
        "password = { env = \"PATH\", value = \"hunter2\" }",
        "password = { env = \"PATH\", password = \"hunter2\"",
        "password.value = \"hunter2\"",
        "password = \"SCRAM-SHA-256$hunter2\"",
        "password = \"\"\"\nhunter2\\x\"\"\"",
        "[users.u.password]\nvalue = \"hunter2\"",
        "x = \"postgres://u:hunter2@h\"",
    ] {
        let text = format!("[databases.d]\nprimary = \"h\"\n[users.u]\n{line}");
        let said = Config::parse(&text, "f.toml").unwrap_err().to_string();
        assert!(!said.contains("hunter2"), "{line}\n{said}");
    }
}

proptest::proptest! {
    /// Whatever an editor leaves behind, the answer is a configuration or problems.
    #[test]
    fn damaged_files_do_no_harm(from in 0..REFERENCE.len(), length in 0..40usize, piece in "[\\PC\t\r\n\"'=\\[{]{0,6}") {
        let mut text = REFERENCE.to_owned();
        text.replace_range(from..(from + length).min(REFERENCE.len()), &piece);
        if let Err(problems) = Config::parse(&text, "f.toml") {
            proptest::prop_assert!(!problems.is_empty());
            proptest::prop_assert!(problems.to_string().starts_with("error: "));
        }
    }

    #[test]
    fn strange_urls_do_no_harm(tail in "[\\PC%@:/?&=\\[\\]]{0,20}") {
        if let Err(problems) = Config::from_urls(&format!("postgres://{tail}"), &[]) {
            proptest::prop_assert!(problems.to_string().starts_with("error: "));
        }
    }
}
