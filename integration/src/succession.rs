//! Who follows whom, while servers run: promotion's other half.
//! It must never keep data of a server that rejoins: what it wrote alone is not part of the cluster any more.

use std::fs;

use crate::error::{During, Error, Result};
use crate::postgres::{Postgres, Stop};
use crate::process::output;

impl Postgres {
    /// Sets a setting that a reload can change, and waits until sessions have it. With units or quotes as `postgresql.conf` wants
    /// them inside `'…'`.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn configure(&self, name: &str, value: &str) -> Result<()> {
        let before = self.value_in("postgres", "SELECT pg_conf_load_time()")?;
        self.query(&format!("ALTER SYSTEM SET {name} = '{}'", value.replace('\'', "''")))?;
        self.query("SELECT pg_reload_conf()")?;
        self.wait_true(&format!("SELECT pg_conf_load_time() > '{before}'"))
    }

    /// How long a standby waits before it replays a commit, counted from the primary's clock at that commit; 0 is not at all.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn delay_replay(&self, milliseconds: u32) -> Result<()> {
        self.configure("recovery_min_apply_delay", &format!("{milliseconds}ms"))
    }

    /// Stops replay on a standby, which goes on to receive; what it has replayed stays readable.
    ///
    /// # Errors
    /// When it is no standby.
    pub fn pause_replay(&self) -> Result<()> {
        self.query("SELECT pg_wal_replay_pause()")?;
        self.wait_true("SELECT pg_get_wal_replay_pause_state() = 'paused'")
    }

    /// Ends [`Postgres::pause_replay`].
    ///
    /// # Errors
    /// When it is no standby.
    pub fn resume_replay(&self) -> Result<()> {
        self.query("SELECT pg_wal_replay_resume()").map(|_| ())
    }

    /// A running standby follows another server from now on, which may be a standby itself.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn follow(&self, source: &Postgres) -> Result<()> {
        self.configure("primary_conninfo", &self.conninfo(source))
    }

    /// A running standby follows nobody any more, and has received the last it will.
    ///
    /// # Errors
    /// When it is still connected after a minute.
    pub fn follow_nobody(&self) -> Result<()> {
        self.configure("primary_conninfo", "")?;
        self.wait_true("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
    }

    /// How much a standby has received, as a position in bytes.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn received(&self) -> Result<u64> {
        let sql = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn";
        let text = self.value_in("postgres", sql)?;
        text.parse().map_err(|_| Error::new(format!("{}: no position: {text}", self.name())))
    }

    /// Stops the server, whatever it was, throws its data away and makes it a standby of `source` with a fresh copy; waits until it
    /// streams. `pg_rewind` would need `full_page_writes` and `wal_log_hints`, which servers of tests do without.
    ///
    /// # Errors
    /// When the copy fails or it does not stream within a minute.
    pub fn rejoin(&self, source: &Postgres) -> Result<()> {
        self.stop(Stop::Immediate)?;
        let data = self.data();
        fs::remove_dir_all(&data).during(|| format!("remove {}", data.display()))?;
        let mut copy = self.program("pg_basebackup")?;
        copy.args(["-d", &source.admin_dsn("postgres"), "-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(&data);
        output(&mut copy, "copy the primary")?;
        // Who the source followed, and how slowly, is not for this server.
        self.write("postgresql.auto.conf", &format!("primary_conninfo = '{}'\n", self.conninfo(source)))?;
        self.write("standby.signal", "")?;
        self.start()?;
        self.wait_true("SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')")
    }

    pub(crate) fn conninfo(&self, source: &Postgres) -> String {
        let (host, port) = (source.socket_folder().display(), source.port());
        format!("host={host} port={port} user=postgres application_name={}", self.name())
    }
}
