//! Rules, certificates, cleartext, several passwords, expiry, refusals of an address: all with psql.
//! It must never let in whom no rule names.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::common::{Client, Conf, eventually};
use crate::{SECRET, assert_discreet, trusting};
use integration::{Certificates, DATABASE, Identity, Pgweir, USER};

/// psql with these variables of libpq; its output, or its complaint.
fn psql(pgweir: &Pgweir, user: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let mut command = integration::command("timeout").unwrap();
    command.args(["30", "psql", "-XAtw", "-c", "SELECT 'in'"]);
    command.env("PGHOST", "127.0.0.1").env("PGPORT", pgweir.port().to_string());
    command.env("PGUSER", user).env("PGDATABASE", DATABASE).env("PGSSLMODE", "disable");
    command.env_remove("PGPASSWORD").env("PGPASSFILE", "/dev/null");
    command.envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    if status.success() { Ok(text(&stdout)) } else { Err(text(&stderr)) }
}

/// Everybody is [`USER`] on the server.
fn conf() -> Conf {
    Conf::database_only(&format!("{}user = \"{USER}\"", trusting().config_lines())).rest("[log]\nlevel = \"trace\"")
}

fn assert_in(pgweir: &Pgweir, user: &str, variables: &[(&str, &str)]) {
    assert_eq!(psql(pgweir, user, variables).as_deref(), Ok("in"), "{user}");
}

fn assert_out(pgweir: &Pgweir, user: &str, variables: &[(&str, &str)], said: &str) {
    let error = psql(pgweir, user, variables).unwrap_err();
    assert!(error.contains(said), "{user}: {error}");
}

const RIGHT: (&str, &str) = ("PGPASSWORD", SECRET);
const WRONG: (&str, &str) = ("PGPASSWORD", "wrong-password");
const TLS: (&str, &str) = ("PGSSLMODE", "require");

#[test]
fn rules_decide_in_their_order() {
    let files = Certificates::new().unwrap();
    let rules = r#"[auth]
hba = [
  "host all mallory all reject",
  "hostssl all alice 127.0.0.0/8 password",
  "hostnossl app alice 127.0.0.1 255.255.255.255 scram-sha-256",
  "host sameuser,app \"bob\" all md5",
  "host app carol 10.0.0.0/8 trust",
  "host app dave 127.0.0.1/32 trust",
]"#;
    let mut conf = conf().listen("auth_type = \"hba\"").tls("allow", &files).rest(rules);
    for user in ["alice", "bob", "carol", "mallory"] {
        conf = conf.user(user, &format!("password = \"{SECRET}\""));
    }
    let pgweir = conf.user("dave", "").start();
    for variables in [&[RIGHT, TLS][..], &[RIGHT]] {
        assert_in(&pgweir, "alice", variables);
        assert_in(&pgweir, "bob", variables);
    }
    for variables in [&[WRONG, TLS][..], &[WRONG]] {
        assert_out(&pgweir, "alice", variables, "password authentication failed for user \"alice\"");
        assert_out(&pgweir, "bob", variables, "password authentication failed for user \"bob\"");
    }
    assert_in(&pgweir, "dave", &[]);
    let no_entry = |user: &str, how: &str| {
        format!("FATAL:  no pg_hba.conf entry for host \"127.0.0.1\", user \"{user}\", database \"app\", {how}")
    };
    assert_out(&pgweir, "carol", &[RIGHT], &no_entry("carol", "no encryption"));
    assert_out(&pgweir, "carol", &[RIGHT, TLS], &no_entry("carol", "SSL encryption"));
    assert_out(&pgweir, "stranger", &[RIGHT], &no_entry("stranger", "no encryption"));
    assert_out(&pgweir, "mallory", &[RIGHT], "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"mallory\"");
    assert_discreet(&pgweir.log());
}

fn shown(files: &Certificates, identity: &Identity) -> Vec<(&'static str, String)> {
    vec![
        ("PGSSLMODE", "verify-full".to_owned()),
        ("PGHOST", "localhost".to_owned()),
        ("PGSSLROOTCERT", files.ca.display().to_string()),
        ("PGSSLCERT", identity.certificate.display().to_string()),
        ("PGSSLKEY", identity.key.display().to_string()),
    ]
}

#[test]
fn a_certificate_names_its_user() {
    let files = Certificates::new().unwrap();
    let (alice, mapped) = (files.client("alice").unwrap(), files.client("Alice of Sales").unwrap());
    let forged = Certificates::new().unwrap().client("alice").unwrap();
    let folder = integration::Run::current().unwrap().folder("hba").unwrap();
    std::fs::write(folder.join("ident"), "sales \"Alice of Sales\" bob\n").unwrap();
    std::fs::write(folder.join("hba"), "hostssl all alice all cert\nhostssl all bob all cert map=sales\n").unwrap();
    let ca = format!("client_tls_ca_file = \"{}\"", files.ca.display());
    let by_rules = conf()
        .listen("auth_type = \"hba\"")
        .listen(&ca)
        .tls("allow", &files)
        .rest(&format!("[auth]\nhba_file = \"{0}/hba\"\nident_file = \"{0}/ident\"", folder.display()));
    let pgweir = by_rules.user("alice", "").user("bob", "").start();
    fn borrowed<'a>(all: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
        all.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
    let (with_alice, with_mapped) = (shown(&files, &alice), shown(&files, &mapped));
    assert_in(&pgweir, "alice", &borrowed(&with_alice));
    assert_in(&pgweir, "bob", &borrowed(&with_mapped));
    let refused = |user: &str| format!("certificate authentication failed for user \"{user}\"");
    assert_out(&pgweir, "bob", &borrowed(&with_alice), &refused("bob"));
    assert_out(&pgweir, "alice", &borrowed(&with_mapped), &refused("alice"));
    assert_out(&pgweir, "alice", &[TLS], "connection requires a valid client certificate");
    assert!(psql(&pgweir, "alice", &borrowed(&shown(&files, &forged))).is_err(), "another authority signed it");
    // The plain method, and a listener that demands a certificate beside a password.
    let plain = conf().listen("auth_type = \"cert\"").listen(&ca).tls("allow", &files).user("alice", "").start();
    assert_in(&plain, "alice", &borrowed(&with_alice));
    assert_out(&plain, "alice", &borrowed(&with_mapped), &refused("alice"));
    assert_out(&plain, "stranger", &borrowed(&with_alice), &refused("stranger"));
    let both = conf().listen(&ca).tls("verify-ca", &files).user("bob", &format!("password = \"{SECRET}\"")).start();
    let mut with_password = borrowed(&with_alice);
    with_password.push(RIGHT);
    assert_in(&both, "bob", &with_password);
    assert_out(&both, "bob", &[TLS, RIGHT], "connection requires a valid client certificate");
    assert_out(&both, "bob", &[RIGHT], "TLS is required");
}

#[test]
fn cleartext_over_tls_only() {
    let files = Certificates::new().unwrap();
    let mut conf = conf().listen("auth_type = \"password\"").tls("allow", &files);
    for (user, secret) in crate::KINDS.iter().zip(crate::secrets()) {
        conf = conf.user(user, &format!("password = \"{secret}\""));
    }
    let pgweir = conf.start();
    for user in crate::KINDS {
        assert_in(&pgweir, user, &[TLS, RIGHT]);
        assert_out(&pgweir, user, &[TLS, WRONG], "password authentication failed");
        // Not even asked for: nothing is sent in the clear.
        assert_out(&pgweir, user, &[RIGHT], "passwords are accepted over TLS only");
    }
    assert_out(&pgweir, "stranger", &[TLS, RIGHT], "password authentication failed for user \"stranger\"");
    assert_discreet(&pgweir.log());
}

#[test]
fn any_of_several_passwords_until_the_end() {
    let verifier = &crate::secrets()[2];
    let users = [
        ("both", format!("password = [\"new-password\", \"{SECRET}\"]")),
        ("mixed", format!("password = [\"new-password\", \"{verifier}\"]")),
        ("ended", format!("password = \"{SECRET}\"\nvalid_until = 2020-01-01T00:00:00Z")),
        ("lasting", format!("password = \"{SECRET}\"\nvalid_until = \"2120-01-01T00:00:00+01:00\"")),
    ];
    for auth_type in ["scram-sha-256", "md5"] {
        let conf = conf().listen(&format!("auth_type = \"{auth_type}\""));
        let pgweir = users.iter().fold(conf, |conf, (user, lines)| conf.user(user, lines)).start();
        for user in ["both", "mixed"] {
            assert_in(&pgweir, user, &[RIGHT]);
            assert_in(&pgweir, user, &[("PGPASSWORD", "new-password")]);
            assert_out(&pgweir, user, &[WRONG], "password authentication failed");
        }
        assert_in(&pgweir, "lasting", &[RIGHT]);
        let ended = psql(&pgweir, "ended", &[RIGHT]).unwrap_err();
        let wrong = psql(&pgweir, "lasting", &[WRONG]).unwrap_err().replace("lasting", "ended");
        assert_eq!(ended, wrong);
        assert_discreet(&pgweir.log());
    }
}

#[test]
fn users_of_a_file_are_read_again_on_reload() {
    let folder = integration::Run::current().unwrap().folder("userlist").unwrap();
    let file = folder.join("userlist.txt");
    std::fs::write(&file, format!("; users\n\"listed\" \"{SECRET}\"\n\"plain\" \"{}\"\n", crate::secrets()[2]))
        .unwrap();
    let conf = conf().rest(&format!("[auth]\nusers_file = \"{}\"", file.display()));
    let pgweir = conf.start();
    assert_in(&pgweir, "listed", &[RIGHT]);
    assert_in(&pgweir, "plain", &[RIGHT]);
    std::fs::write(&file, "\"listed\" \"another\"\n").unwrap();
    pgweir.reload(&conf.text()).unwrap();
    eventually("the new password", || psql(&pgweir, "listed", &[("PGPASSWORD", "another")]).is_ok());
    assert_out(&pgweir, "listed", &[RIGHT], "password authentication failed");
    assert_out(&pgweir, "plain", &[RIGHT], "password authentication failed");
    assert_discreet(&pgweir.log());
}

#[test]
fn an_address_that_fails_too_often_is_refused_for_a_while() {
    let auth = "[auth]\nfailed_logins_max = 3\nfailed_logins_ban = \"2s\"";
    let pgweir = conf().user("alice", &format!("password = \"{SECRET}\"")).rest(auth).start();
    assert_out(&pgweir, "alice", &[WRONG], "password authentication failed");
    assert_out(&pgweir, "stranger", &[WRONG], "password authentication failed");
    assert_in(&pgweir, "alice", &[RIGHT]);
    // The success has made it blank; answers come later and later.
    let started = Instant::now();
    for user in ["alice", "stranger", "alice"] {
        assert_out(&pgweir, user, &[WRONG], "password authentication failed");
    }
    assert!(started.elapsed() >= Duration::from_millis(50 + 100 + 200));
    assert_out(&pgweir, "alice", &[RIGHT], "too many failed logins from this address");
    eventually("the ban ends", || psql(&pgweir, "alice", &[RIGHT]).is_ok());
}

/// Over the unix socket the system says who somebody is; a map says who that may be. Rules for it are its own.
#[test]
fn the_system_names_its_user_over_a_unix_socket() {
    let id = integration::command("id").unwrap().arg("-un").output().unwrap();
    let me = String::from_utf8(id.stdout).unwrap().trim().to_owned();
    let folder = integration::Run::current().unwrap().folder("peer").unwrap();
    std::fs::write(folder.join("ident"), format!("staff \"{me}\" alice\nstaff nobody-else dave\n")).unwrap();
    let rules = format!(
        r#"[auth]
ident_file = "{0}/ident"
hba = [
  "local all \"{me}\" peer",
  "local all alice,dave peer map=staff",
  "local all bob peer",
  "local all carol scram-sha-256",
  "local all erin password",
  "hostssl all carol all trust",
  "hostnossl all carol all reject",
]"#,
        folder.display()
    );
    let files = Certificates::new().unwrap();
    let mut conf = conf().listen("auth_type = \"hba\"").tls("allow", &files).rest(&rules);
    conf = conf.listen(&format!("unix_socket_dir = \"{}\"", folder.display()));
    for user in [me.as_str(), "alice", "bob", "carol", "dave", "erin"] {
        conf = conf.user(user, &format!("password = \"{SECRET}\""));
    }
    let pgweir = conf.start();
    let here = folder.display().to_string();
    let unix = ("PGHOST", here.as_str());
    assert_in(&pgweir, &me, &[unix]);
    assert_in(&pgweir, "alice", &[unix]);
    for user in ["bob", "dave"] {
        let said = format!("Peer authentication failed for user \"{user}\"");
        assert_out(&pgweir, user, &[unix], &said);
        assert_out(&pgweir, user, &[unix, RIGHT], &said);
    }
    for user in ["carol", "erin"] {
        assert_in(&pgweir, user, &[unix, RIGHT]);
        assert_out(&pgweir, user, &[unix, WRONG], "password authentication failed");
    }
    let no_entry = |user: &str, from: &str, how: &str| {
        format!("no pg_hba.conf entry for host \"{from}\", user \"{user}\", database \"app\", {how}")
    };
    assert_out(&pgweir, "stranger", &[unix], &no_entry("stranger", "[local]", "no encryption"));
    // What the unix socket lets in, TCP does not, and the other way round.
    assert_out(&pgweir, "alice", &[RIGHT], &no_entry("alice", "127.0.0.1", "no encryption"));
    assert_out(&pgweir, "alice", &[RIGHT, TLS], &no_entry("alice", "127.0.0.1", "SSL encryption"));
    assert_in(&pgweir, "carol", &[TLS]);
    assert_out(&pgweir, "carol", &[RIGHT], "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"carol\"");
    assert_discreet(&pgweir.log());
}

/// Certificates are read again on reload; who is connected stays connected.
#[test]
fn new_certificates_on_reload_disturb_nobody() {
    let (old, new) = (Certificates::new().unwrap(), Certificates::new().unwrap());
    let folder = integration::Run::current().unwrap().folder("renewed").unwrap();
    let copy = |files: &Certificates| {
        std::fs::copy(&files.certificate, folder.join("server.crt")).unwrap();
        std::fs::copy(&files.key, folder.join("server.key")).unwrap();
    };
    copy(&old);
    let conf = conf().listen("auth_type = \"trust\"").user("alice", "").listen(&format!(
        "client_tls_cert_file = \"{0}/server.crt\"\nclient_tls_key_file = \"{0}/server.key\"",
        folder.display()
    ));
    let pgweir = conf.start();
    let connect = |files: &Certificates| {
        let mut client = Client::tls(pgweir.port(), &files.ca, crate::common::client::Ssl::Asked).ok()?;
        client.startup(0, &[("user", "alice")]);
        client.welcome().ok()?;
        Some(client)
    };
    let mut first = connect(&old).unwrap();
    copy(&new);
    pgweir.reload(&conf.text()).unwrap();
    eventually("the new certificate", || connect(&new).is_some());
    assert!(connect(&old).is_none());
    assert_eq!(first.value("SELECT 'still here'"), "still here");
}
