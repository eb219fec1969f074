//! Tests of what is sent, again and at last, against a collector over HTTP.
//! Must never sleep: what is waited for is a message.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::base::secret::Secret;
use crate::config::OtlpProtocol;

/// What a collector has heard: headers, and the names of statements.
type Heard = (HeaderMap, Vec<String>);

struct Collector {
    script: Mutex<VecDeque<(u16, Vec<u8>)>>,
    heard: mpsc::UnboundedSender<Heard>,
}

async fn hear(State(this): State<Arc<Collector>>, headers: HeaderMap, body: Body) -> (StatusCode, Vec<u8>) {
    let message = ExportTraceServiceRequest::decode(body).unwrap();
    let spans = message.resource_spans.into_iter().flat_map(|all| all.scope_spans).flat_map(|all| all.spans);
    let _ = this.heard.send((headers, spans.map(|span| span.name).collect()));
    let (status, answer) = this.script.lock().unwrap().pop_front().unwrap_or((200, Vec::new()));
    (StatusCode::from_u16(status).unwrap(), answer)
}

/// One that answers so, and then that all is well.
async fn collector(script: &[(u16, Vec<u8>)]) -> (Traces, mpsc::UnboundedReceiver<Heard>) {
    let (heard, hears) = mpsc::unbounded_channel();
    let this = Arc::new(Collector { script: Mutex::new(script.to_vec().into()), heard });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/v1/traces", post(hear)).with_state(this);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = Traces {
        tls: false,
        host: "127.0.0.1".into(),
        port,
        path: "/v1/traces".into(),
        protocol: OtlpProtocol::Http,
        headers: vec![("x-key".into(), Secret::new("k".into()))],
        ca_file: None,
        ratio: 1.0,
        parent: true,
        service_name: "pgweir".into(),
        interval: Duration::from_millis(1),
        timeout: Duration::from_secs(10),
    };
    (config, hears)
}

/// A statement of one span.
fn statement(name: &str) -> Box<Request> {
    let kind = crate::sql::verdict::StatementKind::Set;
    let shape = name.bytes().fold(0, |sum, byte| sum * 256 + u64::from(byte));
    Box::new(Request {
        context: Sampler::new(1.0).decide(None).unwrap(),
        parent: None,
        times: (1, 2),
        statement: Statement { shape, known: Some((name.into(), kind)) },
        session: Session {
            database: "d".into(),
            user: "u".into(),
            application_name: "".into(),
            client: None,
            peer: None,
            local: None,
        },
        target: None,
        rows: 0,
        bytes: 0,
        error: None,
        cache: None,
        lookup: None,
        wait: None,
        run: None,
    })
}

fn counts(numbers: &TraceNumbers) -> [u64; 3] {
    [numbers.exported.get(), numbers.dropped.get(), numbers.failures.get()]
}

#[tokio::test]
async fn what_does_not_fit_is_counted() {
    let numbers = Arc::default();
    let (desk, courier) = open(None, &numbers);
    (0..QUEUE + 3).for_each(|_| desk.tell(statement("a")));
    assert_eq!(counts(&numbers), [0, 3, 0]);
    desk.end();
    courier.run().await;
    assert_eq!(counts(&numbers), [0, QUEUE as u64 + 3, 0]);
}

#[tokio::test]
async fn what_may_go_better_is_sent_again_and_what_was_refused_is_not() {
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "x".into() };
    let partial = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let (config, mut hears) =
        collector(&[(503, Vec::new()), (200, Vec::new()), (400, Vec::new()), (200, partial)]).await;
    let numbers = Arc::default();
    let (desk, courier) = open(Some(&config), &numbers);
    let courier = tokio::spawn(courier.run());
    desk.tell(statement("a"));
    let (headers, names) = hears.recv().await.unwrap();
    assert_eq!(names, ["A"]);
    for (name, value) in [("content-type", "application/x-protobuf"), ("x-key", "k"), ("user-agent", "pgweir/0.1.0")] {
        assert_eq!(headers.get(name).unwrap(), value);
    }
    assert_eq!(hears.recv().await.unwrap().1, ["A"]);
    desk.tell(statement("b"));
    assert_eq!(hears.recv().await.unwrap().1, ["B"]);
    ["c", "e"].into_iter().for_each(|name| desk.tell(statement(name)));
    // The last ones go out with the end.
    desk.end();
    courier.await.unwrap();
    let mut rest = Vec::new();
    while let Ok((_, names)) = hears.try_recv() {
        rest.extend(names);
    }
    assert_eq!(rest, ["C", "E"]);
    assert_eq!(counts(&numbers), [2, 2, 2]);
}

#[tokio::test]
async fn a_message_is_sent_as_soon_as_it_is_full() {
    let (config, mut hears) = collector(&[]).await;
    let numbers = Arc::default();
    let (desk, courier) = open(Some(&Traces { interval: Duration::from_secs(3600), ..config }), &numbers);
    tokio::spawn(courier.run());
    (0..BATCH).for_each(|_| desk.tell(statement("a")));
    assert_eq!(hears.recv().await.unwrap().1.len(), BATCH);
}

#[tokio::test]
async fn another_collector_gets_what_the_first_did_not_take() {
    let (config, mut hears) = collector(&[]).await;
    let numbers = Arc::default();
    let nobody = Traces { port: 1, ..config.clone() };
    let (desk, courier) = open(Some(&nobody), &numbers);
    desk.tell(statement("a"));
    let courier = tokio::spawn(courier.run());
    desk.reconfigure(Some(&config));
    assert_eq!(hears.recv().await.unwrap().1, ["A"]);
    desk.reconfigure(None);
    desk.end();
    courier.await.unwrap();
    assert_eq!(numbers.exported.get(), 1);
}

#[test]
fn an_instance_has_a_random_uuid() {
    let (one, other) = (instance(&mut Ids::default()), instance(&mut Ids::default()));
    assert_ne!(one, other);
    let parts: Vec<usize> = one.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12]);
    assert!(one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
}
