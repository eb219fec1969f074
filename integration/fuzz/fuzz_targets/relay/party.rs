//! A client that knows what it may hear.
//! Must never accept a row of anybody else, or of a statement it has not prepared.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arbitrary::Arbitrary;
use pgweir::net::mem::Mem;
use pgweir::relay::ClientId;
use pgweir::wire::build;
use pgweir::wire::frame::{HEADER, Header, be_u32, cstr};
use pgweir::wire::tag::{client as tag, server};

use crate::Flag;

/// Something a client says. Numbers pick from few names and texts, so that they meet.
#[derive(Arbitrary, Debug)]
pub enum Say {
    Select,
    Begin,
    Commit,
    Rollback,
    Fail,
    Set,
    DiscardAll,
    DeallocateAll,
    CopyIn,
    CopyData(u8),
    CopyDone,
    CopyFail,
    Empty,
    Parse { name: u8, text: u8 },
    Bind { name: u8 },
    DescribeStatement { name: u8 },
    DescribePortal,
    Execute,
    CloseStatement { name: u8 },
    ClosePortal,
    Sync,
    Flush,
    Call,
    Terminate,
}

pub struct Party {
    pub number: u8,
    pub mem: Mem,
    pub flag: Arc<Flag>,
    pub id: Option<ClientId>,
    /// `application_name` it started with.
    pub application: String,
    pub key: Option<(u32, Vec<u8>)>,
    /// Bytes of the output that were judged.
    pub heard: usize,
    buffer: Vec<u8>,
    sequence: u32,
    last_sequence: u32,
    /// Texts parsed under each name.
    names: HashMap<u8, HashSet<u8>>,
    /// ReadyForQuery owed and heard; the first is that of the login.
    owed: usize,
    ready: usize,
    /// It sent something that ends, or may end, its session or that swallows a Sync.
    wild: bool,
    /// It has sent messages that only a Sync would end.
    open: bool,
    in_transaction: bool,
    /// It may have left something in its session.
    pinned: bool,
    /// The session was ended by an error.
    told_off: bool,
}

/// Number of the text that is a COPY.
pub const COPYING: u8 = 3;

fn name(number: u8) -> Vec<u8> {
    match number % 4 {
        0 => Vec::new(),
        n => vec![b's', b'0' + n],
    }
}

impl Party {
    pub fn new(number: u8) -> Self {
        Self {
            number,
            mem: Mem::default(),
            flag: Arc::new(Flag(true.into())),
            id: None,
            application: String::new(),
            key: None,
            heard: 0,
            buffer: Vec::new(),
            sequence: 0,
            last_sequence: 0,
            names: HashMap::new(),
            owed: 1,
            ready: 0,
            wild: false,
            open: false,
            in_transaction: false,
            pinned: false,
            told_off: false,
        }
    }

    fn mark(&mut self) -> String {
        self.sequence += 1;
        format!("/*c{}:{}:*/", self.number, self.sequence)
    }

    pub fn say(&mut self, say: &Say) {
        let mark = self.mark();
        let mut out = Vec::new();
        match say {
            Say::Select => self.query(&mut out, &format!("select 1 {mark}")),
            Say::Begin => self.query(&mut out, &format!("begin {mark}")),
            Say::Commit => self.query(&mut out, &format!("commit {mark}")),
            Say::Rollback => self.query(&mut out, &format!("rollback {mark}")),
            Say::Fail => self.query(&mut out, &format!("fail {mark}")),
            Say::Set => {
                self.pinned = true;
                self.query(&mut out, &format!("set work_mem = 1 {mark}"));
            }
            Say::DiscardAll => self.query(&mut out, &format!("discard all {mark}")),
            Say::DeallocateAll => self.query(&mut out, &format!("deallocate all {mark}")),
            Say::CopyIn => {
                // A Sync or Query during the copy is read over or an error: too much to foresee.
                self.wild = true;
                self.query(&mut out, &format!("copy t from stdin {mark}"));
            }
            Say::CopyData(n) => {
                build::message(&mut out, tag::COPY_DATA, |out| out.resize(out.len() + usize::from(*n), b'x'))
            }
            Say::CopyDone => build::message(&mut out, tag::COPY_DONE, |_| {}),
            Say::CopyFail => build::message(&mut out, tag::COPY_FAIL, |out| build::cstr(out, b"no")),
            Say::Empty => self.query(&mut out, ""),
            Say::Parse { name: which, text } => {
                self.open = true;
                self.names.entry(which % 4).or_default().insert(text % 4);
                // A copy reads over Syncs: too much to foresee.
                self.wild |= text % 4 == COPYING;
                let text = format!(
                    "{} /*t{}*/",
                    if text % 4 == COPYING { "copy t from stdin" } else { "select $1" },
                    text % 4
                );
                build::parse(&mut out, &name(*which), &[text.as_bytes(), b"\0\0\0"].concat());
            }
            Say::Bind { name: which } => {
                self.open = true;
                let mark = format!("{mark}{}", which % 4);
                build::message(&mut out, tag::BIND, |out| {
                    build::cstr(out, b"");
                    build::cstr(out, &name(*which));
                    out.extend_from_slice(&[0, 0, 0, 1]);
                    out.extend_from_slice(&(mark.len() as u32).to_be_bytes());
                    out.extend_from_slice(mark.as_bytes());
                    out.extend_from_slice(&[0, 0]);
                });
            }
            Say::DescribeStatement { name: which } => self.named(&mut out, tag::DESCRIBE, b'S', &name(*which)),
            Say::DescribePortal => self.named(&mut out, tag::DESCRIBE, b'P', b""),
            Say::CloseStatement { name: which } => self.named(&mut out, tag::CLOSE, b'S', &name(*which)),
            Say::ClosePortal => self.named(&mut out, tag::CLOSE, b'P', b""),
            Say::Execute => {
                self.open = true;
                build::message(&mut out, tag::EXECUTE, |out| out.extend_from_slice(&[0; 5]));
            }
            Say::Sync => {
                self.owed += 1;
                self.open = false;
                build::sync(&mut out);
            }
            Say::Flush => {
                // Holds a server as a message before it would.
                self.open = true;
                build::message(&mut out, tag::FLUSH, |_| {});
            }
            Say::Call => {
                self.wild |= self.open;
                self.owed += 1;
                build::message(&mut out, tag::FUNCTION_CALL, |out| out.extend_from_slice(mark.as_bytes()));
            }
            Say::Terminate => {
                self.wild = true;
                build::message(&mut out, tag::TERMINATE, |_| {});
            }
        }
        self.send(&out);
    }

    fn query(&mut self, out: &mut Vec<u8>, sql: &str) {
        // Behind a failed extended message PostgreSQL reads over a Query as well.
        self.wild |= self.open;
        self.owed += 1;
        build::query(out, sql.as_bytes());
    }

    fn named(&mut self, out: &mut Vec<u8>, tag: u8, what: u8, name: &[u8]) {
        self.open = true;
        build::message(out, tag, |out| {
            out.push(what);
            build::cstr(out, name);
        });
    }

    pub fn garbage(&mut self, bytes: &[u8]) {
        self.wild = true;
        self.send(bytes);
    }

    pub fn leave(&mut self) {
        self.wild = true;
        self.mem.ends().closed = true;
        self.flag.set();
    }

    fn send(&mut self, bytes: &[u8]) {
        let mut ends = self.mem.ends();
        if !ends.closed {
            ends.input.extend(bytes);
        }
        self.flag.set();
    }

    /// Judges what came. With hostile servers rows may be anything, the framing too.
    pub fn hear(&mut self, hostile: bool) {
        let came = std::mem::take(&mut self.mem.ends().output);
        self.heard += came.len();
        if hostile {
            self.buffer.clear();
            return;
        }
        self.buffer.extend_from_slice(&came);
        let buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        while let Some(header) = Header::peek(&buffer[at..], 1 << 30).expect("a message with a length")
            && let Some(message) = buffer.get(at..at + header.total)
        {
            self.message(header.tag, &message[HEADER..]);
            at += header.total;
        }
        self.buffer = buffer[at..].to_vec();
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        match tag {
            server::DATA_ROW => self.row(&String::from_utf8_lossy(body)),
            server::READY => {
                self.ready += 1;
                self.in_transaction = body != b"I";
                assert!(self.wild || self.ready <= self.owed, "client {} has one ReadyForQuery too many", self.number);
            }
            server::BACKEND_KEY_DATA => {
                self.key = be_u32(body).map(|pid| (pid, body[4..].to_vec()));
            }
            server::ERROR => self.told_off |= body.windows(6).any(|window| window == b"SFATAL"),
            server::PARAMETER_STATUS => {
                let (name, rest) = cstr(body).expect("a name");
                let (value, _) = cstr(rest).expect("a value");
                assert!(
                    name != b"application_name" || value == self.application.as_bytes() || value.is_empty(),
                    "another's settings"
                );
            }
            _ => {}
        }
    }

    /// `t<text>|<mark>` or a mark alone.
    fn row(&mut self, row: &str) {
        let mark = row.split("/*c").nth(1).unwrap_or_else(|| panic!("client {} gets the row {row:?}", self.number));
        let mut parts = mark.split(':');
        let mut part = || parts.next().unwrap_or_default();
        assert_eq!(part(), self.number.to_string(), "a row of another client's: {row:?}");
        let sequence: u32 = part().parse().expect("a number");
        assert!(sequence >= self.last_sequence, "rows out of order");
        self.last_sequence = sequence;
        let name = part().trim_start_matches("*/").split('|').next().unwrap_or_default().parse::<u8>();
        if let (Ok(name), Some(text)) = (name, row.split("|t").nth(1)) {
            let text: u8 = text[..1].parse().expect("a text");
            let known = self.names.get(&name).is_some_and(|texts| texts.contains(&text));
            assert!(known, "client {} ran text {text} under the name {name}, which it never prepared so", self.number);
        }
    }

    /// It keeps its server, or may: others may wait for ever.
    pub fn holds_on(&self) -> bool {
        self.wild || self.open || self.in_transaction || self.pinned
    }

    /// At the end.
    pub fn judge(&self, others_hold_on: bool) {
        if self.wild || self.told_off || others_hold_on {
            return;
        }
        assert_eq!(self.ready, self.owed, "client {} waits for ever", self.number);
        assert!(self.buffer.is_empty(), "client {} was sent half a message", self.number);
    }
}
