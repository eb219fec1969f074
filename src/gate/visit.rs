//! Who comes to the console: lets in who is listed, and hands the connection over.
//! Must never let anybody in who has not proved who it is, nor tell who has not whether it would be.

use std::net::SocketAddr;

use tokio::sync::oneshot;

use super::Gate;
use super::authenticate::Wish;
use super::caller::Caller;
use super::knock::Refusal;
use super::login::{Asked, proven};
use crate::config::{CONSOLE_DATABASES, Config};
use crate::net::socket::Socket;
use crate::relay::Seat;
use crate::server::stream::Stream;
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};

/// Sessions of the console at one time. They do not count under `max_client_conn`: whoever is to find out why there is no
/// room any more must get in.
const VISITORS: u32 = 100;

/// What somebody may do on the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Look.
    Stats,
    /// Everything.
    Admin,
}

/// Somebody who may use the console and has been told nothing yet.
#[derive(Debug)]
pub struct Visitor {
    /// The connection, on no reactor.
    pub socket: Socket,
    /// Messages to be sent ahead of the welcome, up to AuthenticationOk.
    pub prefix: Vec<u8>,
    /// What it sent behind its login.
    pub leftover: Vec<u8>,
    /// Minor protocol version.
    pub minor: u32,
    /// By which of its names it asked for the console.
    pub database: String,
    /// Who it is.
    pub user: String,
    /// What it may do.
    pub rights: Rights,
    /// What it calls itself.
    pub application_name: String,
    /// Where a proxy says that it comes from.
    pub from: Option<SocketAddr>,
    /// Its place among the sessions of the console.
    pub seat: Seat,
}

/// What the gate tells the console.
pub enum Call {
    /// Somebody comes.
    Visit(Box<Visitor>),
    /// A cancel request.
    Cancel {
        /// The process id that the session was told.
        number: u32,
        /// Its secret.
        key: Vec<u8>,
        /// Told when the key is nobody's; otherwise dropped.
        done: oneshot::Sender<()>,
    },
}

/// Lets a client onto the console.
pub(super) async fn visit(
    gate: &Gate,
    place: &mut Option<Stream>,
    caller: &Caller,
    config: &std::sync::Arc<Config>,
    minor: u32,
    asked: Asked,
    mut of_clients: Option<Seat>,
) -> Result<(), Refusal> {
    let told = |code, message: String| PgError::fatal(code, message);
    let Some(stream) = place.as_mut() else { return Ok(()) };
    if asked.replication.is_some() {
        let message = "pgweir: there is no replication from the console".to_owned();
        return Err(Refusal::Told(told(SqlState::FEATURE_NOT_SUPPORTED, message)));
    }
    let (prefix, rights) = if is_own_account(caller, &asked.user) {
        let mut prefix = Vec::new();
        build::authentication_ok(&mut prefix);
        (prefix, Rights::Admin)
    } else {
        let wish = Wish { user: &asked.user, database: &asked.database, replication: false };
        let proven = proven(gate, stream, config, caller, &wish, &mut of_clients).await?;
        let lists = [(&config.console.admin_users, Rights::Admin), (&config.console.stats_users, Rights::Stats)];
        let listed = lists.into_iter().find(|(users, _)| users.contains(&asked.user));
        let Some((_, rights)) = listed else {
            let message = format!("pgweir: user \"{}\" may not use the console", asked.user);
            let error = told(SqlState::INSUFFICIENT_PRIVILEGE, message);
            return Err(Refusal::Told(error.hint("Who may is listed in admin_users and stats_users of [console].")));
        };
        (proven.prefix, rights)
    };
    let Some(seat) = Seat::take(&gate.visitors, VISITORS) else {
        let message = format!("pgweir: {VISITORS} sessions use the console already");
        return Err(Refusal::Told(told(SqlState::TOO_MANY_CONNECTIONS, message)));
    };
    tracing::info!(peer = %caller.peer, user = asked.user, ?rights, "logged in to the console");
    let Some((mut socket, leftover)) = place.take().map(Stream::into_parts) else { return Ok(()) };
    // It lives on another thread.
    socket.loosen()?;
    let application_name = asked.settings.iter().find(|(name, _)| name == b"application_name");
    let application_name =
        application_name.map_or_else(String::new, |(_, name)| String::from_utf8_lossy(name).into_owned());
    let (database, user, from) = (asked.database, asked.user, caller.proxied());
    let visitor = Visitor { socket, prefix, leftover, minor, database, user, rights, application_name, from, seat };
    let _ = gate.console.send(Call::Visit(Box::new(visitor)));
    Ok(())
}

/// Whoever has the account that this program runs under could end it, or read its configuration, anyway.
fn is_own_account(caller: &Caller, user: &str) -> bool {
    CONSOLE_DATABASES.contains(&user) && caller.peer.uid() == Some(nix::unistd::Uid::effective().as_raw())
}
