//! A TCP link in front of a server that can be cut in every way a network can.
//! It must never lose a byte by itself: what a silent link holds back goes on when it is mended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::error::{During, Result};
use crate::port::Port;

/// Which bytes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From clients to the server.
    Forth,
    /// From the server to its clients.
    Back,
}

/// Both sockets of a connection; closed when the last thread that carries its bytes lets go of them.
#[derive(Debug)]
struct Pair {
    near: TcpStream,
    far: TcpStream,
    /// It is to end with a reset, not in order.
    torn: AtomicBool,
}

impl Pair {
    /// Ends both with a reset as soon as the threads that read them have noticed.
    fn tear(&self) {
        self.torn.store(true, Ordering::Release);
        for socket in [&self.near, &self.far] {
            // A close then discards what is unsent and resets (`SO_LINGER` in socket(7)).
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
            // Wakes who reads, and tells the other side nothing.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    fn is_torn(&self) -> bool {
        self.torn.load(Ordering::Acquire)
    }
}

/// What a link does, each way on its own.
#[derive(Debug, Default)]
struct Weather {
    silent_forth: bool,
    silent_back: bool,
    refusing: bool,
    gone: bool,
    /// Where new connections go, on loopback.
    target: u16,
    open: Vec<Weak<Pair>>,
}

impl Weather {
    fn silent(&self, way: Way) -> bool {
        match way {
            Way::Forth => self.silent_forth,
            Way::Back => self.silent_back,
        }
    }

    fn tear(&mut self) {
        self.open.drain(..).filter_map(|pair| pair.upgrade()).for_each(|pair| pair.tear());
    }
}

#[derive(Debug, Default)]
struct Sky {
    weather: Mutex<Weather>,
    changed: Condvar,
}

impl Sky {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, how: impl FnOnce(&mut Weather)) {
        how(&mut self.weather());
        self.changed.notify_all();
    }

    /// Waits until bytes may go this way; `false` when the connection is to end.
    fn await_passage(&self, way: Way, pair: Option<&Pair>) -> bool {
        let mut weather = self.weather();
        let torn = || pair.is_some_and(Pair::is_torn);
        while weather.silent(way) && !weather.gone && !torn() {
            weather = self.changed.wait(weather).unwrap_or_else(PoisonError::into_inner);
        }
        !weather.gone && !torn()
    }
}

/// A port of its own whose connections are led on to a server; ended with all of them when dropped.
#[derive(Debug)]
pub struct Link {
    port: Port,
    sky: Arc<Sky>,
}

impl Link {
    /// A link to the server on loopback port `target`, which need not run yet.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn to(target: u16) -> Result<Self> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).during(|| "listen for a link".into())?;
        let sky = Arc::new(Sky::default());
        sky.weather().target = target;
        let shared = Arc::clone(&sky);
        thread::spawn(move || accept(&listener, &shared));
        Ok(Self { port, sky })
    }

    /// The port that stands for the server's.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Lets nothing through that way, neither bytes nor the end of a connection, without a word to anybody; new connections are
    /// accepted, as the kernel of a machine that hangs does, and then hear nothing.
    pub fn silence(&self, way: Way) {
        self.sky.change(|weather| match way {
            Way::Forth => weather.silent_forth = true,
            Way::Back => weather.silent_back = true,
        });
    }

    /// [`Link::silence`] both ways: a network partition.
    pub fn drop_all(&self) {
        self.silence(Way::Forth);
        self.silence(Way::Back);
    }

    /// Resets new connections at once; those that are open stay.
    pub fn refuse(&self) {
        self.sky.change(|weather| weather.refusing = true);
    }

    /// Resets every connection that is open, at both ends, also one that is silent.
    pub fn reset(&self) {
        self.sky.change(Weather::tear);
    }

    /// Lets everything through again, first of all what was held back.
    pub fn mend(&self) {
        self.sky.change(|weather| {
            (weather.silent_forth, weather.silent_back, weather.refusing) = (false, false, false);
        });
    }

    /// New connections go to another server.
    pub fn lead_to(&self, target: u16) {
        self.sky.change(|weather| weather.target = target);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.sky.change(|weather| {
            weather.gone = true;
            weather.tear();
        });
        // So that the thread that accepts sees it.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port()));
    }
}

fn accept(listener: &TcpListener, sky: &Arc<Sky>) {
    for near in listener.incoming() {
        if sky.weather().gone {
            return;
        }
        let Ok(near) = near else { continue };
        let sky = Arc::clone(sky);
        // A connection of a silent link waits where nobody else has to.
        thread::spawn(move || serve(near, &sky));
    }
}

/// Connects to the server and carries bytes both ways; a link that is silent towards the server connects when it is mended.
fn serve(near: TcpStream, sky: &Arc<Sky>) {
    let target = || SocketAddr::from((Ipv4Addr::LOCALHOST, sky.weather().target));
    let allowed = !sky.weather().refusing && sky.await_passage(Way::Forth, None);
    let Some(far) = allowed.then(|| TcpStream::connect(target()).ok()).flatten() else {
        // Nobody listens there: what a client would be told by the server's own kernel.
        let _ = set_socket_linger(&near, Some(Duration::ZERO));
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let pair = Arc::new(Pair { near, far, torn: AtomicBool::new(false) });
    sky.change(|weather| {
        weather.open.retain(|pair| pair.strong_count() > 0);
        weather.open.push(Arc::downgrade(&pair));
        if weather.gone {
            weather.tear();
        }
    });
    let (shared, other) = (Arc::clone(sky), Arc::clone(&pair));
    thread::spawn(move || carry(&other, Way::Back, &shared));
    carry(&pair, Way::Forth, sky);
}

/// Carries bytes one way until the connection ends that way, which is carried too.
fn carry(pair: &Pair, way: Way, sky: &Sky) {
    let (mut from, mut to) = if way == Way::Forth { (&pair.near, &pair.far) } else { (&pair.far, &pair.near) };
    let mut chunk = [0; 16_384];
    // What comes while the link is silent stays in the socket, as with a sender that gets no acknowledgement.
    while sky.await_passage(way, Some(pair)) {
        let count = match from.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        // The weather may have changed while nothing came.
        if !sky.await_passage(way, Some(pair)) {
            return;
        }
        let bytes = chunk.get(..count).unwrap_or_default();
        if count == 0 || to.write_all(bytes).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
            return;
        }
    }
}
