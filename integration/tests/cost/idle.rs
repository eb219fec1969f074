//! Memory of clients that do nothing.
//! It must never hold anything of a client here that could be mistaken for pgweir's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use integration::Pgweir;
use integration::wire::Script;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::client::startup;
use crate::{conf, memory};

/// Clients measured.
const CLIENTS: usize = 2_000;
/// Clients before them, who fill what was free.
const WARM: usize = 2_000;
/// Most private memory per idle plain client, in bytes.
pub const BYTES: u64 = 2_300;

/// Memory that the process alone has written to, in bytes. Pages of the program count as private, and clean, as soon as
/// no other pgweir runs: they are nobody's.
pub fn private(pgweir: &Pgweir) -> u64 {
    memory(pgweir, "smaps_rollup", "Private_Dirty")
}

fn ready(socket: &mut TcpStream) {
    let mut heard = Vec::new();
    let mut chunk = [0; 4096];
    while !heard.ends_with(b"Z\0\0\0\x05I") {
        let count = socket.read(&mut chunk).unwrap();
        assert!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&chunk[..count]);
    }
}

/// A client that has logged in and is never heard of again.
pub fn connect(pgweir: &Pgweir) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", pgweir.port())).unwrap();
    socket.write_all(&startup(0, &[])).unwrap();
    ready(&mut socket);
    socket
}

/// Allows this process, and those it starts, as many descriptors as there may be. Tests that need thousands of them
/// take turns: the limit is one for all.
pub fn many_descriptors() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    turn
}

#[test]
fn an_idle_client_is_small() {
    let _turn = many_descriptors();
    let pgweir = conf().size(5).start();
    let ask = |socket: &mut TcpStream| {
        socket.write_all(Script::new().query("SELECT 1").bytes()).unwrap();
        ready(socket);
    };
    // What there is once: pools, buffers, code that was not loaded yet, and memory that was used and freed while starting.
    let mut clients: Vec<TcpStream> = (0..WARM).map(|_| connect(&pgweir)).collect();
    clients.iter_mut().for_each(ask);
    let before = private(&pgweir);
    clients.extend((0..CLIENTS).map(|_| connect(&pgweir)));
    let each = |now: u64| now.saturating_sub(before) / CLIENTS as u64;
    let fresh = each(private(&pgweir));
    clients.iter_mut().for_each(ask);
    let used = each(private(&pgweir));
    println!("{fresh} bytes per client, {used} after a query");
    assert!(fresh <= BYTES, "{fresh} bytes per client");
    assert!(used <= BYTES, "{used} bytes per client after a query");
}
