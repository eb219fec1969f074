//! One of the clients: reads, writes through pgweir and past it, becomes another role, looks along another path.
//! It must never take a write for done whose answer it has not got, nor write to what may still be written to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use integration::wire::Script;

use crate::common::Client;
use crate::common::client::outcome;
use crate::dice::Dice;
use crate::model::{Judged, Kind, NOTHING, Register, Shows, Tally, Turn, Writers};
use crate::reads::{Read, read};
use crate::tables;
use crate::writes::{Plan, plan};

/// How old an answer may be: of what is written through pgweir, and past it.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub through: Duration,
    pub past: Duration,
}

/// How many groups of tables are written to all the time.
const HOT: usize = 2;
/// How many rows are read often at one time.
const FAVOURITES: usize = 3;
/// Between two changes of the schema, and two writes of which nobody can see what they do, milliseconds: time enough for answers to be kept again.
const PAUSES_MS: [u64; 2] = [900, 500];

/// What all sessions share.
pub struct World {
    pub registers: Vec<Register>,
    rows: Vec<usize>,
    schema: Vec<usize>,
    others: Vec<usize>,
    pub bounds: Bounds,
    pub began: Instant,
    pub ends: AtomicBool,
    /// The schema is changed, and what nobody can see into is run.
    pub is_busy: AtomicBool,
    /// Of both pgweirs, and of PostgreSQL.
    pub ports: [u16; 2],
    past: u16,
    /// When the schema may be changed next, and when everything may be changed, milliseconds.
    due: [AtomicU64; 2],
    complaints: Mutex<Vec<String>>,
}

impl World {
    pub fn new(apart: bool, bounds: Bounds, ports: [u16; 2], past: u16) -> Self {
        let registers = tables::registers(apart);
        let which = |fits: &dyn Fn(Kind) -> bool| {
            let all = registers.iter().enumerate().filter(|(_, it)| fits(it.kind));
            all.map(|(number, _)| number).collect::<Vec<_>>()
        };
        let is_row = |kind| matches!(kind, Kind::Plain | Kind::Part | Kind::Family | Kind::Flash);
        let (rows, schema) = (which(&is_row), which(&Kind::is_rare));
        let others = which(&|kind| !is_row(kind) && !kind.is_rare());
        let (ends, is_busy) = (AtomicBool::new(false), AtomicBool::new(false));
        let (began, due, complaints) = (Instant::now(), Default::default(), Mutex::default());
        Self { registers, rows, schema, others, bounds, began, ends, is_busy, ports, past, due, complaints }
    }

    /// Number of a span of time of so many milliseconds.
    fn span(&self, millis: u64) -> u64 {
        self.began.elapsed().as_millis() as u64 / millis
    }

    /// The row that most look at.
    fn focus(&self) -> usize {
        self.rows[Dice::new(self.span(700)).below(self.rows.len())]
    }

    /// What of the schema is looked at, and changed, more than the rest.
    fn topical(&self, dice: &mut Dice) -> usize {
        let drawn = Dice::new(1 << 33 | self.span(3000)).below(self.schema.len());
        if dice.chance(75) { self.schema[drawn] } else { self.schema[dice.below(self.schema.len())] }
    }

    /// One of some rows that many look at for a while, so that they are kept.
    fn favourite(&self, dice: &mut Dice) -> usize {
        let mut drawn = Dice::new(1 << 32 | self.span(6000));
        let number = dice.below(FAVOURITES);
        let calm = &self.rows[self.rows.len() / tables::GROUPS * HOT..];
        (0..=number).map(|_| calm[drawn.below(calm.len())]).last().unwrap_or_default()
    }

    /// Whether it is time for what is to happen now and then, and has not been done by another.
    fn takes(&self, what: usize) -> bool {
        let now = self.span(1);
        let due = self.due[what].load(SeqCst);
        self.is_busy.load(SeqCst)
            && now >= due
            && self.due[what].compare_exchange(due, now + PAUSES_MS[what], SeqCst, SeqCst).is_ok()
    }

    pub fn complaints(&self) -> MutexGuard<'_, Vec<String>> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, text: String) {
        let mut all = self.complaints();
        if all.len() < 30 {
            all.push(format!("{:.3} s: {text}", self.began.elapsed().as_secs_f64()));
        }
    }

    fn bound(&self, register: &Register) -> (Duration, usize) {
        match register.writers {
            Writers::Through => (self.bounds.through, 0),
            Writers::Past => (self.bounds.past, 1),
            Writers::Any => (self.bounds.past, 2),
        }
    }
}

const HOME: &str = "\"$user\"";

pub struct Session<'a> {
    world: &'a World,
    dice: Dice,
    /// Half of all write. A client that has written asks anew for everything it reads, and so makes anew what others are given.
    is_writer: bool,
    /// Which of the pgweirs.
    at: usize,
    user: &'static str,
    through: Client,
    beside: Client,
    role: &'static str,
    path: &'static str,
    prepared: Vec<String>,
    pub tally: Tally,
}

impl<'a> Session<'a> {
    pub fn new(world: &'a World, number: usize) -> Self {
        let user = if number % 4 == 3 { "other" } else { "app" };
        let (at, is_writer) = (number / 4 % 2, (number / 8).is_multiple_of(2));
        let (through, beside) = (connect(world, at, user), Client::connect(world.past));
        let (dice, tally) = (Dice::new(number as u64 + 1), Tally::default());
        Self { world, dice, is_writer, at, user, through, beside, role: user, path: HOME, prepared: Vec::new(), tally }
    }

    /// Goes on until all end. `pause`: between two requests, on average.
    pub fn runs(mut self, pause: Duration) -> Tally {
        while !self.world.ends.load(SeqCst) {
            let writes = self.is_writer && self.dice.chance(70);
            if writes {
                self.writes()
            } else {
                self.reads()
            }
            // Whoever only reads reads more.
            let pause = if self.is_writer { pause } else { pause / 2 };
            thread::sleep(pause * self.dice.below(200) as u32 / 100);
        }
        self.tally
    }

    fn reads(&mut self) {
        let world = self.world;
        if self.user == "app" && self.dice.chance(if self.role == "app" { 2 } else { 8 }) {
            let (sql, role) = if self.role == "app" { ("SET ROLE reader", "reader") } else { ("RESET ROLE", "app") };
            match self.through.query(sql) {
                Ok(_) => self.role = role,
                Err(error) => return self.fails(&error, sql),
            }
        }
        // Of what many look at few ways to read it are in fashion.
        let (number, fashion) = match self.dice.below(100) {
            0..10 => (world.focus(), true),
            _ if self.is_writer => (world.rows[self.dice.below(world.rows.len() / tables::GROUPS * HOT)], false),
            10..80 => (world.favourite(&mut self.dice), true),
            80..82 => (world.rows[self.dice.below(world.rows.len())], false),
            82..86 => (world.others[self.dice.below(world.others.len())], false),
            _ => (world.topical(&mut self.dice), true),
        };
        let register = &world.registers[number];
        let way = self.dice.below(if fashion { 2 } else { 1000 }) as u64;
        let seed = if fashion { number as u64 ^ world.span(6000) << 16 } else { 0 };
        let mut fashion = Dice::new(seed << 10 | way);
        if let Some(read) = read(register, self.role, &mut fashion) {
            self.looks(register, &read, fashion.below(100), 0);
        }
    }

    /// Reads in one of a hundred ways, and judges what it gets; `least`: what the client has made it itself.
    fn looks(&mut self, register: &Register, read: &Read, way: usize, least: usize) {
        let path = read.path.unwrap_or(HOME);
        if path != self.path {
            let sql = format!("SET search_path = {path}, public");
            match self.through.query(&sql) {
                Ok(_) => self.path = path,
                Err(error) => return self.fails(&error, &sql),
            }
        }
        let began = Instant::now();
        let outcome = self.asks(register, read, way);
        self.tally.reads += 1;
        self.tally.of_kind(register.kind, 1);
        let seen = match outcome {
            Err(error) if error.starts_with("42501") && (read.forbidden || read.shows == Shows::Permitted) => {
                self.tally.refused += 1;
                if read.forbidden {
                    return;
                }
                "(refused)".to_owned()
            }
            Err(error) => return self.fails(&error, &read.sql),
            Ok(rows) if rows.is_empty() => NOTHING.to_owned(),
            Ok(rows) => rows.iter().filter_map(|row| row.last().map(String::as_str)).collect::<Vec<_>>().join("|"),
        };
        if read.forbidden {
            self.tally.wrong += 1;
            return self.world.complain(format!("{} reads {seen:?} by {}", self.role, read.sql));
        }
        self.judges(register, read, (&seen, began), least);
    }

    fn judges(&mut self, register: &Register, read: &Read, (seen, began): (&str, Instant), least: usize) {
        let (bound, class) = self.world.bound(register);
        let (what, age) = match register.judge(seen, read.shows, began, least) {
            Judged::Aged(age) => {
                self.tally.oldest[class] = self.tally.oldest[class].max(age);
                if age <= bound {
                    return;
                }
                self.tally.stale += 1;
                ("stale", age)
            }
            Judged::Backward => {
                self.tally.backward += 1;
                ("older than its own write", Duration::ZERO)
            }
            Judged::Foreign => {
                self.tally.wrong += 1;
                ("wrong", Duration::ZERO)
            }
        };
        let (name, sql, role, at, last) = (&register.name, &read.sql, self.role, self.at, register.last().value);
        self.world.complain(format!("{name}: {seen:?} is {what}, by {age:?}; it is {last:?}; {role} at {at}: {sql}"));
    }

    fn asks(&mut self, register: &Register, read: &Read, way: usize) -> Result<Vec<Vec<String>>, String> {
        let row = register.row.to_string();
        if read.simple || way < 84 {
            return self.through.query(&read.sql.replace("$1", &row));
        }
        let values = [Some(row.as_str())];
        let values = if read.sql.contains("$1") { &values[..] } else { &[] };
        let script = if way < 92 {
            Script::new().parse("", &read.sql).bind("", "", values)
        } else {
            let known = self.prepared.iter().position(|sql| *sql == read.sql);
            let number = known.unwrap_or(self.prepared.len());
            let name = format!("s{number}");
            let script = if known.is_none() { Script::new().parse(&name, &read.sql) } else { Script::new() };
            if known.is_none() {
                self.prepared.push(read.sql.clone());
            }
            script.bind("", &name, values)
        };
        outcome(&self.through.run(&script.describe(b'P', "").execute("", 0).sync()))
    }

    fn writes(&mut self) {
        let world = self.world;
        let past = self.user != "app" || self.dice.chance(33);
        let forbidden = if past { Writers::Through } else { Writers::Past };
        // What most look at is written to all the time for a third of the time, and now and then else.
        let is_busy = world.span(700).is_multiple_of(3);
        let schema = world.takes(0);
        let draw = |dice: &mut Dice| match dice.below(1000) {
            _ if schema => world.topical(dice),
            0..10 => world.focus(),
            10..150 if is_busy => world.focus(),
            150..160 => world.favourite(dice),
            160..200 => world.others[dice.below(world.others.len())],
            200..230 => world.rows[dice.below(world.rows.len())],
            _ => world.rows[dice.below(world.rows.len() / tables::GROUPS * HOT)],
        };
        let drawn = (0..10).map(|_| &world.registers[draw(&mut self.dice)]).find(|it| it.writers != forbidden);
        let Some(register) = drawn else { return };
        let Some(mut turn) = register.turn() else { return };
        let value = register.another(&mut turn);
        let mut plans = (0..4).filter_map(|_| {
            let plan = plan(register, &value, turn.unsure, &mut self.dice)?;
            let may = !plan.blind || register.kind == Kind::Dark || turn.unsure || world.takes(1);
            may.then_some(plan)
        });
        let Some(plan) = plans.next() else { return };
        let Some(number) = self.carries_out(register, &mut turn, plan, past) else { return };
        drop(turn);
        if !past
            && self.dice.chance(30)
            && let Some(read) = read(register, self.role, &mut self.dice)
        {
            let way = self.dice.below(100);
            self.looks(register, &read, way, number);
        }
    }

    /// The number of the state that was made.
    fn carries_out(&mut self, register: &Register, turn: &mut Turn, plan: Plan, past: bool) -> Option<usize> {
        if !past && self.role != self.user {
            match self.through.query("RESET ROLE") {
                Ok(_) => self.role = self.user,
                Err(error) => {
                    self.fails(&error, "RESET ROLE");
                    return None;
                }
            }
        }
        let number = plan.state.map(|state| register.begins(state));
        for sql in &plan.script {
            let client = if past { &mut self.beside } else { &mut self.through };
            let Err(error) = client.query(&format!("{sql} /* {} */", register.name)) else { continue };
            self.tally.unsure += 1;
            self.fails(&error, sql);
            self.settles(register);
            turn.unsure |= number.is_some();
            return None;
        }
        let number = number?;
        register.done(number);
        turn.unsure = false;
        if past {
            self.tally.past += 1
        } else {
            self.tally.through += 1
        }
        self.tally.of_kind(register.kind, 0);
        Some(number)
    }

    /// Waits until nothing writes to it any more. Of what a process that was killed has sent its server may hear a little later.
    fn settles(&mut self, register: &Register) {
        thread::sleep(Duration::from_millis(200));
        let name = &register.name;
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%/* {name} */' AND pid <> pg_backend_pid()"
        );
        let deadline = Instant::now() + Duration::from_secs(40);
        while self.beside.value(&running) != "0" {
            assert!(Instant::now() < deadline, "{name} is written to for ever");
            thread::sleep(Duration::from_millis(20));
        }
        if self.beside.value(&format!("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '{name}'")) != "0" {
            self.beside.query(&format!("ROLLBACK PREPARED '{name}'")).unwrap();
        }
    }

    /// Something was refused, or the connection is lost.
    fn fails(&mut self, error: &str, sql: &str) {
        let is_lost = error == "the connection ended" || ["57P", "08"].iter().any(|class| error.starts_with(class));
        if self.world.ends.load(SeqCst) {
            return;
        }
        if is_lost {
            self.tally.lost += 1;
        } else {
            self.tally.failed += 1;
            eprintln!("{:.3} s: {sql}: {error}", self.world.began.elapsed().as_secs_f64());
        }
        // Whatever it was in the middle of.
        if is_lost || self.through.query("ROLLBACK").is_err() {
            self.through = connect(self.world, self.at, self.user);
            (self.role, self.path) = (self.user, HOME);
            self.prepared.clear();
        }
        self.beside.query("ROLLBACK").unwrap();
    }
}

/// Connects to one of the pgweirs when it is there.
fn connect(world: &World, at: usize, user: &str) -> Client {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(client) = login(world.ports[at], user) {
            return client;
        }
        assert!(Instant::now() < deadline, "pgweir {at} does not come back");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody may be there, or he may go in the middle of this.
fn login(port: u16, user: &str) -> Option<Client> {
    let mut client = Client::try_at(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
    client.startup(0, &[("user", user)]);
    loop {
        match client.read()?.tag {
            b'Z' => return Some(client),
            b'E' => return None,
            _ => {}
        }
    }
}
