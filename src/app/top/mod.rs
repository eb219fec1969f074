//! `pgweir top`: pools, queries and replicas of an instance at a terminal, from the JSON of its stats port.
//! Must never leave a terminal in another state than it found it in, nor change anything in the instance.

mod ask;
mod page;
mod state;
mod table;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc as threads;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::base::secret::Secret;
use crate::config::{Config, parse_duration};
use ask::{Answers, Target};
use state::State;

/// Where it is if nothing else is said: the default of `[stats]`.
const URL: &str = "http://127.0.0.1:9127";
/// How often keys, answers and the clock are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What the command line says.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The stats port; https:// if [stats] has a certificate. Default http://127.0.0.1:9127.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Configuration file of an instance on this machine: its [stats] says where, and by which token.
    #[arg(long, short, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// File with the secret of one of [stats.tokens]; the variable PGWEIR_STATS_TOKEN may hold it, too.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Authorities that may have signed the certificate, PEM. Default: the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How often values are asked for, at least 100ms.
    #[arg(long, default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Print all tables once as plain text, and end. Exit status 1 if there is no answer.
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let known = parse_duration(text).filter(|it| *it >= TICK);
    known.ok_or_else(|| "a duration of at least 100ms is expected, such as 2s".to_owned())
}

/// Why it does not run.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line or a file it names is wrong.
    Asked(String),
    /// The instance or the terminal does not do its part.
    Failed(String),
}

impl Options {
    fn target(&self) -> Result<Target, String> {
        let (mut url, mut token) = (self.url.clone().unwrap_or_else(|| URL.to_owned()), None);
        if let Some(file) = &self.config {
            let config = Config::load(file).map_err(|problems| problems.to_string())?;
            let address = config.stats.address.ok_or_else(|| format!("{}: [stats] is off", file.display()))?;
            let host = match address.ip() {
                ip if !ip.is_unspecified() => ip,
                ip if ip.is_ipv4() => std::net::Ipv4Addr::LOCALHOST.into(),
                _ => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            let scheme = if config.stats.tls_cert_file.is_some() { "https" } else { "http" };
            url = format!("{scheme}://{}", std::net::SocketAddr::new(host, address.port()));
            token = config.stats.tokens.values().next().map(|it| it.secret.clone());
        }
        let given = match &self.token_file {
            Some(file) => Some(read(file)?),
            None => std::env::var("PGWEIR_STATS_TOKEN").ok().map(Secret::new),
        };
        Target::new(&url, given.filter(|it| !it.is_empty()).or(token), self.ca_file.as_deref())
    }
}

fn read(file: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("token file {}: {error}", file.display()))?;
    Ok(Secret::new(text.trim().to_owned()))
}

/// Shows the tables until somebody leaves, or once.
///
/// # Errors
/// The command line is wrong, the terminal fails, or with `--once` there is no answer.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let target = options.target().map_err(Failure::Asked)?;
    let failed = |error: io::Error| Failure::Failed(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut state = State::new(target.name());
    if options.once {
        state.hear(Ok(runtime.block_on(target.ask(state.by())).map_err(Failure::Failed)?));
        return io::Write::write_all(&mut io::stdout(), page::plain(&state).as_bytes()).map_err(failed);
    }
    if !io::stdout().is_terminal() {
        let why = "standard output is no terminal: --once prints the tables as plain text";
        return Err(Failure::Asked(why.to_owned()));
    }
    let (ask, questions) = mpsc::unbounded_channel();
    let (answers, heard) = threads::channel();
    let asker = std::thread::Builder::new().name("asker".to_owned());
    asker.spawn(move || runtime.block_on(answer(&target, questions, &answers))).map_err(failed)?;
    // Its hook restores the terminal when there is a panic.
    let shown = ratatui::try_init().and_then(|terminal| show(terminal, &mut state, options.interval, &ask, &heard));
    let restored = ratatui::try_restore();
    shown.and(restored).map_err(|error| Failure::Failed(format!("the terminal: {error}")))
}

/// Answers questions until nobody asks any more, or a signal says to end.
async fn answer(
    target: &Target,
    mut questions: mpsc::UnboundedReceiver<&'static str>,
    answers: &threads::Sender<Result<Answers, String>>,
) {
    // The key is read as a key; somebody else may still send the signal.
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
    let [Ok(mut term), Ok(mut hangup), Ok(mut interrupt)] = kinds.map(signal) else { return };
    let work = async {
        while let Some(by) = questions.recv().await {
            if answers.send(target.ask(by).await).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = term.recv() => {}
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The page, until somebody leaves it or nobody answers questions any more.
fn show(
    mut terminal: DefaultTerminal,
    state: &mut State,
    interval: Duration,
    ask: &mpsc::UnboundedSender<&'static str>,
    heard: &threads::Receiver<Result<Answers, String>>,
) -> io::Result<()> {
    // See no-color.org: any value but an empty one.
    let with_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // When the next question is due; `None` while one is under way.
    let mut next = Some(Instant::now());
    let mut asked_by = state.by();
    while !state.is_over {
        let now = Instant::now();
        let is_due = next.is_some_and(|next| next <= now || asked_by != state.by());
        if is_due && !state.is_paused {
            asked_by = state.by();
            if ask.send(asked_by).is_err() {
                return Ok(());
            }
            next = None;
        }
        terminal.draw(|frame| page::draw(frame, state, now, with_color))?;
        if event::poll(TICK)? {
            // What else there is, such as another size, the next drawing finds out.
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                state.press(key);
            }
        }
        match heard.try_recv() {
            Ok(answers) => {
                state.hear(answers);
                next = Some(Instant::now() + interval);
            }
            Err(threads::TryRecvError::Empty) => {}
            Err(threads::TryRecvError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
