//! `[alerts.webhooks.NAME]`: where alerts are sent to.
//! Must never show a URL: that of Slack's is a secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;

use super::check::Check;
use super::reader::{Field, Named};
use super::schema::RawWebhook;
use super::words::words;
use crate::base::secret::Secret;

words! {
    /// In which form alerts are sent.
    pub enum WebhookFormat {
        /// The list of alerts of Alertmanager's API, version 2: the URL ends in `/api/v2/alerts`.
        Alertmanager = "alertmanager",
        /// `{"text": ...}`, as Slack's incoming webhooks take it, and Mattermost's and others' after them.
        Slack = "slack",
    }
    refused {}
}

/// Somebody who is told of alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// `http://` or `https://`, host, path. Whether it can be understood has been checked.
    pub url: Secret,
    /// Default [`WebhookFormat::Alertmanager`].
    pub format: WebhookFormat,
    /// Value of the header `Authorization`, such as `Bearer ...`. Default: none.
    pub authorization: Option<Secret>,
    /// Certificates that may sign the host's, PEM. Default: those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How long one attempt may take. Default 10 s; never 0.
    pub timeout: Duration,
}

impl Webhook {
    /// Default of [`Webhook::timeout`].
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// The URL, taken apart.
    #[must_use]
    pub fn uri(&self) -> Option<Uri> {
        uri(&self.url)
    }
}

fn uri(url: &Secret) -> Option<Uri> {
    let uri: Uri = url.expose().parse().ok()?;
    let authority = uri.authority()?;
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty();
    (plain && matches!(uri.scheme_str(), Some("http" | "https"))).then_some(uri)
}

impl Check<'_> {
    pub(super) fn webhooks(&mut self, raw: Field<Named<RawWebhook>>) -> BTreeMap<String, Webhook> {
        let mut webhooks = BTreeMap::new();
        for (name, span, raw) in raw.set().unwrap_or_default().0 {
            let Some(raw) = raw else { continue };
            let expected = r#"such as "https://alertmanager:9093/api/v2/alerts", without a user or password"#;
            if raw.url.is_absent() {
                let title = format!("webhook `{name}` has no URL");
                self.reader.note(span.clone(), title, |problem| problem.expected(format!("url, {expected}")));
            }
            self.authorities_of(&format!("alerts.webhooks.{name}.ca_file"), &raw.ca_file);
            let at = raw.url.span().unwrap_or_else(|| span.clone());
            let has_authorization = raw.authorization.span();
            let authorization = self.secret(raw.authorization);
            if let (Some(span), Some(secret)) = (has_authorization, &authorization)
                && !secret.expose().bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
            {
                let title = format!("`authorization` of webhook `{name}` does not fit into a header");
                self.reader.note(span, title, |problem| problem.expected("printable ASCII characters"));
            }
            let Some(url) = self.secret(raw.url) else { continue };
            if uri(&url).is_none() {
                let title = format!("webhook `{name}` has no URL that pgweir understands");
                self.reader.note(at, title, |problem| problem.expected(expected));
            }
            let webhook = Webhook {
                url,
                format: raw.format.set().map_or(WebhookFormat::Alertmanager, |word| word.0),
                authorization,
                ca_file: self.file(raw.ca_file),
                timeout: raw.timeout.set().map_or(Webhook::TIMEOUT, |timeout| timeout.0),
            };
            webhooks.insert(name, webhook);
        }
        webhooks
    }
}
