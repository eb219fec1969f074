//! Alerts in the forms that webhooks and who listens take.
//! Must never say more than the alert does: no statement, no secret.

use serde_json::{Map, Value, json};

use super::board::{Alert, AlertState};
use crate::base::calendar::Moment;
use crate::config::WebhookFormat;

/// A notification is shorter, in bytes: `NOTIFY_PAYLOAD_MAX_LENGTH` of PostgreSQL's `src/backend/commands/async.c`.
const PAYLOAD_MAX: usize = 8000;

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

/// A notification's payload: what `/api/database/alerts` says of an alert, and who says it. Where that is more than PostgreSQL takes, its
/// texts are cut short.
pub(super) fn notice(alert: &Alert, instance: &str) -> String {
    let with = |chars_max: usize| {
        let cut = |text: &str| text.chars().take(chars_max).collect::<String>();
        let labels: Map<String, Value> =
            alert.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(cut(value)))).collect();
        let notice = json!({
            "instance": cut(instance),
            "alert": alert.kind.name(),
            "severity": alert.kind.severity().as_str(),
            "state": alert.state.as_str(),
            "since_unix_seconds": alert.since_unix_s,
            "labels": labels,
            "value": alert.value,
            "threshold": alert.threshold,
            "unit": alert.kind.unit().as_str(),
            "summary": cut(&alert.summary()),
            "action": alert.kind.action(),
        });
        notice.to_string()
    };
    // The least is short whatever the characters: there are a handful of labels, and JSON writes a character in 6 bytes at most.
    [usize::MAX, 500, 50].into_iter().map(with).find(|text| text.len() < PAYLOAD_MAX).unwrap_or_else(|| with(0))
}

/// A moment as RFC 3339 has it, in UTC.
pub(super) fn rfc3339(unix_s: f64) -> String {
    let whole = unix_s.max(0.0) as u64;
    let millis = ((unix_s - whole as f64) * 1000.0) as u64;
    let moment = Moment::at(whole);
    format!("{}T{}.{millis:03}Z", moment.date(), moment.time())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(rfc3339(1_709_251_199.25), "2024-02-29T23:59:59.250Z");
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00.000Z");
    }

    pub(in crate::health) fn alert(state: AlertState) -> Alert {
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
    fn a_notification_is_never_too_long() {
        let mut alert = alert(AlertState::Firing);
        let short: Value = serde_json::from_str(&notice(&alert, "i:6432")).unwrap_or_default();
        assert_eq!(
            (&short["alert"], &short["labels"]["host"], &short["state"], &short["instance"]),
            (&json!("host_down"), &json!("h:1"), &json!("firing"), &json!("i:6432"))
        );
        for much in ["x", "\u{1}", "\u{1f600}"] {
            alert.labels[0].1 = much.repeat(9000);
            let text = notice(&alert, "i");
            assert!(text.len() < PAYLOAD_MAX && text.len() > 500, "{}", text.len());
            let long: Value = serde_json::from_str(&text).unwrap_or_default();
            assert_eq!((&long["labels"]["host"], &long["value"]), (&json!("h:1"), &json!(1.0)));
        }
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
