//! Lets a client prove who it is, by the method its entry names.
//! Must never answer an unknown user otherwise than a wrong password.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gate;
use super::caller::Caller;
use super::entry::{Entry, entry};
use super::knock::Refusal;
use super::lookup;
use crate::auth::login::{Account, Login, LoginError, Method, Step};
use crate::auth::{ServerSecret, certificate, sasl};
use crate::config::{ClientCert, Config, HbaMethod, Password};
use crate::server::stream::Stream;
use crate::wire::error::{PgError, SqlState};
use crate::wire::{build, tag};

/// Why a client does not come in.
pub(super) enum Failure {
    /// It did not prove who it is: counts against its address.
    Denied(PgError),
    /// Something else.
    Other(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// What is on record of a user.
#[derive(Default)]
struct Record {
    /// There is such a user.
    exists: bool,
    passwords: Vec<Password>,
    expired: bool,
    /// Database that was asked for it.
    looked_up: Option<String>,
}

/// What a successful login is good for.
pub(super) struct Proven {
    /// The messages that tell the client, which the worker sends together with the welcome.
    pub prefix: Vec<u8>,
    /// What opens servers.
    pub secret: ServerSecret,
}

/// Who wants to come in, and where to.
pub(super) struct Wish<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// Physical replication, which is in no database.
    pub replication: bool,
}

/// A client that does not come in, and how long its answer is to be put off.
pub(super) struct Denied {
    pub refusal: Refusal,
    pub delay: Duration,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, delay: Duration::ZERO }
    }
}

/// Lets the client prove who it is. Failures from its address delay the answer and may keep it out altogether.
pub(super) async fn authenticate(
    gate: &Gate,
    stream: &mut Stream,
    config: &Arc<Config>,
    caller: &Caller,
    wish: &Wish<'_>,
) -> Result<Proven, Denied> {
    banned(gate, caller)?;
    let failure = match prove(gate, stream, config, caller, wish).await {
        Ok(proven) => {
            // Guesses made at the same time must not be worth more than those made one after the other.
            banned(gate, caller)?;
            if let Some(address) = caller.address() {
                gate.bans.borrow_mut().succeeded(address);
            }
            return Ok(proven);
        }
        Err(failure) => failure,
    };
    match failure {
        Failure::Other(refusal) => Err(refusal.into()),
        Failure::Denied(error) => {
            gate.registry.login_failures.add(1);
            let auth = &config.auth;
            let (max, ban) = (auth.failed_logins_max, auth.failed_logins_ban);
            let note = |address| gate.bans.borrow_mut().failed(address, max, ban, Instant::now());
            let delay = caller.address().map_or(Duration::ZERO, note);
            Err(Denied { refusal: Refusal::Told(error), delay })
        }
    }
}

/// Refuses an address that has failed too often.
fn banned(gate: &Gate, caller: &Caller) -> Result<(), Refusal> {
    let left = caller.address().and_then(|address| gate.bans.borrow().left(address, Instant::now()));
    let Some(left) = left else { return Ok(()) };
    let message = "pgweir: too many failed logins from this address";
    let hint = format!("Try again in {} s. The limit is failed_logins_max.", left.as_secs() + 1);
    Err(Refusal::Told(PgError::fatal(SqlState::INVALID_AUTHORIZATION, message).hint(hint)))
}

async fn prove(
    gate: &Gate,
    stream: &mut Stream,
    config: &Arc<Config>,
    caller: &Caller,
    wish: &Wish<'_>,
) -> Result<Proven, Failure> {
    let entry = entry(config, caller, wish.database, wish.user, wish.replication)?;
    demand_certificate(stream, config, &entry, wish)?;
    let record = record(gate, config, wish).await?;
    let method = match entry.method {
        HbaMethod::Md5 => Method::Md5,
        HbaMethod::ScramSha256 => Method::Scram,
        HbaMethod::Password if caller.is_private() => Method::Cleartext,
        HbaMethod::Password => {
            let message = "pgweir: passwords are accepted over TLS only";
            let error = PgError::fatal(SqlState::INVALID_AUTHORIZATION, message)
                .hint("Connect with sslmode=require or stronger.");
            return Err(Refusal::Told(error).into());
        }
        HbaMethod::Trust | HbaMethod::Cert | HbaMethod::Peer | HbaMethod::Reject => {
            vouched(gate, stream, config, caller, &entry, wish, &record).await?;
            Method::Trust
        }
    };
    let outcome = exchange(gate, stream, caller, wish, method, &record).await;
    if let (Err(Failure::Denied(_)), Some(database)) = (&outcome, &record.looked_up) {
        let lookup = gate.lookup.borrow().clone();
        lookup.doubt(database, wish.user);
    }
    outcome
}

/// The questions and answers of a password method.
async fn exchange(
    gate: &Gate,
    stream: &mut Stream,
    caller: &Caller,
    wish: &Wish<'_>,
    method: Method,
    record: &Record,
) -> Result<Proven, Failure> {
    let secrets: Vec<&str> = record.passwords.iter().map(|password| password.secret().expose()).collect();
    let account = Account { user: wish.user, secrets: &secrets, expired: record.expired };
    let binding = caller.tls.as_ref().and_then(|listener| listener.binding.clone());
    let started = Login::start(method, &account, binding, &mut gate.verifiers.borrow_mut());
    let (mut login, mut step) = started.map_err(refused)?;
    loop {
        match step {
            Step::Send(body) => {
                let mut out = Vec::new();
                build::authentication(&mut out, &body);
                stream.send(&out).await?;
                let found = stream.next_tag().await?;
                if found != tag::client::PASSWORD {
                    let what = format!("expected password response, got message type \"{}\"", found.escape_ascii());
                    return Err(Refusal::Told(PgError::fatal(SqlState::PROTOCOL_VIOLATION, what)).into());
                }
                let message = stream.next().await?;
                step = if method == Method::Cleartext {
                    // Compared with a verifier it costs as much as making one.
                    let body = message.body;
                    let answer = gate.aside.compute(move || {
                        let step = login.on_message(&body);
                        (login, step)
                    });
                    let step;
                    (login, step) = answer.await?;
                    step
                } else {
                    login.on_message(&message.body)
                }
                .map_err(refused)?;
            }
            Step::Done(done) => {
                let mut prefix = Vec::new();
                if let Some(body) = &done.before_ok {
                    build::authentication(&mut prefix, body);
                }
                build::authentication(&mut prefix, &sasl::AUTHENTICATION_OK);
                if record.looked_up.is_some() {
                    gate.verifiers.borrow_mut().came_in(&secrets);
                }
                let stored = record.passwords.first().cloned();
                return Ok(Proven { prefix, secret: ServerSecret { stored, client_key: done.identity.client_key } });
            }
        }
    }
}

fn refused(error: LoginError) -> Failure {
    let code = <[u8; 5]>::try_from(error.sqlstate().as_bytes()).map_or(SqlState::INTERNAL, SqlState);
    Failure::Denied(PgError::fatal(code, error.to_string()))
}

/// What is on record: in the configuration, or else on a server.
async fn record(gate: &Gate, config: &Arc<Config>, wish: &Wish<'_>) -> Result<Record, Failure> {
    let known = config.users.get(wish.user);
    let expired = known.and_then(|user| user.valid_until).is_some_and(|until| until <= std::time::SystemTime::now());
    let passwords: Vec<Password> = known.map(|user| user.passwords().cloned().collect()).unwrap_or_default();
    let record = Record { exists: known.is_some(), passwords, expired, looked_up: None };
    let Some(query) = config.auth.query.as_ref().filter(|_| record.passwords.is_empty()) else {
        return Ok(record);
    };
    let lookup = gate.lookup.borrow().clone();
    let Some(database) = lookup::place(config, query, wish.database) else {
        lookup.pretend(query, wish.database, wish.user).await;
        return Ok(record);
    };
    let answer = lookup.ask(config, query, database, wish.user).await.map_err(|_| {
        let message = "pgweir: cannot look up users at the moment";
        Failure::Other(Refusal::Told(PgError::fatal(SqlState::CONNECTION_FAILURE, message).hint("Its log says why.")))
    })?;
    let Some(secret) = answer else { return Ok(record) };
    let looked_up = Some(database.name.clone());
    // A broken verifier is no password.
    let passwords = Password::classify(secret).into_iter().collect();
    Ok(Record { exists: true, passwords, looked_up, ..record })
}

/// A certificate that the listener or the rule demands besides the method.
fn demand_certificate(stream: &Stream, config: &Config, entry: &Entry<'_>, wish: &Wish<'_>) -> Result<(), Failure> {
    let demanded = config.listen.client_tls_sslmode.demands_certificate()
        || entry.client_cert != ClientCert::No
        || entry.method == HbaMethod::Cert;
    if !demanded {
        return Ok(());
    }
    let Some(shown) = stream.socket().peer_certificate() else {
        // PostgreSQL's words (ClientAuthentication, src/backend/libpq/auth.c).
        let message = "connection requires a valid client certificate";
        return Err(Refusal::Told(PgError::fatal(SqlState::INVALID_AUTHORIZATION, message)).into());
    };
    let by_name = entry.client_cert == ClientCert::Full || entry.method == HbaMethod::Cert;
    let fits = |name: String| config.auth.ident.allows(entry.map, &name, wish.user);
    if by_name && !certificate::common_name(shown).is_some_and(fits) {
        return Err(not_vouched("certificate", wish.user));
    }
    Ok(())
}

/// Whether somebody who is asked for no password is who it says it is, and a user at all.
async fn vouched(
    gate: &Gate,
    stream: &Stream,
    config: &Config,
    caller: &Caller,
    entry: &Entry<'_>,
    wish: &Wish<'_>,
    record: &Record,
) -> Result<(), Failure> {
    let ident = &config.auth.ident;
    let (vouched, method) = match entry.method {
        // Its name was compared before.
        HbaMethod::Cert => (stream.socket().peer_certificate().is_some(), "certificate"),
        HbaMethod::Peer => {
            let name = caller.system_user(&gate.aside).await;
            (name.is_some_and(|name| ident.allows(entry.map, &name, wish.user)), "Peer")
        }
        HbaMethod::Trust => (true, ""),
        _ => (false, "password"),
    };
    if !vouched {
        return Err(not_vouched(method, wish.user));
    }
    if !record.exists {
        let message = format!("pgweir: user \"{}\" is not in the configuration", wish.user);
        return Err(Failure::Denied(PgError::fatal(SqlState::INVALID_AUTHORIZATION, message)));
    }
    Ok(())
}

/// PostgreSQL's words (`auth_failed`, src/backend/libpq/auth.c).
fn not_vouched(method: &str, user: &str) -> Failure {
    let message = format!("{method} authentication failed for user \"{user}\"");
    Failure::Denied(PgError::fatal(SqlState::INVALID_AUTHORIZATION, message))
}
