//! The tasks that wait for sockets and enter the relay.
//! Must never hold the relay across an await.

use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::catalog_read::Source;
use super::plans::Question;
use super::{Aimed, Arrival, Ask, Awaited, ClientId, GroupId, PoolId, Relay, ServerId, Todo, Whom};
use crate::server::cancel;
use crate::server::open::Dial;

/// How long a client that cannot come in may take to read why.
const REFUSE: std::time::Duration = std::time::Duration::from_secs(5);

/// A relay shared by the tasks of its thread.
pub type Shared = Rc<RefCell<Relay>>;

/// Enters the relay from outside a connection's turn: a panic there must not end the worker.
pub fn guarded<T>(relay: &Shared, enter: impl FnOnce(&mut Relay) -> T) -> Option<T> {
    let entered = catch_unwind(AssertUnwindSafe(|| enter(&mut relay.borrow_mut())));
    entered.inspect_err(|_| relay.borrow_mut().panicked(None, None)).ok()
}

/// Takes a client in and starts its task.
pub fn arrive(relay: &Shared, arrival: Arrival) {
    let id = guarded(relay, |relay| relay.arrive(arrival)).flatten();
    run_todo(relay, None);
    if let Some(id) = id {
        spawn_local(client(Rc::clone(relay), id));
    }
}

/// Passes a cancel request on; `done` is told when the key is nobody's, and otherwise dropped when
/// the matter is over.
pub fn cancel(relay: &Shared, whom: Whom, key: &[u8], done: oneshot::Sender<()>) {
    let Some(id) = guarded(relay, |relay| relay.find(whom, key)).flatten() else {
        let _ = done.send(());
        return;
    };
    if guarded(relay, |relay| relay.cancel(id)) == Some(true) {
        run_todo(relay, Some(done));
    }
}

/// Keeps the server of a client that another's statement means, until that is done.
pub fn hold(relay: &Shared, ask: Ask) {
    let Some(aimed) = guarded(relay, |relay| relay.aimed_at(&ask)).flatten() else { return };
    let over = ask.answer(aimed);
    run_todo(relay, None);
    let Aimed::Process(server, _) = aimed else { return };
    let relay = Rc::clone(relay);
    spawn_local(async move {
        let _ = over.await;
        guarded(&relay, |relay| relay.let_go(server));
        run_todo(&relay, None);
    });
}

/// Does what the last turn left to do.
pub fn run_todo(relay: &Shared, mut done: Option<oneshot::Sender<()>>) {
    loop {
        let todo = relay.borrow_mut().take_todo();
        if todo.is_empty() {
            return;
        }
        for item in todo {
            match item {
                Todo::Open(pool) => {
                    spawn_local(open(Rc::clone(relay), pool));
                }
                Todo::OpenOwn(client, group, dial) => {
                    spawn_local(open_own(Rc::clone(relay), client, group, dial));
                }
                Todo::Refuse(mut conn) => {
                    spawn_local(tokio::time::timeout(REFUSE, async move {
                        let _ = poll_fn(|cx| conn.poll_drain(cx)).await;
                    }));
                }
                Todo::Far(far) => {
                    spawn_local(super::remote::run(Rc::clone(relay), far));
                }
                Todo::Explain(question) => {
                    spawn_local(explain(Rc::clone(relay), question));
                }
                Todo::Fence(deed) => {
                    spawn_local(super::fence_run::run(Rc::clone(relay), deed));
                }
                Todo::Understand(source) => {
                    spawn_local(understand(Rc::clone(relay), source));
                }
                Todo::Await(client, awaited) => {
                    spawn_local(answers(Rc::clone(relay), client, awaited));
                }
                Todo::WatchLanes => {
                    spawn_local(super::lane_watch::run(Rc::clone(relay)));
                }
                Todo::Watch(group) => super::watch::start(relay, group),
                Todo::Follow(group) => super::stream::start(relay, group),
                Todo::Hear(group) => super::hear::start(relay, group),
                Todo::Listen(group) => {
                    spawn_local(super::listen_task::run(Rc::clone(relay), group));
                }
                Todo::Cancel(server) => {
                    spawn_local(cancel_on(Rc::clone(relay), server, done.take()));
                }
                Todo::CancelGone(pool, key) => {
                    let dial = relay.borrow().dial(pool);
                    spawn_local(async move {
                        if let Err(error) = cancel::cancel(&dial, &key).await {
                            tracing::debug!("could not cancel the query of a client that left: {error}");
                        }
                    });
                }
            }
        }
    }
}

async fn client(relay: Shared, id: ClientId) {
    poll_fn(|cx| {
        let turn = catch_unwind(AssertUnwindSafe(|| relay.borrow_mut().client_turn(id, cx)));
        let polled = turn.unwrap_or_else(|_| {
            relay.borrow_mut().panicked(Some(id), None);
            Poll::Ready(())
        });
        run_todo(&relay, None);
        polled
    })
    .await;
}

async fn server(relay: Shared, id: ServerId) {
    poll_fn(|cx| {
        let turn = catch_unwind(AssertUnwindSafe(|| relay.borrow_mut().server_turn(id, cx)));
        let polled = turn.unwrap_or_else(|_| {
            relay.borrow_mut().panicked(None, Some(id));
            Poll::Ready(())
        });
        run_todo(&relay, None);
        polled
    })
    .await;
}

async fn open(relay: Shared, pool: PoolId) {
    let dial = relay.borrow().dial(pool);
    let outcome = dial.open().await;
    match outcome {
        Ok(opened) => {
            if let Some(id) = guarded(&relay, |relay| relay.opened(pool, opened)) {
                spawn_local(server(Rc::clone(&relay), id));
            }
        }
        Err(error) => drop(guarded(&relay, |relay| relay.open_failed(pool, &error))),
    }
    run_todo(&relay, None);
}

async fn open_own(relay: Shared, id: ClientId, group: GroupId, dial: Rc<Dial>) {
    let taken = match dial.open().await {
        Ok(opened) => guarded(&relay, |relay| relay.opened_own(id, opened)).flatten(),
        Err(error) => {
            guarded(&relay, |relay| relay.own_failed(id, &dial, &error));
            None
        }
    };
    match taken {
        Some(id) => drop(spawn_local(server(Rc::clone(&relay), id))),
        None => relay.borrow_mut().own_given_up(group),
    }
    run_todo(&relay, None);
}

async fn answers(relay: Shared, client: ClientId, awaited: Awaited) {
    let mut held = Vec::with_capacity(awaited.len());
    for (number, answer) in awaited {
        held.push((number, answer.await.ok()));
    }
    guarded(&relay, |relay| relay.answered_pids(client, held));
    run_todo(&relay, None);
}

/// On a thread of its own: much code takes long to read.
async fn understand(relay: Shared, source: Source) {
    let looked = source.looked();
    let read = tokio::task::spawn_blocking(move || source.read()).await;
    guarded(&relay, |relay| match read {
        Ok(code) => relay.understood(&looked, code),
        Err(_) => relay.code_unknown(looked.catalog),
    });
}

async fn explain(relay: Shared, question: Box<Question>) {
    let answer = question.ask().await;
    guarded(&relay, |relay| relay.explained(&question, answer));
}

async fn cancel_on(relay: Shared, server: ServerId, done: Option<oneshot::Sender<()>>) {
    let target = relay.borrow().cancel_target(server);
    if let Some((dial, key)) = target
        && let Err(error) = cancel::cancel(&dial, &key).await
    {
        tracing::warn!(server = %dial.endpoint, "could not pass a cancel request on: {error}");
    }
    relay.borrow_mut().cancelled(server);
    drop(done);
    run_todo(&relay, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl Fn(Shared, ClientId) -> F) -> usize {
        size_of::<F>()
    }

    /// What a client's task holds, beside tokio's own header: the relay's address and a key.
    #[test]
    fn a_clients_future_is_small() {
        assert!(size(client) <= 64, "{} bytes", size(client));
    }
}
