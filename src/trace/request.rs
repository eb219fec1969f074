//! What a worker tells of a statement that is recorded.
//! Must never hold a value of a statement's.

use std::net::SocketAddr;
use std::sync::Arc;

use super::context::{Context, Parent};
use crate::sql::verdict::StatementKind;
use crate::wire::error::SqlState;

/// From when until when, microseconds of [`crate::base::clock`].
pub type Times = (u64, u64);

/// A client's statement from its arrival to the end of its answer.
#[derive(Debug)]
pub struct Request {
    /// Its span.
    pub context: Context,
    /// What it is a part of.
    pub parent: Option<Parent>,
    /// All of it; its parts lie within.
    pub times: Times,
    /// What was to be run.
    pub statement: Statement,
    /// Who wanted it.
    pub session: Session,
    /// Who has answered, as metrics call that; `None`: nobody.
    pub target: Option<Arc<str>>,
    /// Rows returned or affected.
    pub rows: u64,
    /// Bytes of the answer.
    pub bytes: u64,
    /// It has failed.
    pub error: Option<SqlState>,
    /// What the cache had to do with it: `hit`, `compared`, `renewed`, or `bypass` or `miss`, a colon and the reason; `None`: nothing.
    pub cache: Option<String>,
    /// It was looked for there.
    pub lookup: Option<Lookup>,
    /// It waited for a server, or for its turn in a lane.
    pub wait: Option<Times>,
    /// A server has run it.
    pub run: Option<Run>,
}

impl Request {
    /// Spans that it comes to.
    #[must_use]
    pub fn spans(&self) -> u64 {
        let parts = [self.lookup.is_some(), self.wait.is_some(), self.run.is_some()];
        1 + parts.into_iter().map(u64::from).sum::<u64>()
    }
}

/// A statement.
#[derive(Debug)]
pub struct Statement {
    /// Its shape.
    pub shape: u64,
    /// Its text without values and what it is; `None` if it is not known.
    pub known: Option<(Arc<str>, StatementKind)>,
}

/// A client.
#[derive(Debug)]
pub struct Session {
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// What it calls itself.
    pub application_name: Box<str>,
    /// Where it comes from, behind whatever has announced it; `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// The other end of its connection.
    pub peer: Option<SocketAddr>,
    /// This end.
    pub local: Option<SocketAddr>,
}

/// The cache was asked.
#[derive(Debug)]
pub struct Lookup {
    /// From the first look to the last.
    pub times: Times,
    /// It had the answer.
    pub hit: bool,
}

/// A server has run it.
#[derive(Debug)]
pub struct Run {
    /// The server, as it is written in the configuration.
    pub host: Arc<str>,
    /// From the sending of the statement, or the end of the one before it, to the end of its answer.
    pub times: Times,
    /// When the first byte of the answer came, microseconds.
    pub first_us: u64,
    /// How many answers came with the same read from the lane that it rode in; 0: it had the server to itself.
    pub abreast: u32,
}
