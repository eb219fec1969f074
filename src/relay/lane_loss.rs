//! What becomes of the riders of a lane whose server is lost.
//! Must never run again what was told in part, nor leave anybody waiting for an answer that does not come.

use super::again::LOSSES;
use super::client::State;
use super::lane::Fate;
use super::{ClientId, Relay, ServerId};
use crate::wire::error::{PgError, SqlState};

impl Relay {
    /// The connection of a lane is gone: everybody is run elsewhere, but for one who was told half an answer.
    pub(super) fn lose_lane(&mut self, server: ServerId, why: &str) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let silently = this.replies.must_end_silently();
        let lane = this.lane.take();
        let (pool, opened_us) = (this.pool, this.opened_us);
        self.pools[pool].lanes.retain(|lane| *lane != server);
        self.lanes.ended(server);
        self.discard(server);
        let Some(mut lane) = lane else { return self.end_riders(server, why) };
        for (place, rider) in lane.riders.drain(..).chain(lane.queue.drain(..)).enumerate() {
            let id = rider.client;
            let Some(client) = self.clients.get_mut(id).filter(|client| client.state == State::Riding(server)) else {
                continue;
            };
            if place == 0 {
                client.losses.add(opened_us, self.now_us);
            }
            if rider.fate == Fate::Told || client.losses.count >= LOSSES {
                let error = PgError::fatal(SqlState::CONNECTION_FAILURE, why.to_owned());
                self.end(id, if silently && rider.fate == Fate::Told { None } else { Some(&error) });
                continue;
            }
            self.pools[pool].counters.lanes.repeats.add(1);
            self.goes_elsewhere_from(id, server, place == 0);
        }
    }

    /// A panic in the middle of answers has left nobody who knows what its riders have been told.
    fn end_riders(&mut self, server: ServerId, why: &str) {
        let rides = |id: &ClientId| self.clients.get(*id).is_some_and(|client| client.state == State::Riding(server));
        let riders: Vec<ClientId> = self.clients.ids().filter(rides).collect();
        let error = PgError::fatal(SqlState::CONNECTION_FAILURE, why.to_owned());
        for id in riders {
            self.end(id, Some(&error));
        }
    }
}
