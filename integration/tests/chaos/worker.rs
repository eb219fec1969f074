//! A client that checks every answer by its content and may lose its connection at any time.
//! It must never take an error for an answer, nor an answer for another's.

use integration::wire::{Frame, Script};

use crate::common::Client;
use crate::common::client::said;

/// SQLSTATEs with which a connection may end, or a statement fail, when servers die: class 08, 57 (operator intervention),
/// 53300 (too many connections), and 25P03.
const FORGIVEN: &[&str] = &["08", "57", "53", "25P03", "58"];

/// What one worker saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    /// Answers that were right.
    pub right: u64,
    /// Statements or connections that ended in an error they may end in.
    pub lost: u64,
}

/// A client and what it asked.
pub struct Worker {
    name: String,
    port: u16,
    client: Option<Client>,
    next: u64,
    pub seen: Seen,
}

impl Worker {
    /// Not connected yet.
    pub fn new(number: usize, port: u16) -> Self {
        Self { name: format!("w{number}"), port, client: None, next: 0, seen: Seen::default() }
    }

    /// One exchange of some kind; connects first if need be.
    pub fn turn(&mut self) {
        self.next += 1;
        let mark = format!("{}/{}", self.name, self.next);
        let Some(mut client) = self.client.take().or_else(|| self.connect()) else { return };
        let alive = match self.next % 5 {
            0 => self.ask(&mut client, &Script::new().query(&format!("SELECT '{mark}'")), &[&mark]),
            1 => {
                let named = format!("SELECT '{} ' || $1::text", self.name);
                let script = Script::new().close(b'S', "s").parse("s", &named).bind("", "s", &[Some(&mark)]);
                self.ask(&mut client, &script.execute("", 0).sync(), &[&format!("{} {mark}", self.name)])
            }
            2 => self.transaction(&mut client, &mark),
            // What somebody else's lock stalls.
            3 => {
                let sql = format!("SELECT '{mark}:' || count(*) FROM seen WHERE owner = '{mark}'");
                self.ask(&mut client, &Script::new().query(&sql), &[&format!("{mark}:0")])
            }
            _ => {
                let rows: Vec<String> = (0..300).map(|n| format!("{mark}:{n}")).collect();
                let sql = format!("SELECT '{mark}:' || i FROM generate_series(0, 299) i");
                self.ask(&mut client, &Script::new().query(&sql), &rows.iter().map(String::as_str).collect::<Vec<_>>())
            }
        };
        self.client = alive.then_some(client);
    }

    /// Leaves without a word now and then, in the middle of a transaction.
    pub fn vanish(&mut self) {
        if let Some(mut client) = self.client.take() {
            client.send(&Script::new().query("BEGIN").query("SELECT pg_sleep(0.05)"));
            client.vanish();
        }
    }

    fn connect(&mut self) -> Option<Client> {
        let mut client = Client::tcp(self.port);
        client.startup(0, &[]);
        let frames = client.ready(1);
        if frames.last().is_some_and(|frame| frame.tag == b'Z') {
            return Some(client);
        }
        self.forgive(&frames);
        None
    }

    fn transaction(&mut self, client: &mut Client, mark: &str) -> bool {
        let insert = format!("INSERT INTO seen VALUES ('{mark}')");
        let count = format!("SELECT count(*)::text FROM seen WHERE owner = '{mark}'");
        self.ask(client, &Script::new().query("BEGIN"), &[])
            && self.ask(client, &Script::new().query(&insert), &[])
            && self.ask(client, &Script::new().query(&count), &["1"])
            && self.ask(client, &Script::new().query("ROLLBACK"), &[])
    }

    /// False when the connection is of no more use.
    fn ask(&mut self, client: &mut Client, script: &Script, wanted: &[&str]) -> bool {
        client.send(script);
        let frames = client.ready(1);
        let rows: Vec<String> = frames.iter().filter(|frame| frame.tag == b'D').map(first).collect();
        if frames.last().is_some_and(|frame| frame.tag == b'Z') && !frames.iter().any(|frame| frame.tag == b'E') {
            assert_eq!(rows, wanted, "{}", self.name);
            self.seen.right += 1;
            return true;
        }
        // What came before the end must be the beginning of the right answer.
        assert!(
            wanted.iter().zip(&rows).all(|(wanted, got)| wanted == got),
            "{}: {rows:?} not of {wanted:?}",
            self.name
        );
        self.forgive(&frames);
        false
    }

    fn forgive(&mut self, frames: &[Frame]) {
        self.seen.lost += 1;
        for error in frames.iter().filter(|frame| frame.tag == b'E') {
            let code = error.field(b'C').unwrap_or_default();
            assert!(FORGIVEN.iter().any(|class| code.starts_with(class)), "{}: {}", self.name, said(error));
        }
    }
}

fn first(frame: &Frame) -> String {
    String::from_utf8(frame.row().swap_remove(0).unwrap_or_default()).unwrap()
}
