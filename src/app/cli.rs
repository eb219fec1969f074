//! The command line.
//! Must never start anything before the configuration is known to be good.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// Exit status for a bad configuration or command line.
const BAD_CONFIGURATION: u8 = 2;

/// A PostgreSQL proxy: pools connections, sends reads to replicas, measures every query.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients.
    ///
    /// With a URL and no configuration file: one database, one user, clients on 127.0.0.1:6432,
    /// metrics on http://127.0.0.1:9127/metrics. With a password in the URL clients must give it
    /// too; without one they are trusted.
    Run {
        /// The primary: postgres://user[:password]@host[:port]/database
        #[arg(required_unless_present = "config", conflicts_with = "config")]
        url: Option<String>,
        /// A streaming replica of it; may be repeated.
        #[arg(long, value_name = "URL", conflicts_with = "config")]
        replica: Vec<String>,
        /// Configuration file; config/reference.toml explains every key.
        #[arg(long, short, value_name = "FILE", env = "PGWEIR_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Read a configuration file and say everything that is wrong with it.
    ///
    /// Exit status 0 if nothing is, 2 otherwise. Warnings, of what can work but was hardly meant, are no errors.
    Check {
        /// Configuration file.
        file: PathBuf,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { file } => match Config::load(&file) {
            Ok(config) => {
                if !config.warnings.is_empty() {
                    eprintln!("{}", config.warnings);
                }
                println!(
                    "{}: good ({} databases, {} users)",
                    file.display(),
                    config.databases.len(),
                    config.users.len()
                );
                ExitCode::SUCCESS
            }
            Err(problems) => {
                eprintln!("{problems}");
                ExitCode::from(BAD_CONFIGURATION)
            }
        },
        Command::Run { url, replica, config } => {
            let loaded = match (&config, &url) {
                (Some(file), _) => Config::load(file),
                (None, Some(url)) => Config::from_urls(url, &replica),
                (None, None) => return ExitCode::from(BAD_CONFIGURATION),
            };
            match loaded {
                Ok(loaded) => run(loaded, config.as_deref()),
                Err(problems) => {
                    eprintln!("{problems}");
                    ExitCode::from(BAD_CONFIGURATION)
                }
            }
        }
    }
}

fn run(config: Config, file: Option<&Path>) -> ExitCode {
    if let Err(error) = super::log::start(&config.log) {
        eprintln!("error: {error}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    super::log::warnings(&config);
    match super::boot::boot(config).and_then(|running| super::run::run(running, file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
