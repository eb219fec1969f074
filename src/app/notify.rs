//! Tells the service manager how things stand (sd_notify(3)).
//! Must never fail or delay what it tells about: a manager that does not listen is not told.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The service manager, if it wants to be told anything.
#[derive(Debug, Default)]
pub(super) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// The one named by `NOTIFY_SOCKET`.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match name.to_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        match (address, socket) {
            (Ok(address), Ok(socket)) => Self { to: Some((socket, address)) },
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!("the service manager at NOTIFY_SOCKET cannot be told anything: {error}");
                Self::default()
            }
        }
    }

    /// Clients are served.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is being read again; [`Notify::ready`] must follow.
    pub(super) fn reloading(&self) {
        // Type=notify-reload wants to know which reload this is about.
        let now = clock_gettime(ClockId::Monotonic);
        let now_us = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reading the configuration"));
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=waiting for transactions to end");
    }

    /// Everything still runs.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::debug!("the service manager was not told {state:?}: {error}");
        }
    }
}

/// How often the service manager wants to hear that everything runs; `None` if it does not. Half of
/// its limit, as sd_watchdog_enabled(3) advises.
pub(super) fn watchdog_period() -> Option<Duration> {
    let for_us = match env::var("WATCHDOG_PID") {
        Ok(pid) => pid == std::process::id().to_string(),
        Err(_) => true,
    };
    let limit_us: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (for_us && limit_us > 1).then(|| Duration::from_micros(limit_us / 2))
}
