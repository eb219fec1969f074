//! Asks a server where it stands in the write-ahead log, over a connection kept for that.
//! Must never be shared with clients.

use std::time::Duration;

use super::open::{Dial, OpenError};
use super::stream::Stream;
use super::talk::exchange;
use crate::wire::frame::be_u32;
use crate::wire::lsn::parse_lsn;

/// The end of the write-ahead log on a primary.
pub const WRITTEN: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()";
/// How far a standby has replayed, and what it cannot have shown more than; nothing if it is no standby.
const REPLAYED: &str = "SELECT pg_catalog.pg_last_wal_replay_lsn(), \
    GREATEST(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) WHERE pg_catalog.pg_is_in_recovery()";
/// Whether it is a standby, its position, and its timeline. A standby's own record of that may be as old as its last
/// restart point or what it needed last to be consistent, but for who may see what it receives; a primary's is in the name of the file that it writes.
const ROLE: &str = "SELECT r, CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
    CASE WHEN r THEN (SELECT pg_catalog.to_hex(GREATEST(c.timeline_id, m.min_recovery_end_timeline, w.received_tli)) \
    FROM pg_catalog.pg_control_checkpoint() AS c, pg_catalog.pg_control_recovery() AS m \
    LEFT JOIN pg_catalog.pg_stat_get_wal_receiver() AS w ON true) \
    ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END, \
    CASE WHEN r THEN GREATEST(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) END \
    FROM pg_catalog.pg_is_in_recovery() AS r";
/// Who waits for a table. On a standby only replay keeps others from one (`RecoveryLockHash`, src/backend/storage/ipc/standby.c).
const WAITING: &str = "SELECT pg_catalog.string_agg(pid::pg_catalog.text, ' ') FROM pg_catalog.pg_locks WHERE NOT granted AND pg_catalog.texteq(locktype, 'relation')";
/// The settings that a result hangs on, as a connection has them that says nothing of them, a line each; and a summary of what is set
/// for roles and databases, which a connection has from its start.
const SETTINGS: &str = "SELECT pg_catalog.string_agg(pg_catalog.concat(n, '=', pg_catalog.current_setting(n, true)), E'\\n'), \
    (SELECT pg_catalog.sum(pg_catalog.hashtext(pg_catalog.concat(setdatabase, ':', setrole, setconfig))) FROM pg_catalog.pg_db_role_setting) \
    FROM pg_catalog.unnest(ARRAY['DateStyle','IntervalStyle','TimeZone','timezone_abbreviations','extra_float_digits','bytea_output',\
    'lc_monetary','lc_numeric','lc_time','xmlbinary','xmloption','default_text_search_config','search_path','client_encoding',\
    'standard_conforming_strings','array_nulls','transform_null_equals','row_security']) AS n";

/// Whether transactions are under READ COMMITTED, whoever begins them, unless somebody says otherwise: by the server's own settings, and by those of
/// all roles and databases.
const READ_COMMITTED: &str = "SELECT pg_catalog.texteq(pg_catalog.current_setting('default_transaction_isolation'), 'read committed') \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting \
    WHERE pg_catalog.textregexeq(pg_catalog.array_to_string(setconfig, ' '), 'default_transaction_isolation'))";

/// A connection to ask on.
pub struct Asker {
    stream: Stream,
    limit: Duration,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// It is in recovery.
    pub standby: bool,
    /// How far it has replayed, or written.
    pub lsn: Option<u64>,
    /// As a standby, what nobody can have read more than there: the commit that is being replayed may be seen before it
    /// counts as replayed (`ApplyWalRecord` in src/backend/access/transam/xlogrecovery.c), and all of it was received.
    pub shown: Option<u64>,
    /// Its timeline.
    pub timeline: Option<u32>,
}

impl Asker {
    /// Connects and logs in; that, and every answer, takes no longer than `limit`.
    ///
    /// # Errors
    /// As for any server connection.
    pub async fn connect(dial: &Dial, limit: Duration) -> Result<Self, OpenError> {
        let late = |_| Err(OpenError::Timeout(limit));
        let opened = tokio::time::timeout(limit, dial.open()).await.unwrap_or_else(late)?;
        Ok(Self { stream: Stream::new(opened.socket), limit })
    }

    /// Asks what the server is.
    ///
    /// # Errors
    /// The connection is of no further use: no answer in time, or none that makes sense.
    pub async fn role(&mut self) -> Result<Place, OpenError> {
        let row = self.row(ROLE).await?;
        let mut columns = texts(&row);
        let standby = match columns.next().flatten() {
            Some("t") => true,
            Some("f") => false,
            _ => return Err(OpenError::Login("the server would not say whether it is in recovery".into())),
        };
        let lsn = columns.next().flatten().and_then(parse_lsn);
        let timeline = columns.next().flatten().and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let shown = columns.next().flatten().and_then(parse_lsn);
        Ok(Place { standby, lsn, shown, timeline })
    }

    /// Asks for the settings that a result hangs on: a line each, `name=value`.
    ///
    /// # Errors
    /// As for [`Asker::ask`].
    pub async fn settings(&mut self) -> Result<(String, String), OpenError> {
        let row = self.row(SETTINGS).await?;
        let mut texts = texts(&row).map(|text| text.unwrap_or_default().to_owned());
        Ok((texts.next().unwrap_or_default(), texts.next().unwrap_or_default()))
    }

    /// Asks who waits for a table there: processes.
    ///
    /// # Errors
    /// As for [`Asker::ask`].
    pub async fn waiting(&mut self) -> Result<Vec<u32>, OpenError> {
        let row = self.row(WAITING).await?;
        let pids = texts(&row).next().flatten().unwrap_or_default();
        Ok(pids.split(' ').filter_map(|pid| pid.parse().ok()).collect())
    }

    /// Asks a standby how far it is: what it has replayed, and [`Place::shown`]. `None` if it is none.
    ///
    /// # Errors
    /// As for [`Asker::ask`].
    pub async fn replayed(&mut self) -> Result<Option<(u64, u64)>, OpenError> {
        let row = self.row(REPLAYED).await?;
        let mut columns = texts(&row).map(|text| text.and_then(parse_lsn));
        Ok(columns.next().flatten().zip(columns.next().flatten()))
    }

    /// Asks whether transactions are under READ COMMITTED unless somebody says otherwise. No if the login may not know.
    ///
    /// # Errors
    /// As for [`Asker::ask`].
    pub async fn is_read_committed(&mut self) -> Result<bool, OpenError> {
        match self.row(READ_COMMITTED).await {
            Ok(row) => Ok(texts(&row).next().flatten() == Some("t")),
            Err(OpenError::Refused(error)) if !error.fatal => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks one of the questions above; `None` if the answer is NULL.
    ///
    /// # Errors
    /// The connection is of no further use: no answer in time, or an error.
    pub async fn ask(&mut self, question: &str) -> Result<Option<u64>, OpenError> {
        let row = self.row(question).await?;
        Ok(texts(&row).next().flatten().and_then(parse_lsn))
    }

    /// Waits until the server ends, or says anything that nobody has asked for: the next question tells.
    pub async fn stirs(&mut self) {
        let _ = self.stream.next_tag().await;
    }

    /// The body of the one DataRow that answers a question.
    async fn row(&mut self, question: &str) -> Result<Vec<u8>, OpenError> {
        exchange(&mut self.stream, question, self.limit).await
    }
}

/// The columns of a row; `None` for NULL or nonsense.
pub(super) fn texts(row: &[u8]) -> impl Iterator<Item = Option<&str>> {
    let mut rest = row.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = be_u32(rest)?;
        let (value, tail) = rest.get(4..)?.split_at_checked(if length == u32::MAX { 0 } else { length as usize })?;
        rest = tail;
        Some(std::str::from_utf8(value).ok().filter(|_| length != u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_columns_or_nothing() {
        let lsn = |row| texts(row).next().flatten().and_then(parse_lsn);
        assert_eq!(lsn(b"\0\x01\0\0\0\x030/A"), Some(10));
        assert_eq!(lsn(b"\0\x01\xff\xff\xff\xff"), None);
        assert_eq!(lsn(b"\0\x01\0\0\0\x090/A"), None);
        assert_eq!(lsn(b""), None);
        let row = b"\0\x03\0\0\0\x01t\xff\xff\xff\xff\0\0\0\x011";
        assert_eq!(texts(row).collect::<Vec<_>>(), [Some("t"), None, Some("1")]);
    }
}
