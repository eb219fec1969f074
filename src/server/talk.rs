//! A connection on which questions are asked one after the other, and their rows kept.
//! Must never be shared with clients, nor be used on the data path.

use std::time::Duration;

use super::open::{Dial, OpenError};
use super::stream::Stream;
use crate::wire::error::ServerError;
use crate::wire::{build, tag};

/// Most bytes of rows that an answer may have.
const ANSWER_BYTES: usize = 256 << 20;

/// A connection to ask on.
pub struct Talk {
    stream: Stream,
    limit: Duration,
    /// What the server said of its version, such as `15.4`.
    pub version: String,
}

impl Talk {
    /// Connects and logs in; that, and every answer, takes no longer than `limit`.
    ///
    /// # Errors
    /// As for any server connection.
    pub async fn connect(dial: &Dial, limit: Duration) -> Result<Self, OpenError> {
        let late = |_| Err(OpenError::Timeout(limit));
        let opened = tokio::time::timeout(limit, dial.open()).await.unwrap_or_else(late)?;
        let version = opened.parameters.iter().find(|(name, _)| name == b"server_version");
        let version = version.map_or_else(String::new, |(_, value)| String::from_utf8_lossy(value).into_owned());
        Ok(Self { stream: Stream::new(opened.socket), limit, version })
    }

    /// The first number of the server's version; 0 if it did not say.
    #[must_use]
    pub fn major(&self) -> u32 {
        let digits = self.version.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The DataRow bodies of the answers to the statements in `sql`, one after the other.
    ///
    /// # Errors
    /// No answer in time, or an error; only after one that is not fatal the connection is of further use.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<u8>, OpenError> {
        exchange(&mut self.stream, sql, self.limit).await
    }
}

/// The same on any connection that has nothing else under way.
pub(super) async fn exchange(stream: &mut Stream, sql: &str, limit: Duration) -> Result<Vec<u8>, OpenError> {
    tokio::time::timeout(limit, answer(stream, sql)).await.unwrap_or(Err(OpenError::Timeout(limit)))
}

async fn answer(stream: &mut Stream, sql: &str) -> Result<Vec<u8>, OpenError> {
    let mut query = Vec::new();
    build::query(&mut query, sql.as_bytes());
    stream.send(&query).await?;
    let (mut rows, mut refused) = (Vec::new(), None);
    loop {
        let message = stream.next().await?;
        match message.tag {
            tag::server::DATA_ROW if rows.len() + message.body.len() > ANSWER_BYTES => {
                return Err(OpenError::Login("the answer to one of pgweir's own questions is too long".into()));
            }
            tag::server::DATA_ROW => rows.extend_from_slice(&message.body),
            tag::server::ERROR => {
                let error = ServerError::parse(&message.body);
                if error.fatal {
                    return Err(OpenError::Refused(error));
                }
                refused = Some(error);
            }
            tag::server::READY => return refused.map_or(Ok(rows), |error| Err(OpenError::Refused(error))),
            _ => {}
        }
    }
}
