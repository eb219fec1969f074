//! The connection to a collector: OTLP over HTTP/1.1 or over gRPC, in the clear or over TLS.
//! Must never follow where it is sent on to, nor be asked again for what a collector has refused for good.
//!
//! What is worth another attempt is what "OpenTelemetry Protocol Specification" says (sections "Failures" of OTLP/gRPC and OTLP/HTTP).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::config::{OtlpProtocol, Traces};
use crate::net::tls::{self, VerifyMode};

/// Most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;
/// What is called by gRPC (`opentelemetry/proto/collector/trace/v1/trace_service.proto`).
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Who asks.
const USER_AGENT: &str = concat!("pgweir/", env!("CARGO_PKG_VERSION"));

/// Why an attempt failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may go better next time, but not before then if that is said.
    Later(String, Option<Duration>),
    /// It will not.
    Never(String),
}

fn later(error: impl std::fmt::Display) -> Failure {
    Failure::Later(error.to_string(), None)
}

fn never(error: impl std::fmt::Display) -> Failure {
    Failure::Never(error.to_string())
}

/// What is open.
enum Sender {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(Grpc<Channel>),
}

/// A connection to a collector, opened when it is needed.
#[derive(Default)]
pub(super) struct Link(Option<Sender>);

impl Link {
    /// Sends an encoded message once. On a failure the connection is given up.
    pub async fn send(&mut self, to: &Traces, message: Bytes) -> Result<ExportTraceServiceResponse, Failure> {
        // What stirred on it while nothing was under way is its end.
        let mut open = self.0.take();
        let is_usable = match &mut open {
            Some(Sender::Http(open)) => open.ready().await.is_ok(),
            Some(Sender::Grpc(open)) => open.ready().await.is_ok(),
            None => false,
        };
        let mut sender = match open.filter(|_| is_usable) {
            Some(open) => open,
            None => connect(to).await?,
        };
        let answer = match &mut sender {
            Sender::Http(open) => by_http(open, to, message).await?,
            Sender::Grpc(open) => by_grpc(open, to, message).await?,
        };
        self.0 = Some(sender);
        Ok(answer)
    }
}

async fn connect(to: &Traces) -> Result<Sender, Failure> {
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(later)?;
    stream.set_nodelay(true).map_err(later)?;
    if !to.tls {
        return speak(stream, to).await;
    }
    let mut config = tls::client_config(VerifyMode::Full, to.ca_file.as_deref(), None).map_err(later)?;
    let protocol: &[u8] = if to.protocol == OtlpProtocol::Grpc { b"h2" } else { b"http/1.1" };
    // What it names there is PostgreSQL's protocol.
    Arc::make_mut(&mut config).alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(to.host.clone());
    let name = name.map_err(|_| never("the endpoint has no name that a certificate could have"))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    speak(connected.map_err(|error| later(tls::explained(&error)))?, to).await
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, to: &Traces) -> Result<Sender, Failure> {
    let io = TokioIo::new(stream);
    // The tasks end when both sides are dropped here, whatever the collector does.
    match to.protocol {
        OtlpProtocol::Http => {
            let (sender, connection) = http1::handshake(io).await.map_err(later)?;
            tokio::spawn(connection);
            Ok(Sender::Http(sender))
        }
        OtlpProtocol::Grpc => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(later)?;
            tokio::spawn(connection);
            let scheme = if to.tls { "https" } else { "http" };
            let origin: Uri = format!("{scheme}://{}", to.authority()).parse().map_err(never)?;
            let grpc = Grpc::with_origin(Channel(sender), origin).max_decoding_message_size(ANSWER_MAX);
            Ok(Sender::Grpc(grpc))
        }
    }
}

async fn by_http(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    to: &Traces,
    message: Bytes,
) -> Result<ExportTraceServiceResponse, Failure> {
    let mut request = Request::post(&to.path)
        .header(header::HOST, to.authority())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::USER_AGENT, USER_AGENT);
    for (name, value) in &to.headers {
        request = request.header(name, value.expose());
    }
    let request = request.body(Full::new(message)).map_err(never)?;
    let (head, body) = sender.send_request(request).await.map_err(later)?.into_parts();
    let said = Limited::new(body, ANSWER_MAX).collect().await.map(|said| said.to_bytes());
    verdict(head.status, &head.headers, &said.unwrap_or_default())
}

/// What a status means: others are not to be followed or repeated.
fn verdict(status: StatusCode, headers: &HeaderMap, said: &[u8]) -> Result<ExportTraceServiceResponse, Failure> {
    if status.is_success() {
        // All has been taken if it cannot be read; to send it again would double it.
        return Ok(ExportTraceServiceResponse::decode(said).unwrap_or_default());
    }
    let why = format!("status {}", status.as_u16());
    match status.as_u16() {
        429 | 502 | 503 | 504 => Err(Failure::Later(why, headers.get(header::RETRY_AFTER).and_then(pause))),
        _ => Err(Failure::Never(why)),
    }
}

/// What `Retry-After` asks for: seconds, or until a date (RFC 9110, section 10.2.3).
fn pause(value: &header::HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let until = || httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok();
    text.parse().ok().map(Duration::from_secs).or_else(until)
}

async fn by_grpc(grpc: &mut Grpc<Channel>, to: &Traces, message: Bytes) -> Result<ExportTraceServiceResponse, Failure> {
    grpc.ready().await.map_err(later)?;
    let mut request = tonic::Request::new(message);
    request.set_timeout(to.timeout);
    let all = request.metadata_mut();
    all.insert("user-agent", MetadataValue::from_static(USER_AGENT));
    for (name, value) in &to.headers {
        let name = MetadataKey::from_bytes(name.as_bytes()).map_err(never)?;
        all.insert(name, MetadataValue::try_from(value.expose()).map_err(never)?);
    }
    let answer = grpc.unary(request, PathAndQuery::from_static(EXPORT), Encoded).await;
    answer.map(tonic::Response::into_inner).map_err(|status| refusal(&status))
}

/// What a status means. Of what collectors say themselves only the code is told: the rest may repeat what was sent.
fn refusal(status: &Status) -> Failure {
    let why = format!("status {:?}", status.code());
    let pause = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Later(why, pause),
        // It recovers only if it says so.
        Code::ResourceExhausted if pause.is_some() => Failure::Later(why, pause),
        // Not a word of the collector's: the connection broke.
        Code::Unknown if std::error::Error::source(status).is_some() => Failure::Later(status.to_string(), None),
        _ => Failure::Never(why),
    }
}

/// What gRPC is spoken over.
struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Messages that are encoded already: an attempt more costs nothing.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(into, message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // As over HTTP: it was taken.
        Ok(Some(ExportTraceServiceResponse::decode(from).unwrap_or_default()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn what_http_says_is_repeated_or_not() {
        let said = |status: u16, after: Option<&str>| {
            let headers = after.map(|after| (header::RETRY_AFTER, after.parse().unwrap())).into_iter().collect();
            verdict(StatusCode::from_u16(status).unwrap(), &headers, b"").map(|_| ())
        };
        assert_eq!(said(200, None), Ok(()));
        assert_eq!(said(202, Some("7")), Ok(()));
        for status in [429, 502, 503, 504] {
            assert_eq!(said(status, None), Err(Failure::Later(format!("status {status}"), None)));
            let after = Some(Duration::from_secs(7));
            assert_eq!(said(status, Some("7")), Err(Failure::Later(format!("status {status}"), after)));
        }
        for status in [301, 400, 401, 404, 408, 413, 500, 501] {
            assert_eq!(said(status, Some("7")), Err(Failure::Never(format!("status {status}"))));
        }
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let Err(Failure::Later(_, Some(after))) = said(503, Some(&date)) else { panic!("{date}") };
        assert!((98..=100).contains(&after.as_secs()), "{after:?}");
        assert_eq!(said(503, Some("soon")), Err(Failure::Later("status 503".to_owned(), None)));
    }

    #[test]
    fn what_grpc_says_is_repeated_or_not() {
        let again = |code: Code| matches!(refusal(&Status::new(code, "x")), Failure::Later(..));
        use Code::{
            Aborted, Cancelled, DataLoss, DeadlineExceeded, Internal, InvalidArgument, OutOfRange, PermissionDenied,
            ResourceExhausted, Unauthenticated, Unavailable, Unimplemented, Unknown,
        };
        for code in [Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss] {
            assert!(again(code), "{code:?}");
        }
        for code in
            [Unknown, InvalidArgument, PermissionDenied, Unimplemented, Internal, Unauthenticated, ResourceExhausted]
        {
            assert!(!again(code), "{code:?}");
        }
        let after = Some(Duration::from_secs(3));
        let told = Status::with_error_details(ResourceExhausted, "x", ErrorDetails::with_retry_info(after));
        assert_eq!(refusal(&told), Failure::Later("status ResourceExhausted".to_owned(), after));
    }
}
