//! A client's login: which authentication it is asked for, and whether its answers are right.
//! Must never let an absent, empty or unusable secret in, nor let a client find out which of these it was.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::candidates::Candidates;
use super::scram::{ClientKey, MECHANISM, MECHANISM_PLUS, ScramError, ServerExchange};
use super::{VerifierCache, md5, sasl};

#[cfg(test)]
mod tests;

/// What is demanded of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// No proof: the startup packet's word is enough, or something else has proved it.
    Trust,
    /// The password itself; the caller sees to it that nobody can listen.
    Cleartext,
    /// md5 for plaintext and md5 secrets, SCRAM for users with a verifier.
    Md5,
    /// SCRAM-SHA-256; a user with an md5 hash can never log in.
    Scram,
}

/// What is known of a user who has not proved anything yet.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// Name from the startup packet.
    pub user: &'a str,
    /// The secrets on record, each of which proves the user; none if there is no such user.
    pub secrets: &'a [&'a str],
    /// No proof counts any more.
    pub expired: bool,
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
    /// After SCRAM or cleartext with a verifier on record: the key that opens servers storing the same verifier. Never
    /// for a plaintext secret, whose salt is pgweir's own; with that, use the password itself.
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
    /// SQLSTATE of the FATAL ErrorResponse (those of SCRAM: PostgreSQL's `auth-scram.c`).
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "28P01",
            Self::Scram(ScramError::ChannelBinding | ScramError::Downgrade) => "28000",
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
    /// Waiting for the password itself.
    Cleartext(Candidates),
    /// Waiting for the answer to AuthenticationMD5Password; any of the hashes is good unless doomed.
    Md5 { hashes: Vec<Zeroizing<String>>, salt: [u8; 4], doomed: bool },
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
    /// For each verifier of the exchange, whether a server could have the same: it was on record as it is.
    on_record: Vec<bool>,
    /// Whether the mechanism with channel binding was offered.
    plus: bool,
}

impl Login {
    /// Begins a login. With [`Method::Trust`] the first step is [`Step::Done`]: whether the user exists is the caller's
    /// matter. `binding` is what SCRAM's channel binding is bound to: the hash of the certificate that this client was
    /// shown, `None` without TLS or if that certificate has no such hash.
    ///
    /// # Errors
    /// [`LoginError::Random`] only.
    pub fn start(
        method: Method,
        account: &Account<'_>,
        binding: Option<Arc<[u8]>>,
        cache: &mut VerifierCache,
    ) -> Result<(Self, Step), LoginError> {
        let (state, step) = match method {
            Method::Trust => (State::Over, Step::Done(Done::new(None, None))),
            Method::Cleartext => {
                let candidates = Candidates::of(account, cache);
                (State::Cleartext(candidates), Step::Send(sasl::CLEARTEXT_REQUEST.to_vec()))
            }
            Method::Md5 if Candidates::asked_by_md5(account, cache) => start_md5(account)?,
            Method::Md5 | Method::Scram => start_scram(Candidates::of(account, cache), binding),
        };
        Ok((Self { user: account.user.to_owned(), state }, step))
    }

    /// Takes the body of the client's next PasswordMessage, SASLInitialResponse or SASLResponse (all have tag `p`).
    ///
    /// # Errors
    /// Any [`LoginError`]; the login is over then, and further messages are errors too.
    pub fn on_message(&mut self, body: &[u8]) -> Result<Step, LoginError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Cleartext(candidates) => self.on_cleartext(body, &candidates),
            State::Md5 { hashes, salt, doomed } => self.on_md5(body, &hashes, salt, doomed),
            State::ScramInitial(scram) => self.on_initial(body, scram),
            State::ScramFirst(scram) => self.on_first(body, scram),
            State::ScramFinal(scram) => self.on_final(body, scram),
            State::Over => Err(LoginError::Protocol("unexpected password message")),
        }
    }

    fn on_cleartext(&self, body: &[u8], candidates: &Candidates) -> Result<Step, LoginError> {
        let given = sasl::password(body).ok_or(LoginError::Protocol("invalid password packet size"))?;
        match candidates.check(&self.user, given) {
            Some(client_key) => Ok(Step::Done(Done::new(None, client_key))),
            None => Err(self.refused()),
        }
    }

    fn on_md5(
        &self,
        body: &[u8],
        hashes: &[Zeroizing<String>],
        salt: [u8; 4],
        doomed: bool,
    ) -> Result<Step, LoginError> {
        let given = sasl::password(body).ok_or(LoginError::Protocol("invalid password packet size"))?;
        let right = hashes.iter().fold(false, |right, stored| md5::check(stored, salt, given) | right);
        if right && !doomed { Ok(Step::Done(Done::new(None, None))) } else { Err(self.refused()) }
    }

    fn on_initial(&mut self, body: &[u8], mut scram: Scram) -> Result<Step, LoginError> {
        let (mechanism, data) =
            sasl::split_initial_response(body).ok_or(LoginError::Protocol("malformed SASL initial response"))?;
        let plus = scram.plus && mechanism == MECHANISM_PLUS.as_bytes();
        if !plus && mechanism != MECHANISM.as_bytes() {
            return Err(LoginError::Protocol("client selected an invalid SASL authentication mechanism"));
        }
        scram.exchange.choose(plus);
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
        let on_record = scram.on_record.get(success.verifier).copied().unwrap_or(false);
        let client_key = on_record.then_some(success.client_key);
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

fn start_scram(candidates: Candidates, binding: Option<Arc<[u8]>>) -> (State, Step) {
    let plus = binding.is_some();
    let (mut exchange, on_record) = candidates.exchange();
    exchange.offer(binding);
    (State::ScramInitial(Scram { exchange, on_record, plus }), Step::Send(sasl::sasl_request(plus)))
}

fn start_md5(account: &Account<'_>) -> Result<(State, Step), LoginError> {
    let mut salt = [0; 4];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| LoginError::Random)?;
    let mut hashes = Candidates::md5_hashes(account);
    let doomed = account.expired || hashes.is_empty();
    if hashes.is_empty() {
        hashes.push(md5::hash(account.user, b""));
    }
    Ok((State::Md5 { hashes, salt, doomed }, Step::Send(sasl::md5_request(salt))))
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}
