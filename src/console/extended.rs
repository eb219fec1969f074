//! Parse, Bind, Describe, Execute and Close on the console.
//! Must never run a command before its Execute, nor twice for one.

use std::rc::Rc;

use pgwire::messages::PgWireFrontendMessage as Front;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::EmptyQueryResponse;

use super::command::{Command, commands, syntax};
use super::session::{Answer, Session};
use super::table::{Column, Form, Table, data, description, forms};
use super::wire::{put, put_error};
use crate::wire::error::{PgError, SqlState};

/// Statements and portals of one session, each.
const KEPT: usize = 1000;
/// Type numbers of parameters that can be had in binary.
const TEXTS: [u32; 4] = [25, 1043, 705, 19];
const INTEGERS: [u32; 3] = [20, 21, 23];

/// A prepared command.
pub(super) struct Prepared {
    command: Command,
    /// Types of its parameters.
    types: Vec<u32>,
    columns: Option<Vec<Column>>,
}

/// A command with its parameters.
pub(super) struct Portal {
    prepared: Rc<Prepared>,
    parameters: Vec<Option<String>>,
    forms: Vec<Form>,
    /// Once it was executed: what is left of its answer, and its tag.
    answer: Option<(&'static str, Option<Table>, usize)>,
}

impl Session {
    /// One message of the extended protocol but Sync and Flush.
    pub(super) async fn extended(&mut self, message: Front) -> Result<(), PgError> {
        match message {
            Front::Parse(parse) => self.parse(parse),
            Front::Bind(bind) => self.bind(&bind),
            Front::Describe(describe) => self.describe(&describe),
            Front::Execute(execute) => self.run(&execute).await,
            Front::Close(close) => {
                let name = close.name.unwrap_or_default();
                match close.target_type {
                    b'S' => drop(self.statements.remove(&name)),
                    b'P' => drop(self.portals.remove(&name)),
                    other => return Err(subtype("CLOSE", other)),
                }
                put(&mut self.out, &CloseComplete::new());
                Ok(())
            }
            _ => Err(PgError::fatal(SqlState::PROTOCOL_VIOLATION, "unexpected message type")),
        }
    }

    fn parse(&mut self, parse: Parse) -> Result<(), PgError> {
        let name = parse.name.unwrap_or_default();
        let mut all = commands(&parse.query)?;
        let command = all.pop().unwrap_or(Command::Empty);
        if !all.is_empty() {
            return Err(syntax("cannot insert multiple commands into a prepared statement"));
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(PgError::error(SqlState::DUPLICATE_STATEMENT, message));
        }
        full(self.statements.len(), "prepared statements")?;
        let columns = command.columns()?;
        let mut types = parse.type_oids;
        types.resize(types.len().max(command.parameters()), 0);
        // Unknown is text, as everything here can be.
        types.iter_mut().filter(|oid| **oid == 0).for_each(|oid| *oid = TEXTS[0]);
        self.statements.insert(name, Rc::new(Prepared { command, types, columns }));
        put(&mut self.out, &ParseComplete::new());
        Ok(())
    }

    fn bind(&mut self, bind: &Bind) -> Result<(), PgError> {
        let name = bind.statement_name.as_deref().unwrap_or_default();
        let prepared = Rc::clone(self.statement(name)?);
        if bind.parameters.len() != prepared.types.len() {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{name}\" requires {}",
                bind.parameters.len(),
                prepared.types.len()
            );
            return Err(PgError::error(SqlState::PROTOCOL_VIOLATION, message));
        }
        let codes = forms(&bind.parameter_format_codes, prepared.types.len())?;
        let values = bind.parameters.iter().zip(&prepared.types).zip(codes);
        let parameters = values.map(|((bytes, oid), form)| bytes.as_deref().map(|it| text(it, *oid, form)).transpose());
        let parameters = parameters.collect::<Result<_, _>>()?;
        let columns = prepared.columns.as_ref().map_or(0, Vec::len);
        let forms = if columns == 0 { Vec::new() } else { forms(&bind.result_column_format_codes, columns)? };
        full(self.portals.len(), "portals")?;
        let portal = bind.portal_name.clone().unwrap_or_default();
        self.portals.insert(portal, Portal { prepared, parameters, forms, answer: None });
        put(&mut self.out, &BindComplete::new());
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Rc<Prepared>, PgError> {
        self.statements.get(name).ok_or_else(|| {
            let message = format!("prepared statement \"{name}\" does not exist");
            PgError::error(SqlState::UNDEFINED_STATEMENT, message)
        })
    }

    fn describe(&mut self, describe: &Describe) -> Result<(), PgError> {
        let name = describe.name.as_deref().unwrap_or_default();
        let (prepared, forms) = match describe.target_type {
            b'S' => {
                let prepared = Rc::clone(self.statement(name)?);
                put(&mut self.out, &ParameterDescription::new(prepared.types.clone()));
                (prepared, Vec::new())
            }
            b'P' => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (Rc::clone(&portal.prepared), portal.forms.clone())
            }
            other => return Err(subtype("DESCRIBE", other)),
        };
        match &prepared.columns {
            Some(columns) => put(&mut self.out, &description(columns, &forms)),
            None => put(&mut self.out, &NoData::new()),
        }
        Ok(())
    }

    async fn run(&mut self, execute: &Execute) -> Result<(), PgError> {
        let name = execute.name.as_deref().unwrap_or_default();
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        if portal.answer.is_none() {
            let prepared = Rc::clone(&portal.prepared);
            portal.answer = Some(match self.execute(&prepared.command, &portal.parameters).await? {
                Answer::Empty => {
                    put(&mut self.out, &EmptyQueryResponse::new());
                    self.portals.insert(name.to_owned(), portal);
                    return Ok(());
                }
                Answer::Done(tag) => (tag, None, 0),
                Answer::Notice(tag, notice) => {
                    put_error(&mut self.out, &notice);
                    (tag, None, 0)
                }
                Answer::Rows(tag, table) => (tag, Some(table), 0),
            });
        }
        if let Some((tag, table, from)) = &mut portal.answer {
            let rows = table.as_ref().map_or(&[][..], |table| table.rows.get(*from..).unwrap_or_default());
            let most = usize::try_from(execute.max_rows).ok().filter(|most| *most > 0).unwrap_or(rows.len());
            for row in rows.iter().take(most) {
                let columns = table.as_ref().map_or(&[][..], |table| &table.columns);
                put(&mut self.out, &data(columns, row, &portal.forms));
            }
            *from += most.min(rows.len());
            if most < rows.len() {
                put(&mut self.out, &PortalSuspended::new());
            } else {
                let tag = *tag;
                self.complete(tag);
            }
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }
}

fn full(count: usize, what: &str) -> Result<(), PgError> {
    if count < KEPT {
        return Ok(());
    }
    Err(PgError::error(SqlState::PROGRAM_LIMIT, format!("pgweir: a session of the console has at most {KEPT} {what}")))
}

fn no_portal(name: &str) -> PgError {
    PgError::error(SqlState::UNDEFINED_PORTAL, format!("portal \"{name}\" does not exist"))
}

fn subtype(message: &str, found: u8) -> PgError {
    PgError::error(SqlState::PROTOCOL_VIOLATION, format!("invalid {message} message subtype {found}"))
}

/// The value of a parameter as text.
fn text(bytes: &[u8], oid: u32, form: Form) -> Result<String, PgError> {
    let utf8 = || {
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| PgError::error(SqlState::INVALID_TEXT, "a parameter is not UTF-8"))
    };
    if form == Form::Text || TEXTS.contains(&oid) {
        return utf8();
    }
    let integer = match *bytes {
        [a, b] => i64::from(i16::from_be_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => return Err(no_binary(oid)),
    };
    if INTEGERS.contains(&oid) { Ok(integer.to_string()) } else { Err(no_binary(oid)) }
}

fn no_binary(oid: u32) -> PgError {
    let message = format!("pgweir: the console takes no binary parameter of type {oid}");
    PgError::error(SqlState::FEATURE_NOT_SUPPORTED, message).hint("Send it as text.")
}
