//! A primary with streaming replicas.
//! It must never be shared state between tests: a test starts its own, which takes about a second.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::certs::Certificates;
use crate::error::{During, Error, Result};
use crate::link::Link;
use crate::port::Port;
use crate::postgres::{Postgres, Stop, bin, newer_bin};
use crate::process::{output, tied};
use crate::run::Run;

/// The role every cluster has besides `postgres`.
pub const USER: &str = "app";
/// The password of [`USER`] and of `postgres`.
pub const PASSWORD: &str = "app-secret";
/// The database every cluster has, owned by [`USER`].
pub const DATABASE: &str = "app";

/// Settings of every server: nothing is durable, nothing runs by itself in the background.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 150
shared_buffers = 32MB
dynamic_shared_memory_type = mmap  # leaves nothing in /dev/shm when the server is killed
fsync = off
full_page_writes = off
autovacuum = off
jit = off
wal_level = replica
wal_keep_size = 256MB
max_wal_senders = 10
hot_standby = on
wal_retrieve_retry_interval = 100ms
wal_receiver_status_interval = 1s
log_line_prefix = '%m [%p] %q%u@%d '
lc_messages = C
";

/// How clients other than `postgres` on the unix socket authenticate (`pg_hba.conf`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hba {
    /// Nobody is asked.
    Trust,
    /// Cleartext password.
    Password,
    /// MD5; passwords are stored as MD5 too.
    Md5,
    /// SCRAM-SHA-256.
    Scram,
}

impl Hba {
    fn method(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Scram => "scram-sha-256",
        }
    }
}

/// What a cluster shall be; see [`Cluster::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    newer: bool,
    replicas: usize,
    hba: Hba,
    hba_lines: String,
    tls: bool,
    settings: String,
    sql: Vec<String>,
    one_port: bool,
}

impl Builder {
    /// All servers listen on the same port: the primary on 127.0.0.1, replicas on the addresses behind that.
    #[must_use]
    pub fn one_port(mut self) -> Self {
        self.one_port = true;
        self
    }

    /// Servers of version 18 or newer; see [`newer_bin`].
    #[must_use]
    pub fn newer(mut self) -> Self {
        self.newer = true;
        self
    }

    /// How many streaming replicas; none unless said.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// How clients authenticate; trust unless said.
    #[must_use]
    pub fn auth(mut self, hba: Hba) -> Self {
        self.hba = hba;
        self
    }

    /// A line of `pg_hba.conf` that precedes the rule of [`Builder::auth`].
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba_lines += line;
        self.hba_lines.push('\n');
        self
    }

    /// Whether the servers accept TLS; see [`Cluster::certificates`].
    #[must_use]
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// A setting of every server, with units or quotes as `postgresql.conf` wants them inside `'…'`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        self
    }

    /// SQL to run as superuser in database [`DATABASE`] before the cluster is handed out; replicas have it then.
    #[must_use]
    pub fn sql(mut self, sql: &str) -> Self {
        self.sql.push(sql.into());
        self
    }

    /// Starts everything and waits until each replica streams and has replayed what was set up.
    ///
    /// # Errors
    /// With the log of the server that failed.
    pub fn start(self) -> Result<Cluster> {
        let bin = if self.newer { newer_bin()? } else { bin()? };
        let template = template(&bin)?;
        let certificates = self.tls.then(Certificates::new).transpose()?;
        let mut primary = Postgres::copy_of(&template, &bin, "primary")?;
        if self.one_port {
            primary.listen_on(Ipv4Addr::LOCALHOST, &Port::reserve_on(1 + self.replicas as u8)?);
        }
        self.configure(&primary, certificates.as_ref())?;
        let mut replicas = Vec::new();
        for number in 1..=self.replicas {
            let mut replica = Postgres::copy_of(&template, &bin, &format!("replica{number}"))?;
            if self.one_port {
                replica.listen_on(Ipv4Addr::new(127, 0, 0, 1 + number as u8), primary.reservation());
            }
            self.configure(&replica, certificates.as_ref())?;
            follow(&replica, &primary)?;
            replicas.push(replica);
        }
        let cluster = Cluster { primary, replicas, certificates };
        cluster.nodes().try_for_each(Postgres::launch)?;
        cluster.nodes().try_for_each(Postgres::wait_ready)?;
        populate(&cluster.primary, &self.sql)?;
        cluster.wait_streaming()?;
        cluster.wait_caught_up()?;
        Ok(cluster)
    }

    fn configure(&self, node: &Postgres, certificates: Option<&Certificates>) -> Result<()> {
        let encryption = if self.hba == Hba::Md5 { "md5" } else { "scram-sha-256" };
        let mut settings = format!("{SETTINGS}password_encryption = '{encryption}'\n");
        if let Some(files) = certificates {
            settings += &format!("ssl = on\nssl_cert_file = '{}'\n", files.certificate.display());
            settings += &format!("ssl_key_file = '{}'\nssl_ca_file = '{}'\n", files.key.display(), files.ca.display());
        }
        settings += &self.settings;
        node.append("postgresql.conf", &settings)?;
        let method = self.hba.method();
        let mut rules = String::from("local all postgres trust\nlocal replication postgres trust\n");
        rules += &self.hba_lines;
        rules += &format!(
            "local all all {method}\nhost all all 127.0.0.0/8 {method}\nhost replication all 127.0.0.0/8 {method}\n"
        );
        node.write("pg_hba.conf", &rules)
    }
}

/// What every cluster has besides what a test asks for, and that.
pub(crate) fn populate(primary: &Postgres, sql: &[String]) -> Result<()> {
    let mut admin = primary.admin("postgres")?;
    admin.query(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"))?;
    admin.query(&format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"))?;
    admin.query(&format!("CREATE DATABASE {DATABASE} OWNER {USER}"))?;
    let mut admin = primary.admin(DATABASE)?;
    sql.iter().try_for_each(|sql| admin.query(sql).map(|_| ()))
}

/// A running cluster; stopped and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first, so that the primary does not wait for its replicas.
    replicas: Vec<Postgres>,
    primary: Postgres,
    certificates: Option<Certificates>,
}

impl Cluster {
    /// One primary without replicas, trusting everybody, without TLS, until told otherwise.
    pub fn builder() -> Builder {
        let (hba_lines, settings) = (String::new(), String::new());
        Builder {
            newer: false,
            replicas: 0,
            hba: Hba::Trust,
            hba_lines,
            tls: false,
            settings,
            sql: Vec::new(),
            one_port: false,
        }
    }

    /// The server started as primary.
    pub fn primary(&self) -> &Postgres {
        &self.primary
    }

    /// The servers started as replicas.
    pub fn replicas(&self) -> &[Postgres] {
        &self.replicas
    }

    /// Primary, then replicas.
    pub fn nodes(&self) -> impl Iterator<Item = &Postgres> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// The certificates when TLS is on.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Waits until every replica streams from the primary.
    ///
    /// # Errors
    /// When one does not within a minute.
    pub fn wait_streaming(&self) -> Result<()> {
        let count = self.replicas.len();
        let sql = format!("SELECT count(*) >= {count} FROM pg_stat_replication WHERE state = 'streaming'");
        if count == 0 { Ok(()) } else { self.primary.wait_true(&sql) }
    }

    /// Waits until every replica has replayed what the primary has written by now.
    ///
    /// # Errors
    /// When one does not within a minute.
    pub fn wait_caught_up(&self) -> Result<()> {
        if self.replicas.is_empty() {
            return Ok(());
        }
        // The insert position may lie behind a record that is not written yet; a commit with synchronous_commit writes it.
        let position = self.primary.value_in("postgres", "SELECT pg_current_wal_flush_lsn()")?;
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
        self.replicas.iter().try_for_each(|replica| replica.wait_true(&sql))
    }

    /// The `[databases.NAME]` lines of a pgweir configuration for this cluster: `primary` and `replicas`.
    pub fn config_lines(&self) -> String {
        config_lines(&self.nodes().map(Postgres::address).collect::<Vec<_>>())
    }

    /// A link in front of each server, primary first; see [`config_lines`] and [`host_lines`].
    ///
    /// # Errors
    /// When there are no ports for them.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.nodes().map(|node| Link::to(node.port())).collect()
    }

    /// Stops every server, replicas first. Dropping does it too; this tells whether all ended in order.
    ///
    /// # Errors
    /// When one had to be killed.
    pub fn stop(&self, how: Stop) -> Result<()> {
        self.replicas.iter().chain([&self.primary]).try_for_each(|node| node.stop(how))
    }
}

/// The lines of `[databases.NAME]` for these servers, the first of which is the primary.
pub fn config_lines(addresses: &[String]) -> String {
    let (primary, replicas) = addresses.split_first().map_or(("", addresses), |(first, rest)| (first, rest));
    format!("primary = \"{primary}\"\nreplicas = {replicas:?}\n")
}

/// The line of `[databases.NAME]` for servers whose roles are found by asking.
pub fn host_lines(addresses: &[String]) -> String {
    format!("hosts = {addresses:?}\n")
}

/// Makes a node with the primary's data a streaming replica of it.
fn follow(replica: &Postgres, primary: &Postgres) -> Result<()> {
    replica.append("postgresql.conf", &format!("primary_conninfo = '{}'\n", replica.conninfo(primary)))?;
    replica.write("standby.signal", "")
}

/// A data directory to copy, made by the programs in `bin`: one `initdb` per process and version. A copy of a cleanly stopped primary
/// is all a replica needs to begin.
fn template(bin: &Path) -> Result<PathBuf> {
    static MADE: Mutex<Vec<(PathBuf, Result<PathBuf>)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, template)) = made.iter().find(|(of, _)| of == bin) {
        return template.clone();
    }
    let template = initialize(bin);
    made.push((bin.into(), template.clone()));
    template
}

fn initialize(bin: &Path) -> Result<PathBuf> {
    let run = Run::current()?;
    let data = run.folder("template")?;
    let mut initdb = tied(bin.join("initdb"), run.account(), "KILL");
    initdb.args(["--no-sync", "--no-instructions", "--username=postgres", "--auth=trust"]);
    initdb.args(["--encoding=UTF8", "--locale=C", "-D"]).arg(&data).current_dir(run.root());
    output(&mut initdb, "make the template")?;
    let version = fs::read_to_string(data.join("PG_VERSION")).during(|| "read PG_VERSION".into())?;
    let known = version.trim().parse().is_ok_and(|number: u32| number >= 15);
    if known { Ok(data) } else { Err(Error::new(format!("PostgreSQL {} is too old, 15 is needed", version.trim()))) }
}
