//! What `[alerts]` becomes, and what is said of marks and URLs that cannot be.
//! Must never depend on this machine.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;

const REST: &str = "[databases.d]\nprimary = \"h\"\n[users.u]\npassword = \"x\"\n";

fn said(alerts: &str) -> String {
    Config::parse(&format!("{alerts}\n{REST}"), "f.toml").unwrap_err().to_string()
}

fn accepted(alerts: &str) -> Alerts {
    Config::parse(&format!("{alerts}\n{REST}"), "f.toml").unwrap_or_else(|problems| panic!("{problems}")).alerts
}

#[test]
fn marks_and_what_turns_them_off() {
    let alerts = accepted(
        "[alerts]\ninterval = \"1s\"\n[alerts.pool_use]\nabove = 40\n[alerts.errors]\nenabled = false\n\
         [alerts.host_down]\nafter = 0\n[alerts.failover]\nenabled = false\n[alerts.certificate_expiry]\nbefore = \"30d\"\n\
         [alerts.replication_lag]\nabove = \"10s\"\nclear = \"1s\"\nafter = \"5s\"",
    );
    let pool_use = alerts.pool_use.unwrap();
    assert!((pool_use.above - 0.4).abs() < 1e-9 && (pool_use.clear - 0.35).abs() < 1e-9, "{pool_use:?}");
    assert_eq!(pool_use.after, Duration::from_secs(60));
    assert_eq!((alerts.errors, alerts.failover), (None, None));
    assert_eq!(alerts.host_down, Some(Duration::ZERO));
    assert_eq!(alerts.certificate_expiry, Some(Duration::from_secs(30 * 86_400)));
    let lag = alerts.replication_lag.unwrap();
    assert_eq!((lag.above, lag.clear, lag.after), (10.0, 1.0, Duration::from_secs(5)));
    assert_eq!(alerts.slow_queries, Alerts::default().slow_queries);
}

#[test]
fn marks_that_cannot_be() {
    assert!(
        said("[alerts.pool_use]\nabove = 60\nclear = 70").contains("alert `pool_use` would be over at a higher mark")
    );
    assert!(said("[alerts.replication_lag]\nclear = \"2s\"").contains("alert `replication_lag` would be over"));
    assert!(said("[alerts.pool_use]\nabove = 101").contains("`alerts.pool_use.above` has no valid value"));
    for interval in ["99ms", "11s"] {
        let said = said(&format!("[alerts]\ninterval = \"{interval}\""));
        assert!(said.contains("a duration from \"100ms\" to \"10s\""), "{said}");
    }
    assert!(said("[alerts.host_down]\nabove = 1").contains("unknown key `above` in [alerts.host_down]"));
}

#[test]
fn emails() {
    let who = "from = \"a@b.example\"\nto = [\"Ops <o@b.example>\"]";
    let email = |lines: &str| accepted(&format!("[alerts.emails.a]\n{who}\n{lines}")).emails["a"].clone();
    let found = email("smtp = \"mail.example\"\nuser = \"u\"\npassword = \"hunter2\"");
    assert_eq!((found.host.as_str(), found.port, found.tls), ("mail.example", 587, SmtpTls::StartTls));
    assert!(!format!("{found:?}").contains("hunter2"));
    assert_eq!(email("smtp = \"[::1]\"\ntls = \"off\"").host, "::1");
    assert_eq!(email("smtp = \"h\"\ntls = \"tls\"").port, 465);
    assert_eq!(email("smtp = \"h:2525\"\ntls = \"insecure\"").port, 2525);
    let refused = |lines: &str| said(&format!("[alerts.emails.a]\n{lines}"));
    for smtp in ["", "h:", "h:0", "h:x", "h:65536", "u@h", "smtp://h", "h/x"] {
        let said = refused(&format!("smtp = \"{smtp}\"\n{who}"));
        assert!(said.contains("`alerts.emails.a.smtp`"), "{smtp}: {said}");
    }
    let nothing = refused("");
    for what in ["mail server", "sender", "recipient"] {
        assert!(nothing.contains(&format!("e-mail `a` has no {what}")), "{nothing}");
    }
    let clear = refused(&format!("smtp = \"mail.example\"\ntls = \"off\"\n{who}"));
    assert!(clear.contains("would go to mail.example unencrypted"), "{clear}");
    assert!(refused(&format!("smtp = \"h\"\nuser = \"u\"\n{who}")).contains("a user without a password"));
    assert!(refused("smtp = \"h\"\nfrom = \"x\"\nto = [\"a@b\"]").contains("`alerts.emails.a.from`"));
    assert!(refused("smtp = \"h\"\nfrom = \"a@b\"\nto = [\"a@b\", \"c\"]").contains("`alerts.emails.a.to`"));
    assert!(refused("smtp = \"h\"\nfrom = \"a@b\"\nto = []").contains("at least one address"));
}

#[test]
fn notifications() {
    let with = |lines: &str| accepted(&format!("[alerts.notify]\ndatabase = \"d\"\n{lines}")).notify.unwrap();
    let found = with("user = \"u\"\npassword = \"x\"\nchannel = \"Loud\"");
    assert_eq!((found.user.as_str(), found.channel.as_str()), ("u", "Loud"));
    let refused = |lines: &str| said(&format!("[alerts.notify]\n{lines}"));
    assert!(refused("").contains("does not say in which database"));
    assert!(refused("database = \"e\"").contains("names `e`, which is no database"));
    assert!(refused("database = \"d\"").contains("does not say as whom to log in to database `d`"));
    assert!(refused("database = \"d\"\npassword = \"x\"").contains("no `user` it belongs to"));
    let channel = "c".repeat(64);
    assert!(refused(&format!("database = \"d\"\nuser = \"u\"\nchannel = \"{channel}\"")).contains("at most 63 bytes"));
    let own = "[alerts.notify]\ndatabase = \"d\"\n[databases.d]\nprimary = \"h\"\nuser = \"o\"\n[users.u]\npassword = \"x\"\n";
    let config = Config::parse(own, "f.toml").unwrap();
    let found = config.alerts.notify.unwrap();
    assert_eq!((found.user.as_str(), found.channel.as_str()), ("o", AlertNotify::CHANNEL));
}

#[test]
fn webhooks() {
    let alerts = accepted(
        "[alerts.webhooks.a]\nurl = \"http://h/x?y\"\n[alerts.webhooks.b]\nurl = \"https://[::1]:9/\"\nformat = \"slack\"\ntimeout = \"1s\"",
    );
    assert_eq!(alerts.webhooks["a"].format, WebhookFormat::Alertmanager);
    assert_eq!(alerts.webhooks["b"].timeout, Duration::from_secs(1));
    assert_eq!(alerts.webhooks["a"].uri().unwrap().path_and_query().unwrap().as_str(), "/x?y");
    for url in ["h/x", "ftp://h/x", "http://", "http://user:hunter2@h/x", "https://h/hunter2 x", "/hunter2"] {
        let said = said(&format!("[alerts.webhooks.a]\nurl = \"{url}\""));
        assert!(said.contains("webhook `a` has no URL that pgweir understands"), "{url}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert!(said("[alerts.webhooks.a]\nformat = \"slack\"").contains("webhook `a` has no URL"));
    assert!(
        said("[alerts.webhooks.a]\nurl = \"http://h\"\nauthorization = \"a\\nb\"")
            .contains("does not fit into a header")
    );
}
