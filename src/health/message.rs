//! Alerts in the forms that webhooks take.
//! Must never say more than the alert does: no statement, no secret.

use serde_json::{Map, Value, json};

use super::board::{Alert, AlertState};
use crate::config::WebhookFormat;

/// A request's body for these alerts.
pub(super) fn body(format: WebhookFormat, alerts: &[Alert], instance: &str) -> String {
    match format {
        WebhookFormat::Alertmanager => {
            Value::Array(alerts.iter().map(|it| alertmanager(it, instance)).collect()).to_string()
        }
        WebhookFormat::Slack => {
            let lines: Vec<String> = alerts.iter().map(|alert| slack(alert, instance)).collect();
            json!({ "text": lines.join("\n") }).to_string()
        }
    }
}

/// As `postableAlerts` of Alertmanager's API, version 2 (its api/v2/openapi.yaml).
fn alertmanager(alert: &Alert, instance: &str) -> Value {
    let mut labels: Map<String, Value> =
        alert.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    labels.insert("alertname".to_owned(), json!(format!("pgweir_{}", alert.kind.name())));
    labels.insert("severity".to_owned(), json!(alert.kind.severity().as_str()));
    labels.insert("instance".to_owned(), json!(instance));
    let mut it = json!({
        "labels": labels,
        "annotations": { "summary": alert.summary(), "description": alert.kind.action() },
        "startsAt": rfc3339(alert.fired_unix_s.unwrap_or(alert.since_unix_s)),
    });
    if alert.state == AlertState::Resolved
        && let Some(it) = it.as_object_mut()
    {
        it.insert("endsAt".to_owned(), json!(rfc3339(alert.since_unix_s)));
    }
    it
}

fn slack(alert: &Alert, instance: &str) -> String {
    // Slack's own three (its documentation, "Formatting text for app surfaces").
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let word = match alert.state {
        AlertState::Firing => format!("*{}*", alert.kind.severity().as_str()),
        AlertState::Pending | AlertState::Resolved => alert.state.as_str().to_owned(),
    };
    let advice = if alert.state == AlertState::Firing { format!("\n{}", alert.kind.action()) } else { String::new() };
    format!("{word} pgweir {}: {}{}", escaped(instance), escaped(&alert.summary()), escaped(&advice))
}

/// A moment as RFC 3339 has it, in UTC. The date by Howard Hinnant's `civil_from_days`: years begin in March, so that leap days come last.
fn rfc3339(unix_s: f64) -> String {
    let whole = unix_s.max(0.0) as u64;
    let millis = ((unix_s - whole as f64) * 1000.0) as u64;
    let (days, second) = (whole / 86_400 + 719_468, whole % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(rfc3339(1_709_251_199.25), "2024-02-29T23:59:59.250Z");
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00.000Z");
    }

    fn alert(state: AlertState) -> Alert {
        let mut board = super::super::board::Board::default();
        let finding = super::super::findings::Finding {
            kind: crate::health::Kind::HostDown,
            labels: vec![("database", "a<b".to_owned()), ("host", "h:1".to_owned())],
            value: 1.0,
            threshold: 1.0,
            fires: true,
            clears: false,
            after: std::time::Duration::ZERO,
        };
        let fired = board.note(vec![finding], 1, 1_709_251_199.0);
        let over = board.note(Vec::new(), 2, 1_709_251_200.0);
        let all = if state == AlertState::Firing { fired } else { over };
        all.into_iter().next().unwrap_or_else(|| panic!("no alert"))
    }

    #[test]
    fn forms_are_those_of_alertmanager_and_slack() {
        let fired = body(WebhookFormat::Alertmanager, &[alert(AlertState::Firing)], "i:6432");
        let fired: Value = serde_json::from_str(&fired).unwrap_or_default();
        let labels = json!({ "alertname": "pgweir_host_down", "severity": "critical", "instance": "i:6432", "database": "a<b", "host": "h:1" });
        assert_eq!(fired[0]["labels"], labels);
        assert_eq!((&fired[0]["startsAt"], fired[0].get("endsAt")), (&json!("2024-02-29T23:59:59.000Z"), None));
        let over = body(WebhookFormat::Alertmanager, &[alert(AlertState::Resolved)], "i");
        let over: Value = serde_json::from_str(&over).unwrap_or_default();
        assert_eq!(
            (&over[0]["startsAt"], &over[0]["endsAt"]),
            (&json!("2024-02-29T23:59:59.000Z"), &json!("2024-03-01T00:00:00.000Z"))
        );
        let said = body(WebhookFormat::Slack, &[alert(AlertState::Firing), alert(AlertState::Resolved)], "i");
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        let text = said["text"].as_str().unwrap_or_default();
        assert!(
            text.starts_with("*critical* pgweir i: the host does not answer (database a&lt;b, host h:1)\n"),
            "{text}"
        );
        assert!(text.ends_with("\nresolved pgweir i: the host does not answer (database a&lt;b, host h:1)"), "{text}");
    }
}
