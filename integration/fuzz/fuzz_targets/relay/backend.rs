//! A model of one PostgreSQL backend: answers as it would and notices who uses it.
//! Must never be more lenient than PostgreSQL: what it misses the relay may do wrong.

use std::collections::HashMap;
use std::sync::Arc;

use pgweir::net::mem::Mem;
use pgweir::relay::ServerId;
use pgweir::wire::build;
use pgweir::wire::frame::{HEADER, Header, cstr};
use pgweir::wire::tag::{client, server as tag};

use crate::Flag;
use crate::party::{COPYING, Party};

#[derive(Clone, Copy, PartialEq)]
enum Copy {
    No,
    Simple,
    Extended,
}

pub struct Backend {
    pub mem: Mem,
    pub flag: Arc<Flag>,
    pub id: Option<ServerId>,
    inbox: Vec<u8>,
    /// Bytes put into the socket in all.
    given: usize,
    status: u8,
    skipping: bool,
    copy: Copy,
    prepared: HashMap<Vec<u8>, u8>,
    /// Statement text and parameter of the unnamed portal.
    portal: Option<(u8, String)>,
    /// Who has a transaction, a batch or session state open.
    transaction: Option<u8>,
    batch: Option<u8>,
    session: Option<u8>,
    /// Who had its own settings discarded.
    discarded: Option<u8>,
    application: String,
    applications: [String; 2],
    lying: bool,
    ended: bool,
}

fn owner(mark: &str) -> Option<u8> {
    mark.split("/*c").nth(1)?.split(':').next()?.parse().ok()
}

fn mark(sql: &str) -> String {
    sql.find("/*c").and_then(|at| sql.get(at..)).unwrap_or_default().to_owned()
}

impl Backend {
    pub fn new() -> Self {
        Self {
            mem: Mem::default(),
            flag: Arc::new(Flag(true.into())),
            id: None,
            inbox: Vec::new(),
            given: 0,
            status: b'I',
            skipping: false,
            copy: Copy::No,
            prepared: HashMap::new(),
            portal: None,
            transaction: None,
            batch: None,
            session: None,
            discarded: None,
            application: String::new(),
            applications: Default::default(),
            lying: false,
            ended: false,
        }
    }

    /// Bytes that the relay has read from it.
    pub fn taken(&self) -> usize {
        self.given - self.mem.ends().input.len()
    }

    /// Reads what the relay has sent.
    pub fn take(&mut self, clients: &[Party; 2]) {
        self.inbox.append(&mut self.mem.ends().output);
        self.applications = [clients[0].application.clone(), clients[1].application.clone()];
    }

    pub fn lie(&mut self, bytes: &[u8]) {
        self.lying = true;
        self.give(bytes);
    }

    fn give(&mut self, bytes: &[u8]) {
        self.given += bytes.len();
        self.mem.ends().input.extend(bytes);
        self.flag.set();
    }

    /// Answers at most so many messages; the relay reads at most `piece` bytes at once, 0: no limit.
    pub fn answer(&mut self, messages: usize, piece: usize) {
        self.mem.ends().read_max = piece;
        let inbox = std::mem::take(&mut self.inbox);
        let mut at = 0;
        let mut out = Vec::new();
        for _ in 0..messages {
            let Some(header) = Header::peek(&inbox[at..], 1 << 30).expect("the relay sends whole messages") else {
                break;
            };
            let Some(message) = inbox.get(at..at + header.total) else { break };
            at += header.total;
            if !self.ended {
                self.message(header.tag, &message[HEADER..], &mut out);
            }
        }
        self.inbox = inbox[at..].to_vec();
        self.give(&out);
    }

    fn message(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        if kind == client::TERMINATE {
            self.ended = true;
        } else if self.copy != Copy::No {
            self.copying(kind, out);
        } else if matches!(kind, client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL) {
            // Read over, as PostgreSQL does after a failed copy.
        } else if !self.skipping || kind == client::SYNC {
            self.told(kind, body, out);
        }
    }

    fn told(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        match kind {
            client::QUERY => {
                let (sql, _) = cstr(body).expect("a terminator");
                self.prepared.remove(&b""[..]);
                self.portal = None;
                let sql = String::from_utf8_lossy(sql).into_owned();
                self.query(&sql, out);
            }
            client::PARSE => self.parse(body, out),
            client::BIND => self.bind(body, out),
            client::DESCRIBE => self.describe(body, out),
            client::EXECUTE => match self.portal.clone() {
                Some(_) if self.status == b'E' => self.error("25P02", out),
                Some((COPYING, _)) => {
                    self.copy = Copy::Extended;
                    build::message(out, tag::COPY_IN, |out| out.extend_from_slice(&[0, 0, 0]));
                }
                Some((text, parameter)) => {
                    build::message(out, tag::DATA_ROW, |out| {
                        out.extend_from_slice(format!("{parameter}|t{text}").as_bytes());
                    });
                    complete("SELECT 1", out);
                }
                None => self.error("34000", out),
            },
            client::CLOSE => {
                match body.split_first() {
                    Some((b'S', name)) => drop(self.prepared.remove(cstr(name).expect("a name").0)),
                    _ => self.portal = None,
                }
                build::message(out, tag::CLOSE_COMPLETE, |_| {});
            }
            client::SYNC => {
                self.skipping = false;
                self.ready(out);
            }
            client::FLUSH => {}
            client::FUNCTION_CALL => {
                self.touch(&String::from_utf8_lossy(body));
                if self.status == b'E' {
                    self.error("25P02", out);
                    self.skipping = false;
                } else {
                    build::message(out, tag::FUNCTION_RESULT, |out| out.extend_from_slice(&[0xff; 4]));
                }
                self.ready(out);
            }
            other => assert!(self.lying, "the relay passes message type {:?} on", other as char),
        }
    }

    /// A statement of a client begins: nobody else's may be in the way.
    fn touch(&mut self, mark: &str) {
        let Some(owner) = owner(mark) else { return };
        if self.lying {
            return;
        }
        for (what, holder) in [("transaction", self.transaction), ("batch", self.batch), ("session", self.session)] {
            assert!(holder.is_none_or(|holder| holder == owner), "client {owner} runs {mark} in another's {what}");
        }
        if self.discarded != Some(owner) {
            let expected = &self.applications[usize::from(owner)];
            assert_eq!(&self.application, expected, "client {owner} runs {mark} under another's settings");
        }
    }

    fn query(&mut self, sql: &str, out: &mut Vec<u8>) {
        self.touch(sql);
        let lower = sql.to_ascii_lowercase();
        let verb = lower.split_whitespace().next().unwrap_or_default();
        let ends = matches!(verb, "rollback" | "commit");
        if verb.is_empty() {
            build::message(out, tag::EMPTY_QUERY, |_| {});
        } else if self.status == b'E' && !ends {
            self.fail("25P02", out);
        } else {
            match verb {
                "begin" => {
                    self.status = b'T';
                    self.transaction = owner(sql);
                    complete("BEGIN", out);
                }
                "commit" | "rollback" => {
                    self.status = b'I';
                    self.transaction = None;
                    complete("ROLLBACK", out);
                }
                "fail" => self.fail("22012", out),
                "set" => {
                    self.session = owner(sql);
                    complete("SET", out);
                }
                "discard" if self.status == b'T' => self.fail("25001", out),
                "discard" => {
                    self.session = None;
                    self.prepared.clear();
                    self.discarded = owner(sql);
                    self.application.clear();
                    complete("DISCARD ALL", out);
                }
                "deallocate" => {
                    self.prepared.clear();
                    complete("DEALLOCATE ALL", out);
                }
                "copy" => {
                    self.copy = Copy::Simple;
                    build::message(out, tag::COPY_IN, |out| out.extend_from_slice(&[0, 0, 0]));
                    return;
                }
                _ if lower.contains("set_config") || verb == "reset" => self.settings(sql, out),
                _ => {
                    build::message(out, tag::ROW_DESCRIPTION, |out| out.extend_from_slice(&[0, 0]));
                    build::message(out, tag::DATA_ROW, |out| out.extend_from_slice(mark(sql).as_bytes()));
                    complete("SELECT 1", out);
                }
            }
        }
        self.ready(out);
    }

    /// SQL of the relay's own that gives a server its client's settings.
    fn settings(&mut self, sql: &str, out: &mut Vec<u8>) {
        assert!(self.status == b'I' || self.lying, "settings in a transaction");
        if sql.contains("RESET \"application_name\"") {
            self.application.clear();
            complete("RESET", out);
        }
        if let Some(rest) = sql.split("E'application_name',E'").nth(1) {
            self.application = rest.split('\'').next().unwrap_or_default().to_owned();
            build::message(out, tag::ROW_DESCRIPTION, |out| out.extend_from_slice(&[0, 0]));
            build::message(out, tag::DATA_ROW, |out| out.extend_from_slice(b"nobody's"));
            complete("SELECT 1", out);
        }
        self.discarded = None;
        build::parameter_status(out, b"application_name", self.application.as_bytes());
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let (name, tail) = cstr(body).expect("a name");
        let (text, _) = cstr(tail).expect("a text");
        let text = String::from_utf8_lossy(text).into_owned();
        let Some(number) = text.split("/*t").nth(1).and_then(|rest| rest[..1].parse().ok()) else {
            return self.error("42601", out);
        };
        if self.status == b'E' {
            return self.error("25P02", out);
        }
        if !name.is_empty() && self.prepared.contains_key(name) {
            return self.error("42P05", out);
        }
        self.prepared.insert(name.to_vec(), number);
        build::message(out, tag::PARSE_COMPLETE, |_| {});
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let (_, rest) = cstr(body).expect("a portal");
        let (name, rest) = cstr(rest).expect("a name");
        let parameter = rest.get(8..rest.len().saturating_sub(2)).unwrap_or_default();
        let parameter = String::from_utf8_lossy(parameter).into_owned();
        self.touch(&parameter);
        self.batch = owner(&parameter);
        match self.prepared.get(name) {
            None => self.error("26000", out),
            Some(_) if self.status == b'E' => self.error("25P02", out),
            Some(&text) => {
                self.portal = Some((text, parameter));
                build::message(out, tag::BIND_COMPLETE, |_| {});
            }
        }
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) {
        match body.split_first() {
            Some((b'S', name)) if self.prepared.contains_key(cstr(name).expect("a name").0) => {
                build::message(out, tag::PARAMETER_DESCRIPTION, |out| out.extend_from_slice(&[0, 0]));
            }
            Some((b'P', _)) if self.portal.is_some() => {}
            Some((b'S', _)) => return self.error("26000", out),
            _ => return self.error("34000", out),
        }
        build::message(out, tag::ROW_DESCRIPTION, |out| out.extend_from_slice(&[0, 0]));
    }

    /// `CopyGetData` of src/backend/commands/copyfromparse.c: Sync and Flush are read over.
    fn copying(&mut self, kind: u8, out: &mut Vec<u8>) {
        let simple = self.copy == Copy::Simple;
        match kind {
            client::COPY_DATA | client::SYNC | client::FLUSH => return,
            client::COPY_DONE => complete("COPY 1", out),
            _ if simple => self.fail("57014", out),
            _ => self.error("57014", out),
        }
        self.copy = Copy::No;
        if simple {
            self.ready(out);
        }
    }

    fn fail(&mut self, code: &str, out: &mut Vec<u8>) {
        if self.status == b'T' {
            self.status = b'E';
        }
        build::message(out, tag::ERROR, |out| {
            out.extend_from_slice(format!("SERROR\0VERROR\0C{code}\0Mno\0\0").as_bytes());
        });
    }

    /// An error of the extended protocol: everything up to the next Sync is read over.
    fn error(&mut self, code: &str, out: &mut Vec<u8>) {
        self.fail(code, out);
        self.skipping = true;
    }

    fn ready(&mut self, out: &mut Vec<u8>) {
        self.batch = None;
        if self.status == b'I' {
            self.portal = None;
        }
        build::ready(out, self.status);
    }
}

fn complete(text: &str, out: &mut Vec<u8>) {
    build::message(out, tag::COMMAND_COMPLETE, |out| build::cstr(out, text.as_bytes()));
}
