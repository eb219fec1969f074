//! How an answer stands in Redis: under a name that tells nothing, sealed over its key, so that it counts under that one only.
//! Must never let a byte be looked at as part of an answer before the seal was found whole.
//!
//! A value is: version (1 byte), flags (1), time for which it is good (8, microseconds), when it began (8, microseconds of Redis' clock since 1970), position in the
//! write-ahead log of the replica that it is from (8), its length (4), that of what makes it good beside its time (2), the seal (32), that ([`super::hold`]), and the answer, compressed if
//! the flag says so. Numbers are big endian. The seal is a BLAKE3 hash under a key of its own over the length of the key, the key, all that stands in front of
//! the seal, and all that stands behind it. While an answer is on its way, a *lease* stands in its place: a byte 255, whose it is (8), how long the answer usually takes (8,
//! microseconds), and a seal over the key and these. Names are hashes under another key. What else is told is hidden under a third: in front stands a hash of it, from which what it is
//! mixed with is derived, so that it cannot be read, nor made up, and the same is hidden in the same way. All keys come from the secret of the configuration, by BLAKE3's own derivation.

use blake3::Hasher;
use bytes::Bytes;
use zeroize::Zeroizing;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::hold::Hold;
use crate::base::secret::Secret;
use crate::cache::Source;
use crate::cache::answer::{Answer, Scan};

/// What this file writes and reads; another whenever that changes.
const VERSION: u8 = 2;
const COMPRESSED: u8 = 1;
const OF_REPLICA: u8 = 2;
/// Where the seal of an answer stands, and how long it is.
pub(super) const SEAL: usize = 32;
/// See there.
pub(super) const SEAL_BYTES: usize = blake3::OUT_LEN;
const BODY: usize = SEAL + SEAL_BYTES;
/// In front of what is hidden: as long as it takes that nobody meets another with the same.
const FRONT_BYTES: usize = 32;

/// In front of what stands in the place of an answer that is on its way.
const LEASE: u8 = 0xff;
/// The same, and whose it is: by what its own process knows it.
const LEASE_FRONT: usize = 1 + 8;
/// The same, and how long the answer usually takes.
const LEASE_HEAD: usize = LEASE_FRONT + 8;

/// An answer is on its way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who has asked for it: a number of one worker of one process.
    pub whose: u64,
    /// How long that usually takes, microseconds; 0: nobody knows.
    pub usual_us: u64,
}

impl Lease {
    /// What it begins with, whatever it takes.
    #[must_use]
    pub fn front(whose: u64) -> [u8; LEASE_FRONT] {
        let mut front = [LEASE; LEASE_FRONT];
        front[1..].copy_from_slice(&whose.to_be_bytes());
        front
    }
}

/// Why a value is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is of another version, or not one whole answer.
    Malformed,
    /// It was not sealed with this secret under this key.
    Forged,
    /// It is longer than wanted.
    Long,
}

/// What a value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The messages, as in [`crate::cache::Entry::answer`].
    pub answer: Bytes,
    /// When it had not begun yet, microseconds of Redis' clock.
    pub began_us: u64,
    /// Where it ran.
    pub source: Source,
    /// For how long it is good from then on, microseconds.
    pub ttl_us: u64,
    /// What makes it good beside that: a [short](Hold::is_short) one.
    pub hold: Hold,
}

/// The seal of a value that is an answer's: no two have the same.
#[must_use]
pub(super) fn of(value: &[u8]) -> Option<[u8; SEAL_BYTES]> {
    value.get(SEAL..BODY)?.try_into().ok()
}

/// Keys for names and for seals.
pub struct Keys {
    names: Zeroizing<[u8; 32]>,
    seals: Zeroizing<[u8; 32]>,
    words: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Those of a secret.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        let key = |context| Zeroizing::new(blake3::derive_key(context, secret.expose().as_bytes()));
        Self {
            names: key("pgweir 2026-11-22 cache.redis: names"),
            seals: key("pgweir 2026-11-22 cache.redis: seals"),
            words: key("pgweir 2026-11-23 cache.redis: words"),
        }
    }

    /// Under which name the answer of a key stands.
    #[must_use]
    pub fn name(&self, prefix: &str, key: &[u8]) -> String {
        let hash = blake3::keyed_hash(&self.names, key);
        let mut name = String::with_capacity(prefix.len() + SEAL_BYTES.div_ceil(3) * 4);
        name.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(hash.as_bytes(), &mut name);
        name
    }

    /// What stands under a key as long as its answer is on its way.
    #[must_use]
    pub fn lease(&self, key: &[u8], lease: Lease) -> Vec<u8> {
        let mut value = Lease::front(lease.whose).to_vec();
        value.extend_from_slice(&lease.usual_us.to_be_bytes());
        let seal = self.hash(key, &value, &[]);
        value.extend_from_slice(seal.as_bytes());
        value
    }

    /// What that says, if a value is that and sealed under this key.
    #[must_use]
    pub fn read_lease(&self, key: &[u8], value: &[u8]) -> Option<Lease> {
        let (head, seal) = value.split_first_chunk::<LEASE_HEAD>()?;
        let seal: [u8; SEAL_BYTES] = seal.try_into().ok()?;
        if head[0] != LEASE || self.hash(key, head, &[]) != blake3::Hash::from_bytes(seal) {
            return None;
        }
        let number = |at: usize| Some(u64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
        Some(Lease { whose: number(1)?, usual_us: number(LEASE_FRONT)? })
    }

    /// A text as nobody reads it who has not the secret.
    #[must_use]
    pub fn hide(&self, text: &[u8]) -> String {
        let front = self.front(text);
        let hidden: Vec<u8> = front.iter().copied().chain(self.mixed(&front, text)).collect();
        URL_SAFE_NO_PAD.encode(hidden)
    }

    /// The text that was hidden with the same secret.
    #[must_use]
    pub fn reveal(&self, hidden: &str) -> Option<Vec<u8>> {
        let hidden = URL_SAFE_NO_PAD.decode(hidden).ok()?;
        let (front, rest) = hidden.split_first_chunk::<FRONT_BYTES>()?;
        let text: Vec<u8> = self.mixed(front, rest).collect();
        (blake3::Hash::from(*front) == blake3::Hash::from(self.front(&text))).then_some(text)
    }

    fn front(&self, text: &[u8]) -> [u8; FRONT_BYTES] {
        let mut front = [0; FRONT_BYTES];
        Hasher::new_keyed(&self.words).update(b"front").update(text).finalize_xof().fill(&mut front);
        front
    }

    /// Mixed a second time it is what it was.
    fn mixed<'a>(&self, front: &[u8; FRONT_BYTES], text: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
        let mut with = vec![0; text.len()];
        Hasher::new_keyed(&self.words).update(b"mixed").update(front).finalize_xof().fill(&mut with);
        text.iter().zip(with).map(|(byte, with)| byte ^ with)
    }

    fn hash(&self, key: &[u8], head: &[u8], body: &[&[u8]]) -> blake3::Hash {
        let mut hasher = Hasher::new_keyed(&self.seals);
        hasher.update(&(key.len() as u64).to_be_bytes()).update(key).update(head);
        for part in body {
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// The value for an answer under a key; compressed if it is longer than `compress_above` and that makes it shorter.
    #[must_use]
    pub fn seal(&self, key: &[u8], sealed: &Sealed, compress_above: usize) -> Vec<u8> {
        let answer = &sealed.answer;
        let packed = (answer.len() > compress_above).then(|| lz4_flex::block::compress(answer));
        let packed = packed.filter(|packed| packed.len() < answer.len());
        let body = packed.as_deref().unwrap_or(answer);
        let (replica, lsn) = match sealed.source {
            Source::Primary => (0, 0),
            Source::Replica(lsn) => (OF_REPLICA, lsn),
        };
        let flags = replica | if packed.is_some() { COMPRESSED } else { 0 };
        let hold = sealed.hold.written();
        let mut value = Vec::with_capacity(BODY + hold.len() + body.len());
        value.extend_from_slice(&[VERSION, flags]);
        for number in [sealed.ttl_us, sealed.began_us, lsn] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        // An answer that is kept is shorter than `max_entry_bytes`.
        value.extend_from_slice(&u32::try_from(answer.len()).unwrap_or(u32::MAX).to_be_bytes());
        value.extend_from_slice(&u16::try_from(hold.len()).unwrap_or(u16::MAX).to_be_bytes());
        let seal = self.hash(key, &value, &[&hold, body]);
        value.extend_from_slice(seal.as_bytes());
        value.extend_from_slice(&hold);
        value.extend_from_slice(body);
        value
    }

    /// What a value under a key says, if it is one whole answer of at most `longest` bytes.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn open(&self, key: &[u8], value: &[u8], longest: usize) -> Result<Sealed, Bad> {
        let (Some((head, rest)), Some(VERSION)) = (value.split_first_chunk::<SEAL>(), value.first().copied()) else {
            return Err(Bad::Malformed);
        };
        let (seal, body) = rest.split_first_chunk::<SEAL_BYTES>().ok_or(Bad::Malformed)?;
        // The comparison of two hashes takes the same time wherever they differ.
        if self.hash(key, head, &[body]) != blake3::Hash::from_bytes(*seal) {
            return Err(Bad::Forged);
        }
        let number = |at: usize| {
            let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_be_bytes).ok_or(Bad::Malformed)
        };
        let (flags, ttl_us, began_us, lsn) = (head[1], number(2)?, number(10)?, number(18)?);
        let len = u32::from_be_bytes([head[26], head[27], head[28], head[29]]) as usize;
        if len > longest {
            return Err(Bad::Long);
        }
        let hold = usize::from(u16::from_be_bytes([head[30], head[31]]));
        let (hold, body) = body.split_at_checked(hold).ok_or(Bad::Malformed)?;
        let hold = Hold::read(hold).ok_or(Bad::Malformed)?;
        let answer = if flags & COMPRESSED == 0 {
            Bytes::copy_from_slice(body)
        } else {
            Bytes::from(lz4_flex::block::decompress(body, len).map_err(|_| Bad::Malformed)?)
        };
        let is_whole = matches!(Scan::default().look(&answer), Answer::Whole { parse: 0, len: it, .. } if it == len);
        if answer.len() != len || !is_whole {
            return Err(Bad::Malformed);
        }
        let source = if flags & OF_REPLICA == 0 { Source::Primary } else { Source::Replica(lsn) };
        Ok(Sealed { answer, began_us, source, ttl_us, hold })
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
