//! Channel binding and direct TLS on both sides, with libpq and PostgreSQL as the other end.
//! It must never accept a login that was bound to another certificate.

use crate::common::client::{Ssl, said};
use crate::common::{Client, Conf};
use crate::{SECRET, assert_discreet, trusting};
use integration::{Certificates, Cluster, DATABASE, Hba, PASSWORD, Pgweir, USER};

/// psql that insists, or not, on channel binding.
fn psql(pgweir: &Pgweir, binding: &str, sslmode: &str, password: &str) -> Result<String, String> {
    let mut command = integration::command("timeout").unwrap();
    command.args(["30", "psql", "-XAtw", "-c", "SELECT 'in'"]).env("PGPASSWORD", password);
    command.env("PGHOST", "127.0.0.1").env("PGPORT", pgweir.port().to_string());
    command.env("PGUSER", "alice").env("PGDATABASE", DATABASE).env("PGSSLMODE", sslmode);
    command.env("PGCHANNELBINDING", binding);
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

fn listening(files: &Certificates) -> Pgweir {
    let conf = Conf::database_only(&format!("{}user = \"{USER}\"", trusting().config_lines()));
    conf.tls("allow", files).user("alice", &format!("password = \"{SECRET}\"")).start()
}

#[test]
fn clients_bind_themselves_to_the_certificate() {
    let pgweir = listening(&Certificates::new().unwrap());
    for (binding, sslmode) in
        [("require", "require"), ("prefer", "require"), ("disable", "require"), ("prefer", "disable")]
    {
        assert_eq!(psql(&pgweir, binding, sslmode, SECRET).as_deref(), Ok("in"), "{binding} {sslmode}");
        let error = psql(&pgweir, binding, sslmode, "wrong-password").unwrap_err();
        assert!(error.contains("password authentication failed"), "{error}");
    }
    let error = psql(&pgweir, "require", "disable", SECRET).unwrap_err();
    assert!(error.contains("channel binding"), "{error}");
    assert_discreet(&pgweir.log());
}

/// Whoever removes the offer on the way is found out: the client says that it could have, were it offered.
#[test]
fn a_removed_offer_of_channel_binding_is_noticed() {
    let files = Certificates::new().unwrap();
    let pgweir = listening(&files);
    let begin = || {
        let mut client = Client::tls(pgweir.port(), &files.ca, Ssl::Asked).unwrap();
        client.startup(0, &[("user", "alice")]);
        let request = client.read().unwrap();
        assert_eq!(&request.body[4..], b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        client
    };
    let refusal = |mechanism: &str, first: &str| {
        let mut client = begin();
        client.send(&crate::exchange::initial(mechanism, first));
        said(&client.read().unwrap())
    };
    let nonce = "n=,r=rOprNGfwEbeRWgbNEkqO";
    assert_eq!(refusal("SCRAM-SHA-256", &format!("y,,{nonce}")), "28000 SCRAM channel binding negotiation error");
    for (mechanism, header) in [
        ("SCRAM-SHA-256", "p=tls-server-end-point,,"),
        ("SCRAM-SHA-256-PLUS", "n,,"),
        ("SCRAM-SHA-256-PLUS", "y,,"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique,,"),
    ] {
        let error = refusal(mechanism, &format!("{header}{nonce}"));
        assert!(error.starts_with("08P01"), "{mechanism} {header}: {error}");
    }
    // Bound to another certificate: a man in the middle with one of his own.
    let mut client = begin();
    client.send(&crate::exchange::initial("SCRAM-SHA-256-PLUS", &format!("p=tls-server-end-point,,{nonce}")));
    let challenge = client.read().unwrap();
    let text = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
    let nonce = text.split(',').next().unwrap();
    // base64 of the header and 32 zero bytes.
    let bound = "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let last = format!("c={bound},{nonce},p={}", crate::exchange::PROOF);
    client.send(&integration::wire::Script::new().raw(b'p', last.as_bytes()));
    assert_eq!(said(&client.read().unwrap()), "28000 SCRAM channel binding check failed");
    // Without TLS it is not offered.
    let mut plain = Client::tcp(pgweir.port());
    plain.startup(0, &[("user", "alice")]);
    assert_eq!(&plain.read().unwrap().body[4..], b"SCRAM-SHA-256\0\0");
}

/// The first query of a client, by way of a server with these lines.
fn through(lines: &str) -> Result<String, String> {
    let conf = Conf::database_only(lines).listen("auth_type = \"trust\"");
    let pgweir = conf.user(USER, &format!("password = \"{PASSWORD}\"")).start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[]);
    client.welcome().map_err(|error| said(&error))?;
    let found = client.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert_discreet(&pgweir.log());
    Ok(found)
}

#[test]
fn servers_are_bound_to_their_certificates() {
    let scram = Cluster::builder().auth(Hba::Scram).tls(true).start().unwrap();
    let lines = |cluster: &Cluster, binding: &str, sslmode: &str| {
        let port = cluster.primary().port();
        format!(
            "primary = \"127.0.0.1:{port}\"\nserver_tls_sslmode = \"{sslmode}\"\nserver_channel_binding = \"{binding}\""
        )
    };
    // PostgreSQL refuses a `y` when it has offered the mechanism, and a binding that does not fit: so these are proofs.
    for binding in ["require", "prefer", "disable"] {
        assert_eq!(through(&lines(&scram, binding, "require")).as_deref(), Ok("t"), "{binding}");
    }
    assert_eq!(through(&lines(&scram, "prefer", "disable")).as_deref(), Ok("f"));
    // A server that proves nothing, or nothing bound.
    for other in [
        Cluster::builder().tls(true).start().unwrap(),
        Cluster::builder().auth(Hba::Md5).tls(true).start().unwrap(),
        Cluster::builder().auth(Hba::Password).tls(true).start().unwrap(),
    ] {
        let error = through(&lines(&other, "require", "require")).unwrap_err();
        assert!(error.starts_with("08006") && error.contains("server_channel_binding"), "{error}");
        assert_eq!(through(&lines(&other, "prefer", "require")).as_deref(), Ok("t"));
    }
    let plain = Cluster::builder().auth(Hba::Scram).start().unwrap();
    let error = through(&lines(&plain, "require", "prefer")).unwrap_err();
    assert!(error.contains("server_channel_binding"), "{error}");
}

/// PostgreSQL before 17 does not take direct TLS, pgweir does: one pgweir behind another. Newer ones: `newer`.
#[test]
fn direct_tls_towards_a_server() {
    let files = Certificates::new().unwrap();
    let inner = Conf::trust(trusting()).tls("require", &files).start();
    let lines = |negotiation: &str| {
        format!(
            "primary = \"localhost:{}\"\nserver_tls_sslmode = \"verify-full\"\nserver_tls_ca_file = \"{}\"\n\
             server_tls_negotiation = \"{negotiation}\"",
            inner.port(),
            files.ca.display()
        )
    };
    for negotiation in ["direct", "postgres"] {
        assert_eq!(through(&lines(negotiation)).as_deref(), Ok("f"), "{negotiation}: PostgreSQL sees the inner one");
    }
    let old = Cluster::builder().tls(true).start().unwrap();
    let port = old.primary().port();
    let lines = format!(
        "primary = \"127.0.0.1:{port}\"\nserver_tls_sslmode = \"require\"\nserver_tls_negotiation = \"direct\""
    );
    let knows =
        old.primary().value_in("postgres", "SELECT current_setting('server_version_num')::int >= 170000").unwrap();
    match through(&lines) {
        Ok(encrypted) => assert_eq!((encrypted.as_str(), knows.as_str()), ("t", "t")),
        Err(error) => {
            assert_eq!(knows, "f", "{error}");
            assert!(error.starts_with("08006") && error.contains("TLS handshake failed"), "{error}");
        }
    }
}

/// New files under the same names are used by new connections after a reload; the old ones are not disturbed.
#[test]
fn server_certificates_are_read_again_on_reload() {
    let cluster = Cluster::builder().tls(true).start().unwrap();
    let right = cluster.certificates().unwrap();
    let folder = integration::Run::current().unwrap().folder("serverca").unwrap();
    let ca = folder.join("ca.crt");
    std::fs::copy(&right.ca, &ca).unwrap();
    let lines = format!(
        "primary = \"127.0.0.1:{}\"\nserver_tls_sslmode = \"verify-ca\"\nserver_tls_ca_file = \"{}\"",
        cluster.primary().port(),
        ca.display()
    );
    let conf = Conf::database_only(&lines)
        .listen("auth_type = \"trust\"")
        .user(USER, "")
        .size(2)
        .pool("query_wait_timeout = \"1s\"");
    let pgweir = conf.start();
    let mut first = Client::connect(pgweir.port());
    let pid = first.value("SELECT 0 + pg_backend_pid()");
    assert_eq!(first.query("BEGIN"), Ok(Vec::new()));
    std::fs::copy(Certificates::new().unwrap().ca, &ca).unwrap();
    pgweir.reload(&conf.text()).unwrap();
    let mut second = Client::connect(pgweir.port());
    crate::common::eventually("another authority is asked of new connections", || {
        pgweir.log().contains("configuration reloaded")
    });
    let refused = second.query("SELECT 1").err().unwrap_or_default();
    assert!(refused.contains("certificate") || pgweir.log().contains("certificate"), "{refused}");
    assert_eq!(first.value("SELECT 0 + pg_backend_pid()"), pid, "nothing was dropped");
    assert_eq!(first.query("COMMIT"), Ok(Vec::new()));
    std::fs::copy(&right.ca, &ca).unwrap();
    pgweir.reload(&conf.text()).unwrap();
    crate::common::eventually("the right authority again", || {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        client.welcome().is_ok() && client.query("SELECT 1").is_ok()
    });
}
