//! Asks the stats port of an instance for what `pgweir top` shows.
//! Must never follow where it is sent on to, nor read more than an answer may have.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::base::secret::Secret;
use crate::net::tls::{self, VerifyMode};

/// How long all answers together may take, connecting included.
const LIMIT: Duration = Duration::from_secs(5);
/// Most bytes of an answer: some hundred statements with their texts.
const BYTES_MAX: usize = 32 << 20;
/// Most statements that are asked for.
const QUERIES_MAX: u32 = 500;

/// Whom to ask.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) token: Option<Secret>,
    /// Authorities for https; without it the system's.
    pub(super) ca_file: Option<PathBuf>,
}

/// What was answered at one moment, as the API says it.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) at: Instant,
    pub(super) status: Value,
    pub(super) databases: Value,
    pub(super) alerts: Value,
    pub(super) pools: Value,
    pub(super) queries: Value,
}

impl Target {
    /// The instance at this URL.
    ///
    /// # Errors
    /// It is none of a stats port.
    pub(super) fn new(url: &str, token: Option<Secret>, ca_file: Option<&Path>) -> Result<Self, String> {
        let expected = || format!("--url {url}: a URL such as https://pgweir.example:9127 is expected");
        let uri: Uri = url.parse().map_err(|_| expected())?;
        let plain = uri.authority().is_some_and(|it| !it.as_str().contains('@') && !it.host().is_empty());
        let is_root = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        if !plain || !is_root || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(expected());
        }
        Ok(Self { uri, token, ca_file: ca_file.map(Path::to_owned) })
    }

    /// As people know it.
    pub(super) fn name(&self) -> String {
        self.uri.to_string().trim_end_matches('/').to_owned()
    }

    /// Asks for everything; for statements by what they are to be sorted by (`by` of `/api/queries`).
    ///
    /// # Errors
    /// One line: what is the matter, and what to do.
    pub(super) async fn ask(&self, by: &str) -> Result<Answers, String> {
        match timeout(LIMIT, self.ask_all(by)).await {
            Ok(answers) => answers,
            Err(_) => Err(format!("{} does not answer within {} s", self.name(), LIMIT.as_secs())),
        }
    }

    async fn ask_all(&self, by: &str) -> Result<Answers, String> {
        let mut sender = self.connect().await?;
        Ok(Answers {
            status: self.get(&mut sender, "/api/services/status").await?,
            databases: self.get(&mut sender, "/api/database/metrics").await?,
            alerts: self.get(&mut sender, "/api/database/alerts").await?,
            pools: self.get(&mut sender, "/api/pools").await?,
            queries: self.get(&mut sender, &format!("/api/queries?limit={QUERIES_MAX}&by={by}")).await?,
            at: Instant::now(),
        })
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let name = self.name();
        let is_tls = self.uri.scheme_str() == Some("https");
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await;
        let stream = stream.map_err(|error| {
            format!("cannot reach {name}: {error}; is pgweir running there, and is this its [stats] address?")
        })?;
        if !is_tls {
            return self.greet(stream).await;
        }
        let config = tls::client_config(VerifyMode::Full, self.ca_file.as_deref(), None);
        let mut config = config.map_err(|error| error.to_string())?;
        // What it names there is PostgreSQL's protocol.
        Arc::make_mut(&mut config).alpn_protocols.clear();
        let server = ServerName::try_from(host).map_err(|_| format!("{name}: no certificate can have this name"))?;
        let stream = TlsConnector::from(config).connect(server, stream).await.map_err(|error| {
            let why = tls::explained(&error);
            format!("no TLS with {name}: {why}; --ca-file names who signed its certificate, http:// is without TLS")
        })?;
        self.greet(stream).await
    }

    async fn greet(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<SendRequest<Empty<Bytes>>, String> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Ends when the sender is dropped, whatever the server does.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn broken(&self, error: &hyper::Error) -> String {
        let hint =
            if self.uri.scheme_str() == Some("https") { "" } else { "; with a certificate in [stats] it is https://" };
        format!("no HTTP answer of {}: {error}{hint}", self.name())
    }

    async fn get(&self, sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<Value, String> {
        let mut request = Request::get(path)
            .header(header::HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::USER_AGENT, concat!("pgweir-top/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request =
            request.body(Empty::new()).map_err(|_| "the token has characters that no token has".to_owned())?;
        // The server may close a connection between two answers.
        sender.ready().await.map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("{path} of {}: {error}", self.name()))?.to_bytes();
        let json = serde_json::from_slice::<Value>(&body);
        match (status, json) {
            (StatusCode::OK, Ok(json)) => Ok(json),
            (StatusCode::OK, Err(_)) => {
                Err(format!("{path} of {} is no JSON: is it pgweir's stats port?", self.name()))
            }
            (status, json) => {
                let said = json.ok().and_then(|it| it.get("error").and_then(Value::as_str).map(str::to_owned));
                Err(self.refused(status, &said.unwrap_or_default()))
            }
        }
    }

    fn refused(&self, status: StatusCode, said: &str) -> String {
        let hint = match (status, &self.token) {
            (StatusCode::UNAUTHORIZED, None) => {
                "; --token-file names a file with the secret of one of [stats.tokens], PGWEIR_STATS_TOKEN holds it"
            }
            (StatusCode::UNAUTHORIZED, Some(_)) => "; the token given is none of [stats.tokens] there",
            _ => "",
        };
        format!("{} refuses with status {}: {said}{hint}", self.name(), status.as_u16())
    }
}
