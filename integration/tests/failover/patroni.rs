//! A real Patroni moves the primary: because it is told to, because the server crashed, and because the leader's own Patroni was
//! killed, whose server then goes on as a primary that nobody follows.
//! It must never tell pgweir anything: what it knows it has from Patroni's REST API and from the servers.

use std::thread;
use std::time::{Duration, Instant};

use crate::books::Books;
use crate::common::{Conf, eventually, metric};
use crate::people::{Bank, WATCHED, may_be_tried_again};
use crate::{KNOWN_AFTER, WRITES_AFTER, idle_clients, recall, schema, until, write};
use integration::patroni::{Node, Standing};
use integration::{DATABASE, Patroni, Pgweir, USER};

/// A light load: there are three servers and three Patronis in Python to leave something to.
const PACE: Duration = Duration::from_millis(10);

/// Why the leader is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Patroni is asked to: it shuts the server down, and starts it again as a standby.
    Wish,
    /// All of the server's processes are killed. Patroni gives the lock up, and repairs the server.
    Crash,
    /// Patroni is killed. Its lock runs out, and so does its place among the members.
    Silence,
}

/// What pgweir takes the node's server for; `None` if it is none of its servers.
fn role(pgweir: &Pgweir, node: &Node) -> Option<&'static str> {
    let host = node.postgres().address();
    let is = |role: &&str| metric(pgweir, "pgweir_host_role", &[("host", &host), ("role", role)]) == 1.0;
    ["primary", "standby", "stale", "down", "unknown"].into_iter().find(is)
}

/// pgweir has every node for what it is.
fn until_known(pgweir: &Pgweir, patroni: &Patroni, leader: &Node) {
    for node in patroni.nodes() {
        let wished = if node.name() == leader.name() { "primary" } else { "standby" };
        eventually(&format!("{} is a {wished}", node.name()), || role(pgweir, node) == Some(wished));
    }
}

/// Gives Patroni the reason; when its heir has committed for the first time as a primary.
fn replace(patroni: &Patroni, standing: Standing<'_>, reason: Reason, era: u64) -> Instant {
    let (leader, heir) = (standing.leader, standing.heir.postgres());
    thread::scope(|scope| {
        let asked = (reason == Reason::Wish).then(|| scope.spawn(|| patroni.switch_over(standing)));
        match reason {
            Reason::Wish => {}
            Reason::Crash => leader.postgres().crash(),
            Reason::Silence => leader.kill_patroni(),
        }
        heir.wait_true("SELECT NOT pg_is_in_recovery()").unwrap();
        heir.query_in(DATABASE, &format!("UPDATE era SET n = {era}")).unwrap();
        let promoted = Instant::now();
        asked.map_or(Ok(()), |asked| asked.join().unwrap()).unwrap();
        promoted
    })
}

/// Nothing that clients began after the promotion was known has reached the old leader, though it would take it.
fn old_one_is_not_believed(old: &Node, logged: u64, struck: Instant, promoted: Instant, books: &Books) {
    assert_eq!(old.postgres().value_in("postgres", "SELECT pg_is_in_recovery()").unwrap(), "f");
    let log = old.postgres().log_since(logged);
    assert!(!books.begun_after(struck, &log).is_empty(), "nobody has written to the old leader, which lived on");
    let strayed = books.begun_after(promoted + KNOWN_AFTER, &log);
    assert!(strayed.is_empty(), "the old leader got {strayed:?}");
}

/// Every one of these has replayed the era.
fn until_read<'a>(nodes: impl Iterator<Item = &'a Node>, era: u64) {
    let sql = format!("SELECT n = {era} FROM era");
    let knows = |node: &Node| node.postgres().value_in(DATABASE, &sql).is_ok_and(|value| value == "t");
    nodes.for_each(|node| eventually(&format!("{} knows the era", node.name()), || knows(node)));
}

/// Twenty seconds pass before anybody takes the place of a leader whose Patroni is silent, as no less is possible with Patroni: only
/// the long form waits for that.
#[test]
fn patroni_replaces_leaders() {
    let long = std::env::var_os("PGWEIR_LONG").is_some();
    let reasons = [Reason::Wish, Reason::Crash, Reason::Silence];
    leaders_are_replaced(if long { &reasons } else { &reasons[..2] });
}

/// Clients work while one leader after the other is replaced.
fn leaders_are_replaced(reasons: &[Reason]) {
    let patroni = Patroni::start(3, &schema()).unwrap();
    let urls: Vec<String> = patroni.nodes().iter().map(Node::url).collect();
    let conf = Conf::database_only(&format!("discover = {urls:?}\n")).listen("auth_type = \"trust\"");
    let pgweir = conf.user(USER, "").pool("discover_interval = \"1s\"").size(10).start();
    let (books, bank) = (Books::default(), Bank::new(pgweir.port(), PACE));
    let mut idle = idle_clients(pgweir.port());
    thread::scope(|scope| {
        // Whatever happens here, the others are told to go home.
        let _closing = bank.closing();
        for number in 0..2 {
            let (books, bank) = (&books, &bank);
            scope.spawn(move || bank.transfers(number, books));
        }
        scope.spawn(|| bank.reads());
        scope.spawn(|| bank.reads_its_writes(1, &books));
        scope.spawn(|| bank.probes(&books));
        for (era, reason) in (1..).zip(reasons.iter().copied()) {
            let standing = patroni.settled().unwrap();
            let (old, new) = (standing.leader, standing.heir);
            until_known(&pgweir, &patroni, old);
            let acknowledged = books.acknowledged();
            eventually("money flows", || books.acknowledged() > acknowledged + 50);
            let (logged, struck) = (old.postgres().log_length(), Instant::now());
            let promoted = replace(&patroni, standing, reason, era);
            let reads: Vec<_> = idle.iter_mut().enumerate().map(|(number, client)| recall(client, number)).collect();
            let written = bank.first_write_after(promoted);
            println!("{reason:?}: promotion {:?} later, first write {written:?} after it", promoted - struck);
            assert!(written < WRITES_AFTER, "{reason:?}: the first write came {written:?} after the promotion");
            let writes: Vec<_> = idle.iter_mut().map(|client| write(client, &books)).collect();
            assert!(reads.iter().chain(&writes).all(Result::is_ok), "{reason:?}: {reads:?} {writes:?}");
            // What Patroni repairs comes back; a server without one stays as it was.
            let lives_on = reason == Reason::Silence;
            until_read(patroni.nodes().iter().filter(|node| !lives_on || node.name() != old.name()), era);
            bank.raise_era(promoted + KNOWN_AFTER, era);
            if lives_on {
                // Nothing to wait for: it shall not happen for so long, and money flows meanwhile.
                until(Instant::now() + WATCHED);
                old_one_is_not_believed(old, logged, struck, promoted, &books);
                old.start_patroni().unwrap();
            }
            assert_eq!(patroni.settled().unwrap().leader.name(), new.name());
            until_known(&pgweir, &patroni, new);
        }
    });
    let complaints = bank.complaints();
    println!("{} acknowledged, {} in doubt, {complaints:?}", books.acknowledged(), books.in_doubt());
    let position = patroni.settled().unwrap().leader.postgres().position().unwrap();
    for node in patroni.nodes().iter().map(Node::postgres) {
        node.wait_true(&format!("SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= '{position}'")).unwrap();
        books.check(node);
    }
    assert_eq!(complaints.readers, [] as [String; 0]);
    let wrong: Vec<_> = complaints.writers.keys().filter(|said| !may_be_tried_again(said)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
