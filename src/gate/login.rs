//! Who a client is, and whether it may come in.
//! Must never answer an unknown user otherwise than a wrong password.

use std::sync::Arc;

use super::Gate;
use super::authenticate::{Denied, Proven, Wish, authenticate};
use super::caller::Caller;
use super::knock::Refusal;
use super::places::Places;
use super::rate::Rate;
use super::visit::visit;
use crate::config::{Config, Console, Database};
use crate::relay::{Arrival, Seat};
use crate::server::stream::Stream;
use crate::sql::own;
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};
use crate::wire::startup::{NEWEST_MINOR, Startup};
use crate::worker::{Mail, WeakMailbox};

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
    let mut asked = Asked::of(&startup)?;
    if Console::is(&asked.database) {
        return visit(gate, place, caller, &config, minor, asked, seat).await;
    }
    asked.find_server(&config);
    let Some(seat) = seat else {
        let message = "pgweir: no more connections allowed";
        let error = PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
            .hint(format!("The limit is max_client_conn = {}.", config.listen.max_client_conn));
        return Err(Refusal::Told(error));
    };
    let wish = Wish { user: &asked.user, database: &asked.database, replication: asked.is_physical() };
    let mut seat = Some(seat);
    let Proven { prefix, secret } = proven(gate, stream, &config, caller, &wish, &mut seat).await?;
    let database = asked.database;
    let Some(database_config) = config.databases.get(&database) else {
        let message = format!("database \"{database}\" does not exist");
        let error = PgError::fatal(SqlState::INVALID_CATALOG_NAME, message)
            .detail("pgweir's configuration has no such database");
        let hint = "For physical replication with several databases, add [databases.replication] with the server as its primary.";
        return Err(Refusal::Told(if asked.replication.is_some() { error.hint(hint) } else { error }));
    };
    if gate.disabled.borrow().contains(&database) {
        // PostgreSQL's words for one with ALLOW_CONNECTIONS false (CheckMyDatabase, src/backend/utils/init/postinit.c).
        let message = format!("database \"{database}\" is not currently accepting connections");
        let error = PgError::fatal(SqlState::NOT_IN_PREREQUISITE_STATE, message);
        return Err(Refusal::Told(error.detail("It was disabled on pgweir's console.")));
    }
    let (of_database, of_user) = take_places(gate, &config, database_config, &asked.user)?;
    tracing::debug!(peer = %caller.peer, user = asked.user, database, "logged in");
    let Some((mut socket, leftover)) = place.take().map(Stream::into_parts) else { return Ok(()) };
    let (worker, at_home) = gate.homes.choose(&database, &asked.user, &config, gate.workers.len());
    // It stays on the reactor of this thread if it stays on this thread.
    if gate.hand.is_none() {
        socket.loosen()?;
    }
    let arrival = Arrival {
        socket,
        database,
        user: asked.user,
        secret,
        settings: asked.settings,
        minor,
        prefix,
        leftover,
        replication: asked.replication,
        from: caller.proxied(),
        seats: [seat, Some(at_home), Some(of_database), Some(of_user)],
        warms: None,
    };
    if let Some(hand) = &gate.hand {
        hand(arrival);
    } else if let Some(mailbox) = gate.workers.get(worker).and_then(WeakMailbox::upgrade) {
        let _ = mailbox.send(Mail::Client(Box::new(arrival)));
    }
    Ok(())
}

/// Lets the client prove who it is. Whoever guesses takes no place from others while it waits for the answer.
pub(super) async fn proven(
    gate: &Gate,
    stream: &mut Stream,
    config: &Arc<Config>,
    caller: &Caller,
    wish: &Wish<'_>,
    seat: &mut Option<Seat>,
) -> Result<Proven, Refusal> {
    match authenticate(gate, stream, config, caller, wish).await {
        Ok(proven) => Ok(proven),
        Err(Denied { refusal, delay }) => {
            *seat = None;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            Err(refusal)
        }
    }
}

/// A place among the clients of the database and one among those of the user, and one of the user's
/// new sessions of this second. All after the login: nobody else can use them up.
fn take_places(gate: &Gate, config: &Config, database: &Database, user: &str) -> Result<(Seat, Seat), Refusal> {
    let full = |message: String, hint: String| {
        Refusal::Told(PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, message).hint(hint))
    };
    if let Some(rate) = Rate::of(config.listen.connection_rate_per_user)
        && !gate.sessions.take(user, rate)
    {
        let message = format!("pgweir: too many new connections for role \"{user}\"");
        return Err(full(message, format!("The limit is connection_rate_per_user = {} per second.", rate.per_second)));
    }
    // The messages are PostgreSQL's own (CheckMyDatabase in src/backend/utils/init/postinit.c,
    // InitializeSessionUserId in src/backend/utils/init/miscinit.c).
    let place = |places: &Places, what: &str, name: &str, limit: Option<(u32, &str)>| {
        let (limit, setting) = limit.unwrap_or((u32::MAX, "max_client_conn"));
        let message = format!("too many connections for {what} \"{name}\"");
        places.take(name, limit).ok_or_else(|| full(message, format!("The limit is pgweir's {setting} = {limit}.")))
    };
    let of_database = place(&gate.of_databases, "database", &database.name, config.database_client_limit(database))?;
    let limit = config.users.get(user).and_then(|user| config.user_client_limit(user));
    let of_user = place(&gate.of_users, "role", user, limit)?;
    Ok((of_database, of_user))
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
pub(super) struct Asked {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) settings: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) replication: Option<Vec<u8>>,
}

impl Asked {
    /// A physical replication connection is to a server and not to a database, whatever name the
    /// client gives (`pg_basebackup`: "replication"); if there is one database only, it is that.
    fn find_server(&mut self, config: &Config) {
        if self.is_physical() && !config.databases.contains_key(&self.database) && config.databases.len() == 1 {
            self.database = config.databases.keys().next().cloned().unwrap_or_default();
        }
    }
}

impl Asked {
    /// Whether it wants physical replication, which is in no database.
    fn is_physical(&self) -> bool {
        self.replication.as_ref().is_some_and(|value| value != b"database")
    }

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
        let is_none = matches!(replication, b"off" | b"false" | b"no" | b"0" | b"f" | b"n");
        let replication = (!is_none).then(|| replication.to_vec());
        let settings = startup.settings().map_err(|what| told(SqlState::SYNTAX_ERROR, what))?;
        if let Some(problem) = settings.iter().find_map(|(name, value)| own::problem(name, value)) {
            let error = PgError::fatal(SqlState::INVALID_PARAMETER_VALUE, problem.message);
            return Err(Refusal::Told(error.hint(problem.hint)));
        }
        Ok(Self { user, database, settings, replication })
    }
}
