//! Transactions and pipelines stay in one place, and their order stays what it was.
//! It must never let a transaction be in two places.

use crate::common::Client;
use crate::common::client::{outcome, tags};
use crate::{Went, cluster, mark, runs, settled, start, went};
use integration::wire::{Frame, Script};

#[test]
fn a_transaction_goes_to_the_primary_with_its_reads() {
    let (_pgweir, mut client) = start();
    for (number, begin) in
        ["BEGIN", "START TRANSACTION", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ WRITE"].iter().enumerate()
    {
        let read = mark(&format!("read in transaction {number}"));
        client.query(begin).unwrap();
        client.query(&format!("{read} SELECT count(*) FROM fish")).unwrap();
        client.query("UPDATE fish SET name = name WHERE id = 9").unwrap();
        client.query(&format!("{read} SELECT count(*) FROM fish")).unwrap();
        client.query("COMMIT").unwrap();
        assert_eq!((went(cluster(), &read), runs(cluster(), &read)[0]), (Went::Primary, 2), "{begin}");
    }
    settled(&mut client, "read after the transactions");
}

#[test]
fn a_transaction_that_asks_for_a_replica_stays_on_one() {
    let (_pgweir, mut client) = start();
    let begins = [
        "/* pgweir: replica */ BEGIN READ ONLY",
        "/* pgweir: replica */ START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    ];
    for (number, begin) in begins.iter().enumerate() {
        for round in 0..6 {
            let read = mark(&format!("read only {number} {round}"));
            // A statement that might have written keeps its client with the primary until the replicas have that too.
            settled(&mut client, &format!("before read only {number} {round}"));
            client.query(begin).unwrap();
            for sql in
                ["SELECT count(*) FROM fish", "SELECT own_function()", "SELECT pg_backend_pid()", "SHOW work_mem"]
            {
                client.query(&format!("{read} {sql}")).unwrap();
            }
            let frames = client
                .run(&Script::new().parse("", &format!("{read} SELECT 1")).bind("", "", &[]).execute("", 0).sync());
            outcome(&frames).unwrap();
            client.query("COMMIT").unwrap();
            let mut runs = runs(cluster(), &read);
            assert_eq!(runs[0], 0, "{begin}: {runs:?}");
            runs.sort_unstable();
            assert_eq!(runs, [0, 0, 5], "{begin}");
        }
    }
}

/// A write in a read-only transaction fails as it does without pgweir, and the session lives on.
#[test]
fn a_write_in_a_read_only_transaction_is_refused_by_the_server() {
    let (_pgweir, mut client) = start();
    client.query("BEGIN READ ONLY").unwrap();
    assert!(client.query("UPDATE fish SET name = name WHERE id = 1").unwrap_err().starts_with("25006"));
    assert!(client.query("SELECT 1").unwrap_err().starts_with("25P02"));
    client.query("ROLLBACK").unwrap();
    client.query("UPDATE fish SET name = name WHERE id = 1").unwrap();
}

/// What a client has written in a batch, it reads in the same batch.
#[test]
fn a_batch_with_a_write_goes_to_the_primary_as_a_whole() {
    let (_pgweir, mut client) = start();
    let both = mark("read and write in a batch");
    let script = Script::new()
        .parse("r", &format!("{both} SELECT count(*) FROM fish"))
        .parse("w", &format!("{both} UPDATE fish SET name = name WHERE id = $1"))
        .bind("", "r", &[])
        .execute("", 0)
        .bind("", "w", &[Some("4")])
        .execute("", 0)
        .bind("", "r", &[])
        .execute("", 0)
        .sync();
    let frames = client.run(&script);
    assert_eq!(tags(&frames), "112DC2C2DCZ");
    assert_eq!((went(cluster(), &both), runs(cluster(), &both)[0]), (Went::Primary, 3));
}

/// Reads and writes in turn, all sent before the first answer: they come back in order, and every read sees the write before it,
/// because both run on the primary or the read waits. Reading from a replica may show an older state, so only the order counts here.
#[test]
fn a_pipeline_of_reads_and_writes_keeps_its_order() {
    let (pgweir, mut client) = start();
    client.query("CREATE TABLE piped (n int)").unwrap();
    let mut script = Script::new();
    for n in 0..100 {
        script = match n % 4 {
            0 => script.query(&format!("INSERT INTO piped VALUES ({n}) RETURNING {n}")),
            1 => script.query(&format!("SELECT {n}")),
            2 => script.parse("", "SELECT $1::int").bind("", "", &[Some(&n.to_string())]).execute("", 0).sync(),
            _ => script.query(&format!("BEGIN; SELECT {n}; COMMIT")),
        };
    }
    client.send(&script);
    for n in 0..100 {
        let rows = outcome(&client.ready(1)).unwrap();
        assert_eq!(rows, [[n.to_string()]], "{n}");
    }
    assert_eq!(Client::connect(pgweir.port()).query("BEGIN; SELECT count(*) FROM piped; COMMIT").unwrap()[0][0], "25");
}

/// The same pipeline from many clients at once: nobody sees another's answers.
#[test]
fn pipelines_of_many_clients_do_not_mix() {
    let (pgweir, _) = start();
    let port = pgweir.port();
    crate::common::crowd(15, move |number| {
        let mut client = Client::connect(port);
        let mut script = Script::new();
        for n in 0..60 {
            let own = (number * 1000 + n).to_string();
            script = match n % 3 {
                0 => script.query(&format!("SELECT {own}")),
                1 => script
                    .parse("", "SELECT $1::int FROM fish WHERE id = 1")
                    .bind("", "", &[Some(&own)])
                    .execute("", 0)
                    .sync(),
                _ => script.query(&format!("UPDATE fish SET name = name WHERE id = -1; SELECT {own}")),
            };
        }
        client.send(&script);
        for n in 0..60 {
            assert_eq!(outcome(&client.ready(1)).unwrap(), [[(number * 1000 + n).to_string()]]);
        }
    });
}

/// A replica's error comes to the client that caused it, and what stood behind it is skipped up to Sync.
#[test]
fn errors_of_a_replica_stay_in_their_batch() {
    let (_pgweir, mut client) = start();
    let bad = mark("error on a replica");
    let script = Script::new()
        .parse("", &format!("{bad} SELECT 1 / (id - 1) FROM fish ORDER BY id"))
        .bind("", "", &[])
        .execute("", 0)
        .parse("", "SELECT 2")
        .bind("", "", &[])
        .execute("", 0)
        .sync()
        .query("SELECT 3");
    client.send(&script);
    let frames: Vec<Frame> = client.ready(2);
    assert_eq!(tags(&frames), "12EZTDCZ");
    assert_eq!(went(cluster(), &bad), Went::Replicas);
}
