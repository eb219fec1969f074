//! The audit log: who ran what, as JSON lines in a file that one task writes.
//! Must never keep a worker waiting, nor lose a line without a word.
//!
//! Workers put lines into a queue of bounded length; one that does not fit, or cannot be written, is counted, and both the log and the
//! audit log itself say how many are missing. The task writes what has gathered, on a thread that may wait for the disk, and ends when it
//! is told to, behind everything that was in the queue.

mod file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use self::file::Log;
pub use self::file::stamp;
use crate::config::Audit;
use crate::meter::AuditNumbers;

/// Lines that wait to be written at most.
const QUEUE: usize = 8192;
/// Lines written at once.
const BATCH: usize = 512;
/// How often the log says that lines were lost, or why.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What the task is to do.
#[derive(Clone, Debug)]
enum Order {
    /// Write there, opening it anew.
    Write(Option<Audit>),
    /// Write what there is, and end.
    End,
}

/// Where lines are handed in.
#[derive(Debug)]
pub struct Desk {
    lines: mpsc::Sender<String>,
    orders: watch::Sender<Order>,
    numbers: Arc<AuditNumbers>,
}

impl Default for Desk {
    /// Nobody writes what is handed in.
    fn default() -> Self {
        Self { lines: mpsc::channel(1).0, orders: watch::Sender::new(Order::End), numbers: Arc::default() }
    }
}

impl Desk {
    /// Hands a line in, without its end; it is counted as lost if there is no room for it.
    pub fn tell(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.numbers.lost.add(1);
        }
    }

    /// The file is opened anew, by what the configuration says now.
    pub fn reopen(&self, config: Option<&Audit>) {
        self.orders.send_replace(Order::Write(config.cloned()));
    }

    /// What has been handed in is written, and then nothing more.
    pub fn end(&self) {
        self.orders.send_replace(Order::End);
    }
}

/// The task that writes.
pub struct Writer {
    lines: mpsc::Receiver<String>,
    orders: watch::Receiver<Order>,
    numbers: Arc<AuditNumbers>,
    log: Option<Log>,
    /// Of the lost ones, those that were told of.
    told: u64,
    said: Option<Instant>,
}

/// Opens the file, if there is to be one.
///
/// # Errors
/// It cannot be written to.
pub fn open(config: Option<&Audit>, numbers: &Arc<AuditNumbers>) -> Result<(Desk, Writer), String> {
    let log = config.map(Log::open).transpose().map_err(|error| failure(config, &error))?;
    let (lines, queue) = mpsc::channel(QUEUE);
    let (orders, heard) = watch::channel(Order::Write(config.cloned()));
    let desk = Desk { lines, orders, numbers: Arc::clone(numbers) };
    let numbers = Arc::clone(numbers);
    Ok((desk, Writer { lines: queue, orders: heard, numbers, log, told: 0, said: None }))
}

/// Whether the file that a configuration names can be written to.
///
/// # Errors
/// Why not.
pub fn probe(config: Option<&Audit>) -> Result<(), String> {
    config.map(Log::open).transpose().map(|_| ()).map_err(|error| failure(config, &error))
}

fn failure(config: Option<&Audit>, error: &std::io::Error) -> String {
    let file = config.map_or_else(PathBuf::new, |config| config.file.clone());
    format!("cannot write the audit log {}: {error}", file.display())
}

impl Writer {
    /// Writes until it is told to end, or nobody is left who might hand something in.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    let order = self.orders.borrow_and_update().clone();
                    // What was handed in under the old configuration belongs into the old file.
                    let ends = changed.is_err() || matches!(order, Order::End);
                    if ends {
                        self.lines.close();
                    }
                    let mut left = if ends { usize::MAX } else { self.lines.len() };
                    while left > 0 && self.lines.recv_many(&mut batch, BATCH.min(left)).await > 0 {
                        left -= batch.len();
                        self.write(&mut batch).await;
                    }
                    match order {
                        Order::Write(config) if !ends => self.reopen(config).await,
                        _ => return self.tell_of_lost(true).await,
                    }
                }
                count = self.lines.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.write(&mut batch).await;
                }
            }
            self.tell_of_lost(false).await;
        }
    }

    async fn reopen(&mut self, config: Option<Audit>) {
        let about = config.clone();
        let opened = spawn_blocking(move || config.as_ref().map(Log::open).transpose()).await;
        match opened {
            Ok(Ok(log)) => self.log = log,
            // Better into the old one than nowhere.
            Ok(Err(error)) => tracing::error!("{}", failure(about.as_ref(), &error)),
            Err(_) => {}
        }
    }

    async fn write(&mut self, batch: &mut Vec<String>) {
        let Some(mut log) = self.log.take() else {
            // It was turned off meanwhile.
            return batch.clear();
        };
        let lines = std::mem::take(batch);
        let count = lines.len() as u64;
        let done = spawn_blocking(move || {
            let written = log.append(&lines);
            (log, written, lines)
        });
        let Ok((log, (written, outcome), lines)) = done.await else {
            self.numbers.lost.add(count);
            return;
        };
        (self.log, *batch) = (Some(log), lines);
        batch.clear();
        self.numbers.entries.add(written);
        if let Err(error) = outcome {
            self.numbers.lost.add(count - written);
            if self.may_say() {
                let file = self.log.as_ref().map(|log| log.path().display().to_string()).unwrap_or_default();
                tracing::error!("cannot write the audit log {file}: {error}");
            }
        }
    }

    /// Whether something is said now: not as often as it happens.
    fn may_say(&mut self) -> bool {
        let may = self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
        if may {
            self.said = Some(Instant::now());
        }
        may
    }

    /// The log, and the audit log itself, say how many lines are missing.
    async fn tell_of_lost(&mut self, at_last: bool) {
        let lost = self.numbers.lost.get();
        if lost == self.told || !(self.may_say() || at_last) {
            return;
        }
        let count = lost - self.told;
        tracing::error!(
            "{count} entries of the audit log are lost: they came faster than they could be written, or could not be"
        );
        let mut line = vec![format!("{{\"time\":\"{}\",\"lost\":{count}}}", stamp(std::time::SystemTime::now()))];
        self.told = lost;
        self.write(&mut line).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_told_of() {
        let folder = std::env::temp_dir().join(format!("pgweir-audit-{}-queue", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = Audit { file: folder.join("audit.log"), ..Audit::default() };
        let numbers = Arc::new(AuditNumbers::default());
        let (desk, writer) = open(Some(&config), &numbers).unwrap();
        (0..QUEUE + 3).for_each(|n| desk.tell(format!("{{\"n\":{n}}}")));
        assert_eq!(numbers.lost.get(), 3);
        desk.end();
        writer.run().await;
        let text = std::fs::read_to_string(&config.file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), QUEUE + 1);
        assert_eq!(lines[QUEUE - 1], format!("{{\"n\":{}}}", QUEUE - 1));
        assert!(lines[QUEUE].ends_with("\"lost\":3}"), "{}", lines[QUEUE]);
        // The line about those is one more.
        assert_eq!(numbers.entries.get(), QUEUE as u64 + 1);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
