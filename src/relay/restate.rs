//! Statements that are sent with other numbers in them than their client wrote, and those about pgweir's own settings.
//! Must never change anything else: not what errors count, nor names and types of what is answered.

use std::ops::Range;

use super::attach::NO_STATEMENT;
use super::forward::{Message, Outgoing, Taken};
use super::pids::{Held, Waits};
use super::prepared::Found;
use super::renames::Named;
use super::statements::{ServerName, Statement};
use super::{ClientId, Relay, ServerId};
use crate::config::SessionState;
use crate::flow::expect::{Kind, Origin};
use crate::sql::own::{last_lsn, refusal};
use crate::sql::pids::{numbers, pids, signal, with_own_pid};
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::frame::cstr;
use crate::wire::pid::is_process;
use crate::wire::tag::client as tag;

/// Name of a statement whose text had to be changed; prepared anew each time.
const NAME: &[u8] = b"__pgweir_pids";

/// A statement with other numbers.
#[derive(Default)]
pub(super) struct Restated {
    /// Its text, if that changes.
    text: Option<Vec<u8>>,
    /// The body of its Bind.
    bind: Vec<u8>,
}

/// A number in a text or in the value of a parameter.
pub(super) struct Place {
    in_text: bool,
    at: Range<usize>,
    binary: bool,
    /// As it was told.
    pub(super) number: u32,
}

impl Place {
    /// Puts another number there, as long as this one.
    fn put(&self, text: &mut [u8], bind: &mut [u8], pid: u32) {
        let width = self.at.len();
        let whole = if self.in_text { text } else { bind };
        let Some(place) = whole.get_mut(self.at.clone()) else { return };
        if self.binary {
            let bytes = u64::from(pid).to_be_bytes();
            place.copy_from_slice(bytes.get(bytes.len().saturating_sub(width)..).unwrap_or_default());
        } else {
            place.copy_from_slice(format!("{pid:<width$}").as_bytes());
        }
    }
}

impl Relay {
    /// What this statement is to say instead, and its Bind if it has one.
    pub(super) fn restated(
        &mut self,
        id: ClientId,
        server: ServerId,
        effects: Effects,
        sql: &[u8],
        bind: Option<&[u8]>,
    ) -> Result<Option<Restated>, Waits> {
        if !effects.any(Effects::PIDS) {
            return Ok(None);
        }
        let Some(client) = self.clients.get(id) else { return Ok(None) };
        let (conforming, told) = (client.conforming, self.told_pid(id));
        let bind = bind.unwrap_or_default();
        if let Some(text) = last_lsn(sql, conforming).or_else(|| refusal(sql, conforming)) {
            return Ok(Some(Restated { text: Some(text), bind: bind.to_vec() }));
        }
        if self.groups[client.group].terms.session_state == SessionState::PgBouncer {
            return Ok(None);
        }
        if !is_process(told)
            && let Some(text) = with_own_pid(sql, conforming, told)
        {
            return Ok(Some(Restated { text: Some(text), bind: bind.to_vec() }));
        }
        let places = self.places(sql, conforming, bind);
        let Some(endpoint) = self.pool_of(server).map(|pool| pool.dial.endpoint.clone()) else {
            return Ok(None);
        };
        if places.is_empty() {
            return Ok(None);
        }
        let Some(answers) = self.answers(id, &endpoint) else {
            let signal = signal(sql, conforming).filter(|_| self.acts_as_itself(id, server));
            let asked = self.ask_who(id, endpoint, &places, signal.map(|signal| signal.ends));
            return if asked { Err(Waits) } else { Ok(None) };
        };
        let held = answers?;
        let (mut text, mut bind) = (sql.to_vec(), bind.to_vec());
        for place in &places {
            match held.iter().find(|(number, _)| *number == place.number) {
                Some((_, Some(Held { pid: Some(pid), .. }))) => place.put(&mut text, &mut bind, *pid),
                Some((_, Some(Held { pid: None, .. }))) => {
                    text = signal(sql, conforming).map_or(text, |signal| signal.done);
                }
                _ => {}
            }
        }
        Ok(Some(Restated { text: (text != sql).then_some(text), bind }))
    }

    /// What a Parse is to have behind its name instead. Numbers of processes are replaced as it is bound: before, they
    /// say nothing of what it answers.
    pub(super) fn restated_parse(&self, id: ClientId, found: &Found, tail: &[u8]) -> Option<Vec<u8>> {
        let (sql, types) = found.look.effects.any(Effects::PIDS).then(|| cstr(tail)).flatten()?;
        let mut tail = last_lsn(sql, self.clients.get(id)?.conforming)?;
        tail.push(0);
        tail.extend_from_slice(types);
        Some(tail)
    }

    /// The same of the statement that a Bind names.
    pub(super) fn restated_bind(
        &mut self,
        id: ClientId,
        server: ServerId,
        named: &Named,
        message: &Message<'_>,
    ) -> Result<Option<Restated>, Waits> {
        match (named, message.body()) {
            (Named::Known(statement), Some(body)) => {
                self.restated(id, server, statement.look.effects, statement.sql(), Some(body))
            }
            _ => Ok(None),
        }
    }

    /// Where a statement has numbers that clients of this instance may have.
    fn places(&self, sql: &[u8], conforming: bool, bind: &[u8]) -> Vec<Place> {
        let found = pids(sql, conforming);
        let in_text = found.numbers.into_iter().map(|(at, number)| Place { in_text: true, at, binary: false, number });
        let mut places: Vec<Place> = in_text.collect();
        let values = values(bind).unwrap_or_default();
        for (at, binary) in found.parameters.iter().filter_map(|n| values.get(usize::from(*n)).cloned()) {
            let value = bind.get(at.clone()).unwrap_or_default();
            let place = |at: Range<usize>, number| Place { in_text: false, at, binary, number };
            match value {
                _ if !binary => {
                    places.extend(numbers(value).map(|(run, n)| place(at.start + run.start..at.start + run.end, n)));
                }
                [0, 0, 0, 0, a, b, c, d] | [a, b, c, d] => places.push(place(at, u32::from_be_bytes([*a, *b, *c, *d]))),
                _ => {}
            }
        }
        places.retain(|place| self.whose(place.number).is_some());
        places
    }

    /// Takes a Query that is to say something else.
    pub(super) fn restate_query(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        restated: Restated,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        self.aimed(id, server);
        let Some(text) = restated.text else { return self.pass(id, message) };
        out.edit(message.at, message.header.total);
        build::query(&mut out.tx, &text);
        Taken::Bytes(message.header.total)
    }

    /// Takes a Bind of `statement`, prepared here as `number` unless it is the unnamed one, that is to say something else.
    #[allow(clippy::too_many_arguments, reason = "the parts of one message, taken apart by its only caller")]
    pub(super) fn restate_bind(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        name: &[u8],
        statement: &Statement,
        restated: Restated,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        self.aimed(id, server);
        // It could not be forwarded a second time without asking again.
        out.kept_from = None;
        out.edit(message.at, message.header.total);
        let given = ServerName::of(statement.id);
        let named: &[u8] = match &restated.text {
            Some(text) => {
                let types = statement.tail.get(statement.sql().len()..).unwrap_or_default();
                // What an error left there.
                build::close_statement(&mut out.tx, NAME);
                build::parse(&mut out.tx, NAME, &[text, types].concat());
                for kind in [Kind::Close, Kind::Parse] {
                    self.expect(id, server, kind, Origin::Injected, NO_STATEMENT, 0);
                }
                NAME
            }
            None if name.is_empty() => name,
            None => given.bytes(),
        };
        self.expect_called(id, server, Kind::Bind, (NO_STATEMENT, name), statement.look.shape);
        let closes = restated.text.is_some();
        let (portal, rest) = cstr(&restated.bind).unwrap_or_default();
        let values = cstr(rest).map_or(&[][..], |(_, values)| values);
        build::message(&mut out.tx, tag::BIND, |tx| {
            build::cstr(tx, portal);
            build::cstr(tx, named);
            tx.extend_from_slice(values);
        });
        if closes {
            // The portal needs it no more, and nobody else is to find it.
            build::close_statement(&mut out.tx, NAME);
            self.expect(id, server, Kind::Close, Origin::Injected, NO_STATEMENT, 0);
        }
        Taken::Bytes(message.header.total)
    }
}

/// Takes a Parse that goes out with another name and text.
pub(super) fn replace_parse(message: &Message<'_>, name: &[u8], tail: &[u8], out: &mut Outgoing<'_>) -> Taken {
    out.edit(message.at, message.header.total);
    build::parse(&mut out.tx, name, tail);
    Taken::Bytes(message.header.total)
}

/// Where the values of a Bind are in its body, and whether they are binary. `None` if it is not well made.
fn values(bind: &[u8]) -> Option<Vec<(Range<usize>, bool)>> {
    let two = |at: usize| Some(usize::from(u16::from_be_bytes(*bind.get(at..)?.first_chunk::<2>()?)));
    let (portal, rest) = cstr(bind)?;
    let (name, _) = cstr(rest)?;
    let formats = portal.len() + name.len() + 2;
    let count = two(formats)?;
    let mut at = formats + 2 + 2 * count;
    let values = two(at).filter(|values| count < 2 || count == *values)?;
    at += 2;
    let mut found = Vec::new();
    for n in 0..values {
        let format = match count {
            0 => 0,
            1 => two(formats + 2)?,
            _ => two(formats + 2 + 2 * n)?,
        };
        let length = i32::from_be_bytes(*bind.get(at..)?.first_chunk::<4>()?);
        at += 4;
        // NULL has none.
        let end = at + usize::try_from(length).unwrap_or(0);
        bind.get(at..end)?;
        found.push((at..end, format == 1));
        at = end;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_bind_are_found() {
        let mut bind = b"p\0s\0\0\x02\0\x01\0\0\0\x03\0\0\0\x04".to_vec();
        bind.extend_from_slice(&40_000_000u32.to_be_bytes());
        bind.extend_from_slice(b"\0\0\0\x0840000001\xff\xff\xff\xff\0\0");
        // Three values, two formats.
        assert_eq!(values(&bind), None);
        bind[5] = 3;
        bind.splice(10..10, [0, 0]);
        let found = values(&bind).unwrap();
        assert_eq!(found.iter().map(|(_, binary)| *binary).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(bind[found[1].0.clone()], *b"40000001");
        assert!(found[2].0.is_empty());
        for cut in 0..bind.len() - 2 {
            assert_eq!(values(&bind[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_number_is_replaced_by_one_as_long() {
        let place = |in_text, at, binary| Place { in_text, at, binary, number: 0 };
        let (mut text, mut bind) = (b"f(33554433)".to_vec(), vec![7; 14]);
        place(true, 2..10, false).put(&mut text, &mut bind, 1234);
        place(false, 1..5, true).put(&mut text, &mut bind, 0x10203);
        place(false, 5..13, true).put(&mut text, &mut bind, 9);
        assert_eq!(text, b"f(1234    )");
        assert_eq!(bind, [7, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 9, 7]);
    }
}
