//! psql, drivers, and what the Prometheus community's exporter reads.
//! A tool that is not installed must never pass.

use std::path::{Path, PathBuf};

use crate::common::Client;
use crate::{conf, show};
use integration::Pgweir;

fn psql(pgweir: &Pgweir, arguments: &[&str], input: &str) -> (String, String) {
    let mut psql = integration::command("timeout").unwrap();
    psql.args(["--kill-after=5", "60", "psql", "-X", "-h", "127.0.0.1", "-p", &pgweir.port().to_string()]);
    psql.args(["-U", "root", "-d", "pgbouncer"]).args(arguments);
    let file = integration::Run::current().unwrap().folder("psql").unwrap().join("input.sql");
    std::fs::write(&file, input).unwrap();
    psql.arg("-f").arg(&file);
    let done = psql.output().unwrap();
    (String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn psql_shows_watches_and_binds() {
    let pgweir = conf().start();
    let (said, complained) = psql(&pgweir, &["-Atq"], "SHOW STATE WHERE key = 'active';\n\\x\nSHOW STATE LIMIT 1;\n");
    assert_eq!(said, "active|yes\nkey|active\nvalue|yes\n", "{complained}");
    // It watches until it is stopped.
    let mut watch = integration::command("timeout").unwrap();
    let file = integration::Run::current().unwrap().folder("psql").unwrap().join("watch.sql");
    std::fs::write(&file, "SHOW STATE LIMIT 1 \\watch 0.2\n").unwrap();
    watch.args(["--signal=INT", "2", "psql", "-XAt", "-h", "127.0.0.1", "-p", &pgweir.port().to_string()]);
    watch.args(["-U", "root", "-d", "pgweir", "-f"]).arg(&file);
    let said = String::from_utf8_lossy(&watch.output().unwrap().stdout).into_owned();
    assert!(said.matches("active|yes").count() >= 3, "{said}");
    let (said, complained) = psql(&pgweir, &["-q"], "SHOW HELP;\n");
    assert!(complained.contains("Console usage") && complained.contains("KILL_CLIENT id"), "{said}{complained}");
    // Its questions for completion, and \d, are errors and not the end.
    let (said, complained) = psql(&pgweir, &["-At"], "\\d\nSELECT pg_catalog.version();\nSHOW VERSION;\n");
    assert!(said.starts_with("PgBouncer 1.25.2 (pgweir "), "{said}{complained}");
    assert!(complained.contains("invalid command, use SHOW HELP"), "{complained}");
}

/// The questions of prometheus-community/pgbouncer_exporter, and the columns that it reads of the answers.
#[test]
fn the_exporter_finds_what_it_reads() {
    let pgweir = conf().start();
    let mut client = Client::connect(pgweir.port());
    client.query("SELECT 1").unwrap();
    // As lib/pq comes.
    let login =
        [("user", "watcher"), ("database", "pgbouncer"), ("extra_float_digits", "2"), ("client_encoding", "UTF8")];
    let mut exporter = Client::connect_with(pgweir.port(), &login);
    let numbers = |client: &mut Client, sql: &str, names: &[&str]| {
        let shown = show(client, sql);
        for name in names {
            let at = shown.columns.iter().position(|(known, _)| known == name);
            let at = at.unwrap_or_else(|| panic!("{sql} has no {name}"));
            for row in &shown.rows {
                assert!(row[at].parse::<f64>().is_ok(), "{sql}: {name} = {:?}", row[at]);
            }
        }
        shown
    };
    let totals = "query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count \
                  server_parse_count bind_count";
    show(&mut exporter, "SHOW STATS");
    numbers(&mut exporter, "SHOW STATS_TOTALS;", &totals.split_ascii_whitespace().collect::<Vec<_>>());
    let pools = "cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled \
                 sv_idle sv_used sv_tested sv_login maxwait";
    numbers(&mut exporter, "SHOW POOLS;", &pools.split_ascii_whitespace().collect::<Vec<_>>());
    let databases = "pool_size reserve_pool_size max_connections current_connections paused disabled";
    numbers(&mut exporter, "SHOW DATABASES;", &databases.split_ascii_whitespace().collect::<Vec<_>>());
    assert_eq!(numbers(&mut exporter, "SHOW LISTS;", &["items"]).columns.len(), 2);
    let config = show(&mut exporter, "SHOW CONFIG;");
    assert_eq!(config.columns.len(), 4);
    for key in ["max_client_conn", "max_user_connections"] {
        assert!(config.value(("key", key), "value").parse::<f64>().is_ok());
    }
    let version = show(&mut exporter, "SHOW VERSION;");
    assert!(version.rows[0][0].starts_with("PgBouncer 1.25.2"));
}

fn driver(pgweir: &Pgweir, interpreter: impl AsRef<Path>, file: &str) -> String {
    let environment = std::env::var_os("PGWEIR_DRIVERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/drivers"), PathBuf::from);
    let interpreter = match interpreter.as_ref() {
        path if path.components().count() > 1 => environment.join(path),
        name => name.to_owned(),
    };
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers").join(file);
    let mut command = integration::command("timeout").unwrap();
    command.args(["--kill-after=5", "60"]).arg(interpreter).arg(program);
    let settings = [
        ("PGHOST", "127.0.0.1".to_owned()),
        ("PGPORT", pgweir.port().to_string()),
        ("PGUSER", "root".to_owned()),
        ("PGDATABASE", "pgweir".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("NODE_PATH", environment.join("node/node_modules").to_string_lossy().into_owned()),
    ];
    let done = command.envs(settings).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{file}: {said}\n{}", String::from_utf8_lossy(&done.stderr));
    said
}

#[test]
fn psycopg_and_node_run_the_extended_protocol() {
    let pgweir = conf().start();
    for (interpreter, file, more) in [("venv/bin/python", "console.py", "exporter\n"), ("node", "console.js", "")] {
        let said = driver(&pgweir, interpreter, file);
        assert_eq!(said, format!("rows\nparameters\nerror\ncommand\n{more}"), "{file}");
    }
}

/// A driver that prepares everything and wants all values in binary.
#[test]
fn tokio_postgres_reads_binary_values() {
    let pgweir = conf().start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let place = format!("host=127.0.0.1 port={} user=root dbname=pgweir", pgweir.port());
        let (client, connection) = tokio_postgres::connect(&place, tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let rows = client.query("SHOW LISTS WHERE list = $1", &[&"used_clients"]).await.unwrap();
        assert_eq!((rows[0].get::<_, &str>("list"), rows[0].get::<_, i32>("items")), ("used_clients", 1));
        let rows = client.query("SHOW DATABASES", &[]).await.unwrap();
        let own = rows.iter().find(|row| row.get::<_, &str>("name") == "app").unwrap();
        assert_eq!(own.get::<_, Option<&str>>("force_user"), None);
        assert_eq!(own.get::<_, i32>("pool_size"), 20);
        assert_eq!(client.execute("RECONNECT", &[]).await.unwrap(), 0);
        let error = client.query("SHOW nonsense", &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42601");
        drop(client);
        connection.await.unwrap().unwrap();
    });
}
