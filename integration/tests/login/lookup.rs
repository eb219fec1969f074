//! Users that are looked up on the server: `auth.query` with its own connections and pinned settings.
//! It must never let in whom the server would not.

use std::time::{Duration, Instant};

use crate::clients::{psql, psql_in};
use crate::common::{Conf, eventually, within};
use crate::{SECRET, assert_discreet};
use integration::{Cluster, DATABASE, Hba, PASSWORD};

const ASKER: &str = "CREATE ROLE asker LOGIN PASSWORD 'askers-password'; GRANT SELECT ON pg_authid TO asker";

fn cluster() -> Cluster {
    let sql = format!(
        "CREATE ROLE carol LOGIN PASSWORD '{SECRET}';
         CREATE ROLE ended LOGIN PASSWORD '{SECRET}' VALID UNTIL '2020-01-01';
         CREATE ROLE group_role PASSWORD '{SECRET}';
         CREATE ROLE blank LOGIN;
         SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN PASSWORD '{SECRET}'"
    );
    Cluster::builder().auth(Hba::Scram).sql(ASKER).sql(&sql).start().unwrap()
}

fn conf(cluster: &Cluster, auth: &str) -> Conf {
    Conf::database_only(&cluster.config_lines())
        .rest("[log]\nlevel = \"trace\"")
        .rest(&format!("[auth]\nquery_user = \"asker\"\nquery_password = \"askers-password\"\n{auth}"))
}

fn failed(user: &str) -> String {
    format!("FATAL:  password authentication failed for user \"{user}\"")
}

#[test]
fn a_user_of_the_server_comes_in_without_being_configured() {
    let cluster = cluster();
    let pgweir = conf(&cluster, "").start();
    // Its verifier proves it here, and its own proof opens the server.
    for _ in 0..3 {
        assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    }
    // Expired, no login, no password, MD5 only, not there at all, wrong: one and the same answer.
    for user in ["ended", "group_role", "blank", "hashed", "stranger", "carol"] {
        let password = if user == "carol" { "wrong-password" } else { SECRET };
        let error = psql(&pgweir, user, Some(password)).unwrap_err();
        assert!(error.ends_with(&failed(user)), "{error}");
    }
    // A role made just now gets in soon, though it was asked for before.
    assert!(psql(&pgweir, "late", Some(SECRET)).is_err());
    cluster.primary().query(&format!("CREATE ROLE late LOGIN PASSWORD '{SECRET}'")).unwrap();
    eventually("the new role", || psql(&pgweir, "late", Some(SECRET)).is_ok());
    // A changed password too, though the old one is still believed for a while.
    cluster.primary().query("ALTER ROLE late PASSWORD 'changed'").unwrap();
    within(Duration::from_secs(20), "the new password", || psql(&pgweir, "late", Some("changed")).is_ok());
    let log = pgweir.log();
    assert_discreet(&log);
    assert!(!log.contains("askers-password") && !log.contains("SCRAM-SHA-256$"), "a secret in the log");
}

/// PgBouncer CVE-2025-12819: what the role's own settings or a client's startup message say of the search_path does not
/// reach the query.
#[test]
fn defect_02_the_lookup_runs_under_pinned_settings() {
    let cluster = cluster();
    cluster
        .primary()
        .query_in(
            DATABASE,
            "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC;
             CREATE VIEW trap.pg_authid AS SELECT rolname, 'md5' || md5('trapped' || rolname) AS rolpassword,
             rolvaliduntil, true AS rolcanlogin FROM pg_catalog.pg_authid; GRANT SELECT ON trap.pg_authid TO PUBLIC;
             ALTER ROLE asker SET search_path = trap, pg_catalog",
        )
        .unwrap();
    // A query of the operator's own that names nothing with its schema.
    let query = "query = \"SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1\"";
    let pgweir = conf(&cluster, query).listen("auth_type = \"md5\"").start();
    let login = |password: &str| {
        let mut command = integration::command("timeout").unwrap();
        command.args(["30", "psql", "-XAtw", "-c", "SELECT 'in'"]).env("PGHOST", "127.0.0.1");
        command.env("PGPORT", pgweir.port().to_string()).env("PGUSER", "carol").env("PGDATABASE", DATABASE);
        command.env("PGOPTIONS", "-c search_path=trap,pg_catalog").env("PGPASSWORD", password);
        command.output().unwrap().status.success()
    };
    assert!(login(SECRET));
    assert!(!login("trapped"));
}

/// PgBouncer CVE-2025-2291: an expired password is none, now and when the answer is remembered.
#[test]
fn defect_03_the_lookup_honours_valid_until() {
    let cluster = cluster();
    let pgweir = conf(&cluster, "query_cache = \"1s\"").start();
    assert!(psql(&pgweir, "ended", Some(SECRET)).unwrap_err().ends_with(&failed("ended")));
    assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    cluster.primary().query("ALTER ROLE carol VALID UNTIL '2020-01-01'").unwrap();
    within(Duration::from_secs(20), "the end is noticed", || {
        psql(&pgweir, "carol", Some(SECRET)).is_err_and(|error| error.ends_with(&failed("carol")))
    });
}

/// PgBouncer CVE-2015-6817: whom the query does not find, or finds as somebody else, is nobody, least of all the asker.
#[test]
fn defect_04_no_identity_is_made_up() {
    let cluster = cluster();
    for query in [
        "SELECT 'asker'::text, rolpassword FROM pg_authid WHERE rolname = 'asker' AND $1 <> ''",
        "SELECT $1::text, NULL",
        "SELECT $1::text, ''",
        "SELECT NULL, 'secret' WHERE $1 <> ''",
        "SELECT $1::text, 'secret' WHERE false",
        "SELECT left($1, 3), 'secret'",
    ] {
        for auth_type in ["scram-sha-256", "md5"] {
            let conf = conf(&cluster, &format!("query = \"{query}\"")).listen(&format!("auth_type = \"{auth_type}\""));
            let pgweir = conf.start();
            for user in ["stranger", "carol"] {
                for password in ["askers-password", "secret", SECRET, " "] {
                    let error = psql(&pgweir, user, Some(password)).unwrap_err();
                    assert!(error.ends_with(&failed(user)), "{query} {user} {password}: {error}");
                }
            }
        }
    }
    // Trust does not make one up either.
    let pgweir = conf(&cluster, "").listen("auth_type = \"trust\"").start();
    assert!(psql(&pgweir, "stranger", None).unwrap_err().contains("\"stranger\" is not in the configuration"));
}

#[test]
fn a_server_that_cannot_be_asked() {
    let cluster = cluster();
    let broken = |auth: &str, said: &str| {
        let conf = conf(&cluster, auth).user("app", &format!("password = \"{PASSWORD}\""));
        let pgweir = conf.start();
        let error = psql(&pgweir, "carol", Some(SECRET)).unwrap_err();
        assert!(error.contains("cannot look up users at the moment"), "{error}");
        assert!(!error.contains(said), "the client hears of it: {error}");
        assert!(pgweir.log().contains(said), "{}", pgweir.log());
        // Who is configured is not in the way of it.
        assert_eq!(psql(&pgweir, "app", Some(PASSWORD)).as_deref(), Ok("in"));
    };
    broken(
        "query = \"SELECT rolname, nothing FROM pg_authid WHERE rolname = $1\"",
        "column \"nothing\" does not exist",
    );
    broken("query = \"SELECT rolname FROM pg_authid WHERE rolname = $1\"", "two columns");
    broken("query = \"SELECT $1::text, rolname FROM pg_authid\"", "more than one row");
    // The asker's connections died at rest: a new one is made and nobody notices.
    let pgweir = conf(&cluster, "query_cache = 0").start();
    assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    let asking = "SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'asker'";
    cluster.primary().wait_true(asking).unwrap();
    let gone = "SELECT bool_and(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'asker'";
    assert_eq!(cluster.primary().value_in("postgres", gone).unwrap(), "t");
    assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
}

/// The asker's connections are closed as those of pools are, and no database is asked in the place of one that does not
/// exist: both look the same to a client.
#[test]
fn asking_leaves_nothing_behind_and_asks_nobody_else() {
    let cluster = cluster();
    let askers = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'asker'";
        cluster.primary().value_in("postgres", sql).unwrap()
    };
    for limit in ["server_idle_timeout", "server_lifetime"] {
        let pgweir = conf(&cluster, "query_cache = 0").pool(&format!("{limit} = \"2s\"")).start();
        for database in ["missing", "aaa", "zzz"] {
            for (user, password) in [("carol", SECRET), ("stranger", SECRET), ("carol", "wrong-password")] {
                let error = psql_in(&pgweir, database, user, password).unwrap_err();
                assert!(error.ends_with(&failed(user)), "{error}");
            }
        }
        assert_eq!(askers(), "0", "somebody was asked");
        assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
        assert_eq!(askers(), "1", "{limit}");
        eventually(limit, || askers() == "0");
        assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    }
}

/// A name that is no database takes as long as one that is: here a second, at the least.
#[test]
fn a_database_that_does_not_exist_takes_as_long() {
    let cluster = cluster();
    let slow = "query = \"SELECT rolname, rolpassword FROM (SELECT $1::name AS name, pg_sleep(1) OFFSET 0) AS slow LEFT JOIN pg_authid ON rolname = slow.name\"";
    let pgweir = conf(&cluster, slow).start();
    for database in [DATABASE, "missing", "other"] {
        let began = Instant::now();
        assert!(psql_in(&pgweir, database, "stranger", SECRET).is_err());
        assert!(began.elapsed() >= Duration::from_secs(1), "{database}: {:?}", began.elapsed());
    }
}
