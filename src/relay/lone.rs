//! Batches of the extended protocol that do nothing but run one statement, or that begin so.
//! Must never take for one what its server would answer otherwise than by the tags it says.

use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag;

/// The first statement of a batch, which is run once, by way of the unnamed portal, without parameters.
pub(super) struct Lone<'a> {
    /// Text, terminator and parameter types, if it is prepared here, as the unnamed one.
    pub tail: Option<&'a [u8]>,
    /// Its name; empty if it is prepared here.
    pub name: &'a [u8],
    /// What is described: nothing (0), the portal, or the statement.
    describes: u8,
    /// Nothing follows it but a Sync, which then counts as a part of it.
    pub is_whole: bool,
    /// Bytes of it.
    pub len: usize,
}

/// Messages one after the other.
struct Messages<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Messages<'a> {
    /// The body of the next one, if it is of this kind.
    fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        let rest = self.data.get(self.at..)?;
        let header = Header::peek(rest, usize::MAX).ok()??;
        let body = rest.get(HEADER..header.total).filter(|_| header.tag == tag)?;
        self.at += header.total;
        Some(body)
    }

    /// Whether what follows has nothing to do with the portal there is: it binds another before it does anything else with one.
    fn begins_anew(&mut self) -> bool {
        while self.next(tag::client::PARSE).is_some() {}
        self.next(tag::client::BIND).is_some_and(|body| body.first() == Some(&0))
    }
}

impl<'a> Lone<'a> {
    /// The one at the front of a batch that is here up to its Sync.
    pub fn of(data: &'a [u8]) -> Option<Self> {
        let mut messages = Messages { data, at: 0 };
        let tail = match messages.next(tag::client::PARSE) {
            Some(body) => Some(body.strip_prefix(b"\0")?),
            None => None,
        };
        let mut describes = match messages.next(tag::client::DESCRIBE) {
            Some(body) if tail.is_some() && body == b"S\0" => b'S',
            Some(_) => return None,
            None => 0,
        };
        // No parameters; of what format results would be does not matter.
        let (name, rest) = cstr(messages.next(tag::client::BIND)?.strip_prefix(b"\0")?)?;
        rest.strip_prefix(&[0; 4]).filter(|_| name.is_empty() == tail.is_some())?;
        if let Some(body) = messages.next(tag::client::DESCRIBE) {
            if describes != 0 || body != b"P\0" {
                return None;
            }
            describes = b'P';
        }
        (messages.next(tag::client::EXECUTE)?.strip_prefix(b"\0")?.len() == 4).then_some(())?;
        let mut len = messages.at;
        let is_whole = messages.next(tag::client::SYNC).is_some();
        if is_whole {
            len = messages.at;
        } else if !messages.begins_anew() {
            return None;
        }
        Some(Self { tail, name, describes, is_whole, len })
    }

    /// Tags of what answers all but its Execute and Sync.
    pub fn answers(&self) -> &'static [u8] {
        use tag::server::{BIND_COMPLETE, NO_DATA, PARAMETER_DESCRIPTION, PARSE_COMPLETE};
        let all: &[u8] = match self.describes {
            b'S' => &[PARSE_COMPLETE, PARAMETER_DESCRIPTION, NO_DATA, BIND_COMPLETE],
            b'P' => &[PARSE_COMPLETE, BIND_COMPLETE, NO_DATA],
            _ => &[PARSE_COMPLETE, BIND_COMPLETE],
        };
        all.get(usize::from(self.tail.is_none())..).unwrap_or_default()
    }
}
