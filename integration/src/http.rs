//! HTTP on loopback, as far as tests ask for it: one request, one answer, the end.
//! It must never follow, retry or keep anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::{During, Error, Result};

/// How long an answer may take to begin, and to go on. Patroni answers a switchover when it is over.
const PATIENCE: Duration = Duration::from_secs(30);

/// `GET path` on a loopback port; status and body.
///
/// # Errors
/// When there is no HTTP answer.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    ask(port, "GET", path, "")
}

/// `POST path` with a body of JSON; status and body.
///
/// # Errors
/// When there is no HTTP answer.
pub fn post(port: u16, path: &str, json: &str) -> Result<(u16, String)> {
    ask(port, "POST", path, json)
}

fn ask(port: u16, method: &str, path: &str, json: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).during(|| format!("connect to port {port}"))?;
    stream.set_read_timeout(Some(PATIENCE)).during(|| "set a timeout".into())?;
    // 1.0, so that the body simply ends with the connection.
    let head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close");
    let kind = format!("Content-Type: application/json\r\nContent-Length: {}", json.len());
    stream.write_all(format!("{head}\r\n{kind}\r\n\r\n{json}").as_bytes()).during(|| format!("request {path}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).during(|| format!("read {path}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Error::new(format!("no HTTP answer: {answer}")))?;
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| Error::new(format!("no status: {head}")))?, body.to_string()))
}
