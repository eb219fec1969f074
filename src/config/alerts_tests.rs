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
    assert!(said("[alerts]\ninterval = \"99ms\"").contains("at least \"100ms\""));
    assert!(said("[alerts.host_down]\nabove = 1").contains("unknown key `above` in [alerts.host_down]"));
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
