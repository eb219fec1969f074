//! What a walsender says: the frames of streaming replication, and in them what the plugin `pgoutput` tells of transactions.
//! Must never look at the values of a row.
//!
//! Version 1 of the plugin's protocol (PostgreSQL manual, "Logical Replication Message Formats"; src/backend/replication/logical/proto.c):
//! whole transactions, in the order of their commits.

use super::build;
use super::frame::{be_u32, cstr};
use super::tag::client::COPY_DATA;

/// A message of a walsender, as the body of a CopyData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// What the plugin has to say. Perhaps not to its end: what is looked at stands in front.
    Data(Change<'a>),
    /// It is there, and has sent everything up to here.
    Alive {
        /// Position behind the last that was sent.
        sent: u64,
        /// It wants to hear the same of us.
        asks: bool,
    },
}

/// A message of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A transaction begins, with the lower half of its number.
    Begin {
        /// Of the top-level transaction.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// Position behind the record of its commit.
        end: u64,
    },
    /// A row of this relation was inserted, updated or deleted.
    Row(u32),
    /// These relations were emptied: OIDs, four bytes each.
    Truncate(&'a [u8]),
    /// `pg_logical_emit_message`.
    Message {
        /// As part of its transaction.
        transactional: bool,
        /// What it was called with.
        prefix: &'a [u8],
        /// What it was called with.
        content: &'a [u8],
    },
    /// Something that changes no rows: a relation or type described, an origin.
    Other,
}

fn be_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.first_chunk::<8>()?))
}

impl<'a> Frame<'a> {
    /// Reads the body of a CopyData message; `None` if it makes no sense.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (kind, rest) = body.split_first()?;
        match kind {
            // Where it starts, the end of the log, the time.
            b'w' => Some(Self::Data(Change::read(rest.get(24..)?)?)),
            b'k' => Some(Self::Alive { sent: be_u64(rest)?, asks: *rest.get(16)? != 0 }),
            _ => None,
        }
    }
}

impl<'a> Change<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        Some(match kind {
            // The end of its commit, the time, its number.
            b'B' => Self::Begin { xid: be_u32(rest.get(16..)?)? },
            // Flags, the commit, its end, the time.
            b'C' => Self::Commit { end: be_u64(rest.get(9..)?)? },
            b'I' | b'U' | b'D' => Self::Row(be_u32(rest)?),
            b'T' => {
                let (count, listed) = (be_u32(rest)? as usize, rest.get(5..)?);
                Self::Truncate(listed.get(..count.checked_mul(4)?)?)
            }
            b'M' => {
                let (prefix, rest2) = cstr(rest.get(9..)?)?;
                let (length, content) = (be_u32(rest2)? as usize, rest2.get(4..)?);
                let content = content.get(..length.min(content.len()))?;
                Self::Message { transactional: rest.first()? & 1 != 0, prefix, content }
            }
            b'R' | b'Y' | b'O' => Self::Other,
            _ => return None,
        })
    }
}

/// Appends a standby status update: everything up to `lsn` was taken note of; `asks` for an answer.
pub fn status(out: &mut Vec<u8>, lsn: u64, asks: bool) {
    build::message(out, COPY_DATA, |out| {
        out.push(b'r');
        // Received, made durable, applied; the time, which is only shown.
        for number in [lsn, lsn, lsn, 0] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.push(u8::from(asks));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(message: &[u8]) -> Vec<u8> {
        [b"w", &[0; 24][..], message].concat()
    }

    #[test]
    fn reads_what_counts() {
        let number = |n: u64| n.to_be_bytes();
        let cases: [(&[u8], Change<'_>); 7] = [
            (&[b"B", &number(9)[..], &number(0), &[0, 0, 2, 1]].concat(), Change::Begin { xid: 513 }),
            (&[b"C\0", &number(5)[..], &number(7), &number(0)].concat(), Change::Commit { end: 7 }),
            (b"I\0\0\x40\0N\0\x01n", Change::Row(16384)),
            (b"U\0\0\x40\x01", Change::Row(16385)),
            (b"T\0\0\0\x02\0\0\0\x40\0\0\0\x40\x01", Change::Truncate(b"\0\0\x40\0\0\0\x40\x01")),
            (
                b"M\x01\0\0\0\0\0\0\0\0pgweir\0\0\0\0\x02ab",
                Change::Message { transactional: true, prefix: b"pgweir", content: b"ab" },
            ),
            (b"R\0\0\x40\0public\0item\0d\0\0", Change::Other),
        ];
        for (message, change) in cases {
            assert_eq!(Frame::read(&data(message)), Some(Frame::Data(change)));
        }
        let alive = [b"k", &number(77)[..], &number(0), b"\x01"].concat();
        assert_eq!(Frame::read(&alive), Some(Frame::Alive { sent: 77, asks: true }));
        let mut out = Vec::new();
        status(&mut out, 3, true);
        assert_eq!((out.len(), out[5], out[13], out[38]), (39, b'r', 3, 1));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for bad in [&b""[..], b"w", b"k\0", b"x", &data(b""), &data(b"B\0"), &data(b"C"), &data(b"I\0"), &data(b"?")] {
            assert_eq!(Frame::read(bad), None, "{bad:?}");
        }
        for bad in [&b"T\0\0\0\x02\0\0\0\x40\0"[..], b"T\xff\xff\xff\xff\0", b"M\x01\0\0\0\0\0\0\0\0pgweir", b"M\x01"] {
            assert_eq!(Frame::read(&data(bad)), None, "{bad:?}");
        }
    }
}
