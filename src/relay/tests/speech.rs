//! Client messages, short to write.
//! Must never build a message that a client could not send.

use crate::wire::build;
use crate::wire::tag::client as tag;

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::query(&mut out, sql.as_bytes());
    out
}

/// Parse without parameter types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let tail = [sql.as_bytes(), &[0, 0, 0]].concat();
    build::parse(&mut out, name.as_bytes(), &tail);
    out
}

/// Bind without parameters.
pub fn bind(portal: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag::BIND, |out| {
        build::cstr(out, portal.as_bytes());
        build::cstr(out, name.as_bytes());
        out.extend_from_slice(&[0; 6]);
    });
    out
}

/// Bind with one parameter.
pub fn bind_one(portal: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag::BIND, |out| {
        build::cstr(out, portal.as_bytes());
        build::cstr(out, name.as_bytes());
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    });
    out
}

/// Describe of a statement (`S`) or portal (`P`).
pub fn describe(what: u8, name: &str) -> Vec<u8> {
    named(tag::DESCRIBE, what, name)
}

/// Close of a statement (`S`) or portal (`P`).
pub fn close(what: u8, name: &str) -> Vec<u8> {
    named(tag::CLOSE, what, name)
}

fn named(tag: u8, what: u8, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag, |out| {
        out.push(what);
        build::cstr(out, name.as_bytes());
    });
    out
}

/// Execute of at most `limit` rows; 0: all.
pub fn execute(portal: &str, limit: u32) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag::EXECUTE, |out| {
        build::cstr(out, portal.as_bytes());
        out.extend_from_slice(&limit.to_be_bytes());
    });
    out
}

/// A message without a body, or with this one.
pub fn plain(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag, |out| out.extend_from_slice(body));
    out
}

/// Sync.
pub fn sync() -> Vec<u8> {
    plain(tag::SYNC, b"")
}

/// Flush.
pub fn flush() -> Vec<u8> {
    plain(tag::FLUSH, b"")
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    plain(tag::TERMINATE, b"")
}

/// Bind and Execute of a statement through the unnamed portal.
pub fn run(name: &str) -> Vec<u8> {
    [bind("", name), execute("", 0)].concat()
}
