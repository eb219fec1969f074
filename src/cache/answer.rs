//! Whether bytes that a client was sent are one whole answer to one read, and nothing else.
//! Must never call whole what holds an error, a notice, a setting or a notification, nor what a message is missing of.

use crate::wire::frame::{HEADER, Header, cstr, rows_of_tag};
use crate::wire::tag::server as tag;

/// What bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The beginning of one.
    Partial,
    /// An answer of so many bytes, behind so many of ParseComplete.
    Whole {
        /// Bytes in front that are the answer to Parse.
        parse: usize,
        /// Bytes up to and with ReadyForQuery.
        len: usize,
        /// Rows, as CommandComplete says.
        rows: u64,
    },
    /// Something that is not to be kept.
    Other,
}

/// Looks on at the bytes of an answer as they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Whole messages that were seen, bytes.
    at: usize,
    parse: usize,
    completed: bool,
    rows: u64,
}

impl Scan {
    /// What `bytes` are: those of before, and what has come since.
    pub fn look(&mut self, bytes: &[u8]) -> Answer {
        while let Some(rest) = bytes.get(self.at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
        {
            if !self.may_come(header.tag) {
                return Answer::Other;
            }
            let Some(message) = rest.get(..header.total) else { return Answer::Partial };
            self.at += header.total;
            match header.tag {
                tag::PARSE_COMPLETE => self.parse = header.total,
                tag::COMMAND_COMPLETE => (self.completed, self.rows) = (true, rows_said(message)),
                tag::READY if message.get(HEADER) == Some(&b'I') => {
                    return Answer::Whole { parse: self.parse, len: self.at, rows: self.rows };
                }
                tag::READY => return Answer::Other,
                _ => {}
            }
        }
        Answer::Partial
    }

    /// Whether such a message may stand here. In which order PostgreSQL sends them was checked where they were received.
    fn may_come(&self, kind: u8) -> bool {
        match kind {
            tag::PARSE_COMPLETE => self.at == 0,
            tag::BIND_COMPLETE
            | tag::PARAMETER_DESCRIPTION
            | tag::ROW_DESCRIPTION
            | tag::DATA_ROW
            | tag::COMMAND_COMPLETE => !self.completed,
            tag::READY => self.completed,
            _ => false,
        }
    }
}

fn rows_said(complete: &[u8]) -> u64 {
    complete.get(HEADER..).and_then(cstr).map_or(0, |(said, _)| rows_of_tag(said))
}

/// Rows that an answer has, as its CommandComplete says.
#[must_use]
pub fn rows(answer: &[u8]) -> u64 {
    let mut at = 0;
    while let Some(rest) = answer.get(at..)
        && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
    {
        if header.tag == tag::COMMAND_COMPLETE {
            return rest.get(..header.total).map_or(0, rows_said);
        }
        at += header.total;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build;

    fn messages(tags: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for &kind in tags {
            match kind {
                b'Z' => build::ready(&mut out, b'I'),
                b'z' => build::ready(&mut out, b'T'),
                kind => build::message(&mut out, kind, |out| out.extend_from_slice(b"any\0")),
            }
        }
        out
    }

    #[test]
    fn an_answer_is_whole_at_its_end_however_it_comes() {
        for tags in [&b"TDDCZ"[..], b"TCZ", b"12DCZ", b"1tT2CZ", b"2TDCZ", b"12TDDDCZ"] {
            let bytes = messages(tags);
            let parse = if tags[0] == b'1' { 9 } else { 0 };
            for step in [1, 3, 1000] {
                let mut scan = Scan::default();
                let mut end = 0;
                let last = loop {
                    end = (end + step).min(bytes.len());
                    let answer = scan.look(&bytes[..end]);
                    if end == bytes.len() {
                        break answer;
                    }
                    assert_eq!(answer, Answer::Partial, "{tags:?} up to {end}");
                };
                assert_eq!(last, Answer::Whole { parse, len: bytes.len(), rows: 0 }, "{tags:?} by {step}");
            }
        }
        // What follows belongs to another.
        let bytes = [messages(b"TCZ"), messages(b"E")].concat();
        assert_eq!(Scan::default().look(&bytes), Answer::Whole { parse: 0, len: bytes.len() - 9, rows: 0 });
    }

    #[test]
    fn rows_are_those_that_the_end_says() {
        let mut answer = messages(b"2TDD");
        build::message(&mut answer, b'C', |out| out.extend_from_slice(b"SELECT 2\0"));
        build::ready(&mut answer, b'I');
        assert_eq!((rows(&answer), rows(&messages(b"2TCZ")), rows(b"")), (2, 0, 0));
    }

    #[test]
    fn what_is_more_or_less_than_an_answer_is_not_kept() {
        for tags in [
            &b"E"[..],
            b"TDE",
            b"NTDCZ",
            b"TDNCZ",
            b"TDCNZ",
            b"TDCSZ",
            b"TACZ",
            b"TDCz",
            b"Z",
            b"TDCTDCZ",
            b"21",
            b"2s",
        ] {
            assert_eq!(Scan::default().look(&messages(tags)), Answer::Other, "{tags:?}");
        }
        assert_eq!(Scan::default().look(&messages(b"TDDC")), Answer::Partial);
        assert_eq!(Scan::default().look(b"T\0\0\0\x01"), Answer::Partial);
    }
}
