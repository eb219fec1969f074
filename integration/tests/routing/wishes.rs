//! What applications ask for: comments, `pgweir.target`, and isolation that standbys do not have.
//! It must never be the router's own choice that is seen.

use crate::common::client::{outcome, said};
use crate::common::{Client, Conf, eventually};
use crate::{Went, cluster, mark, start, start_cluster, start_with, went};
use integration::wire::Script;
use integration::{DATABASE, Stop};

/// Runs a statement a few times and asserts where it goes. A client that wrote, or is not done with its setting yet, is
/// served by the primary for a moment.
fn goes(client: &mut Client, name: &str, sql: &str, where_to: Went) {
    let mut rounds = 0;
    eventually(name, || {
        rounds += 1;
        let mark = mark(&format!("{name} (round {rounds})"));
        (0..4).for_each(|_| drop(client.query(&format!("{mark} {sql}")).unwrap()));
        let went = went(cluster(), &mark);
        assert!(where_to == Went::Replicas || went == where_to, "{name}: {went:?}");
        went == where_to
    });
}

#[test]
fn a_comment_says_where() {
    let (_pgweir, mut client) = start();
    goes(&mut client, "pgweir: primary", "SELECT count(*) FROM fish", Went::Primary);
    goes(&mut client, "pgweir: read-write, please", "SELECT count(*) FROM fish", Went::Primary);
    goes(&mut client, "pgweir: replica", "SELECT own_function(), 'by comment'", Went::Replicas);
    goes(&mut client, "pgweir: standby", "SELECT count(*) FROM pg_stat_activity", Went::Replicas);
    // Words elsewhere say nothing.
    let mark = mark("words elsewhere");
    client.query(&format!("{mark} SELECT '/* pgweir: primary */', count(*) FROM fish")).unwrap();
    assert_eq!(went(cluster(), &mark), Went::Replicas);
}

#[test]
fn a_setting_says_where() {
    let (pgweir, mut client) = start();
    client.query("SET pgweir.target = 'primary'").unwrap();
    goes(&mut client, "set primary", "SELECT count(*) FROM fish", Went::Primary);
    assert_eq!(client.value("SHOW pgweir.target"), "primary");
    client.query("RESET pgweir.target").unwrap();
    goes(&mut client, "reset", "SELECT count(*) FROM fish", Went::Replicas);
    client.query("SET pgweir.target = 'prefer-standby'").unwrap();
    goes(&mut client, "set replica", "SELECT own_function(), 'by setting'", Went::Replicas);
    // What it cannot do there it does on the primary.
    assert_eq!(client.value("SELECT setval('counter', 77)"), "77");
    let options = [("database", DATABASE), ("options", "-c pgweir.target=read-only")];
    let mut standby = Client::connect_with(pgweir.port(), &options);
    assert_eq!(standby.value("SELECT pg_is_in_recovery()"), "t");
    assert!(standby.query("UPDATE fish SET name = name WHERE id = 9").unwrap_err().starts_with("25006"));
    standby.query("BEGIN").unwrap();
    assert_eq!(standby.value("SELECT pg_is_in_recovery()"), "t");
    standby.query("COMMIT").unwrap();
    standby.query("SET pgweir.target = auto").unwrap();
    standby.query("UPDATE fish SET name = name WHERE id = 9").unwrap();
}

/// Whoever asks for what there is not hears so, instead of finding all on the primary.
#[test]
fn a_wish_that_nobody_understands_is_refused() {
    let (pgweir, mut client) = start();
    let bad = [
        ("SET pgweir.target = 'secondary'", "invalid value for parameter \"pgweir.target\": \"secondary\""),
        ("SET LOCAL pgweir.target TO slave", "invalid value for parameter \"pgweir.target\": \"slave\""),
        ("SET SESSION pgweir.min_lsn = '12'", "invalid value for parameter \"pgweir.min_lsn\": \"12\""),
    ];
    for (sql, message) in bad {
        assert_eq!(client.query(sql), Err(format!("22023 {message}")));
        let script = Script::new().parse("", sql).bind("", "", &[]).execute("", 0).sync();
        assert_eq!(outcome(&client.run(&script)), Err(format!("22023 {message}")));
    }
    client.query("BEGIN").unwrap();
    client.query(bad[0].0).unwrap_err();
    assert!(client.query("SELECT 1").unwrap_err().starts_with("25P02"));
    client.query("ROLLBACK").unwrap();
    goes(&mut client, "nothing was set", "SELECT count(*) FROM fish", Went::Replicas);
    let mut other = Client::tcp(pgweir.port());
    other.startup(0, &[("user", "app"), ("database", DATABASE), ("options", "-c pgweir.target=slave")]);
    let error = other.welcome().unwrap_err();
    assert_eq!(said(&error), "22023 invalid value for parameter \"pgweir.target\": \"slave\"");
    assert!(error.field(b'H').is_some_and(|hint| hint.contains("replica")));
}

/// What it leaves in its session would keep that from the primary.
#[test]
fn no_lock_of_a_session_is_taken_on_a_replica() {
    let (_pgweir, mut client) = start();
    let lock = mark("a lock where a replica was asked for");
    client.query(&format!("{lock} /* pgweir: replica */ SELECT pg_advisory_lock(77)")).unwrap();
    assert_eq!(went(cluster(), &lock), Went::Primary);
    client.query("UPDATE fish SET name = name WHERE id = 9").unwrap();
    assert_eq!(client.value("SELECT pg_advisory_unlock(77)"), "t");
}

/// libpq looks for what it is told at the login (`target_session_attrs=standby`).
#[test]
fn who_asks_for_standbys_is_told_of_one() {
    let (pgweir, _client) = start();
    for (target, told) in [("standby", "on"), ("replica", "off"), ("primary", "off")] {
        let mut client = Client::tcp(pgweir.port());
        let options = format!("-c pgweir.target={target}");
        client.startup(0, &[("user", "app"), ("database", DATABASE), ("options", &options)]);
        let frames = client.welcome().unwrap();
        let status = format!("in_hot_standby\0{told}\0");
        assert!(frames.iter().any(|frame| frame.tag == b'S' && frame.body == status.as_bytes()), "{target}");
    }
}

#[test]
fn serializable_sessions_read_from_the_primary() {
    let (pgweir, _) = start();
    let options = [("database", DATABASE), ("options", "-c default_transaction_isolation=serializable")];
    let mut client = Client::connect_with(pgweir.port(), &options);
    goes(&mut client, "serializable from the start", "SELECT count(*) FROM fish", Went::Primary);
    let mut client = Client::connect(pgweir.port());
    client.query("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE").unwrap();
    goes(&mut client, "serializable later", "SELECT count(*) FROM fish", Went::Primary);
}

#[test]
fn without_a_standby() {
    let cluster = start_cluster();
    let (pgweir, _) = start_with(&cluster, &Conf::trust(&cluster).size(3));
    let with = |target: &str| {
        let options = format!("-c pgweir.target={target}");
        Client::connect_with(pgweir.port(), &[("database", DATABASE), ("options", &options)])
    };
    let (mut only, mut either) = (with("standby"), with("replica"));
    assert_eq!(only.value("SELECT 1"), "1");
    cluster.replicas().iter().for_each(|replica| replica.stop(Stop::Fast).unwrap());
    eventually("it is told", || only.query("SELECT 1").is_err_and(|error| error.starts_with("57P03")));
    assert_eq!(either.value("SELECT pg_is_in_recovery()"), "f");
    only.query("SET pgweir.target = 'replica'").unwrap();
    assert_eq!(only.value("SELECT 2"), "2");
}

/// A word or a position that nobody understands must not be taken for none.
#[test]
fn nonsense_stays_on_the_primary() {
    let (_pgweir, mut client) = start();
    for (number, (name, value)) in [("target", "primry"), ("min_lsn", "there")].iter().enumerate() {
        client.query(&format!("SELECT set_config('pgweir.{name}', '{value}', false)")).unwrap();
        goes(&mut client, &format!("nonsense {number}."), "SELECT count(*) FROM fish", Went::Primary);
        client.query("RESET ALL").unwrap();
        goes(&mut client, &format!("no nonsense {number}."), "SELECT count(*) FROM fish", Went::Replicas);
    }
}

/// Who wants nothing but a standby waits until one has what was written before.
#[test]
fn a_standby_is_waited_for() {
    let (_pgweir, mut client) = start();
    for _ in 0..10 {
        client.query("UPDATE fish SET name = name WHERE id = 8").unwrap();
        client.query("SET pgweir.target = 'standby'").unwrap();
        assert_eq!(client.value("SELECT pg_is_in_recovery()"), "t");
        client.query("RESET pgweir.target").unwrap();
    }
}
