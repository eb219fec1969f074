//! Servers that are found out, by DNS or from Patroni, and change while clients work: none of them notices.
//! It must never tell pgweir anything but through whom it asks.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually, metric};
use crate::{mark, runs, until_read};
use integration::port::Port;
use integration::wire::Script;
use integration::{Cluster, DATABASE, Names, Pgweir, Postgres, Stop};

const NAME: &str = "pg.test";

/// A primary on 127.0.0.1 and replicas behind it, all on one port; each logs every statement.
fn start_cluster(replicas: usize) -> Cluster {
    let sql =
        "CREATE TABLE fish (id int PRIMARY KEY, size int); INSERT INTO fish SELECT n, 0 FROM generate_series(0, 9) n;
        GRANT ALL ON ALL TABLES IN SCHEMA public TO app";
    Cluster::builder().replicas(replicas).one_port().setting("log_statement", "all").sql(sql).start().unwrap()
}

/// Servers that a name has.
fn name(names: &Names, servers: &[&Postgres]) {
    let pairs: Vec<_> = servers.iter().map(|server| (server.host().to_string(), NAME)).collect();
    names.set(&pairs).unwrap();
}

fn conf(discover: &str) -> Conf {
    Conf::database_only(&format!("discover = [{discover}]\n"))
        .listen("auth_type = \"trust\"")
        .user("app", "")
        .pool("discover_interval = \"200ms\"")
        .size(4)
}

/// pgweir that sees these names only, and asks for [`NAME`].
fn start(names: &Names, cluster: &Cluster, more: &str) -> Pgweir {
    let conf = conf(&format!("\"dns://{NAME}:{}\"", cluster.primary().port())).database(more);
    let (port, stats_port) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    Pgweir::start_after(&names.script(), &conf.text(), port, stats_port).unwrap()
}

/// What pgweir takes a server for; `None` if it is none of its servers.
fn role(pgweir: &Pgweir, server: &Postgres) -> Option<&'static str> {
    let is = |role: &&str| metric(pgweir, "pgweir_host_role", &[("host", &server.address()), ("role", role)]) == 1.0;
    ["primary", "standby", "stale", "down", "unknown"].into_iter().find(is)
}

fn until_role(pgweir: &Pgweir, server: &Postgres, wished: Option<&str>) {
    eventually(&format!("{} is {wished:?}", server.name()), || role(pgweir, server) == wished);
}

/// How often other servers have taken effect.
fn changes(pgweir: &Pgweir) -> usize {
    pgweir.log().matches("INFO the servers are ").count()
}

/// Clients that work until told to stop; each writes into a row of its own and reads what it wrote.
struct Crowd {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Crowd {
    fn start(port: u16, writes: bool) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let work = |number: u64| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let mut client = Client::connect(port);
                let parse = Script::new().parse("own", &format!("SELECT size FROM fish WHERE id = {number}")).sync();
                outcome(&client.run(&parse)).unwrap();
                let mut turn = 0;
                while !over.load(Ordering::Relaxed) {
                    turn += 1;
                    if writes && turn % 4 == 1 {
                        client.query(&format!("UPDATE fish SET size = {turn} WHERE id = {number}")).unwrap();
                    }
                    let wrote = if writes { turn - (turn - 1) % 4 } else { 0 };
                    let rows = match turn % 2 {
                        0 => client.query(&format!("SELECT size FROM fish WHERE id = {number}")),
                        _ => outcome(&client.run(&Script::new().bind("", "own", &[]).execute("", 0).sync())),
                    };
                    assert_eq!(rows.unwrap(), [[wrote.to_string()]], "{number}");
                }
                turn
            })
        };
        Self { threads: (0..4).map(work).collect(), over }
    }

    /// Every one of them has done something, and met no error.
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let turns: Vec<u64> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(turns.iter().all(|turns| *turns > 10), "{turns:?}");
    }
}

/// Reads go there.
fn until_it_is_read(cluster: &Cluster, pgweir: &Pgweir, number: usize, title: &str) {
    let mark = mark(&format!("{title} {}", pgweir.port()));
    eventually(title, || {
        Client::connect(pgweir.port()).query(&format!("SELECT 1 {mark}")).unwrap();
        runs(cluster, &mark)[number] > 0
    });
}

#[test]
fn servers_that_a_name_resolves_to_come_and_go() {
    let (cluster, names) = (start_cluster(2), Names::new().unwrap());
    let nodes: Vec<&Postgres> = cluster.nodes().collect();
    name(&names, &nodes[..2]);
    let pgweir = start(&names, &cluster, "");
    let crowd = Crowd::start(pgweir.port(), true);
    // One that only waits, and one in the middle of a transaction.
    let (mut idle, mut open) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    idle.query("SET application_name = 'idle'").unwrap();
    open.query("BEGIN").unwrap();
    open.query("UPDATE fish SET size = 1 WHERE id = 8").unwrap();
    until_role(&pgweir, nodes[1], Some("standby"));
    // One more; and in another order they are the same.
    name(&names, &[nodes[2], nodes[1], nodes[0]]);
    until_it_is_read(&cluster, &pgweir, 2, "the new one is read");
    assert_eq!(changes(&pgweir), 2);
    name(&names, &nodes);
    open.query("COMMIT").unwrap();
    // One is taken away, and is no more.
    name(&names, &[nodes[0], nodes[2]]);
    until_role(&pgweir, nodes[1], None);
    assert_eq!(changes(&pgweir), 3);
    nodes[1].stop(Stop::Fast).unwrap();
    // Nobody knows the name any more: they stay.
    names.set(&[]).unwrap();
    eventually("it is told", || pgweir.log().contains("the servers stay who they were"));
    until_it_is_read(&cluster, &pgweir, 2, "it is still read");
    name(&names, &[nodes[0], nodes[2]]);
    eventually("it is told that they are known", || pgweir.log().contains("it is known again who the servers are"));
    crowd.end();
    assert_eq!(idle.value("SHOW application_name"), "idle");
    assert_eq!(idle.value("SELECT size FROM fish WHERE id = 8"), "1");
    assert_eq!(changes(&pgweir), 3);
}

/// The primary dies and its address with it; who waited for it goes on with a standby that was added later. When the old one comes
/// back it is not believed.
#[test]
fn a_server_that_was_added_takes_over() {
    let (cluster, names) = (start_cluster(2), Names::new().unwrap());
    let nodes: Vec<&Postgres> = cluster.nodes().collect();
    name(&names, &nodes[..2]);
    let pgweir = start(&names, &cluster, "");
    let crowd = Crowd::start(pgweir.port(), false);
    let mut writer = Client::connect(pgweir.port());
    writer.query("UPDATE fish SET size = 5 WHERE id = 9").unwrap();
    name(&names, &nodes);
    until_role(&pgweir, nodes[2], Some("standby"));
    cluster.wait_caught_up().unwrap();
    nodes[0].stop(Stop::Immediate).unwrap();
    until_role(&pgweir, nodes[0], Some("down"));
    writer.send(&Script::new().query("UPDATE fish SET size = 6 WHERE id = 9"));
    // Newcomers too.
    let mut newcomer = Client::tcp(pgweir.port());
    newcomer.startup(0, &[("application_name", "new")]);
    eventually("they wait", || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) >= 2.0);
    name(&names, &nodes[1..]);
    until_role(&pgweir, nodes[0], None);
    nodes[2].promote().unwrap();
    let promoted = Instant::now();
    outcome(&writer.ready(1)).unwrap();
    newcomer.welcome().unwrap();
    assert!(promoted.elapsed() < Duration::from_secs(2), "{:?}", promoted.elapsed());
    let size = |server: &Postgres| server.value_in(DATABASE, "SELECT size FROM fish WHERE id = 9").unwrap();
    assert_eq!(size(nodes[2]), "6");
    nodes[0].start().unwrap();
    name(&names, &nodes);
    until_role(&pgweir, nodes[0], Some("stale"));
    for size in 10..30 {
        writer.query(&format!("UPDATE fish SET size = {size} WHERE id = 9")).unwrap();
    }
    crowd.end();
    assert_eq!((size(nodes[2]), size(nodes[0])), ("29".into(), "5".into()));
    assert_eq!(role(&pgweir, nodes[2]), Some("primary"));
}

/// It began when the one that takes the place of its server was not known yet.
#[test]
fn a_transaction_does_not_outlive_its_primary() {
    let (cluster, names) = (start_cluster(2), Names::new().unwrap());
    let nodes: Vec<&Postgres> = cluster.nodes().collect();
    name(&names, &nodes[..2]);
    let pgweir = start(&names, &cluster, "");
    let mut open = Client::connect(pgweir.port());
    open.query("BEGIN").unwrap();
    open.query("UPDATE fish SET size = 7 WHERE id = 9").unwrap();
    name(&names, &nodes[1..]);
    until_role(&pgweir, nodes[0], None);
    // Its own server is well, and nobody has asked it to go.
    assert_eq!(open.value("SELECT size FROM fish WHERE id = 9"), "7");
    let mut other = Client::tcp(pgweir.port());
    other.startup(0, &[]);
    nodes[2].promote().unwrap();
    other.welcome().unwrap();
    other.query("UPDATE fish SET size = 8 WHERE id = 9").unwrap();
    eventually("it hears", || open.query("SELECT 1").is_err());
    assert_eq!(nodes[0].value_in(DATABASE, "SELECT size FROM fish WHERE id = 9").unwrap(), "0");
}

/// pgweir starts whatever the name resolves to. A single server is asked what it is, too. Certificates have to have the name, not the
/// address.
#[test]
fn clients_wait_for_a_first_server() {
    let cluster = Cluster::builder().replicas(1).one_port().tls(true).start().unwrap();
    let names = Names::new().unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let pgweir = start(&names, &cluster, "");
    assert!(pgweir.log().contains("no server is known yet, clients have to wait"), "{}", pgweir.log());
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[]);
    let waiting = || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]);
    eventually("it waits", || waiting() == 1.0);
    name(&names, &[replica]);
    until_role(&pgweir, replica, Some("standby"));
    assert_eq!(waiting(), 1.0);
    name(&names, &[replica, primary]);
    client.welcome().unwrap();
    client.query("CREATE TABLE here ()").unwrap();

    let ca = cluster.certificates().unwrap().ca.display().to_string();
    let tls = format!("server_tls_sslmode = \"verify-full\"\nserver_tls_ca_file = \"{ca}\"");
    let pairs = [primary, replica].map(|server| server.host().to_string());
    let [one, two] = &pairs;
    names.set(&[one, two].map(|it| (it.clone(), "localhost"))).unwrap();
    let conf = conf(&format!("\"dns://localhost:{}\"", primary.port())).database(&tls);
    let (port, stats_port) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let right = Pgweir::start_after(&names.script(), &conf.text(), port, stats_port).unwrap();
    until_it_is_known(&right, replica);
    let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(Client::connect(right.port()).value(ssl), "t");
    names.set(&[(one.clone(), NAME)]).unwrap();
    let wrong = start(&names, &cluster, &tls);
    let mut client = Client::tcp(wrong.port());
    client.startup(0, &[]);
    let said = crate::common::client::said(&client.welcome().unwrap_err());
    assert!(said.contains("certificate"), "{said}");
}

fn until_it_is_known(pgweir: &Pgweir, standby: &Postgres) {
    // Nobody is asked before somebody comes.
    drop(Client::connect(pgweir.port()));
    until_role(pgweir, standby, Some("standby"));
}

/// Patroni's REST API as far as it is asked.
struct Api {
    port: u16,
    /// What it says; nothing: it closes the connection.
    says: Arc<Mutex<Option<String>>>,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, says) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(None::<String>)));
        let answer = Arc::clone(&says);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                if let Some(body) = &*answer.lock().unwrap() {
                    let head = "HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n\r\n";
                    let _ = stream.write_all(format!("{head}{body}").as_bytes());
                }
            }
        });
        Self { port, says }
    }

    fn url(&self) -> String {
        format!("\"http://127.0.0.1:{}\"", self.port)
    }

    fn says(&self, text: Option<String>) {
        *self.says.lock().unwrap() = text;
    }
}

/// Members as Patroni 4.1.5 lists a leader, and replicas by their states.
fn members(servers: &[(&Postgres, &str, &str)]) -> Option<String> {
    let member = |(server, state, tags): &(&Postgres, &str, &str)| {
        let (name, port) = (server.name(), server.port());
        let role = if *state == "running" { "leader" } else { "replica" };
        format!(
            r#"{{"name": "{name}", "role": "{role}", "state": "{state}", "api_url": "http://127.0.0.1:8008/patroni", "host": "127.0.0.1", "port": {port}, "timeline": 1{tags}, "receive_lag": 0, "receive_lsn": "0/4000060", "replay_lag": 0, "replay_lsn": "0/4000060", "lag": 0, "lsn": "0/4000060"}}"#
        )
    };
    let members = servers.iter().map(member).collect::<Vec<_>>().join(", ");
    Some(format!(r#"{{"members": [{members}], "scope": "batman"}}"#))
}

#[test]
fn patroni_says_who_the_members_are_and_nothing_else() {
    let cluster = crate::start_cluster();
    let nodes: Vec<&Postgres> = cluster.nodes().collect();
    let (gone, api) = (Api::start(), Api::start());
    let no_reads = r#", "tags": {"noloadbalance": true}"#;
    // What it says of roles is not believed.
    api.says(members(&[(nodes[1], "running", ""), (nodes[0], "streaming", ""), (nodes[2], "stopped", no_reads)]));
    let pgweir = conf(&format!("{}, {}", gone.url(), api.url())).start();
    let mut client = Client::connect(pgweir.port());
    client.query("INSERT INTO fish VALUES (101)").unwrap();
    until_role(&pgweir, nodes[0], Some("primary"));
    until_role(&pgweir, nodes[2], Some("standby"));
    let reads = |title: &str, count: usize| {
        let mark = mark(&format!("{title} {}", pgweir.port()));
        (0..count).for_each(|_| drop(Client::connect(pgweir.port()).query(&format!("SELECT 1 {mark}")).unwrap()));
        runs(&cluster, &mark)
    };
    until_read(&cluster, &mut client, "a replica", |runs| runs[1] > 0);
    let counts = reads("without the third", 20);
    assert!(counts[1] > 0 && counts[2] == 0, "{counts:?}");
    // Without the tag it takes its share, in the same pools: it is the same database.
    let opens = |server: &Postgres| metric(&pgweir, "pgweir_pool_server_opens_total", &[("host", &server.address())]);
    let before = opens(nodes[0]);
    api.says(members(&[(nodes[0], "running", ""), (nodes[1], "streaming", ""), (nodes[2], "streaming", "")]));
    eventually("it is read", || reads("with the third", 5)[2] > 0);
    assert_eq!(opens(nodes[0]), before);
    // Nobody answers, and then with what is no answer: they stay.
    api.says(None);
    eventually("it is told", || pgweir.log().contains("the servers stay who they were"));
    api.says(Some(r#"{"members": [], "scope": "batman"}"#.into()));
    assert!(reads("while nobody tells", 20)[2] > 0);
    // The leader is lost, and Patroni still lists it.
    nodes[0].stop(Stop::Immediate).unwrap();
    nodes[1].promote().unwrap();
    client.query("INSERT INTO fish VALUES (102)").unwrap();
    assert_eq!(role(&pgweir, nodes[1]), Some("primary"));
    assert_eq!(changes(&pgweir), 2);
}
