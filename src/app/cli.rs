//! The command line.
//! Must never start anything before the configuration is known to be good.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigFile};

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
    /// Say which server would get a statement, and why.
    ///
    /// From the configuration, the text, and the catalog of the database if its primary answers. Exit status 0, or 2 for a bad configuration or database.
    ExplainRoute {
        /// Configuration file.
        #[arg(long, short, value_name = "FILE", env = "PGWEIR_CONFIG")]
        config: PathBuf,
        /// The database, as clients name it. May be left out if there is only one.
        #[arg(long, short)]
        database: Option<String>,
        /// The user who sends it.
        #[arg(long, short, default_value = "")]
        user: String,
        /// The application_name under which it is sent, for rules that ask for it.
        #[arg(long, short, default_value = "")]
        application_name: String,
        /// The statement.
        sql: String,
    },
    /// Show pools, queries and replicas of a running instance at this terminal.
    ///
    /// From the JSON of its stats port, here or elsewhere; ? tells what the keys do. NO_COLOR is obeyed.
    Top(super::top::Options),
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
        Command::ExplainRoute { config, database, user, application_name, sql } => {
            let loaded = Config::load(&config).map_err(|problems| problems.to_string());
            let database = database.as_deref();
            match loaded.and_then(|it| super::explain::explain(&it, database, &user, &application_name, &sql)) {
                Ok(told) => {
                    print!("{told}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::from(BAD_CONFIGURATION)
                }
            }
        }
        Command::Top(options) => top(&options),
        Command::Run { url, replica, config } => {
            let loaded = match (&config, &url) {
                (Some(file), _) => ConfigFile::read(file).map(|(file, config)| (config, Some(file))),
                (None, Some(url)) => Config::from_urls(url, &replica).map(|config| (config, None)),
                (None, None) => return ExitCode::from(BAD_CONFIGURATION),
            };
            match loaded {
                Ok((config, file)) => run(config, file),
                Err(problems) => {
                    eprintln!("{problems}");
                    ExitCode::from(BAD_CONFIGURATION)
                }
            }
        }
    }
}

fn top(options: &super::top::Options) -> ExitCode {
    match super::top::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(super::top::Failure::Asked(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(BAD_CONFIGURATION)
        }
        Err(super::top::Failure::Failed(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, file: Option<ConfigFile>) -> ExitCode {
    if let Err(error) = super::log::start(&config.log) {
        eprintln!("error: {error}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    super::log::warnings(&config);
    match super::run::run(config, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
