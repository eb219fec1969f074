//! The secrets of a user, any of which proves it, in the form that each method compares.
//! Must never be empty of work: a user without a usable secret costs what one with a password does.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::login::Account;
use super::scram::{ClientKey, ServerExchange, Verifier};
use super::secret_kind::SecretKind;
use super::{VerifierCache, md5};

/// What SCRAM and cleartext passwords are compared with.
pub(super) struct Candidates {
    /// Verifiers of one salt and iteration count, and whether each was on record as it is. Never empty.
    verifiers: Vec<(Arc<Verifier>, bool)>,
    /// Of other salts or of md5: good for cleartext passwords only.
    others: Vec<Other>,
    /// No proof counts.
    doomed: bool,
    /// The verifier is a mock: SCRAM is doomed.
    hopeless: bool,
}

enum Other {
    Verifier(Verifier),
    Md5(Zeroizing<String>),
}

impl Candidates {
    /// Whether the method md5 is md5 for this account: not if one of the secrets can be proved by SCRAM alone. Who has
    /// none that is of use is asked as others are.
    pub(super) fn asked_by_md5(account: &Account<'_>, cache: &VerifierCache) -> bool {
        let mut usable = false;
        for stored in account.secrets {
            match SecretKind::of(stored) {
                SecretKind::Scram(_) => return false,
                SecretKind::Plain | SecretKind::Md5 => usable = true,
                SecretKind::Empty | SecretKind::Damaged => {}
            }
        }
        usable || cache.asks_nobody_by_md5(account.user)
    }

    /// The first verifier on record gives salt and iteration count; plaintext passwords are derived with the same, so
    /// that one exchange can prove any of them.
    pub(super) fn of(account: &Account<'_>, cache: &mut VerifierCache) -> Self {
        let mut this = Self { verifiers: Vec::new(), others: Vec::new(), doomed: account.expired, hopeless: false };
        let mut plain = Vec::new();
        for stored in account.secrets {
            match SecretKind::of(stored) {
                SecretKind::Scram(verifier) => match this.verifiers.first() {
                    Some((first, _)) if !first.salts_like(&verifier) => {
                        this.others.push(Other::Verifier(verifier));
                    }
                    _ => this.verifiers.push((Arc::new(verifier), true)),
                },
                SecretKind::Plain => plain.push(*stored),
                SecretKind::Md5 => this.others.push(Other::Md5(Zeroizing::new((*stored).to_owned()))),
                SecretKind::Empty | SecretKind::Damaged => {}
            }
        }
        for password in plain {
            let verifier = match this.verifiers.first() {
                Some((first, _)) => cache.derive_with(account.user, password, &first.salt, first.iterations),
                None => cache.derive(account.user, password),
            };
            this.verifiers.push((verifier, false));
        }
        if this.verifiers.is_empty() {
            // Its keys are zero, which no password has, and it does the work of a real one.
            this.verifiers.push((Arc::new(cache.mock(account.user)), false));
            this.hopeless = true;
        }
        this
    }

    /// A SCRAM exchange that any of the verifiers ends well, and whether each of them was on record.
    pub(super) fn exchange(self) -> (ServerExchange, Vec<bool>) {
        let on_record = self.verifiers.iter().map(|(_, on_record)| *on_record).collect();
        let mut verifiers = self.verifiers.into_iter().map(|(verifier, _)| verifier);
        let first = verifiers.next().unwrap_or_else(|| Arc::new(super::Mocks::new([0; super::KEY_LEN]).verifier("")));
        let mut exchange = ServerExchange::new(first);
        verifiers.for_each(|verifier| exchange.add(verifier));
        if self.doomed || self.hopeless {
            exchange.doom();
        }
        (exchange, on_record)
    }

    /// Whether a cleartext password is one of them, and if it is one on record as a verifier, the key that opens
    /// servers. All are tried, and at least one PBKDF2 run is made, for unknown users too.
    pub(super) fn check(&self, user: &str, given: &[u8]) -> Option<Option<ClientKey>> {
        let mut found = None;
        for (verifier, on_record) in &self.verifiers {
            let key = verifier.check(given);
            found = found.or(key.map(|key| on_record.then_some(key)));
        }
        for other in &self.others {
            let one = match other {
                Other::Verifier(verifier) => verifier.check(given).map(Some),
                Other::Md5(stored) => md5::is_of(stored, user, given).then_some(None),
            };
            found = found.or(one);
        }
        found.filter(|_| !self.doomed && !given.is_empty())
    }

    /// The md5 hashes of plaintext and md5 secrets; that of an empty password is no secret.
    pub(super) fn md5_hashes(account: &Account<'_>) -> Vec<Zeroizing<String>> {
        let of_empty = md5::hash(account.user, b"");
        let hash = |stored: &&str| match SecretKind::of(stored) {
            SecretKind::Plain => Some(md5::hash(account.user, stored.as_bytes())),
            SecretKind::Md5 if *stored != of_empty.as_str() => Some(Zeroizing::new((*stored).to_owned())),
            SecretKind::Md5 | SecretKind::Empty | SecretKind::Damaged | SecretKind::Scram(_) => None,
        };
        account.secrets.iter().filter_map(hash).collect()
    }
}
