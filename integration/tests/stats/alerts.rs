//! Alerts: when they fire, when they are over, and whom they reach.
//! It must never wait for the clock: marks and times are set so that what is done decides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use integration::{Certificates, Cluster, Pgweir, Stop};
use serde_json::{Value, json};

use crate::common::{Client, Conf, PATIENCE, eventually, metric};
use crate::{client, conf, json as get, only, ready};

const DAY: Duration = Duration::from_secs(86_400);

/// Marks that are passed at once.
pub const QUICK: &str = "[alerts]\ninterval = \"100ms\"\n[alerts.pool_use]\nabove = 60\nclear = 30\nafter = 0\n\
                     [alerts.errors]\nafter = 0\n[alerts.slow_queries]\nafter = 0\n[alerts.host_down]\nafter = 0\n\
                     [alerts.pinned_servers]\nafter = 0\n";

/// Keeps two servers until it is rolled back: each makes a table of its own.
pub fn hold(pgweir: &Pgweir, name: &str) -> [Client; 2] {
    [1, 2].map(|n| {
        let mut holder = client(pgweir);
        holder.query("BEGIN").unwrap();
        holder.query(&format!("CREATE TABLE {name}_{n} (n int)")).unwrap();
        holder
    })
}

/// The state of an alert, if there is one of the kind.
fn state(pgweir: &Pgweir, kind: &str) -> Option<String> {
    let alerts = get(pgweir, "/api/database/alerts");
    let found = alerts["alerts"].as_array().unwrap().iter().find(|it| it["alert"] == kind).cloned()?;
    Some(found["state"].as_str().unwrap().to_owned())
}

fn fires(pgweir: &Pgweir, kind: &str) {
    eventually(&format!("{kind} fires"), || state(pgweir, kind).as_deref() == Some("firing"));
}

fn is_over(pgweir: &Pgweir, kind: &str) {
    eventually(&format!("{kind} is over"), || state(pgweir, kind).as_deref() == Some("resolved"));
}

#[test]
fn a_pool_in_use_fires_shows_everywhere_and_is_over() {
    let pgweir = conf().size(2).user("root", "").rest(QUICK).rest("[console]\nadmin_users = [\"root\"]\n").start();
    ready(&pgweir);
    let mut console = Client::connect_with(pgweir.port(), &[("user", "root"), ("database", "pgweir")]);
    eventually("all is well", || console.query("SHOW HEALTH").unwrap() == [["score", "100", "", ""]]);
    let mut holders = hold(&pgweir, "held");
    fires(&pgweir, "pool_use");
    let alerts = get(&pgweir, "/api/database/alerts");
    let alert = only(&alerts["alerts"], |it| it["alert"] == "pool_use" && it["state"] == "firing");
    assert_eq!((&alert["value"], &alert["threshold"], &alert["unit"]), (&json!(1.0), &json!(0.6), &json!("share")));
    assert_eq!((&alert["labels"]["database"], &alert["labels"]["user"]), (&json!("app"), &json!("app")));
    assert_eq!(metric(&pgweir, "pgweir_alert_firing", &[("alert", "pool_use"), ("database", "app")]), 1.0);
    assert_eq!(metric(&pgweir, "pgweir_health_score", &[]), 90.0);
    let health = get(&pgweir, "/api/services/status")["health"].clone();
    assert_eq!((&health["score"], &health["deductions"][0]["points"]), (&json!(90), &json!(10)));
    let shown = console.query("SHOW ALERTS WHERE alert = 'pool_use' AND state = 'firing'").unwrap();
    assert_eq!((shown.len(), shown[0][1].as_str(), shown[0][5].as_str()), (1, "warning", "100 %"));
    let rows = console.query("SHOW HEALTH").unwrap();
    assert_eq!((rows[0][1].as_str(), rows[1][0].as_str(), rows[1][1].as_str()), ("90", "pool_use", "-10"));
    for holder in &mut holders {
        holder.query("ROLLBACK").unwrap();
    }
    is_over(&pgweir, "pool_use");
    assert_eq!(metric(&pgweir, "pgweir_alert_firing", &[("alert", "pool_use")]), 0.0);
    eventually("the score is whole again", || metric(&pgweir, "pgweir_health_score", &[]) == 100.0);
}

#[test]
fn errors_and_slow_statements_fire_by_their_share() {
    let pgweir = conf().rest(&QUICK.replace("[alerts.errors]\n", "[alerts.errors]\nabove = 50\n")).start();
    ready(&pgweir);
    let mut client = client(&pgweir);
    // A few may be chance: they are no share of anything.
    for _ in 0..3 {
        client.query("SELECT 1/0").unwrap_err();
    }
    eventually("looked at", || metric(&pgweir, "pgweir_query_errors_total", &[]) == 3.0);
    assert_eq!(state(&pgweir, "errors"), None);
    // In pieces, so that some of them fall into one window of 1.2 s however slow the machine is.
    eventually("errors fires", || {
        (0..25).for_each(|_| drop(client.query("SELECT 1/0").unwrap_err()));
        state(&pgweir, "errors").as_deref() == Some("firing")
    });
    is_over(&pgweir, "errors");
    let mut sleepers: Vec<Client> = (0..30).map(|_| Client::connect(pgweir.port())).collect();
    let sleep = integration::wire::Script::new().query("SELECT pg_sleep(0.12)");
    eventually("slow_queries fires", || {
        sleepers.iter_mut().for_each(|sleeper| sleeper.send(&sleep));
        sleepers.iter_mut().for_each(|sleeper| drop(sleeper.ready(1)));
        state(&pgweir, "slow_queries").as_deref() == Some("firing")
    });
    is_over(&pgweir, "slow_queries");
}

#[test]
fn a_host_that_is_down_and_a_primary_that_is() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let pgweir = Conf::trust(&cluster).rest(QUICK).start();
    let _client = watched(&pgweir);
    cluster.replicas()[0].stop(Stop::Fast).unwrap();
    fires(&pgweir, "host_down");
    assert_ne!(state(&pgweir, "primary_down").as_deref(), Some("firing"));
    let score = metric(&pgweir, "pgweir_health_score", &[]);
    cluster.primary().stop(Stop::Fast).unwrap();
    fires(&pgweir, "primary_down");
    assert!(metric(&pgweir, "pgweir_health_score", &[]) < score);
    cluster.primary().start().unwrap();
    cluster.replicas()[0].start().unwrap();
    is_over(&pgweir, "primary_down");
    eventually("host_down is over", || get(&pgweir, "/api/database/alerts")["firing"] == 0);
}

#[test]
fn another_primary_is_told_of() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let keep = format!("{QUICK}[alerts.failover]\nkeep = \"5s\"\n");
    let pgweir = Conf::trust(&cluster).rest(&keep).start();
    let _client = watched(&pgweir);
    let [old, new] = [cluster.primary(), &cluster.replicas()[0]].map(integration::Postgres::address);
    cluster.primary().stop(Stop::Fast).unwrap();
    cluster.replicas()[0].promote().unwrap();
    fires(&pgweir, "failover");
    let alert = only(&get(&pgweir, "/api/database/alerts")["alerts"], |it| it["alert"] == "failover");
    assert_eq!((&alert["labels"]["before"], &alert["labels"]["host"]), (&json!(old), &json!(new)));
    is_over(&pgweir, "failover");
}

#[test]
fn a_replica_that_is_behind_is_told_of() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let lines = format!("{QUICK}[alerts.replication_lag]\nafter = 0\n");
    let pgweir = Conf::trust(&cluster).rest(&lines).start();
    let mut client = watched(&pgweir);
    cluster.replicas()[0].pause_replay().unwrap();
    client.query("CREATE TABLE late (n int)").unwrap();
    fires(&pgweir, "replication_lag");
    let alert = only(&get(&pgweir, "/api/database/alerts")["alerts"], |it| it["alert"] == "replication_lag");
    let host = cluster.replicas()[0].address();
    assert_eq!((&alert["labels"]["host"], &alert["unit"]), (&json!(host), &json!("seconds")));
    assert!(alert["value"].as_f64().unwrap() > 1.0, "{alert}");
    cluster.replicas()[0].resume_replay().unwrap();
    is_over(&pgweir, "replication_lag");
}

#[test]
fn a_cache_that_is_asked_in_vain_is_told_of() {
    let lines = "[alerts.cache_misses]\nafter = 0\n[cache]\nmode = \"on\"\nttl = \"1h\"\nverify = 0\n";
    let pgweir = conf().rest(&format!("{QUICK}{lines}")).start();
    ready(&pgweir);
    let mut client = client(&pgweir);
    let mut next = 0;
    eventually("cache_misses fires", || {
        for _ in 0..25 {
            next += 1;
            client.query(&format!("SELECT {next}")).unwrap();
        }
        state(&pgweir, "cache_misses").as_deref() == Some("firing")
    });
    eventually("cache_misses is over", || {
        (0..25).for_each(|_| drop(client.query("SELECT 1").unwrap()));
        state(&pgweir, "cache_misses").as_deref() == Some("resolved")
    });
}

#[test]
fn servers_that_clients_keep_are_told_of() {
    let pgweir = conf().size(2).rest(QUICK).start();
    ready(&pgweir);
    let mut keepers = [client(&pgweir), client(&pgweir)];
    for keeper in &mut keepers {
        keeper.query("CREATE TEMP TABLE own (n int)").unwrap();
    }
    fires(&pgweir, "pinned_servers");
    for keeper in &mut keepers {
        keeper.query("DROP TABLE own").unwrap();
    }
    is_over(&pgweir, "pinned_servers");
}

/// The one that is in use counts, not the one that is in the file.
#[test]
fn a_certificate_that_ends_soon_is_told_of_until_another_is_in_use() {
    let files = Certificates::new().unwrap();
    files.renew(3 * DAY).unwrap();
    let conf = conf().tls("allow", &files).rest(QUICK);
    let pgweir = conf.start();
    ready(&pgweir);
    fires(&pgweir, "certificate_expiry");
    let alert = only(&get(&pgweir, "/api/database/alerts")["alerts"], |it| it["alert"] == "certificate_expiry");
    assert_eq!(alert["labels"]["file"], json!(files.certificate.display().to_string()));
    let days = alert["value"].as_f64().unwrap() / DAY.as_secs_f64();
    assert!((2.9..3.0).contains(&days), "{alert}");
    files.renew(90 * DAY).unwrap();
    let looks = || metric(&pgweir, "pgweir_alert_looks_total", &[]);
    let before = looks();
    eventually("it was looked at since", || looks() >= before + 3.0);
    assert_eq!(state(&pgweir, "certificate_expiry").as_deref(), Some("firing"));
    pgweir.signal(rustix::process::Signal::HUP);
    is_over(&pgweir, "certificate_expiry");
}

/// Waits until both hosts are known: a database's are asked what they are from its first client on.
fn watched(pgweir: &Pgweir) -> Client {
    ready(pgweir);
    let mut client = client(pgweir);
    client.query("SELECT 1").unwrap();
    eventually("both hosts are known", || {
        let status = get(pgweir, "/api/services/status");
        let hosts = status["databases"][0]["hosts"].as_array().unwrap().clone();
        hosts.iter().filter(|host| host["up"] == true).count() == 2
    });
    eventually("the primary is known", || metric(pgweir, "pgweir_host_role", &[("role", "primary")]) > 0.0);
    let looks = || metric(pgweir, "pgweir_alert_looks_total", &[]);
    let before = looks();
    // One may have begun before.
    eventually("it was looked at since", || looks() >= before + 2.0);
    eventually("all is well", || metric(pgweir, "pgweir_health_score", &[]) == 100.0);
    client
}

/// What a webhook got: its head in lower case, and its body.
type Got = (String, Value);

/// A webhook that answers with these statuses in turn, the last one for ever.
fn webhook(statuses: &'static [u16]) -> (u16, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, got) = channel();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
            }
            let head = head.to_lowercase();
            let (_, length) = head.split_once("content-length: ").unwrap();
            let mut body = vec![0; length.split("\r\n").next().unwrap().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let status = statuses[n.min(statuses.len() - 1)];
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            if heard.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (port, got)
}

/// The next message about this alert.
fn about(got: &Receiver<Got>, name: &str) -> (String, Value) {
    loop {
        let (head, body) = got.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nothing about {name}"));
        let found = body.as_array().unwrap().iter().find(|it| it["labels"]["alertname"] == name).cloned();
        if let Some(found) = found {
            return (head, found);
        }
    }
}

#[test]
fn webhooks_are_told_again_until_they_listen() {
    // The first attempt fails for the time being, the second succeeds.
    let (manager, alerts) = webhook(&[503, 200]);
    let (slack, texts) = webhook(&[200]);
    let (refusing, refused) = webhook(&[404]);
    let hooks = format!(
        "[alerts.webhooks.manager]\nurl = \"http://127.0.0.1:{manager}/api/v2/alerts\"\nauthorization = \"Bearer hook-secret\"\n\
         [alerts.webhooks.chat]\nurl = \"http://localhost:{slack}/services/T0/B0?x=1\"\nformat = \"slack\"\n\
         [alerts.webhooks.wrong]\nurl = \"http://127.0.0.1:{refusing}/\"\nformat = \"slack\"\n"
    );
    // Nothing but what is done here is to be told of: at the start no primary has answered yet.
    let quick = QUICK.replace("[alerts.host_down]\nafter = 0", "[alerts.host_down]\nenabled = false");
    let pgweir = conf().size(2).rest(&quick).rest(&hooks).start();
    ready(&pgweir);
    let mut holders = hold(&pgweir, "told");
    for _ in 0..2 {
        let (head, alert) = about(&alerts, "pgweir_pool_use");
        assert!(head.starts_with("post /api/v2/alerts http/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: bearer hook-secret") && head.contains("content-type: application/json"));
        assert_eq!((&alert["labels"]["severity"], &alert["labels"]["database"]), (&json!("warning"), &json!("app")));
        assert!(alert["annotations"]["summary"].as_str().unwrap().contains("100 %, limit 60 %"), "{alert:#}");
        assert!(alert["startsAt"].as_str().unwrap().ends_with('Z') && alert["endsAt"].is_null());
    }
    let text = |got: &Receiver<Got>| got.recv_timeout(PATIENCE).unwrap().1["text"].as_str().unwrap().to_owned();
    let said = text(&texts);
    assert!(said.starts_with("*warning* pgweir ") && said.contains("most servers of the pool are in use"), "{said}");
    assert!(text(&refused).contains("most servers"));
    holders.iter_mut().for_each(|holder| drop(holder.query("ROLLBACK").unwrap()));
    let (_, over) = about(&alerts, "pgweir_pool_use");
    assert!(over["endsAt"].is_string(), "{over:#}");
    assert!(text(&texts).starts_with("resolved pgweir "));
    let count = |webhook: &str, outcome: &str| {
        metric(
            &pgweir,
            "pgweir_alert_notifications_total",
            &[("kind", "webhook"), ("receiver", webhook), ("outcome", outcome)],
        )
    };
    eventually("everything is counted", || {
        count("manager", "sent") >= 2.0 && count("manager", "failed") == 1.0 && count("chat", "sent") >= 2.0
    });
    // 404 is no reason to try again.
    eventually("what is refused is dropped", || count("wrong", "dropped") >= 2.0);
    assert_eq!((count("wrong", "sent"), count("manager", "dropped")), (0.0, 0.0));
    let log = pgweir.log();
    assert!(!log.contains("hook-secret") && !log.contains("/services/T0"), "{log}");
}
