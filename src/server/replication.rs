//! A connection that brings the changes of a database: a temporary logical slot, and what `pgoutput` says of it.
//! Must never make a slot that outlives its connection: nobody would take back what it retains.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use super::open::{Dial, OpenError};
use super::position::texts;
use super::stream::Stream;
use super::talk::exchange;
use crate::net::socket::Conn;
use crate::wire::error::ServerError;
use crate::wire::frame::{HEADER, Header};
use crate::wire::lsn::parse_lsn;
use crate::wire::pgoutput::{Frame, status};
use crate::wire::{build, tag};

/// Most of a message that is looked at, bytes: rows may be long, and only what stands in front of them counts.
const LOOK: usize = 64 * 1024;
/// Bytes read at once.
const READ: usize = 64 * 1024;

/// Which write-ahead log it is, and from where on its changes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// System identifier of the cluster.
    pub system: u64,
    /// Timeline of the server.
    pub timeline: u32,
    /// The slot's consistent point: commits that end behind it come.
    pub since: u64,
}

/// A stream of changes.
pub struct Replication {
    conn: Conn,
    buffer: Vec<u8>,
    /// Where in it the next message begins.
    at: usize,
    /// Bytes of the message before it that are still to come, and of no interest.
    skip: usize,
    chunk: Box<[u8]>,
}

impl Replication {
    /// Makes a slot of this name and has its changes sent, those of this publication. `dial` is of a connection for replication; everything
    /// but the slot takes no longer than `limit`, and that, which waits for all transactions that have begun to end, no longer than `patience`.
    ///
    /// # Errors
    /// As for any server connection; the server refuses.
    pub async fn start(
        dial: &Dial,
        slot: &str,
        publication: &str,
        limit: Duration,
        patience: Duration,
    ) -> Result<(Self, Origin), OpenError> {
        let opened = tokio::time::timeout(limit, dial.open()).await;
        let opened = opened.unwrap_or_else(|_| Err(OpenError::Timeout(limit)))?;
        let mut stream = Stream::new(opened.socket);
        let row = exchange(&mut stream, "IDENTIFY_SYSTEM", limit).await?;
        let mut columns = texts(&row).map(|text| text.unwrap_or_default());
        let (system, timeline) =
            (columns.next().and_then(|text| text.parse().ok()), columns.next().and_then(|text| text.parse().ok()));
        let made = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT");
        let row = exchange(&mut stream, &made, patience).await?;
        let senseless = || OpenError::Login("the server answers replication commands as no PostgreSQL does".into());
        let origin = system.zip(timeline).zip(texts(&row).nth(1).flatten().and_then(parse_lsn));
        let ((system, timeline), since) = origin.ok_or_else(senseless)?;
        let quoted = publication.replace('"', "\"\"").replace('\'', "''");
        let begin = format!(
            "START_REPLICATION SLOT {slot} LOGICAL {:X}/{:X} (proto_version '1', publication_names '\"{quoted}\"', messages 'true')",
            since >> 32,
            since & 0xffff_ffff
        );
        let mut query = Vec::new();
        build::query(&mut query, begin.as_bytes());
        stream.send(&query).await?;
        let answers = async {
            loop {
                let message = stream.next().await?;
                match message.tag {
                    tag::server::COPY_BOTH => return Ok(()),
                    tag::server::ERROR => return Err(OpenError::Refused(ServerError::parse(&message.body))),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(limit, answers).await.unwrap_or(Err(OpenError::Timeout(limit)))?;
        let (socket, buffer) = stream.into_parts();
        let this = Self { conn: Conn::new(socket), buffer, at: 0, skip: 0, chunk: vec![0; READ].into() };
        Ok((this, Origin { system, timeline, since }))
    }

    /// The next thing that it says. What was not given yet is not lost when this is dropped on its way.
    ///
    /// # Errors
    /// The connection is broken or ended, or the server ends the stream.
    pub async fn next(&mut self) -> Result<Frame<'_>, OpenError> {
        let (tag, from, to) = loop {
            let skipped = self.skip.min(self.buffer.len() - self.at);
            (self.at, self.skip) = (self.at + skipped, self.skip - skipped);
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            if self.skip == 0
                && let Some(header) = Header::peek(rest, usize::MAX).map_err(|bad| io::Error::other(bad.to_string()))?
                && rest.len() >= header.total.min(LOOK)
            {
                let (from, to) = (self.at + HEADER, self.at + header.total.min(LOOK));
                (self.at, self.skip) = (to, header.total.saturating_sub(LOOK));
                break (header.tag, from, to);
            }
            self.fill().await?;
        };
        let body = self.buffer.get(from..to).unwrap_or_default();
        match tag {
            tag::server::COPY_DATA => {
                Frame::read(body).ok_or_else(|| OpenError::Login("the stream of changes makes no sense".into()))
            }
            tag::server::ERROR => Err(OpenError::Refused(ServerError::parse(body))),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Says that everything up to `lsn` was taken note of, and need not be kept for this; with `asks` the server answers.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn confirm(&mut self, lsn: u64, asks: bool) -> Result<(), OpenError> {
        let mut out = Vec::new();
        status(&mut out, lsn, asks);
        self.conn.send(&out)?;
        // What does not go out now goes with the next.
        let drained = poll_fn(|cx| std::task::Poll::Ready(self.conn.poll_drain(cx))).await;
        if let std::task::Poll::Ready(outcome) = drained {
            outcome?;
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let n = poll_fn(|cx| self.conn.poll_read(cx, &mut self.chunk)).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(self.chunk.get(..n).unwrap_or_default());
        Ok(())
    }
}
