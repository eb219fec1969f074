//! A share of hits is compared with the real answer: what no change explains is kept no more, what one may explain goes on.
//! It must never find anything wrong that is within the promise, whatever is written meanwhile.

use integration::{Cluster, Pgweir};

use crate::common::{Client, Conf, crowd, eventually, metric};
use crate::logical::{signal, walsender};
use crate::signals::console;
use crate::{ask_sql, builder, conf, count, direct, hits, start};

const SETUP: &str = include_str!("../../../config/cache.sql");
/// What says that it is immutable, and is not.
const MORE: &str = "ALTER ROLE app REPLICATION;
    CREATE EXTENSION pgcrypto; ALTER FUNCTION gen_random_bytes(int) IMMUTABLE; ALTER FUNCTION gen_random_bytes(int) RENAME TO lies;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app";

fn cluster() -> Cluster {
    builder().setting("wal_level", "logical").sql(MORE).sql(SETUP).start().unwrap()
}

fn verifying(cluster: &Cluster, lines: &str) -> Conf {
    let conf = conf(cluster, &format!("mode = \"on\"\n{lines}")).pool("catalog_refresh = \"1s\"");
    conf.user("root", "").rest("[alerts]\ninterval = \"100ms\"\n").rest("[console]\nadmin_users = [\"root\"]\n")
}

fn compared(pgweir: &Pgweir, outcome: &str) -> f64 {
    metric(pgweir, "pgweir_cache_verified_total", &[("outcome", outcome)])
}

fn admin_alerts(pgweir: &Pgweir) -> Vec<Vec<String>> {
    console(pgweir, "root").query("SHOW ALERTS").unwrap()
}

#[test]
fn what_no_change_explains_is_kept_no_more() {
    let cluster = cluster();
    let lines = "invalidation = \"logical\"\nmax_staleness = \"400ms\"\nverify = 0.5";
    let pgweir = start(&verifying(&cluster, lines));
    let (mut client, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    let (right, wrong) = ("SELECT v FROM item WHERE id = 1", "SELECT lies(8) FROM item WHERE id = 1");
    eventually("a mismatch is found", || {
        assert_eq!(client.value(right), "item 1");
        client.query(wrong).unwrap();
        count(&pgweir, "mismatches") > 0.0
    });
    // From then on each is another, and what is right is kept as before.
    let before = hits(&pgweir);
    let values: std::collections::BTreeSet<String> = (0..20).map(|_| client.value(wrong)).collect();
    assert_eq!((values.len(), hits(&pgweir)), (20, before));
    eventually("the other is given", || ask_sql(&pgweir, &mut client, right).1);
    assert!(compared(&pgweir, "same") > 0.0);
    let log = pgweir.log();
    let line = log.lines().find(|line| line.contains("what no server would have said")).unwrap();
    assert!(line.to_lowercase().contains("select lies("), "{line}");
    // Of the database, and of all.
    assert_eq!(admin.query("SHOW CACHE WHERE disabled = 1 AND mismatches > 0").unwrap().len(), 2);
    let rows = admin.query("SHOW ROUTING WHERE cache = 'disabled'").unwrap();
    assert!(rows.len() == 1 && rows[0].last().unwrap().to_lowercase().contains("lies("), "{rows:?}");
    let fires = || {
        let alerts = admin_alerts(&pgweir);
        alerts.iter().any(|row| row.contains(&"cache_mismatch".to_owned()) && row.contains(&"firing".to_owned()))
    };
    eventually("somebody is told", fires);
    // Until the configuration is loaded again.
    assert!(crate::reason(&pgweir, "bypasses", "disabled") >= 20.0);
    pgweir.reload(&verifying(&cluster, lines).top("workers = 1").text()).unwrap();
    eventually("it is tried again", || admin.query("SHOW ROUTING WHERE cache = 'disabled'").unwrap().is_empty());
    eventually("it is over", || !fires());
}

/// Writers past pgweir and through it, all hits compared: every difference is explained.
#[test]
fn writes_explain_what_differs() {
    let cluster = cluster();
    let pgweir = start(&verifying(&cluster, "invalidation = \"logical\"\nmax_staleness = \"2s\"\nverify = 1"));
    let (port, primary) = (pgweir.port(), cluster.primary().port());
    crowd(4, move |number| {
        let mut reader = Client::connect(port);
        let mut writer = Client::connect(if number < 2 { port } else { primary });
        for turn in 0..150 {
            let id = turn % 3 + 1;
            if turn % 4 == 0 {
                writer.query(&format!("UPDATE mine SET v = v + 1 WHERE id = {id}")).unwrap();
            }
            reader.query(&format!("SELECT v FROM mine WHERE id = {id}")).unwrap();
        }
    });
    let (mut client, mut writer) = (Client::connect(port), Client::connect(primary));
    let sql = "SELECT v FROM mine WHERE id = 9";
    eventually("a change shows before it is told of", || {
        let before = compared(&pgweir, "same");
        eventually("it is kept", || {
            client.query(sql).unwrap();
            compared(&pgweir, "same") > before
        });
        let sender = walsender(&cluster).unwrap();
        signal(&sender, "-STOP");
        writer.query("UPDATE mine SET v = v + 1 WHERE id = 9").unwrap();
        let (same, fills) = (compared(&pgweir, "same"), count(&pgweir, "fills"));
        client.query(sql).unwrap();
        let is_compared = count(&pgweir, "fills") > fills && compared(&pgweir, "same") == same;
        signal(&sender, "-CONT");
        is_compared
    });
    eventually("it is explained", || compared(&pgweir, "changed") > 0.0);
    // Doubts are decided in their order: when this one is, those of before have been.
    eventually("what is wrong is found", || {
        client.query("SELECT lies(8) FROM item WHERE id = 1").unwrap();
        count(&pgweir, "mismatches") > 0.0
    });
    let disabled = console(&pgweir, "root").query("SHOW ROUTING WHERE cache = 'disabled'").unwrap();
    let texts: Vec<String> = disabled.iter().map(|row| row.last().unwrap().to_lowercase()).collect();
    assert!(texts.len() == 1 && texts[0].contains("lies("), "{texts:?}: {}", pgweir.log());
}

/// Whose promise is a time may show what was before, in columns that were before; and 0 compares nothing.
#[test]
fn by_a_time_alone_nothing_is_wrong() {
    let cluster = cluster();
    let pgweir = start(&verifying(&cluster, "ttl = \"1h\"\nverify = 1"));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT * FROM guarded WHERE id = 5";
    client.query(sql).unwrap();
    direct(&cluster, "UPDATE guarded SET v = 'other' WHERE id = 5");
    client.query(sql).unwrap();
    direct(&cluster, "ALTER TABLE guarded ADD COLUMN more int");
    client.query(sql).unwrap();
    for _ in 0..3 {
        client.query("SELECT lies(8) FROM item WHERE id = 1").unwrap();
    }
    eventually("all are compared", || compared(&pgweir, "changed") >= 3.0);
    assert_eq!((count(&pgweir, "mismatches"), hits(&pgweir)), (0.0, 0.0));
    let never = start(&verifying(&cluster, "ttl = \"1h\"\nverify = 0"));
    let mut client = Client::connect(never.port());
    let before = (compared(&never, "same"), compared(&never, "changed"));
    eventually("it serves", || ask_sql(&never, &mut client, sql).1);
    (0..200).for_each(|_| drop(client.query(sql).unwrap()));
    assert_eq!((compared(&never, "same"), compared(&never, "changed")), before);
    assert!(hits(&never) >= 200.0);
}
