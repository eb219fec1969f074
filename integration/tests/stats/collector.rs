//! A collector of spans: OTLP over HTTP and over gRPC, read with the messages of the protocol's own crate.
//! It must never take what is not sent as the protocol wants it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration::Certificates;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::common::PATIENCE;

/// One message.
pub struct Export {
    pub headers: HeaderMap,
    pub message: ExportTraceServiceRequest,
}

impl Export {
    fn spans(self) -> Vec<Span> {
        let scopes = self.message.resource_spans.into_iter().flat_map(|all| all.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

/// By what it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

/// It runs on a thread of its own until the test program ends.
pub struct Collector {
    endpoint: String,
    protocol: Protocol,
    exports: Receiver<Export>,
}

impl Collector {
    pub fn start(protocol: Protocol, files: Option<&Certificates>) -> Self {
        let (sender, exports) = channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let scheme = if files.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let acceptor = files.map(|files| acceptor(files, protocol));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, sender) = (acceptor.clone(), sender.clone());
                    tokio::spawn(async move {
                        match acceptor {
                            Some(acceptor) => serve(acceptor.accept(stream).await.unwrap(), protocol, sender).await,
                            None => serve(stream, protocol, sender).await,
                        }
                    });
                }
            });
        });
        Self { endpoint, protocol, exports }
    }

    /// Lines of a configuration that send to it, often.
    pub fn lines(&self, more: &str) -> String {
        let protocol = if self.protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" };
        let endpoint = &self.endpoint;
        format!("[traces]\nendpoint = \"{endpoint}\"\nprotocol = \"{protocol}\"\ninterval = \"100ms\"\n{more}\n")
    }

    /// The next message.
    pub fn export(&self) -> Export {
        self.exports.recv_timeout(PATIENCE).expect("no spans came")
    }

    /// Spans that come, until these are enough.
    #[track_caller]
    pub fn spans(&self, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let deadline = Instant::now() + PATIENCE;
        let mut spans = Vec::new();
        while !enough(&spans) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.exports.recv_timeout(left) {
                Ok(export) => spans.extend(export.spans()),
                Err(_) => panic!("not enough spans: {spans:#?}"),
            }
        }
        spans
    }

    /// All that has come so far.
    pub fn so_far(&self) -> Vec<Span> {
        self.exports.try_iter().flat_map(Export::spans).collect()
    }
}

fn acceptor(files: &Certificates, protocol: Protocol) -> TlsAcceptor {
    let certificates = CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(certificates, key).unwrap();
    // Who offers another one is sent away.
    config.alpn_protocols = vec![if protocol == Protocol::Grpc { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: Protocol,
    sender: Sender<Export>,
) {
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| answer(request, protocol, sender.clone()));
    // How a connection ends is the other side's affair.
    let _ = match protocol {
        Protocol::Http => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
        Protocol::Grpc => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
        }
    };
}

type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(
    request: Request<Incoming>,
    protocol: Protocol,
    sender: Sender<Export>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes();
    let is = |name: &str, value: &str| assert_eq!(head.headers.get(name).unwrap(), value, "{:?}", head.headers);
    let mut frames = Vec::new();
    let encoded = Bytes::from(ExportTraceServiceResponse::default().encode_to_vec());
    let kind = match protocol {
        Protocol::Http => {
            assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/traces"));
            is("content-type", "application/x-protobuf");
            frames.push(Frame::data(encoded));
            "application/x-protobuf"
        }
        Protocol::Grpc => {
            let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
            assert_eq!((head.method.as_str(), head.uri.path()), ("POST", path));
            is("content-type", "application/grpc");
            is("te", "trailers");
            // Length-Prefixed-Message of "gRPC over HTTP2": not compressed, and how long it is.
            assert_eq!((body.get_u8(), body.get_u32() as usize), (0, body.len()));
            let mut prefixed = vec![0];
            prefixed.extend((encoded.len() as u32).to_be_bytes());
            prefixed.extend(encoded);
            frames.push(Frame::data(prefixed.into()));
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            frames.push(Frame::trailers(trailers));
            "application/grpc"
        }
    };
    let message = ExportTraceServiceRequest::decode(body).unwrap();
    let _ = sender.send(Export { headers: head.headers, message });
    let frames: Vec<_> = frames.into_iter().map(Ok).collect();
    let response = Response::builder().header("content-type", kind);
    Ok(response.body(StreamBody::new(futures_util::stream::iter(frames))).unwrap())
}

/// An attribute of a span.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(is) => Some(is.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

/// The number of a trace or span as it is written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
