//! What the gate does when the system has no descriptors left.
//! Must never spin, nor let clients wait in the system's queue for ever.
//!
//! A shortage is first waited out: descriptors come free whenever a client leaves, and accepting is
//! tried again every few milliseconds. If nothing has come free for a second, those who wait are
//! told so one by one, with the descriptor kept spare for that (`reference/defects.md` entry 35).

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// Time between attempts to accept: how late a free descriptor is noticed at most.
const PAUSE: Duration = Duration::from_millis(5);
/// How long clients wait in the queue before they are turned away.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between lines in the log.
const QUIET: Duration = Duration::from_secs(10);

/// The state of accepting on one socket.
pub(super) struct Shortage {
    spare: Option<File>,
    since: Option<Instant>,
    turned_away: u64,
    logged: Option<Instant>,
}

impl Shortage {
    pub(super) fn new() -> Self {
        Self { spare: spare(), since: None, turned_away: 0, logged: None }
    }

    /// Accepting worked.
    pub(super) fn over(&mut self) {
        if self.since.take().is_some() && self.turned_away > 0 {
            tracing::info!("accepting connections again; {} were turned away", self.turned_away);
            self.turned_away = 0;
        }
    }

    /// Accepting failed: waits a moment. True if clients should be turned away then, each after
    /// [`Shortage::spend`].
    pub(super) async fn wait(&mut self, error: &io::Error) -> bool {
        let now = Instant::now();
        if self.logged.is_none_or(|at| now.duration_since(at) > QUIET) {
            tracing::warn!("cannot accept connections for now: {error}");
            self.logged = Some(now);
        }
        let since = *self.since.get_or_insert(now);
        tokio::time::sleep(PAUSE).await;
        let descriptors =
            [Errno::MFILE, Errno::NFILE].iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()));
        descriptors && now.duration_since(since) >= PATIENCE
    }

    /// Gives the spare descriptor up for one connection. False if there is none.
    pub(super) fn spend(&mut self) -> bool {
        self.spare.take().is_some()
    }

    /// Takes a descriptor back; `turned_away`: a connection was closed for it.
    pub(super) fn regain(&mut self, turned_away: bool) {
        self.turned_away += u64::from(turned_away);
        if self.spare.is_none() {
            self.spare = spare();
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}
