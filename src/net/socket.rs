//! One connection's socket, whatever it is made of, and the bytes it would not take yet.
//! Must never block, and must never wake anybody: the caller knows who flushes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use crate::base::outbuf::OutBuf;

/// A plain stream, on the way from one thread's reactor to another's if need be.
///
/// One that is registered nowhere can be read and written all the same. Only when that would block it
/// goes onto the reactor of its thread: a connection whose login needs no waiting is never registered
/// with the thread that does it.
#[derive(Debug)]
pub enum Plain {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// TCP, registered nowhere.
    LooseTcp(std::net::TcpStream),
    /// Unix, registered nowhere.
    LooseUnix(std::os::unix::net::UnixStream),
    /// Nothing: only while the stream changes its form, or after that failed.
    Nothing,
}

impl Plain {
    /// Takes the stream off this thread's reactor, so that it can be sent to another thread.
    ///
    /// # Errors
    /// Whatever the system says; the stream is lost then.
    pub fn loosen(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Tcp(stream) => Self::LooseTcp(stream.into_std()?),
            Self::Unix(stream) => Self::LooseUnix(stream.into_std()?),
            loose => loose,
        };
        Ok(())
    }

    /// Puts the stream on this thread's reactor.
    ///
    /// # Errors
    /// Whatever the system says; the stream is lost then.
    pub fn settle(&mut self) -> io::Result<()> {
        if matches!(self, Self::Tcp(_) | Self::Unix(_)) {
            return Ok(());
        }
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::LooseTcp(stream) => Self::Tcp(TcpStream::from_std(stream)?),
            Self::LooseUnix(stream) => Self::Unix(UnixStream::from_std(stream)?),
            settled => settled,
        };
        Ok(())
    }

    /// Nothing has come in since the last read that found the socket drained, as far as the
    /// reactor has been told. Costs no system call. When false, the readiness is used up: only
    /// for a connection that will then be closed.
    fn is_quiet(&self) -> bool {
        let mut stirred = false;
        let mut peek = || -> io::Result<()> {
            stirred = true;
            Err(io::ErrorKind::WouldBlock.into())
        };
        let _ = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, &mut peek),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, &mut peek),
            _ => peek(),
        };
        !stirred
    }

    /// Says something to whoever will be disconnected, if the socket takes it at once.
    pub fn say(&self, bytes: &[u8]) {
        let _ = self.try_write(bytes);
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, || send(stream, bytes)),
            Self::Unix(stream) => stream.try_io(Interest::WRITABLE, || send(stream, bytes)),
            Self::LooseTcp(stream) => (&*stream).write(bytes),
            Self::LooseUnix(stream) => (&*stream).write(bytes),
            Self::Nothing => Err(not_settled()),
        }
    }

    /// Reads what is there; 0 is the end. A short read costs no second system call: the reactor is told that the socket is
    /// drained.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let read = match self {
                Self::Tcp(stream) => {
                    let stream = &*stream;
                    ready!(stream.poll_read_ready(cx))?;
                    drained(|closure| stream.try_io(Interest::READABLE, closure), stream, into)
                }
                Self::Unix(stream) => {
                    let stream = &*stream;
                    ready!(stream.poll_read_ready(cx))?;
                    drained(|closure| stream.try_io(Interest::READABLE, closure), stream, into)
                }
                Self::LooseTcp(_) | Self::LooseUnix(_) | Self::Nothing => {
                    let mut buf = ReadBuf::new(into);
                    return Pin::new(self).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len());
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Reads from a stream that is registered nowhere; `None` if that would block.
    fn read_loose(&self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let read = match self {
            Self::LooseTcp(stream) => (&*stream).read(buf.initialize_unfilled()),
            Self::LooseUnix(stream) => (&*stream).read(buf.initialize_unfilled()),
            Self::Tcp(_) | Self::Unix(_) | Self::Nothing => return None,
        };
        match read {
            Ok(n) => {
                buf.advance(n);
                Some(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn write_loose(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        match self {
            Self::LooseTcp(_) | Self::LooseUnix(_) => match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                written => Some(written),
            },
            Self::Tcp(_) | Self::Unix(_) | Self::Nothing => None,
        }
    }
}

/// Reads by `io`, which tells the reactor that the socket is drained if what it runs would block: also if less was there than
/// would fit. What came after that was noticed while nothing had been read yet stays noticed.
fn drained(
    io: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    socket: impl AsFd,
    into: &mut [u8],
) -> io::Result<usize> {
    let most = into.len();
    let mut read = Err(io::ErrorKind::WouldBlock.into());
    let outcome = io(&mut || {
        read = receive(&socket, into);
        match read {
            Ok(n) if n == 0 || n == most => Ok(()),
            // Only a word to the reactor.
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    });
    drop(outcome);
    read
}

/// `recv(2)` and `send(2)` without the cancellation points of the C library, which cost a twentieth of what a relayed transaction
/// does.
fn receive(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, into, RecvFlags::empty())?.1)
}

fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?)
}

fn not_settled() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket belongs to no thread")
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(read) = this.read_loose(buf) {
            return Poll::Ready(read);
        }
        this.settle()?;
        match this {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            _ => Poll::Ready(Err(not_settled())),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(written) = this.write_loose(bytes) {
            return Poll::Ready(written);
        }
        this.settle()?;
        match this {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            _ => Poll::Ready(Err(not_settled())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            _ => Poll::Ready(Err(not_settled())),
        }
    }
}

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
