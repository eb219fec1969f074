//! What applications notify of does not count any more; and nothing does of which nobody would have heard.
//! It must never wait for a notification by time: what comes of it is awaited.

use std::time::Duration;

use integration::{Cluster, DATABASE, Pgweir};

use crate::common::{Client, eventually, metric, within};
use crate::signals::{cluster, console, heard, warm};
use crate::{ask_sql, direct, start};

const LINES: &str = "mode = \"on\"\nttl = \"1h\"\nsignals = \"cache_Invalidation\"\n";
const CHANNEL: &str = "cache_Invalidation";

fn notify(cluster: &Cluster, payload: &str) {
    direct(cluster, &format!("NOTIFY \"{CHANNEL}\", '{payload}'"));
}

fn heard_of(pgweir: &Pgweir) -> f64 {
    metric(pgweir, "pgweir_cache_signals_total", &[("source", "notify")])
}

fn listens(pgweir: &Pgweir) -> bool {
    metric(pgweir, "pgweir_cache_listening", &[("database", DATABASE)]) == 1.0
}

/// Those that listen.
const EARS: &str = "FROM pg_stat_activity WHERE application_name = 'pgweir cache signals'";

#[test]
fn a_notification_takes_what_it_names() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LINES));
    let mut client = Client::connect(pgweir.port());
    let reads = [
        "SELECT v FROM item WHERE id = 1",
        "SELECT v FROM mine WHERE id = 1 /* pgweir: tag=menu */",
        "SELECT v FROM half",
    ];
    for (payload, gone) in [
        (r#"{"table":"item","tenant_id":7,"record_id":42,"action":"UPDATE"}"#, [true, false, false]),
        (r#"{"table":"public.whole","action":"DELETE"}"#, [false, false, true]),
        (r#"{"tag":"menu"}"#, [false, true, false]),
        (r#"{"table":"none"}"#, [false; 3]),
        // Whose database it is says who hears it.
        (r#"{"table":"item","database":"elsewhere"}"#, [true, false, false]),
        (r#"{"all":true}"#, [true; 3]),
        ("", [true; 3]),
        ("menu", [true; 3]),
        (r#"{"action":"UPDATE"}"#, [true; 3]),
    ] {
        reads.iter().for_each(|sql| drop(warm(&pgweir, &mut client, sql)));
        let before = heard_of(&pgweir);
        notify(&cluster, payload);
        eventually("it is heard", || heard_of(&pgweir) > before);
        let missed = reads.map(|sql| !ask_sql(&pgweir, &mut client, sql).1);
        assert_eq!(missed, gone, "{payload}");
    }
    assert_eq!(metric(&pgweir, "pgweir_cache_signals_garbled_total", &[]), 3.0);
    assert_eq!(pgweir.log().matches("a signal is not understood").count(), 1);
    // Another channel, and a transaction that was rolled back.
    reads.iter().for_each(|sql| drop(warm(&pgweir, &mut client, sql)));
    let before = heard_of(&pgweir);
    direct(&cluster, "NOTIFY cache_invalidation, '{\"all\":true}'");
    let mut other = Client::connect(cluster.primary().port());
    other.query(&format!("BEGIN; NOTIFY \"{CHANNEL}\", '{{\"all\":true}}'; ROLLBACK")).unwrap();
    notify(&cluster, r#"{"tag":"none"}"#);
    eventually("the last is heard", || heard_of(&pgweir) > before);
    assert_eq!(heard_of(&pgweir), before + 1.0);
    assert!(reads.iter().all(|sql| ask_sql(&pgweir, &mut client, sql).1));
    assert_eq!(console(&pgweir, "watcher").query("SHOW CACHE WHERE signals = 'up'").unwrap().len(), 1);
}

/// A trigger of the application's, as it would be written.
#[test]
fn a_trigger_tells_of_every_write() {
    let cluster = cluster();
    direct(
        &cluster,
        &format!(
            "CREATE FUNCTION tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM pg_notify('{CHANNEL}', json_build_object('schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME,
                 'record_id', NEW.id, 'action', TG_OP)::text);
               RETURN NULL;
             END $$"
        ),
    );
    direct(&cluster, "CREATE TRIGGER tells AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION tells()");
    let pgweir = start(&heard(&cluster, LINES));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM shown WHERE id = 30";
    for turn in 0..20 {
        warm(&pgweir, &mut client, sql);
        direct(&cluster, &format!("UPDATE item SET v = 'turn {turn}' WHERE id = 30"));
        // At once, up to what the way of a notification takes.
        within(Duration::from_secs(5), "it is seen", || client.value(sql) == format!("turn {turn}"));
    }
}

/// While nobody listens nothing counts, and afterwards nothing from before.
#[test]
fn a_lost_connection_leaves_nothing() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LINES));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 3";
    warm(&pgweir, &mut client, sql);
    assert_eq!(cluster.primary().value_in(DATABASE, &format!("SELECT count(*) {EARS}")).unwrap(), "1");
    // It may not come back for a while; who is there already stays.
    cluster.primary().query("ALTER ROLE app CONNECTION LIMIT 0").unwrap();
    cluster.primary().query(&format!("SELECT pg_terminate_backend(pid) {EARS}")).unwrap();
    eventually("nobody listens", || !listens(&pgweir));
    for turn in 0..10 {
        let (_, hit) = ask_sql(&pgweir, &mut client, sql);
        assert!(!hit || listens(&pgweir), "turn {turn}");
    }
    direct(&cluster, "UPDATE item SET v = 'unheard' WHERE id = 3");
    notify(&cluster, r#"{"table":"item"}"#);
    assert!(pgweir.log().contains("nothing kept counts"), "{}", pgweir.log());
    cluster.primary().query("ALTER ROLE app CONNECTION LIMIT -1").unwrap();
    eventually("somebody listens again", || listens(&pgweir));
    assert_eq!(ask_sql(&pgweir, &mut client, sql), (vec![vec!["unheard".to_owned()]], false));
    assert_eq!(warm(&pgweir, &mut client, sql), [["unheard"]]);
}

/// A reload turns it on, over to another channel, and off.
#[test]
fn a_reload_listens_elsewhere() {
    let cluster = cluster();
    let conf = |lines: &str| heard(&cluster, &format!("mode = \"on\"\nttl = \"1h\"\n{lines}"));
    let pgweir = start(&conf(""));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 4";
    warm(&pgweir, &mut client, sql);
    let ears = || {
        cluster.primary().value_in(DATABASE, &format!("SELECT coalesce(string_agg(query, ','), '') {EARS}")).unwrap()
    };
    assert_eq!(ears(), "");
    for channel in ["one", "two"] {
        pgweir.reload(&conf(&format!("signals = \"{channel}\"")).top("workers = 1").text()).unwrap();
        eventually("it listens", || {
            client.query(sql).unwrap();
            ears().contains(&format!("\"{channel}\""))
        });
        warm(&pgweir, &mut client, sql);
        direct(&cluster, &format!("NOTIFY {channel}, '{{\"table\":\"item\"}}'"));
        eventually("it is heard", || !ask_sql(&pgweir, &mut client, sql).1);
    }
    pgweir.reload(&conf("").top("workers = 1").text()).unwrap();
    eventually("nobody listens", || ears().is_empty());
    warm(&pgweir, &mut client, sql);
}
