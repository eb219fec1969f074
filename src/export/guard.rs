//! Who may have what of the stats port: bearer tokens with roles, and without any, loopback only.
//! Must never let the time of an answer say how much of a token was right, nor let anybody try one after the other.
//!
//! Without tokens everybody is let in who reaches a loopback address. A page that somebody has open in a browser reaches
//! that, too: so the host asked for must be a loopback one (a name that an attacker's server answers for is not: DNS
//! rebinding), and whatever is not only read must come as JSON, which a browser sends to a foreign host only if that allows it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rustls::ServerConfig;

use super::dashboard;
use super::http::failure;
use super::port::Peer;
use super::wrong::Wrong;
use crate::config::{Access, Stats};
use crate::net::tls::{self, TlsError};

/// Open to everybody: they say no more than whether the process lives and serves, or hold no number at all.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Whether a path is open to everybody.
fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || dashboard::is_file(path)
}

/// A token's role, and the hash of its secret: hashes have one length, and are compared in constant time.
#[derive(Debug)]
struct Known {
    role: Access,
    hash: blake3::Hash,
}

/// What the stats port asks of whoever comes.
#[derive(Debug)]
pub struct Guard {
    tokens: ArcSwap<Vec<Known>>,
    tls: ArcSwapOption<ServerConfig>,
    is_loopback: bool,
    wrong: Wrong,
}

/// The TLS of `[stats]`, if there is any.
///
/// # Errors
/// Its files are of no use.
pub fn server_tls(stats: &Stats) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let Some((cert, key)) = stats.tls_cert_file.as_ref().zip(stats.tls_key_file.as_ref()) else { return Ok(None) };
    let mut config = ServerConfig::clone(&tls::listener(cert, key, None)?.config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

impl Guard {
    /// A guard of a socket on `address`.
    #[must_use]
    pub fn new(stats: &Stats, tls: Option<Arc<ServerConfig>>, address: SocketAddr) -> Self {
        let is_loopback = address.ip().to_canonical().is_loopback();
        let (tokens, wrong) = (ArcSwap::from_pointee(known(stats)), Wrong::default());
        Self { tokens, tls: ArcSwapOption::new(tls), is_loopback, wrong }
    }

    /// Lets in by these tokens from now on, and shows this certificate to who comes. Whether there is TLS does not change.
    pub fn reload(&self, stats: &Stats, tls: Option<Arc<ServerConfig>>) {
        self.tokens.store(Arc::new(known(stats)));
        self.wrong.forget();
        if self.tls.load().is_some() && tls.is_some() {
            self.tls.store(tls);
        }
    }

    /// The TLS to be spoken, if any.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }

    /// Whether somebody from there with these headers may do this, or how to refuse.
    fn judge(
        &self,
        from: IpAddr,
        method: &Method,
        headers: &HeaderMap,
        authority: Option<&str>,
    ) -> Result<(), Refusal> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let tokens = self.tokens.load();
        if tokens.is_empty() {
            // The last token may have gone by a reload.
            if !self.is_loopback {
                return Err(Refusal::NoTokens);
            }
            // Of two hosts nobody knows which another program on the way has gone by (RFC 9112, section 3.2).
            if headers.get_all(header::HOST).iter().count() > 1 {
                return Err(Refusal::ForeignHost);
            }
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(authority);
            if !host.is_some_and(is_loopback) {
                return Err(Refusal::ForeignHost);
            }
            let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_json(kind.as_bytes()));
            // Any method but these and POST a browser asks about first (Fetch Standard, CORS-safelisted methods).
            return if *method != Method::POST || is_json { Ok(()) } else { Err(Refusal::NotJson) };
        }
        let shown = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoToken)?;
        let shown = bearer(shown.as_bytes()).ok_or(Refusal::NoToken)?;
        let hash = blake3::hash(shown);
        // All of them are compared, whichever fits.
        let fits = tokens.iter().enumerate().fold(None, |known, (n, it)| if it.hash == hash { Some(n) } else { known });
        if let Err(left) = self.wrong.may_show(from, fits, Instant::now()) {
            return Err(Refusal::TooMany(left.as_secs() + 1));
        }
        match fits.and_then(|number| tokens.get(number)).ok_or(Refusal::BadToken)?.role {
            Access::Write => Ok(()),
            Access::Read if is_read => Ok(()),
            Access::Read => Err(Refusal::ReadOnly),
        }
    }
}

fn known(stats: &Stats) -> Vec<Known> {
    let known =
        |token: &crate::config::Token| Known { role: token.role, hash: blake3::hash(token.secret.expose().as_bytes()) };
    stats.tokens.values().map(known).collect()
}

/// What follows `Bearer` (RFC 6750, section 2.1; the scheme in any case: RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether a `Host` names this machine by a loopback name or address.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

fn is_json(kind: &[u8]) -> bool {
    kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoTokens,
    ForeignHost,
    NotJson,
    NoToken,
    BadToken,
    /// For so many seconds.
    TooMany(u64),
    ReadOnly,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message, challenge) = match self {
            Self::NoTokens => (
                StatusCode::FORBIDDEN,
                "this address is not a loopback one, and there is no token by which to let anybody in",
                None,
            ),
            Self::ForeignHost => (
                StatusCode::FORBIDDEN,
                "without tokens only hosts such as 127.0.0.1 and localhost are served: ask for one of these, or configure [stats.tokens.NAME]",
                None,
            ),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json", None),
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "a token is needed: Authorization: Bearer SECRET",
                Some("Bearer realm=\"pgweir\""),
            ),
            Self::BadToken => {
                (StatusCode::UNAUTHORIZED, "no such token", Some("Bearer realm=\"pgweir\", error=\"invalid_token\""))
            }
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens have come from this address: see Retry-After",
                None,
            ),
            Self::ReadOnly => (
                StatusCode::FORBIDDEN,
                "this token has the role read; a token with the role write is needed",
                Some("Bearer realm=\"pgweir\", error=\"insufficient_scope\""),
            ),
        };
        let mut response = failure(status, message);
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(challenge));
        }
        if let Self::TooMany(seconds) = self {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn admit(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(Peer(from)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if !is_open(request.uri().path()) {
        let authority = request.uri().authority().map(|authority| authority.as_str());
        if let Err(refusal) = guard.judge(from.ip(), request.method(), request.headers(), authority) {
            return refusal.into_response();
        }
    }
    next.run(request).await
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
