//! SCRAM verifiers of plaintext passwords, derived once; owned by the gate.
//! Must never keep a plaintext password, nor give users a salt that tells whether they exist.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::scram::Verifier;
use super::{Key, Mocks, sha256};
use crate::auth::scram::{SALT_LEN, default_iterations};

/// Most verifiers kept. Only configured users get here, so a full cache means passwords of earlier configurations.
const CAPACITY: usize = 16_384;

/// Verifiers by user and password, and the secret that salts and mock verifiers are derived from.
pub struct VerifierCache {
    mocks: Mocks,
    verifiers: HashMap<Key, Arc<Verifier>>,
}

impl VerifierCache {
    /// An empty cache. `secret` is random, made once per process and shared by all gates: were it not, salts would
    /// differ between gates.
    pub fn new(secret: Key) -> Self {
        Self { mocks: Mocks::new(secret), verifiers: HashMap::new() }
    }

    /// The verifier of a user's plaintext password; the first time it costs a PBKDF2 run of some 0.7 ms. Call it for
    /// all users when a configuration is loaded, so that a first login is not slower than one of an unknown user.
    pub fn derive(&mut self, user: &str, password: &str) -> Arc<Verifier> {
        let salt = self.mocks.salt(user, SALT_LEN);
        self.derive_with(user, password, &salt, default_iterations())
    }

    /// [`VerifierCache::derive`] with the salt and iteration count of another verifier of the user, so that one
    /// exchange can tell both passwords.
    pub fn derive_with(&mut self, user: &str, password: &str, salt: &[u8], iterations: NonZeroU32) -> Arc<Verifier> {
        // The length keeps ("ab", "c") apart from ("a", "bc").
        let length = (user.len() as u64).to_be_bytes();
        let salt_length = (salt.len() as u64).to_be_bytes();
        let count = iterations.get().to_be_bytes();
        let key = sha256(&[&length, user.as_bytes(), &salt_length, salt, &count, password.as_bytes()]);
        if let Some(verifier) = self.verifiers.get(&key) {
            return Arc::clone(verifier);
        }
        let verifier = Arc::new(Verifier::derive(password.as_bytes(), salt, iterations));
        if self.verifiers.len() >= CAPACITY {
            self.verifiers.clear();
        }
        self.verifiers.insert(key, Arc::clone(&verifier));
        verifier
    }

    /// Takes a user of the configuration into account: derives whatever a login with these secrets will need, and
    /// lets unknown users resemble it.
    pub fn prepare(&mut self, user: &str, secrets: &[&str]) {
        self.mocks.resemble(secrets);
        let account = super::login::Account { user, secrets, expired: false };
        drop(super::candidates::Candidates::of(&account, self));
    }

    /// The verifier for a user without usable password, for a doomed exchange.
    pub fn mock(&self, user: &str) -> Verifier {
        self.mocks.verifier(user)
    }

    /// Whether an unknown user is asked by md5 where that is the method.
    pub(super) fn asks_nobody_by_md5(&self, user: &str) -> bool {
        self.mocks.is_asked_by_md5(user)
    }

    /// Lets unknown users resemble one who was looked up and has proved itself by one of these secrets.
    pub fn came_in(&mut self, secrets: &[&str]) {
        self.mocks.came_in(secrets);
    }

    /// Another secret from now on; to be given before anything is derived.
    pub fn rekey(&mut self, secret: Key) {
        self.mocks.rekey(secret);
    }

    /// An empty cache with the same secret; for a reload of the configuration.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self { mocks: self.mocks.renewed(), verifiers: HashMap::new() }
    }

    /// Verifiers kept at the moment.
    pub fn len(&self) -> usize {
        self.verifiers.len()
    }

    /// Whether no verifier is kept.
    pub fn is_empty(&self) -> bool {
        self.verifiers.is_empty()
    }
}

impl fmt::Debug for VerifierCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VerifierCache").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_once_and_salts_like_the_mock() {
        let mut cache = VerifierCache::new([9; 32]);
        let first = cache.derive("ab", "c");
        assert!(Arc::ptr_eq(&first, &cache.derive("ab", "c")));
        assert_ne!(first, cache.derive("a", "bc"));
        assert_eq!(cache.len(), 2);
        let mock = cache.mock("ab");
        assert_eq!(
            (&mock.salt, mock.iterations),
            (&first.salt, first.iterations),
            "a user's existence shows in its salt"
        );
        assert_ne!(mock.salt, cache.mock("abc").salt);
        assert_ne!(mock.salt, VerifierCache::new([8; 32]).mock("ab").salt);
        let mut cache = cache.renewed();
        assert!(cache.is_empty());
        assert_eq!(first, cache.derive("ab", "c"), "a reload does not change the salt");
    }
}
