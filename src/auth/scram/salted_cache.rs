//! Remembers the keys of passwords, so that PBKDF2 runs once per user and not once per server connection.
//! Must never grow beyond its bound, nor keep a plaintext password.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;

use subtle::ConstantTimeEq as _;

use super::keys::{self, DerivedKeys};
use crate::auth::{Key, sha256};

/// Most passwords remembered; the oldest goes first. A linear search through them costs far less than one HMAC run.
const CAPACITY: usize = 256;

/// Keys by salt, iteration count and SHA-256 of the password.
#[derive(Default)]
pub struct SaltedCache {
    entries: VecDeque<Entry>,
    #[cfg(test)]
    pub(super) derivations: usize,
}

struct Entry {
    password_digest: Key,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    keys: DerivedKeys,
}

impl SaltedCache {
    /// An empty cache; it holds at most 256 entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys remembered at the moment.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything, as after a change of configured passwords.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn derive(&mut self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> DerivedKeys {
        let password_digest = sha256(&[password]);
        let known = self.entries.iter().find(|entry| {
            entry.iterations == iterations
                && entry.salt == salt
                && bool::from(entry.password_digest.ct_eq(&password_digest))
        });
        if let Some(entry) = known {
            return entry.keys.clone();
        }
        #[cfg(test)]
        {
            self.derivations += 1;
        }
        let keys = keys::derive(password, salt, iterations);
        if self.entries.len() >= CAPACITY {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { password_digest, salt: salt.to_vec(), iterations, keys: keys.clone() });
        keys
    }
}

impl fmt::Debug for SaltedCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SaltedCache").field("len", &self.len()).finish_non_exhaustive()
    }
}
