//! A lock that somebody holds keeps from their answers only those who need what is locked.
//! It must never let a reader be counted as held up before PostgreSQL says that it waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::Pgweir;

use crate::common::{Client, eventually, within};
use crate::{Asker, Rides, SOON, WAYS, cluster, conf_with, read_of, start, waiting_for, warm_askers, warm_sql};

/// Each test locks another table.
fn begin(size: usize, table: &str) -> Pgweir {
    let pgweir = start(&conf_with(cluster(), "5ms").size(size));
    warm_askers(&pgweir);
    warm_sql(&pgweir, &[&read_of(table)]);
    pgweir
}

/// A transaction that has the table for itself.
fn holder(port: u16, table: &str) -> Client {
    let mut holder = Client::connect(port);
    holder.query("BEGIN").unwrap();
    holder.query(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).unwrap();
    holder
}

/// Clients that ask for what is not locked, until told to stop.
struct Others {
    stop: AtomicBool,
    answers: AtomicU64,
    longest_us: AtomicU64,
}

impl Others {
    fn new() -> Self {
        Self { stop: AtomicBool::new(false), answers: AtomicU64::new(0), longest_us: AtomicU64::new(0) }
    }

    fn ask(&self, port: u16, number: usize) {
        let mut asker = Asker::new(port, number);
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            asker.ask(WAYS[asker.turn % 3]);
            self.note(began);
        }
    }

    /// The shape of those who are held up.
    fn ask_part(&self, port: u16) {
        let mut client = Client::connect(port);
        for id in (100..200).cycle() {
            let began = Instant::now();
            assert_eq!(client.value(&format!("SELECT v FROM part WHERE id = {id}")), format!("part {id}"));
            self.note(began);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn note(&self, began: Instant) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.longest_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// Waits until they have had so many more answers.
    fn go_on(&self, answers: u64) {
        let before = self.answers.load(Ordering::Relaxed);
        within(Duration::from_secs(20), "others have answers", || {
            self.answers.load(Ordering::Relaxed) >= before + answers
        });
    }

    fn assert_soon(&self) {
        let longest = Duration::from_micros(self.longest_us.load(Ordering::Relaxed));
        println!("{} answers, the latest after {longest:?}", self.answers.load(Ordering::Relaxed));
        assert!(longest < SOON, "one of the others had its answer after {longest:?}");
    }

    /// Stops them also where a test fails.
    fn stops(&self) -> Stops<'_> {
        Stops(&self.stop)
    }
}

struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Three readers wait for the lock, nobody else does, and who holds it reads on another connection.
#[test]
fn a_lock_holds_up_only_those_who_need_it() {
    let pgweir = begin(10, "guarded_1");
    warm_sql(&pgweir, &["SELECT v FROM part WHERE id = 150"]);
    let (port, others, before) = (pgweir.port(), Others::new(), Rides::of(&pgweir));
    let committed = AtomicBool::new(false);
    thread::scope(|scope| {
        let stops = others.stops();
        let mut second = Asker::new(port, 100);
        (0..12).for_each(|number| {
            let others = &others;
            scope.spawn(move || others.ask(port, number));
        });
        (0..4).for_each(|_| {
            scope.spawn(|| others.ask_part(port));
        });
        others.go_on(300);
        for round in 0..2 {
            committed.store(false, Ordering::SeqCst);
            let mut holder = holder(port, "guarded_1, part_1");
            let readers: Vec<_> =
                [read_of("guarded_1"), read_of("guarded_1"), "SELECT v FROM part WHERE id = 50".into()]
                    .into_iter()
                    .map(|sql| {
                        let committed = &committed;
                        scope.spawn(move || {
                            let value = Client::connect(port).value(&sql);
                            assert!(committed.load(Ordering::SeqCst), "read under the lock");
                            value
                        })
                    })
                    .collect();
            eventually("they wait", || {
                waiting_for(cluster(), "guarded_1") == 2 && waiting_for(cluster(), "part_1") == 1
            });
            others.go_on(500);
            (0..30).for_each(|turn| second.ask(WAYS[turn % 3]));
            assert_eq!(waiting_for(cluster(), "guarded_1"), 2, "in round {round}");
            committed.store(true, Ordering::SeqCst);
            holder.query("COMMIT").unwrap();
            let values: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            assert_eq!(values, ["guarded 7", "guarded 7", "part 50"]);
            others.go_on(100);
        }
        drop(stops);
    });
    others.assert_soon();
    let went = Rides::of(&pgweir).since(before);
    println!("{went:?}");
    assert!(went.rides > 500.0 && went.stalls > 0.0, "{went:?}");
}

/// With one server beside that of the transaction it serves all the others, the holder's second connection among them.
#[test]
fn one_server_is_left_and_serves_all() {
    let pgweir = begin(2, "guarded_2");
    let (port, others) = (pgweir.port(), Others::new());
    thread::scope(|scope| {
        let stops = others.stops();
        let mut second = Asker::new(port, 100);
        (0..8).for_each(|number| {
            let others = &others;
            scope.spawn(move || others.ask(port, number));
        });
        let mut holder = holder(port, "guarded_2");
        others.go_on(200);
        (0..30).for_each(|turn| second.ask(WAYS[turn % 3]));
        others.assert_soon();
        // From here on there is none for anybody.
        let reader = scope.spawn(move || Client::connect(port).value(&read_of("guarded_2")));
        eventually("it waits", || waiting_for(cluster(), "guarded_2") == 1);
        holder.query("COMMIT").unwrap();
        assert_eq!(reader.join().unwrap(), "guarded 7");
        others.go_on(200);
        drop(stops);
    });
}

/// Where there is one server at all, everybody waits for the transaction, and for nothing else.
#[test]
fn the_only_server_serves_all_in_turn() {
    let pgweir = begin(1, "guarded_3");
    let (port, others) = (pgweir.port(), Others::new());
    thread::scope(|scope| {
        let stops = others.stops();
        (0..8).for_each(|number| {
            let others = &others;
            scope.spawn(move || others.ask(port, number));
        });
        others.go_on(100);
        for _ in 0..5 {
            let mut holder = holder(port, "guarded_3");
            let reader = scope.spawn(move || Client::connect(port).value(&read_of("guarded_3")));
            holder.query("SELECT count(*) FROM guarded_3").unwrap();
            holder.query("COMMIT").unwrap();
            assert_eq!(reader.join().unwrap(), "guarded 7");
            others.go_on(50);
        }
        drop(stops);
    });
}
