//! The socket of the stats port, plain or TLS.
//! Must never let a slow handshake keep others waiting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::guard::Guard;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at one time; who comes then waits with the system.
const HANDSHAKES_MAX: usize = 64;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TlsPort>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsPort>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Connections over TLS, each behind its handshake. A new one gets the certificate that the guard has then.
pub(super) struct TlsPort {
    done: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: std::io::Result<SocketAddr>,
}

impl TlsPort {
    /// Begins to accept; ends when this is dropped.
    pub(super) fn new(listener: TcpListener, guard: Arc<Guard>) -> Self {
        let address = listener.local_addr();
        let (ready, done) = mpsc::channel(1);
        tokio::spawn(accept(listener, guard, ready));
        Self { done, address }
    }
}

async fn accept(mut listener: TcpListener, guard: Arc<Guard>, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // axum's own, which waits a moment where the system has no descriptor left.
        let (stream, address) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = ready.closed() => return,
        };
        let Some(tls) = guard.tls() else { return };
        let ready = ready.clone();
        tokio::spawn(async move {
            match timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
                Ok(Ok(stream)) => {
                    drop(place);
                    let _ = ready.send((stream, address)).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, "no TLS on the stats port: {error}"),
                Err(_) => tracing::debug!(%address, "no TLS on the stats port within {} s", HANDSHAKE.as_secs()),
            }
        });
    }
}

impl Listener for TlsPort {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.done.recv().await {
            Some(accepted) => accepted,
            // Only if accepting has ended, which nothing but the end of the program does.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}
