//! A server's byte stream against the ring of owed replies: `flow::replies`.
//! Must never let how the bytes were cut decide what becomes of them.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pgweir::flow::expect::{Expect, Kind, Origin};
use pgweir::flow::replies::{Event, Replies, Step};
use pgweir::wire::build;
use pgweir::wire::frame::{HEADER, Header};
use pgweir::wire::tag::server as tag;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum What {
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    Sync,
    Query,
    Call,
}

#[derive(Arbitrary, Debug)]
enum Op<'a> {
    Expect {
        what: What,
        origin: u8,
    },
    CopySent {
        end: bool,
    },
    /// A well-framed message of a type that a server may send.
    Message {
        tag: u8,
        body: &'a [u8],
        chunk: u8,
    },
    /// One that answers what is owed.
    Answer {
        choice: u8,
        chunk: u8,
    },
    Error {
        fatal: bool,
        long: u16,
        chunk: u8,
    },
    Raw {
        bytes: &'a [u8],
        chunk: u8,
    },
}

const TAGS: &[u8] = b"ZCTDEI123tnsSNAGHWdcVRKvz";

fuzz_target!(|ops: Vec<Op<'_>>| {
    let cut = run(&ops, false);
    let whole = run(&ops, true);
    assert_eq!(cut, whole, "the same bytes in other pieces gave something else");
});

/// What came of a run; equal for equal bytes however cut.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    forwarded: Vec<u8>,
    dropped: usize,
    events: Vec<(usize, String)>,
    fault: Option<&'static str>,
    end: Option<(bool, u8, usize)>,
}

/// The harness's own view of the same connection.
#[derive(Default)]
struct Run {
    replies: Replies,
    inbox: Vec<u8>,
    seen: Seen,
    /// Bytes of the message being consumed that are still to come.
    rest: usize,
    pushed: u64,
    copied: bool,
    readies_owed: i64,
    last_cookie: u64,
    status: u8,
}

fn run(ops: &[Op<'_>], whole: bool) -> Seen {
    let mut run = Run { status: b'I', ..Run::default() };
    for op in ops {
        let (bytes, chunk) = match op {
            Op::Expect { what, origin } => {
                run.expect(*what, *origin);
                continue;
            }
            Op::CopySent { end } => {
                run.replies.copy_sent(*end);
                continue;
            }
            Op::Message { tag, body, chunk } => {
                let mut out = Vec::new();
                build::message(&mut out, TAGS[usize::from(*tag) % TAGS.len()], |out| out.extend_from_slice(body));
                (out, *chunk)
            }
            Op::Answer { choice, chunk } => (answer(run.replies.head(), *choice), *chunk),
            Op::Error { fatal, long, chunk } => (error(*fatal, *long), *chunk),
            Op::Raw { bytes, chunk } => (bytes.to_vec(), *chunk),
        };
        let size = if whole { bytes.len() } else { usize::from(chunk) }.max(1);
        for piece in bytes.chunks(size) {
            run.take(piece);
        }
        if run.seen.fault.is_some() {
            // Both connections close: nothing is asked of it any more.
            return run.seen;
        }
    }
    run.take(&[]);
    run.seen.end = Some((run.replies.is_clean(), run.replies.status(), run.replies.owed()));
    run.seen
}

impl Run {
    fn expect(&mut self, what: What, origin: u8) {
        let kind = match what {
            What::Parse => Kind::Parse,
            What::Bind => Kind::Bind,
            What::Describe => Kind::Describe,
            What::Execute => Kind::Execute,
            What::Close => Kind::Close,
            What::Sync => Kind::Sync,
            What::Query => Kind::Query,
            What::Call => Kind::Call,
        };
        // As the relay does it: only Parse and Close are made up, and Parse, Close and Query put in.
        let origin = match (kind, origin % 4) {
            (Kind::Parse | Kind::Close, 1) => Origin::Faked,
            (Kind::Parse | Kind::Close | Kind::Query, 2) => Origin::Injected,
            _ => Origin::Client,
        };
        self.pushed += 1;
        self.readies_owed += i64::from(kind.ends_in_ready());
        self.replies.expect(Expect { kind, origin, owner: 1, statement: 0, cookie: self.pushed, sent_us: 0 });
    }

    fn take(&mut self, piece: &[u8]) {
        if self.seen.fault.is_some() {
            return;
        }
        self.inbox.extend_from_slice(piece);
        let bytes = std::mem::take(&mut self.inbox);
        let mut at = 0;
        loop {
            let front = &bytes[at..];
            let head = self.replies.head().copied();
            let tag = (self.rest == 0).then(|| front.first().copied()).flatten();
            let n = match self.replies.step(front) {
                Step::More => break,
                Step::Fault(what) => {
                    self.seen.fault = Some(what);
                    return;
                }
                Step::Fake(kind) => {
                    assert_eq!(head.map(|head| (head.kind, head.origin)), Some((kind, Origin::Faked)));
                    assert_eq!(self.rest, 0, "an answer made up in the middle of a message");
                    self.seen.events.push((self.seen.forwarded.len(), format!("fake {kind:?}")));
                    continue;
                }
                Step::Forward(n) => {
                    assert!(n > 0 && n <= front.len(), "forwards {n} of {}", front.len());
                    let hidden = head.is_some_and(|head| head.origin == Origin::Injected);
                    assert!(!hidden || tag.is_none_or(|tag| tag == tag::NOTIFICATION), "an injected reply goes out");
                    self.seen.forwarded.extend_from_slice(&front[..n]);
                    n
                }
                Step::Drop(n) => {
                    assert!(n > 0 && n <= front.len(), "drops {n} of {}", front.len());
                    self.seen.dropped += n;
                    n
                }
                Step::Event { n, swallow, event } => {
                    assert!(n >= HEADER && n <= front.len(), "an event of {n} bytes of {}", front.len());
                    self.event(&event, head, swallow);
                    self.seen.events.push((self.seen.forwarded.len(), format!("{swallow} {event:?}")));
                    n
                }
            };
            self.walk(&front[..n]);
            at += n;
            self.invariants();
        }
        self.inbox = bytes[at..].to_vec();
    }

    fn event(&mut self, event: &Event, head: Option<Expect>, swallow: bool) {
        let hidden = head.is_some_and(|head| head.origin == Origin::Injected);
        match event {
            Event::Ready(entry, status) => {
                assert!(entry.kind.ends_in_ready());
                assert_eq!(Some(*entry), head);
                assert_eq!(swallow, hidden);
                self.readies_owed -= 1;
                self.status = *status;
                self.in_order(entry);
            }
            Event::Completed(entry, _) => {
                assert_eq!(Some(*entry), head);
                assert_eq!(swallow, hidden);
                self.in_order(entry);
            }
            Event::Failed(..) => assert!(hidden || !swallow, "a client's error is swallowed"),
            Event::Parameter => assert_eq!(swallow, hidden),
            Event::CopyIn => self.copied = true,
        }
    }

    /// Without COPY, which moves Syncs, entries are answered in the order they were made.
    fn in_order(&mut self, entry: &Expect) {
        assert!(self.copied || entry.cookie >= self.last_cookie, "answered out of order");
        self.last_cookie = entry.cookie;
    }

    /// Follows the framing of what was consumed.
    fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest == 0 {
                let header = Header::peek(bytes, usize::MAX).expect("was bounded").expect("was whole");
                self.rest = header.total;
            }
            let n = self.rest.min(bytes.len());
            self.rest -= n;
            bytes = &bytes[n..];
        }
    }

    fn invariants(&self) {
        let replies = &self.replies;
        assert_eq!(replies.status(), self.status);
        assert!(self.rest == 0 || replies.busy(), "idle in the middle of a message");
        assert!(replies.owed() == 0 || replies.busy());
        assert!(self.readies_owed >= 0, "more ReadyForQuery than were asked for");
        if replies.is_clean() {
            assert_eq!(replies.owed(), 0, "clean, yet something is owed");
            assert_eq!(self.rest, 0, "clean, yet half a message");
            assert_eq!(self.status, b'I', "clean, yet in a transaction");
        }
    }
}

/// A message that the oldest owed reply may consist of.
fn answer(head: Option<&Expect>, choice: u8) -> Vec<u8> {
    let status = b"ITE"[usize::from(choice / 16) % 3];
    let mut out = Vec::new();
    let (tag, body): (u8, &[u8]) = match head.map(|head| head.kind) {
        None => (tag::PARAMETER_STATUS, b"a\0b\0"),
        Some(Kind::Parse) => (tag::PARSE_COMPLETE, b""),
        Some(Kind::Bind) => (tag::BIND_COMPLETE, b""),
        Some(Kind::Close) => (tag::CLOSE_COMPLETE, b""),
        Some(Kind::Describe) => [(tag::NO_DATA, &b""[..]), (tag::ROW_DESCRIPTION, b"\0\0")][usize::from(choice % 2)],
        Some(Kind::Sync) => (tag::READY, b"I"),
        Some(Kind::Execute | Kind::Query | Kind::Call) => match choice % 8 {
            0 => (tag::COMMAND_COMPLETE, b"SELECT 3\0"),
            1 => (tag::DATA_ROW, b"\0\x01\0\0\0\x01x"),
            2 => (tag::COPY_IN, b"\0\0\0"),
            3 => (tag::COPY_OUT, b"\0\0\0"),
            4 => (tag::EMPTY_QUERY, b""),
            5 => (tag::PORTAL_SUSPENDED, b""),
            6 => (tag::COMMAND_COMPLETE, b"DISCARD ALL\0"),
            _ => (tag::READY, b"I"),
        },
    };
    let ready = [status];
    build::message(&mut out, tag, |out| out.extend_from_slice(if tag == tag::READY { &ready } else { body }));
    out
}

fn error(fatal: bool, long: u16) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag::ERROR, |out| {
        out.extend_from_slice(if fatal { b"SFATAL\0VFATAL\0C57P01\0M" } else { b"SERROR\0VERROR\0C22012\0M" });
        out.resize(out.len() + usize::from(long) % 2000, b'x');
        out.extend_from_slice(b"\0\0");
    });
    out
}
