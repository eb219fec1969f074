//! The server role of SCRAM-SHA-256: two messages in, two out.
//! Must never tell a wrong password from a mock exchange, neither by bytes nor by work.

use std::fmt;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::text::{Attributes, decode_key, encode, is_nonce, text};
use super::{CLIENT_MESSAGE_MAX, ScramError, Verifier, keys, nonce};
use crate::auth::Key;

/// One exchange with one client; both steps may be taken once, in order.
pub struct ServerExchange {
    verifier: Arc<Verifier>,
    honest: Choice,
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
    /// `n,,` or `y,,` as the client sent it.
    gs2_header: &'static str,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

/// The client proved that it knows the password.
pub struct Success {
    /// The server-final-message, to be sent before AuthenticationOk.
    pub server_final: Vec<u8>,
    /// The client's key, good for a login with the same verifier at a server.
    pub client_key: Zeroizing<Key>,
}

impl ServerExchange {
    /// An exchange that succeeds with the verifier's password.
    pub fn new(verifier: impl Into<Arc<Verifier>>) -> Self {
        Self { verifier: verifier.into(), honest: Choice::from(1), state: State::First }
    }

    /// An exchange that does the same work and always ends with [`ScramError::Refused`].
    pub fn doomed(verifier: impl Into<Arc<Verifier>>) -> Self {
        Self { verifier: verifier.into(), honest: Choice::from(0), state: State::First }
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
        let (gs2_header, bare) = split_gs2_header(text(message, CLIENT_MESSAGE_MAX)?)?;
        let mut attributes = Attributes::new(bare);
        attributes.expect(b'n', "no user name")?;
        let client_nonce = attributes.expect(b'r', "no nonce")?;
        if !is_nonce(client_nonce, CLIENT_MESSAGE_MAX) {
            return Err(ScramError::Malformed("invalid nonce"));
        }
        attributes.skip_extensions()?;
        let nonce = [client_nonce, server_nonce].concat();
        let server_first = format!("r={nonce},s={},i={}", encode(&self.verifier.salt), self.verifier.iterations);
        let answer = server_first.clone().into_bytes();
        self.state = State::Final(Challenge { gs2_header, client_first_bare: bare.to_owned(), server_first, nonce });
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
        let binding = attributes.expect(b'c', "no channel binding")?;
        let nonce = attributes.expect(b'r', "no nonce")?;
        attributes.skip_extensions()?;
        let proof = decode_key(proof).ok_or(ScramError::Malformed("invalid proof"))?;
        if binding != encode(challenge.gs2_header.as_bytes()) {
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
        let client_signature = keys::hmac(&self.verifier.stored_key, signed.as_bytes());
        let client_key = Zeroizing::new(keys::xor(proof, &client_signature));
        let matches = keys::stored_key(&client_key).ct_eq(&self.verifier.stored_key);
        if !bool::from(matches & self.honest) {
            return Err(ScramError::Refused);
        }
        let server_signature = keys::hmac(&self.verifier.server_key, signed.as_bytes());
        Ok(Success { server_final: format!("v={}", encode(&server_signature)).into_bytes(), client_key })
    }

    /// The verifier of this exchange.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

/// Splits the header that says what the client thinks about channel binding from the rest of its first message
/// (PostgreSQL `read_client_first_message`). `y` is right: the mechanism with binding was not offered.
fn split_gs2_header(message: &str) -> Result<(&'static str, &str), ScramError> {
    for header in ["n,,", "y,,"] {
        if let Some(bare) = message.strip_prefix(header) {
            return Ok((header, bare));
        }
    }
    if message.starts_with("p=") {
        return Err(ScramError::ChannelBinding);
    }
    if message.starts_with("n,a=") || message.starts_with("y,a=") {
        return Err(ScramError::Malformed("authorization identity is not supported"));
    }
    Err(ScramError::Malformed("invalid channel binding flag"))
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
