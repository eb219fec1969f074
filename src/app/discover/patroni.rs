//! Servers as Patroni's REST API lists them: `GET /cluster` (Patroni's documentation, "Patroni REST API").
//! Must never believe what it says of roles, nor read more than it may say.
//!
//! Who is listed is who has a Patroni that lives. In maintenance mode (`pause`) Patronis may be stopped while their servers go
//! on, the primary too, and nobody takes their place: then servers come, and none goes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{Api, Endpoint, Found, Host};
use crate::net::tls::{self, VerifyMode};

/// How long an answer may take, connecting included.
const LIMIT: Duration = Duration::from_secs(2);
/// Most bytes of an answer; a member takes less than a kilobyte.
const BYTES_MAX: usize = 1 << 20;

/// Where to ask.
pub(super) struct Apis {
    apis: Vec<Api>,
    /// The one that has answered last.
    good: usize,
    /// What it has answered last.
    known: Found,
    /// How to talk to those over TLS, or why that is impossible.
    tls: Result<Arc<rustls::ClientConfig>, String>,
}

impl Apis {
    pub(super) fn new(apis: &[Api], ca_file: Option<&Path>, known: Option<&Found>) -> Self {
        let tls = match apis.iter().any(|api| api.tls) {
            true => tls::client_config(VerifyMode::Full, ca_file, None).map_err(|error| error.to_string()),
            false => Err("no TLS".into()),
        };
        // What it names there is PostgreSQL's protocol.
        let tls = tls.map(|mut config| {
            Arc::make_mut(&mut config).alpn_protocols.clear();
            config
        });
        Self { apis: apis.to_vec(), good: 0, known: known.cloned().unwrap_or_default(), tls }
    }

    /// Asks the one that has answered last, and if that does not, all others.
    pub(super) async fn ask(&mut self) -> Result<Found, String> {
        let mut errors = Vec::new();
        for others in [false, true] {
            let mut questions = JoinSet::new();
            for (number, api) in self.apis.iter().enumerate().filter(|(number, _)| (*number != self.good) == others) {
                let (api, tls) = (api.clone(), self.tls.clone());
                questions
                    .spawn(async move { (number, ask(&api, tls).await.map_err(|error| format!("{api}: {error}"))) });
            }
            while let Some(answer) = questions.join_next().await {
                match answer {
                    Ok((number, Ok(members))) => {
                        self.good = number;
                        self.known = members.with(&self.known);
                        return Ok(self.known.clone());
                    }
                    Ok((_, Err(error))) => errors.push(error),
                    Err(error) => errors.push(error.to_string()),
                }
            }
        }
        Err(errors.join("; "))
    }
}

async fn ask(api: &Api, tls: Result<Arc<rustls::ClientConfig>, String>) -> Result<Members, String> {
    let late = |_| Err(format!("no answer within {} s", LIMIT.as_secs()));
    let answer = timeout(LIMIT, fetch(api, tls)).await.unwrap_or_else(late)?;
    members(&answer)
}

async fn fetch(api: &Api, tls: Result<Arc<rustls::ClientConfig>, String>) -> Result<Bytes, String> {
    let Host::Tcp(host) = &api.endpoint.host else { return Err("no host".into()) };
    let stream = TcpStream::connect((host.as_str(), api.endpoint.port)).await.map_err(|error| error.to_string())?;
    if !api.tls {
        return exchange(stream, &api.endpoint).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(|_| "no name that a certificate could have".to_owned())?;
    let connected = TlsConnector::from(tls?).connect(name, stream).await;
    exchange(connected.map_err(|error| tls::explained(&error).to_string())?, &api.endpoint).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &Endpoint,
) -> Result<Bytes, String> {
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    // Ends when both sides are dropped here, whatever the server does.
    tokio::spawn(connection);
    let request = Request::get("/cluster").header(header::HOST, host.to_string()).header(header::CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(said)?;
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
}

/// What is read of the answer.
#[derive(Deserialize)]
struct Cluster {
    members: Vec<Member>,
    /// Not there unless it is on.
    #[serde(default)]
    pause: bool,
}

#[derive(Deserialize)]
struct Member {
    /// Not there as long as it has never been up.
    host: Option<String>,
    port: Option<u16>,
    #[serde(default)]
    tags: Tags,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default)]
    noloadbalance: Value,
}

/// Who is listed.
struct Members {
    listed: Found,
    /// Who is not may be there all the same.
    paused: bool,
}

impl Members {
    /// The servers there are, if these were known.
    fn with(self, known: &Found) -> Found {
        let Self { mut listed, paused } = self;
        if paused {
            let unlisted: Vec<_> = known.servers.difference(&listed.servers).cloned().collect();
            listed.spared.extend(unlisted.iter().filter(|it| known.spared.contains(it)).cloned());
            listed.servers.extend(unlisted);
        }
        listed
    }
}

fn members(answer: &[u8]) -> Result<Members, String> {
    let cluster: Cluster =
        serde_json::from_slice(answer).map_err(|error| format!("no answer of Patroni's: {error}"))?;
    let mut found = Found::default();
    for member in cluster.members {
        let (Some(host), Some(port)) = (member.host, member.port) else { continue };
        let endpoint =
            Endpoint::new(&host, port).map_err(|error| format!("a member without a server: expected {error}"))?;
        if is_on(&member.tags.noloadbalance) {
            found.spared.insert(endpoint.clone());
        }
        found.servers.insert(endpoint);
    }
    match found.servers.is_empty() {
        true => Err("no member has a server".into()),
        false => Ok(Members { listed: found, paused: cluster.pause }),
    }
}

/// As Patroni reads what stands in its files (`parse_bool` in patroni/utils.py).
fn is_on(tag: &Value) -> bool {
    match tag {
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_u64() == Some(1),
        Value::String(word) => matches!(word.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1"),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
#[path = "patroni_tests.rs"]
mod tests;
