//! The console: the virtual database `pgweir`, by its protocol, its tables, its commands and the tools that use it.
//! It must never ask of a number more than is true whatever else runs on the machine.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod advice;
mod block;
mod columns;
mod commands;
mod login;
mod own;
mod plans;
mod protocol;
mod set;
mod slow;
mod tools;

use std::sync::OnceLock;

use common::{Client, Conf};
use integration::wire::{Frame, Script};
use integration::{Cluster, Pgweir};

/// One cluster for the tests that leave it running.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

/// With an admin `root` and a user `watcher` who may look.
fn conf() -> Conf {
    with_console(Conf::trust(cluster()))
}

fn with_console(conf: Conf) -> Conf {
    let conf = conf.user("root", "").user("watcher", "");
    conf.rest("[console]\nadmin_users = [\"root\"]\nstats_users = [\"watcher\"]\nstats_period = \"200ms\"\n")
}

/// A session of the console.
fn console(pgweir: &Pgweir) -> Client {
    console_as(pgweir, "root", "pgweir")
}

fn console_as(pgweir: &Pgweir, user: &str, database: &str) -> Client {
    Client::connect_with(pgweir.port(), &[("user", user), ("database", database)])
}

/// What a command is answered: columns with their types, and rows of text.
#[derive(Debug)]
struct Shown {
    columns: Vec<(String, u32)>,
    rows: Vec<Vec<String>>,
}

impl Shown {
    /// The value of a column in the first row in which another one has this value.
    fn value(&self, key: (&str, &str), column: &str) -> String {
        let at = |name: &str| {
            let found = self.columns.iter().position(|(known, _)| known == name);
            found.unwrap_or_else(|| panic!("no column {name} in {:?}", self.columns))
        };
        let row = self.rows.iter().find(|row| row[at(key.0)] == key.1);
        row.unwrap_or_else(|| panic!("no {key:?} in {:?}", self.rows))[at(column)].clone()
    }
}

/// Columns and their types of a RowDescription.
fn described(frame: &Frame) -> Vec<(String, u32)> {
    let mut columns = Vec::new();
    let mut rest = &frame.body[2..];
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        let fields = &rest[end + 1..];
        columns.push((name, u32::from_be_bytes(fields[6..10].try_into().unwrap())));
        rest = &fields[18..];
    }
    columns
}

/// Runs a SHOW; its tag must be `SHOW`.
fn show(client: &mut Client, sql: &str) -> Shown {
    let frames = client.run(&Script::new().query(sql));
    let rows = common::client::outcome(&frames).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let tag = frames.iter().find_map(Frame::command);
    assert_eq!(tag.as_deref(), Some("SHOW"), "{sql}");
    let columns = described(frames.iter().find(|frame| frame.tag == b'T').unwrap());
    Shown { columns, rows }
}

/// Runs a command that has no rows, and gives its tag.
fn command(client: &mut Client, sql: &str) -> Result<String, String> {
    let frames = client.run(&Script::new().query(sql));
    common::client::outcome(&frames)?;
    Ok(frames.iter().find_map(Frame::command).unwrap_or_default())
}
