//! Whether pgweir's books agree: with themselves every second, and with PostgreSQL and with nothing at all in the end.
//! It must never be satisfied with figures of before the chaos.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::metrics::{Sample, parse};
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::eventually;

/// Figures of all pools together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Books {
    pub active: u64,
    pub idle: u64,
    pub connecting: u64,
    pub total: u64,
    pub clients_active: u64,
    pub clients_waiting: u64,
    pub clients_idle: u64,
    pub opens: u64,
    pub open_failures: u64,
    pub closes: u64,
    pub panics: u64,
}

impl Books {
    /// As `/metrics` has them now.
    pub fn of(pgweir: &Pgweir) -> Self {
        let samples = parse(&pgweir.metrics().unwrap()).unwrap();
        let sum = |name: &str, state: &str| {
            let fits = |sample: &&Sample| sample.name == name && (state.is_empty() || sample.label("state") == state);
            samples.iter().filter(fits).map(|sample| sample.value).sum::<f64>() as u64
        };
        Self {
            active: sum("pgweir_pool_servers", "active"),
            idle: sum("pgweir_pool_servers", "idle"),
            connecting: sum("pgweir_pool_servers", "connecting"),
            total: sum("pgweir_pool_server_connections", ""),
            clients_active: sum("pgweir_pool_clients", "active"),
            clients_waiting: sum("pgweir_pool_clients", "waiting"),
            clients_idle: sum("pgweir_pool_clients", "idle"),
            opens: sum("pgweir_pool_server_opens_total", ""),
            open_failures: sum("pgweir_pool_server_open_failures_total", ""),
            closes: sum("pgweir_pool_server_closes_total", ""),
            panics: sum("pgweir_panics_total", ""),
        }
    }

    /// Nobody is there, and no server does anything.
    fn is_quiet(&self) -> bool {
        let clients = self.clients_active + self.clients_waiting + self.clients_idle;
        (clients, self.active, self.connecting) == (0, 0, 0)
    }
}

/// Looks at the books every second until `stop`; `servers` is the pools' size, `clients` the most there can be.
pub fn watch(pgweir: &Pgweir, servers: u64, clients: u64, stop: &AtomicBool) {
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        // Figures are read one by one while they change: what is wrong must stay wrong to be wrong.
        let mut wrong = None;
        let right = (0..10).any(|_| {
            let books = Books::of(pgweir);
            assert_eq!(books.panics, 0);
            let known = books.clients_active + books.clients_waiting + books.clients_idle;
            let sum = books.active + books.idle + books.connecting;
            let holds = books.total == sum && books.total <= servers && known <= clients;
            wrong = (!holds).then_some(books);
            holds
        });
        assert!(right, "{servers} servers, {clients} clients at most: {wrong:?}");
        looks += 1;
        // Not a wait for anything: the interval of the looks.
        thread::sleep(Duration::from_millis(if crate::is_long() { 1000 } else { 200 }));
    }
    assert!(looks > 0);
}

/// When all clients have left everything rests, and PostgreSQL has as many connections as pgweir believes.
pub fn assert_at_rest(pgweir: &Pgweir, cluster: &Cluster) {
    let mut books = Books::of(pgweir);
    eventually(&format!("everything rests: {books:?}"), || {
        books = Books::of(pgweir);
        books.is_quiet()
    });
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND pid <> pg_backend_pid()");
    let theirs = || cluster.primary().value_in("postgres", &sql).unwrap().parse::<u64>().unwrap();
    eventually("PostgreSQL agrees", || {
        books = Books::of(pgweir);
        theirs() == books.idle && books.is_quiet()
    });
    assert_eq!(books.opens - books.closes, books.idle, "{books:?}");
    let busy = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND state <> 'idle'");
    assert_eq!(cluster.primary().value_in("postgres", &busy).unwrap(), "0");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(cluster.primary().value_in("postgres", locks).unwrap(), "0");
}

/// Holds a lock on what clients read, again and again: who rides behind such a read must not wait for it.
pub fn lock(cluster: &Cluster, until: Instant) {
    let sql = "BEGIN; LOCK TABLE seen IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.03); COMMIT";
    let mut client = None;
    while Instant::now() < until {
        // It may be killed, as everybody may.
        if client.is_none() {
            client = cluster.primary().admin(DATABASE).ok();
        }
        if client.as_mut().is_some_and(|client| client.query(sql).is_err()) {
            client = None;
        }
        thread::sleep(Duration::from_millis(100));
    }
}
