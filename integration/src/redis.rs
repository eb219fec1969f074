//! A Redis server in a folder of its own.
//! It must never write to disk.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{During, Result};
use crate::port::Port;
use crate::process::{Process, tied};
use crate::run::Run;

/// A running Redis; stopped and removed when dropped.
#[derive(Debug)]
pub struct Redis {
    folder: PathBuf,
    port: Port,
    process: Process,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// With its output when it does not.
    pub fn start() -> Result<Self> {
        let run = Run::current()?;
        let folder = run.folder("redis")?;
        let port = Port::reserve()?;
        let mut command = tied("redis-server", run.account(), "KILL");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.args(["--port", &port.number().to_string()]).current_dir(&folder);
        let process = Process::start(command, "redis", &folder.join("log"))?;
        process.wait_until(Duration::from_secs(20), || {
            ask(port.number(), "PING").is_ok_and(|answer| answer.starts_with("+PONG"))
        })?;
        Ok(Self { folder, port, process })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Sends an inline command and gives what came back first.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn command(&self, line: &str) -> Result<String> {
        ask(self.port(), line)
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.stop(Signal::TERM);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn ask(port: u16, line: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).during(|| "connect to redis".into())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).during(|| "set a timeout".into())?;
    stream.write_all(format!("{line}\r\n").as_bytes()).during(|| "send to redis".into())?;
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer).during(|| "receive from redis".into())?;
    Ok(String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned())
}
