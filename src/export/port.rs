//! The socket of the stats port, plain or TLS: who may connect how often, and how long a connection may hold what it holds.
//! Must never let one address keep others out, nor let connections that say nothing, or do not read, stay.
//!
//! What clients of the pooler need, descriptors above all, is not for whoever reaches a port that shows numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

use super::guard::Guard;

/// What the connections to the port may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long a handshake may take.
    handshake: Duration,
    /// How long the head of a request may take to come, also the next one's on a connection that is kept.
    head: Duration,
    /// How long the other end may take nothing of an answer.
    unread: Duration,
    /// Connections at one time; who comes then waits with the system.
    open: usize,
    /// Of these from one address; what comes then is closed.
    of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            // A Prometheus asks every minute where nobody says otherwise (`scrape_interval`).
            head: Duration::from_secs(75),
            unread: Duration::from_secs(30),
            open: 256,
            of_one: 64,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// How many connections each address has.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of the connections of an address, as long as it lasts.
struct Counted {
    counts: Counts,
    from: IpAddr,
}

impl Counted {
    fn new(counts: &Counts, from: IpAddr, most: usize) -> Option<Self> {
        let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(from).or_default();
        (*count < most).then(|| {
            *count += 1;
            Self { counts: Arc::clone(counts), from }
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = all.entry(self.from) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Serves what comes on `listener`, over TLS if the guard has a certificate, until `shutdown` resolves and what is under way is answered.
/// Failures of single connections end only those.
pub(super) async fn serve(
    mut listener: TcpListener,
    guard: Arc<Guard>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (graceful, counts) = (GracefulShutdown::new(), Counts::default());
    let places = Arc::new(Semaphore::new(limits.open));
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            // axum's own, which waits a moment where the system has no descriptor left.
            (place, Listener::accept(&mut listener).await)
        };
        let (place, (stream, address)) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        let Some(counted) = Counted::new(&counts, address.ip().to_canonical(), limits.of_one) else {
            tracing::debug!(%address, "{} connections of this address to the stats port are open", limits.of_one);
            continue;
        };
        let (guard, router, watcher) = (Arc::clone(&guard), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            connection((stream, address), &guard, router, limits, watcher).await;
            drop((place, counted));
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn connection(
    (stream, address): (TcpStream, SocketAddr),
    guard: &Guard,
    router: Router,
    limits: Limits,
    watcher: Watcher,
) {
    // A new connection gets the certificate that the guard has now.
    let Some(tls) = guard.tls() else { return requests((stream, address), router, limits, watcher).await };
    match timeout(limits.handshake, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => requests((stream, address), router, limits, watcher).await,
        Ok(Err(error)) => tracing::debug!(%address, "no TLS on the stats port: {error}"),
        Err(_) => tracing::debug!(%address, "no TLS on the stats port within {:?}", limits.handshake),
    }
}

/// Answers the requests of a connection, one after the other.
async fn requests<S>((stream, address): (S, SocketAddr), router: Router, limits: Limits, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.unread));
    let answers = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(Peer(address)));
        router.clone().call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let io = TokioIo::new(Box::pin(stream));
    if let Err(error) = watcher.watch(http.serve_connection(io, answers)).await {
        tracing::debug!(%address, "a connection to the stats port ended: {error}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;
    use std::net::Ipv4Addr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;
    use crate::config::Stats;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(600);
    const NONE: Limits = Limits { handshake: LONG, head: LONG, unread: LONG, open: 1_000, of_one: 1_000 };

    /// A port with these limits that says `small`, or what does not fit into any buffer.
    async fn port(limits: Limits) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let guard = Arc::new(Guard::new(&Stats::default(), None, address));
        let router = Router::new().route("/small", get(|| async { "small" }));
        let router = router.route("/large", get(|| async { vec![b'x'; 64 << 20] }));
        tokio::spawn(serve(listener, guard, router, limits, pending()));
        address.port()
    }

    async fn from(last: u8, port: u16) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// Whether the connection serves.
    async fn serves(stream: &mut TcpStream) -> bool {
        ask(stream, "/small").await;
        let mut heard = Vec::new();
        while !heard.ends_with(b"small") {
            match stream.read_buf(&mut heard).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let port = port(Limits { head: SHORT, ..NONE }).await;
        for begun in ["", "GET /small HTTP/1.1\r\nHost: loc", "GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            let mut stream = from(1, port).await;
            stream.write_all(begun.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            assert_eq!(said.ends_with(b"small"), begun.ends_with("\n\r\n"), "{begun}");
        }
    }

    #[tokio::test]
    async fn who_does_not_read_is_not_waited_for() {
        let port = port(Limits { unread: SHORT, open: 1, ..NONE }).await;
        let mut slow = from(1, port).await;
        ask(&mut slow, "/large").await;
        // There is place for one only.
        assert!(serves(&mut from(1, port).await).await);
    }

    #[tokio::test]
    async fn one_address_does_not_keep_others_out() {
        let port = port(Limits { of_one: 3, ..NONE }).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut stream = from(1, port).await;
            assert!(serves(&mut stream).await);
            open.push(stream);
        }
        let mut fourth = from(1, port).await;
        assert_eq!(fourth.read(&mut [0]).await.unwrap_or_default(), 0);
        assert!(serves(&mut from(2, port).await).await);
        open.clear();
        // Until the ends of the three have come.
        while !serves(&mut from(1, port).await).await {}
    }
}
