//! The endpoints over a real socket.
//! Never depends on an HTTP client library: the requests are text.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Config, Stats};
use crate::health::Watch;
use crate::meter::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Status line plus headers (lower case), and body.
async fn request(port: u16, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn every_endpoint_answers_as_documented_and_shutdown_ends_it() {
    let registry = Arc::new(Registry::new());
    registry.set_databases(["a\"b\\".into()]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel::<()>();
    let exporter = Arc::new(Exporter::new(Arc::clone(&registry)));
    let guard = Arc::new(Guard::new(&Stats::default(), None, listener.local_addr().unwrap()));
    let config = Arc::new(Config::from_urls("postgres://u@h/d", &[]).unwrap());
    let site = Arc::new(Site::new(
        Arc::clone(&registry),
        Arc::default(),
        Arc::clone(&config),
        Box::new(|| Box::pin(std::future::ready(Default::default()))),
        Watch::new((Arc::clone(&registry), Arc::default()), Arc::default(), config, String::new()),
        (Vec::new(), String::new(), 1),
    ));
    let server = tokio::spawn(serve(listener, guard, exporter, site, async {
        stopped.await.ok();
    }));

    let (head, body) = request(port, "GET", "/metrics").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("\npgweir_primary_reachable{database=\"a\\\"b\\\\\"} 0\n"), "{body}");

    let open = "/metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\nX-Rest:";
    let (head, body) = request(port, "GET", open).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(head.contains("vary: accept") && body.ends_with("\n# EOF\n"), "{head}");

    let (head, body) = request(port, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert!(head.contains("content-type: application/json"));
    assert_eq!(
        body,
        "{\"status\":\"not ready\",\"reasons\":[{\"reason\":\"not listening\",\"database\":null},\
         {\"reason\":\"primary unreachable\",\"database\":\"a\\\"b\\\\\"}]}"
    );
    registry.set_listening(true);
    registry.database("a\"b\\").unwrap().set_primary_reachable(true);
    assert!(request(port, "GET", "/readyz").await.0.starts_with("http/1.1 200"));
    registry.set_draining(true);
    let (head, body) = request(port, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503") && body.contains("draining"));
    assert!(request(port, "GET", "/healthz").await.0.starts_with("http/1.1 200"));
    let (head, body) = request(port, "GET", "/pins").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("application/json"), "{head}");
    assert_eq!(body, "{\"pins\":[]}");
    for path in ["/", "/dashboard/app.js", "/dashboard/uPlot.css"] {
        let (head, body) = request(port, "GET", path).await;
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-security-policy: default-src 'none'"),
            "{head}"
        );
        assert!(!body.is_empty());
    }

    let (head, body) = request(port, "GET", "/nothing?x=1").await;
    assert!(head.starts_with("http/1.1 404") && head.contains("application/json"), "{head}");
    assert_eq!(body, "{\"error\":\"no such path: /nothing\"}\n");
    let (head, body) = request(port, "POST", "/metrics").await;
    assert!(head.starts_with("http/1.1 405") && head.contains("allow: get,head"), "{head}");
    assert!(body.starts_with("{\"error\":"));

    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[test]
fn json_strings_are_escaped() {
    assert_eq!(quoted("a\"\\\n\u{1}é"), "\"a\\\"\\\\\\u000a\\u0001é\"");
}
