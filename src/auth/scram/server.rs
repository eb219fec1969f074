//! The server role of SCRAM-SHA-256: two messages in, two out.
//! Must never tell a wrong password from a mock exchange, neither by bytes nor by work.

use std::fmt;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::text::{Attributes, decode_key, encode, is_nonce, text};
use super::{Binding, CLIENT_MESSAGE_MAX, ClientKey, ScramError, Verifier, binding, keys, nonce};
use crate::auth::Key;

/// One exchange with one client; both steps may be taken once, in order.
pub struct ServerExchange {
    /// All with the salt and iterations of the first; never empty.
    verifiers: Vec<Arc<Verifier>>,
    honest: Choice,
    /// Hash of the own certificate, if the mechanism with channel binding was offered.
    offered: Option<Arc<[u8]>>,
    plus: bool,
    state: State,
}

enum State {
    /// Waiting for the client-first-message.
    First,
    /// Waiting for the client-final-message.
    Final(Challenge),
    /// Answered, or ended by an error.
    Over,
}

/// What the second step needs of the first.
struct Challenge {
    binding: Binding,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

/// The client proved that it knows the password.
pub struct Success {
    /// The server-final-message, to be sent before AuthenticationOk.
    pub server_final: Vec<u8>,
    /// The client's key, good for a login with the same verifier at a server.
    pub client_key: ClientKey,
    /// Which verifier it was, counted from 0.
    pub verifier: usize,
}

impl ServerExchange {
    /// An exchange that succeeds with the verifier's password.
    pub fn new(verifier: impl Into<Arc<Verifier>>) -> Self {
        Self::assemble(verifier.into(), Choice::from(1))
    }

    /// An exchange that does the same work and always ends with [`ScramError::Refused`].
    pub fn doomed(verifier: impl Into<Arc<Verifier>>) -> Self {
        Self::assemble(verifier.into(), Choice::from(0))
    }

    fn assemble(verifier: Arc<Verifier>, honest: Choice) -> Self {
        Self { verifiers: vec![verifier], honest, offered: None, plus: false, state: State::First }
    }

    /// Lets another password of the same user succeed too. One of another salt or iteration count is left out: the
    /// client computes its proof with those it is told.
    pub fn add(&mut self, verifier: impl Into<Arc<Verifier>>) {
        let verifier = verifier.into();
        if self.verifiers.iter().all(|known| known.salts_like(&verifier)) {
            self.verifiers.push(verifier);
        }
    }

    /// Whatever the proof is, the exchange ends with [`ScramError::Refused`] from here on.
    pub fn doom(&mut self) {
        self.honest = Choice::from(0);
    }

    /// Says that [`super::MECHANISM_PLUS`] was offered, bound to the certificate of this hash.
    pub fn offer(&mut self, hash: Option<Arc<[u8]>>) {
        self.offered = hash;
    }

    /// Says that the client has chosen [`super::MECHANISM_PLUS`], or not.
    pub fn choose(&mut self, plus: bool) {
        self.plus = plus;
    }

    /// Salt and iterations are the same in all.
    fn first(&self) -> Option<&Verifier> {
        self.verifiers.first().map(Arc::as_ref)
    }

    /// Takes the client-first-message and gives the server-first-message.
    ///
    /// # Errors
    /// [`ScramError::Malformed`], [`ScramError::ChannelBinding`], [`ScramError::Random`]; the exchange is over then.
    pub fn on_client_first(&mut self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        self.challenge(message, &nonce()?)
    }

    /// [`ServerExchange::on_client_first`] with the server's part of the nonce given.
    pub(super) fn challenge(&mut self, message: &[u8], server_nonce: &str) -> Result<Vec<u8>, ScramError> {
        let State::First = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("message out of turn"));
        };
        let message = text(message, CLIENT_MESSAGE_MAX)?;
        let (binding, bare) = binding::accept(message, self.offered.as_deref(), self.plus)?;
        let mut attributes = Attributes::new(bare);
        attributes.expect(b'n', "no user name")?;
        let client_nonce = attributes.expect(b'r', "no nonce")?;
        if !is_nonce(client_nonce, CLIENT_MESSAGE_MAX) {
            return Err(ScramError::Malformed("invalid nonce"));
        }
        attributes.skip_extensions()?;
        let nonce = [client_nonce, server_nonce].concat();
        let verifier = self.first().ok_or(ScramError::Refused)?;
        let server_first = format!("r={nonce},s={},i={}", encode(&verifier.salt), verifier.iterations);
        let answer = server_first.clone().into_bytes();
        self.state = State::Final(Challenge { binding, client_first_bare: bare.to_owned(), server_first, nonce });
        Ok(answer)
    }

    /// Takes the client-final-message and decides.
    ///
    /// # Errors
    /// [`ScramError::Refused`] for a wrong password and for a doomed exchange; [`ScramError::Malformed`],
    /// [`ScramError::ChannelBinding`] and [`ScramError::Nonce`] for a client that breaks the protocol.
    pub fn on_client_final(&mut self, message: &[u8]) -> Result<Success, ScramError> {
        let State::Final(challenge) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("message out of turn"));
        };
        let message = text(message, CLIENT_MESSAGE_MAX)?;
        let Some((without_proof, proof)) = message.rsplit_once(",p=") else {
            return Err(ScramError::Malformed("no proof"));
        };
        let mut attributes = Attributes::new(without_proof);
        let attribute = attributes.expect(b'c', "no channel binding")?;
        let nonce = attributes.expect(b'r', "no nonce")?;
        attributes.skip_extensions()?;
        let proof = decode_key(proof).ok_or(ScramError::Malformed("invalid proof"))?;
        if !bool::from(attribute.as_bytes().ct_eq(challenge.binding.attribute().as_bytes())) {
            return Err(ScramError::ChannelBinding);
        }
        if !bool::from(nonce.as_bytes().ct_eq(challenge.nonce.as_bytes())) {
            return Err(ScramError::Nonce);
        }
        self.decide(&challenge, without_proof, &proof)
    }

    /// RFC 5802 section 3: recovers the ClientKey from the proof and compares its digest with the StoredKey.
    fn decide(&self, challenge: &Challenge, without_proof: &str, proof: &Key) -> Result<Success, ScramError> {
        let signed = keys::auth_message(&challenge.client_first_bare, &challenge.server_first, without_proof);
        let mut found = None;
        // All of them are tried, so that time does not tell which one it was.
        for (number, verifier) in self.verifiers.iter().enumerate() {
            let client_signature = keys::hmac(&verifier.stored_key, signed.as_bytes());
            let client_key = Zeroizing::new(keys::xor(proof, &client_signature));
            let matches = keys::stored_key(&client_key).ct_eq(&verifier.stored_key);
            if bool::from(matches & self.honest) && found.is_none() {
                found = Some((number, verifier, client_key));
            }
        }
        let (number, verifier, client_key) = found.ok_or(ScramError::Refused)?;
        let server_signature = keys::hmac(&verifier.server_key, signed.as_bytes());
        let server_final = format!("v={}", encode(&server_signature)).into_bytes();
        Ok(Success { server_final, client_key: verifier.opened_by(client_key), verifier: number })
    }
}

impl fmt::Debug for ServerExchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServerExchange").finish_non_exhaustive()
    }
}

impl fmt::Debug for Success {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Success").finish_non_exhaustive()
    }
}
