//! The model's extended protocol: statements, portals, errors up to Sync.
//! Must never answer what PostgreSQL would refuse.

use super::{Backend, CopyIn, Done, Portal, has_rows, text};
use crate::wire::build;
use crate::wire::frame::{be_u32, cstr};
use crate::wire::tag::server;

impl Backend {
    pub(super) fn parse(&mut self, body: &[u8]) {
        let (name, rest) = cstr(body).unwrap();
        let sql = text(cstr(rest).unwrap().0);
        if name.is_empty() {
            self.unnamed = None;
        }
        if sql.starts_with("nosuch") {
            return self.error("42601", true);
        }
        if self.refuses(&sql) {
            return self.error("25P02", true);
        }
        if self.statements.contains_key(name) {
            let text = format!("prepared statement \"{}\" already exists", text(name));
            return self.error_saying("42P05", &text, true);
        }
        if name.is_empty() {
            self.unnamed = Some(sql);
        } else {
            self.stale.remove(name);
            self.statements.insert(name.to_vec(), sql);
            self.most_statements = self.most_statements.max(self.statements.len());
        }
        build::message(&mut self.out, server::PARSE_COMPLETE, |_| {});
    }

    fn refuses(&self, sql: &str) -> bool {
        self.status == b'E' && !matches!(sql, "commit" | "rollback")
    }

    fn statement(&self, name: &[u8]) -> Option<String> {
        if name.is_empty() { self.unnamed.clone() } else { self.statements.get(name).cloned() }
    }

    fn no_statement(&mut self, name: &[u8]) {
        let text = match name {
            b"" => "unnamed prepared statement does not exist".into(),
            name => format!("prepared statement \"{}\" does not exist", text(name)),
        };
        self.error_saying("26000", &text, true);
    }

    pub(super) fn bind(&mut self, body: &[u8]) {
        let (portal, rest) = cstr(body).unwrap();
        let (name, rest) = cstr(rest).unwrap();
        let Some(sql) = self.statement(name) else { return self.no_statement(name) };
        if rest[..4] != [0; 4] {
            let which = match name {
                b"" => "unnamed prepared statement".into(),
                name => format!("prepared statement \"{}\"", text(name)),
            };
            return self.error_saying("08P01", &format!("bind supplies 1 parameters, but {which} requires 0"), true);
        }
        if self.refuses(&sql) {
            return self.error("25P02", true);
        }
        if self.stale.contains(name) {
            return self.error("0A000", true);
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return self.error("42P03", true);
        }
        self.portals.insert(portal.to_vec(), Portal { sql, row: 0 });
        build::message(&mut self.out, server::BIND_COMPLETE, |_| {});
    }

    pub(super) fn describe(&mut self, body: &[u8]) {
        let name = cstr(&body[1..]).unwrap().0;
        let sql = if body[0] == b'S' {
            let Some(sql) = self.statement(name) else { return self.no_statement(name) };
            if self.stale.contains(name) {
                return self.error("0A000", true);
            }
            // PostgreSQL describes what has no result.
            if self.refuses(&sql) {
                return self.error("25P02", true);
            }
            build::message(&mut self.out, server::PARAMETER_DESCRIPTION, |out| out.extend_from_slice(&[0, 0]));
            sql
        } else {
            let Some(portal) = self.portals.get(name) else { return self.error("34000", true) };
            portal.sql.clone()
        };
        if has_rows(&sql) {
            self.row_description();
        } else {
            build::message(&mut self.out, server::NO_DATA, |_| {});
        }
    }

    pub(super) fn execute(&mut self, body: &[u8]) {
        let (name, rest) = cstr(body).unwrap();
        let limit = be_u32(rest).unwrap() as usize;
        let Some(portal) = self.portals.get(name) else { return self.error("34000", true) };
        let (sql, row) = (portal.sql.clone(), portal.row);
        match self.run(&sql, row, limit) {
            Done::Tag(tag) if tag.is_empty() => {
                self.answers += 1;
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.row += limit;
                }
                build::message(&mut self.out, server::PORTAL_SUSPENDED, |_| {});
            }
            Done::Tag(tag) => self.complete(&tag),
            Done::Failed(code) => self.error(code, true),
            Done::CopyIn => self.copy = Some(CopyIn { then: None, rows: 0 }),
            Done::Empty => {
                self.answers += 1;
                build::message(&mut self.out, server::EMPTY_QUERY, |_| {});
            }
        }
    }

    pub(super) fn close(&mut self, body: &[u8]) {
        let name = cstr(&body[1..]).unwrap().0;
        match (body[0], name) {
            (b'S', b"") => self.unnamed = None,
            (b'S', name) => self.closes += usize::from(self.statements.remove(name).is_some()),
            _ => {
                self.portals.remove(name);
            }
        }
        build::message(&mut self.out, server::CLOSE_COMPLETE, |_| {});
    }
}
