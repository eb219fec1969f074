//! Does what a command says.
//! Must never act on a database that is not in the configuration, but for what all of them are told.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::{Command, FAKED};
use super::route::{asks_catalog, told_of};
use super::select::{Literal, Parameters};
use super::session::{Answer, Seen};
use super::table::{Table, Value, row};
use super::view::HELP;
use super::{Console, Request};
use crate::config::Database;
use crate::gate::Order;
use crate::sql::shape::scan;
use crate::wire::error::{PgError, SqlState};

/// How often is looked whether servers have been given back.
const LOOK: Duration = Duration::from_millis(50);

impl Console {
    pub(super) async fn act(
        self: &Rc<Self>,
        command: &Command,
        parameters: &Parameters,
        seen: &Seen,
    ) -> Result<Answer, PgError> {
        match command {
            Command::Empty => Ok(Answer::Empty),
            Command::Accept(tag) | Command::Finish(tag) => Ok(Answer::Done(tag)),
            Command::Begin => Ok(Answer::Done("BEGIN")),
            Command::Help => Ok(Answer::Notice("SHOW", PgError::notice("Console usage").detail(HELP))),
            Command::Setting(name) => {
                let value = FAKED.iter().find(|(faked, _)| faked == name).map_or("", |(_, value)| value);
                let columns = command.columns()?.unwrap_or_default();
                Ok(Answer::Rows("SHOW", Table { columns, rows: vec![row![value]] }))
            }
            Command::Show(view, select) => {
                let mut table = self.show(view, parameters, seen).await?;
                select.apply(&mut table, parameters)?;
                Ok(Answer::Rows("SHOW", table))
            }
            Command::Explain { database, user, sql } => {
                let text = |literal: &Option<Literal>| {
                    literal.as_ref().map(|it| it.text(parameters).map(str::to_owned)).transpose()
                };
                let told = self.explain(text(database)?, text(user)?, sql).await?;
                let rows = told.lines().map(|line| row![line]).collect();
                let columns = command.columns()?.unwrap_or_default();
                Ok(Answer::Rows("EXPLAIN", Table { columns, rows }))
            }
            Command::Set(name, value) => self.set(name, value.text(parameters)?).await,
            Command::Absent(what, instead) => {
                let message = format!("pgweir: {what} is not supported");
                Err(PgError::error(SqlState::FEATURE_NOT_SUPPORTED, message).hint(*instead))
            }
            Command::Reload => self.reload().await,
            Command::Shutdown(how) => {
                self.request(Request::Shutdown(*how))?;
                Ok(Answer::Done("SHUTDOWN"))
            }
            Command::KillClient(number) => self.kill_client(number.text(parameters)?).await,
            Command::Disable(name) => self.disable(name.text(parameters)?, true),
            Command::Enable(name) => self.disable(name.text(parameters)?, false),
            Command::Pause(name) => self.pause(self.database(name, parameters)?).await,
            Command::Resume(name) => self.resume(self.database(name, parameters)?).await,
            Command::Kill(name) => self.kill(self.database(name, parameters)?).await,
            Command::Reconnect(name) => {
                let name = self.database(name, parameters)?;
                self.each(move |relay| relay.reconnect(name.as_deref())).await?;
                Ok(Answer::Done("RECONNECT"))
            }
            Command::Invalidate(target, database) => {
                let database = self.database(database, parameters)?;
                self.invalidate(target, database, parameters)
            }
            Command::WarmCache(name) => self.warm(self.database(name, parameters)?).await,
            Command::Block(which) => {
                let database = self.database(&which.database, parameters)?;
                self.block(which, database, parameters, seen).await
            }
            Command::Allow(which) => {
                let database = self.database(&which.database, parameters)?;
                self.allow(which, database, parameters).await
            }
            Command::ResetStats => self.reset_stats().await,
            Command::WaitClose(name) => self.wait_close(self.database(name, parameters)?).await,
        }
    }

    /// The database that is named; `None` for all.
    fn database(&self, name: &Option<Literal>, parameters: &Parameters) -> Result<Option<String>, PgError> {
        let Some(name) = name else { return Ok(None) };
        let name = name.text(parameters)?;
        self.known(name)?;
        Ok(Some(name.to_owned()))
    }

    fn known(&self, name: &str) -> Result<(), PgError> {
        if self.config().databases.contains_key(name) {
            return Ok(());
        }
        let names = self.config().databases.keys().cloned().collect::<Vec<_>>().join(", ");
        let error = PgError::error(SqlState::INVALID_CATALOG_NAME, format!("no such database: {name}"));
        Err(error.hint(format!("The configuration has {names}.")))
    }

    fn request(&self, request: Request) -> Result<(), PgError> {
        let ending = |_| PgError::error(SqlState::CANNOT_CONNECT_NOW, "pgweir: the program is ending");
        self.about.requests.send(request).map_err(ending)
    }

    async fn reload(&self) -> Result<Answer, PgError> {
        let (answer, outcome) = oneshot::channel();
        self.request(Request::Reload(answer))?;
        let ending = |_| PgError::error(SqlState::CANNOT_CONNECT_NOW, "pgweir: the program is ending");
        match outcome.await.map_err(ending)? {
            Ok(()) => Ok(Answer::Done("RELOAD")),
            Err(why) => {
                let message = "pgweir: the configuration is refused and the old one stays in force";
                Err(PgError::error(SqlState::CONFIG_FILE, message).detail(why))
            }
        }
    }

    async fn set(&self, name: &str, value: &str) -> Result<Answer, PgError> {
        let Some((setting, changeable)) = self.setting(name) else {
            let error = PgError::error(SqlState::UNDEFINED_OBJECT, format!("pgweir: there is no setting \"{name}\""));
            return Err(error.hint("SHOW CONFIG has those that can be set; others are in the configuration file."));
        };
        if !changeable {
            let message = format!("pgweir: \"{name}\" cannot be changed by SET");
            let error = PgError::error(SqlState::CANT_CHANGE_RUNTIME_PARAM, message);
            let hint = "Change it in the configuration file, then RELOAD, or start pgweir anew where SHOW CONFIG says that it is not changeable.";
            return Err(error.hint(hint));
        }
        let (answer, outcome) = oneshot::channel();
        self.request(Request::Set(setting, value.to_owned(), answer))?;
        let ending = |_| PgError::error(SqlState::CANNOT_CONNECT_NOW, "pgweir: the program is ending");
        outcome.await.map_err(ending)?.map(|()| Answer::Done("SET")).map_err(|why| {
            let message = format!("pgweir: \"{name}\" cannot be {value:?}");
            PgError::error(SqlState::INVALID_PARAMETER_VALUE, message).detail(why)
        })
    }

    /// Returns when all is asked.
    async fn warm(&self, database: Option<String>) -> Result<Answer, PgError> {
        let (answer, outcome) = oneshot::channel();
        self.request(Request::Warm(database, answer))?;
        let ending = |_| PgError::error(SqlState::CANNOT_CONNECT_NOW, "pgweir: the program is ending");
        outcome.await.map_err(ending)?.map(|()| Answer::Done("WARM CACHE")).map_err(|why| {
            PgError::error(SqlState::NOT_IN_PREREQUISITE_STATE, "pgweir: not everything is in the cache").detail(why)
        })
    }

    /// What is shown of statements begins anew. What may be read as a counter, here and in the metrics, goes on.
    async fn reset_stats(&self) -> Result<Answer, PgError> {
        self.about.registry.reset_shapes();
        self.each(|relay| relay.forget_seen()).await?;
        tracing::info!("statistics of statements reset on the console");
        Ok(Answer::Done("RESET"))
    }

    async fn kill_client(&self, number: &str) -> Result<Answer, PgError> {
        let wrong = || PgError::error(SqlState::INVALID_TEXT, format!("\"{number}\" is no id of a client"));
        let id: u32 = number.parse().map_err(|_| wrong().hint("SHOW CLIENTS has it in the column \"id\"."))?;
        let session = self.sessions.borrow().get(&id).cloned();
        let killed = match session {
            Some(session) => {
                session.ended.notify_one();
                true
            }
            None => self.each(move |relay| relay.kill_client(id)).await?.contains(&true),
        };
        if killed {
            return Ok(Answer::Done("KILL_CLIENT"));
        }
        Err(PgError::error(SqlState::UNDEFINED_OBJECT, format!("client not found: {id}")))
    }

    fn disable(&self, name: &str, disable: bool) -> Result<Answer, PgError> {
        self.known(name)?;
        if let Some(gate) = self.about.gate.upgrade() {
            let _ = gate.send(Order::Disable(name.to_owned(), disable));
        }
        let mut disabled = self.disabled.borrow_mut();
        if disable {
            disabled.insert(name.to_owned());
        } else {
            disabled.remove(name);
        }
        tracing::info!(database = name, "{} on the console", if disable { "disabled" } else { "enabled" });
        Ok(Answer::Done(if disable { "DISABLE" } else { "ENABLE" }))
    }

    /// Until no server is open any more.
    async fn pause(&self, name: Option<String>) -> Result<Answer, PgError> {
        self.note_pause(name.as_deref());
        let database = name.clone();
        self.each(move |relay| relay.pause(database.as_deref())).await?;
        loop {
            let database = name.clone();
            let open: usize = self.each(move |relay| relay.servers_in(database.as_deref())).await?.into_iter().sum();
            if open == 0 {
                return Ok(Answer::Done("PAUSE"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn note_pause(&self, name: Option<&str>) {
        let mut paused = self.paused.borrow_mut();
        match name {
            Some(name) => drop(paused.databases.insert(name.to_owned())),
            None => paused.all = true,
        }
        tracing::info!(database = name.unwrap_or("*"), "paused on the console");
    }

    async fn resume(&self, name: Option<String>) -> Result<Answer, PgError> {
        let unpaused = |message: String| Err(PgError::error(SqlState::NOT_IN_PREREQUISITE_STATE, message));
        {
            let mut paused = self.paused.borrow_mut();
            match name.as_deref() {
                Some(name) if !paused.databases.remove(name) => {
                    let message = format!("database \"{name}\" is not paused");
                    let all = if paused.all { " by itself: all are" } else { "" };
                    return unpaused(message + all);
                }
                None if !paused.all && paused.databases.is_empty() => return unpaused("nothing is paused".to_owned()),
                Some(_) => {}
                None => *paused = super::Paused::default(),
            }
        }
        tracing::info!(database = name.as_deref().unwrap_or("*"), "resumed on the console");
        self.each(move |relay| relay.resume(name.as_deref())).await?;
        Ok(Answer::Done("RESUME"))
    }

    async fn kill(&self, name: Option<String>) -> Result<Answer, PgError> {
        self.note_pause(name.as_deref());
        self.each(move |relay| relay.kill(name.as_deref())).await?;
        Ok(Answer::Done("KILL"))
    }

    /// Until all servers are closed that a RECONNECT or RELOAD wants closed.
    async fn wait_close(&self, name: Option<String>) -> Result<Answer, PgError> {
        loop {
            let leaving = self.census().await?.leaving;
            if !leaving.iter().any(|of| name.as_ref().is_none_or(|name| name == of)) {
                return Ok(Answer::Done("WAIT_CLOSE"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn explain(&self, name: Option<String>, user: Option<String>, sql: &str) -> Result<String, PgError> {
        let config = self.config();
        let entry: &Database = match &name {
            Some(name) => {
                self.known(name)?;
                config.databases.get(name)
            }
            None if config.databases.len() > 1 => {
                let names = config.databases.keys().cloned().collect::<Vec<_>>().join(", ");
                let error = PgError::error(SqlState::SYNTAX_ERROR, "for which database?");
                return Err(error.hint(format!("EXPLAIN ROUTE ON database statement; the configuration has {names}.")));
            }
            None => config.databases.values().next(),
        }
        .ok_or_else(|| PgError::error(SqlState::INVALID_CATALOG_NAME, "there is no database"))?;
        let said = if asks_catalog(sql) {
            let (database, text) = (entry.name.clone(), sql.as_bytes().to_vec());
            let said = self.each(move |relay| relay.said_of(&database, &text)).await?;
            let unknown = || "no client of the database has come yet, or its primary has not said".to_owned();
            Some(said.into_iter().flatten().next().ok_or_else(unknown))
        } else {
            None
        };
        let user = user.unwrap_or_default();
        let cluster = self.about.clusters.shown().into_iter().find(|(name, _)| *name == entry.name);
        let cluster = cluster.as_ref().map(|(_, cluster)| &**cluster);
        let mut told = told_of(&config, entry, (&user, ""), sql, said, cluster);
        if let Some(block) = self.block_of(scan(sql.as_bytes(), true).shape, &entry.name) {
            told.push_str(&format!("blocked:   on the console, by {}: it is refused\n", block.by));
        }
        for hosts in self.hosts().into_iter().filter(|row| row.first() == Some(&Value::from(entry.name.as_str()))) {
            if let [_, Value::Text(host), Value::Text(role), ..] = &hosts[..] {
                told.push_str(&format!("host:      {host}: {role}\n"));
            }
        }
        Ok(told)
    }
}
