//! Exactly what is said of wrong configurations, one of each kind.
//! Must never depend on this machine.
#![allow(clippy::unwrap_used)]

use super::*;

/// Two sections without which no configuration is complete.
const REST: &str = "[databases.d]\nprimary = \"h\"\n[users.u]\npassword = \"x\"\n";

fn with_rest(text: &str) -> String {
    format!("{text}\n{REST}")
}

fn accepted(text: &str) -> Config {
    Config::parse(text, "f.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is said of a wrong configuration.
fn said(text: &str) -> String {
    Config::parse(text, "f.toml").unwrap_err().to_string()
}

/// The first lines of all problems.
fn titles(text: &str) -> Vec<String> {
    let problems = Config::parse(text, "f.toml").unwrap_err();
    let first = |problem: &Problem| problem.to_string().lines().next().unwrap().to_owned();
    problems.iter().map(first).collect()
}

/// One wrong configuration and exactly what is said of it.
fn check(text: &str, expected: &str) {
    let expected = expected.strip_prefix('\n').unwrap();
    let found = said(text);
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}

#[test]
fn unknown_keys() {
    check(
        &with_rest("workres = 1"),
        r"
error: unknown key `workres` at the top level
 --> f.toml:1:1
  |
1 | workres = 1
  | ^^^^^^^
  = did you mean `workers`?
",
    );
    check(
        &with_rest("[stats]\n\tport = 1"),
        "
error: unknown key `port` in [stats]
 --> f.toml:2:2
  |
2 | \tport = 1
  | \t^^^^
  = expected `address`, `max_shapes`, `max_series`, `n_plus_one`, `unused_index_after`, `tls_cert_file`, `tls_key_file`, `allow_cleartext_tokens` or `tokens`
  = did you mean `listen.port`?
",
    );
    check(
        &format!("{REST}pool_sise = 3"),
        r"
error: unknown key `pool_sise` in [users.u]
 --> f.toml:5:1
  |
5 | pool_sise = 3
  | ^^^^^^^^^
  = did you mean `pool_size`?
",
    );
}

#[test]
fn wrong_types() {
    check(
        &with_rest("[listen]\nport = \"6432\" # as ever"),
        r#"
error: `listen.port` has the wrong type
 --> f.toml:2:8
  |
2 | port = "6432" # as ever
  |        ^^^^^^
  = expected a whole number from 0 to 65535, found a string
"#,
    );
    check(
        &with_rest("listen = 5"),
        r"
error: `listen` has the wrong type
 --> f.toml:1:10
  |
1 | listen = 5
  |          ^
  = expected a table, found an integer
",
    );
}

#[test]
fn numbers_durations_and_sizes() {
    check(
        &with_rest("[pool]\nquery_wait_timeout = 120"),
        r#"
error: `pool.query_wait_timeout` has no valid value
 --> f.toml:2:22
  |
2 | query_wait_timeout = 120
  |                      ^^^
  = expected a duration such as "500ms", "30s", "2m", "1h", at most "365d", or 0
  = did you mean `"120s"`?
"#,
    );
    check(
        &with_rest("[listen]\nmax_packet_size = \"1Mb\""),
        r#"
error: `listen.max_packet_size` has no valid value
 --> f.toml:2:19
  |
2 | max_packet_size = "1Mb"
  |                   ^^^^^
  = expected a size from 16KiB to 2147483647: bytes, or a number with a unit such as "64KiB", "1MiB"
"#,
    );
    let wrong = [
        ("listen", "port = 65536"),
        ("listen", "port = -1"),
        ("listen", "max_client_conn = 0"),
        ("listen", "client_login_timeout = \"0s\""),
        ("listen", "max_packet_size = 100"),
        ("pool", "reserve_pool_timeout = 0"),
        ("pool", "query_wait_timeout = \"30\""),
        ("pool", "max_prepared_statements = 99999999999999999999"),
    ];
    for (section, line) in wrong {
        let key = line.split(' ').next().unwrap();
        let title = format!("error: `{section}.{key}` has no valid value");
        assert_eq!(titles(&with_rest(&format!("[{section}]\n{line}"))), [title], "{line}");
    }
}

#[test]
fn words_and_addresses() {
    check(
        &with_rest("[pool]\npool_mode = \"sesion\""),
        r#"
error: `pool.pool_mode` has no valid value
 --> f.toml:2:13
  |
2 | pool_mode = "sesion"
  |             ^^^^^^^^
  = expected "session", "transaction" or "statement"
  = did you mean `"session"`?
"#,
    );
    check(
        &with_rest("[listen]\nauth_type = \"scram-sha256\"\naddress = [\"::1\", \"localhost\"]"),
        r#"
error: `listen.auth_type` has no valid value
 --> f.toml:2:13
  |
2 | auth_type = "scram-sha256"
  |             ^^^^^^^^^^^^^^
  = expected "trust", "md5", "scram-sha-256", "password", "cert" or "hba"
  = did you mean `"scram-sha-256"`?

error: `listen.address` has no valid value
 --> f.toml:3:19
  |
3 | address = ["::1", "localhost"]
  |                   ^^^^^^^^^^^
  = expected an IP address such as "127.0.0.1" or "::1", "*" for all, or a list of addresses
"#,
    );
    check(
        &with_rest("[log]\nlevel = \"info,pgweir=debgu\""),
        r#"
error: `log.level` has no valid value
 --> f.toml:2:9
  |
2 | level = "info,pgweir=debgu"
  |         ^^^^^^^^^^^^^^^^^^^
  = expected "off", "error", "warn", "info", "debug" or "trace", also per target as in "info,pgweir::pool=debug"
  = did you mean `"debug"`?
"#,
    );
    check(
        "[databases.d]\nprimary = \"postgres://u:hunter2@h/d\"\n[users.u]\npassword = \"x\"",
        r#"
error: `databases.d.primary` has no valid value
 --> f.toml:2:11
  |
2 | primary = "postgres://u:<redacted>@h/d"
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = expected only "host:port"; the database goes to `dbname`, the login to `user` and `password`
"#,
    );
}

const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A configuration that has only one problem, with this title.
fn contradicts(text: &str, title: &str) {
    assert_eq!(titles(text), [format!("error: {title}")], "{text}");
}

#[test]
fn settings_that_answers_hang_on_cannot_differ_in_a_lane() {
    let pool = |names: &str| with_rest(&format!("[pool]\nlane_settings = [{names}]"));
    for name in ["TimeZone", "search_path", "client_encoding", "pg_trgm.similarity_threshold", "nonsense"] {
        let title = format!("`{name}` cannot be in `lane_settings`: answers may hang on it");
        contradicts(&pool(&format!("\"application_name\", \"{name}\"")), &title);
    }
    accepted(&pool("\"Application_Name\", \"log_statement\", \"enable_seqscan\", \"app.tenant\""));
}

#[test]
fn contradictions_of_listeners() {
    let listen = |lines: &str, title| contradicts(&with_rest(&format!("[listen]\n{lines}")), title);
    listen("client_tls_cert_file = \"Cargo.toml\"", "`client_tls_cert_file` needs `client_tls_key_file`");
    listen("client_tls_sslmode = \"allow\"", "`client_tls_sslmode` is \"allow\" but there is no certificate");
    listen("port = 9127", "clients and statistics cannot both listen on 127.0.0.1:9127");
    let title = "clients and statistics cannot both listen on [::1]:6432";
    listen("address = \"*\"\n[stats]\naddress = \"[::1]:6432\"", title);
    accepted(&with_rest("[listen]\naddress = \"10.0.0.1\"\nport = 9127"));
}

#[test]
fn contradictions_of_databases() {
    let database = |line: &str, title| {
        let rest = "[users.u]\npassword = \"x\"\n[databases.d]\nprimary = \"h\"";
        contradicts(&format!("{rest}\n{line}"), title);
    };
    database("routing = \"on\"", "`routing` is on but database `d` has no replicas");
    database("password = \"x\"", "database `d` has a password but no `user` it belongs to");
    database("server_tls_key_file = \"Cargo.toml\"", "`server_tls_key_file` needs `server_tls_cert_file`");
    let title = "`server_tls_ca_file` is never used when `server_tls_sslmode` is \"prefer\"";
    database("server_tls_ca_file = \"Cargo.toml\"", title);
    let login = format!("user = \"a\"\npassword = \"{VERIFIER}\"");
    database(&login, "a SCRAM verifier cannot log in to a server");
    contradicts("[users.u]\npassword = \"x\"", "there is no database");
    let title = "database `d` has no primary";
    contradicts("[users.u]\npassword = \"x\"\n[databases.d]\ndbname = \"x\"", title);
}

#[test]
fn contradictions_of_users() {
    let user = |line: &str| format!("[databases.d]\nprimary = \"h\"\n[users.u]\n{line}");
    contradicts("[databases.d]\nprimary = \"h\"", "there is no user");
    contradicts(&user("pool_size = 1"), "user `u` has no password and can never log in");
    contradicts(&user("password = \"SCRAM-SHA-256$4096:x\""), "broken SCRAM verifier");
    let md5 = user("password = \"md5d8578edf8458ce06fbc5bb76a58c5ca4\"");
    contradicts(&md5, "user `u` has an MD5 password and can never log in by SCRAM");
    let verifier = user(&format!("password = \"{VERIFIER}\""));
    accepted(&verifier);
    accepted(&format!("[listen]\nauth_type = \"md5\"\n{verifier}"));
    accepted(&format!("[listen]\nauth_type = \"md5\"\n{md5}"));
    accepted(&format!("[listen]\nauth_type = \"trust\"\n{}", user("")));
}

#[test]
fn one_contradiction_in_full() {
    check(
        "[databases.d]\nprimary = \"h\"\nrouting = \"on\"\n[users.u]\npassword = \"x\"",
        r#"
error: `routing` is on but database `d` has no replicas
 --> f.toml:3:11
  |
3 | routing = "on"
  |           ^^^^
  = expected replicas = ["host:5432"]
"#,
    );
}

#[test]
fn secrets_that_are_not_there() {
    check(
        "[databases.d]\nprimary = \"h\"\n[users.a]\npassword = { env = \"PGWEIR_TEST_NO_SUCH\" }\n[users.b]\npassword = { file = \"/nonexistent/x\" }",
        r#"
error: the environment variable `PGWEIR_TEST_NO_SUCH` is not set
 --> f.toml:4:20
  |
4 | password = { env = "PGWEIR_TEST_NO_SUCH" }
  |                    ^^^^^^^^^^^^^^^^^^^^^
  = expected a variable that holds the secret

error: cannot open /nonexistent/x: no such file
 --> f.toml:6:21
  |
6 | password = { file = "/nonexistent/x" }
  |                     ^^^^^^^^^^^^^^^^
  = expected a readable file
"#,
    );
}

#[test]
fn syntax_errors_are_all_found() {
    check(
        "workers = two\nshutdown_timeout = \n[log]\nlevel = \"info\"\nlevel = 2\nlevl = 3",
        r"
error: not TOML: invalid boolean
 --> f.toml:1:11
  |
1 | workers = two
  |           ^^^
  = expected `true`

error: not TOML: string values must be quoted
 --> f.toml:2:20
  |
2 | shutdown_timeout = 
  |                    ^
  = expected literal string

error: not TOML: duplicate key
 --> f.toml:5:1
  |
5 | level = 2
  | ^^^^^

error: unknown key `levl` in [log]
 --> f.toml:6:1
  |
6 | levl = 3
  | ^^^^
  = expected `level` or `format`
  = did you mean `level`?
",
    );
    // After a broken header the keys below it would be judged in the wrong section.
    assert_eq!(titles("[listen\nport = 1"), ["error: not TOML: unclosed table"]);
}

#[test]
fn a_server_is_listed_once() {
    let user = "[users.u]\npassword = \"x\"\n";
    check(
        &format!("[databases.d]\nhosts = [\"b:1\", \"c:1\", \"b:1\"]\n{user}"),
        r#"
error: database `d` has the host b:1 twice
 --> f.toml:2:9
  |
2 | hosts = ["b:1", "c:1", "b:1"]
  |         ^^^^^^^^^^^^^^^^^^^^^
  = expected each server once
"#,
    );
    check(
        &format!("[databases.d]\nprimary = \"h\"\nreplicas = [\"a\", \"b\", \"a:5432\"]\n{user}"),
        r#"
error: database `d` has the replica a:5432 twice
 --> f.toml:3:12
  |
3 | replicas = ["a", "b", "a:5432"]
  |            ^^^^^^^^^^^^^^^^^^^^
  = expected each server once
"#,
    );
    check(
        &format!("[databases.d]\nprimary = \"b\"\nreplicas = [\"c\", \"b:5432\"]\n{user}"),
        r#"
error: database `d` has its primary b:5432 among its `replicas`
 --> f.toml:3:12
  |
3 | replicas = ["c", "b:5432"]
  |            ^^^^^^^^^^^^^^^
  = expected each server once: `replicas` without it
"#,
    );
    // On another port it is another server.
    accepted(&format!("[databases.d]\nprimary = \"b\"\nreplicas = [\"b:1\", \"c:1\"]\n{user}"));
}

#[test]
fn five_problems_give_five() {
    let text = "workers = true\n[listen]\nprot = 1\n[pool]\nquery_wait_timeout = \"1x\"\n[databases.d]\nrouting = \"on\"\n[users.u]\npassword = \"x\"";
    assert_eq!(
        titles(text),
        [
            "error: `workers` has the wrong type",
            "error: unknown key `prot` in [listen]",
            "error: `pool.query_wait_timeout` has no valid value",
            "error: database `d` has no primary",
            "error: `routing` is on but database `d` has no replicas",
        ]
    );
}

#[test]
fn sockets_and_peers() {
    let listen = |line: &str| titles(&with_rest(&format!("[listen]\n{line}")));
    let bad = |key: &str| [format!("error: `listen.{key}` has no valid value")];
    for mode in ["777777", "0999", "77", "1777", "rwx"] {
        assert_eq!(listen(&format!("unix_socket_mode = \"{mode}\"")), bad("unix_socket_mode"), "{mode}");
    }
    assert_eq!(listen("unix_socket_mode = 777"), ["error: `listen.unix_socket_mode` has the wrong type"]);
    assert_eq!(listen(&format!("unix_socket_dir = \"/{}\"", "d".repeat(95))), bad("unix_socket_dir"));
    assert_eq!(listen("tcp_keepidle = \"1500ms\""), bad("tcp_keepidle"));
    assert_eq!(listen("tcp_keepintvl = \"10h\""), bad("tcp_keepintvl"));
    assert_eq!(listen("tcp_keepcnt = 128"), bad("tcp_keepcnt"));
    assert_eq!(listen("instance_id = 64"), bad("instance_id"));
    assert_eq!(listen("proxy_protocol = [\"10.0.0.1/8\"]"), bad("proxy_protocol"));
    assert_eq!(listen("proxy_protocol = \"10.0.0.0/8\""), ["error: `listen.proxy_protocol` has the wrong type"]);
    let peer = |text: &str| titles(&format!("{REST}\n{text}"));
    for name in ["64", "one", "07", "-1"] {
        let text = format!("[peers.{name}]\naddress = \"h\"");
        assert_eq!(peer(&text), [format!("error: `{name}` is no number of an instance")]);
    }
    assert_eq!(peer("[peers.3]"), ["error: peer 3 has no address"]);
    assert_eq!(peer("[peers.3]\naddress = \"h:0\""), ["error: `peers.3.address` has no valid value"]);
}
