//! Writes whose end nobody will tell: of processes that have gone, and on servers that were lost on their way.
//! Must never call one ended that may still be running.
//!
//! Nobody knows which of a server's processes it was, nor needs to: when every transaction has ended that ran some time after that, this one has, too.

use tokio::time::{Instant, timeout};

use super::fence_keep::Keeper;
use super::fence_run::WRITE;
use crate::cache::fence::GRACE;
use crate::cache::remote::fence as redis;
use crate::server::open::OpenError;
use crate::server::talk::Talk;
use crate::sql::code_graph::rows;

/// Writes whose end nobody will tell: of a process that has gone, or on servers that were lost.
pub(super) struct Orphans {
    pub process: u32,
    /// Own ones; of others they are looked up.
    numbers: Vec<u64>,
    since: Instant,
    /// What ran on the primary after that.
    running: Option<String>,
}

impl Orphans {
    /// Since now.
    pub fn of(process: u32, numbers: Vec<u64>) -> Self {
        Self { process, numbers, since: Instant::now(), running: None }
    }

    /// Whether everything has ended that ran on the primary some time after they became orphans.
    pub async fn are_over(&mut self, talk: &mut Talk) -> Result<bool, OpenError> {
        if self.since.elapsed() < GRACE {
            return Ok(false);
        }
        let column = |answer: &[u8]| rows(answer).next().map(|[first, ..]| String::from_utf8_lossy(first).into_owned());
        let running = match self.running.take() {
            Some(running) => running,
            None => {
                let sql = "SELECT string_agg(DISTINCT virtualtransaction, ',') FROM pg_locks \
                    WHERE locktype = 'virtualxid' AND pid <> pg_backend_pid() AND pid IN (SELECT pid FROM pg_stat_activity \
                    WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()))";
                column(&talk.rows(sql).await?).unwrap_or_default()
            }
        };
        let running = self.running.insert(running);
        if running.is_empty() {
            return Ok(true);
        }
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND virtualtransaction = ANY(string_to_array('{running}', ','))"
        );
        Ok(column(&talk.rows(&sql).await?).as_deref() == Some("0"))
    }
}

impl Keeper<'_> {
    /// Ends writes whose end nobody will tell, when it has come.
    pub(super) async fn look_after_orphans(&mut self) -> Result<(), OpenError> {
        let lost = self.fence.take_lost();
        if !lost.is_empty() {
            self.orphans.push(Orphans::of(self.process, lost));
        }
        let Some(session) = self.fence.session() else { return Ok(()) };
        let Some(mut link) = session.link.clone() else { return Ok(()) };
        for mut orphans in std::mem::take(&mut self.orphans) {
            let is_own = orphans.process == self.process;
            if !is_own && orphans.running.is_none() {
                // It may have come only since it was looked who is there.
                if self.present.as_ref().is_none_or(|(_, present)| present.contains(&orphans.process)) {
                    continue;
                }
                let left = timeout(WRITE, redis::left_by(&mut link, &session, orphans.process)).await;
                let Ok(Ok(left)) = left else { continue };
                orphans.numbers = left;
            }
            if !orphans.are_over(&mut self.talk).await? {
                self.orphans.push(orphans);
                continue;
            }
            if is_own {
                self.fence.ended(&orphans.numbers);
            }
            // What fails is found again with the next beat.
            let lowered = redis::lower(&mut link, &session, orphans.process, &orphans.numbers);
            if let Ok(Ok(())) = timeout(WRITE, lowered).await
                && !is_own
            {
                let _ = timeout(WRITE, redis::leave(&mut link, &session, orphans.process)).await;
            }
        }
        Ok(())
    }
}
