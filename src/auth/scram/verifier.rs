//! What the server side of SCRAM stores about a password: PostgreSQL's `SCRAM-SHA-256$…` text.
//! Must never show its keys in `Debug`, nor allow the password or ClientKey to be computed from it.

use std::fmt;
use std::num::NonZeroU32;

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::text::{decode, decode_iterations, decode_key, encode};
use super::{ClientKey, ITERATIONS, ITERATIONS_MAX, MECHANISM, SALT_MAX, keys};
use crate::auth::Key;

/// Iterations as PostgreSQL stores them: a positive C `int` (`scram_iterations`).
const STORED_ITERATIONS_MAX: u32 = i32::MAX as u32;

/// Salt, iteration count and the two keys of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// PBKDF2 iterations, at least 1.
    pub iterations: NonZeroU32,
    /// Salt, 1 to [`SALT_MAX`] bytes.
    pub salt: Vec<u8>,
    /// SHA-256 of the ClientKey: proves that the client knows the password.
    pub stored_key: Key,
    /// Key with which the server proves that it knows the verifier.
    pub server_key: Key,
}

impl Verifier {
    /// Derives the verifier of a plaintext password (PostgreSQL `scram_build_secret`). Costs one PBKDF2 run.
    pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let derived = keys::derive(password, salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: keys::stored_key(&derived.client_key),
            server_key: *derived.server_key,
        }
    }

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (PostgreSQL `parse_scram_secret`).
    /// `None` for anything else.
    pub fn parse(stored: &str) -> Option<Self> {
        let rest = stored.strip_prefix(MECHANISM)?.strip_prefix('$')?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let salt = decode(salt, SALT_MAX)?;
        if salt.is_empty() {
            return None;
        }
        Some(Self {
            iterations: decode_iterations(iterations, STORED_ITERATIONS_MAX)?,
            salt,
            stored_key: decode_key(stored_key)?,
            server_key: decode_key(server_key)?,
        })
    }

    /// The text that [`Verifier::parse`] reads. It is a secret: who has it can pretend to be the server.
    pub fn format(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key),
        ))
    }

    /// Whether a client that was told the one's salt and iteration count has computed its proof for the other too.
    pub fn salts_like(&self, other: &Self) -> bool {
        self.salt == other.salt && self.iterations == other.iterations
    }

    /// Whether this is the verifier of a cleartext password; if so, the key that opens servers with the same one.
    /// Costs one PBKDF2 run; a verifier of more than [`ITERATIONS_MAX`] matches nothing, for it would stop the thread.
    pub fn check(&self, password: &[u8]) -> Option<ClientKey> {
        if self.iterations.get() > ITERATIONS_MAX {
            return None;
        }
        let derived = keys::derive(password, &self.salt, self.iterations);
        let matches = keys::stored_key(&derived.client_key).ct_eq(&self.stored_key);
        bool::from(matches).then(|| self.opened_by(derived.client_key))
    }

    /// The key of a client that has proved to know the password, and what goes with it.
    pub(super) fn opened_by(&self, client_key: Zeroizing<Key>) -> ClientKey {
        ClientKey {
            client_key,
            server_key: Zeroizing::new(self.server_key),
            salt: self.salt.clone(),
            iterations: self.iterations,
        }
    }
}

/// [`ITERATIONS`] as PBKDF2 wants it.
pub(in crate::auth) fn default_iterations() -> NonZeroU32 {
    NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN)
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}
