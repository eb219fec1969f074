//! Sends alerts as one e-mail.
//! Must never say more than the alerts do, nor go on in the clear where TLS was asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use lettre::message::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::board::{Alert, AlertState};
use super::deliver::Failure;
use super::message::rfc3339;
use crate::config::{Email, SmtpTls};

/// Longest subject, in characters.
const SUBJECT_MAX: usize = 200;

/// Sends one mail.
pub(super) async fn send(email: &Email, alerts: &[Alert], instance: &str) -> Result<(), Failure> {
    let message = message(email, alerts, instance)?;
    let transport = transport(email, instance)?;
    // 5yz: the same will not do later either (RFC 5321, section 4.2.1).
    transport.send(message).await.map(drop).map_err(|error| match error.is_permanent() {
        true => Failure::Never(error.to_string()),
        false => Failure::Later(error.to_string()),
    })
}

fn transport(email: &Email, instance: &str) -> Result<AsyncSmtpTransport<Tokio1Executor>, Failure> {
    let tls = match email.tls {
        SmtpTls::StartTls => Tls::Required(parameters(email)?),
        SmtpTls::Implicit => Tls::Wrapper(parameters(email)?),
        SmtpTls::Off | SmtpTls::Insecure => Tls::None,
    };
    let mut builder =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host).port(email.port).tls(tls).timeout(None);
    // Servers want a full name or an address: without the one lettre says the other.
    if let Some((host, _)) = instance.rsplit_once(':').filter(|(host, _)| host.contains('.')) {
        builder = builder.hello_name(ClientId::Domain(host.to_owned()));
    }
    if let Some((user, password)) = &email.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    Ok(builder.build())
}

fn parameters(email: &Email) -> Result<TlsParameters, Failure> {
    let mut builder = TlsParameters::builder(email.host.clone());
    if let Some(path) = &email.ca_file {
        let unusable = |why: String| Failure::Later(format!("CA file {}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let authorities = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(authorities);
    }
    builder.build_rustls().map_err(|error| Failure::Later(error.to_string()))
}

fn message(email: &Email, alerts: &[Alert], instance: &str) -> Result<Message, Failure> {
    let never = |error: &dyn std::fmt::Display| Failure::Never(error.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = format!("<pgweir.{}.{}@{}>", now.as_nanos(), std::process::id(), email.from.email.domain());
    let mut builder =
        Message::builder().from(email.from.clone()).subject(subject(alerts, instance)).message_id(Some(id));
    for to in &email.to {
        builder = builder.to(to.clone());
    }
    // Nobody's absence is to be told of to it (RFC 3834, section 5).
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    builder
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN)
        .body(text(alerts, instance))
        .map_err(|error| never(&error))
}

/// What is in a line of a mail's head: no control characters, and not too much.
fn subject(alerts: &[Alert], instance: &str) -> String {
    let said = match alerts {
        [alert] => format!("{}: {}", word(alert), alert.summary()),
        _ => {
            let over = alerts.iter().filter(|alert| alert.state == AlertState::Resolved).count();
            match (alerts.len() - over, over) {
                (firing, 0) => format!("{firing} firing"),
                (0, over) => format!("{over} resolved"),
                (firing, over) => format!("{firing} firing, {over} resolved"),
            }
        }
    };
    let subject = format!("pgweir {instance}: {said}");
    subject.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SUBJECT_MAX).collect()
}

/// How bad it is, or that it is over.
fn word(alert: &Alert) -> &'static str {
    match alert.state {
        AlertState::Firing => alert.kind.severity().as_str(),
        AlertState::Pending | AlertState::Resolved => alert.state.as_str(),
    }
}

fn text(alerts: &[Alert], instance: &str) -> String {
    let mut text = format!("pgweir {instance}\n");
    for alert in alerts {
        text.push_str(&format!("\n{}: {}\n  alert: {}\n", word(alert), alert.kind.what(), alert.kind.name()));
        for (name, value) in &alert.labels {
            text.push_str(&format!("  {name}: {value}\n"));
        }
        let fired = rfc3339(alert.fired_unix_s.unwrap_or(alert.since_unix_s));
        text.push_str(&format!("  since: {fired}\n"));
        if alert.state == AlertState::Resolved {
            text.push_str(&format!("  over since: {}\n", rfc3339(alert.since_unix_s)));
        }
        if let Some((value, threshold)) = alert.marks() {
            text.push_str(&format!("  value: {value}\n  threshold: {threshold}\n"));
        }
        if alert.state == AlertState::Firing {
            text.push_str(&format!("  what to do: {}\n", alert.kind.action()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::alert;
    use super::*;

    #[test]
    fn a_mail_says_what_where_since_when_and_what_to_do() {
        let (firing, over) = (alert(AlertState::Firing), alert(AlertState::Resolved));
        let one = std::slice::from_ref(&firing);
        assert_eq!(
            subject(one, "i:6432"),
            "pgweir i:6432: critical: the host does not answer (database a<b, host h:1)"
        );
        assert_eq!(subject(&[firing.clone(), over.clone()], "i"), "pgweir i: 1 firing, 1 resolved");
        assert_eq!(
            text(&[firing, over], "i"),
            "pgweir i\n\ncritical: the host does not answer\n  alert: host_down\n  database: a<b\n  host: h:1\n  \
             since: 2024-02-29T23:59:59.000Z\n  what to do: Look at the server and the way to it, or take it out of the \
             configuration.\n\nresolved: the host does not answer\n  alert: host_down\n  database: a<b\n  host: h:1\n  \
             since: 2024-02-29T23:59:59.000Z\n  over since: 2024-03-01T00:00:00.000Z\n"
        );
    }

    #[test]
    fn a_subject_is_one_line() {
        let subject = subject(&[alert(AlertState::Firing)], "a\r\nBcc: x");
        assert!(!subject.contains(['\r', '\n']), "{subject}");
        assert!(super::subject(&[alert(AlertState::Firing)], &"x".repeat(999)).chars().count() <= SUBJECT_MAX);
    }
}
