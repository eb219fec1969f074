//! A free loopback port, reserved for as long as the value lives.
//! It must never hand out a port twice at a time, not even to two test processes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Ports below this are left to well-known services.
const LOWEST: u16 = 10_240;
/// How many candidates are looked at before giving up.
const ATTEMPTS: u32 = 2_000;

/// A loopback TCP port nobody listens on when it is reserved.
///
/// Binding to port 0 and closing again gives a port of the ephemeral range, which any outgoing connection of a parallel test can
/// take before the server binds it (and again at every restart). So ports come from below that range, and a listening abstract
/// unix socket named after the port is the reservation: visible to every process, gone with the process that held it.
///
/// Clones are the same port: for processes that share one.
#[derive(Debug, Clone)]
pub struct Port {
    number: u16,
    _reservation: Arc<UnixListener>,
}

impl Port {
    /// Reserves a port.
    ///
    /// # Errors
    /// When no free port was found in a few thousand attempts.
    pub fn reserve() -> Result<Self> {
        let (low, high) = range();
        let mut draw = RandomState::new().build_hasher().finish();
        for _ in 0..ATTEMPTS {
            // The constants of Knuth's MMIX generator; any mixing would do.
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = low + ((draw >> 33) % u64::from(high - low)) as u16;
            if let Some(port) = Self::try_reserve(number) {
                return Ok(port);
            }
        }
        Err(Error::new(format!("no free loopback port between {low} and {high}")))
    }

    /// Reserves a port that nobody listens on at the first so many loopback addresses.
    ///
    /// # Errors
    /// As [`Port::reserve`].
    pub fn reserve_on(addresses: u8) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let port = Self::reserve()?;
            let is_free = |last: u8| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port.number())).is_ok();
            if (1..=addresses).all(is_free) {
                return Ok(port);
            }
        }
        Err(Error::new(format!("no port is free on {addresses} addresses")))
    }

    /// Reserves this very port when it is free, else any other.
    ///
    /// # Errors
    /// As [`Port::reserve`].
    pub fn reserve_near(number: u16) -> Result<Self> {
        Self::try_reserve(number).map_or_else(Self::reserve, Ok)
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("pgweir-integration-port-{number}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _reservation: Arc::new(reservation) })
    }
}

/// The ports to draw from: below the kernel's ephemeral range when that leaves room.
fn range() -> (u16, u16) {
    let first_ephemeral = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next().and_then(|low| low.parse::<u16>().ok()))
        .unwrap_or(32_768);
    if first_ephemeral > LOWEST + 4_096 { (LOWEST, first_ephemeral) } else { (LOWEST, 60_000) }
}
