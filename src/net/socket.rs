//! One connection's socket, whatever it is made of, and the bytes it would not take yet.
//! Must never block, and must never wake anybody: the caller knows who flushes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::plain::Plain;
use crate::base::outbuf::OutBuf;

/// What a connection is made of.
#[derive(Debug)]
pub enum Socket {
    /// No encryption.
    Plain(Plain),
    /// TLS over it. Boxed: rustls' state is about a kilobyte and most connections have none.
    Tls(Box<TlsStream<Plain>>),
    /// In memory, for tests and simulations.
    #[cfg(any(test, feature = "simulation"))]
    Mem(super::mem::Mem),
}

impl Socket {
    /// See [`Plain::loosen`].
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn loosen(&mut self) -> io::Result<()> {
        self.plain_mut().map_or(Ok(()), Plain::loosen)
    }

    /// See [`Plain::settle`].
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn settle(&mut self) -> io::Result<()> {
        self.plain_mut().map_or(Ok(()), Plain::settle)
    }

    /// The certificate that the other side showed, in DER; `None` without TLS or without one.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        let Self::Tls(stream) = self else { return None };
        stream.get_ref().1.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// Whether nobody on the way can listen.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The user at the other end of a unix socket, as the system knows it.
    pub fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Plain(Plain::Unix(stream)) => stream.peer_cred().ok().map(|peer| peer.uid()),
            _ => None,
        }
    }

    /// The process at the other end of a unix socket, as the system knows it.
    pub fn peer_pid(&self) -> Option<u32> {
        match self {
            Self::Plain(Plain::Unix(stream)) => stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok()),
            _ => None,
        }
    }

    /// The addresses of the other end and of this one; `None` on a unix socket, and where the connection is gone.
    pub fn ends(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let plain = match self {
            Self::Plain(plain) => plain,
            Self::Tls(stream) => stream.get_ref().0,
            #[cfg(any(test, feature = "simulation"))]
            Self::Mem(_) => return (None, None),
        };
        match plain {
            Plain::Tcp(stream) => (stream.peer_addr().ok(), stream.local_addr().ok()),
            _ => (None, None),
        }
    }

    /// Protocol and cipher of TLS, such as `TLSv1.3/TLS13_AES_256_GCM_SHA384`; `None` without.
    pub fn tls_parameters(&self) -> Option<String> {
        let Self::Tls(stream) = self else { return None };
        let (_, session) = stream.get_ref();
        let version = session.protocol_version()?.as_str()?.replacen("TLSv1_", "TLSv1.", 1);
        Some(format!("{version}/{}", session.negotiated_cipher_suite()?.suite().as_str()?))
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Plain(Plain::Unix(_) | Plain::LooseUnix(_)))
    }

    fn plain_mut(&mut self) -> Option<&mut Plain> {
        match self {
            Self::Plain(plain) => Some(plain),
            Self::Tls(stream) => Some(match &mut **stream {
                TlsStream::Client(stream) => stream.get_mut().0,
                TlsStream::Server(stream) => stream.get_mut().0,
            }),
            #[cfg(any(test, feature = "simulation"))]
            Self::Mem(_) => None,
        }
    }

    /// Reads what is there; 0 is the end. A short read costs no second system call.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => plain.poll_receive(cx, into),
            Self::Tls(stream) => {
                let mut buf = ReadBuf::new(into);
                Pin::new(&mut **stream).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
            }
            #[cfg(any(test, feature = "simulation"))]
            Self::Mem(mem) => mem.poll_read(into),
        }
    }

    /// Writes what the socket takes at once.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.try_write(bytes),
            Self::Tls(stream) => {
                let cx = &mut Context::from_waker(Waker::noop());
                match Pin::new(&mut **stream).poll_write(cx, bytes) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
            #[cfg(any(test, feature = "simulation"))]
            Self::Mem(mem) => mem.try_write(bytes),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => Pin::new(plain).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            #[cfg(any(test, feature = "simulation"))]
            Self::Mem(mem) => match mem.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                written => Poll::Ready(written),
            },
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// A socket and the bytes it would not take yet.
#[derive(Debug)]
pub struct Conn {
    socket: Socket,
    out: OutBuf,
    /// TLS records are made but not on the wire.
    unflushed: bool,
}

impl Conn {
    /// Wraps a settled socket.
    pub fn new(socket: Socket) -> Self {
        Self { socket, out: OutBuf::default(), unflushed: false }
    }

    /// What the connection is made of.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket alone. Only for a connection without a backlog.
    pub fn into_socket(self) -> Socket {
        debug_assert_eq!(self.backlog(), 0, "bytes would be lost");
        self.socket
    }

    /// See [`Plain::settle`].
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn settle(&mut self) -> io::Result<()> {
        self.socket.settle()
    }

    /// Whatever is still on its way is given up when the connection is closed, and the peer hears of a reset (socket(7),
    /// `SO_LINGER`): it must not come to one who is not to have it any more.
    pub fn reset(&mut self) {
        let outcome = match self.socket.plain_mut() {
            Some(Plain::Tcp(stream)) => socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)),
            _ => Ok(()),
        };
        drop(outcome);
    }

    /// Bytes that wait for the socket.
    pub fn backlog(&self) -> usize {
        self.out.len() + usize::from(self.unflushed)
    }

    /// Nothing stirred on the socket since it was drained: see [`Plain`]. When this is false the
    /// connection must be closed.
    pub fn is_quiet(&mut self) -> bool {
        self.socket.plain_mut().is_none_or(|plain| plain.is_quiet())
    }

    /// See [`Socket::poll_read`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_read(cx, into)
    }

    /// Sends `bytes` behind all that was sent before. What the socket does not take at once waits:
    /// if [`Conn::backlog`] is not 0 afterwards, the task of this connection must be woken to
    /// [`Conn::poll_drain`].
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.out.is_empty() && !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !bytes.is_empty() {
            self.out.push(bytes);
        }
        if matches!(self.socket, Socket::Tls(_)) {
            let cx = &mut Context::from_waker(Waker::noop());
            match self.socket.poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => self.unflushed = true,
            }
        }
        Ok(())
    }

    /// Writes the backlog; pending while some is left, with the task registered.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match self.socket.poll_write(cx, self.out.pending()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.out.consume(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self.socket.poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.unflushed = false;
                Poll::Ready(flushed)
            }
            Poll::Pending => {
                self.unflushed = true;
                Poll::Pending
            }
        }
    }
}
