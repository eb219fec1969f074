//! Opens one server connection: connect, TLS, startup, login, the server's parameters.
//! Must never retry by itself beyond what sslmode asks for, and never outlive its deadline.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, TlsStream};

use super::login::login;
use super::stream::Stream;
use crate::auth::ServerSecret;
use crate::auth::scram::SaltedCache;
use crate::config::{ChannelBinding, Config, Database, Endpoint, Host, SslMode, Tcp, TlsNegotiation};
use crate::net::dial;
use crate::net::plain::Plain;
use crate::net::socket::Socket;
use crate::net::tls::{self, TlsError, VerifyMode};
use crate::wire::error::{PgError, ServerError, SqlState};
use crate::wire::{build, startup, tag};

/// Everything needed to open a connection to one server as one user.
pub struct Dial {
    /// Where.
    pub endpoint: Endpoint,
    /// The name that its certificate must have, if that is not the host.
    pub tls_name: Option<String>,
    /// The database's name on the server.
    pub dbname: String,
    /// Role to log in with.
    pub user: String,
    /// What it proves itself with. The newest login of a client may renew it.
    pub secret: Rc<RefCell<ServerSecret>>,
    /// Whether to use TLS.
    pub sslmode: SslMode,
    /// How TLS begins.
    pub negotiation: TlsNegotiation,
    /// Whether SCRAM is bound to the server's certificate.
    pub channel_binding: ChannelBinding,
    /// How to use TLS; `None` only when `sslmode` is `Disable`. A reload may have read the files again.
    pub tls: RefCell<Option<Arc<rustls::ClientConfig>>>,
    /// What the kernel does when the server vanishes.
    pub tcp: Tcp,
    /// Bound on the whole opening.
    pub timeout: Duration,
    /// More for the startup message: settings, `replication`.
    pub startup: Parameters,
    /// Salted passwords computed before, so that PBKDF2 runs once per user and not per connection.
    pub salted: RefCell<SaltedCache>,
}

/// Name and value of ParameterStatus messages, in the order they came.
pub type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// What a server told us to cancel with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendKey {
    /// Process id of the backend.
    pub pid: u32,
    /// Secret: 4 bytes in protocol 3.0.
    pub secret: Vec<u8>,
}

/// A server connection, logged in and idle.
pub struct Opened {
    /// The connection.
    pub socket: Socket,
    /// What to cancel with.
    pub key: BackendKey,
    /// What the server reported.
    pub parameters: Parameters,
}

/// Why a server could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not within the time allowed.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The server said no.
    #[error("{}", .0.message)]
    Refused(ServerError),
    /// TLS is impossible as configured.
    #[error("{0}")]
    Tls(String),
    /// The server asks for what we cannot give.
    #[error("{0}")]
    Login(String),
}

impl OpenError {
    /// Trying again will not help until somebody changes something: waiting clients are told at
    /// once. Otherwise they wait (`reference/defects.md` entry 32).
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused(error) => matches!(&error.code.0[..2], b"28" | b"3D") || &error.code.0 == b"42501",
            Self::Tls(_) | Self::Login(_) => true,
            Self::Io(_) | Self::Timeout(_) => false,
        }
    }

    /// The same for a log, of what was sent with a client's values: a server's words may repeat them, its SQLSTATE does not.
    #[must_use]
    pub fn without_words(&self) -> String {
        match self {
            Self::Refused(error) => format!("refused with SQLSTATE {}", String::from_utf8_lossy(&error.code.0)),
            other => other.to_string(),
        }
    }

    /// A limit of the server's own: of all its connections, of the database's, of the role's. Somebody has to hang up.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code == SqlState::TOO_MANY_CONNECTIONS)
    }

    /// The server did not take what we proved ourselves with.
    fn is_about_secret(&self) -> bool {
        match self {
            Self::Refused(error) => error.code == SqlState::INVALID_PASSWORD,
            Self::Login(_) => true,
            Self::Io(_) | Self::Timeout(_) | Self::Tls(_) => false,
        }
    }

    /// What a client is told that needed this server.
    pub fn to_client(&self, dial: &Dial) -> PgError {
        match self {
            // No such database, role or password: the server's own words, as on a direct connection.
            Self::Refused(error) => PgError::fatal(error.code, error.message.clone())
                .detail(format!("said by the server {}", dial.endpoint)),
            other => {
                let message = format!("pgweir: could not connect to server {}: {other}", dial.endpoint);
                PgError::fatal(SqlState::CONNECTION_FAILURE, Cow::Owned(message))
            }
        }
    }
}

/// TLS towards the servers of a database; `None` when it is switched off. Reads the files it names.
///
/// # Errors
/// A file cannot be used.
pub fn tls_of(entry: &Database) -> Result<Option<Arc<rustls::ClientConfig>>, TlsError> {
    let verify = match entry.server_tls_sslmode {
        SslMode::Disable => return Ok(None),
        SslMode::Allow | SslMode::Prefer | SslMode::Require => VerifyMode::None,
        SslMode::VerifyCa => VerifyMode::Ca,
        SslMode::VerifyFull => VerifyMode::Full,
    };
    let identity = entry.server_tls_cert_file.as_deref().zip(entry.server_tls_key_file.as_deref());
    tls::client_config(verify, entry.server_tls_ca_file.as_deref(), identity).map(Some)
}

impl Dial {
    /// How a server of `entry` is opened as role `user`.
    pub fn new(
        config: &Config,
        entry: &Database,
        endpoint: &Endpoint,
        user: &str,
        secret: ServerSecret,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Self {
        Self {
            endpoint: endpoint.clone(),
            tls_name: entry.tls_names.get(endpoint).cloned(),
            dbname: entry.dbname.clone(),
            user: user.to_owned(),
            secret: Rc::new(RefCell::new(secret)),
            sslmode: entry.server_tls_sslmode,
            negotiation: entry.server_tls_negotiation,
            channel_binding: entry.server_channel_binding,
            tls: RefCell::new(tls),
            tcp: config.listen.tcp,
            timeout: config.pool.server_connect_timeout,
            startup: Parameters::new(),
            salted: RefCell::new(SaltedCache::new()),
        }
    }

    /// The same server and login with more in the startup message.
    #[must_use]
    pub fn with_startup(&self, startup: Parameters) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            tls_name: self.tls_name.clone(),
            dbname: self.dbname.clone(),
            user: self.user.clone(),
            secret: Rc::clone(&self.secret),
            tls: self.tls.clone(),
            startup,
            salted: RefCell::default(),
            ..*self
        }
    }

    /// Opens a connection within [`Dial::timeout`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self) -> Result<Opened, OpenError> {
        let late = OpenError::Timeout(self.timeout);
        tokio::time::timeout(self.timeout, self.with_newest_key()).await.unwrap_or(Err(late))
    }

    /// A key taken from a client that the server does not take (any more) is dropped. If a newer login has brought
    /// another one meanwhile, that one is tried too.
    async fn with_newest_key(&self) -> Result<Opened, OpenError> {
        let key = self.secret.borrow().client_key.clone();
        let outcome = self.attempts().await;
        let (Some(key), Err(error)) = (key, &outcome) else { return outcome };
        if !error.is_about_secret() {
            return outcome;
        }
        self.secret.borrow_mut().forget(&key);
        let newer = self.secret.borrow().client_key.is_some();
        if newer { self.attempts().await } else { outcome }
    }

    /// `allow` and `prefer` have a second try the other way, as in libpq (fe-connect.c).
    async fn attempts(&self) -> Result<Opened, OpenError> {
        let unix = matches!(self.endpoint.host, Host::Unix(_));
        match self.sslmode {
            _ if unix => self.attempt(Encrypt::No).await,
            SslMode::Disable => self.attempt(Encrypt::No).await,
            SslMode::Allow => match self.attempt(Encrypt::No).await {
                Err(OpenError::Refused(error)) if error.code == SqlState::INVALID_AUTHORIZATION => {
                    self.attempt(Encrypt::Must).await
                }
                outcome => outcome,
            },
            SslMode::Prefer => match self.attempt(Encrypt::IfOffered).await {
                Err(OpenError::Tls(_)) => self.attempt(Encrypt::No).await,
                Err(OpenError::Refused(error)) if error.code == SqlState::INVALID_AUTHORIZATION => {
                    self.attempt(Encrypt::No).await
                }
                outcome => outcome,
            },
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => self.attempt(Encrypt::Must).await,
        }
    }

    async fn attempt(&self, encrypt: Encrypt) -> Result<Opened, OpenError> {
        let socket = self.connect(encrypt).await?;
        let mut stream = Stream::new(socket);
        let mut hello = Vec::new();
        let who: [(&[u8], &[u8]); 2] = [(b"user", self.user.as_bytes()), (b"database", self.dbname.as_bytes())];
        let more = self.startup.iter().map(|(name, value)| (&name[..], &value[..]));
        build::startup(&mut hello, &who.into_iter().chain(more).collect::<Vec<_>>());
        stream.send(&hello).await?;
        login(&mut stream, self).await?;
        welcome(stream).await
    }

    /// A plain or encrypted connection on which nothing of the session was said yet.
    pub(super) async fn connect(&self, encrypt: Encrypt) -> Result<Socket, OpenError> {
        let plain = match &self.endpoint.host {
            Host::Tcp(host) => dial::tcp(host, self.endpoint.port, &self.tcp).await?,
            Host::Unix(directory) => dial::unix(directory, self.endpoint.port).await?,
            Host::Unknown => return Err(dial::unknown().into()),
        };
        if encrypt == Encrypt::No {
            return Ok(Socket::Plain(plain));
        }
        if self.negotiation == TlsNegotiation::Direct {
            return self.handshake(plain).await;
        }
        let mut stream = Stream::new(Socket::Plain(plain));
        let mut request = Vec::new();
        build::untagged(&mut request, |out| out.extend_from_slice(&startup::SSL.to_be_bytes()));
        stream.send(&request).await?;
        // Exactly one byte: what a man in the middle may have put behind it stays in the socket
        // and makes the handshake fail (CVE-2021-23222).
        match (stream.byte().await?, encrypt) {
            (b'S', _) => match stream.into_parts().0 {
                Socket::Plain(plain) => self.handshake(plain).await,
                _ => Err(OpenError::Tls("TLS in TLS".into())),
            },
            (b'N', Encrypt::IfOffered) => Ok(stream.into_parts().0),
            (b'N', _) => Err(OpenError::Tls("the server does not offer TLS, which server_tls_sslmode demands".into())),
            (other, _) => Err(OpenError::Tls(format!("the server answered 0x{other:02x} to the request for TLS"))),
        }
    }

    async fn handshake(&self, plain: Plain) -> Result<Socket, OpenError> {
        let config = self.tls.borrow().clone();
        let (Some(config), Host::Tcp(host)) = (config, &self.endpoint.host) else {
            return Err(OpenError::Tls("TLS is not configured for this server".into()));
        };
        let host = self.tls_name.as_ref().unwrap_or(host);
        let name = ServerName::try_from(host.clone())
            .map_err(|_| OpenError::Tls(format!("`{host}` is no name a certificate could have")))?;
        let connected = TlsConnector::from(config).connect(name, plain).await;
        let stream: tokio_rustls::client::TlsStream<Plain> =
            connected.map_err(|error| OpenError::Tls(format!("TLS handshake failed: {}", tls::explained(&error))))?;
        if self.negotiation == TlsNegotiation::Direct
            && stream.get_ref().1.alpn_protocol() != Some(crate::net::tls::ALPN)
        {
            return Err(OpenError::Tls("the server took direct TLS without naming the protocol (ALPN)".into()));
        }
        Ok(Socket::Tls(Box::new(TlsStream::Client(stream))))
    }
}

/// Whether an attempt uses TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encrypt {
    No,
    IfOffered,
    Must,
}

/// Reads what follows a successful login up to ReadyForQuery.
async fn welcome(mut stream: Stream) -> Result<Opened, OpenError> {
    let mut parameters = Parameters::new();
    let mut key = BackendKey::default();
    loop {
        let message = stream.next().await?;
        match message.tag {
            tag::server::PARAMETER_STATUS => {
                if let Some((name, rest)) = crate::wire::frame::cstr(&message.body)
                    && let Some((value, _)) = crate::wire::frame::cstr(rest)
                {
                    parameters.push((name.to_vec(), value.to_vec()));
                }
            }
            tag::server::BACKEND_KEY_DATA => {
                key.pid = crate::wire::frame::be_u32(&message.body).unwrap_or(0);
                key.secret = message.body.get(4..).unwrap_or_default().to_vec();
            }
            tag::server::ERROR => return Err(OpenError::Refused(ServerError::parse(&message.body))),
            tag::server::NOTICE | tag::server::NEGOTIATE => {}
            tag::server::READY if message.body == b"I" => {
                // What is there already is its end, or a word more: it is read first.
                if !stream.has_unread() {
                    let (socket, _) = stream.into_parts();
                    return Ok(Opened { socket, key, parameters });
                }
            }
            other => return Err(OpenError::Login(format!("the server sent message 0x{other:02x} during startup"))),
        }
    }
}
