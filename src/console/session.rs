//! One session of the console: its messages, in order, and what they are answered.
//! Must never live on after an error of the protocol, nor keep a program from ending.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::BytesMut;
use pgwire::messages::PgWireFrontendMessage as Front;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use tokio::sync::Notify;

use super::Console;
use super::command::{Command, commands};
use super::extended::{Portal, Prepared};
use super::select::Parameters;
use super::table::{Form, Table, data, description};
use super::wire::{decode, put, put_error};
use crate::base::clock;
use crate::gate::{Rights, Visitor};
use crate::relay::census::Row;
use crate::server::stream::Stream;
use crate::wire::build;
use crate::wire::error::{PgError, Severity, SqlState};

/// Answers are sent whenever so much has come together.
const FLUSH_BYTES: usize = 64 * 1024;

/// What drivers are told at login (`admin_setup` and `welcome` of PgBouncer).
const PARAMETERS: [(&str, &str); 7] = [
    ("server_version", "1.25.2/bouncer"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
];

/// A session as others see it.
pub(super) struct Seen {
    /// As `SHOW CLIENTS` has it; the time of its last request is kept apart.
    pub row: Row,
    pub request_us: Cell<u64>,
    /// Secret of its cancel key.
    pub key: [u8; 4],
    /// Rung when what it waits for is not wanted any more.
    pub cancelled: Notify,
    /// Rung when it is to end.
    pub ended: Notify,
}

/// What a command has come to.
pub(super) enum Answer {
    Empty,
    Done(&'static str),
    Rows(&'static str, Table),
    /// A word besides.
    Notice(&'static str, PgError),
}

/// One session.
pub(super) struct Session {
    pub(super) console: Rc<Console>,
    pub(super) stream: Stream,
    pub(super) out: BytesMut,
    pub(super) statements: HashMap<String, Rc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    pub(super) seen: Rc<Seen>,
    rights: Rights,
    in_transaction: bool,
    /// An error came up in a batch: what comes is read over up to its Sync.
    skipping: bool,
}

/// Serves a visitor to the end.
pub(super) async fn run(console: Rc<Console>, visitor: Visitor) {
    let number = console.number();
    let Visitor { mut socket, prefix, leftover, database, user, rights, application_name, from, seat, .. } = visitor;
    let _seat = seat;
    if socket.settle().is_err() {
        return;
    }
    let (peer, local) = socket.ends();
    let now_us = clock::now_us();
    let row = Row {
        user,
        database,
        replication: "none",
        state: "active",
        peer: from.or(peer),
        local,
        is_unix: socket.is_unix(),
        since_us: now_us,
        key: format!("console.{number}"),
        pid: socket.peer_pid().unwrap_or(0),
        tls: socket.tls_parameters().unwrap_or_default(),
        application_name,
        id: number,
        ..Row::default()
    };
    let mut key = [0; 4];
    if aws_lc_rs::rand::fill(&mut key).is_err() {
        return;
    }
    let (cancelled, ended) = (Notify::new(), Notify::new());
    let seen = Rc::new(Seen { row, request_us: Cell::new(now_us), key, cancelled, ended });
    console.sessions.borrow_mut().insert(number, Rc::clone(&seen));
    let mut session = Session {
        console: Rc::clone(&console),
        stream: Stream::with(socket, leftover),
        out: BytesMut::new(),
        statements: HashMap::new(),
        portals: HashMap::new(),
        seen,
        rights,
        in_transaction: false,
        skipping: false,
    };
    if let Err(error) = Box::pin(session.serve(prefix)).await {
        put_error(&mut session.out, &error);
        let _ = session.flush().await;
    }
    console.sessions.borrow_mut().remove(&number);
}

/// The connection is gone: nobody is told.
fn gone() -> PgError {
    PgError::fatal(SqlState::CONNECTION_FAILURE, "the connection is gone")
}

impl Session {
    /// Up to the end of the session.
    async fn serve(&mut self, prefix: Vec<u8>) -> Result<(), PgError> {
        let mut hello = prefix;
        for (name, value) in PARAMETERS {
            build::parameter_status(&mut hello, name.as_bytes(), value.as_bytes());
        }
        build::backend_key(&mut hello, self.seen.row.id, &self.seen.key);
        self.out.extend_from_slice(&hello);
        self.ready().await?;
        let seen = Rc::clone(&self.seen);
        loop {
            let message = tokio::select! {
                message = self.stream.next() => message,
                () = seen.ended.notified() => return Err(by_command()),
            };
            let message = match message {
                Ok(message) => message,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(PgError::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string()));
                }
                Err(_) => return Ok(()),
            };
            seen.request_us.set(clock::now_us());
            let message = decode(&message)?;
            match message {
                Front::Terminate(_) => return Ok(()),
                Front::Query(query) => self.query(&query.query).await?,
                Front::Sync(_) => {
                    self.skipping = false;
                    if !self.in_transaction {
                        self.portals.clear();
                    }
                    self.ready().await?;
                }
                Front::Flush(_) => self.flush().await?,
                // PostgreSQL reads over these outside of COPY, too.
                Front::CopyData(_) | Front::CopyDone(_) | Front::CopyFail(_) => {}
                message if message.is_extended_query() => {
                    if !self.skipping
                        && let Err(error) = Box::pin(self.extended(message)).await
                    {
                        self.failed(error)?;
                        self.skipping = true;
                    }
                }
                _ => return Err(PgError::fatal(SqlState::PROTOCOL_VIOLATION, "unexpected message type")),
            }
        }
    }

    /// Tells of an error; one that ends the session is handed on.
    fn failed(&mut self, error: PgError) -> Result<(), PgError> {
        if error.severity == Severity::Fatal {
            return Err(error);
        }
        put_error(&mut self.out, &error);
        Ok(())
    }

    /// A text by the simple protocol.
    async fn query(&mut self, text: &str) -> Result<(), PgError> {
        let outcome = match commands(text) {
            Ok(commands) => self.answer_all(commands).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            self.failed(error)?;
        }
        self.ready().await
    }

    async fn answer_all(&mut self, commands: Vec<Command>) -> Result<(), PgError> {
        for command in commands {
            match self.execute(&command, &[]).await? {
                Answer::Empty => put(&mut self.out, &EmptyQueryResponse::new()),
                Answer::Done(tag) => self.complete(tag),
                Answer::Notice(tag, notice) => {
                    put_error(&mut self.out, &notice);
                    self.complete(tag);
                }
                Answer::Rows(tag, table) => {
                    put(&mut self.out, &description(&table.columns, &[]));
                    for row in &table.rows {
                        put(&mut self.out, &data(&table.columns, row, &[Form::Text; 0]));
                        if self.out.len() > FLUSH_BYTES {
                            self.flush().await?;
                        }
                    }
                    self.complete(tag);
                }
            }
        }
        Ok(())
    }

    pub(super) fn complete(&mut self, tag: &str) {
        put(&mut self.out, &CommandComplete::new(tag.to_owned()));
    }

    /// Does what a command says. Ends when its client goes meanwhile, or when the session is to end.
    pub(super) async fn execute(&mut self, command: &Command, parameters: &Parameters) -> Result<Answer, PgError> {
        if command.needs_admin() && self.rights != Rights::Admin {
            // In PgBouncer's words.
            let error = PgError::error(SqlState::INSUFFICIENT_PRIVILEGE, "admin access needed");
            return Err(error.hint("Who has it is listed in admin_users of [console]."));
        }
        self.console.commands.set(self.console.commands.get() + 1);
        match command {
            Command::Begin => self.in_transaction = true,
            Command::Finish(_) => self.in_transaction = false,
            _ => {}
        }
        // What is long must not be held back while something may take long.
        if !self.out.is_empty() {
            self.flush().await?;
        }
        let (console, seen) = (Rc::clone(&self.console), Rc::clone(&self.seen));
        let cancelled = tokio::select! {
            biased;
            answer = console.act(command, parameters, &seen) => return answer,
            () = seen.ended.notified() => by_command(),
            () = self.stream.ended() => gone(),
            () = seen.cancelled.notified() => {
                PgError::error(SqlState::QUERY_CANCELED, "canceling statement due to user request")
            }
        };
        // A pause that nobody waits for any more because its client is gone stays; one that was cancelled is none.
        if let (Command::Pause(name), Severity::Error) = (command, cancelled.severity) {
            console.act(&Command::Resume(name.clone()), parameters, &seen).await?;
        }
        Err(cancelled)
    }

    async fn ready(&mut self) -> Result<(), PgError> {
        let mut ready = Vec::new();
        build::ready(&mut ready, if self.in_transaction { b'T' } else { b'I' });
        self.out.extend_from_slice(&ready);
        self.flush().await
    }

    pub(super) async fn flush(&mut self) -> Result<(), PgError> {
        let out = self.out.split();
        let seen = Rc::clone(&self.seen);
        tokio::select! {
            sent = self.stream.send(&out) => sent.map_err(|_| gone()),
            // A client that does not read must not keep the program from ending.
            () = seen.ended.notified() => Err(by_command()),
        }
    }
}

fn by_command() -> PgError {
    PgError::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}
