//! Servers that stop answering without a word: paused, or gone all at once.
//! It must never leave a process that does not run: whoever stops a server resumes it first.

use std::fs;
use std::sync::atomic::Ordering;

use rustix::process::{Pid, Signal, kill_process};

use crate::postgres::Postgres;

impl Postgres {
    /// Stops every process of the server where it is (SIGSTOP), as a machine that hangs: its kernel accepts connections and takes
    /// bytes, and nothing is answered.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Release);
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on where it was; does nothing when it has not been paused.
    pub fn resume(&self) {
        if self.paused.swap(false, Ordering::AcqRel) {
            self.signal_all(Signal::CONT);
        }
    }

    /// Kills every process of the server at once, as a machine that loses its power. [`Postgres::kill`] lets its children end by
    /// themselves.
    pub fn crash(&self) {
        send(&self.family(), Signal::KILL);
        self.kill();
    }

    fn signal_all(&self, signal: Signal) {
        // The postmaster first: then no process is born meanwhile.
        send(self.family().get(..1).unwrap_or_default(), signal);
        send(self.family().get(1..).unwrap_or_default(), signal);
    }

    /// The postmaster, then its children; each is in a process group of its own.
    fn family(&self) -> Vec<Pid> {
        let Some(postmaster) = self.id() else { return Vec::new() };
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let children = numbers.filter(|number| parent(*number) == Some(postmaster));
        let all = std::iter::once(postmaster.cast_signed()).chain(children);
        all.filter_map(Pid::from_raw).collect()
    }
}

/// A process that has ended meanwhile needs no signal.
fn send(family: &[Pid], signal: Signal) {
    for pid in family {
        let _ = kill_process(*pid, signal);
    }
}

/// The parent of a process: the second word behind its name, which is in parentheses (proc(5), `/proc/pid/stat`).
fn parent(process: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()
}
