//! Asks a server where it stands in the write-ahead log, over a connection kept for that.
//! Must never be shared with clients.

use std::time::Duration;

use super::open::{Dial, OpenError};
use super::stream::Stream;
use crate::wire::error::ServerError;
use crate::wire::frame::be_u32;
use crate::wire::{build, tag};

/// The end of the write-ahead log on a primary.
pub const WRITTEN: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()";
/// How far a standby has replayed; nothing if it is no standby.
pub const REPLAYED: &str =
    "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() END";

/// An answer later than this is none.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection to ask on.
pub struct Asker(Stream);

impl Asker {
    /// Connects and logs in.
    ///
    /// # Errors
    /// As for any server connection.
    pub async fn connect(dial: &Dial) -> Result<Self, OpenError> {
        Ok(Self(Stream::new(dial.open().await?.socket)))
    }

    /// Asks one of the questions above; `None` if the answer is NULL.
    ///
    /// # Errors
    /// The connection is of no further use: no answer in 5 s, or an error.
    pub async fn ask(&mut self, question: &str) -> Result<Option<u64>, OpenError> {
        let late = |_| Err(OpenError::Timeout(LIMIT));
        tokio::time::timeout(LIMIT, self.exchange(question)).await.unwrap_or_else(late)
    }

    async fn exchange(&mut self, question: &str) -> Result<Option<u64>, OpenError> {
        let mut query = Vec::new();
        build::query(&mut query, question.as_bytes());
        self.0.send(&query).await?;
        let mut answer = None;
        loop {
            let message = self.0.next().await?;
            match message.tag {
                tag::server::DATA_ROW => answer = lsn_of_row(&message.body),
                tag::server::ERROR => return Err(OpenError::Refused(ServerError::parse(&message.body))),
                tag::server::READY => return Ok(answer),
                _ => {}
            }
        }
    }
}

/// The position in a row of one column; `None` for NULL or nonsense.
fn lsn_of_row(row: &[u8]) -> Option<u64> {
    let length = be_u32(row.get(2..)?)?;
    let text = std::str::from_utf8(row.get(6..6usize.checked_add(length as usize)?)?).ok()?;
    parse_lsn(text)
}

/// Reads `XXXXXXXX/XXXXXXXX` (`pg_lsn_in_internal`, src/backend/utils/adt/pg_lsn.c).
fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_positions() {
        assert_eq!(parse_lsn("0/1"), Some(1));
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_lsn("FFFFFFFF/FFFFFFFF"), Some(u64::MAX));
        for bad in ["", "1", "/1", "1/", "1/g", "100000000/0", "1/2/3"] {
            assert_eq!(parse_lsn(bad), None, "{bad}");
        }
    }

    #[test]
    fn reads_a_row_or_nothing() {
        assert_eq!(lsn_of_row(b"\0\x01\0\0\0\x030/A"), Some(10));
        assert_eq!(lsn_of_row(b"\0\x01\xff\xff\xff\xff"), None);
        assert_eq!(lsn_of_row(b"\0\x01\0\0\0\x090/A"), None);
        assert_eq!(lsn_of_row(b""), None);
    }
}
