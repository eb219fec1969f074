//! What only a proxy sees: who holds servers, what ran for each row of something else, which statements end in deadlocks.
//! Must never show a value of a statement's, only its normalised text.

use serde::Serialize;
use utoipa::ToSchema;

use super::advice::ROWS_MAX;
use super::seconds;
use crate::base::clock;
use crate::meter::ShapeSum;
use crate::relay::insight::{Deadlock, Holder, Holds, Repeated};

/// A client that has held a server for long.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerHolder {
    /// `idle_in_transaction`; `transaction`, one that goes on; `session`, one that keeps its server outside of transactions.
    pub(super) reason: &'static str,
    /// The process id that the client was told.
    pub(super) pid: u32,
    pub(super) database: String,
    pub(super) user: String,
    /// Empty if it says none.
    pub(super) application_name: String,
    /// Address and port; null over a unix socket.
    pub(super) client: Option<String>,
    pub(super) host: String,
    /// The transaction has failed.
    pub(super) failed: bool,
    pub(super) held_seconds: f64,
    /// For how long it has said nothing; 0 while a statement runs.
    pub(super) idle_seconds: f64,
    /// Of the statement that ran last, or runs.
    pub(super) shape: String,
    pub(super) query: String,
    /// What the application can do.
    pub(super) hint: &'static str,
}

/// A statement that a client ran once for each row of another's answer (N+1).
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RepeatedStatement {
    pub(super) database: String,
    pub(super) user: String,
    /// The statement that returned the rows.
    pub(super) parent_shape: String,
    pub(super) parent_query: String,
    /// The one that ran for each of them.
    pub(super) shape: String,
    pub(super) query: String,
    /// How often that was seen since the start or the last RESET STATS.
    pub(super) times: u64,
    /// How often the statement ran in all of them.
    pub(super) calls: u64,
    /// What all but one of its runs of each time took; round trips between application and pgweir come on top.
    pub(super) wasted_seconds: f64,
    pub(super) hint: &'static str,
}

/// Two statements that the server found in a deadlock.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadlockPair {
    pub(super) database: String,
    pub(super) user: String,
    pub(super) host: String,
    /// The statement that was ended (40P01).
    pub(super) shape: String,
    pub(super) query: String,
    /// What ran in the session that it waited for; null if that was not one of this process'.
    pub(super) other_shape: Option<String>,
    pub(super) other_query: Option<String>,
    pub(super) times: u64,
    pub(super) last_seconds_ago: f64,
    pub(super) hint: &'static str,
}

pub(super) fn holders(mut all: Vec<Holder>) -> Vec<ServerHolder> {
    all.sort_by_key(|it| (it.why != Holds::IdleInTransaction, std::cmp::Reverse(it.held_us)));
    all.truncate(ROWS_MAX);
    let one = |it: Holder| {
        let (reason, hint) = match it.why {
            Holds::IdleInTransaction => (
                "idle_in_transaction",
                "Commit or roll back before anything else is waited for; idle_transaction_timeout ends who does not.",
            ),
            Holds::Transaction => (
                "transaction",
                "A server serves nobody else meanwhile: make the transaction shorter; transaction_timeout limits it.",
            ),
            Holds::Session => (
                "session",
                "It keeps its server while it does nothing: close what is not needed, or see SHOW PINNED and pool_mode.",
            ),
        };
        ServerHolder {
            reason,
            pid: it.pid,
            database: it.database,
            user: it.user,
            application_name: it.application_name,
            client: it.client.map(|address| address.to_string()),
            host: it.host.to_string(),
            failed: it.failed,
            held_seconds: seconds(it.held_us),
            idle_seconds: seconds(it.idle_us),
            shape: ShapeSum::name(Some(it.shape)),
            query: it.text.to_string(),
            hint,
        }
    };
    all.into_iter().map(one).collect()
}

pub(super) fn repeated(mut all: Vec<Repeated>) -> Vec<RepeatedStatement> {
    all.retain(Repeated::is_certain);
    all.sort_by_key(|it| std::cmp::Reverse(it.wasted_us));
    all.truncate(ROWS_MAX);
    let one = |it: Repeated| RepeatedStatement {
        database: it.database,
        user: it.user,
        parent_shape: ShapeSum::name(Some(it.parent)),
        parent_query: it.parent_text.to_string(),
        shape: ShapeSum::name(Some(it.child)),
        query: it.child_text.to_string(),
        times: it.count,
        calls: it.calls,
        wasted_seconds: seconds(it.wasted_us),
        hint: "Ask for all rows at once: by a join, by = ANY($1), or by what the object mapper calls eager loading.",
    };
    all.into_iter().map(one).collect()
}

pub(super) fn deadlocks(mut all: Vec<Deadlock>) -> Vec<DeadlockPair> {
    all.sort_by_key(|it| std::cmp::Reverse(it.last_us));
    all.truncate(ROWS_MAX);
    let now_us = clock::now_us();
    let one = |it: Deadlock| {
        let (other_shape, other_query) = it.other.map(|(shape, text)| (shape, text.to_string())).unzip();
        DeadlockPair {
            database: it.database,
            user: it.user,
            host: it.host.to_string(),
            shape: ShapeSum::name(Some(it.shape)),
            query: it.text.to_string(),
            other_shape: other_shape.map(|shape| ShapeSum::name(Some(shape))),
            other_query,
            times: it.count,
            last_seconds_ago: seconds(now_us.saturating_sub(it.last_us)),
            hint: "Have transactions lock their rows in the same order; what was ended can be run again.",
        }
    };
    all.into_iter().map(one).collect()
}
