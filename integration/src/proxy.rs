//! A running pgweir.
//! It must never know the program from the inside: configuration, signals, log and HTTP, as an operator would.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{During, Error, Result};
use crate::http;
use crate::port::Port;
use crate::process::{Process, tied};
use crate::run::Run;

/// pgweir listens within milliseconds; a loaded machine may need longer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running pgweir; killed and removed when dropped.
#[derive(Debug)]
pub struct Pgweir {
    folder: PathBuf,
    port: Port,
    stats_port: Port,
    process: Process,
}

impl Pgweir {
    /// Starts pgweir with this configuration, in which `{port}` and `{stats_port}` are replaced by free ports, and waits until it
    /// listens on both.
    ///
    /// # Errors
    /// With its output when it ends or does not listen.
    pub fn start(config: &str) -> Result<Self> {
        Self::start_on(config, Port::reserve()?, Port::reserve()?)
    }

    /// [`Pgweir::start`] with ports of the caller's choice.
    ///
    /// # Errors
    /// As there.
    pub fn start_on(config: &str, port: Port, stats_port: Port) -> Result<Self> {
        Self::start_after("", config, port, stats_port)
    }

    /// [`Pgweir::start_on`] from a bash that has run `script`, which may set limits, variables and descriptors. The process keeps
    /// the shell's id, `$$`.
    ///
    /// # Errors
    /// As there.
    pub fn start_after(script: &str, config: &str, port: Port, stats_port: Port) -> Result<Self> {
        let folder = Run::current()?.folder("pgweir")?;
        let file = folder.join("pgweir.toml");
        fs::write(&file, filled(config, &port, &stats_port)).during(|| "write the configuration".into())?;
        // It runs as the caller, not as the servers' account, so that the program may lie anywhere.
        let mut command = tied("bash", None, "KILL");
        let script = format!("set -e\n{script}\nexec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(program()?).arg("run").arg("--config").arg(&file).current_dir(&folder);
        let process = Process::start(command, "pgweir", &folder.join("log"))?;
        for number in [port.number(), stats_port.number()] {
            process.wait_until(START_LIMIT, || TcpStream::connect(("127.0.0.1", number)).is_ok())?;
        }
        Ok(Self { folder, port, stats_port, process })
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port of `/metrics`.
    pub fn stats_port(&self) -> u16 {
        self.stats_port.number()
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// The file the configuration was written to.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("pgweir.toml")
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn metrics(&self) -> Result<String> {
        match http::get(self.stats_port(), "/metrics")? {
            (200, body) => Ok(body),
            (status, body) => Err(Error::new(format!("/metrics says {status}: {body}"))),
        }
    }

    /// Status and body of a path on the stats port.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.stats_port(), path)
    }

    /// Writes another configuration (same placeholders) and sends SIGHUP. Whether it was taken is for the caller to observe.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn reload(&self, config: &str) -> Result<()> {
        let text = filled(config, &self.port, &self.stats_port);
        fs::write(self.config_file(), text).during(|| "write the configuration".into())?;
        self.process.signal(Signal::HUP);
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.process.stop(Signal::TERM)
    }
}

impl Drop for Pgweir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of pgweir ---\n{}", crate::process::tail(&self.log()));
        }
        // The log dies with the folder, so a panic inside of pgweir must not pass unseen.
        let log = self.log();
        self.process.signal(Signal::KILL);
        let _ = fs::remove_dir_all(&self.folder);
        if !thread::panicking() {
            assert!(!log.contains("panicked at"), "pgweir panicked:\n{}", crate::process::tail(&log));
        }
    }
}

fn filled(config: &str, port: &Port, stats_port: &Port) -> String {
    let text = config.replace("{port}", &port.number().to_string());
    text.replace("{stats_port}", &stats_port.number().to_string())
}

/// The program under test: `$PGWEIR_BIN`, or the one cargo built beside the running test or demo, or the newest in `target`.
///
/// # Errors
/// When it has not been built.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PGWEIR_BIN") {
        return Ok(path.into());
    }
    // target/PROFILE/deps/test-1234 or target/PROFILE/demo.
    let own = std::env::current_exe().during(|| "find this program".into())?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("pgweir"));
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let built = ["debug", "release"].map(|profile| target.join(profile).join("pgweir"));
    let found = beside.chain(built).find(|path| path.is_file());
    found.ok_or_else(|| Error::new("no pgweir program; build it (cargo build) or set PGWEIR_BIN"))
}
