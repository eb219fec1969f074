//! The task that holds the connection of a group's listener.
//! Must never hold the relay across an await, nor take part in any client's turn.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::task::{Shared, guarded, run_todo};
use super::{GroupId, Relay};
use crate::pool::budget::Stake;
use crate::server::open::OpenError;
use crate::server::stream::Stream;
use crate::wire::error::ServerError;
use crate::wire::{build, tag};

/// How long the connection stays open while nobody listens, and an answer may take before it counts as lost.
const LINGER: Duration = Duration::from_secs(10);
/// The first pause after a failure; each one more doubles it, up to `server_login_retry`.
const PAUSE: Duration = Duration::from_millis(50);

/// Holds the connection as long as anybody of the group listens.
pub(super) async fn run(relay: Shared, group: GroupId) {
    let mut pause = PAUSE;
    loop {
        let begun = Instant::now();
        let outcome = if relay.borrow_mut().take_place(group) {
            let outcome = hold(&relay, group).await;
            relay.borrow_mut().give_place(group);
            outcome
        } else {
            Err(OpenError::Login("max_db_connections or max_user_connections leaves no connection for it".into()))
        };
        guarded(&relay, |relay| relay.listener_lost(group));
        run_todo(&relay, None);
        match outcome {
            Ok(()) => {
                if relay.borrow_mut().close_listener(group) {
                    return;
                }
                pause = PAUSE;
            }
            Err(error) => {
                let dial = relay.borrow().listener_dial(group);
                tracing::warn!(server = %dial.endpoint, user = %dial.user, "the connection that listens for clients: {error}");
                if begun.elapsed() > LINGER {
                    pause = PAUSE;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(relay.borrow().longest_pause());
                if relay.borrow_mut().close_listener(group) {
                    return;
                }
            }
        }
    }
}

/// One life of the connection; ends well when nobody needs it.
async fn hold(relay: &Shared, group: GroupId) -> Result<(), OpenError> {
    let dial = relay.borrow().listener_dial(group);
    let opened = dial.open().await?;
    let mut stream = Stream::new(opened.socket);
    let Some((wake, marker)) = relay.borrow_mut().listener_words(group) else { return Ok(()) };
    // It is idle by nature.
    ask(&mut stream, b"SET idle_session_timeout = 0").await?;
    if let Some(error) = ask(&mut stream, format!("LISTEN \"{marker}\"").as_bytes()).await? {
        return Err(OpenError::Refused(error));
    }
    guarded(relay, |relay| relay.listener_up(group));
    run_todo(relay, None);
    let mut round_since: Option<Instant> = None;
    let mut idle_since = Instant::now();
    loop {
        let round = if round_since.is_none() { relay.borrow_mut().next_round(group) } else { None };
        if let Some(sql) = round {
            let mut query = Vec::new();
            build::query(&mut query, &sql);
            stream.send(&query).await?;
            round_since = Some(Instant::now());
        }
        tokio::select! {
            message = stream.next() => {
                let message = message?;
                match message.tag {
                    tag::server::NOTIFICATION => drop(guarded(relay, |relay| relay.heard(group, &message.body))),
                    tag::server::READY => {
                        round_since = None;
                        guarded(relay, |relay| relay.round_done(group));
                    }
                    tag::server::ERROR => return Err(OpenError::Refused(ServerError::parse(&message.body))),
                    _ => {}
                }
                run_todo(relay, None);
            }
            () = wake.notified() => {}
            () = tokio::time::sleep(LINGER / 10) => {}
        }
        if round_since.is_some_and(|since| since.elapsed() > LINGER) {
            return Err(OpenError::Timeout(LINGER));
        }
        if !relay.borrow().is_listener_idle(group) {
            relay.borrow_mut().is_listener_in_the_way(group);
            idle_since = Instant::now();
        } else if idle_since.elapsed() > LINGER || relay.borrow_mut().is_listener_in_the_way(group) {
            let mut bye = Vec::new();
            build::message(&mut bye, tag::client::TERMINATE, |_| {});
            let _ = timeout(LINGER, stream.send(&bye)).await;
            return Ok(());
        }
    }
}

/// Asks before anybody listens; the error if it is refused.
async fn ask(stream: &mut Stream, sql: &[u8]) -> Result<Option<ServerError>, OpenError> {
    let mut query = Vec::new();
    build::query(&mut query, sql);
    stream.send(&query).await?;
    let mut error = None;
    loop {
        let message = timeout(LINGER, stream.next()).await.map_err(|_| OpenError::Timeout(LINGER))??;
        match message.tag {
            tag::server::ERROR => error = Some(ServerError::parse(&message.body)),
            tag::server::READY => return Ok(error),
            _ => {}
        }
    }
}

impl Relay {
    /// Takes a connection outside the pool from the limits that count all.
    fn take_place(&mut self, group: GroupId) -> bool {
        let pool = self.groups[group].primary;
        let placed = super::grow::take(self.shared_stakes(pool), false, true);
        if let Some(listener) = self.groups[group].listener.as_mut() {
            listener.placed = placed;
        }
        placed
    }

    fn give_place(&mut self, group: GroupId) {
        if let Some(listener) = self.groups[group].listener.as_mut() {
            listener.placed = false;
        }
        self.shared_stakes(self.groups[group].primary).for_each(Stake::give);
    }

    fn listener_dial(&self, group: GroupId) -> Rc<crate::server::open::Dial> {
        self.dial(self.groups[group].primary)
    }

    fn longest_pause(&self) -> Duration {
        self.config.pool.server_login_retry.max(PAUSE)
    }

    fn listener_words(&mut self, group: GroupId) -> Option<(Rc<tokio::sync::Notify>, String)> {
        let listener = self.groups.get_mut(group)?.listener.as_ref()?;
        Some((Rc::clone(&listener.wake), listener.marker.clone()))
    }

    fn next_round(&mut self, group: GroupId) -> Option<Vec<u8>> {
        self.groups.get_mut(group)?.listener.as_mut()?.next_round()
    }

    fn is_listener_idle(&self, group: GroupId) -> bool {
        self.groups.get(group).and_then(|group| group.listener.as_ref()).is_none_or(|listener| listener.is_idle())
    }

    fn is_listener_in_the_way(&mut self, group: GroupId) -> bool {
        let listener = self.groups.get_mut(group).and_then(|group| group.listener.as_mut());
        listener.is_some_and(|listener| std::mem::take(&mut listener.in_the_way))
    }

    fn listener_up(&mut self, group: GroupId) {
        self.now_us = crate::base::clock::now_us();
        if let Some(listener) = self.groups.get_mut(group).and_then(|group| group.listener.as_mut()) {
            listener.up = true;
        }
        self.pools[self.groups[group].primary].counters.total_server_opens.add(1);
        self.take_homeless(group);
        self.tell_missed(group);
    }

    fn round_done(&mut self, group: GroupId) {
        self.now_us = crate::base::clock::now_us();
        let listener = self.groups.get_mut(group).and_then(|group| group.listener.as_mut());
        for server in listener.map(|listener| listener.round_done()).unwrap_or_default() {
            self.hand_on(server);
        }
        self.tell_missed(group);
    }

    /// Whoever waited for the connection goes on without.
    fn listener_lost(&mut self, group: GroupId) {
        self.now_us = crate::base::clock::now_us();
        let listener = self.groups.get_mut(group).and_then(|group| group.listener.as_mut());
        if listener.as_ref().is_some_and(|listener| listener.up) {
            self.pools[self.groups[group].primary].counters.total_server_closes.add(1);
        }
        let listener = self.groups.get_mut(group).and_then(|group| group.listener.as_mut());
        for server in listener.map(|listener| listener.lost()).unwrap_or_default() {
            self.hand_on(server);
        }
        for server in self.servers.ids().collect::<Vec<_>>() {
            let this = &self.servers[server];
            if this.handing.is_some() && self.pools[this.pool].group == group {
                self.hand_on(server);
            }
        }
    }

    /// The task ends if nobody needs it.
    fn close_listener(&mut self, group: GroupId) -> bool {
        let Some(this) = self.groups.get_mut(group) else { return true };
        let needed = this.listener.as_ref().is_some_and(|listener| !listener.is_idle());
        if !needed {
            this.listener = None;
            this.asks = this.asks.saturating_sub(1);
        }
        !needed
    }
}
