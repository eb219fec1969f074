//! Reads on replicas that wait for a lock which replay holds are called back, and run on the primary.
//! Must never call back what only takes long, nor what would wait on the primary too.
//!
//! A standby takes the ACCESS EXCLUSIVE locks of the primary's transactions as it replays, and gives them back where it
//! replays their ends. While replay stands still (a conflict with a long query, up to `max_standby_streaming_delay`;
//! `recovery_min_apply_delay`; an operator), readers of such a table would wait for what is long over on the primary.

use super::{ClientId, Relay, ServerId, Todo};
use crate::meter::Role;
use crate::sql::wish::Wish;

/// How long a read runs, and its host is behind, before anybody looks, microseconds.
const PATIENCE_US: u64 = 1_000_000;

impl Relay {
    /// Looks whether what the client has running on this server, for so long by now, is held up.
    pub(super) fn call_back_if_held_up(&mut self, id: ServerId, client: ClientId, works_us: u64) {
        let now_us = self.now_us;
        let Some(this) = self.servers.get(id) else { return };
        let pool = &self.pools[this.pool];
        if works_us < PATIENCE_US || pool.role != Role::Replica || !this.again.may_be_called_back() || this.cancels > 0
        {
            return;
        }
        let group = &self.groups[pool.group];
        let member = group.numbered().find(|(_, known)| *known == this.pool);
        let member = member.and_then(|(number, _)| group.cluster.members.get(number));
        let Some(member) = member.filter(|member| member.lag_us(now_us) >= PATIENCE_US) else { return };
        let stays = self.clients.get(client).is_none_or(|client| client.params.wish == Wish::Standby);
        if stays || !member.is_held_up(this.key.pid, now_us - works_us, now_us) {
            return;
        }
        let Some(this) = self.servers.get_mut(id) else { return };
        this.again.is_called_back();
        this.cancels += 1;
        self.todo.push(Todo::Cancel(id));
    }
}
