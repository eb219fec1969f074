//! Asking for an answer, and waiting for one that another process is about to put there.
//! Must never wait longer than the answer usually takes and [`MORE_US`] beyond, whatever became of who asks for it.
//!
//! A lookup that finds nothing leaves a lease in its place, in one request (SET with NX and GET), so that of all who ask for the same at one time one
//! finds nothing. That one asks a server, and puts the answer in the place of the lease; the others look there again and again until it is. If no answer comes of it the lease is taken
//! away, and the first who looks has the next; if the process is gone, nobody waits beyond the bound, and the lease goes by itself. What takes a server
//! less than [`FAST_US`] is asked without: waiting for another would take longer. Where an answer stands that does not count any more the lease takes its place, unless that is another by then.
//!
//! A Redis that has no room for a lease, or does not know how to leave one, is asked for the answer alone.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::{sleep, timeout};

use super::link::{self, Link};
use super::seal::{self, Bad, Lease, SEAL, SEAL_BYTES, Sealed};
use super::time::Skew;
use super::{ASIDE_BYTES, Found, Place, Remote};
use crate::base::clock::now_us;
use crate::meter::RemoteMiss;

/// What takes a server less is asked without a lease, microseconds.
pub const FAST_US: u64 = 1_000;
/// How much longer than it usually takes an answer is waited for, microseconds.
const MORE_US: u64 = 5_000;
/// The longest that anything is taken to take usually, microseconds.
const LONGEST_US: u64 = 10_000_000;
/// Between two looks for it: a part of what it usually takes, but no less and no more than this.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

impl Remote {
    /// The answer under a key, of at most `longest` bytes, which usually takes a server so long, microseconds, or nobody knows how long. Takes no longer than the timeout, what opening
    /// a long one takes, and what is said at the head of this file. One that `is_void` is none.
    pub async fn look(
        &self,
        key: &[u8],
        longest: usize,
        usual_us: Option<u64>,
        is_void: impl Fn(&Found) -> bool,
    ) -> Option<Found> {
        let _place = Place::take(&self.lookups, self.config.max_lookups)?;
        let sent_us = now_us();
        let outcome = self.fetch(key, longest, usual_us, is_void).await;
        self.counters.lookup_us.add(now_us().saturating_sub(sent_us));
        match outcome {
            Ok(found) => {
                self.counters.hits.add(1);
                Some(found)
            }
            Err(why) => {
                self.counters.miss(why).add(1);
                None
            }
        }
    }

    async fn fetch(
        &self,
        key: &[u8],
        longest: usize,
        usual_us: Option<u64>,
        is_void: impl Fn(&Found) -> bool,
    ) -> Result<Found, RemoteMiss> {
        let name = self.keys.name(&self.config.prefix, key);
        let is_slow = usual_us.is_none_or(|usual_us| usual_us >= FAST_US);
        let usual_us = usual_us.unwrap_or(0).min(LONGEST_US);
        let lease = (is_slow && self.leases.get()).then(|| self.keys.lease(key, Lease { whose: self.whose, usual_us }));
        // As long as it may be on its way.
        let for_ms = (2 * usual_us + 20 * MORE_US) / 1000;
        // What stands there and does not count, by its seal.
        let (mut until_us, mut void): (_, Option<[u8; SEAL_BYTES]>) = (None, None);
        loop {
            let (mut link, skew) = self.link().ok_or(RemoteMiss::Down)?;
            let asks = self.ask(&mut link, &name, lease.as_deref().map(|lease| (lease, for_ms)), void.as_ref());
            let value = match timeout(self.config.timeout, asks).await {
                Err(_) => {
                    self.failed("it does not answer in time");
                    return Err(RemoteMiss::Timeout);
                }
                Ok(Err(error)) => {
                    self.refused(&link, &error);
                    return Err(RemoteMiss::Error);
                }
                Ok(Ok(value)) => value.ok_or(if void.is_some() { RemoteMiss::Void } else { RemoteMiss::Absent }),
            };
            self.worked();
            let value = value?;
            let Some(lease) = self.keys.read_lease(key, &value) else {
                let seal = seal::of(&value);
                let found = self.opened(key, value, longest, skew).await?;
                if !is_void(&found) {
                    return Ok(found);
                }
                // Once: another that does not count either is left to whoever has put it there.
                if lease.is_none() || !self.leases.get() || void.is_some() || seal.is_none() {
                    return Err(RemoteMiss::Void);
                }
                void = seal;
                continue;
            };
            if lease.whose == self.whose {
                // Nothing came of what was asked here.
                return Err(RemoteMiss::Absent);
            }
            let now_us = now_us();
            let until_us = *until_us.get_or_insert(now_us + lease.usual_us.min(LONGEST_US) + MORE_US);
            if now_us >= until_us {
                return Err(RemoteMiss::Waited);
            }
            let pause = Duration::from_micros(lease.usual_us / 16).clamp(PAUSE.0, PAUSE.1);
            sleep(pause.min(Duration::from_micros(until_us - now_us))).await;
        }
    }

    /// What stands under a name, a lease from now on if that is nothing, or what was seen to be void.
    async fn ask(
        &self,
        link: &mut Link,
        name: &str,
        lease: Option<(&[u8], u64)>,
        void: Option<&[u8; SEAL_BYTES]>,
    ) -> RedisResult<Option<Vec<u8>>> {
        let Some((lease, for_ms)) = lease.filter(|_| self.leases.get()) else { return link.get(name).await };
        let outcome = match void {
            Some(void) => link.replace(name, (SEAL, void), lease, for_ms).await,
            None => link.get_or_set(name, lease, for_ms).await,
        };
        match outcome {
            Err(error) if link::is_full(&error) => link.get(name).await,
            Err(error) if void.is_some() && link::is_not_understood(&error) => link.get(name).await,
            Err(error) if link::is_not_understood(&error) => {
                self.tell(&format!(
                    "what several processes ask at one time each asks by itself, for that Redis refuses: {error}"
                ));
                self.leases.set(false);
                link.get(name).await
            }
            outcome => outcome,
        }
    }

    async fn opened(&self, key: &[u8], value: Vec<u8>, longest: usize, skew: Skew) -> Result<Found, RemoteMiss> {
        let opened = if value.len() < ASIDE_BYTES {
            self.keys.open(key, &value, longest)
        } else {
            let (keys, key) = (Arc::clone(&self.keys), Box::<[u8]>::from(key));
            let aside = tokio::task::spawn_blocking(move || keys.open(&key, &value, longest));
            aside.await.unwrap_or(Err(Bad::Malformed))
        };
        let Sealed { answer, began_us, source, ttl_us, hold } = opened.map_err(|bad| self.bad(bad))?;
        if began_us < self.board.floor_us() {
            return Err(RemoteMiss::Void);
        }
        let began_us = skew.local_us(began_us);
        // What began before our clock did has so much less time from its beginning on; nobody here can have written before that.
        let ttl_us = ttl_us.min(self.config.max_ttl.as_micros() as u64).saturating_sub(began_us.min(0).unsigned_abs());
        let began_us = u64::try_from(began_us).unwrap_or(0);
        if now_us().saturating_sub(began_us) >= ttl_us {
            return Err(RemoteMiss::Expired);
        }
        Ok(Found { answer, began_us, ttl_us, source, hold })
    }

    /// What stands in Redis is not what pgweir has put there.
    fn bad(&self, bad: Bad) -> RemoteMiss {
        let (why, says) = match bad {
            Bad::Malformed => (RemoteMiss::Malformed, "it is no answer of this version"),
            Bad::Forged => (RemoteMiss::Forged, "its seal is broken, or was made with another secret"),
            Bad::Long => return RemoteMiss::Long,
        };
        self.tell(&format!("an answer in Redis is not used: {says}"));
        why
    }

    /// Nothing comes of what was asked under this key: if others wait for it they wait no longer.
    pub async fn give_up(&self, key: &[u8]) {
        let Some((mut link, _)) = self.link().filter(|_| self.leases.get()) else { return };
        let name = self.keys.name(&self.config.prefix, key);
        // Where it fails they wait as long as for one who has gone.
        let _ = timeout(self.config.timeout, link.remove_if(&name, &Lease::front(self.whose))).await;
    }
}
