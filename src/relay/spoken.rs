//! The statements of a batch that has not begun, one after the other.
//! Must never run anything, nor look at a text whose statement is known.

use std::rc::Rc;

use super::client::Unnamed;
use super::lease::Parsed;
use super::retell::sql_of;
use super::shapes::Look;
use super::{ClientId, Relay};
use crate::flow::requests::End;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::client as tag;

impl Relay {
    /// Calls `what` with what is known of each statement of the batch at the front of `data`, and its text.
    pub(super) fn each_statement(&mut self, id: ClientId, data: &[u8], end: End, mut what: impl FnMut(&Look, &[u8])) {
        let Some(client) = self.clients.get(id) else { return };
        let conforming = client.conforming;
        match end {
            End::Query if data.first() == Some(&tag::QUERY) => {
                let sql = data.get(HEADER..).and_then(cstr).map_or(&[][..], |(sql, _)| sql);
                what(&self.shapes.look(sql, conforming), sql);
            }
            End::Sync | End::Flush => self.each_of_batch(id, data, what),
            End::Query | End::Call => {}
        }
    }

    /// The same for an extended batch.
    fn each_of_batch(&mut self, id: ClientId, data: &[u8], mut what: impl FnMut(&Look, &[u8])) {
        let mut at = 0;
        let mut parsed = Parsed::new();
        while let Some(rest) = data.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some(body) = rest.get(HEADER..header.total)
            && let Some(client) = self.clients.get(id)
        {
            let conforming = client.conforming;
            let name = match header.tag {
                tag::BIND => cstr(body).and_then(|(_, rest)| cstr(rest)).map(|(name, _)| name),
                tag::DESCRIBE => body.strip_prefix(b"S").and_then(cstr).map(|(name, _)| name),
                _ => None,
            };
            let statement = match (header.tag, name) {
                (tag::PARSE, _) => {
                    if let Some((name, tail)) = cstr(body) {
                        parsed.push(name);
                        what(&self.shapes.look(sql_of(tail), conforming), sql_of(tail));
                    }
                    None
                }
                (_, Some(name)) if parsed.contains(&name) => None,
                (_, Some([])) => match &client.unnamed {
                    Unnamed::Known(statement) => Some(Rc::clone(statement)),
                    Unnamed::Nothing | Unnamed::There { .. } => None,
                },
                (_, Some(name)) => client.prepared.as_ref().and_then(|prepared| prepared.get(name).cloned()),
                (_, None) => None,
            };
            if let Some(statement) = statement {
                what(&statement.look, statement.sql());
            }
            if header.tag == tag::SYNC {
                break;
            }
            at += header.total;
        }
    }
}
