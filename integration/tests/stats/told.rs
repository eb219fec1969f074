//! Alerts by e-mail, to a real mail server, and by NOTIFY, to who really listens.
//! It must never wait for the clock: what comes in is waited for.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use integration::{Certificates, Pgweir};
use serde_json::{Value, json};

use crate::alerts::{QUICK, hold};
use crate::common::{Client, PATIENCE, eventually, metric};
use crate::{cluster, conf, ready};

/// A mail server, and what it is offered.
struct Smtp {
    server: Child,
    port: u16,
    offered: Receiver<Value>,
}

impl Smtp {
    /// With a certificate it wants a login.
    fn start(mode: &str, refusals: u32, files: Option<&Certificates>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stats/smtp.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).args([mode, &refusals.to_string()]);
        command.args(files.into_iter().flat_map(|files| [&files.certificate, &files.key]));
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.next().expect("integration/test --setup installs python3-aiosmtpd").parse().unwrap();
        let (sender, offered) = channel();
        thread::spawn(move || lines.try_for_each(|line| sender.send(serde_json::from_str(&line).unwrap())));
        Self { server, port, offered }
    }

    fn mail(&self) -> Value {
        self.offered.recv_timeout(PATIENCE).expect("no mail")
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Nothing but what is done in the test is to be told of: at the start no primary has answered yet.
fn quick() -> String {
    QUICK.replace("[alerts.host_down]\nafter = 0", "[alerts.host_down]\nenabled = false")
}

fn count(pgweir: &Pgweir, kind: &str, receiver: &str, outcome: &str) -> f64 {
    let labels = [("kind", kind), ("receiver", receiver), ("outcome", outcome)];
    metric(pgweir, "pgweir_alert_notifications_total", &labels)
}

/// A section of `[alerts.emails]` without a wait.
fn email(name: &str, host: &str, smtp: &Smtp, lines: &str) -> String {
    format!(
        "[alerts.emails.{name}]\nsmtp = \"{host}:{}\"\nfrom = \"pgweir <pgweir@db.example>\"\ngroup_wait = 0\n\
         to = [\"ops@example.org\", \"Two <two@example.org>\"]\n{lines}\n",
        smtp.port
    )
}

#[test]
fn mail_is_sent_again_until_it_is_taken() {
    let files = Certificates::new().unwrap();
    let [starttls, tls] = ["starttls", "tls"].map(|mode| Smtp::start(mode, 1, Some(&files)));
    let [open, lacking] = [0, 0].map(|refusals| Smtp::start("plain", refusals, None));
    let login =
        |password: &str| format!("user = \"pgweir\"\npassword = \"{password}\"\nca_file = \"{}\"", files.ca.display());
    let emails = [
        email("submission", "localhost", &starttls, &login("mail-secret")),
        email("wrapped", "127.0.0.1", &tls, &format!("tls = \"tls\"\n{}", login("mail-secret"))),
        email("stranger", "localhost", &tls, &format!("tls = \"tls\"\n{}", login("wrong-secret"))),
        email("open", "127.0.0.1", &open, "tls = \"off\""),
        email("lacking", "localhost", &lacking, ""),
    ];
    let pgweir = conf().size(2).rest(&quick()).rest(&emails.concat()).start();
    ready(&pgweir);
    let mut holders = hold(&pgweir, "mailed");
    for _ in 0..2 {
        for smtp in [&starttls, &tls] {
            let mail = smtp.mail();
            assert_eq!((&mail["encrypted"], &mail["user"]), (&json!(true), &json!("pgweir")), "{mail:#}");
            assert_eq!((&mail["from"], &mail["to"][1]), (&json!("pgweir@db.example"), &json!("two@example.org")));
            let subject = mail["head"]["Subject"].as_str().unwrap();
            assert!(subject.contains(": warning: most servers of the pool are in use"), "{subject}");
            assert_eq!(mail["head"]["Auto-Submitted"], "auto-generated");
            assert!(mail["head"]["Message-ID"].as_str().unwrap().ends_with("@db.example>"), "{mail:#}");
            let text = mail["text"].as_str().unwrap();
            for line in ["alert: pool_use", "database: app", "value: 100 %", "threshold: 60 %", "what to do: Shorten"] {
                assert!(text.contains(line), "{line}: {text}");
            }
        }
    }
    let mail = open.mail();
    assert_eq!((&mail["encrypted"], &mail["user"]), (&json!(false), &json!(null)), "{mail:#}");
    holders.iter_mut().for_each(|holder| drop(holder.query("ROLLBACK").unwrap()));
    for smtp in [&starttls, &tls, &open] {
        let over = smtp.mail();
        assert!(over["head"]["Subject"].as_str().unwrap().contains(": resolved: most servers"), "{over:#}");
        assert!(over["text"].as_str().unwrap().contains("over since: 20"), "{over:#}");
    }
    eventually("everything is counted", || {
        ["submission", "wrapped"].iter().all(|name| count(&pgweir, "email", name, "sent") == 2.0)
    });
    for name in ["submission", "wrapped"] {
        let found = ["failed", "dropped"].map(|outcome| count(&pgweir, "email", name, outcome));
        assert_eq!(found, [1.0, 0.0], "{name}");
    }
    // Another password may help, trying the same again does not.
    eventually("a login that is refused is final", || count(&pgweir, "email", "stranger", "dropped") == 2.0);
    // Without STARTTLS nothing goes out in the clear, and it is said once however often it is tried.
    eventually("it is tried", || count(&pgweir, "email", "lacking", "failed") >= 2.0);
    assert_eq!(lacking.offered.try_recv().ok(), None);
    let log = pgweir.log();
    assert_eq!(log.lines().filter(|line| line.contains("could not be sent") && line.contains("lacking")).count(), 1);
    assert!(!log.contains("mail-secret") && !log.contains("wrong-secret"), "{log}");
}

#[test]
fn alerts_of_a_while_are_one_mail() {
    let smtp = Smtp::start("plain", 0, None);
    let email = email("ops", "127.0.0.1", &smtp, "tls = \"off\"").replace("group_wait = 0", "group_wait = \"3s\"");
    let pgweir = conf().size(2).rest(&quick()).rest(&email).start();
    ready(&pgweir);
    let mut holders = hold(&pgweir, "grouped");
    eventually("it fires", || metric(&pgweir, "pgweir_alert_firing", &[("alert", "pool_use")]) == 1.0);
    holders.iter_mut().for_each(|holder| drop(holder.query("ROLLBACK").unwrap()));
    let mail = smtp.mail();
    let text = mail["text"].as_str().unwrap();
    assert!(mail["head"]["Subject"].as_str().unwrap().contains(": 1 firing, 1 resolved"), "{mail:#}");
    assert!(text.contains("warning: most servers") && text.contains("resolved: most servers"), "{text}");
}

#[test]
fn who_listens_in_the_database_is_told() {
    let primary = cluster().primary();
    primary.query("DROP ROLE IF EXISTS pgweir_alerts").unwrap();
    // Full at first: that may pass.
    primary.query("CREATE ROLE pgweir_alerts LOGIN PASSWORD 'notify-secret' CONNECTION LIMIT 0").unwrap();
    let mut listener = Client::connect(primary.port());
    listener.query("LISTEN performance_alert").unwrap();
    // No client uses this database, so nobody knows who is its primary; the first host is none.
    let hosts = [cluster().replicas()[0].address(), primary.address()];
    let notify = format!(
        "[databases.aside]\ndbname = \"{}\"\nhosts = {hosts:?}\n[alerts.notify]\ndatabase = \"aside\"\n\
         user = \"pgweir_alerts\"\npassword = \"notify-secret\"\n",
        integration::DATABASE
    );
    let pgweir = conf().size(2).rest(&quick()).rest(&notify).start();
    ready(&pgweir);
    let mut holders = hold(&pgweir, "notified");
    eventually("it is tried again", || count(&pgweir, "notify", "aside", "failed") >= 2.0);
    let log = pgweir.log();
    assert_eq!(log.lines().filter(|line| line.contains("could not be sent")).count(), 1, "{log}");
    primary.query("ALTER ROLE pgweir_alerts CONNECTION LIMIT -1").unwrap();
    let mut heard = || {
        let frame = listener.read().unwrap();
        assert_eq!(frame.tag, b'A');
        let text = String::from_utf8_lossy(&frame.body[4..]).into_owned();
        let (channel, payload) = text.split_once('\0').unwrap();
        assert_eq!(channel, "performance_alert");
        serde_json::from_str::<Value>(payload.trim_end_matches('\0')).unwrap()
    };
    let fired = heard();
    assert_eq!((&fired["alert"], &fired["state"]), (&json!("pool_use"), &json!("firing")), "{fired:#}");
    assert_eq!((&fired["value"], &fired["labels"]["database"]), (&json!(1.0), &json!("app")), "{fired:#}");
    holders.iter_mut().for_each(|holder| drop(holder.query("ROLLBACK").unwrap()));
    let over = heard();
    assert_eq!((&over["alert"], &over["state"]), (&json!("pool_use"), &json!("resolved")), "{over:#}");
    eventually("both are counted", || count(&pgweir, "notify", "aside", "sent") == 2.0);
    assert_eq!(count(&pgweir, "notify", "aside", "dropped"), 0.0);
    assert!(!pgweir.log().contains("notify-secret"));
}
