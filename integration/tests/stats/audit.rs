//! The audit log: who ran what, and what became of it, in a file.
//! It must never look for a line before the program has ended or the line is there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use integration::wire::Script;
use integration::{Cluster, Pgweir, Stop};
use serde_json::Value;

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, eventually, metric};
use crate::{client, conf};

/// Everything is audited, into this folder.
fn audited(folder: &Path, more: &str) -> String {
    format!("[audit]\nfile = \"{}\"\n{more}\n", folder.join("audit.log").display())
}

fn lines(folder: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// All lines, once the program has ended.
fn at_last(pgweir: &Pgweir, folder: &Path) -> Vec<Value> {
    assert!(pgweir.stop().unwrap().success());
    lines(folder, "audit.log")
}

/// Kinds, text, commands and outcome with the SQLSTATE.
fn told(line: &Value) -> String {
    let list = |name: &str| {
        let all = line[name].as_array().unwrap_or_else(|| panic!("no {name}: {line}"));
        all.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join("+")
    };
    let end = format!("{} {}", line["outcome"].as_str().unwrap(), line["sqlstate"].as_str().unwrap_or_default());
    format!("{}|{}|{}|{}", list("kinds"), line["text"].as_str().unwrap(), list("commands"), end.trim())
}

#[test]
fn what_changes_anything_is_told_of_with_what_became_of_it_and_without_values() {
    let folder = tempfile::tempdir().unwrap();
    let pgweir = conf().rest(&audited(folder.path(), "")).start();
    let mut client = Client::connect_with(pgweir.port(), &[("application_name", "shop")]);
    let mut run = |sql: &str| client.query(sql);
    run("CREATE TABLE audited (a int PRIMARY KEY, b text)").unwrap();
    run("INSERT INTO audited VALUES (1, 'secret')").unwrap();
    run("INSERT INTO audited VALUES (1, 'secret')").unwrap_err();
    run("SELECT b FROM audited WHERE b = 'secret'").unwrap();
    run("INSERT INTO audited VALUES (2, 'secret'), (3, ''); DELETE FROM audited WHERE a IN (2, 3)").unwrap();
    run("INSERT INTO audited VALUES (4, 'secret'); SELECT 1/0; DELETE FROM audited").unwrap_err();
    run("WITH gone AS (DELETE FROM audited WHERE b = 'none' RETURNING a) SELECT count(*) FROM gone").unwrap();
    run("DO $$BEGIN INSERT INTO audited VALUES (50, 'secret'); END$$").unwrap();
    run("GRANT SELECT ON audited TO PUBLIC").unwrap();
    run("BEGIN; SET LOCAL ROLE NONE; COMMIT").unwrap();
    run("SELECT set_config('role', 'none', false)").unwrap();
    run("NONSENSE 'secret'").unwrap_err();
    run("PREPARE gone AS DELETE FROM audited WHERE a = $1").unwrap();
    run("EXECUTE gone(77)").unwrap();
    let copy = Script::new().query("COPY audited FROM STDIN").copy_data(b"60\tsecret\n61\tsecret\n").copy_done();
    assert_eq!(tags(&client.run(&copy)), "GCZ");
    let lines = at_last(&pgweir, folder.path());
    assert_eq!(
        lines.iter().map(told).collect::<Vec<_>>(),
        [
            "ddl|create table audited(a int primary key, b text)|CREATE TABLE|ok",
            "dml|insert into audited values (?)|INSERT 0 1|ok",
            "dml|insert into audited values (?)||failed 23505",
            "dml|insert into audited values (?); delete from audited where a in (?)|INSERT 0 2+DELETE 2|ok",
            "dml|insert into audited values (?); select ? / ?; delete from audited|INSERT 0 1|failed 22012",
            "dml|with gone as (delete from audited where b = ? returning a) select count(*) from gone|SELECT 1|ok",
            "call|do ?|DO|ok",
            "role|grant select on audited to public|GRANT|ok",
            "role|begin; set local role none; commit|BEGIN+SET+COMMIT|ok",
            "role+call|select set_config(?, false)|SELECT 1|ok",
            "unknown|nonsense ?||failed 42601",
            "dml|prepare gone as delete from audited where a = ?|PREPARE|ok",
            "dml+call|execute gone(?)|DELETE 0|ok",
            "dml|copy audited from stdin|COPY 2|ok",
        ]
    );
    assert_eq!((&lines[3]["rows"], &lines[13]["rows"]), (&4.into(), &2.into()));
    for line in &lines {
        assert_eq!(
            (&line["database"], &line["user"], &line["application_name"]),
            (&"app".into(), &"app".into(), &"shop".into())
        );
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:") && line["parameters"].is_null(), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["ms"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["server"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
    let file = folder.path().join("audit.log");
    assert!(!fs::read_to_string(&file).unwrap().contains("secret"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_extended_protocol_says_what_ran_and_what_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let pgweir = conf().rest(&audited(folder.path(), "parameter_bytes = 40")).start();
    let mut client = client(&pgweir);
    client.query("CREATE TABLE extended (a int PRIMARY KEY, b text)").unwrap();
    let insert =
        Script::new().parse("i", "INSERT INTO extended VALUES ($1, $2)").parse("d", "DELETE FROM extended").sync();
    assert_eq!(tags(&client.run(&insert)), "11Z");
    // Portals of two statements, run in another order than they were bound in.
    let both = Script::new()
        .bind("one", "i", &[Some("1"), Some("x")])
        .bind("two", "d", &[])
        .execute("one", 0)
        .execute("two", 0)
        .sync();
    assert_eq!(tags(&client.run(&both)), "22CCZ");
    // The second fails, and the third is not run; then one whose values cannot be.
    let one = |value| Script::new().bind("", "i", &[Some(value), None]).execute("", 0);
    let three = one("5").append(&one("5")).bind("", "d", &[]).execute("", 0).sync();
    assert!(outcome(&client.run(&three)).unwrap_err().starts_with("23505"));
    assert!(outcome(&client.run(&one("five").sync())).unwrap_err().starts_with("22P02"));
    // What cannot be prepared: with what would have run it, and without.
    let nowhere = Script::new().parse("", "DELETE FROM nowhere");
    assert!(outcome(&client.run(&nowhere.clone().bind("", "", &[]).execute("", 0).sync())).is_err());
    assert!(outcome(&client.run(&nowhere.sync())).is_err());
    client.query("DELETE FROM extended WHERE b = 'as it was sent, and much longer'").unwrap();
    let lines = at_last(&pgweir, folder.path());
    let insert = "dml|insert into extended values (?)|";
    let told: Vec<String> = lines.iter().map(told).collect();
    assert_eq!(
        told[1..],
        [
            format!("{insert}INSERT 0 1|ok"),
            "dml|delete from extended|DELETE 1|ok".into(),
            format!("{insert}INSERT 0 1|ok"),
            format!("{insert}|failed 23505"),
            "dml|delete from extended||skipped 23505".into(),
            format!("{insert}|failed 22P02"),
            "dml|delete from nowhere||failed 42P01".into(),
            "dml|delete from nowhere||failed 42P01".into(),
            "dml|delete from extended where b = ?|DELETE 0|ok".into(),
        ]
    );
    let values: Vec<Option<&str>> = lines[1..].iter().map(|line| line["parameters"].as_str()).collect();
    assert_eq!(values[0], Some("$1 = '1', $2 = 'x'"));
    assert_eq!(
        (values[1], values[3], values[8]),
        (Some(""), Some("$1 = '5', $2 = NULL"), Some("DELETE FROM extended WHERE b = 'as it wa…"))
    );
}

/// Also of what shared a server.
#[test]
fn what_rode_in_a_lane_is_told_of_in_full() {
    let cluster = Cluster::builder().start().unwrap();
    cluster.primary().query_in(integration::DATABASE, "CREATE EXTENSION citext").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines = audited(folder.path(), "parameter_bytes = 40\nwhat = [\"call\"]");
    let pgweir = Conf::trust(&cluster).top("workers = 1").pool("lane_fast = \"50ms\"").rest(&lines).start();
    crate::common::know(&pgweir);
    let mut client = client(&pgweir);
    let text = "SELECT citext_eq($1, 'B')";
    let asks = |value: &str| Script::new().parse("", text).bind("", "", &[Some(value)]).execute("", 0).sync();
    let rides = || metric(&pgweir, "pgweir_pool_lane_rides_total", &[]);
    eventually("it rides", || {
        let before = rides();
        (0..60).for_each(|_| drop(outcome(&client.run(&asks("a"))).unwrap()));
        rides() > before
    });
    let before = rides();
    assert_eq!(outcome(&client.run(&asks("b"))).unwrap(), [["t"]]);
    assert_eq!(rides(), before + 1.0);
    let line = at_last(&pgweir, folder.path()).pop().unwrap();
    assert_eq!(told(&line), "call|select citext_eq(?)|SELECT 1|ok");
    assert_eq!((line["parameters"].as_str(), line["rows"].as_u64()), (Some("$1 = 'b'"), Some(1)));
}

#[test]
fn what_is_refused_here_or_lost_on_the_way_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder().start().unwrap();
    let more = "[console]\nadmin_users = [\"root\"]\n";
    let pgweir =
        Conf::trust(&cluster).user("root", "").rest(&(audited(folder.path(), "what = [\"dml\"]") + more)).start();
    let mut client = client(&pgweir);
    client.query("CREATE TABLE refused (a int)").unwrap();
    client.query("INSERT INTO refused VALUES (1)").unwrap();
    let mut console = Client::connect_with(pgweir.port(), &[("user", "root"), ("database", "pgweir")]);
    let rows = console.query("SHOW QUERIES WHERE query LIKE 'insert%'").unwrap();
    console.query(&format!("BLOCK SHAPE {}", rows[0][0])).unwrap();
    client.query("INSERT INTO refused VALUES (2)").unwrap_err();
    client.query("BEGIN").unwrap();
    client.query("INSERT INTO refused VALUES (3)").unwrap_err();
    client.query("ROLLBACK").unwrap();
    let batch = Script::new().parse("", "INSERT INTO refused VALUES (4)").bind("", "", &[]).execute("", 0).sync();
    outcome(&client.run(&batch)).unwrap_err();
    // Its server is gone before it says anything.
    let thread = std::thread::spawn(move || client.query("UPDATE refused SET a = a FROM pg_sleep(60)").unwrap_err());
    let pid = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'UPDATE%' AND state = 'active'";
    let mut found = String::new();
    eventually("it runs", || {
        found = cluster.primary().query_in("postgres", pid).unwrap().into_iter().flatten().next().unwrap_or_default();
        !found.is_empty()
    });
    let pid = rustix::process::Pid::from_raw(found.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    thread.join().unwrap();
    let all = at_last(&pgweir, folder.path());
    let told: Vec<String> = all.iter().map(told).collect();
    let insert = "dml|insert into refused values (?)|";
    assert_eq!(
        told[..4],
        [
            format!("{insert}INSERT 0 1|ok"),
            format!("{insert}|refused 42501"),
            format!("{insert}|refused 42501"),
            format!("{insert}|refused 42501")
        ]
    );
    assert_eq!((told[4].as_str(), told.len()), ("dml|update refused set a = a from pg_sleep(?)||unknown", 5));
    assert!(all[1]["server"].is_null() && all[2]["server"].is_string(), "{all:#?}");
    let _ = cluster.stop(Stop::Immediate);
}

#[test]
fn a_full_file_is_put_aside_and_one_that_was_moved_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let text = |more: &str| conf().rest(&audited(folder.path(), more)).text();
    let pgweir = Pgweir::start(&text("rotate_bytes = 1200\nkeep = 2")).unwrap();
    let mut client = client(&pgweir);
    client.query("CREATE TABLE rotated (a int)").unwrap();
    for n in 0..30 {
        client.query(&format!("INSERT INTO rotated VALUES ({n})")).unwrap();
    }
    eventually("all is written", || metric(&pgweir, "pgweir_audit_entries_total", &[]) >= 31.0);
    assert_eq!(metric(&pgweir, "pgweir_audit_lost_total", &[]), 0.0);
    let names = ["audit.log", "audit.log.1", "audit.log.2"];
    for name in names {
        let bytes = fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(bytes <= 1200 && !lines(folder.path(), name).is_empty(), "{name}: {bytes}");
    }
    assert!(!folder.path().join("audit.log.3").exists());
    // As logrotate does it.
    fs::rename(folder.path().join("audit.log"), folder.path().join("moved")).unwrap();
    pgweir.reload(&text("what = [\"role\"]")).unwrap();
    eventually("there is a new one", || folder.path().join("audit.log").exists());
    eventually("nothing but roles is audited", || {
        client.query("INSERT INTO rotated VALUES (1)").unwrap();
        client.query("GRANT SELECT ON rotated TO PUBLIC").unwrap();
        pgweir.log().contains("configuration reloaded")
    });
    // One that cannot be written to is refused, and the old one goes on.
    let elsewhere = text("").replace("audit.log", "nowhere/audit.log");
    pgweir.reload(&elsewhere).unwrap();
    eventually("it is refused", || pgweir.log().contains("cannot write the audit log"));
    client.query("REVOKE SELECT ON rotated FROM PUBLIC").unwrap();
    let last = at_last(&pgweir, folder.path()).pop().unwrap();
    assert_eq!(told(&last), "role|revoke select on rotated from public|REVOKE|ok");
}

#[test]
fn a_file_that_cannot_be_written_to_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let text = conf().rest(&audited(&folder.path().join("nowhere"), "")).text();
    let error = Pgweir::start(&text).err().unwrap().to_string();
    assert!(error.contains("cannot write the audit log") && error.contains("nowhere/audit.log"), "{error}");
    let text = conf().rest("[audit]\nwhat = [\"reads\"]\n").text();
    let error = Pgweir::start(&text).err().unwrap().to_string();
    assert!(error.contains("`[audit]` has no file") && error.contains("`reads` is nothing that"), "{error}");
}
