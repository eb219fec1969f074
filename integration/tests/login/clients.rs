//! psql as the client: every `auth_type` with every kind of stored secret and every kind of answer.
//! It must never be run without a timeout: a login that hangs is a failed login.

use crate::common::Conf;
use crate::{KINDS, SECRET, assert_discreet, methods, trusting};
use integration::{DATABASE, Pgweir, USER};

/// What psql says with this password: its output, or its complaint.
pub fn psql(pgweir: &Pgweir, user: &str, password: Option<&str>) -> Result<String, String> {
    ask(pgweir, DATABASE, user, password)
}

/// [`psql`] in another database.
pub fn psql_in(pgweir: &Pgweir, database: &str, user: &str, password: &str) -> Result<String, String> {
    ask(pgweir, database, user, Some(password))
}

fn ask(pgweir: &Pgweir, database: &str, user: &str, password: Option<&str>) -> Result<String, String> {
    let mut command = integration::command("timeout").unwrap();
    command.args(["30", "psql", "-XAtw", "-c", "SELECT 'in'"]);
    command.env("PGHOST", "127.0.0.1").env("PGPORT", pgweir.port().to_string());
    command.env("PGUSER", user).env("PGDATABASE", database).env("PGSSLMODE", "disable");
    command.env_remove("PGPASSWORD").env("PGPASSFILE", "/dev/null");
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

fn failed(user: &str) -> String {
    format!("FATAL:  password authentication failed for user \"{user}\"")
}

/// With the right password these users get in, with any other nobody does.
fn matrix(auth_type: &str, users: &[&str]) {
    let pgweir = methods(auth_type).start();
    for user in users {
        assert_eq!(psql(&pgweir, user, Some(SECRET)).as_deref(), Ok("in"), "{user}");
        for wrong in ["wrong-password", &SECRET.to_uppercase(), &format!("{SECRET} "), " "] {
            let error = psql(&pgweir, user, Some(wrong)).unwrap_err();
            assert!(error.ends_with(&failed(user)), "{user} {wrong:?}: {error}");
        }
        // libpq does not even try without one.
        assert!(psql(&pgweir, user, None).unwrap_err().contains("no password supplied"));
    }
    let error = psql(&pgweir, "stranger", Some(SECRET)).unwrap_err();
    assert!(error.ends_with(&failed("stranger")), "{error}");
    assert_discreet(&pgweir.log());
}

#[test]
fn md5() {
    matrix("md5", &KINDS);
}

#[test]
fn scram() {
    matrix("scram-sha-256", &["plain", "verified"]);
}

/// With an MD5 hash alone nobody can take part in SCRAM: the configuration is refused, without showing the hash.
#[test]
fn an_md5_hash_is_no_secret_for_scram() {
    let hash = &crate::secrets()[1];
    let error =
        Pgweir::start(&methods("scram-sha-256").user("hashed", &format!("password = \"{hash}\"")).text()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("exit status: 2") && said.contains("hashed") && said.contains("MD5"), "{said}");
    assert!(!said.contains(hash.as_str()), "{said}");
}

#[test]
fn trust() {
    let pgweir = methods("trust").user("open", "").start();
    for user in ["plain", "hashed", "verified", "open"] {
        for password in [None, Some("wrong-password"), Some(SECRET)] {
            assert_eq!(psql(&pgweir, user, password).as_deref(), Ok("in"), "{user}");
        }
    }
    let error = psql(&pgweir, "stranger", None).unwrap_err();
    assert!(error.contains("\"stranger\""), "{error}");
    assert_discreet(&pgweir.log());
}

/// The stored form of a secret is not a password.
#[test]
fn a_stored_hash_does_not_let_in() {
    for auth_type in ["md5", "scram-sha-256"] {
        let pgweir = methods(auth_type).start();
        for (user, stored) in KINDS.iter().zip(crate::secrets()).skip(1) {
            let error = psql(&pgweir, user, Some(stored)).unwrap_err();
            assert!(error.ends_with(&failed(user)), "{auth_type} {user}: {error}");
        }
    }
}

/// Letters beyond ASCII, blanks, quotes: whatever SASLprep makes of them, both sides make the same.
#[test]
fn unusual_passwords() {
    for auth_type in ["md5", "scram-sha-256"] {
        for password in ["p\u{e4}ssw\u{f6}rt \u{2603}", "I\u{ad}X", "\u{2168}", "'\"; --", "a b  c", "\u{3b1}\u{5d0}"] {
            let quoted = password.replace('\\', "\\\\").replace('"', "\\\"");
            let conf = Conf::database_only(&format!("{}user = \"{USER}\"", trusting().config_lines()));
            let conf = conf.listen(&format!("auth_type = \"{auth_type}\""));
            let pgweir = conf.user("odd", &format!("password = \"{quoted}\"")).start();
            assert_eq!(psql(&pgweir, "odd", Some(password)).as_deref(), Ok("in"), "{auth_type} {password:?}");
            assert!(psql(&pgweir, "odd", Some("a b c")).is_err());
        }
    }
}

/// A secret may stand in a file or in the environment of pgweir.
#[test]
fn a_password_in_a_file() {
    let file = integration::Run::current().unwrap().root().join("password-of-a-test");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let conf = Conf::database_only(&format!("{}user = \"{USER}\"", trusting().config_lines()));
    let pgweir = conf.user("filed", &format!("password = {{ file = \"{}\" }}", file.display())).start();
    assert_eq!(psql(&pgweir, "filed", Some(SECRET)).as_deref(), Ok("in"));
    assert!(psql(&pgweir, "filed", Some(&format!("{SECRET}\n"))).is_err());
}
