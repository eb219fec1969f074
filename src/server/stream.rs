//! Whole messages over a socket, for the few that are exchanged before a session.
//! Must never be used on the data path: it copies, waits and allocates.

use std::future::poll_fn;
use std::io;

use crate::net::socket::{Conn, Socket};
use crate::wire::frame::{BadLength, HEADER, Header};

/// Longest message understood before a session is up. PostgreSQL's own are far shorter; an
/// ErrorResponse or a long search_path may come near.
const MAX_MESSAGE: usize = 64 * 1024;

/// A connection read message by message.
pub struct Stream {
    conn: Conn,
    buffer: Vec<u8>,
}

/// One message.
pub struct Message {
    /// Type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

/// In words of its own: the limit is not max_packet_size.
fn too_long(bad: BadLength) -> io::Error {
    let what = format!("invalid message length {} for message type 0x{:02x}", bad.length, bad.tag);
    let limit = format!("before a session is up at most {} are understood", bad.most);
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}; {limit}"))
}

impl Stream {
    /// Over a settled socket.
    pub fn new(socket: Socket) -> Self {
        Self { conn: Conn::new(socket), buffer: Vec::new() }
    }

    /// Over a settled socket from which these bytes were read already.
    pub fn with(socket: Socket, unread: Vec<u8>) -> Self {
        Self { conn: Conn::new(socket), buffer: unread }
    }

    /// Sends and waits until the socket has taken everything.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.conn.send(bytes)?;
        poll_fn(|cx| self.conn.poll_drain(cx)).await
    }

    /// The next message.
    ///
    /// # Errors
    /// The connection is broken or ended, or the message's length is out of bounds.
    pub async fn next(&mut self) -> io::Result<Message> {
        loop {
            match Header::peek(&self.buffer, MAX_MESSAGE).map_err(too_long)? {
                Some(header) if self.buffer.len() >= header.total => {
                    let rest = self.buffer.split_off(header.total);
                    let message = std::mem::replace(&mut self.buffer, rest);
                    let body = message.get(HEADER..).unwrap_or_default().to_vec();
                    return Ok(Message { tag: header.tag, body });
                }
                _ => self.fill().await?,
            }
        }
    }

    /// The type of the next message, as soon as its first byte is there. What it says of its length need not be waited
    /// for when the type alone is wrong.
    ///
    /// # Errors
    /// The connection is broken or ended.
    pub async fn next_tag(&mut self) -> io::Result<u8> {
        loop {
            match self.buffer.first() {
                Some(tag) => return Ok(*tag),
                None => self.fill().await?,
            }
        }
    }

    /// Reads exactly the bytes of an untyped packet whose length stands in its first four bytes.
    ///
    /// # Errors
    /// The connection is broken or ended; what `length` says.
    pub async fn packet<E: From<io::Error>>(
        &mut self,
        length: impl Fn(&[u8]) -> Result<Option<usize>, E>,
    ) -> Result<Vec<u8>, E> {
        loop {
            match length(&self.buffer)? {
                Some(length) if self.buffer.len() >= length => {
                    let rest = self.buffer.split_off(length);
                    return Ok(std::mem::replace(&mut self.buffer, rest));
                }
                _ => self.fill().await?,
            }
        }
    }

    /// Waits for more bytes.
    async fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0u8; 2048];
        let n = poll_fn(|cx| self.conn.poll_read(cx, &mut chunk)).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(chunk.get(..n).unwrap_or_default());
        Ok(())
    }

    /// Exactly one byte, reading nothing beyond it.
    ///
    /// # Errors
    /// The connection is broken or ended.
    pub async fn byte(&mut self) -> io::Result<u8> {
        let mut one = [0u8; 1];
        match poll_fn(|cx| self.conn.poll_read(cx, &mut one)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(one[0]),
        }
    }

    /// Waits until the peer closes; whatever it sends is dropped.
    pub async fn closed(&mut self) {
        while self.fill().await.is_ok() {
            self.buffer.clear();
        }
    }

    /// Waits until the peer closes; what it sends meanwhile is kept, up to a bound behind which it is not read any more.
    pub async fn ended(&mut self) {
        while self.buffer.len() < MAX_MESSAGE {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Bytes were read that belong to no message returned yet.
    pub fn has_unread(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// What it runs over.
    pub fn socket(&self) -> &Socket {
        self.conn.socket()
    }

    /// The socket, and what was read beyond the last message.
    pub fn into_parts(self) -> (Socket, Vec<u8>) {
        (self.conn.into_socket(), self.buffer)
    }
}
