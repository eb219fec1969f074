//! What a client has seen of a cluster's data: what a replica must have to serve it.
//! Must never be compared across clusters: positions and numbers are each one's own.

use std::num::NonZeroU64;

use super::cluster::Cluster;

/// Position in the write-ahead log, in bytes.
pub type Lsn = u64;

/// What a client must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Floor {
    /// Anything: it has written nothing that some replica may lack.
    #[default]
    None,
    /// Its write, whose position is in the answer to the first question after this one.
    After(u64),
    /// Everything up to here.
    At(Lsn),
}

/// What a client has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// What a replica must have to serve it.
    pub floor: Floor,
    /// The floor was raised by a read on the primary alone: it may wait a moment for a replica.
    pub by_read: bool,
    /// How often it has read from a replica since it could choose which.
    pub reads: u16,
    /// The replica that it read from last, with the number of the last question that was sent to it by then.
    pub last: Option<Seen>,
}

/// A member that was read from, and the number of the last question that was sent to it by then: in one word, as every
/// client has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(NonZeroU64);

impl Seen {
    pub(super) fn new(member: usize, question: u64) -> Option<Self> {
        let member = u8::try_from(member).ok().and_then(|member| member.checked_add(1))?;
        NonZeroU64::new(question << 8 | u64::from(member)).map(Self)
    }

    /// Number of the member in its cluster.
    #[must_use]
    pub fn member(self) -> usize {
        (self.0.get() & 0xff) as usize - 1
    }

    pub(super) fn question(self) -> u64 {
        self.0.get() >> 8
    }
}

impl Sight {
    /// The same after a move from one cluster to another, whose positions and numbers are its own.
    #[must_use]
    pub fn moved(self, from: &Cluster, to: &Cluster) -> Self {
        if std::ptr::eq(from, to) {
            return self;
        }
        // Also one without a floor may have written what only all replicas of the old one have.
        Self { floor: to.wrote(), by_read: true, reads: 0, last: None }
    }

    /// With a floor that is no lower than this.
    #[must_use]
    pub fn at_least(self, lsn: Option<Lsn>) -> Self {
        let floor = match (self.floor, lsn) {
            (floor, None) | (floor @ Floor::After(_), _) => floor,
            (Floor::None, Some(lsn)) => Floor::At(lsn),
            (Floor::At(floor), Some(lsn)) => Floor::At(floor.max(lsn)),
        };
        Self { floor, ..self }
    }
}
