//! Child processes that end with this process, whatever ends it.
//! It must never start a child from a thread that may end earlier than the child should.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{During, Error, Result};
use crate::run::Account;

/// How often a condition is looked at that the kernel gives no event for.
pub(crate) const POLL: Duration = Duration::from_millis(10);
/// A stop that takes longer is turned into a kill.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A command that is signalled when this process dies, run as `account` if one is given.
///
/// `setpriv` (util-linux) sets the signal after it has changed the account: the kernel forgets it when credentials change.
pub(crate) fn tied(program: impl AsRef<Path>, account: Option<Account>, at_death: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", at_death]);
    if let Some(account) = account {
        command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid)).arg("--clear-groups");
    }
    command.arg("--").arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// A command for a test's own use: killed when this process dies, started in the run's directory.
///
/// # Errors
/// When the run cannot begin.
pub fn command(program: impl AsRef<Path>) -> Result<Command> {
    let mut command = tied(program, None, "KILL");
    command.current_dir(crate::run::Run::current()?.root());
    Ok(command)
}

/// Runs a short command to its end and gives its standard output, or what it wrote to standard error.
pub(crate) fn output(command: &mut Command, what: &str) -> Result<String> {
    let done = command.output().during(|| what.to_string())?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    Err(Error::new(format!("cannot {what}: {}: {}", done.status, complaint.trim())))
}

/// A long-lived child with its output in a file; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    pid: Pid,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command`, appending what it prints to `log`.
    pub fn start(mut command: Command, name: &str, log: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).append(true).open(log).during(|| format!("open {}", log.display()))?;
        let copy = file.try_clone().during(|| "duplicate a file".into())?;
        command.stdout(file).stderr(copy);
        let child = spawn(command).during(|| format!("start {name}"))?;
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| Error::new("a child without a process id"))?;
        Ok(Self { name: name.into(), log: log.into(), pid, child: Mutex::new(child) })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Sends a signal; does nothing when it has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // As long as the child has not been waited for, its id cannot have gone to another process.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits until it has ended.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(format!(
                    "{} has not ended within {limit:?}\n{}",
                    self.name,
                    tail(&self.output())
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Sends `signal` and waits for the end, which becomes a kill after twenty seconds.
    pub fn stop(&self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal);
        self.wait(STOP_LIMIT).or_else(|late| {
            self.signal(Signal::KILL);
            self.wait(STOP_LIMIT)?;
            Err(late)
        })
    }

    /// Waits until `ready` says so, and fails at once when the process ends before.
    pub fn wait_until(&self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            if let Some(status) = self.ended() {
                return Err(Error::new(format!(
                    "{} ended while starting: {status}\n{}",
                    self.name,
                    tail(&self.output())
                )));
            }
            if Instant::now() >= deadline {
                return Err(Error::new(format!(
                    "{} is not ready after {limit:?}\n{}",
                    self.name,
                    tail(&self.output())
                )));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.wait(STOP_LIMIT);
    }
}

/// The end of a log, enough to see why something failed.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(60);
    lines.get(from..).unwrap_or_default().join("\n")
}

type Request = (Command, Sender<std::io::Result<Child>>);

/// Starts a child from a thread that lives as long as the process. The kernel sends a parent-death signal when the *thread* that
/// started the child ends, and a test's thread ends long before a cluster shared by several tests should.
fn spawn(command: Command) -> std::io::Result<Child> {
    static STARTER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, outcome) = channel();
    let sent = starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer));
    sent.map_err(|_| std::io::Error::other("the thread that starts children is gone"))?;
    outcome.recv().map_err(|_| std::io::Error::other("the thread that starts children is gone"))?
}
