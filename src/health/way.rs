//! The ways alerts go out: HTTP, e-mail, NOTIFY.
//! Must never know how often something is tried: `deliver` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::board::Alert;
use super::deliver::Failure;
use super::{email, notify, webhook};
use crate::config::{AlertNotify, Alerts, Config, Email, Webhook, WebhookFormat};
use crate::pool::cluster::Clusters;

/// Who is told: in which way, and a name that is the only one there.
pub(super) type Receiver = (&'static str, String);

/// What messages are made and sent with.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// What this process is called.
    pub(super) instance: String,
    /// Who is the primary of a database.
    pub(super) clusters: Arc<Clusters>,
    /// The newest configuration: how the hosts of a database are reached.
    pub(super) config: Arc<ArcSwap<Config>>,
}

/// How one receiver is told.
#[derive(Clone, PartialEq)]
pub(super) enum Way {
    Webhook(Webhook),
    Email(Email),
    Notify(AlertNotify),
}

impl Way {
    /// Everybody who is to be told.
    pub(super) fn all(alerts: &Alerts) -> BTreeMap<Receiver, Self> {
        let webhooks = alerts.webhooks.iter().map(|(name, it)| (name, Self::Webhook(it.clone())));
        let emails = alerts.emails.iter().map(|(name, it)| (name, Self::Email(it.clone())));
        let notify = alerts.notify.iter().map(|it| (&it.database, Self::Notify(it.clone())));
        webhooks.chain(emails).chain(notify).map(|(name, way)| ((way.kind(), name.clone()), way)).collect()
    }

    /// Its word in metrics and the log.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
            Self::Notify(_) => "notify",
        }
    }

    /// How long one attempt may take.
    pub(super) const fn timeout(&self) -> Duration {
        match self {
            Self::Webhook(webhook) => webhook.timeout,
            Self::Email(email) => email.timeout,
            Self::Notify(notify) => notify.timeout,
        }
    }

    /// How long is waited for more that can go in the same message.
    pub(super) const fn group_wait(&self) -> Duration {
        match self {
            Self::Webhook(_) | Self::Notify(_) => Duration::ZERO,
            Self::Email(email) => email.group_wait,
        }
    }

    /// Whether it takes for over what it does not hear of again.
    pub(super) fn forgets(&self) -> bool {
        matches!(self, Self::Webhook(webhook) if webhook.format == WebhookFormat::Alertmanager)
    }

    /// Sends these alerts once.
    pub(super) async fn send(&self, alerts: &[Alert], home: &Home) -> Result<(), Failure> {
        match self {
            Self::Webhook(webhook) => webhook::send(webhook, alerts, &home.instance).await,
            Self::Email(email) => email::send(email, alerts, &home.instance).await,
            Self::Notify(notify) => notify::send(notify, alerts, home).await,
        }
    }
}
