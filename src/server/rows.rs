//! Asks a server one question over a connection of its own, and keeps the rows of the answer.
//! Must never be used on the data path.

use std::time::Duration;

use super::open::{Dial, OpenError};
use super::stream::Stream;
use crate::wire::error::ServerError;
use crate::wire::{build, tag};

/// An answer later than this is none.
const LIMIT: Duration = Duration::from_secs(10);

/// The DataRow bodies of the answers to `sql`, one after the other.
///
/// # Errors
/// As for any server connection; the server refuses; no answer in 10 s.
pub async fn rows(dial: &Dial, sql: &str) -> Result<Vec<u8>, OpenError> {
    let late = |_| Err(OpenError::Timeout(LIMIT));
    tokio::time::timeout(LIMIT, exchange(dial, sql)).await.unwrap_or_else(late)
}

async fn exchange(dial: &Dial, sql: &str) -> Result<Vec<u8>, OpenError> {
    let mut stream = Stream::new(dial.open().await?.socket);
    let mut query = Vec::new();
    build::query(&mut query, sql.as_bytes());
    stream.send(&query).await?;
    let mut rows = Vec::new();
    loop {
        let message = stream.next().await?;
        match message.tag {
            tag::server::DATA_ROW => rows.extend_from_slice(&message.body),
            tag::server::ERROR => return Err(OpenError::Refused(ServerError::parse(&message.body))),
            tag::server::READY => {
                let mut bye = Vec::new();
                build::message(&mut bye, tag::client::TERMINATE, |_| {});
                let _ = stream.send(&bye).await;
                return Ok(rows);
            }
            _ => {}
        }
    }
}
