//! The same small program with every driver, through pgweir, with TLS (verified) and SCRAM on both sides.
//! A driver that is not installed must never pass: `integration/test` installs all of them.
//!
//! `DIRECT=1` runs them against PostgreSQL alone, to tell a defect of a program from one of pgweir.
//! `PGWEIR_SESSION_STATE=pgbouncer` takes away what gives each client a session of its own: the applications fail then.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use integration::run::drivers;
use integration::{Certificates, Cluster, DATABASE, Hba, PASSWORD, Pgweir, USER};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Where the programs connect to, and what must live meanwhile.
struct Target {
    port: u16,
    certificates: Certificates,
    _proxy: Option<Pgweir>,
    cluster: Cluster,
}

impl Target {
    fn start(pool_size: u32) -> Self {
        let builder = Cluster::builder().auth(Hba::Scram).tls(true).setting("max_connections", "250");
        let cluster = builder.start().unwrap();
        let certificates = cluster.certificates().unwrap().clone();
        if std::env::var_os("DIRECT").is_some() {
            return Self { port: cluster.primary().port(), certificates, _proxy: None, cluster };
        }
        let proxy = Pgweir::start(&config(&cluster, &certificates, pool_size)).unwrap();
        Self { port: proxy.port(), certificates, _proxy: Some(proxy), cluster }
    }

    /// Runs a program with the connection in libpq's environment variables; it has to report every step.
    fn run(&self, interpreter: impl AsRef<Path>, file: &str, steps: &[&str]) {
        self.run_at(self.port, interpreter, file, steps);
    }

    /// Runs a program on direct connections, then through pgweir in transaction mode with fewer servers than it has
    /// connections, and compares all that it said.
    fn run_twice(&self, interpreter: impl AsRef<Path>, file: &str, steps: &[&str]) {
        let direct = self.run_at(self.cluster.primary().port(), interpreter.as_ref(), file, steps);
        let pooled = self.run_at(self.port, interpreter.as_ref(), file, steps);
        assert_eq!(pooled, direct, "{file}: pooled, direct");
    }

    fn run_at(&self, port: u16, interpreter: impl AsRef<Path>, file: &str, steps: &[&str]) -> String {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers").join(file);
        let mut command = integration::command("timeout").unwrap();
        let limit = if std::env::var_os("PGWEIR_LONG").is_some() { "1800" } else { "240" };
        command.args(["--kill-after=5", limit]).arg(interpreter.as_ref()).arg(program);
        let modules = drivers().join("node/node_modules");
        let settings = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &port.to_string()),
            ("PGUSER", USER),
            ("PGPASSWORD", PASSWORD),
            ("PGDATABASE", DATABASE),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", &self.certificates.ca.to_string_lossy()),
            ("PGCONNECT_TIMEOUT", "30"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("NODE_PATH", &modules.to_string_lossy()),
        ];
        let done = command.envs(settings).output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{file}: {}\n{said}\n{complained}", done.status);
        let reported: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")?.split(' ').next()).collect();
        assert_eq!(reported, steps, "{file}\n{complained}");
        said.into_owned()
    }
}

fn installed(path: &str) -> PathBuf {
    let path = drivers().join(path);
    assert!(path.exists(), "{} is missing: run integration/test --setup", path.display());
    path
}

fn config(cluster: &Cluster, files: &Certificates, pool_size: u32) -> String {
    let (certificate, key, ca) = (files.certificate.display(), files.key.display(), files.ca.display());
    let state = std::env::var("PGWEIR_SESSION_STATE").unwrap_or_else(|_| "transparent".into());
    format!(
        "[listen]\nport = {{port}}\nauth_type = \"scram-sha-256\"\nclient_tls_sslmode = \"require\"\n\
         client_tls_cert_file = \"{certificate}\"\nclient_tls_key_file = \"{key}\"\n\
         [stats]\naddress = \"127.0.0.1:{{stats_port}}\"\n[pool]\ndefault_pool_size = {pool_size}\n\
         server_order = \"rotate\"\nsession_state = \"{state}\"\n\
         [databases.{DATABASE}]\n{}server_tls_sslmode = \"verify-full\"\nserver_tls_ca_file = \"{ca}\"\n\
         [users.{USER}]\npassword = \"{PASSWORD}\"\n",
        cluster.config_lines()
    )
}

const STEPS: [&str; 10] =
    ["connect", "create", "insert", "read", "error", "transaction", "rollback", "copy", "cancel", "large"];

#[test]
fn psql() {
    Target::start(5).run("bash", "psql.sh", &STEPS);
}

#[test]
fn pgbench() {
    let steps = [
        "init",
        "simple",
        "simple-reads",
        "extended",
        "extended-reads",
        "prepared",
        "prepared-reads",
        "reconnect",
        "crowd-simple",
        "crowd-extended",
        "crowd-prepared",
        "crowd-writes",
        "balances",
    ];
    Target::start(5).run("bash", "pgbench.sh", &steps);
}

#[test]
fn psycopg() {
    Target::start(5).run(installed("venv/bin/python"), "with_psycopg.py", &STEPS);
}

#[test]
fn asyncpg() {
    Target::start(5).run(installed("venv/bin/python"), "with_asyncpg.py", &STEPS);
}

#[test]
fn node_postgres() {
    installed("node/node_modules/pg");
    Target::start(5).run("node", "with_node.js", &STEPS);
}

#[test]
fn sqlalchemy() {
    let steps = [
        "create",
        "core",
        "settings",
        "isolation",
        "orm",
        "savepoints",
        "streams",
        "locks",
        "temporary",
        "reflection",
        "drop",
    ];
    Target::start(4).run_twice(installed("venv/bin/python"), "with_sqlalchemy.py", &steps);
}

#[test]
fn django() {
    let steps = ["migrate", "orm", "transactions", "cursors", "locks", "zones", "drop"];
    Target::start(4).run_twice(installed("venv/bin/python"), "with_django.py", &steps);
}

#[test]
fn sequel() {
    let steps = [
        "create",
        "insert",
        "settings",
        "prepared",
        "transactions",
        "cursor",
        "copy",
        "locks",
        "listen",
        "reflection",
        "drop",
    ];
    Target::start(3).run_twice("ruby", "with_sequel.rb", &steps);
}

#[test]
fn tenants() {
    installed("node/node_modules/pg");
    let steps = ["create", "clients", "search_path", "row", "transactions", "totals", "drop"];
    Target::start(3).run_twice("node", "with_tenants.js", &steps);
}

#[test]
fn queue() {
    let steps = ["create", "crash", "transactional", "listen", "told", "done", "drop"];
    Target::start(5).run_twice(installed("venv/bin/python"), "with_queue.py", &steps);
}

#[test]
fn alembic() {
    let steps = ["upgrade", "once", "unlocked", "drop"];
    Target::start(3).run_twice(installed("venv/bin/python"), "with_alembic.py", &steps);
}

#[test]
fn node_pg_migrate() {
    installed("node/node_modules/node-pg-migrate");
    let steps = ["at", "again", "down", "left", "drop"];
    Target::start(3).run_twice("node", "with_migrations.js", &steps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_with_rustls() {
    let target = tokio::task::spawn_blocking(|| Target::start(5)).await.unwrap();
    let program = Program::connect(&target).await;
    program.statements().await;
    let program = program.transactions().await;
    program.copy().await;
    program.cancel(&target).await;
    program.large().await;
    tokio::task::spawn_blocking(move || drop(target)).await.unwrap();
}

/// The program with tokio-postgres.
struct Program {
    client: tokio_postgres::Client,
    tls: MakeRustlsConnect,
}

impl Program {
    async fn connect(target: &Target) -> Self {
        let tls = MakeRustlsConnect::new(client_tls(&target.certificates.ca));
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(target.port).user(USER).password(PASSWORD).dbname(DATABASE);
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let (client, connection) = config.connect(tls.clone()).await.unwrap();
        tokio::spawn(async move { connection.await.unwrap() });
        client.batch_execute("CREATE TABLE rust (id int PRIMARY KEY, name text, data bytea)").await.unwrap();
        Self { client, tls }
    }

    async fn statements(&self) {
        let insert = self.client.prepare("INSERT INTO rust VALUES ($1, $2, $3)").await.unwrap();
        let read = self.client.prepare("SELECT name, data FROM rust WHERE id = $1").await.unwrap();
        for id in 0..20i32 {
            let values = (format!("name {id}"), vec![id as u8, 0, 255]);
            assert_eq!(self.client.execute(&insert, &[&id, &values.0, &values.1]).await.unwrap(), 1);
            let row = self.client.query_one(&read, &[&id]).await.unwrap();
            assert_eq!((row.get::<_, String>(0), row.get::<_, Vec<u8>>(1)), values);
        }
        let again = self.client.execute("INSERT INTO rust VALUES ($1, 'again')", &[&1i32]).await.unwrap_err();
        assert_eq!(again.code(), Some(&SqlState::UNIQUE_VIOLATION));
        // What was prepared before the error still works.
        assert_eq!(self.client.query(&read, &[&7i32]).await.unwrap().len(), 1);
    }

    async fn transactions(mut self) -> Self {
        let transaction = self.client.transaction().await.unwrap();
        transaction.execute("INSERT INTO rust VALUES (100, 'hundred')", &[]).await.unwrap();
        transaction.commit().await.unwrap();
        let transaction = self.client.transaction().await.unwrap();
        transaction.execute("INSERT INTO rust VALUES (101, 'gone')", &[]).await.unwrap();
        transaction.rollback().await.unwrap();
        let rows = self.client.query("SELECT id FROM rust WHERE id >= 100", &[]).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [100]);
        self
    }

    async fn copy(&self) {
        let lines: String = (1000..3000).map(|id| format!("{id}\tcopied {id}\n")).collect();
        let sink = self.client.copy_in("COPY rust (id, name) FROM STDIN").await.unwrap();
        tokio::pin!(sink);
        for piece in lines.as_bytes().chunks(1000) {
            sink.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 2000);
        let sql = "COPY (SELECT id, name FROM rust WHERE id >= 1000 ORDER BY id) TO STDOUT";
        let pieces: Vec<_> = self.client.copy_out(sql).await.unwrap().collect().await;
        let all: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
        assert_eq!(String::from_utf8(all).unwrap(), lines);
    }

    async fn cancel(&self, target: &Target) {
        let (token, tls) = (self.client.cancel_token(), self.tls.clone());
        let mut admin = target.cluster.primary().admin("postgres").unwrap();
        let runs = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'";
        let server = tokio::task::spawn_blocking(move || {
            while admin.query(runs).unwrap().is_empty() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let started = Instant::now();
        let canceller = tokio::spawn(async move {
            server.await.unwrap();
            token.cancel_query(tls).await.unwrap();
        });
        let cancelled = self.client.batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
        assert_eq!(cancelled.code(), Some(&SqlState::QUERY_CANCELED));
        assert!(started.elapsed() < Duration::from_secs(20));
        canceller.await.unwrap();
        assert_eq!(self.client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    }

    async fn large(&self) {
        let large = "x".repeat(20 << 20);
        self.client.execute("INSERT INTO rust VALUES (5000, $1)", &[&large]).await.unwrap();
        let row = self.client.query_one("SELECT name FROM rust WHERE id = 5000", &[]).await.unwrap();
        assert!(row.get::<_, &str>(0) == large);
    }
}

fn client_tls(ca: &Path) -> rustls::ClientConfig {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}
