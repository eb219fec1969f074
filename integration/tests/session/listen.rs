//! LISTEN in transaction mode: many clients share one connection, and each hears exactly what it would hear on one of its own.
//! It must never take silence for proof: what is not to be heard is followed by something that is.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::wire::{Frame, Script};
use integration::{Cluster, DATABASE, Pgweir, Signal};
use rustix::process::{Pid, kill_process};

use crate::common::client::tags;
use crate::common::{Client, Conf, crowd, eventually, metric};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

/// A notification: process id, channel, payload.
type Note = (u32, String, String);

fn note(frame: &Frame) -> Option<Note> {
    if frame.tag != b'A' {
        return None;
    }
    let pid = u32::from_be_bytes(frame.body.get(..4)?.try_into().ok()?);
    let mut texts =
        frame.body.get(4..)?.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    Some((pid, texts.next()?, texts.next()?))
}

/// What the next notification says, whatever comes between.
fn next(client: &mut Client) -> String {
    loop {
        let frame = client.read().expect("the connection ended");
        if let Some((_, channel, payload)) = note(&frame) {
            return format!("{channel}:{payload}");
        }
    }
}

fn direct(cluster: &Cluster) -> Client {
    Client::connect(cluster.primary().port())
}

fn own_pid(client: &Client) -> u32 {
    u32::from_be_bytes(client.key[..4].try_into().unwrap())
}

/// Waits until so many clients share the connection.
fn shared(pgweir: &Pgweir, count: usize) {
    eventually("clients share the connection that listens", || {
        metric(pgweir, "pgweir_pool_listening_clients", &[]) as usize == count
            && metric(pgweir, "pgweir_pool_clients", &[("state", "active")]) as usize == 0
    });
}

/// Server connections of the database, but for the one that asks.
fn connections(cluster: &Cluster) -> usize {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    cluster.primary().value_in("postgres", &sql).unwrap().parse().unwrap()
}

#[test]
fn two_hundred_listen_on_few_connections() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(2).start();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(pgweir.port())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.query(&format!("LISTEN all_of_them; LISTEN number_{number}")).unwrap();
    }
    shared(&pgweir, 200);
    assert!(connections(&cluster) <= 3, "{} connections", connections(&cluster));
    assert_eq!(metric(&pgweir, "pgweir_pool_listened_channels", &[]) as usize, 201);
    let mut speaker = Client::connect(pgweir.port());
    for number in 0..200 {
        speaker.query(&format!("NOTIFY number_{number}, 'yours'")).unwrap();
    }
    speaker.query("NOTIFY all_of_them, 'hello'").unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(next(client), format!("number_{number}:yours"));
        assert_eq!(next(client), "all_of_them:hello");
    }
    drop(clients);
    eventually("channels that nobody wants go", || metric(&pgweir, "pgweir_pool_listened_channels", &[]) == 0.0);
}

#[test]
fn what_is_listened_to_is_what_was_committed() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(2).start();
    let (mut pooled, mut bare) = (Client::connect(pgweir.port()), direct(&cluster));
    for (number, step) in [
        "LISTEN c1",
        "BEGIN; LISTEN c2; ROLLBACK",
        "BEGIN; LISTEN c2; COMMIT",
        "UNLISTEN c1",
        "BEGIN; UNLISTEN c2; ROLLBACK",
        "LISTEN \"C 3\"; LISTEN c4",
        "BEGIN; SAVEPOINT a; UNLISTEN *; ROLLBACK TO a; LISTEN c5; COMMIT",
        "UNLISTEN nothing",
        "DO $$ BEGIN EXECUTE 'LISTEN c6'; EXECUTE 'LISTEN c7'; END $$",
        "BEGIN; UNLISTEN *; LISTEN c1; COMMIT",
        "LISTEN c1",
        "DISCARD ALL",
        "LISTEN c2; LISTEN c5",
        "UNLISTEN *",
        "LISTEN c7",
    ]
    .into_iter()
    .enumerate()
    {
        let results = [&mut pooled, &mut bare].map(|client| client.query(step));
        assert_eq!(results[0], results[1], "{step}");
        agree(&mut pooled, &mut bare, &cluster, &format!("{number} {step}"));
    }
}

const CHANNELS: [&str; 8] = ["c1", "c2", "\"C 3\"", "c4", "c5", "c6", "c7", "the_end"];

/// Both say that they listen to the same, and hear the same.
fn agree(pooled: &mut Client, bare: &mut Client, cluster: &Cluster, step: &str) {
    let mut both = [pooled, bare];
    let said = both.each_mut().map(|client| {
        let rows = client.query("SELECT pg_listening_channels()").unwrap();
        client.query("LISTEN the_end").unwrap();
        rows.into_iter().flatten().collect::<BTreeSet<String>>()
    });
    assert_eq!(said[0], said[1], "{step}");
    let mut speaker = direct(cluster);
    for channel in CHANNELS {
        speaker.query(&format!("NOTIFY {channel}, '{}'", step.replace('\'', ""))).unwrap();
    }
    let heard = both.map(|client| {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &String| !last.starts_with("the_end")) {
            heard.push(next(client));
        }
        client.query("UNLISTEN the_end").unwrap();
        heard
    });
    assert_eq!(heard[0], heard[1], "{step}");
}

/// The statements of a transaction one by one, in the simple and the extended protocol.
#[test]
fn channels_are_given_up_with_their_transaction() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(2).start();
    for extended in [false, true] {
        let (mut pooled, mut bare) = (Client::connect(pgweir.port()), direct(&cluster));
        for program in [
            &["LISTEN c1", "LISTEN c2", "LISTEN c4"][..],
            &["BEGIN", "UNLISTEN c1", "ROLLBACK"],
            &["BEGIN", "UNLISTEN c1", "COMMIT"],
            &["BEGIN", "SAVEPOINT a", "UNLISTEN *", "ROLLBACK TO a", "COMMIT"],
            &["BEGIN", "SAVEPOINT a", "UNLISTEN c2", "RELEASE a", "LISTEN c1", "COMMIT"],
            &["BEGIN", "UNLISTEN *", "LISTEN c5", "COMMIT"],
            &["BEGIN", "LISTEN c6", "UNLISTEN *", "COMMIT"],
            &["LISTEN c6"],
            &["BEGIN", "LISTEN c1", "UNLISTEN c6", "UNLISTEN c1", "LISTEN c2", "LISTEN c4", "COMMIT"],
            &["BEGIN", "UNLISTEN c2", "SAVEPOINT a", "UNLISTEN c4", "ROLLBACK TO a", "LISTEN c5", "COMMIT"],
            &["BEGIN", "SAVEPOINT a", "UNLISTEN c4", "ROLLBACK TO a", "UNLISTEN c5", "COMMIT"],
            &["BEGIN", "SAVEPOINT a; UNLISTEN *; LISTEN c7; ROLLBACK TO a", "LISTEN c6", "COMMIT"],
            &["BEGIN", "SELECT 1/0", "UNLISTEN c6", "COMMIT"],
            &["UNLISTEN c6"],
        ] {
            for statement in program {
                let results = [&mut pooled, &mut bare].map(|client| {
                    if !extended || statement.contains(';') {
                        return tags(&client.run(&Script::new().query(statement)));
                    }
                    let script = Script::new().parse("", statement).bind("", "", &[]).execute("", 0).sync();
                    tags(&client.run(&script))
                });
                assert_eq!(results[0], results[1], "{statement}");
            }
            agree(&mut pooled, &mut bare, &cluster, &program.join("; "));
        }
    }
}

/// Each notification exactly once and in order, while clients come and go and run transactions of their own.
#[test]
fn nothing_is_lost_or_told_twice_under_load() {
    const SPEAKERS: usize = 3;
    const EACH: usize = 600;
    let pgweir = Conf::trust(cluster()).size(3).start();
    let port = pgweir.port();
    let mut bare = direct(cluster());
    bare.query("LISTEN load; LISTEN other_load; LISTEN over").unwrap();
    let over = std::sync::Arc::new(AtomicBool::new(false));
    let ended = std::sync::Arc::clone(&over);
    let heard = crowd(SPEAKERS + 8, move |number| {
        if number < SPEAKERS {
            let mut speaker = if number == 0 { direct(cluster()) } else { Client::connect(port) };
            for turn in 0..EACH {
                let channel = if turn % 3 == 0 { "other_load" } else { "load" };
                speaker.query(&format!("SELECT pg_notify('{channel}', '{number} {turn}')")).unwrap();
            }
            return Vec::new();
        }
        let mut rounds = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            rounds.push(one_listener(port, number));
            if rounds.iter().any(|round| round.iter().any(|note| note.starts_with("over"))) {
                break;
            }
            if rounds.len() > 40 {
                ended.store(true, Ordering::Relaxed);
            }
        }
        rounds
    });
    drop(over);
    direct(cluster()).query("NOTIFY over").unwrap();
    let mut all = Vec::new();
    while all.last().is_none_or(|last| last != "over:") {
        all.push(next(&mut bare));
    }
    assert_eq!(all.len(), SPEAKERS * EACH + 1);
    for round in heard.iter().flatten().filter(|round| !round.is_empty()) {
        let from = all.iter().position(|note| *note == round[0]).unwrap();
        let differs = round.iter().zip(&all[from..]).position(|(told, bare)| told != bare);
        assert_eq!(differs.map(|at| (&round[at], &all[from + at])), None);
    }
    let total: usize = heard.iter().flatten().map(Vec::len).sum();
    assert!(total > 1000, "only {total} heard");
}

/// Listens, works, and listens on; what it heard.
fn one_listener(port: u16, number: usize) -> Vec<String> {
    let mut client = Client::connect(port);
    let mut frames = client.run(&Script::new().query("LISTEN load; LISTEN other_load"));
    for turn in 0..20 {
        let statements = match (turn + number) % 6 {
            0 => &["BEGIN", "SELECT 1", "COMMIT"][..],
            // Nothing changes by any of it, but all of it makes channels change hands.
            1 => &["LISTEN load"],
            2 if number.is_multiple_of(2) => &["BEGIN", "UNLISTEN *", "ROLLBACK"],
            3 => &["BEGIN", "LISTEN other_load", "SAVEPOINT a", "UNLISTEN load", "ROLLBACK TO a", "COMMIT"],
            4 if !number.is_multiple_of(2) => &["SELECT pg_listening_channels()", "UNLISTEN nothing"],
            _ => &["SELECT 2"],
        };
        for statement in statements {
            frames.extend(client.run(&Script::new().query(statement)));
        }
    }
    let told: Vec<Note> = frames.iter().filter_map(note).collect();
    told.into_iter().map(|(_, channel, payload)| format!("{channel}:{payload}")).collect()
}

#[test]
fn one_in_a_transaction_hears_it_behind() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let mut listener = Client::connect(pgweir.port());
    listener.query("LISTEN behind").unwrap();
    shared(&pgweir, 1);
    assert_eq!(tags(&listener.run(&Script::new().query("BEGIN"))), "CZ");
    let mut witness = Client::connect(pgweir.port());
    witness.query("LISTEN behind").unwrap();
    for turn in 0..3 {
        direct(cluster()).query(&format!("NOTIFY behind, '{turn}'")).unwrap();
        assert_eq!(next(&mut witness), format!("behind:{turn}"));
    }
    assert_eq!(tags(&listener.run(&Script::new().query("SELECT 1"))), "TDCZ");
    assert_eq!(tags(&listener.run(&Script::new().query("COMMIT"))), "CAAAZ");
}

#[test]
fn ones_own_come_first_and_with_ones_own_pid() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(pgweir.port())).collect();
    for client in &mut clients {
        client.query("LISTEN own").unwrap();
    }
    shared(&pgweir, 4);
    let mut deaf = Client::connect(pgweir.port());
    for turn in 0..60 {
        let by = turn % 4;
        if turn % 2 == 0 {
            deaf.query("NOTIFY own, 'deaf'").unwrap();
            for client in &mut clients {
                let frame = client.read().unwrap();
                let (pid, _, payload) = note(&frame).unwrap();
                assert_eq!((pid, &payload[..]), (own_pid(&deaf), "deaf"), "turn {turn}");
            }
        }
        let speaker = &mut clients[by];
        let frames = if turn % 3 == 0 {
            let script = Script::new().parse("", "SELECT pg_notify('own', $1)").bind("", "", &[Some("x")]);
            speaker.run(&script.execute("", 0).sync())
        } else if turn % 3 == 1 {
            speaker.run(&Script::new().query("NOTIFY own, 'x'"))
        } else {
            speaker.query("BEGIN; NOTIFY own, 'x'").unwrap();
            speaker.run(&Script::new().query("COMMIT"))
        };
        let told: Vec<Note> = frames.iter().filter_map(note).collect();
        assert_eq!(told, [(own_pid(speaker), "own".into(), "x".into())], "before its ReadyForQuery, turn {turn}");
        let pid = own_pid(speaker);
        for (number, client) in clients.iter_mut().enumerate().filter(|(number, _)| *number != by) {
            assert_eq!(note(&client.read().unwrap()).unwrap().0, pid, "client {number}, turn {turn}");
        }
    }
    // From elsewhere, it keeps the id of its process.
    let mut other = direct(cluster());
    other.query("NOTIFY own, 'far'").unwrap();
    assert_eq!(note(&clients[0].read().unwrap()).unwrap().0, own_pid(&other));
}

/// Also where more was sent behind it before it was told.
#[test]
fn ones_own_come_first_in_a_pipeline() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let mut clients = [Client::connect(pgweir.port()), direct(cluster())];
    let notify = |script: Script| script.parse("", "SELECT pg_notify('piped', $1)").bind("", "", &[Some("y")]);
    let script = Script::new().query("SELECT 1").query("NOTIFY piped, 'x'").query("SELECT 2").query("BEGIN");
    let script = notify(script).execute("", 0).sync().query("SELECT 3").query("COMMIT").query("SHOW work_mem");
    for client in &mut clients {
        client.query("LISTEN piped").unwrap();
        for _ in 0..3 {
            client.send(&script);
            assert_eq!(tags(&client.ready(8)), "TDCZCAZTDCZCZ12DCZTDCZCAZTDCZ");
        }
    }
}

/// What belongs to a COPY does not wait for what was said before it, nor does who leaves lose what he has asked for.
#[test]
fn who_speaks_may_copy_and_leave() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    cluster()
        .primary()
        .query_in(integration::DATABASE, "CREATE TABLE copied (n int); GRANT ALL ON copied TO app")
        .unwrap();
    let mut client = Client::connect(pgweir.port());
    client.query("LISTEN copying").unwrap();
    client.query("BEGIN").unwrap();
    client.query("NOTIFY copying, 'x'").unwrap();
    let data = |script: Script| script.raw(b'd', b"1\n").raw(b'd', b"2\n").raw(b'c', b"");
    client.send(&Script::new().query("COPY copied FROM STDIN"));
    assert_eq!(client.read().unwrap().tag, b'G');
    client.send(&data(Script::new()));
    assert_eq!(tags(&client.ready(1)), "CZ");
    // In one, and all of it sent ahead.
    client.send(&data(Script::new().query("NOTIFY copying, 'y'; COPY copied FROM STDIN")));
    assert_eq!(tags(&client.ready(1)), "CGCZ");
    assert_eq!(tags(&client.run(&Script::new().query("COMMIT"))), "CAAZ");
    let last =
        Script::new().query("BEGIN").query("INSERT INTO copied VALUES (3)").query("NOTIFY copying").query("COMMIT");
    client.send(&last.terminate());
    // Whoever closes with answers unread resets the connection, and may lose what it has sent, with PostgreSQL as with pgweir.
    client.frames_to_end();
    let count = || cluster().primary().value_in(integration::DATABASE, "SELECT count(*) FROM copied").unwrap();
    eventually("all is there", || count() == "5");
}

/// Somebody else's notification on the same server is never taken for one's own, however soon it follows.
#[test]
fn a_strangers_is_not_ones_own() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let port = pgweir.port();
    let pids = crowd(6, move |number| {
        let mut client = Client::connect(port);
        if number % 2 == 0 {
            client.query("LISTEN strangers").unwrap();
        }
        let mut seen = Vec::new();
        for turn in 0..150 {
            let frames = client.run(&Script::new().query(&format!("NOTIFY strangers, '{number} {turn}'")));
            seen.extend(frames.iter().filter_map(note));
        }
        (number, own_pid(&client), seen)
    });
    for (number, pid, seen) in pids {
        let own = |note: &&Note| note.2.starts_with(&format!("{number} "));
        let wrong = seen.iter().enumerate().find(|(_, note)| own(note) != (note.0 == pid));
        assert_eq!(wrong, None, "client {number}, which was told {pid}, has heard {}", seen.len());
        assert_eq!(seen.iter().filter(own).count(), if number % 2 == 0 { 150 } else { 0 });
    }
}

#[test]
fn a_restart_is_told() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(2).start();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(pgweir.port())).collect();
    for client in &mut clients {
        client.query("LISTEN after").unwrap();
    }
    shared(&pgweir, 5);
    cluster.primary().stop(integration::Stop::Fast).unwrap();
    cluster.primary().start().unwrap();
    for client in &mut clients {
        let frame = client.read().unwrap();
        assert_eq!(frame.tag, b'N');
        let message = frame.field(b'M').unwrap();
        assert!(message.contains("notifications may have been missed") && message.contains(DATABASE), "{message}");
    }
    // It is told when everything is listened to again.
    direct(&cluster).query("NOTIFY after, 'all'").unwrap();
    for client in &mut clients {
        assert_eq!(next(client), "after:all");
    }
}

#[test]
fn who_does_not_read_holds_up_nobody() {
    const COUNT: usize = 400;
    let pgweir = Conf::trust(cluster()).size(2).start();
    let (mut slow, mut quick) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    for client in [&mut slow, &mut quick] {
        client.query("LISTEN flood").unwrap();
    }
    shared(&pgweir, 2);
    let mut speaker = direct(cluster());
    let large = "x".repeat(7900);
    for turn in 0..COUNT {
        speaker.query(&format!("NOTIFY flood, '{turn} {large}'")).unwrap();
        assert!(next(&mut quick).starts_with(&format!("flood:{turn} ")));
    }
    // More than its socket and its queue take is dropped, and that is told.
    while metric(&pgweir, "pgweir_pool_notifications_dropped_total", &[]) == 0.0 {
        speaker.query(&format!("NOTIFY flood, 'more {large}'")).unwrap();
        next(&mut quick);
    }
    let mut at = 0;
    let notice = loop {
        let frame = slow.read().unwrap();
        match note(&frame) {
            Some((_, _, payload)) if at < COUNT => {
                assert!(payload.starts_with(&format!("{at} ")), "{at}");
                at += 1;
            }
            Some(_) => {}
            None => break frame.field(b'M').unwrap(),
        }
    };
    assert!(notice.contains("dropped"), "{notice}");
    assert_eq!(slow.value("SELECT 1"), "1");
}

#[test]
fn names_are_as_postgresql_has_them() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let (mut pooled, mut bare) = (Client::connect(pgweir.port()), direct(cluster()));
    let mut speaker = direct(cluster());
    let long = "n".repeat(63);
    let (longer, umlauts) = (format!("\"{long}nn\""), format!("\"{}\"", "ü".repeat(40)));
    let names =
        ["MiXed", "\"MiXed\"", "\"with \"\"quotes\"\" and ; --\"", &long, &longer, "\"'\\\"", &umlauts, "\"*\""];
    for client in [&mut pooled, &mut bare] {
        for name in names {
            client.query(&format!("LISTEN {name}")).unwrap();
        }
    }
    shared(&pgweir, 1);
    for turn in 0..2 {
        for name in names {
            speaker.query(&format!("NOTIFY {name}, '{turn}'")).unwrap();
            assert_eq!(next(&mut pooled), next(&mut bare), "{name}");
        }
    }
    for name in names {
        pooled.query("BEGIN").unwrap();
        pooled.query(&format!("UNLISTEN {name}")).unwrap();
        pooled.query("COMMIT").unwrap();
    }
    assert_eq!(pooled.query("SELECT pg_listening_channels()"), Ok(vec![]));
}

/// Where the limits leave no connection for it a client keeps its server, as a pooler without all this would have it.
#[test]
fn without_room_a_listener_keeps_its_server() {
    let cluster = Cluster::builder().start().unwrap();
    let conf = Conf::trust(&cluster).size(2).database("max_db_connections = 2");
    let pgweir = conf.start();
    let mut other = Client::connect(pgweir.port());
    let mut listener = Client::connect(pgweir.port());
    other.query("BEGIN").unwrap();
    listener.query("LISTEN room").unwrap();
    direct(&cluster).query("NOTIFY room, 'one'").unwrap();
    assert_eq!(next(&mut listener), "room:one");
    eventually("both keep theirs", || metric(&pgweir, "pgweir_pool_clients", &[("state", "active")]) as usize == 2);
    other.query("COMMIT").unwrap();
    pgweir.reload(&conf.database("max_db_connections = 3").text().replace("max_db_connections = 2\n", "")).unwrap();
    shared(&pgweir, 1);
    direct(&cluster).query("NOTIFY room, 'two'").unwrap();
    assert_eq!(next(&mut listener), "room:two");
}

/// The same: who has notified is known as long as nobody else has by way of that server; then it is the server, and
/// nobody else ever. Once there is room it is known again.
#[test]
fn without_room_a_notification_is_nobody_elses() {
    let cluster = Cluster::builder().start().unwrap();
    let conf = Conf::trust(&cluster).size(2).database("max_db_connections = 2");
    let pgweir = conf.start();
    let [mut listener, mut one, mut two] = [(); 3].map(|()| Client::connect(pgweir.port()));
    // Both servers are there before anybody listens: otherwise the connection that listens for all would find room.
    one.query("BEGIN").unwrap();
    listener.query("LISTEN room").unwrap();
    one.query("COMMIT").unwrap();
    let mut hear = |payload: &str| loop {
        let heard = note(&listener.read().expect("the connection ended"));
        if let Some((pid, _, _)) = heard.filter(|heard| heard.2 == payload) {
            return pid;
        }
    };
    one.query("NOTIFY room, 'one'").unwrap();
    assert_eq!(hear("one"), own_pid(&one));
    two.query("NOTIFY room, 'two'").unwrap();
    let server = hear("two");
    let is_server = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {server}");
    assert_eq!(cluster.primary().value_in("postgres", &is_server).unwrap(), "1");
    one.query("NOTIFY room, 'three'").unwrap();
    assert_eq!(hear("three"), server);
    pgweir.reload(&conf.database("max_db_connections = 3").text().replace("max_db_connections = 2\n", "")).unwrap();
    shared(&pgweir, 1);
    two.query("NOTIFY room, 'four'").unwrap();
    assert_eq!(hear("four"), own_pid(&two));
}

/// A database that is configured anew takes its listeners along.
#[test]
fn a_reload_takes_listeners_along() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let mut listener = Client::connect(pgweir.port());
    listener.query("LISTEN moved").unwrap();
    shared(&pgweir, 1);
    pgweir.reload(&Conf::trust(cluster()).size(2).database("server_tls_sslmode = \"disable\"").text()).unwrap();
    let frame = listener.read().unwrap();
    assert!(frame.tag == b'N' && frame.field(b'M').unwrap().contains("missed"));
    direct(cluster()).query("NOTIFY moved, 'there'").unwrap();
    assert_eq!(next(&mut listener), "moved:there");
    assert_eq!(listener.value("SELECT pg_listening_channels()"), "moved");
}

/// What keeps a server for another reason still lets the channels go, and hears as before.
#[test]
fn one_that_is_pinned_for_another_reason_hears_too() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let mut listener = Client::connect(pgweir.port());
    listener.query("CREATE TEMP TABLE t (a int); LISTEN pinned").unwrap();
    eventually("it is shared", || metric(&pgweir, "pgweir_pool_listening_clients", &[]) == 1.0);
    for turn in 0..3 {
        direct(cluster()).query(&format!("NOTIFY pinned, '{turn}'")).unwrap();
        assert_eq!(next(&mut listener), format!("pinned:{turn}"));
        listener.query("INSERT INTO t VALUES (1)").unwrap();
    }
    let frames = listener.run(&Script::new().query("NOTIFY pinned, 'own'"));
    let told: Vec<Note> = frames.iter().filter_map(note).collect();
    assert_eq!(told, [(own_pid(&listener), "pinned".into(), "own".into())]);
    listener.query("UNLISTEN pinned").unwrap();
    direct(cluster()).query("NOTIFY pinned, 'never'").unwrap();
    listener.query("LISTEN again").unwrap();
    direct(cluster()).query("NOTIFY again, 'yes'").unwrap();
    assert_eq!(next(&mut listener), "again:yes");
}

#[test]
fn session_mode_is_as_it_was() {
    let pgweir = Conf::trust(cluster()).size(2).database("pool_mode = \"session\"").start();
    let mut listener = Client::connect(pgweir.port());
    listener.query("LISTEN own_server").unwrap();
    direct(cluster()).query("NOTIFY own_server, 'x'").unwrap();
    listener.patience(Duration::from_secs(10));
    assert_eq!(next(&mut listener), "own_server:x");
    assert_eq!(metric(&pgweir, "pgweir_pool_listening_clients", &[]), 0.0);
}

/// Who listens keeps no server, so neither `strict` nor a limit of kept servers has anything against it.
#[test]
fn listening_is_no_keeping() {
    let strict = "session_state = \"strict\"\nmax_pinned_servers = 1";
    let pgweir = Conf::trust(cluster()).size(2).database(strict).start();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(pgweir.port())).collect();
    for client in &mut clients {
        client.query("LISTEN strictly").unwrap();
    }
    shared(&pgweir, 5);
    direct(cluster()).query("NOTIFY strictly, 'x'").unwrap();
    clients.iter_mut().for_each(|client| assert_eq!(next(client), "strictly:x"));
    assert!(clients[0].query("CREATE TEMP TABLE t (a int)").unwrap_err().starts_with("0A000"));
}

/// Channels are brought in front of a text that then must wait for something else to be brought: they stay there.
#[test]
fn one_that_also_runs_what_it_prepared_goes_on() {
    let pgweir = Conf::trust(cluster()).start();
    let mut client = Client::connect(pgweir.port());
    client.run(&Script::new().parse("p", "SELECT 7").sync());
    client.query("LISTEN prepares; CREATE TEMP TABLE keeps (n int)").unwrap();
    eventually("the channel is shared", || metric(&pgweir, "pgweir_pool_listening_clients", &[]) == 1.0);
    assert_eq!(client.value("LISTEN prepares_too; EXECUTE p"), "7");
    direct(cluster()).query("NOTIFY prepares, 'one'; NOTIFY prepares_too, 'two'").unwrap();
    assert_eq!([next(&mut client), next(&mut client)], ["prepares:one", "prepares_too:two"]);
}

/// A server process that is stopped, and goes on in the end.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: &str) -> Self {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended: that is no reason to fail, least of all while a test does.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Nobody waits longer for the connection that listens than it may take to answer.
#[test]
fn a_connection_that_says_nothing_is_given_up() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(1).start();
    let (mut first, mut second) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    first.query("LISTEN c").unwrap();
    shared(&pgweir, 1);
    // What it has said last, or nothing.
    let sql = "SELECT pid FROM pg_stat_activity WHERE query IN ('LISTEN \"c\";', '') AND datname = ";
    let sql = format!("{sql}'{DATABASE}'");
    let pid = cluster.primary().value_in("postgres", &sql).unwrap();
    let _stopped = Stopped::new(&pid);
    // It listens to this channel already, but never hears the mark.
    second.query("LISTEN c").unwrap();
    second.patience(Duration::from_secs(30));
    assert_eq!(second.value("SELECT 1"), "1");
    let again = format!("SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"c\";' AND pid <> {pid}");
    eventually("another listens", || {
        cluster.primary().value_in("postgres", &format!("{again} AND state = 'idle'")).is_ok_and(|count| count == "1")
    });
    first.patience(Duration::from_secs(30));
    direct(&cluster).query("NOTIFY c, 'again'").unwrap();
    assert_eq!([next(&mut second), next(&mut first)], ["c:again", "c:again"]);
}

/// Whoever is told that a NOTIFY was committed finds the listeners told of it when they are asked next, and so does
/// whoever gives his channels up then: however late the connection hears of it that listens for all.
#[test]
fn what_was_committed_before_is_told_before() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(2).start();
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT pid FROM pg_stat_activity WHERE query IN ('LISTEN \"c\";', '') AND datname = ";
    for (ends, answer) in [("SELECT 1", 3), ("UNLISTEN c", 0), ("UNLISTEN *", 0)] {
        client.query("LISTEN c").unwrap();
        shared(&pgweir, 1);
        let pid = format!("{sql}'{DATABASE}'");
        cluster.primary().wait_true(&format!("SELECT count(*) = 1 FROM ({pid}) AS l")).unwrap();
        let stopped = Stopped::new(&cluster.primary().value_in("postgres", &pid).unwrap());
        direct(&cluster).query("NOTIFY c, 'early'").unwrap();
        client.send(&Script::new().query(ends));
        // All but the ReadyForQuery, and before what gives channels up nothing; it would come by now.
        (0..answer).for_each(|_| drop(client.read().unwrap()));
        assert!(!client.speaks_within(Duration::from_millis(200)), "{ends}");
        drop(stopped);
        let frames = client.ready(1);
        assert_eq!(frames.iter().filter(|frame| note(frame).is_some()).count(), 1, "{ends}");
        client.query("UNLISTEN *").unwrap();
        eventually("it is over", || metric(&pgweir, "pgweir_pool_listened_channels", &[]) == 0.0);
    }
}
