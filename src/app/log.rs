//! Where log lines go and what they look like.
//! Must never be set up twice.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, Log, LogFormat};

/// Starts logging to standard error.
///
/// # Errors
/// The level is not understood, or logging was started before.
pub fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives(&log.level)).map_err(|error| format!("log.level: {error}"))?;
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())
}

/// The level as configured, but that rustls, which tells every step of every handshake, warns at most unless it is
/// named itself.
fn directives(level: &str) -> String {
    let all = level.split(',').rfind(|part| !part.contains(['=', '[']));
    let talkative =
        all.is_some_and(|word| matches!(word.trim().to_ascii_lowercase().as_str(), "info" | "debug" | "trace"));
    if talkative && !level.contains("rustls") { format!("{level},rustls=warn") } else { level.to_owned() }
}

/// Logs what the configuration says that was hardly meant.
pub(super) fn warnings(config: &Config) {
    for warning in config.warnings.iter() {
        tracing::warn!("{}", warning.in_one_line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustls_is_quiet_unless_asked_for() {
        for level in ["debug", "trace", "Info", "pgweir::pool=warn,debug", "debug,pgweir=trace"] {
            assert_eq!(directives(level), format!("{level},rustls=warn"));
        }
        for level in ["warn", "error", "off", "debug,rustls=trace", "pgweir=debug", "rustls::server=debug,info"] {
            assert_eq!(directives(level), level);
        }
        assert!(EnvFilter::try_new(directives("debug")).is_ok());
    }
}
