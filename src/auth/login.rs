//! A client's login: which authentication it is asked for, and whether its answers are right.
//! Must never let an absent, empty or unusable secret in, nor let a client find out which of these it was.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::scram::{ClientKey, MECHANISM, ScramError, ServerExchange, Verifier};
use super::secret_kind::SecretKind;
use super::{VerifierCache, md5, sasl};

#[cfg(test)]
mod tests;

/// What the configuration demands of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// No proof; the startup packet's word is enough.
    Trust,
    /// md5 for plaintext and md5 secrets, SCRAM for users with a verifier.
    Md5,
    /// SCRAM-SHA-256; a user with an md5 hash can never log in.
    Scram,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send an AuthenticationRequest with this body, then hand the client's next message to [`Login::on_message`].
    Send(Vec<u8>),
    /// The client is who it says it is.
    Done(Done),
}

/// A successful login.
#[derive(Debug)]
pub struct Done {
    /// Body of an AuthenticationSASLFinal that must precede AuthenticationOk ([`sasl::AUTHENTICATION_OK`]).
    pub before_ok: Option<Vec<u8>>,
    /// What the login taught about the client.
    pub identity: Identity,
}

/// What a login taught about the client.
#[derive(Debug)]
pub struct Identity {
    /// After SCRAM with a configured verifier: the key that opens servers storing the same verifier. Never for a
    /// plaintext secret, whose salt is pgweir's own; with that, use the password itself.
    pub client_key: Option<ClientKey>,
}

/// Why a login ended. [`LoginError::sqlstate`] and `Display` are what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Wrong, empty or missing password, or no such user: all the same to the client (PostgreSQL `auth_failed`).
    #[error("password authentication failed for user \"{user}\"")]
    Refused {
        /// Name from the startup packet.
        user: String,
    },
    /// The client broke the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// The client broke the rules of SCRAM.
    #[error("{0}")]
    Scram(ScramError),
    /// The operating system gave no random bytes.
    #[error("no random bytes available")]
    Random,
}

impl LoginError {
    /// SQLSTATE of the FATAL ErrorResponse.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "28P01",
            Self::Protocol(_) | Self::Scram(_) => "08P01",
            Self::Random => "58000",
        }
    }
}

/// One login of one client.
pub struct Login {
    user: String,
    state: State,
}

enum State {
    /// Waiting for the answer to AuthenticationMD5Password.
    Md5 { expected_of: Zeroizing<String>, salt: [u8; 4], fate: Fate },
    /// Waiting for SASLInitialResponse.
    ScramInitial(Scram),
    /// Waiting for a client-first-message that the SASLInitialResponse lacked.
    ScramFirst(Scram),
    /// Waiting for the client-final-message.
    ScramFinal(Scram),
    /// Decided.
    Over,
}

struct Scram {
    exchange: ServerExchange,
    /// Whether the ClientKey is worth keeping: only that of a configured verifier is.
    keeps_key: bool,
}

/// Whether a right answer counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Honest,
    Doomed,
}

impl Login {
    /// Begins a login for `user`, whose configured secret is `stored` (`None` if there is no such user or it has
    /// none). With [`Method::Trust`] the first step is [`Step::Done`]: whether the user exists is the caller's matter.
    ///
    /// # Errors
    /// [`LoginError::Random`] only.
    pub fn start(
        method: Method,
        user: &str,
        stored: Option<&str>,
        cache: &mut VerifierCache,
    ) -> Result<(Self, Step), LoginError> {
        let stored = stored.unwrap_or_default();
        let (state, step) = match method {
            Method::Trust => (State::Over, Step::Done(Done::new(None, None))),
            Method::Md5 => match SecretKind::of(stored) {
                SecretKind::Scram(verifier) => start_scram(Scram::configured(verifier)),
                kind => start_md5(user, stored, &kind)?,
            },
            Method::Scram => start_scram(Scram::of(user, stored, cache)),
        };
        Ok((Self { user: user.to_owned(), state }, step))
    }

    /// Takes the body of the client's next PasswordMessage, SASLInitialResponse or SASLResponse (all have tag `p`).
    ///
    /// # Errors
    /// Any [`LoginError`]; the login is over then, and further messages are errors too.
    pub fn on_message(&mut self, body: &[u8]) -> Result<Step, LoginError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Md5 { expected_of, salt, fate } => self.on_md5(body, &expected_of, salt, fate),
            State::ScramInitial(scram) => self.on_initial(body, scram),
            State::ScramFirst(scram) => self.on_first(body, scram),
            State::ScramFinal(scram) => self.on_final(body, scram),
            State::Over => Err(LoginError::Protocol("unexpected password message")),
        }
    }

    fn on_md5(&self, body: &[u8], stored: &str, salt: [u8; 4], fate: Fate) -> Result<Step, LoginError> {
        let given = sasl::password(body).ok_or(LoginError::Protocol("invalid password packet size"))?;
        let matches = md5::check(stored, salt, given);
        match fate {
            Fate::Honest if matches => Ok(Step::Done(Done::new(None, None))),
            Fate::Honest | Fate::Doomed => Err(self.refused()),
        }
    }

    fn on_initial(&mut self, body: &[u8], scram: Scram) -> Result<Step, LoginError> {
        let (mechanism, data) =
            sasl::split_initial_response(body).ok_or(LoginError::Protocol("malformed SASL initial response"))?;
        if mechanism != MECHANISM.as_bytes() {
            return Err(LoginError::Protocol("client selected an invalid SASL authentication mechanism"));
        }
        let Some(data) = data else {
            // PostgreSQL `pg_be_scram_exchange` answers an absent initial response with an empty challenge.
            self.state = State::ScramFirst(scram);
            return Ok(Step::Send(sasl::sasl_continue(b"")));
        };
        self.on_first(data, scram)
    }

    fn on_first(&mut self, data: &[u8], mut scram: Scram) -> Result<Step, LoginError> {
        let server_first = scram.exchange.on_client_first(data).map_err(|error| self.scram_error(error))?;
        self.state = State::ScramFinal(scram);
        Ok(Step::Send(sasl::sasl_continue(&server_first)))
    }

    fn on_final(&self, data: &[u8], mut scram: Scram) -> Result<Step, LoginError> {
        let success = scram.exchange.on_client_final(data).map_err(|error| self.scram_error(error))?;
        let verifier = scram.exchange.verifier();
        let client_key = scram.keeps_key.then(|| ClientKey {
            client_key: success.client_key.clone(),
            server_key: Zeroizing::new(verifier.server_key),
            salt: verifier.salt.clone(),
            iterations: verifier.iterations,
        });
        Ok(Step::Done(Done::new(Some(sasl::sasl_final(&success.server_final)), client_key)))
    }

    fn scram_error(&self, error: ScramError) -> LoginError {
        match error {
            ScramError::Refused => self.refused(),
            ScramError::Random => LoginError::Random,
            other => LoginError::Scram(other),
        }
    }

    fn refused(&self) -> LoginError {
        LoginError::Refused { user: self.user.clone() }
    }
}

impl Done {
    fn new(before_ok: Option<Vec<u8>>, client_key: Option<ClientKey>) -> Self {
        Self { before_ok, identity: Identity { client_key } }
    }
}

impl Scram {
    fn configured(verifier: Verifier) -> Self {
        Self { exchange: ServerExchange::new(verifier), keeps_key: true }
    }

    fn of(user: &str, stored: &str, cache: &mut VerifierCache) -> Self {
        let exchange = match SecretKind::of(stored) {
            SecretKind::Scram(verifier) => return Self::configured(verifier),
            SecretKind::Plain => ServerExchange::new(cache.derive(user, stored)),
            SecretKind::Empty | SecretKind::Md5 | SecretKind::Damaged => {
                ServerExchange::doomed(Arc::new(cache.mock(user)))
            }
        };
        Self { exchange, keeps_key: false }
    }
}

fn start_scram(scram: Scram) -> (State, Step) {
    (State::ScramInitial(scram), Step::Send(sasl::sasl_request()))
}

fn start_md5(user: &str, stored: &str, kind: &SecretKind) -> Result<(State, Step), LoginError> {
    let mut salt = [0; 4];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| LoginError::Random)?;
    let of_empty = md5::hash(user, b"");
    let (expected_of, fate) = match kind {
        SecretKind::Plain => (md5::hash(user, stored.as_bytes()), Fate::Honest),
        // The hash of an empty password is no password either.
        SecretKind::Md5 if stored != of_empty.as_str() => (Zeroizing::new(stored.to_owned()), Fate::Honest),
        SecretKind::Empty | SecretKind::Md5 | SecretKind::Damaged | SecretKind::Scram(_) => (of_empty, Fate::Doomed),
    };
    Ok((State::Md5 { expected_of, salt, fate }, Step::Send(sasl::md5_request(salt))))
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}
