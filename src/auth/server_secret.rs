//! What a role proves itself with to servers: a configured or looked-up secret, and the key of a client's own login.
//! Must never be kept for a role other than the one whose login it came from.

use super::scram::ClientKey;
use crate::config::Password;

/// Pure data, handed from the gate to the worker with each login.
#[derive(Clone, Debug, Default)]
pub struct ServerSecret {
    /// The secret on record, of whatever kind.
    pub stored: Option<Password>,
    /// The key that the newest client to log in by SCRAM proved to have; opens servers that store the same verifier.
    pub client_key: Option<ClientKey>,
}

impl ServerSecret {
    /// A secret on record, without a client's key.
    pub fn of(stored: Option<Password>) -> Self {
        Self { stored, client_key: None }
    }

    /// Takes over what a newer login of the same role knows. A key outlives logins that bring none, unless the secret
    /// on record has changed.
    pub fn refresh(&mut self, newer: Self) {
        let changed = self.stored != newer.stored;
        self.stored = newer.stored;
        if newer.client_key.is_some() || changed {
            self.client_key = newer.client_key;
        }
    }

    /// Drops the key if it is the one given: a server has refused it.
    pub fn forget(&mut self, key: &ClientKey) {
        if self.client_key.as_ref() == Some(key) {
            self.client_key = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use zeroize::Zeroizing;

    use super::*;
    use crate::base::secret::Secret;

    fn key(byte: u8) -> ClientKey {
        let key = Zeroizing::new([byte; 32]);
        ClientKey { client_key: key.clone(), server_key: key, salt: b"s".to_vec(), iterations: NonZeroU32::MIN }
    }

    fn with(stored: &str, client_key: Option<ClientKey>) -> ServerSecret {
        ServerSecret { stored: Some(Password::Plain(Secret::new(stored.to_owned()))), client_key }
    }

    #[test]
    fn the_newest_login_counts() {
        let mut secret = with("a", None);
        secret.refresh(with("a", Some(key(1))));
        secret.refresh(with("a", None));
        assert_eq!(secret.client_key, Some(key(1)), "a login without a key takes none away");
        secret.refresh(with("a", Some(key(2))));
        secret.forget(&key(1));
        assert_eq!(secret.client_key, Some(key(2)), "only the refused key is dropped");
        secret.refresh(with("b", None));
        assert_eq!(secret.client_key, None, "the key of another secret");
        secret.refresh(with("b", Some(key(3))));
        secret.forget(&key(3));
        assert_eq!(secret.client_key, None);
    }
}
