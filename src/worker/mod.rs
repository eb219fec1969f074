//! Floor 7: a worker thread: one runtime, one relay, one mailbox.
//! Must never share anything with another worker but what the registry counts.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::config::Config;
use crate::meter::Registry;
use crate::pool::place::Place;
use crate::relay::{Arrival, Errand, Relay, Whom, sweep, task};

/// What other threads tell a worker.
pub enum Mail {
    /// A client has logged in.
    Client(Box<Arrival>),
    /// A cancel request.
    Cancel {
        /// The client, from the process id it was told.
        whom: Whom,
        /// The secret it was told.
        key: Vec<u8>,
        /// Told when the key is nobody's; otherwise dropped when the matter is over.
        done: oneshot::Sender<()>,
    },
    /// Something from another worker.
    Errand(Errand),
    /// Shows that the worker runs: it drops this.
    Ping(oneshot::Sender<()>),
    /// From now on by this configuration.
    Reload(Arc<Config>),
    /// Let clients go as they come to rest; dropped when none is left.
    Drain(oneshot::Sender<()>),
    /// Dropped when no client is left.
    Await(oneshot::Sender<()>),
    /// Look, or have something done, for the console.
    Do(Box<dyn FnOnce(&mut Relay) + Send>),
    /// End every session now.
    CutOff,
}

/// Where to send a worker its [`Mail`].
pub type Mailbox = mpsc::UnboundedSender<Mail>;

/// A [`Mailbox`] that does not keep its worker running.
pub type WeakMailbox = mpsc::WeakUnboundedSender<Mail>;

/// Takes a client in on the thread of its worker.
pub type Hand = Box<dyn Fn(Arrival)>;

/// Makes what runs beside a worker on its thread, and ends with it.
pub type Beside = Box<dyn FnOnce(Hand) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Starts a worker that reads `mail`, one of `all`; it ends when all its mailboxes are dropped.
///
/// # Errors
/// The system gave no thread.
pub fn start(
    place: Place,
    mail: mpsc::UnboundedReceiver<Mail>,
    config: Arc<Config>,
    registry: Arc<Registry>,
    beside: Option<Beside>,
    all: Arc<[WeakMailbox]>,
) -> io::Result<JoinHandle<()>> {
    let number = place.worker;
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => {
                let mut relay = Relay::new(place, config, registry);
                relay.reach(Box::new(move |worker, errand| {
                    if let Some(mailbox) = all.get(usize::from(worker)).and_then(WeakMailbox::upgrade) {
                        let _ = mailbox.send(Mail::Errand(errand));
                    }
                }));
                runtime.block_on(work(relay, mail, beside));
            }
            Err(error) => tracing::error!("worker {number} cannot start: {error}"),
        }
    })
}

async fn work(relay: Relay, mut mail: mpsc::UnboundedReceiver<Mail>, beside: Option<Beside>) {
    let bell = relay.bell();
    let relay = Rc::new(RefCell::new(relay));
    let _ = task::guarded(&relay, Relay::warm);
    if let Some(beside) = beside {
        let relay = Rc::clone(&relay);
        tokio::task::spawn_local(beside(Box::new(move |arrival| task::arrive(&relay, arrival))));
    }
    let mut tick = tokio::time::interval(sweep::PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Held until the last client has left.
    let mut _drained: Option<oneshot::Sender<()>> = None;
    loop {
        tokio::select! {
            received = mail.recv() => match received {
                None => return,
                Some(Mail::Client(arrival)) => task::arrive(&relay, *arrival),
                Some(Mail::Cancel { whom, key, done }) => task::cancel(&relay, whom, &key, done),
                Some(Mail::Errand(Errand::Hold(ask))) => task::hold(&relay, ask),
                Some(Mail::Errand(Errand::Landed(landed))) => {
                    let _ = task::guarded(&relay, |relay| relay.landed_abroad(&landed));
                }
                Some(Mail::Errand(Errand::Deadlock(half))) => {
                    let _ = task::guarded(&relay, |relay| relay.looks_for_other(half));
                }
                Some(Mail::Ping(done)) => drop(done),
                Some(Mail::Reload(config)) => drop(task::guarded(&relay, |relay| relay.reconfigure(config))),
                Some(Mail::Drain(done)) => {
                    _drained = Some(done);
                    relay.borrow_mut().drain();
                }
                Some(Mail::Await(done)) => _drained = Some(done),
                Some(Mail::Do(what)) => drop(task::guarded(&relay, |relay| relay.attend(what))),
                Some(Mail::CutOff) => relay.borrow_mut().cut_off(),
            },
            () = bell.notified() => drop(task::guarded(&relay, Relay::share)),
            _ = tick.tick() => drop(task::guarded(&relay, Relay::sweep)),
        }
        task::run_todo(&relay, None);
        if relay.borrow().client_count() == 0 {
            _drained = None;
        }
    }
}
