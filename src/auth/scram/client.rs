//! The client role of SCRAM-SHA-256, for logins towards servers.
//! Must never accept a server that has not proved that it knows the password, nor work without bound for one.

use std::fmt;
use std::num::NonZeroU32;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::keys::DerivedKeys;
use super::text::{Attributes, decode, decode_iterations, decode_key, encode, is_nonce, text};
use super::{Binding, ITERATIONS_MAX, NONCE_MAX, SALT_MAX, SERVER_MESSAGE_MAX, SaltedCache, ScramError, keys, nonce};
use crate::auth::Key;

/// Longest text kept of a server's `e=`, in characters.
const SERVER_TEXT_MAX: usize = 100;

/// A key that a client proved to have, good at servers that store the same verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// ClientKey of the password.
    pub client_key: Zeroizing<Key>,
    /// ServerKey of the password, to check the server.
    pub server_key: Zeroizing<Key>,
    /// Salt of the verifier; a server with another one cannot be used.
    pub salt: Vec<u8>,
    /// Iterations of the verifier; a server with another count cannot be used.
    pub iterations: NonZeroU32,
}

/// What proves to the server who we are.
#[derive(Clone)]
pub enum Credential {
    /// The plaintext password.
    Password(Zeroizing<Vec<u8>>),
    /// A key taken from a client's own login.
    ClientKey(ClientKey),
}

impl Credential {
    /// A copy of a plaintext password that is erased after use.
    pub fn password(password: &[u8]) -> Self {
        Self::Password(Zeroizing::new(password.to_vec()))
    }
}

/// One exchange with one server; each step may be taken once, in order.
pub struct ClientExchange {
    credential: Credential,
    binding: Binding,
    nonce: String,
    first_bare: String,
    state: State,
}

enum State {
    /// Waiting for the server-first-message.
    First,
    /// Waiting for the server-final-message, with the signature that it must carry.
    Final(Zeroizing<Key>),
    /// The server is verified, or the exchange ended by an error.
    Over,
}

/// The server-first-message, checked against all bounds.
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl ClientExchange {
    /// A new exchange with a fresh nonce.
    ///
    /// # Errors
    /// [`ScramError::Random`] if the operating system gives no random bytes.
    pub fn new(credential: Credential) -> Result<Self, ScramError> {
        // Like libpq, name no user: PostgreSQL takes it from the startup packet.
        Ok(Self::assemble(credential, "", nonce()?))
    }

    /// An exchange with user name and nonce given, as the vectors of RFC 7677 need them.
    pub(super) fn assemble(credential: Credential, user: &str, nonce: String) -> Self {
        let first_bare = format!("n={user},r={nonce}");
        Self { credential, binding: Binding::None, nonce, first_bare, state: State::First }
    }

    /// The exchange with channel binding, or with what is said instead of it.
    #[must_use]
    pub fn bound(self, binding: Binding) -> Self {
        Self { binding, ..self }
    }

    /// The client-first-message, the data of SASLInitialResponse (see [`crate::auth::sasl::initial_response`]).
    pub fn client_first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.header(), self.first_bare).into_bytes()
    }

    /// Takes the server-first-message and gives the client-final-message. With a password that `cache` does not know
    /// yet this runs PBKDF2: about 0.2 µs for each iteration the server asks for.
    ///
    /// # Errors
    /// [`ScramError::Malformed`] also beyond [`ITERATIONS_MAX`], [`NONCE_MAX`], [`SALT_MAX`]; [`ScramError::Nonce`];
    /// [`ScramError::KeyMismatch`] if a [`ClientKey`] does not fit this server.
    pub fn on_server_first(&mut self, message: &[u8], cache: &mut SaltedCache) -> Result<Vec<u8>, ScramError> {
        let State::First = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("message out of turn"));
        };
        let server_first = text(message, SERVER_MESSAGE_MAX)?;
        let parsed = self.parse_server_first(server_first)?;
        let derived = self.keys(&parsed, cache)?;
        let without_proof = format!("c={},r={}", self.binding.attribute(), parsed.nonce);
        let signed = keys::auth_message(&self.first_bare, server_first, &without_proof);
        let stored_key = Zeroizing::new(keys::stored_key(&derived.client_key));
        let client_signature = keys::hmac(stored_key.as_ref(), signed.as_bytes());
        let proof = keys::xor(&derived.client_key, &client_signature);
        let expected = keys::hmac(derived.server_key.as_ref(), signed.as_bytes());
        self.state = State::Final(Zeroizing::new(expected));
        Ok(format!("{without_proof},p={}", encode(&proof)).into_bytes())
    }

    /// Takes the server-final-message. Only after `Ok` may AuthenticationOk be believed.
    ///
    /// # Errors
    /// [`ScramError::ServerSignature`] if the server does not know the password; [`ScramError::ServerRefused`] for its
    /// `e=`; [`ScramError::Malformed`].
    pub fn on_server_final(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let State::Final(expected) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("message out of turn"));
        };
        let message = text(message, SERVER_MESSAGE_MAX)?;
        if let Some(reason) = message.strip_prefix("e=") {
            return Err(ScramError::ServerRefused(printable(reason)));
        }
        let mut attributes = Attributes::new(message);
        let signature = attributes.expect(b'v', "no server signature")?;
        attributes.skip_extensions()?;
        let signature = decode_key(signature).ok_or(ScramError::Malformed("invalid server signature"))?;
        if !bool::from(signature.ct_eq(&*expected)) {
            return Err(ScramError::ServerSignature);
        }
        Ok(())
    }

    fn parse_server_first<'a>(&self, message: &'a str) -> Result<ServerFirst<'a>, ScramError> {
        let mut attributes = Attributes::new(message);
        let nonce = attributes.expect(b'r', "no nonce")?;
        let salt = attributes.expect(b's', "no salt")?;
        let iterations = attributes.expect(b'i', "no iteration count")?;
        attributes.skip_extensions()?;
        if !is_nonce(nonce, NONCE_MAX) {
            return Err(ScramError::Malformed("invalid nonce"));
        }
        // Equal is refused too: a server that adds nothing could replay an old exchange.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salt =
            decode(salt, SALT_MAX).filter(|salt| !salt.is_empty()).ok_or(ScramError::Malformed("invalid salt"))?;
        let iterations = decode_iterations(iterations, ITERATIONS_MAX)
            .ok_or(ScramError::Malformed("iteration count is not between 1 and 1000000"))?;
        Ok(ServerFirst { nonce, salt, iterations })
    }

    fn keys(&self, server: &ServerFirst<'_>, cache: &mut SaltedCache) -> Result<DerivedKeys, ScramError> {
        match &self.credential {
            Credential::Password(password) => Ok(cache.derive(password, &server.salt, server.iterations)),
            Credential::ClientKey(key) if key.salt == server.salt && key.iterations == server.iterations => {
                Ok(DerivedKeys { client_key: key.client_key.clone(), server_key: key.server_key.clone() })
            }
            Credential::ClientKey(_) => Err(ScramError::KeyMismatch),
        }
    }
}

/// A server's text, safe for a log line.
fn printable(text: &str) -> String {
    text.chars().take(SERVER_TEXT_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientKey").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Password(_) => "Credential::Password",
            Self::ClientKey(_) => "Credential::ClientKey",
        })
    }
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientExchange").finish_non_exhaustive()
    }
}
