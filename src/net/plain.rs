//! A stream without encryption, on the reactor of its thread or on none.
//! Must never block.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

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
    pub(super) fn is_quiet(&self) -> bool {
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

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
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
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
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
