//! What makes an answer good beside its time, as processes tell each other.
//! Must never say of one what means something else in another process.
//!
//! What an answer *hangs on* does not stand there: that each process finds out by itself, of the same statement under the same schema. What stands there is up to
//! where the answer shows everything of that: a position in the write-ahead log, which means the same to all who follow that log, or how many writes had begun,
//! which all of one life of a fence count together, but for those that nobody could count: see there. Whoever finds it holds that against what it knows itself ([`crate::cache::feed`], [`crate::cache::fence`]; the
//! proofs there do not ask who has kept an answer). So one that is old is only a miss, in whatever order processes write.

use crate::wire::frame::be_u32;

/// Most tables of which an answer is told on what it stands.
const MOST: usize = 1024;

/// Up to where an answer shows everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// That is not known: it is good for its time.
    Time,
    /// All commits of this history that end at this position or before: see [`crate::cache::Traced`].
    Position {
        /// Of which write-ahead log.
        history: u64,
        /// Where.
        lsn: u64,
    },
    /// All writes that had begun: see [`crate::cache::Fenced`].
    Counts {
        /// Of the fence's hash.
        life: Box<str>,
        /// By table, ascending.
        begun: Box<[(u32, u64)]>,
    },
}

/// [`Hold::kind`] of each.
pub const TIME: u8 = 0;
/// See there.
pub const POSITION: u8 = 1;
/// See there.
pub const COUNTS: u8 = 2;

impl Hold {
    /// What a key begins with of answers that are good by this, so that those of one kind are not found by who wants another; the same as the first byte that is written.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Time => TIME,
            Self::Position { .. } => POSITION,
            Self::Counts { .. } => COUNTS,
        }
    }

    /// As it is written down.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        let mut out = vec![self.kind()];
        match self {
            Self::Time => {}
            Self::Position { history, lsn } => {
                [history, lsn].iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()))
            }
            Self::Counts { life, begun } => {
                for (table, begun) in begun {
                    out.extend_from_slice(&table.to_be_bytes());
                    out.extend_from_slice(&begun.to_be_bytes());
                }
                out.extend_from_slice(life.as_bytes());
                // Behind it, how much of it are tables.
                out.extend_from_slice(&u32::try_from(begun.len()).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
        out
    }

    /// Whether it can be written down.
    #[must_use]
    pub fn is_short(&self) -> bool {
        match self {
            Self::Time | Self::Position { .. } => true,
            Self::Counts { life, begun } => begun.len() <= MOST && life.len() <= MOST,
        }
    }

    /// What was written down.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            TIME => rest.is_empty().then_some(Self::Time),
            POSITION => {
                let (history, lsn) = rest.split_first_chunk::<8>()?;
                let lsn = u64::from_be_bytes(lsn.try_into().ok()?);
                Some(Self::Position { history: u64::from_be_bytes(*history), lsn })
            }
            COUNTS => {
                let (rest, count) = rest.split_last_chunk::<4>()?;
                let count = u32::from_be_bytes(*count) as usize;
                let (tables, life) = rest.split_at_checked(count.checked_mul(12)?)?;
                let one = |bytes: &[u8]| Some((be_u32(bytes)?, u64::from_be_bytes(bytes.get(4..)?.try_into().ok()?)));
                let begun = tables.chunks_exact(12).map(one).collect::<Option<_>>()?;
                Some(Self::Counts { life: std::str::from_utf8(life).ok()?.into(), begun })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let counts = |life: &str, begun: &[(u32, u64)]| Hold::Counts { life: life.into(), begun: begun.into() };
        let all = [
            Hold::Time,
            Hold::Position { history: u64::MAX, lsn: 0x16_B374_D848 },
            counts("", &[]),
            counts("a life", &[(0, 0), (16384, u64::MAX), (u32::MAX, 7)]),
        ];
        for (number, hold) in all.iter().enumerate() {
            let written = hold.written();
            assert!(hold.is_short() && Hold::read(&written).as_ref() == Some(hold), "{hold:?}");
            assert!(all[..number].iter().all(|other| other.written() != written));
            for len in 0..written.len() {
                assert!(Hold::read(&written[..len]).as_ref() != Some(hold), "{hold:?} of {len} bytes");
            }
        }
        for bad in [&b""[..], b"\x03", b"\0x", b"\x01\0\0\0\0\0\0\0\x01", b"\x02\0\0\0\x01", b"\x02\xff\xff\xff\xff"] {
            assert_eq!(Hold::read(bad), None, "{bad:?}");
        }
        assert!(!counts("l", &vec![(1, 1); MOST + 1]).is_short());
    }
}
