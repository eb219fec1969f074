//! Messages as large as PostgreSQL makes them: they stream through, and memory stays bounded.
//! It must never hold such a message here: what is not pgweir's must leave room for it.
//!
//! 256 MB; with `PGWEIR_LONG=1` nearly 1 GB, PostgreSQL's own limit for a value.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use integration::Pgweir;
use integration::wire::Script;

use crate::common::client::startup;
use crate::common::{Client, eventually};
use crate::{cluster, conf, memory};

/// How much pgweir may grow, whatever the size: for each direction a backlog of 192 KiB and what is held back for looking, 256 KiB,
/// doubled as vectors grow, and room for what the allocator keeps.
const GROWTH: u64 = 4 << 20;

fn size() -> usize {
    // MaxAllocSize is 1 GB - 1 (utils/memutils.h), and a row has a header and, in COPY, a newline.
    if std::env::var_os("PGWEIR_LONG").is_some() { (1 << 30) - 4096 } else { 256 << 20 }
}

/// A socket that reads and counts without keeping.
struct Reader(TcpStream);

impl Reader {
    fn connect(pgweir: &Pgweir) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", pgweir.port())).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.write_all(&startup(0, &[])).unwrap();
        let mut reader = Self(socket);
        while reader.message(|_| {}).0 != b'Z' {}
        reader
    }

    /// Type and length of the next message; its body goes to `taste` in pieces.
    fn message(&mut self, mut taste: impl FnMut(&[u8])) -> (u8, usize) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let [tag, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize - 4;
        let (mut left, mut chunk) = (length, vec![0; 1 << 20]);
        while left > 0 {
            let most = left.min(chunk.len());
            let count = self.0.read(&mut chunk[..most]).unwrap();
            assert!(count > 0, "the connection ended in the middle of a message");
            taste(&chunk[..count]);
            left -= count;
        }
        (tag, length)
    }

    /// Messages up to ReadyForQuery as types and lengths; a body must be of one kind of byte after `skip` bytes.
    fn all(&mut self, big: usize, byte: u8) -> Vec<(u8, usize)> {
        let mut seen = Vec::new();
        loop {
            let mut wrong = 0usize;
            let mut at = 0;
            let (tag, length) = self.message(|piece| {
                // Six bytes of a DataRow are its head; a newline ends a line of COPY.
                wrong += piece.iter().filter(|&&one| one != byte).count();
                at += piece.len();
            });
            if length >= big {
                assert!(wrong <= 6, "{wrong} bytes of {length} are not {:?}", char::from(byte));
            }
            seen.push((tag, length));
            if tag == b'Z' {
                return seen;
            }
        }
    }
}

fn await_stuck(marker: &str) {
    let sql = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%/* {marker} */%' AND wait_event = 'ClientWrite'
         AND pid <> pg_backend_pid()"
    );
    eventually("the server waits for its reader", || cluster().primary().value_in("postgres", &sql).unwrap() == "t");
}

/// Resident memory before anything large.
fn rest(pgweir: &Pgweir) -> u64 {
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.value("SELECT length(repeat('x', 200000))"), "200000");
    assert_eq!(client.value("SELECT repeat('x', 400000)").len(), 400_000);
    memory(pgweir, "status", "VmRSS")
}

fn assert_bounded(pgweir: &Pgweir, before: u64) {
    let peak = memory(pgweir, "status", "VmHWM");
    assert!(peak < before + GROWTH, "{before} bytes before, {peak} at most since");
}

#[test]
fn a_row_and_a_copy_out_to_a_slow_reader() {
    let pgweir = conf().size(2).start();
    let (before, size) = (rest(&pgweir), size());
    let mut reader = Reader::connect(&pgweir);
    reader.0.write_all(Script::new().query(&format!("SELECT repeat('x', {size}) /* big row */")).bytes()).unwrap();
    await_stuck("big row");
    assert_bounded(&pgweir, before);
    let seen = reader.all(size, b'x');
    assert_eq!(seen.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), b"TDCZ");
    assert_eq!(seen[1].1, size + 6);
    let copy = format!("COPY (SELECT repeat('y', {size})) TO STDOUT /* big copy */");
    reader.0.write_all(Script::new().query(&copy).bytes()).unwrap();
    await_stuck("big copy");
    let seen = reader.all(size, b'y');
    assert_eq!(seen.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), b"HdcCZ");
    assert_eq!(seen[1].1, size + 1);
    assert_bounded(&pgweir, before);
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
}

/// Towards a server that does not read for a while, as it waits for a lock.
#[test]
fn a_copy_in_and_a_parameter() {
    let pgweir = conf().size(2).start();
    let (before, size) = (rest(&pgweir), size());
    let mut holder = Client::connect(cluster().primary().port());
    holder.query("CREATE UNLOGGED TABLE big (s text)").unwrap();
    holder.query("BEGIN; LOCK TABLE big").unwrap();
    let mut reader = Reader::connect(&pgweir);
    let mut writer = reader.0.try_clone().unwrap();
    let writing = thread::spawn(move || {
        writer.write_all(Script::new().query("COPY big FROM STDIN").bytes()).unwrap();
        let line = Script::new().copy_data(&[vec![b'c'; 65_535], vec![b'\n']].concat());
        (0..size / 65_536).for_each(|_| writer.write_all(line.bytes()).unwrap());
        writer.write_all(Script::new().copy_done().bytes()).unwrap();
    });
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'COPY big%' AND wait_event_type = 'Lock'";
    eventually("the server waits", || cluster().primary().value_in("postgres", waits).unwrap() == "t");
    assert_bounded(&pgweir, before);
    holder.query("COMMIT").unwrap();
    let seen = reader.all(usize::MAX, 0);
    writing.join().unwrap();
    assert_eq!(seen.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), b"GCZ");
    assert_bounded(&pgweir, before);
    // One message of that size: Bind of a large parameter.
    let mut script = Script::new().parse("", "SELECT length($1::text)").bytes().to_vec();
    let head = [&b"\0\0\0\0\0\x01"[..], &(size as u32).to_be_bytes()].concat();
    script.push(b'B');
    script.extend_from_slice(&((head.len() + size + 2 + 4) as u32).to_be_bytes());
    script.extend_from_slice(&head);
    reader.0.write_all(&script).unwrap();
    let chunk = vec![b'v'; 1 << 20];
    let mut left = size;
    while left > 0 {
        let count = left.min(chunk.len());
        reader.0.write_all(&chunk[..count]).unwrap();
        left -= count;
    }
    reader.0.write_all(&[&[0, 0][..], Script::new().execute("", 0).sync().bytes()].concat()).unwrap();
    let mut answer = Vec::new();
    while reader.message(|piece| answer.extend_from_slice(piece)).0 != b'Z' {}
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains(&size.to_string()), "{text}");
    assert_bounded(&pgweir, before);
    cluster().primary().query_in(integration::DATABASE, "DROP TABLE big").unwrap();
}

/// `max_packet_size` refuses what is larger, by its head, and says so.
#[test]
fn a_message_above_the_limit_is_refused() {
    let pgweir = conf().size(1).listen("max_packet_size = \"1MiB\"").start();
    let mut client = Client::connect(pgweir.port());
    let fits = "f".repeat((1 << 20) - 200);
    assert_eq!(client.value(&format!("SELECT length('{fits}')")), fits.len().to_string());
    // Only the head: nobody should have to wait for the rest.
    client.write(&[&b"Q"[..], &((1u32 << 20) + 1).to_be_bytes(), b"SELECT"].concat());
    let frames = client.frames_to_end();
    let error = frames.iter().find(|frame| frame.tag == b'E').expect("an error");
    let message = error.field(b'M').unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("08P01"), "{message}");
    assert!(message.contains("1048576") && message.contains("max_packet_size"), "{message}");
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
}
