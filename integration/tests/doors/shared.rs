//! Several instances on one port: a cancel request reaches the one it is meant for, and is passed on once.
//! It must never be left to chance which instance a test speaks to, except where that is the point.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::client::{cancel_request, said};
use crate::common::{Client, Conf, eventually, metric};
use crate::{await_running, cluster, conf, folder};
use integration::port::Port;
use integration::wire::Script;
use integration::{DATABASE, Pgweir, Signal, USER};
use rustix::process::{Pid, kill_process};

/// Instances on one port of 127.0.0.1, each with an address of its own besides: 127.0.0.2, 127.0.0.3, …
struct Instances {
    port: Port,
    all: Vec<Pgweir>,
}

fn own_address(instance: usize, port: &Port) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1 + instance as u8], port.number()))
}

/// Instance `number` (from 1) with these peers.
fn instance(number: usize, port: &Port, peers: &str) -> Conf {
    let address = own_address(number, port).ip();
    let lines = format!("address = [\"127.0.0.1\", \"{address}\"]\nso_reuseport = true\ninstance_id = {number}");
    conf().listen(&lines).rest(&format!("[log]\nlevel = \"debug\"\n{peers}"))
}

impl Instances {
    fn start(count: usize) -> Self {
        let port = Port::reserve().unwrap();
        // The third is known to its peers by its unix socket.
        let directory = folder();
        let address = |number| match number {
            3 => format!("{}:{}", directory.display(), port.number()),
            _ => own_address(number, &port).to_string(),
        };
        let peer = |number| format!("[peers.{number}]\naddress = \"{}\"\n", address(number));
        let peers: String = (1..=count).map(peer).collect();
        let socket = format!("unix_socket_dir = \"{}\"", directory.display());
        let start = |number| {
            let conf = instance(number, &port, &peers);
            let conf = if number == 3 { conf.listen(&socket) } else { conf };
            Pgweir::start_on(&conf.text(), port.clone(), Port::reserve().unwrap()).unwrap()
        };
        let all = (1..=count).map(start).collect();
        Self { port, all }
    }

    /// A connection to this very instance.
    fn at(&self, number: usize) -> Client {
        Client::at(own_address(number, &self.port))
    }
}

fn cancel(mut carrier: Client, request: &[u8]) {
    carrier.write(request);
    assert_eq!(carrier.read_to_end(), b"");
}

fn cancels(pgweir: &Pgweir) -> f64 {
    metric(pgweir, "pgweir_pool_cancels_total", &[])
}

#[test]
fn a_request_reaches_its_instance_through_any_other() {
    let instances = Instances::start(3);
    for (home, through, minor) in [(1, 2, 0), (2, 1, 2), (3, 1, 2), (3, 2, 0), (1, 3, 0), (2, 2, 2)] {
        let mut client = instances.at(home);
        client.startup(minor, &[]);
        client.welcome().unwrap();
        assert_eq!(client.key.len(), if minor == 0 { 8 } else { 36 });
        let marker = format!("{home} through {through}");
        client.send(&Script::new().query(&format!("SELECT pg_sleep(50) /* {marker} */")));
        await_running(&marker);
        let request = client.cancel_request();
        cancel(instances.at(through), &request);
        let frames = client.ready(1);
        assert!(said(&frames[1]).starts_with("57014"), "{marker}");
        // The carrier was held until it was over: the next query is safe.
        assert_eq!(client.query("SELECT 'safe' FROM pg_sleep(0.01)"), Ok(vec![vec!["safe".to_string()]]));
    }
}

/// In session mode a client is told the process of its server: the secret says which instance it is with.
#[test]
fn a_request_of_a_session_reaches_its_instance_through_any_other() {
    let port = Port::reserve().unwrap();
    let peers: String = (1..=2).map(|n| format!("[peers.{n}]\naddress = \"{}\"\n", own_address(n, &port))).collect();
    let start = |number| {
        let conf = instance(number, &port, &peers).pool("pool_mode = \"session\"");
        Pgweir::start_on(&conf.text(), port.clone(), Port::reserve().unwrap()).unwrap()
    };
    let _all = [start(1), start(2)];
    for (home, through, minor) in [(1, 2, 0), (2, 1, 2), (2, 2, 0), (1, 2, 2)] {
        let mut client = Client::at(own_address(home, &port));
        client.startup(minor, &[]);
        client.welcome().unwrap();
        assert!(u32::from_be_bytes(client.key[..4].try_into().unwrap()) <= 1 << 22);
        let marker = format!("session {home} through {through}, {minor}");
        client.send(&Script::new().query(&format!("SELECT pg_sleep(50) /* {marker} */")));
        await_running(&marker);
        cancel(Client::at(own_address(through, &port)), &client.cancel_request());
        assert!(said(&client.ready(1)[1]).starts_with("57014"), "{marker}");
    }
}

/// Ctrl-C in psql, whose request comes to any of the instances on the port.
#[test]
fn psql_cancels_on_a_shared_port() {
    let instances = Instances::start(2);
    let port = instances.port.number().to_string();
    let mut homes = [0; 2];
    for round in 0..40 {
        let before: Vec<f64> =
            instances.all.iter().map(|pgweir| metric(pgweir, "pgweir_accepted_connections_total", &[])).collect();
        let mut command = integration::command("psql").unwrap();
        command.args(["-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", USER, "-d", DATABASE]);
        let marker = format!("psql {round}");
        command.args(["-c", &format!("SELECT pg_sleep(50) /* {marker} */")]).env("PGSSLMODE", "disable");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        await_running(&marker);
        for (at, pgweir) in instances.all.iter().enumerate() {
            homes[at] += (metric(pgweir, "pgweir_accepted_connections_total", &[]) - before[at]) as u32;
        }
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(said.contains("canceling statement due to user request"), "{said}");
        let passed_on = instances.all.iter().any(|pgweir| pgweir.log().contains("cancel request passed on"));
        if passed_on && homes.iter().all(|&count| count > 0) {
            return;
        }
    }
    panic!("in 40 rounds no request came to the wrong instance; sessions by instance: {homes:?}");
}

/// Peers that point to each other or to themselves: a request is passed on once, and everything ends.
#[test]
fn no_request_goes_in_circles() {
    let port = Port::reserve().unwrap();
    let peers = |first: usize, second: usize| {
        let peer = |number, at| format!("[peers.{number}]\naddress = \"{}\"\n", own_address(at, &port));
        peer(9, first) + &peer(10, second)
    };
    // Both believe that the other is 9, and each that it is itself 10.
    let one = instance(1, &port, &peers(2, 1));
    let two = instance(2, &port, &peers(1, 2));
    let start = |conf: &Conf| Pgweir::start_on(&conf.text(), port.clone(), Port::reserve().unwrap()).unwrap();
    let all = [start(&one), start(&two)];
    let passed_on = || all.iter().map(|pgweir| pgweir.log().matches("cancel request passed on").count()).sum::<usize>();
    for instance in [9u32, 10] {
        let key = [&(1 << 25 | instance << 19 | 1).to_be_bytes()[..], &[1, 2, 3, 4]].concat();
        cancel(Client::at(own_address(1, &port)), &cancel_request(&key));
    }
    assert_eq!(passed_on(), 2, "each once");
    // One that claims to be passed on is answered by the letter that instances understand, and goes no further.
    let mut carrier = Client::at(own_address(1, &port));
    carrier.write(&cancel_request(&[&(1u32 << 31 | 1 << 25 | 9 << 19 | 1).to_be_bytes()[..], &[1, 2, 3, 4]].concat()));
    assert_eq!(carrier.read_to_end(), b"N");
    assert_eq!(passed_on(), 2);
}

/// An instance nobody knows, one that is not there, and keys that only look right.
#[test]
fn requests_for_nobody_end() {
    let port = Port::reserve().unwrap();
    let gone = Port::reserve().unwrap();
    let peers = format!("[peers.7]\naddress = \"127.0.0.1:{}\"\n", gone.number());
    let conf = instance(1, &port, &peers);
    let pgweir = Pgweir::start_on(&conf.text(), port.clone(), Port::reserve().unwrap()).unwrap();
    let mut client = Client::at(own_address(1, &port));
    client.startup(0, &[]);
    client.welcome().unwrap();
    client.send(&Script::new().query("SELECT 'done' FROM pg_sleep(1) /* untouched */"));
    await_running("untouched");
    let pid = u32::from_be_bytes(client.key[..4].try_into().unwrap());
    assert_eq!(pid >> 19 & 63, 1, "the instance is in the key");
    for other in
        [pid ^ (1 << 19), pid & !(63 << 19) | 7 << 19, pid & !(63 << 19) | 8 << 19, pid | 63 << 25, 0, u32::MAX]
    {
        let key = [&other.to_be_bytes()[..], &client.key[4..]].concat();
        let mut carrier = Client::at(own_address(1, &port));
        carrier.write(&cancel_request(&key));
        let _ = carrier.read_to_end();
    }
    assert_eq!(crate::common::client::outcome(&client.ready(1)), Ok(vec![vec!["done".to_string()]]));
    assert_eq!(cancels(&pgweir), 0.0);
    eventually("the log tells of the peer", || {
        pgweir.log().contains("could not pass a cancel request on to instance 7")
    });
}

/// That a request was passed on anybody can say: the budget for wrong keys is larger for those only who come from where
/// an instance is.
#[test]
fn wrong_keys_count_for_who_sent_them() {
    let wrong = cancel_request(&[&(1u32 << 31 | 1 << 25 | 1 << 19 | 7).to_be_bytes()[..], &[1, 2, 3, 4]].concat());
    let answered = |peer: &str| {
        let port = Port::reserve().unwrap();
        let conf = instance(1, &port, &format!("[peers.7]\naddress = \"{peer}\"\n"));
        let pgweir = Pgweir::start_on(&conf.text(), port.clone(), Port::reserve().unwrap()).unwrap();
        let started = std::time::Instant::now();
        let mut answered = 0;
        for _ in 0..200 {
            let mut carrier = Client::at(own_address(1, &port));
            carrier.write(&wrong);
            answered += u64::from(carrier.read_to_end() == b"N");
        }
        (answered, 50 + 10 * (started.elapsed().as_secs() + 1), pgweir.log().contains("too many wrong keys"))
    };
    for peer in ["127.0.0.9:1", "localhost:1"] {
        assert_eq!(answered(peer).0, 200, "{peer}");
    }
    let (count, most, told) = answered("10.255.255.1:1");
    assert!((50..=most).contains(&count) && told, "{count} were looked at, {most} may be");
}

/// Requests through another instance, one after the other, never hit the client that has the server next.
#[test]
fn a_request_passed_on_never_hits_the_next_client() {
    let instances = Instances::start(2);
    let mut victim = instances.at(1);
    victim.startup(2, &[]);
    victim.welcome().unwrap();
    let request = victim.cancel_request();
    let address = own_address(2, &instances.port);
    let enough = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&enough);
    let canceller = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            cancel(Client::at(address), &request);
        }
    });
    let mut bystander = instances.at(1);
    bystander.startup(0, &[]);
    bystander.welcome().unwrap();
    let mut cancelled = 0;
    eventually("some were cancelled", || {
        assert_eq!(bystander.query("SELECT 'mine' FROM pg_sleep(0.001)"), Ok(vec![vec!["mine".to_string()]]));
        match victim.query("SELECT 1 FROM pg_sleep(0.003)") {
            Ok(_) => {}
            Err(error) if error.starts_with("57014") => cancelled += 1,
            Err(error) => panic!("{error}"),
        }
        cancelled >= 20
    });
    enough.store(true, Ordering::Relaxed);
    canceller.join().unwrap();
    let left = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(0.00%' AND pid <> pg_backend_pid()";
    eventually("nothing runs on", || cluster().primary().value_in("postgres", left).unwrap() == "0");
}

/// Clients have keys with the number they were given: it stays until the process ends.
#[test]
fn a_reload_changes_no_keys() {
    let port = Port::reserve().unwrap();
    let conf = instance(1, &port, "");
    let pgweir = Pgweir::start_on(&conf.text(), port.clone(), Port::reserve().unwrap()).unwrap();
    let instance_of = |client: &Client| u32::from_be_bytes(client.key[..4].try_into().unwrap()) >> 25;
    let mut before = Client::connect(port.number());
    assert_eq!(instance_of(&before), 1);
    pgweir.reload(&conf.text().replace("instance_id = 1", "instance_id = 5")).unwrap();
    eventually("it was read", || metric(&pgweir, "pgweir_config_reloads_total", &[("outcome", "ok")]) == 1.0);
    assert!(pgweir.log().contains("`instance_id` has changed; that takes effect at the next start"));
    assert_eq!(instance_of(&Client::connect(port.number())), 1);
    before.send(&Script::new().query("SELECT pg_sleep(50) /* before the reload */"));
    await_running("before the reload");
    cancel(Client::tcp(port.number()), &before.cancel_request());
    assert!(said(&before.ready(1)[1]).starts_with("57014"));
}
