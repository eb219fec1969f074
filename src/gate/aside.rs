//! What takes long without waiting for a socket, done on threads of its own: TLS handshakes, keys from passwords,
//! names of system users.
//! Must never be waited for by anything but the login that needs it.

use std::io;
use std::sync::Arc;

use rustls::ServerConnection;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::net::plain::Plain;
use crate::net::socket::Socket;
use crate::net::tls::{ALPN, Listener, explained};

/// Threads beside the one of the gate, which may have queries to relay: a handshake costs 0.2 to 2 ms,
/// a key from a password 0.7 ms and more.
#[derive(Debug)]
pub struct Aside(Option<Runtime>);

impl Aside {
    /// Starts so many threads.
    ///
    /// # Errors
    /// The system gives none.
    pub fn start(threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("crypto").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Does the TLS handshake with a client; the socket comes back settled nowhere. One that was `begun`, and
    /// how, without an SSLRequest must name the protocol by ALPN, as PostgreSQL 17 demands.
    ///
    /// # Errors
    /// What went wrong with the handshake.
    pub(super) async fn handshake(
        &self,
        tls: Arc<Listener>,
        mut plain: Plain,
        begun: Option<Vec<u8>>,
    ) -> io::Result<Socket> {
        plain.loosen()?;
        self.run(async move {
            let is_direct = begun.is_some();
            let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
            let accepting = acceptor.accept_with(plain, |session| feed(session, &begun.unwrap_or_default()));
            let accepted = accepting.await.map_err(|why| io::Error::new(why.kind(), explained(&why)))?;
            if is_direct && accepted.get_ref().1.alpn_protocol() != Some(ALPN) {
                return Err(io::Error::other("direct TLS without ALPN \"postgresql\""));
            }
            let mut socket = Socket::Tls(Box::new(TlsStream::Server(accepted)));
            socket.loosen()?;
            Ok(socket)
        })
        .await?
    }

    /// Computes something.
    ///
    /// # Errors
    /// It panicked, or the program ends.
    pub(super) async fn compute<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.run(async move { what() }).await
    }

    /// Ends what is under way when the login that waits for it ends first.
    async fn run<T: Send + 'static>(&self, what: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        let Some(runtime) = &self.0 else { return Err(io::ErrorKind::Interrupted.into()) };
        let mut task = AbortOnDrop(runtime.spawn(what));
        (&mut task.0).await.map_err(io::Error::other)
    }
}

/// Gives a session what was read before it was made. What is wrong with it shows in the handshake that
/// goes on: a session that has failed fails again.
fn feed(session: &mut ServerConnection, mut begun: &[u8]) {
    while !begun.is_empty() {
        if session.read_tls(&mut begun).is_err() || session.process_new_packets().is_err() {
            return;
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which no task may do.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
