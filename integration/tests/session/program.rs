//! Random programs about session state: who does what in which order, as data that can be run again with parts left out.
//! It must never hang on what ran before: a step stands for itself, and the player skips one that would keep too many servers.

use crate::dice::Dice;
use crate::words;

/// Sessions of a program.
pub const SESSIONS: usize = 20;
/// Steps of one session in one program, on average.
const STEPS: usize = 12;

/// Who a session is: user and startup parameters.
pub type Start = (&'static str, &'static [(&'static str, &'static str)]);

/// Users, each with sessions of its own: those of the first have the numbers below [`SESSIONS`].
pub const USERS: usize = 2;

/// How each session starts, by its number. All sessions of a program are the same user's.
pub fn start(number: usize) -> Start {
    let starts = words::STARTS[number / SESSIONS];
    starts[number % starts.len()]
}

/// One step of a program.
#[derive(Debug, Clone)]
pub struct Step {
    /// Whose.
    pub session: usize,
    pub act: Act,
}

/// What a session does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends a batch and reads the answer.
    Say(Batch),
    /// Sends a batch, its last bytes left out, reads nothing, and is gone; a new client comes in its place.
    Lose { batch: Batch, missing: usize },
    /// Says goodbye; a new client comes in its place.
    Leave,
    /// Gives up everything that keeps a server.
    LetGo,
    /// Sends a text that sleeps, and cancels it.
    Cancel { sql: String },
    /// A superuser does something elsewhere to a role.
    Admin { sql: String, role: &'static str },
}

/// Messages sent together.
#[derive(Clone)]
pub struct Batch {
    pub messages: Vec<Message>,
    /// May leave a transaction open, or something in the server that keeps it.
    pub holds: bool,
    /// When too many keep a server, the one that has done so for longest gives it up, or else this is left out.
    pub evicts: bool,
    /// Asks for channels, which those listened to before do not show among while a transaction is open.
    pub lists: bool,
    /// Its answer is the same only behind a `setseed` that worked.
    pub seeded: bool,
    /// Sent in several writes, cut at places that this seed gives.
    pub cuts: Option<u64>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let [Message::Query(sql)] = &self.messages[..] {
            write!(f, "{sql:?}")?;
        } else {
            f.debug_list().entries(&self.messages).finish()?;
        }
        self.cuts.map_or(Ok(()), |seed| write!(f, " cut by seed {seed}"))
    }
}

/// A message, or a few that belong together.
#[derive(Clone)]
pub enum Message {
    /// Query.
    Query(String),
    /// Parse of the unnamed statement, Bind, Describe and Execute of at most so many rows.
    Run { sql: String, values: Vec<Option<String>>, rows: u32 },
    /// Execute of the unnamed portal once more.
    Again,
    /// Parse of a named statement.
    Parse { name: &'static str, sql: String },
    /// Bind and Execute of a named statement.
    Use { name: &'static str, values: Vec<Option<String>> },
    /// Close of a named statement.
    Close { name: &'static str },
    /// Flush; what follows is sent when the answer of the last Execute is there.
    Await,
    /// Sync.
    Sync,
    /// CopyData, then CopyDone: sent with the Query that asks for them.
    Data(&'static str),
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given = |values: &[Option<String>]| if values.is_empty() { String::new() } else { format!(" {values:?}") };
        match self {
            Self::Query(sql) => write!(f, "Query {sql:?}"),
            Self::Run { sql, values, rows: 0 } => write!(f, "Run {sql:?}{}", given(values)),
            Self::Run { sql, values, rows } => write!(f, "Run {sql:?}{} up to {rows} rows", given(values)),
            Self::Again => write!(f, "Execute again"),
            Self::Parse { name, sql } => write!(f, "Parse {name} {sql:?}"),
            Self::Use { name, values } => write!(f, "Bind and Execute {name}{}", given(values)),
            Self::Close { name } => write!(f, "Close {name}"),
            Self::Await => write!(f, "Flush"),
            Self::Sync => write!(f, "Sync"),
            Self::Data(lines) => write!(f, "CopyData {lines:?}, CopyDone"),
        }
    }
}

/// Whether a text may leave a transaction open, or something in its server.
fn may_hold(sql: &str) -> bool {
    let sql = sql.replace(words::SHOW, "").to_ascii_uppercase();
    let calls = sql.matches("SET_CONFIG(").count();
    // A name that stands there as it is.
    let plain = [
        "'WORK_MEM',",
        "'APP.TENANT',",
        "'TIMEZONE',",
        "'ROLE',",
        "'APP.OTHER',",
        "'SEARCH_PATH',",
        "'APPLICATION_NAME',",
    ];
    let known: usize = plain.iter().map(|name| sql.matches(&format!("SET_CONFIG({name}")).count()).sum();
    !sql.is_ascii() || calls > known || words::HOLDING.iter().any(|word| sql.contains(word))
}

/// Why a step is known to differ.
pub fn known(step: &Step) -> Option<&'static str> {
    let Act::Say(batch) = &step.act else { return None };
    let texts = batch.messages.iter().map(|message| match message {
        // What ends a block of code is no end of a statement.
        Message::Query(sql) => sql.replace("; END", " END"),
        Message::Run { sql, values, .. } => format!("{} {values:?}", sql.replace("; END", " END")),
        other => format!("{other:?}"),
    });
    let text = texts.collect::<Vec<_>>().join(" ; ").replace(" ; Sync", "").to_ascii_uppercase();
    let superusers = start(step.session).1.iter().any(|(name, _)| name.starts_with("log_"));
    if superusers && text.contains("RESET ALL") && text.contains(';') {
        return Some("RESET ALL under another role: start values that only superusers set come back behind the text");
    }
    if start(step.session).1.iter().any(|(_, value)| value.contains("role=")) && text.contains("AUTHORIZATION") {
        return Some("RESET ROLE gives back a role that somebody else's session may not become");
    }
    let fits = |(_, words): &&(&str, &[&str])| words.iter().all(|word| text.contains(word));
    words::KNOWN.iter().find(fits).map(|(why, _)| *why)
}

impl Batch {
    fn of(messages: Vec<Message>) -> Self {
        let text = |message: &Message| match message {
            Message::Query(sql) | Message::Run { sql, .. } | Message::Parse { sql, .. } => Some(sql.clone()),
            _ => None,
        };
        let texts: Vec<String> = messages.iter().filter_map(text).collect();
        let all = format!("{messages:?}");
        let holds = !all.is_ascii() || texts.iter().any(|sql| may_hold(sql));
        let seeded = texts.iter().any(|sql| draws_unseeded(sql));
        let lists = texts.iter().any(|sql| sql.contains("pg_listening_channels"));
        Self { messages, holds, evicts: false, lists, seeded, cuts: None }
    }

    /// A text in one Query.
    pub fn query(sql: impl Into<String>) -> Self {
        Self::of(vec![Message::Query(sql.into())])
    }
}

/// The programs of a seed, one for each of twenty clients, woven into each other.
pub fn program(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let user = dice.roll(USERS);
    let mut open = [false; SESSIONS];
    let mut steps = Vec::new();
    // A few at a time have the word, so that one does several things between those of others.
    let mut few = [0; 4];
    for n in 0..SESSIONS * STEPS {
        if n % 8 == 0 {
            few = std::array::from_fn(|_| dice.roll(SESSIONS));
        }
        let session = few[dice.roll(few.len())];
        let act = act(&mut dice, &mut open[session]);
        steps.push(Step { session: user * SESSIONS + session, act });
    }
    steps
}

fn act(dice: &mut Dice, open: &mut bool) -> Act {
    match dice.roll(60) {
        0 => {
            *open = false;
            let mut batch = batch(dice, open);
            if format!("{batch:?}").to_ascii_lowercase().contains("notify") {
                // Whether it still runs is anybody's guess, and others hear of it.
                batch = Batch::query(words::SHOW);
            }
            let missing = if dice.once_in(2) { 0 } else { 1 + dice.roll(12) };
            Act::Lose { batch, missing }
        }
        1 => {
            *open = false;
            Act::Leave
        }
        2..=4 => {
            *open = false;
            Act::LetGo
        }
        5 if dice.once_in(8) => {
            let sleeps = "SELECT pg_catalog.pg_sleep(60)";
            let sql = format!("{}; {sleeps}; {}", setting(dice), setting(dice));
            Act::Cancel { sql: if dice.once_in(2) { sleeps.into() } else { sql } }
        }
        5 if dice.once_in(2) => {
            let (sql, role) = words::ADMIN[dice.roll(words::ADMIN.len())];
            Act::Admin { sql: sql.into(), role }
        }
        _ => {
            let mut batch = batch(dice, open);
            batch.evicts = dice.once_in(4);
            if dice.once_in(12) {
                batch.cuts = Some(dice.roll(1 << 30) as u64);
            }
            Act::Say(batch)
        }
    }
}

/// The next batch of a session.
fn batch(dice: &mut Dice, open: &mut bool) -> Batch {
    match dice.roll(12) {
        0..=6 => {
            let sql = text(dice, open);
            if dice.once_in(3) && (sql.starts_with("DO ") || !sql.contains("; ")) {
                alone(sql)
            } else {
                Batch::query(sql)
            }
        }
        7 => {
            let count = 2 + dice.roll(3);
            let texts: Vec<String> = (0..count).map(|_| text(dice, open)).collect();
            Batch::query(texts.join("; "))
        }
        8 | 9 => pipeline(dice, open),
        10 => named(dice),
        _ if dice.once_in(4) => copy(dice),
        _ if dice.once_in(3) => mixed(dice, open),
        _ => parameters(dice),
    }
}

/// One statement in the extended protocol.
fn alone(sql: String) -> Batch {
    Batch::of(vec![Message::Run { sql, values: Vec::new(), rows: 0 }, Message::Sync])
}

/// One text of transactions, savepoints and settings.
fn mixed(dice: &mut Dice, open: &mut bool) -> Batch {
    let texts: Vec<String> = (0..3 + dice.roll(5))
        .map(|_| match dice.roll(8) {
            0 => setting(dice),
            1 => reset(dice),
            2 if dice.once_in(3) => words::SHOW.into(),
            2 | 3 => {
                *open = true;
                dice.pick(words::BEGINS).into()
            }
            4 | 5 => dice.pick(words::SAVEPOINTS).into(),
            6 => {
                *open = false;
                dice.pick(words::ENDS).into()
            }
            _ => text(dice, open),
        })
        .collect();
    Batch::query(texts.join("; "))
}

/// Several statements up to one Sync, some waited for.
fn pipeline(dice: &mut Dice, open: &mut bool) -> Batch {
    let mut messages = Vec::new();
    for _ in 0..2 + dice.roll(3) {
        if dice.once_in(16) {
            let lines = dice.pick(&["1\tone\n2\tzwei\n", "not a number\n"]);
            messages.push(Message::Run { sql: "COPY t_copied FROM STDIN".into(), values: Vec::new(), rows: 0 });
            messages.push(Message::Data(lines));
            continue;
        }
        let mut sql = if dice.once_in(8) { dice.pick(words::WRONG).into() } else { text(dice, open) };
        if sql.contains("LISTEN") || sql.contains("listening") {
            // Behind others without a Sync channels listened to before are not there.
            sql = words::SHOW.into();
        }
        // A text of several cannot be parsed.
        let several = !sql.starts_with("DO ") && sql.contains("; ");
        let sql = if several { sql.split("; ").next().unwrap_or_default().to_owned() } else { sql };
        let rows = if dice.once_in(6) { 1 } else { 0 };
        messages.push(Message::Run { sql, values: Vec::new(), rows });
        if rows == 1 {
            messages.push(Message::Again);
        }
        match dice.roll(8) {
            0 => messages.push(Message::Sync),
            1..=3 => messages.push(Message::Await),
            _ => {}
        }
    }
    messages.push(Message::Sync);
    Batch::of(messages)
}

/// Statements under names of the protocol.
fn named(dice: &mut Dice) -> Batch {
    let (name, sql) = words::NAMED[dice.roll(words::NAMED.len())];
    let values = if sql.contains("$1") { vec![Some(dice.pick(&["5MB", "6MB"]).to_owned())] } else { Vec::new() };
    let parse = Message::Parse { name, sql: sql.into() };
    let use_ = Message::Use { name, values };
    let mut messages = match dice.roll(6) {
        0 => vec![parse],
        1 => vec![Message::Close { name }],
        2 => vec![Message::Close { name }, parse, use_],
        3 => vec![use_.clone(), use_],
        _ => vec![use_],
    };
    messages.push(Message::Sync);
    Batch::of(messages)
}

/// Names and values among the parameters.
fn parameters(dice: &mut Dice) -> Batch {
    let (sql, name) = dice_pair(dice, words::BY_PARAMETER);
    let (_, values) = words::VALUES[dice.roll(words::VALUES.len())];
    let value = dice.pick(values).trim_matches('\'').to_owned();
    let value = if dice.once_in(8) { None } else { Some(value) };
    let mut given = vec![Some(name.to_owned())];
    if sql.contains("$2") {
        given.push(value);
    }
    let mut messages = vec![Message::Run { sql: sql.into(), values: given, rows: 0 }];
    if dice.once_in(2) {
        messages.push(Message::Run { sql: words::SHOW.into(), values: Vec::new(), rows: 0 });
    }
    messages.push(Message::Sync);
    Batch::of(messages)
}

/// A COPY beside changes of settings, in one text.
fn copy(dice: &mut Dice) -> Batch {
    let before = setting(dice);
    let behind = if dice.once_in(2) { setting(dice) } else { "RESET work_mem".into() };
    let (copy, data) = match dice.roll(5) {
        3 => ("COPY triggers FROM STDIN", Some("1\n2\n")),
        4 => ("COPY (SELECT v FROM viewed) TO STDOUT", None),
        0 => ("COPY (SELECT current_setting('work_mem'), 'ä') TO STDOUT", None),
        1 => ("COPY t_copied FROM STDIN", Some("1\tone\n2\tzwei\n")),
        _ => ("COPY t_copied FROM STDIN", Some("not a number\n")),
    };
    let sql = match dice.roll(3) {
        0 => format!("{before}; {copy}"),
        1 => format!("{copy}; {behind}; {}", words::SHOW),
        _ => format!("{before}; {copy}; {behind}; {}", words::SHOW),
    };
    let mut batch = Batch::query(sql);
    batch.messages.extend(data.map(Message::Data));
    batch
}

/// The next text of a session.
fn text(dice: &mut Dice, open: &mut bool) -> String {
    if *open && dice.once_in(5) {
        *open = false;
        return dice.pick(words::ENDS).into();
    }
    match dice.roll(32) {
        0..=5 => words::SHOW.into(),
        6..=11 => setting(dice),
        12..=13 => reset(dice),
        14 => dice.pick(words::WRONG).into(),
        15 => dice.pick(words::IDENTITY).into(),
        16 | 17 => dice.pick(words::HIDDEN).into(),
        18 | 19 => computed(dice),
        20 => dice.pick(words::SEEN).into(),
        22 => words::TELLING[dice.roll(words::TELLING.len())].replace('@', &dice.roll(1000).to_string()),
        21 | 23 => dice.pick(words::HELD).into(),
        24 => dice.pick(words::SUPER).into(),
        25 => dice.pick(words::PREPARED).into(),
        26 => dice.pick(words::SEQUENCES).into(),
        27 if dice.once_in(3) => dice.pick(words::LARGE).into(),
        27 if dice.once_in(3) => dice.pick(words::TWO_PHASE).into(),
        28 if !*open => {
            *open = true;
            dice.pick(words::BEGINS).into()
        }
        27..=30 if *open => dice.pick(words::SAVEPOINTS).into(),
        _ => setting(dice),
    }
}

fn setting(dice: &mut Dice) -> String {
    let (name, values) = words::VALUES[dice.roll(words::VALUES.len())];
    let value = dice.pick(values);
    match dice.roll(12) {
        0 | 1 => format!("SET LOCAL {name} = {value}"),
        2 => format!("SET SESSION {name} TO {value}"),
        3 => format!("SET {name} TO DEFAULT"),
        4 => dice.pick(words::SETTINGS).into(),
        5 => format!("SET LOCAL {name} TO DEFAULT"),
        6 => format!("SET {name} = {value}; SET work_mem = '7MB'"),
        _ => format!("SET {name} = {value}"),
    }
}

fn reset(dice: &mut Dice) -> String {
    let (name, _) = words::VALUES[dice.roll(words::VALUES.len())];
    match dice.roll(8) {
        0 => format!("RESET {name}; SELECT pg_catalog.concat(current_setting('{}', true))", name.replace('"', "")),
        1 => dice.pick(words::RESETS).into(),
        2 => format!("{}; {}", dice.pick(words::RESETS), words::SHOW),
        3 => format!("SELECT set_config('{}', NULL, {})", dice.pick(words::STARTED), dice.pick(&["false", "true"])),
        4 => format!("SET {} TO DEFAULT", dice.pick(words::STARTED)),
        5 => format!("RESET {}", dice.pick(words::STARTED)),
        6 => format!("SET LOCAL {} TO DEFAULT", dice.pick(words::STARTED)),
        _ => format!("RESET {name}"),
    }
}

/// `set_config` whose name or value no look at the text tells.
fn computed(dice: &mut Dice) -> String {
    let (name, value) = (dice.pick(words::NAME_TERMS), dice.pick(words::VALUE_TERMS));
    let local = dice.pick(&["false", "false", "false", "true", "1 = 2", "NULL"]);
    let call = format!("set_config({name}, {value}, {local})");
    match dice.roll(6) {
        0 => format!("WITH x AS (SELECT {call} AS y) SELECT y FROM x"),
        1 => format!("DO $do$ BEGIN PERFORM {call}; END $do$"),
        2 => format!("SELECT 1 WHERE {call} IS NULL"),
        3 => format!("SELECT pg_catalog.{call}"),
        _ => format!("SELECT {call}"),
    }
}

fn dice_pair<'a>(dice: &mut Dice, of: &[(&'a str, &'a str)]) -> (&'a str, &'a str) {
    of[dice.roll(of.len())]
}

/// Whether a text has random numbers that another statement must have seeded.
fn draws_unseeded(sql: &str) -> bool {
    let at = |word| sql.find(word).unwrap_or(usize::MAX);
    at("random()") < at("setseed")
}
