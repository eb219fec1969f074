//! Who a client is, and whether it may come in.
//! Must never answer an unknown user otherwise than a wrong password.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::Gate;
use super::authenticate::{Proven, Wish, authenticate};
use super::caller::Caller;
use super::knock::Refusal;
use crate::relay::{Arrival, Seat};
use crate::server::stream::Stream;
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};
use crate::wire::startup::{NEWEST_MINOR, Startup};
use crate::worker::Mail;

/// Authenticates, and hands the client to the worker where its pool lives.
pub(super) async fn login(
    gate: &Gate,
    place: &mut Option<Stream>,
    caller: &Caller,
    startup: Startup,
    seat: Option<Seat>,
) -> Result<(), Refusal> {
    let config = gate.config();
    let Some(stream) = place.as_mut() else { return Ok(()) };
    let minor = negotiate_version(stream, &startup).await?;
    let asked = Asked::of(&startup)?;
    let Some(seat) = seat else {
        let message = "pgweir: no more connections allowed";
        let error = PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
            .hint(format!("The limit is max_client_conn = {}.", config.listen.max_client_conn));
        return Err(Refusal::Told(error));
    };
    let wish = Wish { user: &asked.user, database: &asked.database, replication: false };
    let Proven { prefix, secret } = authenticate(gate, stream, &config, caller, &wish).await?;
    let database = asked.database;
    if !config.databases.contains_key(&database) {
        let message = format!("database \"{database}\" does not exist");
        let error = PgError::fatal(SqlState::INVALID_CATALOG_NAME, message)
            .detail("pgweir's configuration has no such database");
        return Err(Refusal::Told(error));
    }
    let Some((mut socket, leftover)) = place.take().map(Stream::into_parts) else { return Ok(()) };
    socket.loosen()?;
    let worker = home(&database, &asked.user, gate.workers.len());
    let arrival = Arrival {
        socket,
        database,
        user: asked.user,
        secret,
        settings: asked.settings,
        minor,
        prefix,
        leftover,
        seat: Some(seat),
    };
    if let Some(mailbox) = gate.workers.get(worker) {
        let _ = mailbox.send(Mail::Client(Box::new(arrival)));
    }
    Ok(())
}

/// The worker on which all of a database and user's clients and servers live, so that a
/// transaction never leaves its thread.
fn home(database: &str, user: &str, workers: usize) -> usize {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    (hasher.hash_one((database, user)) % workers.max(1) as u64) as usize
}

/// Tells the client, once, which minor version and options it cannot have.
async fn negotiate_version(stream: &mut Stream, startup: &Startup) -> Result<u32, Refusal> {
    let minor = startup.minor.min(NEWEST_MINOR);
    if startup.minor > NEWEST_MINOR || !startup.unknown_options.is_empty() {
        let mut out = Vec::new();
        build::negotiate(&mut out, minor, &startup.unknown_options);
        stream.send(&out).await?;
    }
    Ok(minor)
}

/// What a startup message asks for.
struct Asked {
    user: String,
    database: String,
    settings: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Asked {
    fn of(startup: &Startup) -> Result<Self, Refusal> {
        let told = |code, message: String| Refusal::Told(PgError::fatal(code, message));
        let text = |bytes: &[u8], what: &str| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| told(SqlState::INVALID_AUTHORIZATION, format!("the {what} name is not UTF-8")))
        };
        let user = match startup.get(b"user") {
            Some(user) if !user.is_empty() => text(user, "user")?,
            _ => {
                let message = "no PostgreSQL user name specified in startup packet";
                return Err(told(SqlState::INVALID_AUTHORIZATION, message.into()));
            }
        };
        let database = match startup.get(b"database") {
            Some(database) if !database.is_empty() => text(database, "database")?,
            _ => user.clone(),
        };
        let replication = startup.get(b"replication").unwrap_or(b"off");
        if !matches!(replication, b"off" | b"false" | b"no" | b"0" | b"f" | b"n") {
            let message = "pgweir: replication connections are not supported yet";
            return Err(told(SqlState::FEATURE_NOT_SUPPORTED, message.into()));
        }
        let settings = startup.settings().map_err(|what| told(SqlState(*b"42601"), what))?;
        Ok(Self { user, database, settings })
    }
}
