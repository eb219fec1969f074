//! A client of a simulation: what it writes by its dice, and whether what it hears can be.
//! Must never accept a row that another asked for, nor more answers than it asked for.

use std::collections::VecDeque;

use super::program::Dice;
use super::rig::{Rig, letters};
use super::speech::*;
use crate::wire::frame::{HEADER, Header};
use crate::wire::tag::server;

/// A client's program and what it has heard.
pub struct Actor {
    pub peer: usize,
    /// Written, but not on the wire yet.
    pub unsent: VecDeque<u8>,
    /// Batches that it began, each owed one ReadyForQuery.
    pub batches: usize,
    in_block: bool,
    /// Messages without their Sync were sent.
    pub open: bool,
    pub heard: Vec<u8>,
    /// All that it wrote and heard, one letter per message.
    pub story: String,
    /// ReadyForQuery heard, without that of the login.
    pub ready: usize,
    pub welcomed: bool,
    pub fatal: bool,
    pub left: bool,
}

impl Actor {
    pub fn new(peer: usize) -> Self {
        Self {
            peer,
            unsent: VecDeque::new(),
            batches: 0,
            in_block: false,
            open: false,
            heard: Vec::new(),
            story: String::new(),
            ready: 0,
            welcomed: false,
            fatal: false,
            left: false,
        }
    }

    /// Whatever comes next in its program.
    pub fn write(&mut self, dice: &mut Dice) {
        let text = format!("select {}.{}", self.peer, self.batches);
        let name = ["a", "b", "c"][dice.roll(3)];
        let own = format!("select {}.{name}", self.peer);
        let part = match dice.roll(16) {
            _ if self.open => match dice.roll(3) {
                0 => [run(""), flush()].concat(),
                _ => {
                    self.open = false;
                    sync()
                }
            },
            0 => {
                self.in_block = !self.in_block;
                query(if self.in_block { "begin" } else { "commit" })
            }
            1 => query("select 1/0"),
            2 => query(&format!("{text} ; select 5 rows wide")),
            3 => [parse("", &text), run(""), describe(b'P', "none"), sync()].concat(),
            4 => [close(b'S', name), parse(name, &own), run(name), sync()].concat(),
            5 => [run(name), sync()].concat(),
            6 => [parse(name, "select shared"), describe(b'S', name), run(name), sync()].concat(),
            7 => {
                self.open = true;
                [parse("", &text), run(""), flush()].concat()
            }
            8 => query("do something"),
            9 if dice.roll(4) == 0 => query("set application_name to x"),
            10 => [query("copy t from stdin"), plain(b'd', b"row"), plain(b'c', b"")].concat(),
            11 => query("copy t to stdout"),
            12 => [parse("", "deallocate all"), run(""), parse(name, &own), run(name), sync()].concat(),
            13 => query(&format!("execute {name}")),
            _ => query(&text),
        };
        self.unsent.extend(part.iter());
        self.story += &format!("{} ", String::from_utf8_lossy(&part).replace(|c: char| c < ' ', "."));
        let ends = letters(&part).chars().filter(|tag| matches!(*tag, 'Q' | 'S')).count();
        self.batches += ends;
    }

    /// Reads what it was sent and says what of it cannot be.
    pub fn listen(&mut self, rig: &Rig) {
        self.heard.extend(rig.heard(self.peer));
        let mut at = 0;
        while let Ok(Some(header)) = Header::peek(&self.heard[at..], usize::MAX)
            && let Some(body) = self.heard.get(at + HEADER..at + header.total)
        {
            assert!(
                !self.fatal,
                "client {} hears {:?} behind its end: {}",
                self.peer,
                letters(&self.heard),
                self.story
            );
            match header.tag {
                server::DATA_ROW => self.row(&body[6..]),
                server::ERROR => self.fatal = body.starts_with(b"SFATAL"),
                server::READY if !self.welcomed => self.welcomed = true,
                server::READY => {
                    self.ready += 1;
                    assert!(self.ready <= self.batches, "client {} is answered what it did not ask", self.peer);
                }
                _ => {}
            }
            at += header.total;
        }
        let heard: Vec<u8> = self.heard.drain(..at).collect();
        if at > 0 {
            self.story += &format!("-> {} ", letters(&heard));
        }
    }

    fn row(&self, value: &[u8]) {
        let value = std::str::from_utf8(value).unwrap();
        if value == "shared" || value.starts_with('w') {
            return;
        }
        let (whose, what) = value.split_once('.').unwrap_or_else(|| panic!("a row of nobody's: {value}"));
        assert_eq!(whose, self.peer.to_string(), "client {} hears a row of client {whose}", self.peer);
        if let Ok(batch) = what.parse::<usize>() {
            assert_eq!(batch, self.ready, "client {}: a row of batch {batch}", self.peer);
        }
    }
}
