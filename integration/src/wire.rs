//! A PostgreSQL client as bare as possible: frames out, frames in, blocking, protocol 3.0.
//! It must never be clever: what a test writes is what the other side gets, byte for byte, in one write.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{During, Error, Result};
pub use crate::script::Script;

/// A frame longer than this is taken for a desynchronised stream, in bytes.
const FRAME_LIMIT_BYTES: usize = 256 << 20;
/// Nothing a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// One message of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message's type byte.
    pub tag: u8,
    /// Everything after the length.
    pub body: Vec<u8>,
}

impl Frame {
    /// The values of a DataRow; `None` is NULL. Empty for every other message.
    pub fn row(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = if self.tag == b'D' { self.body.get(2..).unwrap_or_default() } else { &[] };
        let mut values = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            let (value, after) = after.split_at_checked(usize::try_from(length).unwrap_or(0)).unwrap_or((after, &[]));
            values.push((length >= 0).then(|| value.to_vec()));
            rest = after;
        }
        values
    }

    /// One field of an ErrorResponse or NoticeResponse: `b'C'` is the SQLSTATE, `b'M'` the message.
    pub fn field(&self, code: u8) -> Option<String> {
        let found = self.body.split(|byte| *byte == 0).find(|field| field.first() == Some(&code))?;
        Some(String::from_utf8_lossy(found.get(1..)?).into_owned())
    }

    /// The text of a CommandComplete's tag, such as `INSERT 0 1`.
    pub fn command(&self) -> Option<String> {
        let text = self.body.strip_suffix(&[0])?;
        (self.tag == b'C').then(|| String::from_utf8_lossy(text).into_owned())
    }

    fn complaint(&self) -> Error {
        let text = |code| self.field(code).unwrap_or_default();
        Error::new(format!("{} {}: {}", text(b'S'), text(b'C'), text(b'M')))
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection. Dropping it closes the socket without a Terminate.
pub struct Wire {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
    /// How much of `unread` has been handed out.
    at: usize,
    /// What the server reported in ParameterStatus, newest value.
    pub parameters: BTreeMap<String, String>,
    /// Process id and secret from BackendKeyData.
    pub key: Option<(u32, u32)>,
}

impl Wire {
    /// Opens a TCP connection to loopback `port` without sending anything.
    ///
    /// # Errors
    /// When nothing listens there.
    pub fn tcp(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).during(|| format!("connect to port {port}"))?;
        stream.set_nodelay(true).during(|| "set TCP_NODELAY".into())?;
        stream.set_read_timeout(Some(PATIENCE)).during(|| "set a timeout".into())?;
        Ok(Self::over(Box::new(stream)))
    }

    /// Opens a unix socket without sending anything.
    ///
    /// # Errors
    /// When nothing listens there.
    pub fn unix(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).during(|| format!("connect to {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE)).during(|| "set a timeout".into())?;
        Ok(Self::over(Box::new(stream)))
    }

    /// Sends the startup message and logs in; answers a request for a cleartext password with `password`.
    ///
    /// # Errors
    /// When the server refuses or asks for another kind of authentication.
    pub fn login(&mut self, user: &str, database: &str, password: &str) -> Result<()> {
        let mut body = 196_608u32.to_be_bytes().to_vec();
        for text in ["user", user, "database", database, ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        let length = (body.len() as u32 + 4).to_be_bytes();
        self.write(&[&length[..], &body].concat())?;
        loop {
            let frame = self.read()?;
            match (frame.tag, frame.body.as_slice()) {
                (b'R', [0, 0, 0, 3]) => self.send(&Script::new().raw(b'p', &[password.as_bytes(), b"\0"].concat()))?,
                (b'R', [0, 0, 0, 0]) | (b'S' | b'K' | b'N', _) => {}
                (b'Z', _) => return Ok(()),
                (b'E', _) => return Err(frame.complaint()),
                (tag, body) => {
                    return Err(Error::new(format!("login met message {:?} {body:?}", char::from(tag))));
                }
            }
        }
    }

    /// [`Wire::tcp`] and [`Wire::login`].
    ///
    /// # Errors
    /// As they do.
    pub fn connect(port: u16, user: &str, database: &str, password: &str) -> Result<Self> {
        let mut wire = Self::tcp(port)?;
        wire.login(user, database, password)?;
        Ok(wire)
    }

    /// Sends a script in one write.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, script: &Script) -> Result<()> {
        self.write(script.bytes())
    }

    /// Sends any bytes in one write.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).during(|| "send".into())
    }

    /// Reads one byte that belongs to no frame, such as the answer to SSLRequest.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn read_byte(&mut self) -> Result<u8> {
        self.fill(1)?;
        let byte = self.unread.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        Ok(byte)
    }

    /// Reads the next frame; ParameterStatus and BackendKeyData are also remembered.
    ///
    /// # Errors
    /// When the connection ends, nothing comes for a minute, or the length is absurd.
    pub fn read(&mut self) -> Result<Frame> {
        self.fill(5)?;
        let header: [u8; 5] =
            self.unread.get(self.at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        let [tag, length @ ..] = header;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=FRAME_LIMIT_BYTES).contains(&length) {
            return Err(Error::new(format!("message {:?} has length {length}", char::from(tag))));
        }
        self.fill(length + 1)?;
        let body = self.unread.get(self.at + 5..self.at + 1 + length).unwrap_or_default().to_vec();
        self.at += 1 + length;
        let frame = Frame { tag, body };
        self.remember(&frame);
        Ok(frame)
    }

    /// Reads up to and including the next ReadyForQuery.
    ///
    /// # Errors
    /// As [`Wire::read`].
    pub fn read_until_ready(&mut self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.read()?;
            let last = frame.tag == b'Z';
            frames.push(frame);
            if last {
                return Ok(frames);
            }
        }
    }

    /// Runs a simple query and gives the rows of its last statement as text; NULL is an empty text.
    ///
    /// # Errors
    /// What the server complained about, after its ReadyForQuery has been read.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.send(&Script::new().query(sql))?;
        let mut rows = Vec::new();
        let mut complaint = None;
        loop {
            let frame = self.read()?;
            match frame.tag {
                b'T' => rows.clear(),
                b'D' => rows.push(frame.row().into_iter().map(text).collect()),
                b'E' => complaint = Some(frame.complaint()),
                b'Z' => return complaint.map_or(Ok(rows), Err),
                _ => {}
            }
            // A FATAL is not followed by a ReadyForQuery.
            if frame.tag == b'E' && frame.field(b'V').is_some_and(|severity| severity != "ERROR") {
                return Err(frame.complaint());
            }
        }
    }

    fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream, unread: Vec::new(), at: 0, parameters: BTreeMap::new(), key: None }
    }

    fn remember(&mut self, frame: &Frame) {
        if frame.tag == b'S' {
            let mut texts = frame.body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
            if let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                self.parameters.insert(name, value);
            }
        }
        if let (b'K', Ok([a, b, c, d, e, f, g, h])) = (frame.tag, <[u8; 8]>::try_from(frame.body.as_slice())) {
            self.key = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
        }
    }

    fn fill(&mut self, wanted: usize) -> Result<()> {
        if self.at > 65_536 || self.at == self.unread.len() {
            self.unread.drain(..self.at);
            self.at = 0;
        }
        let mut chunk = [0; 16_384];
        while self.unread.len() - self.at < wanted {
            let count = self.stream.read(&mut chunk).during(|| "receive".into())?;
            if count == 0 {
                return Err(Error::new("the connection ended"));
            }
            self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
        Ok(())
    }
}

fn text(value: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}
