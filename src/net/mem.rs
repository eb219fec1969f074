//! A socket in memory, filled and emptied by a test.
//! Must never be reachable in a production build.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// What a test sees of the socket.
#[derive(Debug, Default)]
pub struct Ends {
    /// Bytes the connection will read.
    pub input: VecDeque<u8>,
    /// Bytes the connection wrote.
    pub output: Vec<u8>,
    /// At most so many bytes are handed out per read; 0 is no limit.
    pub read_max: usize,
    /// How many more bytes the socket takes before it would block.
    pub write_room: Option<usize>,
    /// No input comes after what is there.
    pub closed: bool,
}

/// One end of the socket; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Mem(Arc<Mutex<Ends>>);

impl Mem {
    /// Access for the test.
    pub fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_read(&self, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut ends = self.ends();
        if ends.input.is_empty() {
            return if ends.closed { Poll::Ready(Ok(0)) } else { Poll::Pending };
        }
        let limit = if ends.read_max == 0 { usize::MAX } else { ends.read_max };
        let n = ends.input.len().min(into.len()).min(limit);
        for (to, from) in into.iter_mut().zip(ends.input.drain(..n)) {
            *to = from;
        }
        Poll::Ready(Ok(n))
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut ends = self.ends();
        let room = ends.write_room.unwrap_or(usize::MAX);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(room);
        ends.output.extend(bytes.iter().take(n));
        if let Some(room) = &mut ends.write_room {
            *room -= n;
        }
        Ok(n)
    }
}
