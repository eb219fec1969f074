//! Asks a server for the secret of a user, over a connection kept for that.
//! Must never be shared with clients, nor let the name reach the server as anything but a parameter.

use std::time::Duration;

use super::open::{Dial, OpenError, Parameters};
use super::stream::Stream;
use crate::base::secret::Secret;
use crate::wire::error::ServerError;
use crate::wire::frame::be_u32;
use crate::wire::{build, tag};

/// What a session that asks starts with, whatever the role's own settings are: an operator or function that is found
/// by name is PostgreSQL's own (CVE-2025-12819).
pub fn settings() -> Parameters {
    let settings = [
        ("search_path", "pg_catalog"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("statement_timeout", "10s"),
        ("application_name", "pgweir auth_query"),
    ];
    settings.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).to_vec()
}

/// An answer later than this is none.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection to ask on.
pub struct UserAsker(Stream);

impl UserAsker {
    /// Connects and logs in.
    ///
    /// # Errors
    /// As for any server connection.
    pub async fn connect(dial: &Dial) -> Result<Self, OpenError> {
        Ok(Self(Stream::new(dial.open().await?.socket)))
    }

    /// Asks for a user. `None`: no row, a NULL, an empty secret, or the row of another user, which a query of the
    /// operator's own may give.
    ///
    /// # Errors
    /// The connection is of no further use: no answer in 5 s, an error, or an answer of another shape.
    pub async fn ask(&mut self, sql: &str, user: &str) -> Result<Option<Secret>, OpenError> {
        let late = |_| Err(OpenError::Timeout(LIMIT));
        tokio::time::timeout(LIMIT, self.exchange(sql, user)).await.unwrap_or_else(late)
    }

    async fn exchange(&mut self, sql: &str, user: &str) -> Result<Option<Secret>, OpenError> {
        self.0.send(&request(sql, user)).await?;
        let mut rows = 0;
        let mut found = None;
        let mut failed = None;
        loop {
            let message = self.0.next().await?;
            match message.tag {
                tag::server::DATA_ROW => {
                    rows += 1;
                    let (name, secret) = columns(&message.body)
                        .ok_or_else(|| OpenError::Login("auth.query does not give two columns".into()))?;
                    found = secret.filter(|secret| name == user.as_bytes() && !secret.is_empty());
                }
                tag::server::ERROR => failed = Some(ServerError::parse(&message.body)),
                tag::server::READY => break,
                _ => {}
            }
        }
        match failed {
            Some(error) => Err(OpenError::Refused(error)),
            None if rows > 1 => Err(OpenError::Login("auth.query gives more than one row for a name".into())),
            None => Ok(found),
        }
    }
}

/// Parse, Bind, Execute and Sync in one write, all unnamed.
fn request(sql: &str, user: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut tail = Vec::new();
    build::cstr(&mut tail, sql.as_bytes());
    tail.extend_from_slice(&[0, 0]);
    build::parse(&mut out, b"", &tail);
    build::message(&mut out, tag::client::BIND, |out| {
        // Portal, statement, no formats: text; one parameter; no result formats: text.
        out.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&(user.len() as u32).to_be_bytes());
        out.extend_from_slice(user.as_bytes());
        out.extend_from_slice(&[0, 0]);
    });
    build::message(&mut out, tag::client::EXECUTE, |out| out.extend_from_slice(&[0, 0, 0, 0, 0]));
    build::sync(&mut out);
    out
}

/// Name and secret of a row of two columns. A secret that is not UTF-8 is none.
fn columns(row: &[u8]) -> Option<(&[u8], Option<Secret>)> {
    let (count, rest) = row.split_first_chunk::<2>()?;
    if u16::from_be_bytes(*count) != 2 {
        return None;
    }
    let (name, rest) = value(rest)?;
    let (secret, _) = value(rest)?;
    let secret = secret.and_then(|secret| std::str::from_utf8(secret).ok());
    Some((name.unwrap_or_default(), secret.map(|secret| Secret::new(secret.to_owned()))))
}

/// The first value, `None` inside for NULL, and what follows it.
fn value(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let rest = bytes.get(4..)?;
    match be_u32(bytes)? {
        u32::MAX => Some((None, rest)),
        length => rest.split_at_checked(length as usize).map(|(value, rest)| (Some(value), rest)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_columns() {
        let (name, secret) = columns(b"\0\x02\0\0\0\x01a\0\0\0\x02md").unwrap();
        assert_eq!((name, secret.unwrap().expose()), (&b"a"[..], "md"));
        let (name, secret) = columns(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff").unwrap();
        assert!(name == b"a" && secret.is_none());
        assert!(columns(b"\0\x02\xff\xff\xff\xff\0\0\0\x01\xff").unwrap().1.is_none());
        for bad in [&b""[..], b"\0\x01\0\0\0\x01a", b"\0\x02\0\0\0\x01a", b"\0\x02\0\0\0\x09a\0\0\0\0", b"\0\x02\0\0"] {
            assert!(columns(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_name_is_a_parameter() {
        let request = request("SELECT $1", "a'; --");
        let text = String::from_utf8_lossy(&request);
        assert!(text.contains("SELECT $1\0") && text.contains("\x06a'; --"));
    }
}
