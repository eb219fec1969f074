//! Who gets onto the console, and how.
//! It must never let a listed user in who has not proved to be it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::client::said;
use crate::common::{Client, Conf, eventually};
use crate::{cluster, command, conf, console_as, show};
use integration::wire::Wire;
use integration::{Pgweir, USER};

fn refused(pgweir: &Pgweir, parameters: &[(&str, &str)]) -> String {
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, parameters);
    said(&client.welcome().expect_err("it was let in"))
}

#[test]
fn who_is_listed_and_nobody_else() {
    let pgweir = conf().start();
    for database in ["pgweir", "pgbouncer"] {
        let mut admin = console_as(&pgweir, "root", database);
        assert_eq!(command(&mut admin, "RECONNECT").unwrap(), "RECONNECT");
        let mut watcher = console_as(&pgweir, "watcher", database);
        assert_eq!(show(&mut watcher, "SHOW VERSION").rows.len(), 1);
        let error = command(&mut watcher, "RECONNECT").unwrap_err();
        assert_eq!(error, "42501 admin access needed");
        let error = refused(&pgweir, &[("user", USER), ("database", database)]);
        assert_eq!(error, format!("42501 pgweir: user \"{USER}\" may not use the console"));
    }
    let error = refused(&pgweir, &[("user", "root"), ("database", "pgweir"), ("replication", "database")]);
    assert!(error.starts_with("0A000"), "{error}");
}

#[test]
fn without_lists_nobody() {
    let pgweir = Conf::trust(cluster()).start();
    assert!(refused(&pgweir, &[("database", "pgweir")]).starts_with("42501"));
}

/// By password, as everywhere; whoever has the wrong one does not learn who is listed.
#[test]
fn by_the_same_passwords_as_everybody() {
    let conf = Conf::database_only(&cluster().config_lines());
    let conf = conf.user("root", "password = \"right\"").user(USER, "password = \"other\"");
    let pgweir = conf.rest("[console]\nadmin_users = [\"root\"]\n").start();
    let psql = |user: &str, password: &str| {
        let mut psql = integration::command("psql").unwrap();
        psql.args(["-XAtq", "-h", "127.0.0.1", "-p", &pgweir.port().to_string(), "-U", user, "-d", "pgweir"]);
        let done = psql.args(["-c", "SHOW VERSION"]).env("PGPASSWORD", password).output().unwrap();
        (String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (said, complained) = psql("root", "right");
    assert!(said.starts_with("PgBouncer 1.25.2 (pgweir "), "{said}{complained}");
    for (user, password) in [("root", "wrong"), ("nobody", "right")] {
        let (_, complained) = psql(user, password);
        assert!(complained.contains("password authentication failed"), "{complained}");
    }
    assert!(psql(USER, "wrong").1.contains("password authentication failed"));
    assert!(psql(USER, "other").1.contains("may not use the console"));
}

/// The account that pgweir runs under needs no password on the unix socket, and only there.
#[test]
fn its_own_account_by_the_unix_socket() {
    let directory = integration::Run::current().unwrap().folder("console").unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let conf = Conf::database_only(&cluster().config_lines()).user(USER, "password = \"secret\"");
    let pgweir = conf.listen(&format!("unix_socket_dir = \"{}\"", directory.display())).start();
    let path = directory.join(format!(".s.PGSQL.{}", pgweir.port()));
    for user in ["pgweir", "pgbouncer"] {
        let mut wire = Wire::unix(&path).unwrap();
        wire.login(user, "pgbouncer", "").unwrap();
        assert_eq!(wire.query("SHOW STATE").unwrap()[0], ["active", "yes"]);
    }
    let mut wire = Wire::unix(&path).unwrap();
    assert!(wire.login(USER, "pgweir", "").is_err());
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[("user", "pgweir"), ("database", "pgweir")]);
    // A proof of the password is asked for: AuthenticationSASL.
    let asked = client.read().unwrap();
    assert_eq!((asked.tag, &asked.body[..4]), (b'R', &[0, 0, 0, 10][..]));
}

/// Whoever is to find out why there is no room gets in.
#[test]
fn beyond_max_client_conn() {
    let pgweir = conf().listen("max_client_conn = 1").start();
    // Whoever looked whether it listens has had the place.
    let taken = || {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        client.welcome().map(|_| client)
    };
    let mut held = None;
    eventually("there is a place", || {
        held = taken().ok();
        held.is_some()
    });
    assert!(refused(&pgweir, &[]).starts_with("53300"));
    let mut admin = console_as(&pgweir, "root", "pgweir");
    assert_eq!(show(&mut admin, "SHOW LISTS").value(("list", "used_clients"), "items"), "2");
}

#[test]
fn no_database_can_have_its_name() {
    for name in ["pgweir", "pgbouncer"] {
        let text = Conf::trust(cluster()).rest(&format!("[databases.{name}]\nprimary = \"127.0.0.1:1\"\n")).text();
        let error = Pgweir::start(&text).unwrap_err().to_string();
        assert!(error.contains(&format!("no database can be named `{name}`: that is pgweir's console")), "{error}");
    }
}

/// What drivers send at login and afterwards is accepted.
#[test]
fn drivers_find_what_they_ask_for() {
    let pgweir = conf().start();
    let login = [("user", "root"), ("database", "pgweir"), ("extra_float_digits", "3"), ("application_name", "probe")];
    let mut client = Client::connect_with(pgweir.port(), &login);
    let told = [
        ("DateStyle", "ISO"),
        ("TimeZone", "GMT"),
        ("client_encoding", "UTF8"),
        ("is_superuser", "on"),
        ("server_encoding", "UTF8"),
        ("server_version", "1.25.2/bouncer"),
        ("standard_conforming_strings", "on"),
    ];
    let parameters: Vec<_> = client.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(parameters, told);
    for (name, value) in [
        ("client_encoding", "UTF-8"),
        ("default_transaction_isolation", "read committed"),
        ("standard_conforming_strings", "on"),
        ("datestyle", "ISO"),
        ("timezone", "GMT"),
    ] {
        let shown = show(&mut client, &format!("SHOW {name}"));
        assert_eq!((shown.columns, shown.rows), (vec![(name.to_owned(), 25)], vec![vec![value.to_owned()]]));
        assert_eq!(command(&mut client, &format!("SET {name} = '{value}'")).unwrap(), "SET");
    }
    for sql in ["SET extra_float_digits TO 3", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"] {
        assert_eq!(command(&mut client, sql).unwrap(), "SET");
    }
    for (sql, tag) in
        [("BEGIN", "BEGIN"), ("COMMIT", "COMMIT"), ("ROLLBACK", "ROLLBACK"), ("DISCARD ALL", "DISCARD ALL")]
    {
        assert_eq!(command(&mut client, sql).unwrap(), tag);
    }
    let clients = show(&mut client, "SHOW CLIENTS");
    assert_eq!(clients.value(("application_name", "probe"), "user"), "root");
}
