//! Sends alerts to a webhook.
//! Must never follow where it is sent on to.

use std::sync::Arc;

use axum::http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::board::Alert;
use super::deliver::Failure;
use super::message::body;
use crate::config::Webhook;
use crate::net::tls::{self, VerifyMode};

/// Most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;

/// Sends one message.
pub(super) async fn send(webhook: &Webhook, alerts: &[Alert], instance: &str) -> Result<(), Failure> {
    let text = body(webhook.format, alerts, instance);
    let never = |why: &str| Failure::Never(why.to_owned());
    let uri = webhook.uri().ok_or_else(|| never("the URL is not understood"))?;
    let is_tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let later = |error: &dyn std::fmt::Display| Failure::Later(error.to_string());
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| later(&error))?;
    if !is_tls {
        return exchange(stream, webhook, &uri, text).await;
    }
    let mut config =
        tls::client_config(VerifyMode::Full, webhook.ca_file.as_deref(), None).map_err(|error| later(&error))?;
    // What it names there is PostgreSQL's protocol.
    Arc::make_mut(&mut config).alpn_protocols.clear();
    let server = ServerName::try_from(host).map_err(|_| never("no name that a certificate could have"))?;
    let connected = TlsConnector::from(config).connect(server, stream).await;
    let stream = connected.map_err(|error| later(&tls::explained(&error)))?;
    exchange(stream, webhook, &uri, text).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    webhook: &Webhook,
    uri: &Uri,
    text: String,
) -> Result<(), Failure> {
    let later = |error: hyper::Error| Failure::Later(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(later)?;
    // Ends when both sides are dropped here, whatever the server does.
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("pgweir/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if let Some(secret) = &webhook.authorization {
        request = request.header(header::AUTHORIZATION, secret.expose());
    }
    let request = request.body(Full::new(Bytes::from(text))).map_err(|error| Failure::Never(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(later)?;
    let status = response.status();
    let said = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let said = said.map(|said| String::from_utf8_lossy(&said.to_bytes()).chars().take(200).collect::<String>());
    verdict(status, said.unwrap_or_default().trim())
}

/// What a status means: others are not to be followed or repeated (RFC 9110, section 15).
fn verdict(status: StatusCode, said: &str) -> Result<(), Failure> {
    let why = format!("status {} {said}", status.as_u16());
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failure::Later(why)),
        status if status.is_server_error() => Err(Failure::Later(why)),
        _ => Err(Failure::Never(why)),
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
