//! A configuration file as it was read, and what was changed since without writing to it.
//! Must never change the file itself, nor take a change that the file could not have said.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, Value};
use zeroize::Zeroizing;

use super::fetch::why;
use super::{Config, Problem, Problems};

/// A configuration file, as it was when it was read.
pub struct ConfigFile {
    path: PathBuf,
    /// May hold passwords, hence overwritten when done.
    text: Zeroizing<String>,
    /// Names of the settings that are not as the file has them.
    pub changed: Vec<String>,
}

impl ConfigFile {
    /// Reads and checks a configuration file. Opens the certificates and secrets it names, so it may block.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(path: &Path) -> Result<(Self, Config), Problems> {
        let name = path.display().to_string();
        let fail = |why: String| {
            let problem = Problem::of_file(&name, format!("cannot read the configuration: {why}"));
            Problems::new(vec![problem.expected("a readable TOML file in UTF-8")])
        };
        let bytes = Zeroizing::new(std::fs::read(path).map_err(|error| fail(why(&error)))?);
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
            fail(format!("line {line} is not UTF-8"))
        })?;
        let config = Config::parse(text, &name)?;
        let (path, text) = (path.to_owned(), Zeroizing::new(text.to_owned()));
        Ok((Self { path, text, changed: Vec::new() }, config))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it would be with one setting changed: its name, behind those of the tables that it is in, and its value as an operator
    /// writes it at a prompt, without TOML's quotes, and with PgBouncer's 0 and 1 for false and true and numbers of seconds.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn with(&self, setting: &[&str], value: &str) -> Result<(Self, Config), String> {
        let name = self.path.display().to_string();
        let mut first = None;
        // As PgBouncer has it, which counts everything else in seconds.
        let unit_us = if setting.last() == Some(&"tcp_user_timeout") { 1e3 } else { 1e6 };
        for value in readings(value, unit_us) {
            let Some(text) = self.edited(setting, value) else { continue };
            match Config::parse(&text, &name) {
                Ok(config) => {
                    let mut changed = self.changed.clone();
                    changed.retain(|known| *known != setting.join("."));
                    changed.push(setting.join("."));
                    return Ok((Self { path: self.path.clone(), text, changed }, config));
                }
                Err(problems) => first = first.or_else(|| problems.iter().next().map(Problem::without_place)),
            }
        }
        Err(first.unwrap_or_else(|| format!("`{}` is no setting", setting.join("."))))
    }

    fn edited(&self, setting: &[&str], value: Value) -> Option<Zeroizing<String>> {
        let mut document: DocumentMut = self.text.parse().ok()?;
        let (name, tables) = setting.split_last()?;
        let mut at: &mut dyn toml_edit::TableLike = document.as_table_mut();
        for table in tables {
            at = at.entry(table).or_insert(Item::Table(Table::new())).as_table_like_mut()?;
        }
        at.insert(name, Item::Value(value));
        Some(Zeroizing::new(document.to_string()))
    }
}

/// What a value may be meant as, the likeliest first: which it is the setting knows. A time without a unit is in this one.
fn readings(text: &str, unit_us: f64) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    if let Ok(number) = text.parse::<i64>() {
        all.push(number.into());
    } else if let Ok(number) = text.parse::<f64>()
        && number.is_finite()
    {
        all.push(number.into());
    }
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => all.push(true.into()),
        "0" | "off" | "no" | "false" => all.push(false.into()),
        _ => {}
    }
    all.push(text.into());
    if let Some(us) = text.parse::<f64>().ok().map(|number| number * unit_us)
        && us >= 0.0
    {
        all.push(format!("{us:.0}us").into());
    }
    all.push(text.split(',').map(str::trim).filter(|one| !one.is_empty()).collect::<Array>().into());
    all
}
