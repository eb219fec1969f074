//! The configuration anew, or with a setting changed on the console.
//! Must never let half of it take effect.

use std::sync::Arc;

use super::boot::{Running, name_databases};
use super::discover;
use super::run::Stats;
use crate::config::{Config, ConfigFile, Problems};
use crate::export;
use crate::gate::{self, Order};
use crate::net::tls::Listener;
use crate::worker::Mail;

/// A setting, named by its tables and its name, and its value.
pub(super) type Change = (Vec<&'static str>, String);

/// Reads the configuration again, or what was read with a `change`: all of it takes effect, or none, and what is wrong with it is returned.
pub(super) async fn reload(
    running: &mut Running,
    stats: Option<&Stats>,
    file: &mut Option<ConfigFile>,
    change: Option<Change>,
) -> Result<(), String> {
    let Some(file) = file else {
        let why = "pgweir was started without a configuration file";
        tracing::warn!("there is nothing to reload or to change: {why}");
        return Err(why.to_owned());
    };
    let read = match &change {
        None => ConfigFile::read(file.path()).map_err(|problems: Problems| problems.to_string()),
        Some((setting, value)) => file.with(setting, value),
    };
    let ready = read.and_then(|(read, config)| {
        let tls = gate::client_tls(&config).map_err(|error| error.to_string())?;
        let stats_tls = export::server_tls(&config.stats).map_err(|error| error.to_string())?;
        crate::audit::probe(config.audit.as_ref())?;
        Ok((read, config, tls, stats_tls))
    });
    let (read, config, tls, stats_tls) = match ready {
        Ok(ready) => ready,
        Err(why) => {
            if change.is_none() {
                running.registry.note_reload(false);
                tracing::error!("the configuration is refused and the old one stays in force:\n{why}");
            }
            return Err(why);
        }
    };
    super::log::warnings(&config);
    adopt(running, config, tls).await;
    if let Some(stats) = stats {
        stats.guard.reload(&running.config.stats, stats_tls);
    }
    let before = std::mem::replace(file, read);
    running.registry.note_reload(true);
    match change {
        Some((setting, value)) => {
            tracing::info!("set on the console, until the next reload: {} = {value:?}", setting.join("."));
        }
        None => {
            if !before.changed.is_empty() {
                tracing::info!("as the file says again, not as the console has said: {}", before.changed.join(", "));
            }
            tracing::info!("configuration reloaded from {}", file.path().display());
        }
    }
    Ok(())
}

/// Lets a configuration that is good take effect everywhere but on the stats port.
async fn adopt(running: &mut Running, mut config: Config, tls: Option<Arc<Listener>>) {
    for what in needs_restart(&running.config, &config) {
        tracing::warn!("{what} has changed; that takes effect at the next start");
    }
    stays(&mut config, &running.config);
    discover::fill(&mut config, Some(&running.config)).await;
    let config = Arc::new(config);
    name_databases(&running.registry, &config);
    let _ = running.gate.send(Order::Reload(Arc::clone(&config), tls));
    for worker in &running.workers {
        let _ = worker.send(Mail::Reload(Arc::clone(&config)));
    }
    running.audit.0.reopen(config.audit.as_ref());
    running.traces.0.reconfigure(config.traces.as_ref());
    running.config = config;
}

/// What is as it was at the start until the next is said to be so.
fn stays(config: &mut Config, running: &Config) {
    let (was, is) = (&running.listen, &mut config.listen);
    is.address.clone_from(&was.address);
    is.unix_socket.clone_from(&was.unix_socket);
    (is.port, is.so_reuseport, is.listen_backlog) = (was.port, was.so_reuseport, was.listen_backlog);
    // Clients have keys with it.
    is.instance_id = was.instance_id;
    let (was, is) = (&running.stats, &mut config.stats);
    (is.address, is.max_shapes, is.max_series) = (was.address, was.max_shapes, was.max_series);
    if is.tls_cert_file.is_some() != was.tls_cert_file.is_some() {
        is.tls_cert_file.clone_from(&was.tls_cert_file);
        is.tls_key_file.clone_from(&was.tls_key_file);
    }
    config.workers = running.workers;
    config.log.clone_from(&running.log);
}

fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let (was, is) = (&old.listen, &new.listen);
    if (&was.address, was.port, was.so_reuseport) != (&is.address, is.port, is.so_reuseport)
        || (&was.unix_socket, was.listen_backlog) != (&is.unix_socket, is.listen_backlog)
    {
        changed.push("an address, socket or backlog of [listen]");
    }
    if was.instance_id != is.instance_id {
        changed.push("`instance_id`");
    }
    let (was, is) = (&old.stats, &new.stats);
    if (was.address, was.max_shapes, was.max_series, was.tls_cert_file.is_some())
        != (is.address, is.max_shapes, is.max_series, is.tls_cert_file.is_some())
    {
        changed.push("the address, TLS at all, `max_shapes` or `max_series` of [stats]");
    }
    if old.workers != new.workers {
        changed.push("`workers`");
    }
    if old.log != new.log {
        changed.push("[log]");
    }
    changed
}
