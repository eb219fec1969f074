//! What a fence is kept with: connections, and whether they are still what is wanted.
//! Must never go on with a primary, or a Redis, that is not the one any more.

use std::sync::Arc;
use std::time::Duration;

use super::{GroupId, Relay};
use crate::cache::Fence;
use crate::config::Redis;
use crate::server::open::Dial;

/// Settings of the connection.
const STARTUP: [(&str, &str); 6] = [
    ("search_path", "pg_catalog"),
    ("client_encoding", "UTF8"),
    ("statement_timeout", "10s"),
    ("idle_session_timeout", "0"),
    ("default_transaction_isolation", "read committed"),
    ("application_name", "pgweir fence"),
];

/// What a task needs.
pub(super) struct Course {
    /// The primary's number in its cluster.
    pub number: usize,
    pub dial: Dial,
    pub redis: Redis,
    /// For answers of the primary.
    pub limit: Duration,
}

impl Relay {
    /// The group is still fenced by this.
    pub(super) fn wants_fence(&self, group: GroupId, fence: &Arc<Fence>) -> bool {
        let group = &self.groups[group];
        !group.retired && group.fence.as_ref().is_some_and(|known| Arc::ptr_eq(known, fence))
    }

    /// Everything is as it was when the task began.
    pub(super) fn keeps_fence(&self, group: GroupId, fence: &Arc<Fence>, course: &Course) -> bool {
        self.wants_fence(group, fence)
            && self.groups[group].cluster.primary() == Some(course.number)
            && self.config.cache.redis.as_ref() == Some(&course.redis)
    }

    /// Where the fence is, if there is a primary.
    pub(super) fn course_of_fence(&self, group: GroupId) -> Option<Course> {
        let this = &self.groups[group];
        let (redis, number) = (self.config.cache.redis.clone()?, this.cluster.primary()?);
        let startup = STARTUP.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let dial = self.pools[*this.members.get(number)?].dial.with_startup(startup.into());
        let limit = self.config.pool.check_timeout.max(Duration::from_secs(1));
        Some(Course { number, dial, redis, limit })
    }
}
