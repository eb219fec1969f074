//! Clients that keep a server to themselves: how many, since when, and why.
//! Never counts what ended with its transaction: a pin is what outlives one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::counters::{Counter, Gauge, SharedCounter};
use super::sample::PoolLabel;

macro_rules! constructs {
    ($($(#[$doc:meta])* $name:ident $text:literal $remedy:literal,)*) => {
        /// What keeps a client on its server.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Construct { $($(#[$doc])* $name,)* }

        impl Construct {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in metrics, logs and errors.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What an application can do to need no server of its own.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

constructs! {
    /// A temporary table, view, sequence, function or type.
    TempTable "temp table" "Create it ON COMMIT DROP in the transaction that needs it, or drop it as soon as it is not needed any more.",
    /// LISTEN.
    Listen "LISTEN" "Listen on a connection of its own, and UNLISTEN when done.",
    /// A session-level advisory lock.
    AdvisoryLock "advisory lock" "Use pg_advisory_xact_lock(), which ends with the transaction, or unlock soon.",
    /// A cursor WITH HOLD.
    HeldCursor "held cursor" "Read the cursor inside its transaction, or CLOSE it as soon as it is read.",
    /// PREPARE as a statement.
    Prepare "PREPARE" "Use the prepared statements of the protocol, as drivers do, or DEALLOCATE it.",
    /// LOAD.
    Load "LOAD" "Name the library in session_preload_libraries of the role or database.",
    /// `setseed`.
    Setseed "setseed" "Call setseed() and random() in one statement or transaction, and DISCARD ALL behind it.",
    /// Settings that are not carried from server to server: too many, or not every server would take them.
    Setting "setting" "Set it for the role or database (ALTER ROLE ... SET), or RESET it as soon as it is not needed any more.",
    /// Values of sequences that may be read again.
    Sequence "sequence" "Use INSERT ... RETURNING, or read currval() and lastval() in the transaction that draws the number.",
    /// Code that nobody can see into.
    Hidden "hidden code" "The server could not be asked what a function or DO block has left.",
}

/// How many constructs there are.
const N: usize = Construct::ALL.len();

/// Numbers of one database and user on one worker; readers add up the workers.
#[derive(Debug)]
pub struct PinCounters {
    /// Database and user.
    pub label: PoolLabel,
    /// Clients that keep a server, or whose statement under way may come to: what `max_pinned_servers` limits.
    pub held: Gauge,
    /// Clients refused by `max_pinned_servers`.
    pub refused_limit: Counter,
    /// Statements refused by `session_state = "strict"`.
    pub refused_strict: Counter,
    /// Clients disconnected by `pin_idle_timeout`.
    pub idle_timeouts: Counter,
    /// Age of the oldest pin in µs, 0 without one; set by the worker's sweep.
    pub oldest_us: Gauge,
    clients: [Gauge; N],
    begun: [Counter; N],
}

impl PinCounters {
    /// All zero.
    #[must_use]
    pub fn new(label: PoolLabel) -> Self {
        Self {
            label,
            held: Gauge::default(),
            refused_limit: Counter::new(),
            refused_strict: Counter::new(),
            idle_timeouts: Counter::new(),
            oldest_us: Gauge::default(),
            clients: [const { Gauge::new() }; N],
            begun: [const { Counter::new() }; N],
        }
    }

    /// Clients that this construct keeps on their server.
    #[must_use]
    pub fn clients(&self, why: Construct) -> Option<&Gauge> {
        self.clients.get(why as usize)
    }

    /// How often this construct began to keep a client.
    #[must_use]
    pub fn begun(&self, why: Construct) -> Option<&Counter> {
        self.begun.get(why as usize)
    }
}

/// One client that keeps a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The process id that the client was told.
    pub pid: u32,
    /// Database and user.
    pub label: PoolLabel,
    /// Value of `application_name`, as far as the client has set it.
    pub application_name: Option<Box<str>>,
    /// What keeps it.
    pub why: Construct,
    /// Since when, µs of [`crate::base::clock`].
    pub since_us: u64,
    /// The statement by which it began, normalised: without values.
    pub statement: Arc<str>,
}

/// The clients of one worker that keep a server, as its last sweep found them.
#[derive(Debug, Default)]
pub struct PinBoard {
    rows: ArcSwap<Vec<Pinned>>,
}

impl PinBoard {
    /// Replaces the list; only the owning worker calls this.
    pub fn show(&self, rows: Vec<Pinned>) {
        self.rows.store(Arc::new(rows));
    }

    /// The list.
    #[must_use]
    pub fn rows(&self) -> Arc<Vec<Pinned>> {
        self.rows.load_full()
    }
}

/// Shapes whose last log line is remembered. Two that share a place keep each other quiet for a while: a line too few.
const SHAPES: usize = 1024;
/// At most one line per shape in this time, µs.
const QUIET_US: u64 = 60_000_000;

/// When a shape was last named in the log, for all workers.
#[derive(Debug)]
pub struct PinLog {
    /// µs of the clock, 0: never.
    told_us: Box<[AtomicU64]>,
    /// Lines kept back since the start.
    pub quiet: SharedCounter,
}

impl Default for PinLog {
    fn default() -> Self {
        Self { told_us: (0..SHAPES).map(|_| AtomicU64::new(0)).collect(), quiet: SharedCounter::default() }
    }
}

impl PinLog {
    /// Whether a line about this shape may be written now; if so, none about it may for a minute.
    pub fn may_tell(&self, shape: u64, now_us: u64) -> bool {
        let Some(told_us) = self.told_us.get(shape as usize % SHAPES) else { return false };
        let before = told_us.load(Relaxed);
        let due = before == 0 || now_us.saturating_sub(before) >= QUIET_US;
        let may = due && told_us.compare_exchange(before, now_us.max(1), Relaxed, Relaxed).is_ok();
        if !may {
            self.quiet.add(1);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_told_of_once_a_minute() {
        let log = PinLog::default();
        let (a, b) = (7, 8);
        assert!(log.may_tell(a, 0) && log.may_tell(b, 5));
        assert!(!log.may_tell(a, QUIET_US - 1));
        assert!(!log.may_tell(b, QUIET_US + 4));
        assert!(log.may_tell(a, QUIET_US + 1) && log.may_tell(b, QUIET_US + 5));
        assert!(!log.may_tell(a, QUIET_US + 2));
        assert_eq!(log.quiet.get(), 3);
    }

    #[test]
    fn constructs_are_numbered_in_order() {
        for (number, why) in Construct::ALL.iter().enumerate() {
            assert_eq!(*why as usize, number);
            assert!(!why.name().is_empty() && why.remedy().ends_with('.'));
        }
    }
}
