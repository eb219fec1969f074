//! PostgreSQL servers under Patroni (PyPI), which makes them, watches them and decides which one is the primary.
//! It must never decide anything of that itself: who shall lead is asked for and waited for.
//!
//! Each node is a Patroni with its server. They agree on a leader among themselves (Patroni's own Raft), so nothing else
//! has to run beside them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::populate;
use crate::error::{During, Error, Result};
use crate::http;
use crate::port::Port;
use crate::postgres::{Postgres, bin};
use crate::process::{Process, tail, tied};
use crate::run::{Run, drivers};

/// Within this time Patroni has made, promoted or repaired whatever it is about to, on a loaded machine too.
const LIMIT: Duration = Duration::from_secs(90);
/// How often Patroni is asked: it is in Python, and others work beside it.
const PAUSE: Duration = Duration::from_millis(200);
/// A leader that says nothing for so long, in seconds, is taken for dead; no less is possible with Patroni.
const TTL_S: u32 = 20;

/// One Patroni and its server.
#[derive(Debug)]
pub struct Node {
    postgres: Postgres,
    api: Port,
    raft: Port,
    process: Mutex<Option<Process>>,
}

impl Node {
    /// Its server, which Patroni starts and stops.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Its name, the server's too.
    pub fn name(&self) -> &str {
        self.postgres.name()
    }

    /// Where its REST API is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api.number())
    }

    /// Kills Patroni alone: its server goes on as it is, with nobody to tell it what has become of the cluster.
    pub fn kill_patroni(&self) {
        drop(self.process().take());
    }

    /// Starts Patroni, which does with its server what it finds to be right.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn start_patroni(&self) -> Result<()> {
        let python = drivers().join("venv/bin/python");
        if !python.exists() {
            return Err(Error::new(format!("{} is missing: run integration/test --setup", python.display())));
        }
        let mut command = tied(python, Run::current()?.account(), "KILL");
        command.args(["-m", "patroni"]).arg(self.config_file()).current_dir(self.postgres.socket_folder());
        *self.process() = Some(Process::start(command, self.name(), &self.log_file())?);
        Ok(())
    }

    /// What Patroni says of it: whether `path` of its API is answered with 200.
    fn is(&self, path: &str) -> bool {
        http::get(self.api.number(), path).is_ok_and(|(status, _)| status == 200)
    }

    /// By itself.
    fn has_ended(&self) -> bool {
        self.process().as_ref().is_some_and(|process| process.ended().is_some())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn config_file(&self) -> PathBuf {
        self.postgres.socket_folder().join("patroni.yml")
    }

    fn log_file(&self) -> PathBuf {
        self.postgres.socket_folder().join("patroni.log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure(&self, partners: &[String]) -> Result<()> {
        let (name, api, raft, port) = (self.name(), self.api.number(), self.raft.number(), self.postgres.port());
        let (folder, bin) = (self.postgres.socket_folder().display(), bin()?);
        let bin = bin.display();
        let text = format!(
            "scope: pgweir
name: {name}
restapi: {{listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{api}'}}
raft: {{data_dir: '{folder}/raft', self_addr: '127.0.0.1:{raft}', partner_addrs: {partners:?}}}
bootstrap:
  dcs:
    ttl: {TTL_S}
    loop_wait: 1
    retry_timeout: 9
    # A leader whose server has crashed is given up at once.
    primary_start_timeout: 0
    # Commits wait for the one standby that may take over.
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {{wal_log_hints: 'on', max_connections: 100, wal_keep_size: 64MB}}
  initdb: [no-sync, no-instructions, wal-segsize: '1', encoding: UTF8, locale: C, auth: trust]
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: {folder}/data
  bin_dir: {bin}
  pgpass: {folder}/pgpass
  authentication: {{superuser: {{username: postgres}}, replication: {{username: postgres}}}}
  basebackup: [no-sync, checkpoint: fast]
  pg_hba: [local all all trust, host all all 127.0.0.0/8 trust, host replication all 127.0.0.0/8 trust]
  parameters:
    unix_socket_directories: {folder}
    shared_buffers: 32MB
    dynamic_shared_memory_type: mmap
    fsync: 'off'
    autovacuum: 'off'
    jit: 'off'
    wal_retrieve_retry_interval: 100ms
    log_statement: all
    log_line_prefix: '%m [%p] %q%u@%d '
    lc_messages: C
    # Where `Postgres::log` looks.
    logging_collector: 'on'
    log_directory: {folder}
    log_filename: log
    log_rotation_age: 0
    log_rotation_size: 0
"
        );
        fs::write(self.config_file(), text).during(|| "write Patroni's configuration".into())?;
        Run::current()?.give(&self.config_file())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_patroni();
        if thread::panicking() {
            eprintln!("--- log of Patroni's {} ---\n{}", self.name(), tail(&self.log()));
        }
        self.postgres.crash();
    }
}

/// Who is what at a moment at which nothing is going on.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Has the lock, and its server is the primary.
    pub leader: &'a Node,
    /// The one standby that every commit waits for: Patroni promotes no other, whatever happens to the leader.
    pub heir: &'a Node,
}

/// A running cluster; stopped and removed when dropped.
#[derive(Debug)]
pub struct Patroni {
    nodes: Vec<Node>,
}

impl Patroni {
    /// So many nodes, one of which leads, with database, role and schema as in a [`Cluster`](crate::Cluster); all are
    /// trusted.
    ///
    /// # Errors
    /// When Patroni is not installed, or there is no such cluster in time.
    pub fn start(nodes: usize, sql: &str) -> Result<Self> {
        let make = |number: usize| {
            let postgres = Postgres::without_data(&bin()?, &format!("node{number}"))?;
            Ok(Node { postgres, api: Port::reserve()?, raft: Port::reserve()?, process: Mutex::new(None) })
        };
        let cluster = Self { nodes: (1..=nodes).map(make).collect::<Result<_>>()? };
        let address = |node: &Node| format!("127.0.0.1:{}", node.raft.number());
        for node in &cluster.nodes {
            let partners = cluster.nodes.iter().filter(|other| other.name() != node.name());
            node.configure(&partners.map(address).collect::<Vec<_>>())?;
            node.start_patroni()?;
        }
        populate(cluster.settled()?.leader.postgres(), &[sql.into()])?;
        Ok(cluster)
    }

    /// All of them.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Waits until one leads, all others stream from it, and one of these is its heir.
    ///
    /// # Errors
    /// When it takes longer than a minute and a half.
    pub fn settled(&self) -> Result<Standing<'_>> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(standing) = self.standing() {
                return Ok(standing);
            }
            if let Some(node) = self.nodes.iter().find(|node| node.has_ended()) {
                return Err(Error::new(format!("Patroni's {} has ended:\n{}", node.name(), tail(&node.log()))));
            }
            if Instant::now() > deadline {
                return Err(Error::new("Patroni's cluster does not settle"));
            }
            thread::sleep(PAUSE);
        }
    }

    fn standing(&self) -> Option<Standing<'_>> {
        let leader = self.nodes.iter().find(|node| node.is("/primary"))?;
        let heir = self.nodes.iter().find(|node| node.is("/sync"))?;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let streaming = leader.postgres.value_in("postgres", sql).ok()?;
        (streaming == (self.nodes.len() - 1).to_string()).then_some(Standing { leader, heir })
    }

    /// Asks the leader to hand over to its heir, and waits for Patroni to say that it has.
    ///
    /// # Errors
    /// When Patroni refuses, or does not.
    pub fn switch_over(&self, standing: Standing<'_>) -> Result<()> {
        let Standing { leader, heir } = standing;
        let names = format!(r#"{{"leader": "{}", "candidate": "{}"}}"#, leader.name(), heir.name());
        match http::post(leader.api.number(), "/switchover", &names)? {
            (200, _) => Ok(()),
            (status, said) => Err(Error::new(format!("Patroni does not switch over: {status} {said}"))),
        }
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        // All of them first: nobody is to repair anything any more.
        self.nodes.iter().for_each(Node::kill_patroni);
    }
}
