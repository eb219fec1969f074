//! A PostgreSQL small enough to be understood: the protocol in full, of SQL a handful of words.
//! Must never be more forgiving than PostgreSQL: what would be refused there is refused here.

mod extended;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::wire::build;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::{client, server};

#[path = "answers.rs"]
mod answers;

/// COPY FROM STDIN under way.
struct CopyIn {
    /// Statements of the simple query that follow it; `None` in the extended protocol.
    then: Option<Vec<String>>,
    rows: usize,
}

struct Portal {
    sql: String,
    row: usize,
}

/// One backend.
pub struct Backend {
    input: Vec<u8>,
    out: Vec<u8>,
    statements: HashMap<Vec<u8>, String>,
    /// Those whose result has changed since they were prepared.
    stale: HashSet<Vec<u8>>,
    unnamed: Option<String>,
    portals: HashMap<Vec<u8>, Portal>,
    pub settings: BTreeMap<String, String>,
    reports: Vec<(String, String)>,
    pub status: u8,
    skip: bool,
    copy: Option<CopyIn>,
    /// Terminate was received.
    pub ended: bool,
    /// Everything run, in order.
    pub ran: Vec<String>,
    /// Statements answered: completed, suspended or failed.
    pub answers: u64,
    /// The statement under way is a question of pgweir's.
    telling: bool,
    listening: bool,
    /// Values that no setting may have any more.
    pub refuses: Vec<String>,
    /// Most named statements there were at once.
    pub most_statements: usize,
    /// How often a named statement was closed.
    pub closes: usize,
}

/// What one statement led to.
enum Done {
    Tag(String),
    Failed(&'static str),
    CopyIn,
    Empty,
}

impl Default for Backend {
    fn default() -> Self {
        Self {
            input: Vec::new(),
            out: Vec::new(),
            statements: HashMap::new(),
            stale: HashSet::new(),
            unnamed: None,
            portals: HashMap::new(),
            settings: BTreeMap::new(),
            reports: Vec::new(),
            status: b'I',
            skip: false,
            copy: None,
            ended: false,
            ran: Vec::new(),
            answers: 0,
            telling: false,
            listening: false,
            refuses: Vec::new(),
            most_statements: 0,
            closes: 0,
        }
    }
}

impl Backend {
    /// Takes bytes of a client and returns the answer, complete as far as it can be.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        while let Ok(Some(header)) = Header::peek(&self.input, usize::MAX)
            && self.input.len() >= header.total
            && !self.ended
        {
            let message: Vec<u8> = self.input.drain(..header.total).collect();
            self.message(header.tag, &message[HEADER..]);
        }
        std::mem::take(&mut self.out)
    }

    /// A message began and did not end.
    pub fn mid_message(&self) -> bool {
        !self.input.is_empty()
    }

    /// Names of the statements prepared, sorted.
    pub fn statement_count(&self) -> usize {
        self.statements.len()
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.copy.is_some() {
            return self.copy_message(tag, body);
        }
        if self.skip && tag != client::SYNC && tag != client::TERMINATE {
            return;
        }
        match tag {
            client::QUERY => {
                self.unnamed = None;
                self.portals.remove(&b""[..]);
                let sql = text(cstr(body).unwrap().0);
                let statements = sql.split(';').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
                self.simple(statements.collect(), true);
            }
            client::PARSE => self.parse(body),
            client::BIND => self.bind(body),
            client::DESCRIBE => self.describe(body),
            client::EXECUTE => self.execute(body),
            client::CLOSE => self.close(body),
            client::SYNC => {
                self.skip = false;
                self.ready();
            }
            client::FUNCTION_CALL => {
                build::message(&mut self.out, server::FUNCTION_RESULT, |out| out.extend_from_slice(&[255; 4]));
                self.ready();
            }
            client::TERMINATE => self.ended = true,
            client::FLUSH | client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL => {}
            other => panic!("a client sent {:?}", other as char),
        }
    }

    fn copy_message(&mut self, tag: u8, body: &[u8]) {
        let copy = self.copy.as_mut().unwrap();
        let failed = match tag {
            client::COPY_DATA if body.starts_with(b"bad") => Some("22P04"),
            client::COPY_DATA => {
                copy.rows += 1;
                None
            }
            client::FLUSH | client::SYNC => None,
            client::COPY_DONE => {
                let copy = self.copy.take().unwrap();
                self.complete(&format!("COPY {}", copy.rows));
                if let Some(then) = copy.then {
                    self.simple(then, false);
                }
                return;
            }
            client::COPY_FAIL => Some("57014"),
            client::TERMINATE => {
                self.ended = true;
                return;
            }
            _ => Some("08P01"),
        };
        if let Some(code) = failed {
            let simple = self.copy.take().unwrap().then.is_some();
            self.error(code, !simple);
            if simple {
                self.ready();
            }
        }
    }

    fn simple(&mut self, mut statements: Vec<String>, first: bool) {
        if statements.is_empty() && first {
            self.answers += 1;
            build::message(&mut self.out, server::EMPTY_QUERY, |_| {});
        }
        while !statements.is_empty() {
            let sql = statements.remove(0);
            let executed = sql.strip_prefix("execute ").and_then(|name| self.statements.get(name.as_bytes()));
            let read = executed.unwrap_or(&sql);
            if has_rows(read) && self.status != b'E' && !read.contains("1/0") {
                self.row_description();
            }
            match self.run(&sql, 0, 0) {
                Done::Tag(tag) => self.complete(&tag),
                Done::Failed(code) => {
                    self.error(code, false);
                    break;
                }
                Done::CopyIn => {
                    self.copy = Some(CopyIn { then: Some(statements), rows: 0 });
                    return;
                }
                Done::Empty => {}
            }
        }
        self.ready();
    }

    /// Runs one statement. `limit` rows from `row` on; 0: all of them.
    fn run(&mut self, sql: &str, row: usize, limit: usize) -> Done {
        if ["SELECT 's',", "SELECT 'n',", "(SELECT '"].iter().any(|start| sql.starts_with(start)) {
            return self.tell(sql);
        }
        // What pgweir puts its settings into.
        if sql.starts_with("BEGIN ") || sql == "COMMIT" {
            self.status = if sql == "COMMIT" { b'I' } else { b'T' };
            return Done::Tag(sql.into());
        }
        if sql == "SELECT WHERE false" {
            return Done::Tag("SELECT 0".into());
        }
        let end = matches!(sql, "commit" | "rollback" | "ROLLBACK");
        if self.status == b'E' && !end {
            return Done::Failed("25P02");
        }
        self.ran.push(sql.to_owned());
        let word = sql.split(' ').next().unwrap_or_default();
        match word {
            "" => Done::Empty,
            "begin" => {
                self.status = b'T';
                Done::Tag("BEGIN".into())
            }
            "commit" | "rollback" | "ROLLBACK" => {
                let failed = self.status == b'E';
                self.status = b'I';
                self.portals.clear();
                Done::Tag(if word == "commit" && !failed { "COMMIT" } else { "ROLLBACK" }.into())
            }
            "select" | "SELECT" | "show" => self.select(sql, row, limit),
            "insert" => Done::Tag("INSERT 0 1".into()),
            "set" => {
                let mut words = sql.split(' ').skip(1);
                let (name, value) = (words.next().unwrap(), words.nth(1).unwrap());
                self.set(name, value);
                Done::Tag("SET".into())
            }
            "do" => Done::Tag("DO".into()),
            "call" => Done::Tag("CALL".into()),
            "CLOSE" if sql == "CLOSE ALL" => {
                self.portals.clear();
                Done::Tag("CLOSE CURSOR ALL".into())
            }
            "listen" => {
                self.listening = true;
                Done::Tag("LISTEN".into())
            }
            "unlisten" | "UNLISTEN" => {
                self.listening = false;
                Done::Tag("UNLISTEN".into())
            }
            "DISCARD" if sql != "DISCARD ALL" => Done::Tag(sql.into()),
            "RESET" if sql == "RESET ALL" => {
                self.settings.clear();
                Done::Tag("RESET".into())
            }
            "RESET" | "reset" => {
                self.settings.remove(&sql[6..].replace('"', ""));
                Done::Tag("RESET".into())
            }
            "discard" | "DISCARD" => {
                self.settings.clear();
                self.statements.clear();
                self.listening = false;
                Done::Tag("DISCARD ALL".into())
            }
            "deallocate" if sql.ends_with(" all") => {
                self.statements.clear();
                Done::Tag("DEALLOCATE ALL".into())
            }
            "prepare" | "execute" | "deallocate" => self.by_name(sql, row, limit),
            "alter" => {
                let reads = self.statements.iter().filter(|(_, sql)| has_rows(sql));
                self.stale = reads.map(|(name, _)| name.clone()).collect();
                Done::Tag("ALTER TABLE".into())
            }
            "copy" if sql.ends_with("from stdin") => {
                build::message(&mut self.out, server::COPY_IN, |out| out.extend_from_slice(&[0, 0, 0]));
                Done::CopyIn
            }
            "copy" => {
                build::message(&mut self.out, server::COPY_OUT, |out| out.extend_from_slice(&[0, 0, 0]));
                build::message(&mut self.out, server::COPY_DATA, |out| out.extend_from_slice(b"row\n"));
                build::message(&mut self.out, server::COPY_DONE, |_| {});
                Done::Tag("COPY 1".into())
            }
            _ => Done::Failed("42601"),
        }
    }

    /// PREPARE, EXECUTE and DEALLOCATE of one name.
    fn by_name(&mut self, sql: &str, row: usize, limit: usize) -> Done {
        let mut words = sql.splitn(4, ' ');
        let (word, name) = (words.next().unwrap(), words.next().unwrap().as_bytes().to_vec());
        let known = self.statements.get(&name).cloned();
        match (word, known) {
            ("prepare", None) => {
                self.statements.insert(name, words.nth(1).unwrap().to_owned());
                Done::Tag("PREPARE".into())
            }
            ("prepare", Some(_)) => Done::Failed("42P05"),
            (_, None) => Done::Failed("26000"),
            ("execute", Some(inner)) => self.run(&inner, row, limit),
            (_, Some(_)) => {
                self.statements.remove(&name);
                Done::Tag("DEALLOCATE".into())
            }
        }
    }

    fn select(&mut self, sql: &str, row: usize, limit: usize) -> Done {
        let rest = sql.split_once(' ').map_or("", |(_, rest)| rest);
        if rest == "1/0" {
            return Done::Failed("22012");
        }
        if rest == "too much" {
            return Done::Failed("53200");
        }
        if rest.starts_with("pg_catalog.set_config(") {
            for call in rest.split("pg_catalog.set_config(").skip(1) {
                let mut parts = call.split('\'');
                let (name, value) = (parts.nth(1).unwrap().to_owned(), parts.nth(1).unwrap().to_owned());
                if value == "refused" || self.refuses.contains(&value) {
                    return Done::Failed("22023");
                }
                self.set(&name, &value);
            }
            self.data_row(b"");
            return Done::Tag("SELECT 1".into());
        }
        if sql.starts_with("show ") {
            let value = self.settings.get(rest).cloned().unwrap_or_default();
            self.data_row(value.as_bytes());
            return Done::Tag("SHOW".into());
        }
        let rows = rest.split_once(" rows").map_or(1, |(rows, _)| rows.parse().unwrap());
        let wide = if rest.contains("wide") { vec![b'w'; 1000] } else { rest.as_bytes().to_vec() };
        let upto = if limit == 0 { rows } else { rows.min(row + limit) };
        for _ in row..upto {
            self.data_row(&wide);
        }
        if upto < rows {
            return Done::Tag(String::new());
        }
        Done::Tag(format!("SELECT {}", upto - row))
    }

    fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
        if name == "application_name" {
            self.reports.push((name.to_owned(), value.to_owned()));
        }
    }

    fn ready(&mut self) {
        if self.status == b'I' {
            self.portals.clear();
        }
        for (name, value) in std::mem::take(&mut self.reports) {
            build::parameter_status(&mut self.out, name.as_bytes(), value.as_bytes());
        }
        build::ready(&mut self.out, self.status);
    }

    fn error(&mut self, code: &str, extended: bool) {
        self.error_saying(code, "said by the model", extended);
    }

    fn error_saying(&mut self, code: &str, text: &str, extended: bool) {
        self.answers += 1;
        let routine = if code == "0A000" { "RevalidateCachedQuery" } else { "model" };
        build::message(&mut self.out, server::ERROR, |out| {
            for (field, value) in [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', code), (b'M', text), (b'R', routine)] {
                out.push(field);
                build::cstr(out, value.as_bytes());
            }
            out.push(0);
        });
        if self.status == b'T' {
            self.status = b'E';
        }
        self.skip = extended;
    }

    fn complete(&mut self, tag: &str) {
        self.answers += u64::from(!std::mem::take(&mut self.telling));
        build::message(&mut self.out, server::COMMAND_COMPLETE, |out| build::cstr(out, tag.as_bytes()));
    }

    fn row_description(&mut self) {
        build::message(&mut self.out, server::ROW_DESCRIPTION, |out| {
            out.extend_from_slice(&[0, 1]);
            build::cstr(out, b"c");
            out.extend_from_slice(&[0; 18]);
        });
    }

    fn data_row(&mut self, value: &[u8]) {
        build::message(&mut self.out, server::DATA_ROW, |out| {
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        });
    }
}

/// An ErrorResponse whose text names nothing, as names differ behind a pooler.
pub fn error(out: &mut Vec<u8>, severity: &str, code: &str) {
    says(out, server::ERROR, severity, code);
}

/// An error or a notice.
pub fn says(out: &mut Vec<u8>, tag: u8, severity: &str, code: &str) {
    build::message(out, tag, |out| {
        for (field, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', "said by the model")] {
            out.push(field);
            build::cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

fn has_rows(sql: &str) -> bool {
    sql.starts_with("select") || sql.starts_with("show") || sql.starts_with("SELECT")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
