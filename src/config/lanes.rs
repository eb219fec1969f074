//! Lanes: when fast reads of several clients share a server.
//! Must never say what is fast: that is learned.

use std::mem::take;
use std::time::Duration;

use super::schema::RawPool;

/// What `[pool]` says of lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// There are any. A database or user may say otherwise. Default true.
    pub on: bool,
    /// Most servers of a pool that are lanes at one time, on each worker. Default 100; never 0.
    pub max: u32,
    /// A statement is fast if 99 of 100 take less than this on the server. Default 1 ms; never 0.
    pub fast: Duration,
    /// How long a read may be expected to wait for those before it in a lane. Default 0.5 ms; never 0.
    pub delay: Duration,
    /// Settings in which clients of a lane may differ, folded: their statements then run under those of another.
    /// Default `application_name`.
    pub settings: Vec<String>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            on: true,
            max: 100,
            fast: Duration::from_millis(1),
            delay: Duration::from_micros(500),
            settings: vec!["application_name".to_owned()],
        }
    }
}

impl Lanes {
    pub(super) fn of(raw: &mut RawPool) -> Self {
        let default = Self::default();
        Self {
            on: take(&mut raw.lanes).set().unwrap_or(default.on),
            max: take(&mut raw.max_lanes).set().map_or(default.max, |n| n.0),
            fast: take(&mut raw.lane_fast).set().map_or(default.fast, |timeout| timeout.0),
            delay: take(&mut raw.lane_delay).set().map_or(default.delay, |timeout| timeout.0),
            settings: take(&mut raw.lane_settings)
                .set()
                .map_or(default.settings, |texts| texts.0.iter().map(|(name, _)| name.to_lowercase()).collect()),
        }
    }
}
