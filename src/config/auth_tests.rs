//! `[auth]` and users: what they become, and what is refused with what words.
//! Must never depend on this machine: files are made.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn load(dir: &Path, text: &str) -> Result<Config, String> {
    Config::parse(text, &dir.join("f.toml").display().to_string()).map_err(|problems| problems.to_string())
}

fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

const DATABASE: &str = "[databases.d]\nprimary = \"h\"\n";

#[test]
fn everything_arrives() {
    let (cert, key) = super::warning_tests::identity();
    let dir = dir_with(&[
        ("hba", "hostssl all @names all cert map=m\nlocal all all peer\n"),
        ("names", "alice bob"),
        ("ident", "m Alice alice\n"),
        ("users", "\"alice\" \"secret\"\n\"bob\" \"\"\n\"carol\" \"other\"\n"),
        ("pem", &(cert + &key)),
    ]);
    let text = format!(
        "{DATABASE}[listen]\nauth_type = \"hba\"\nclient_tls_cert_file = \"pem\"\nclient_tls_key_file = \"pem\"\n\
         client_tls_ca_file = \"pem\"\n\
         [auth]\nhba_file = \"hba\"\nident_file = \"ident\"\nusers_file = \"users\"\nquery_user = \"q\"\n\
         query_password = \"p\"\nquery_database = \"d\"\nquery_cache = \"5s\"\nfailed_logins_max = 3\n\
         failed_logins_ban = \"1m\"\nmock_secret = \"0123456789abcdef\"\n\
         [users.carol]\npassword = [\"new\", \"old\"]\nvalid_until = 1970-01-01T00:01:00Z\n[users.dave]\npool_size = 2\n"
    );
    let config = load(dir.path(), &text).unwrap();
    assert_eq!(config.auth.hba.as_ref().unwrap().rules().count(), 2);
    assert!(config.auth.ident.allows(Some("m"), "Alice", "alice"));
    let query = config.auth.query.as_ref().unwrap();
    assert_eq!((query.sql.as_str(), query.user.as_str()), (AuthQuery::SQL, "q"));
    assert_eq!((query.database.as_deref(), query.cache), (Some("d"), Duration::from_secs(5)));
    assert_eq!(config.auth.mock_secret.as_ref().unwrap().expose(), "0123456789abcdef");
    assert_eq!((config.auth.failed_logins_max, config.auth.failed_logins_ban), (3, Duration::from_secs(60)));
    let secrets = |user: &str| -> Vec<&str> {
        config.users[user].passwords().map(|password| password.secret().expose()).collect()
    };
    assert_eq!(secrets("alice"), ["secret"]);
    assert_eq!(secrets("bob"), [""; 0]);
    assert_eq!(secrets("carol"), ["new", "old"], "the section comes before the file");
    assert_eq!(secrets("dave"), [""; 0]);
    assert_eq!(config.users["carol"].valid_until, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(60)));
    // A change of a file is a change of the configuration.
    std::fs::write(dir.path().join("users"), "\"alice\" \"changed\"").unwrap();
    assert_ne!(load(dir.path(), &text).unwrap(), config);
}

#[test]
fn nobody_need_be_configured_when_users_are_found_elsewhere() {
    let dir = dir_with(&[("users", "\"a\" \"b\"")]);
    let config = load(dir.path(), &format!("{DATABASE}[auth]\nusers_file = \"users\"")).unwrap();
    assert_eq!(config.users.len(), 1);
    let config = load(dir.path(), &format!("{DATABASE}[auth]\nquery_user = \"q\"\n[users.a]\npool_size = 1")).unwrap();
    assert!(config.users["a"].password.is_none());
    assert!(load(dir.path(), &format!("{DATABASE}[auth]\nquery_user = \"q\"")).unwrap().users.is_empty());
}

#[test]
fn contradictions_are_told() {
    let dir = dir_with(&[
        ("hba", "host all all all md5\nhost all +r all md5\n"),
        ("ident", "m a\n"),
        ("users", "\"a\" \"hunter2\"\nb hunter2\n"),
        ("twice", "\"a\" \"hunter2\"\n\"a\" \"hunter3\"\n\"b\" \"SCRAM-SHA-256$hunter2\"\n"),
    ]);
    let user = "[users.u]\npassword = \"hunter2\"\n";
    let verifier = |salt: &str| format!("SCRAM-SHA-256$4096:{salt}${KEY}:{KEY}");
    let two = format!("[users.u]\npassword = [\"{}\", \"{}\"]\n", verifier("c2FsdA=="), verifier("c2FsdDI="));
    let hba = "[listen]\nauth_type = \"hba\"\n[auth]\n";
    for (text, said) in [
        (format!("{hba}hba_file = \"hba\"\n{user}"), "hba:2:10"),
        (format!("{hba}hba_file = \"hba\"\n{user}"), "member of which role"),
        (format!("{hba}hba_file = \"none\"\n{user}"), "no such file"),
        (format!("{hba}hba = [\"host all all db md5\"]\n{user}"), "names of hosts"),
        (format!("{hba}hba = [\"host all all all md5\"]\nhba_file = \"hba\"\n{user}"), "one of them"),
        (format!("{hba}hba = [\"local all all peer map=m\"]\n{user}"), "names the map `m`"),
        (format!("{hba}hba = [\"hostssl all all all cert\"]\n{user}"), "client_tls_ca_file"),
        (format!("{hba}hba = \"host all all all md5\"\n{user}"), "a list of strings"),
        (format!("[listen]\nauth_type = \"hba\"\n{user}"), "there are no rules"),
        (format!("[auth]\nhba = [\"host all all all md5\"]\n{user}"), "never used"),
        (format!("[auth]\nident_file = \"ident\"\n{user}"), "ident:1:1"),
        (format!("[auth]\nusers_file = \"users\"\n{user}"), "line 2: not a line of a user list"),
        (format!("[auth]\nusers_file = \"twice\"\n{user}"), "line 2: this user has a line above"),
        (format!("[auth]\nusers_file = \"twice\"\n{user}"), "line 3: broken SCRAM verifier"),
        (format!("[auth]\nquery_password = \"hunter2\"\n{user}"), "never used without `query_user`"),
        (format!("[auth]\nquery = \"SELECT 1\"\n{user}"), "never used without `query_user`"),
        (format!("[auth]\nquery_user = \"q\"\nquery_cache = \"2h\"\n{user}"), "at most \"1h\""),
        (format!("[auth]\nquery_user = \"q\"\nquery_database = \"x\"\n{user}"), "names `x`, which is no database"),
        (format!("[auth]\nquery_user = \"q\"\nquery_password = \"{}\"\n{user}", verifier("c2FsdA==")), "cannot log in"),
        (format!("[listen]\nauth_type = \"plain\"\n{user}"), "did you mean `\"password\"`?"),
        (format!("[listen]\nauth_type = \"peer\"\n{user}"), "did you mean `\"hba\"`?"),
        (format!("[listen]\nauth_type = \"cert\"\n{user}"), "who may sign"),
        (format!("[listen]\nauth_type = \"cert\"\n{user}"), "there is no TLS"),
        (format!("[listen]\nclient_tls_sslmode = \"verify-full\"\n{user}"), "who may sign"),
        (format!("[auth]\nmock_secret = \"hunter2hunter2h\"\n{user}"), "at least 16 random characters"),
        (two, "different salts"),
        ("[users.u]\npassword = []\n".to_owned(), "1 to 5 secrets"),
        ("[users.u]\npassword = [\"hunter2\", 5]\n".to_owned(), "wrong type"),
        (format!("{user}valid_until = 2026-01-01\n"), "with its zone"),
        (format!("{user}valid_until = 5\n"), "wrong type"),
    ] {
        let error = load(dir.path(), &format!("{DATABASE}{text}")).unwrap_err();
        assert!(error.contains(said), "{text}\n{error}");
        assert!(!error.contains("hunter"), "{text}\n{error}");
    }
    for (line, said) in [
        ("server_tls_negotiation = \"direct\"", "\"require\" or stronger"),
        ("server_channel_binding = \"require\"\nserver_tls_sslmode = \"disable\"", "TLS, whose certificate"),
    ] {
        let error = load(dir.path(), &format!("{DATABASE}{line}\n{user}")).unwrap_err();
        assert!(error.contains(said), "{line}\n{error}");
    }
}
