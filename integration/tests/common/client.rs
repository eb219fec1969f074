//! A raw client that speaks any minor version, over TCP or TLS, and says goodbye only when told to.
//! It must never interpret more than a test needs: what it gets is handed out as frames.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use integration::wire::{Frame, Script};
use integration::{DATABASE, USER};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// SSLRequest.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// GSSENCRequest.
pub const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

trait Stream: Read + Write + Send {
    /// Something has been read from the socket that nobody has asked for yet.
    fn holds_more(&self) -> bool {
        false
    }
}

impl Stream for TcpStream {}
impl Stream for StreamOwned<ClientConnection, TcpStream> {}

/// A socket that is not asked twice for each frame.
struct Buffered(BufReader<TcpStream>);

impl Stream for Buffered {
    fn holds_more(&self) -> bool {
        !self.0.buffer().is_empty()
    }
}

impl Read for Buffered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

/// How a TLS connection is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ssl {
    /// After an SSLRequest.
    Asked,
    /// At once, naming PostgreSQL's protocol.
    Direct,
    /// At once, naming nothing.
    DirectWithoutAlpn,
}

/// Nothing came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence;

impl Silence {
    fn or_end(error: &io::Error) -> Result<Option<Frame>, Self> {
        let late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if late { Err(Self) } else { Ok(None) }
    }
}

/// A connection.
pub struct Client {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    /// Newest value of each ParameterStatus.
    pub parameters: BTreeMap<String, String>,
    /// Body of BackendKeyData: process id and secret.
    pub key: Vec<u8>,
}

impl Client {
    /// Connects without saying anything.
    pub fn tcp(port: u16) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// [`Client::tcp`] to another address.
    pub fn at(address: SocketAddr) -> Self {
        Self::try_at(address).unwrap()
    }

    /// [`Client::at`] where perhaps nobody listens.
    pub fn try_at(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let stream = Box::new(Buffered(BufReader::new(socket.try_clone()?)));
        Ok(Self { stream, socket, parameters: BTreeMap::new(), key: Vec::new() })
    }

    /// Connects with TLS, trusting the authority in `ca`.
    pub fn tls(port: u16, ca: &Path, how: Ssl) -> io::Result<Self> {
        let mut client = Self::tcp(port);
        if how == Ssl::Asked {
            client.write(&SSL_REQUEST);
            assert_eq!(client.byte(), Some(b'S'));
        }
        client.handshake(ca, how != Ssl::DirectWithoutAlpn)?;
        Ok(client)
    }

    /// Turns the connection into TLS.
    pub fn handshake(&mut self, ca: &Path, alpn: bool) -> io::Result<()> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        if alpn {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut tls = StreamOwned::new(session, self.socket.try_clone()?);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        self.stream = Box::new(tls);
        Ok(())
    }

    /// Connects and logs in without a password, protocol 3.0.
    pub fn connect(port: u16) -> Self {
        Self::connect_with(port, &[])
    }

    /// [`Client::connect`] with parameters of its own.
    pub fn connect_with(port: u16, parameters: &[(&str, &str)]) -> Self {
        let mut client = Self::tcp(port);
        client.startup(0, parameters);
        client.welcome().unwrap_or_else(|error| panic!("login refused: {}", said(&error)));
        client
    }

    /// Sends the startup message of protocol 3.`minor` for [`USER`] and [`DATABASE`], which `parameters` may override.
    pub fn startup(&mut self, minor: u32, parameters: &[(&str, &str)]) {
        self.write(&startup(minor, parameters));
    }

    /// Reads up to ReadyForQuery; the error if one came instead.
    pub fn welcome(&mut self) -> Result<Vec<Frame>, Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.read().expect("the connection ended in the middle of the login");
            match frame.tag {
                b'E' => return Err(frame),
                b'Z' => return Ok(frames),
                _ => frames.push(frame),
            }
        }
    }

    /// Sends bytes in one write. That the other side may have gone is for the next read to find.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Sends a script.
    pub fn send(&mut self, script: &Script) {
        self.write(script.bytes());
    }

    /// One byte that is not part of a frame; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let mut one = [0];
        self.stream.read_exact(&mut one).ok().map(|()| one[0])
    }

    /// The next frame; `None` when the connection has ended.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).map_err(in_time).ok()?;
        let [tag, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        assert!((4..1 << 28).contains(&length), "message {:?} of length {length}", char::from(tag));
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).map_err(in_time).ok()?;
        let frame = Frame { tag, body };
        self.remember(&frame);
        Some(frame)
    }

    /// How long a read may wait.
    pub fn patience(&self, limit: Duration) {
        self.socket.set_read_timeout(Some(limit)).unwrap();
    }

    /// Whether something comes within this time, the end included; the patience of reads is lost.
    pub fn speaks_within(&self, limit: Duration) -> bool {
        if self.stream.holds_more() {
            return true;
        }
        self.patience(limit);
        let spoke = self.socket.peek(&mut [0]);
        spoke.is_ok_and(|n| n > 0)
    }

    /// The next frame; `Ok(None)` at the end, `Err` when nothing came in time.
    pub fn read_in_time(&mut self) -> Result<Option<Frame>, Silence> {
        let mut head = [0; 5];
        if let Err(error) = self.stream.read_exact(&mut head) {
            return Silence::or_end(&error);
        }
        let [tag, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        assert!((4..1 << 28).contains(&length), "message {:?} of length {length}", char::from(tag));
        let mut body = vec![0; length - 4];
        if let Err(error) = self.stream.read_exact(&mut body) {
            return Silence::or_end(&error);
        }
        let frame = Frame { tag, body };
        self.remember(&frame);
        Ok(Some(frame))
    }

    /// Everything up to the end of the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = self.stream.read_to_end(&mut all).map_err(in_time);
        all
    }

    /// All frames up to the end of the connection.
    pub fn frames_to_end(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.read()).collect()
    }

    /// Frames up to the `count`th ReadyForQuery, or to the end of the connection.
    pub fn ready(&mut self, count: usize) -> Vec<Frame> {
        let (mut frames, mut left) = (Vec::new(), count);
        while left > 0 {
            let Some(frame) = self.read() else { break };
            left -= usize::from(frame.tag == b'Z');
            frames.push(frame);
        }
        frames
    }

    /// Sends a script and reads up to the next ReadyForQuery.
    pub fn run(&mut self, script: &Script) -> Vec<Frame> {
        self.send(script);
        self.ready(1)
    }

    /// Runs a simple query: rows of text, or the error as `CODE message`.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        outcome(&self.run(&Script::new().query(sql)))
    }

    /// The first value of [`Client::query`], empty without a row.
    pub fn value(&mut self, sql: &str) -> String {
        let rows = self.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.into_iter().flatten().next().unwrap_or_default()
    }

    /// The same plain connection once more, for a thread that writes while this one reads.
    pub fn second(&self) -> Self {
        let socket = self.socket.try_clone().unwrap();
        let stream = Box::new(self.socket.try_clone().unwrap());
        Self { stream, socket, parameters: BTreeMap::new(), key: self.key.clone() }
    }

    /// Ends the connection without a word.
    pub fn vanish(self) {
        self.end();
    }

    /// [`Client::vanish`] where others still look at what came.
    pub fn end(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// The cancel request for this connection.
    pub fn cancel_request(&self) -> Vec<u8> {
        cancel_request(&self.key)
    }

    fn remember(&mut self, frame: &Frame) {
        if frame.tag == b'S' {
            let mut texts = frame.body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
            if let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                self.parameters.insert(name, value);
            }
        }
        if frame.tag == b'K' {
            self.key.clone_from(&frame.body);
        }
    }
}

/// A read that waited for ever is a failed test, not the end of a connection.
fn in_time(error: io::Error) -> io::Error {
    let late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    assert!(!late, "no answer within a minute");
    error
}

/// A startup message; see [`Client::startup`].
pub fn startup(minor: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = (196_608 + minor).to_be_bytes().to_vec();
    let given = |name: &str| parameters.iter().any(|(known, _)| *known == name);
    let defaults = [("user", USER), ("database", DATABASE)];
    let all = defaults.iter().filter(|(name, _)| !given(name)).chain(parameters);
    for (name, value) in all {
        body.extend_from_slice(&[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    untagged(&body)
}

/// The cancel request with the body of a BackendKeyData.
pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    untagged(&[&80_877_102u32.to_be_bytes()[..], key].concat())
}

fn untagged(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

/// `CODE message` of an error.
pub fn said(error: &Frame) -> String {
    format!("{} {}", error.field(b'C').unwrap_or_default(), error.field(b'M').unwrap_or_default())
}

/// The rows among `frames`, or the first error.
pub fn outcome(frames: &[Frame]) -> Result<Vec<Vec<String>>, String> {
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        return Err(said(error));
    }
    if frames.last().is_none_or(|frame| frame.tag != b'Z') {
        return Err("the connection ended".into());
    }
    let text = |value: Option<Vec<u8>>| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
    let rows = frames.iter().filter(|frame| frame.tag == b'D');
    Ok(rows.map(|frame| frame.row().into_iter().map(text).collect()).collect())
}

/// The tags of frames as text, such as `12DCZ`.
pub fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}
