//! `SET`: a setting changes while the program runs, as the file could have it, until the file is read again.
//! It must never take what SHOW CONFIG says for what is in force.

use std::fs;

use integration::Pgweir;
use integration::wire::Script;

use crate::common::client::{outcome, said};
use crate::common::{Client, metric};
use crate::{command, conf, console, console_as, show};

fn value(admin: &mut Client, key: &str) -> String {
    show(admin, "SHOW CONFIG").value(("key", key), "value")
}

/// Which limit ends a statement that takes long; empty if none does.
fn limit(client: &mut Client) -> String {
    let frames = client.run(&Script::new().query("SELECT pg_sleep(0.6)"));
    let error = frames.iter().find(|frame| frame.tag == b'E');
    error.and_then(|error| error.field(b'H')).unwrap_or_default()
}

fn text_of(pgweir: &Pgweir) -> String {
    fs::read_to_string(pgweir.config_file()).unwrap()
}

#[test]
fn a_setting_changes_until_the_file_is_read_again() {
    let pgweir = conf().pool("query_timeout = \"20s\"").start();
    let (mut admin, mut client) = (console(&pgweir), Client::connect(pgweir.port()));
    let before = text_of(&pgweir);
    assert_eq!(limit(&mut client), "");
    assert_eq!(command(&mut admin, "SET query_timeout = '200ms'").unwrap(), "SET");
    assert_eq!(value(&mut admin, "query_timeout"), "0.2");
    assert_eq!(limit(&mut client), "The limit is pgweir's query_timeout, 200 ms.");
    // Another one beside it, in PgBouncer's way, and with the table in front.
    for (sql, key, shown) in [
        ("SET pool_mode TO session", "pool_mode", "session"),
        ("set pool.server_idle_timeout = 5", "server_idle_timeout", "5"),
        ("SET server_lifetime = 0.5", "server_lifetime", "0.5"),
        ("SET lanes = 0", "lanes", "0"),
        ("SET lanes TO 'on'", "lanes", "1"),
        ("SET lane_settings = 'application_name, Work_Mem'", "lane_settings", "application_name,work_mem"),
        ("SET max_packet_size = 1048576", "max_packet_size", "1048576"),
        ("SET alerts.slow_query = 2", "alerts.slow_query", "2"),
        ("SET shutdown_timeout = '90s'", "shutdown_timeout", "90"),
    ] {
        assert_eq!(command(&mut admin, sql).unwrap(), "SET", "{sql}");
        assert_eq!(value(&mut admin, key), shown, "{sql}");
    }
    assert_eq!(value(&mut admin, "query_timeout"), "0.2");
    let by_parameter = Script::new().parse("", "SET query_timeout = $1").bind("", "", &[Some("300ms")]);
    outcome(&admin.run(&by_parameter.execute("", 0).sync())).unwrap();
    assert_eq!(limit(&mut client), "The limit is pgweir's query_timeout, 300 ms.");
    assert_eq!(text_of(&pgweir), before);
    assert_eq!(command(&mut admin, "RELOAD").unwrap(), "RELOAD");
    assert_eq!(
        (value(&mut admin, "query_timeout"), value(&mut admin, "pool_mode")),
        ("20".into(), "transaction".into())
    );
    let mut client = Client::connect(pgweir.port());
    assert_eq!(limit(&mut client), "");
}

/// Nothing changes, and it is said why; the file is not what is wrong.
#[test]
fn what_cannot_be_set_is_refused() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let refused = |admin: &mut Client, sql: &str| {
        let frames = admin.run(&Script::new().query(sql));
        assert_eq!(frames[0].tag, b'E', "{sql}");
        (said(&frames[0]), frames[0].field(b'D').unwrap_or_default())
    };
    let (error, detail) = refused(&mut admin, "SET default_pool_size = many");
    assert_eq!(error, "22023 pgweir: \"default_pool_size\" cannot be \"many\"");
    assert!(detail.contains("default_pool_size") && detail.contains("expected"), "{detail}");
    // Alone it could be.
    let (error, detail) = refused(&mut admin, "SET reserve_pool_size = -1");
    assert!(error.starts_with("22023 ") && detail.contains("expected"), "{error} {detail}");
    assert!(refused(&mut admin, "SET nonsense = 1").0.starts_with("42704 pgweir: there is no setting \"nonsense\""));
    let (error, _) = refused(&mut admin, "SET max_shapes = 10");
    assert!(error.starts_with("55P02 "), "{error}");
    let mut watcher = console_as(&pgweir, "watcher", "pgweir");
    assert!(command(&mut watcher, "SET lanes = 0").unwrap_err().starts_with("42501 "));
    assert_eq!(value(&mut admin, "default_pool_size"), "20");
    assert_eq!(metric(&pgweir, "pgweir_config_reloads_total", &[("outcome", "error")]), 0.0);
}
