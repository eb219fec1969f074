//! What is understood of Patroni's answers, and what happens to wrong ones.
//! Must never need Patroni: the answer that is read here is one that Patroni 4.1.5 gave.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

/// Of a cluster with a leader, a replica without reads, and one whose server was stopped.
const ANSWER: &str = include_str!("patroni_cluster.json");

/// Serves this to everybody; where.
fn serves(answer: String) -> Api {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /cluster HTTP/1.1\r\n"));
            // Whoever has heard enough hangs up.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Api { tls: false, endpoint }
}

fn ok(body: &str) -> String {
    // As Patroni does: no length, the end of the connection is the end.
    format!("HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n\r\n{body}")
}

async fn asked(apis: &[Api]) -> Result<Vec<String>, String> {
    let found = Apis::new(apis, None, None).ask().await?;
    Ok(found.servers.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn members_are_servers_whatever_their_state() {
    let found = Apis::new(&[serves(ok(ANSWER))], None, None).ask().await.unwrap();
    let shown = |servers: &mut dyn Iterator<Item = &Endpoint>| servers.map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&mut found.servers.iter()), ["127.0.0.1:15431", "127.0.0.1:15432", "127.0.0.1:15433"]);
    assert_eq!(shown(&mut found.spared.iter()), ["127.0.0.1:15432"]);
    assert!(found.tls_names.is_empty());
}

#[tokio::test]
async fn a_member_without_a_server_is_none() {
    let body = r#"{"members": [{"name": "new", "state": "stopped", "tags": {"noloadbalance": "no", "x": []}},
        {"host": "pg.example.org", "port": 5432, "tags": {"noloadbalance": "false"}}]}"#;
    assert_eq!(asked(&[serves(ok(body))]).await, Ok(vec!["pg.example.org:5432".to_owned()]));
}

/// In maintenance mode the leader's Patroni was stopped for longer than it may be silent (Patroni 4.1.5): it is not listed
/// any more, and its server is the primary still. When the mode ends, who is not listed is gone.
#[tokio::test]
async fn nobody_is_taken_away_while_patroni_is_paused() {
    let known = Apis::new(&[serves(ok(ANSWER))], None, None).ask().await.unwrap();
    let listed = |pause: &str| {
        let member = r#"{"name": "pg1", "role": "replica", "state": "streaming", "host": "127.0.0.1", "port": 15431}"#;
        serves(ok(&format!(r#"{{"members": [{member}]{pause}, "scope": "batman"}}"#)))
    };
    let paused = [listed(r#", "pause": true"#)];
    // What is known may be from before a reload, or an answer to the same task.
    let mut apis = Apis::new(&paused, None, Some(&known));
    for _ in 0..2 {
        assert_eq!(apis.ask().await.as_ref(), Ok(&known));
    }
    assert_eq!(Apis::new(&paused, None, None).ask().await.unwrap().servers.len(), 1);
    let found = Apis::new(&[listed("")], None, Some(&known)).ask().await.unwrap();
    assert_eq!((found.servers.len(), found.spared.len()), (1, 0));
}

/// The first that answers counts, and is asked first from then on.
#[tokio::test]
async fn one_that_answers_is_enough() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = Api { tls: false, endpoint: gone.to_string().parse().unwrap() };
    let apis = [gone, serves("HTTP/1.0 503 Service Unavailable\r\n\r\n".into()), serves(ok(ANSWER))];
    let mut all = Apis::new(&apis, None, None);
    assert_eq!((all.ask().await.unwrap().servers.len(), all.good), (3, 2));
}

#[tokio::test]
async fn what_is_no_answer_is_told() {
    let long = format!("{{\"members\": [], \"pad\": \"{}\"}}", "x".repeat(BYTES_MAX));
    for (answer, part) in [
        ("HTTP/1.0 503 Service Unavailable\r\n\r\n{}".to_owned(), "status 503"),
        (ok("<html>"), "no answer of Patroni's"),
        (ok("{\"members\": []}"), "no member has a server"),
        (ok("{\"members\": [{\"host\": 5}]}"), "no answer of Patroni's"),
        (ok("{\"members\": [{\"host\": \"a b\", \"port\": 1}]}"), "a member without a server"),
        (ok(&long), "length limit exceeded"),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "invalid HTTP"),
        (String::new(), "connection closed"),
    ] {
        let error = asked(&[serves(answer.clone())]).await.unwrap_err();
        assert!(error.contains(part), "{:.40}: {error}", answer);
        assert!(error.starts_with("http://127.0.0.1:"), "{error}");
    }
}

/// Nobody is waited for longer than an answer may take.
#[tokio::test]
async fn one_that_says_nothing_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let error = asked(&[Api { tls: false, endpoint }]).await.unwrap_err();
    assert!(error.ends_with("no answer within 2 s"), "{error}");
}

#[tokio::test]
async fn over_tls_the_certificate_counts() {
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    // A server that demands one of its own protocols: PostgreSQL's is none.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(ok(ANSWER).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    let api = [Api { tls: true, endpoint }];
    assert_eq!(Apis::new(&api, Some(&ca), None).ask().await.unwrap().servers.len(), 3);
    let error = Apis::new(&api, None, None).ask().await.unwrap_err();
    assert!(error.starts_with("https://127.0.0.1:") && error.contains("certificate"), "{error}");
}
