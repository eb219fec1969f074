//! Asks a server how it would run a statement, and what it knows of its indexes, on a connection of its own.
//! Must never run the statement, nor change anything, nor wait for what others have locked.
//!
//! Where the extension HypoPG is installed an index that the plan seems to lack is tried: it exists in that one session only, and in nothing
//! but the planner's mind.

use std::time::Duration;

use super::open::{Dial, OpenError};
use super::stream::Stream;
use super::talk::exchange;
use crate::sql::code_graph;
use crate::sql::index::{Wish, wish};
use crate::wire::error::ServerError;
use crate::wire::{build, tag};

/// All of it may take so long.
const LIMIT: Duration = Duration::from_secs(10);
/// The planner takes locks, as the statement would, and may be slow.
const BOUNDS: &str = "BEGIN READ ONLY; SET LOCAL lock_timeout = 100; SET LOCAL statement_timeout = 5000";
/// Most bytes of an answer.
const ANSWER_BYTES: usize = 4 << 20;

const HYPOPG: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'hypopg'";
const STATISTICS: &str = include_str!("indexes.sql");

/// What a server has said.
#[derive(Debug, Default)]
pub struct Said {
    /// The answer of EXPLAIN (FORMAT JSON, VERBOSE).
    pub plan: Vec<u8>,
    /// An index that it seems to lack, and the answer with that, if it could be tried.
    pub wish: Option<(Wish, Option<Vec<u8>>)>,
    /// What the statistics say of indexes, if that was asked: rows of `indexes.sql`.
    pub statistics: Option<Vec<u8>>,
}

/// What to explain.
#[derive(Clone, Debug)]
pub struct Explain {
    /// What gives a session the settings that the statement ran under; may be empty.
    pub settings: String,
    /// The statement, a zero byte, and the types of its parameters as a Parse has them.
    pub statement: Vec<u8>,
    /// Formats and values of its parameters as a Bind has them.
    pub values: Vec<u8>,
    /// Whether to ask for the statistics of indexes as well.
    pub statistics: bool,
}

impl Explain {
    /// The batch that asks.
    fn batch(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.statement.len() + self.values.len() + 128);
        build::parse(&mut out, b"", &[b"EXPLAIN (FORMAT JSON, VERBOSE) ".as_slice(), &self.statement].concat());
        build::message(&mut out, tag::client::BIND, |out| {
            out.extend_from_slice(b"\0\0");
            out.extend_from_slice(&self.values);
            // All results as text.
            out.extend_from_slice(&[0, 0]);
        });
        build::message(&mut out, tag::client::EXECUTE, |out| out.extend_from_slice(b"\0\0\0\0\0"));
        build::sync(&mut out);
        out
    }
}

/// What EXPLAIN says, which is not ANALYZE: nothing is run but what the planner itself runs.
///
/// # Errors
/// The server cannot be reached, takes longer than 10 s in all, or does not want to.
pub async fn explain(dial: &Dial, what: &Explain) -> Result<Said, OpenError> {
    tokio::time::timeout(LIMIT, ask(dial, what)).await.unwrap_or(Err(OpenError::Timeout(LIMIT)))
}

async fn ask(dial: &Dial, what: &Explain) -> Result<Said, OpenError> {
    let mut stream = Stream::new(dial.open().await?.socket);
    for sql in [what.settings.as_str(), BOUNDS] {
        if !sql.is_empty() {
            exchange(&mut stream, sql, LIMIT).await?;
        }
    }
    // First, as what fails behind it ends the transaction.
    let statistics = if what.statistics { Some(exchange(&mut stream, STATISTICS, LIMIT).await?) } else { None };
    let plan = answer(&mut stream, what).await?;
    let wish = match wish(&plan) {
        Some(wish) => {
            let tried = try_out(&mut stream, what, &wish).await;
            Some((
                wish,
                tried
                    .inspect_err(|error| tracing::debug!("an index was not tried: {}", error.without_words()))
                    .ok()
                    .flatten(),
            ))
        }
        None => None,
    };
    let mut bye = Vec::new();
    build::message(&mut bye, tag::client::TERMINATE, |_| {});
    // It has answered: whether it hears that does not matter.
    let _ = stream.send(&bye).await;
    Ok(Said { plan, wish, statistics })
}

/// The plan with this index, if HypoPG is there.
async fn try_out(stream: &mut Stream, what: &Explain, wish: &Wish) -> Result<Option<Vec<u8>>, OpenError> {
    let rows = exchange(stream, HYPOPG, LIMIT).await?;
    let Some([schema, ..]) = code_graph::rows(&rows).next() else { return Ok(None) };
    let (schema, index) = (String::from_utf8_lossy(schema), wish.statement().replace('\'', "''"));
    exchange(stream, &format!("SELECT {schema}.hypopg_create_index('{index}')"), LIMIT).await?;
    answer(stream, what).await.map(Some)
}

async fn answer(stream: &mut Stream, what: &Explain) -> Result<Vec<u8>, OpenError> {
    stream.send(&what.batch()).await?;
    let (mut answer, mut refused) = (Vec::new(), None);
    loop {
        let message = stream.next().await?;
        match message.tag {
            tag::server::DATA_ROW if answer.len() + message.body.len() > ANSWER_BYTES => {
                return Err(OpenError::Login("the plan of a statement is too long".into()));
            }
            // One column: its count, its length, and the text.
            tag::server::DATA_ROW => answer.extend_from_slice(message.body.get(6..).unwrap_or_default()),
            tag::server::ERROR => refused = Some(ServerError::parse(&message.body)),
            tag::server::READY => break,
            _ => {}
        }
    }
    refused.map_or(Ok(answer), |error| Err(OpenError::Refused(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_has_no_value() {
        let said = ServerError::parse(b"SERROR\0C22P02\0Minvalid input syntax for type integer: \"secret\"\0\0");
        assert_eq!(OpenError::Refused(said).without_words(), "refused with SQLSTATE 22P02");
    }

    #[test]
    fn the_batch_has_the_statements_own_values() {
        let values = b"\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07".to_vec();
        let what = Explain {
            settings: String::new(),
            statement: b"SELECT $1\0\0\x01\0\0\0\x17".to_vec(),
            values,
            statistics: false,
        };
        let batch = what.batch();
        let text = String::from_utf8_lossy(&batch);
        assert!(text.contains("\0EXPLAIN (FORMAT JSON, VERBOSE) SELECT $1\0"), "{text:?}");
        assert!(
            batch.windows(20).any(|it| it == b"\0\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\0E\0".as_slice()),
            "{text:?}"
        );
        assert!(batch.ends_with(b"S\0\0\0\x04"));
    }
}
