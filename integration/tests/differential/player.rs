//! Plays a program to one side and records what it says.
//! It must never know which side it is.

use std::path::PathBuf;
use std::time::Duration;

use integration::wire::{Frame, Script};

use crate::common::Client;
use crate::common::client::Ssl;
use crate::program::{Step, Until};

/// Longer than any answer takes, locks held by an earlier session included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where and how to connect.
pub struct Door {
    pub port: u16,
    /// The authority to trust, with TLS.
    pub ca: Option<PathBuf>,
    /// Minor version of the protocol.
    pub minor: u32,
}

/// What was said in a session.
#[derive(Debug, Default)]
pub struct Record {
    /// What came up to the first ReadyForQuery.
    pub login: Vec<Frame>,
    /// What came for each step.
    pub steps: Vec<Vec<Frame>>,
    /// What came behind Terminate.
    pub farewell: Vec<Frame>,
    /// Nothing came for this long where something was to come, in this step.
    pub silent: Option<usize>,
}

/// Plays all steps in one session.
pub fn play(door: &Door, steps: &[Step]) -> Record {
    let mut client = match &door.ca {
        Some(ca) => Client::tls(door.port, ca, Ssl::Asked).unwrap(),
        None => Client::tcp(door.port),
    };
    client.patience(PATIENCE);
    client.startup(door.minor, &[]);
    let mut record = Record { login: client.ready(1), ..Record::default() };
    let mut skipping = false;
    for (at, step) in steps.iter().enumerate() {
        for piece in step.pieces() {
            client.write(&piece);
        }
        let mut heard = Vec::new();
        let silent = !hear(&mut client, step.until(), &mut skipping, &mut heard);
        record.steps.push(heard);
        if silent {
            record.silent = Some(at);
            return record;
        }
    }
    client.send(&Script::new().terminate());
    record.farewell = std::iter::from_fn(|| client.read_in_time().ok().flatten()).collect();
    record
}

/// Reads what belongs to a step; false when something is missing.
fn hear(client: &mut Client, until: Until, skipping: &mut bool, heard: &mut Vec<Frame>) -> bool {
    let mut left = match until {
        Until::Ready(count) => count,
        Until::Replies(_) if *skipping => 0,
        Until::Replies(count) => count,
    };
    while left > 0 {
        let Ok(frame) = client.read_in_time() else { return false };
        // The end of the connection is for the comparison to judge.
        let Some(frame) = frame else { return true };
        let tag = frame.tag;
        heard.push(frame);
        match (until, tag) {
            (Until::Ready(_), b'Z') => left -= 1,
            (Until::Ready(_), _) => {}
            (Until::Replies(_), b'E') => {
                *skipping = true;
                return true;
            }
            (Until::Replies(_), b'D' | b'N' | b'S' | b'A' | b'd' | b'c' | b'H') => {}
            // A statement's description is two messages, of which RowDescription or NoData is the last.
            (Until::Replies(_), b't') => {}
            (Until::Replies(_), _) => left -= 1,
        }
    }
    if matches!(until, Until::Ready(_)) {
        *skipping = false;
    }
    true
}
