//! `currval` and `lastval`: what the client drew itself, or PostgreSQL's own error, whoever used the server meanwhile.
//! It must never be enough that a value is right most of the time.

use std::sync::OnceLock;
use std::time::Instant;

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::client::outcome;
use crate::common::{Client, Conf, crowd, eventually};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let sql = "CREATE TABLE serial (id serial, n int); CREATE TABLE plain (n int); CREATE SEQUENCE s; CREATE TABLE logged (n int);
            CREATE TABLE log (id serial);
            CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log DEFAULT VALUES; RETURN NULL; END $$;
            CREATE TRIGGER log AFTER DELETE ON logged FOR EACH STATEMENT EXECUTE FUNCTION log();
            GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC";
        Cluster::builder().sql(sql).start().unwrap()
    })
}

fn clients<const N: usize>(pgweir: &Pgweir) -> [Client; N] {
    crate::common::know(pgweir);
    std::array::from_fn(|_| Client::connect(pgweir.port()))
}

const INSERT: &str = "INSERT INTO serial (n) VALUES (1) RETURNING id";

/// The error that there is no value, with pgweir's hint or without.
fn assert_none(client: &mut Client, sql: &str, hinted: bool) {
    let frames = client.run(&Script::new().query(sql));
    let Some(error) = frames.iter().find(|frame| frame.tag == b'E') else { panic!("{sql}: {:?}", outcome(&frames)) };
    assert_eq!(error.field(b'C').as_deref(), Some("55000"), "{sql}");
    assert!(error.field(b'M').unwrap().contains("is not yet defined in this session"), "{sql}");
    assert_eq!(error.field(b'H').is_some_and(|hint| hint.starts_with("pgweir: ")), hinted, "{sql}");
}

#[test]
fn in_the_transaction_that_draws_it() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let mut all = clients::<3>(&pgweir);
    for round in 0..12 {
        let client = &mut all[round % 3];
        client.query("BEGIN").unwrap();
        let id = client.value(INSERT);
        assert_eq!(client.value("SELECT lastval()"), id);
        assert_eq!(client.value("SELECT currval('serial_id_seq')"), id);
        client.query("COMMIT").unwrap();
        let frames =
            client.run(&Script::new().query("INSERT INTO serial (n) VALUES (1) RETURNING id; SELECT lastval()"));
        let rows = outcome(&frames).unwrap();
        assert_eq!(rows[0], rows[1]);
    }
}

/// Also behind what ends a failed transaction in the same batch.
#[test]
fn nobody_reads_what_another_drew_behind_a_rollback() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let [mut reader, mut other] = clients::<2>(&pgweir);
    for _ in 0..3 {
        other.query(INSERT).unwrap();
        reader.query("BEGIN").unwrap();
        assert!(reader.query("SELECT 1 / 0").unwrap_err().starts_with("22012"));
        let run = |script: Script, sql| script.parse("", sql).bind("", "", &[]).execute("", 0);
        let error = outcome(&reader.run(&run(run(Script::new(), "ROLLBACK"), "SELECT lastval()").sync())).unwrap_err();
        assert!(error.starts_with("55000"), "{error}");
    }
}

#[test]
fn nobody_reads_what_another_drew() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let [mut one, mut two, mut three] = clients(&pgweir);
    one.query(INSERT).unwrap();
    two.query(INSERT).unwrap();
    // The first that anybody reads: nobody knew that it would be.
    assert_none(&mut one, "SELECT lastval()", true);
    assert_none(&mut three, "SELECT currval('serial_id_seq')", false);
    // What draws nothing gives nothing, whatever others have drawn there.
    two.query(INSERT).unwrap();
    three.query("INSERT INTO plain VALUES (1)").unwrap();
    assert_none(&mut three, "SELECT lastval()", false);
    two.query("SELECT nextval('s')").unwrap();
    three.query("BEGIN; INSERT INTO plain VALUES (1)").unwrap();
    assert_none(&mut three, "SELECT currval('s')", false);
    three.query("ROLLBACK").unwrap();
    // By a trigger as well.
    two.query("SELECT nextval('s')").unwrap();
    one.query("DELETE FROM logged").unwrap();
    let drawn = cluster().primary().query_in(DATABASE, "SELECT last_value FROM log_id_seq").unwrap();
    assert_eq!(one.value("SELECT lastval()"), drawn[0][0]);
    // By the extended protocol.
    two.query(INSERT).unwrap();
    let read = Script::new().parse("", "SELECT lastval()").bind("", "", &[]).execute("", 0).sync();
    assert!(outcome(&one.run(&read)).unwrap_err().starts_with("55000"));
    let draw = Script::new().parse("", INSERT).bind("", "", &[]).execute("", 0).sync();
    let id = outcome(&one.run(&draw)).unwrap();
    assert_eq!(outcome(&one.run(&read)), Ok(id));
    assert_eq!(two.value("SELECT 1"), "1");
}

/// A client that has been seen to read behind its transaction keeps what it draws until it has read it again.
#[test]
fn what_is_read_in_another_transaction_is_kept() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let [mut one, mut two] = clients(&pgweir);
    one.query(INSERT).unwrap();
    two.query(INSERT).unwrap();
    assert_none(&mut one, "SELECT lastval()", true);
    for _ in 0..3 {
        let id = one.value(INSERT);
        two.send(&Script::new().query(INSERT));
        eventually("two waits", || {
            crate::common::metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 1.0
        });
        eventually("a pin", || pgweir.get("/pins").unwrap().1.contains("\"reason\":\"sequence\""));
        assert_eq!(one.value("SELECT lastval()"), id);
        assert_eq!(one.value("SELECT currval('serial_id_seq')"), id);
        one.query("SELECT 1").unwrap();
        assert!(outcome(&two.ready(1)).is_ok());
        assert_eq!(two.value("SELECT 1"), "1");
    }
    // Who does not come back for it has to give way to those who wait.
    one.query(INSERT).unwrap();
    let began = Instant::now();
    assert_eq!(two.value("SELECT 3"), "3");
    assert!(began.elapsed().as_millis() > 500, "did not keep the server at all");
    two.query(INSERT).unwrap();
    two.query("SELECT 1").unwrap();
    two.query("DISCARD ALL").unwrap();
    assert_none(&mut one, "SELECT lastval()", true);
}

/// Older values of its own, left on another server, are not what a client drew last.
#[test]
fn nobody_reads_what_it_drew_before() {
    let pgweir = Conf::trust(cluster()).size(2).pool("server_order = \"rotate\"").start();
    let [mut one, mut two] = clients(&pgweir);
    two.query("BEGIN").unwrap();
    one.query("SELECT 1").unwrap();
    two.query("COMMIT").unwrap();
    for _ in 0..4 {
        let drawn = [one.value("SELECT nextval('s')"), one.value("SELECT nextval('s')")];
        match one.query("SELECT currval('s')") {
            Ok(rows) => assert_eq!(rows[0][0], drawn[1]),
            Err(error) => assert!(error.starts_with("55000"), "{error}"),
        }
    }
}

#[test]
fn many_draw_and_read_on_few_servers() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let port = pgweir.port();
    let lost: Vec<usize> = crowd(8, move |number| {
        let mut client = Client::connect(port);
        let mut lost = 0;
        for round in 0..40 {
            let id = client.value(INSERT);
            if (number + round) % 5 == 0 {
                client.query("INSERT INTO plain VALUES (2)").unwrap();
            }
            match client.query("SELECT lastval()") {
                Ok(rows) => assert_eq!(rows[0][0], id, "another's value"),
                Err(error) => {
                    assert!(error.starts_with("55000"), "{error}");
                    lost += 1;
                }
            }
        }
        lost
    });
    // Only before it was seen that they read.
    assert!(lost.iter().all(|lost| *lost <= 3), "{lost:?}");
}
