//! System calls per transaction, counted by strace.
//! It must never count a transaction that opened a connection or prepared something.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;

use integration::Pgweir;
use integration::wire::Script;

use crate::common::{Client, eventually, know, metric};
use crate::conf;

/// Transactions counted.
const TRANSACTIONS: usize = 500;
/// Everything with which bytes or news of bytes move; `futex` and `clock_*` would be waits and locks.
const RECEIVES: &[&str] = &["recvfrom", "recvmsg", "recvmmsg", "read", "readv"];
const SENDS: &[&str] = &["sendto", "sendmsg", "sendmmsg", "writev"];
/// Calls that are not for a transaction: timers, and one thread waking another for news of its own (`write` to an eventfd).
const OTHERS: usize = 100;

/// The threads that serve clients. The others look every few seconds whether a primary is there: no transaction's affair.
fn workers(pgweir: &Pgweir) -> Vec<String> {
    // Others, which work aside for a moment, may end while they are looked at; workers never do.
    let name = |thread: &DirEntry| fs::read_to_string(thread.path().join("comm"));
    let threads = fs::read_dir(format!("/proc/{}/task", pgweir.id())).unwrap().flatten();
    threads
        .filter(|thread| name(thread).is_ok_and(|name| name.starts_with("worker-")))
        .map(|thread| thread.file_name().into_string().unwrap())
        .collect()
}

/// strace attached to every worker of pgweir.
struct Counting(Child);

impl Counting {
    fn start(pgweir: &Pgweir) -> Self {
        let mut command = Command::new("strace");
        command.args(["-c", "-U", "calls,name"]);
        let workers = workers(pgweir);
        assert!(!workers.is_empty(), "no thread is called worker");
        for thread in &workers {
            command.args(["-p", thread]);
        }
        let mut child = command
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("strace, which integration/test installs");
        // It says so of each thread; the table comes on the same pipe, in the end.
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        for _ in workers {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0 && line.contains("attached"), "strace says {line}");
        }
        child.stderr = Some(lines.into_inner());
        Self(child)
    }

    /// How often each call was made.
    fn stop(mut self) -> BTreeMap<String, usize> {
        Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        let mut table = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut table).unwrap();
        self.0.wait().unwrap();
        table
            .lines()
            .filter_map(|line| {
                let (count, name) = line.trim().split_once(char::is_whitespace)?;
                Some((name.trim().to_owned(), count.parse().ok()?))
            })
            .filter(|(name, _)| name != "total")
            .collect()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until nothing is left that servers are asked about by themselves: the code of the database, and, as statements ran
/// before that was known, a second later whether it is still the same.
fn settle(pgweir: &Pgweir) {
    know(pgweir);
    let mut client = Client::connect(pgweir.port());
    eventually("it was looked at again", || {
        client.query("SELECT 1").unwrap();
        metric(pgweir, "pgweir_pool_catalog_reads_total", &[]) >= 2.0
    });
}

/// Runs the transaction again and again and asserts two receives and two sends for each.
fn two_and_two(prepare: &Script, transaction: &Script) {
    let pgweir = conf().size(1).start();
    settle(&pgweir);
    let mut client = Client::connect(pgweir.port());
    if !prepare.bytes().is_empty() {
        client.run(prepare);
    }
    (0..20).for_each(|_| drop(client.run(transaction)));
    let counting = Counting::start(&pgweir);
    for _ in 0..TRANSACTIONS {
        assert_eq!(client.run(transaction).last().unwrap().tag, b'Z');
    }
    let calls = counting.stop();
    let sum = |of: &[&str]| of.iter().filter_map(|name| calls.get(*name)).sum::<usize>();
    assert_eq!((sum(RECEIVES), sum(SENDS)), (2 * TRANSACTIONS, 2 * TRANSACTIONS), "{calls:?}");
    // Waiting for news is one call per turn at most, and no thread wakes another.
    let waits = calls.get("epoll_wait").copied().unwrap_or(0);
    let others = calls.values().sum::<usize>() - sum(RECEIVES) - sum(SENDS) - waits;
    assert!(waits <= 2 * TRANSACTIONS + OTHERS && others <= OTHERS, "{calls:?}");
}

#[test]
fn a_simple_transaction_is_two_receives_and_two_sends() {
    two_and_two(&Script::new(), &Script::new().query("SELECT 1"));
}

#[test]
fn a_prepared_transaction_is_two_receives_and_two_sends() {
    let prepare = Script::new().parse("s", "SELECT $1::int").sync();
    let run = Script::new().bind("", "s", &[Some("7")]).describe(b'P', "").execute("", 0).sync();
    two_and_two(&prepare, &run);
}

#[test]
fn an_unnamed_transaction_is_two_receives_and_two_sends() {
    let run = Script::new().parse("", "SELECT $1::int").bind("", "", &[Some("7")]).describe(b'P', "").execute("", 0);
    two_and_two(&Script::new(), &run.sync());
}

/// Clients that wait for one server to themselves: each still costs two and two.
#[test]
fn a_queued_transaction_is_two_receives_and_two_sends() {
    let pgweir = conf().size(1).pool("lanes = false").start();
    settle(&pgweir);
    let (port, clients) = (pgweir.port(), 5);
    let mut crowd: Vec<Client> = (0..clients).map(|_| Client::connect(port)).collect();
    crowd.iter_mut().for_each(|client| drop(client.value("SELECT 1")));
    let counting = Counting::start(&pgweir);
    thread::scope(|scope| {
        for client in &mut crowd {
            scope.spawn(move || (0..TRANSACTIONS / clients).for_each(|_| assert_eq!(client.value("SELECT 1"), "1")));
        }
    });
    let calls = counting.stop();
    let sum = |of: &[&str]| of.iter().filter_map(|name| calls.get(*name)).sum::<usize>();
    assert_eq!((sum(RECEIVES), sum(SENDS)), (2 * TRANSACTIONS, 2 * TRANSACTIONS), "{calls:?}");
}

/// Two clients take turns on one server, each with two settings of its own: these travel in front of the client's
/// statement, in the same write, so that nobody waits for them.
#[test]
fn settings_cost_no_round_trip() {
    let pgweir = conf().size(1).start();
    settle(&pgweir);
    let mut clients = [3, 4].map(|megabytes| {
        let mut client = Client::connect(pgweir.port());
        client.query(&format!("SET work_mem = '{megabytes}MB'")).unwrap();
        client.query(&format!("SET application_name = 'client {megabytes}'")).unwrap();
        (client, [format!("{megabytes}MB"), format!("client {megabytes}")])
    });
    let sql = "SELECT current_setting('work_mem'), current_setting('application_name')";
    let mut turns = |turns: usize| {
        for turn in 0..turns {
            let (client, settings) = &mut clients[turn % 2];
            assert_eq!(client.query(sql).unwrap(), std::slice::from_ref(settings));
        }
    };
    turns(2);
    let counting = Counting::start(&pgweir);
    turns(TRANSACTIONS);
    let calls = counting.stop();
    let sends = SENDS.iter().filter_map(|name| calls.get(*name)).sum::<usize>();
    // One to the server and one to the client.
    assert_eq!(sends, 2 * TRANSACTIONS, "{calls:?}");
}
