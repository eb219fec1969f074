//! What a walsender says: the frames of streaming replication, and in them what the plugin `pgoutput` tells of transactions.
//! Must never look at the values of a row, but for those that it is told by.
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
    Row {
        /// The relation.
        oid: u32,
        /// What it is told by: for [`keys`].
        values: &'a [u8],
    },
    /// What a relation is like whose rows come next.
    Relation {
        /// The relation.
        oid: u32,
        /// Its columns: for [`identity`].
        columns: &'a [u8],
    },
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
    /// Something that changes no rows: a type described, an origin.
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
            b'I' | b'U' | b'D' => Self::Row { oid: be_u32(rest)?, values: rest.get(4..)? },
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
            b'R' => {
                // Its schema, its name, by what its rows are told.
                let (_, rest2) = cstr(rest.get(4..)?)?;
                let (_, rest2) = cstr(rest2)?;
                Self::Relation { oid: be_u32(rest)?, columns: rest2.get(1..)? }
            }
            b'Y' | b'O' => Self::Other,
            _ => return None,
        })
    }
}

/// A column by which rows are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// Its place among the columns, from 0.
    pub at: u16,
    /// Its name.
    pub name: &'a [u8],
    /// OID of its type.
    pub kind: u32,
}

/// The columns by which rows of a relation are told: its replica identity. `None` if not all of them are here.
#[must_use]
pub fn identity(columns: &[u8]) -> Option<Vec<Told<'_>>> {
    let (count, mut rest) = columns.split_first_chunk::<2>()?;
    let mut found = Vec::new();
    for at in 0..u16::from_be_bytes(*count) {
        let (flags, behind) = rest.split_first()?;
        let (name, behind) = cstr(behind)?;
        let kind = be_u32(behind)?;
        // The modifier of its type.
        rest = behind.get(8..)?;
        if flags & 1 != 0 {
            found.push(Told { at, name, kind });
        }
    }
    Some(found)
}

/// Most columns that [`keys`] finds.
pub const KEY_COLUMNS: usize = 4;

/// Tells the values of these columns, in ascending order and at most [`KEY_COLUMNS`], of what a row was, if that is told, and of what it is. False if they are not all
/// here as texts: then nothing is certain. A relation whose rows are told by all that they hold is not meant.
#[must_use]
pub fn keys<'a>(values: &'a [u8], at: &[u16], mut tell: impl FnMut([&'a [u8]; KEY_COLUMNS])) -> bool {
    let mut rest = values;
    while let Some((kind, row)) = rest.split_first() {
        let Some((found, behind)) = columns(row, at, *kind == b'N').filter(|_| matches!(kind, b'K' | b'N')) else {
            return false;
        };
        tell(found);
        rest = behind;
    }
    !values.is_empty()
}

/// The values of these columns, and what is behind the row; nothing, if it `ends` there.
fn columns<'a>(row: &'a [u8], at: &[u16], ends: bool) -> Option<([&'a [u8]; KEY_COLUMNS], &'a [u8])> {
    let (count, mut rest) = row.split_first_chunk::<2>()?;
    let (mut found, mut places) = ([&b""[..]; KEY_COLUMNS], at.iter().zip(0..KEY_COLUMNS).peekable());
    for number in 0..u16::from_be_bytes(*count) {
        if ends && places.peek().is_none() {
            return Some((found, b""));
        }
        let (kind, behind) = rest.split_first()?;
        let value = match kind {
            b't' | b'b' => {
                let length = be_u32(behind)? as usize;
                let (value, behind) = behind.get(4..)?.split_at_checked(length)?;
                rest = behind;
                Some(value).filter(|_| *kind == b't')
            }
            _ => {
                rest = behind;
                None
            }
        };
        if let Some((_, place)) = places.next_if(|(at, _)| **at == number) {
            *found.get_mut(place)? = value?;
        }
    }
    (places.peek().is_none() && at.len() <= KEY_COLUMNS).then_some((found, rest))
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
        let cases: [(&[u8], Change<'_>); 8] = [
            (&[b"B", &number(9)[..], &number(0), &[0, 0, 2, 1]].concat(), Change::Begin { xid: 513 }),
            (&[b"C\0", &number(5)[..], &number(7), &number(0)].concat(), Change::Commit { end: 7 }),
            (b"I\0\0\x40\0N\0\x01n", Change::Row { oid: 16384, values: b"N\0\x01n" }),
            (b"U\0\0\x40\x01", Change::Row { oid: 16385, values: b"" }),
            (b"T\0\0\0\x02\0\0\0\x40\0\0\0\x40\x01", Change::Truncate(b"\0\0\x40\0\0\0\x40\x01")),
            (
                b"M\x01\0\0\0\0\0\0\0\0pgweir\0\0\0\0\x02ab",
                Change::Message { transactional: true, prefix: b"pgweir", content: b"ab" },
            ),
            (b"R\0\0\x40\0public\0item\0d\0\0", Change::Relation { oid: 16384, columns: b"\0\0" }),
            (b"Y\0\0\x40\0public\0mood\0", Change::Other),
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
    fn rows_are_told_by_their_keys() {
        let columns = b"\0\x03\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff\x01part\0\0\0\0\x14\xff\xff\xff\xff";
        let (id, part) = (Told { at: 0, name: b"id", kind: 23 }, Told { at: 2, name: b"part", kind: 20 });
        assert_eq!(identity(columns), Some(vec![id, part]));
        assert_eq!((identity(&columns[..columns.len() - 1]), identity(b"\0\0")), (None, Some(Vec::new())));
        let told = |values: &[u8], at: &[u16]| {
            let mut all = Vec::new();
            let whole = keys(values, at, |found| all.push(found.map(<[u8]>::to_vec)));
            whole.then_some(all)
        };
        let one = |id: &[u8], part: &[u8]| [id.to_vec(), part.to_vec(), Vec::new(), Vec::new()];
        let (old, new) = (&b"K\0\x03t\0\0\0\x011nt\0\0\0\x02-7"[..], &b"N\0\x03t\0\0\0\x012ut\0\0\0\x018"[..]);
        assert_eq!(told(new, &[0, 2]), Some(vec![one(b"2", b"8")]));
        assert_eq!(told(old, &[0, 2]), Some(vec![one(b"1", b"-7")]));
        assert_eq!(told(&[old, new].concat(), &[0, 2]), Some(vec![one(b"1", b"-7"), one(b"2", b"8")]));
        // What is behind the key may be missing, what is in it may not.
        assert_eq!(told(&new[..9], &[0]), Some(vec![one(b"2", b"")]));
        for (values, at) in [
            (&b""[..], &[0][..]),
            (&new[..12], &[0, 2]),
            (&old[..12], &[0]),
            (new, &[1]),
            (old, &[1]),
            (new, &[3]),
            (b"O\0\x01t\0\0\0\x011", &[0]),
            (b"N\0\x01b\0\0\0\x04\0\0\0\x01", &[0]),
            (new, &[0, 1, 2, 3, 4]),
        ] {
            assert_eq!(told(values, at), None, "{values:?} {at:?}");
        }
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
