//! Twenty sessions on three servers, each against its twin on a direct connection.
//! It must never run two statements at once: what one session does is to be the only cause of a difference.

use std::time::{Duration, Instant};

use integration::wire::{Frame, Script};
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::{Client, Conf};
use crate::dice::Dice;
use crate::program::{SHOW, Session, let_go, statement};

const SESSIONS: usize = 20;
const SERVERS: usize = 3;
/// Statements of one session in one program.
const STEPS: usize = 12;

/// One session, twice.
struct Twins {
    pooled: Client,
    direct: Client,
    session: Session,
    log: Vec<String>,
}

const START: &[&[(&str, &str)]] = &[
    &[],
    &[("application_name", "first"), ("options", "-c work_mem=20MB")],
    &[("TimeZone", "America/Lima"), ("app.tenant", "start")],
    &[("search_path", "b"), ("client_encoding", "LATIN1"), ("datestyle", "SQL, DMY")],
];

/// The database that direct connections use: locks and channels of the two must not meet.
const TWIN: &str = "twin";

fn cluster() -> Cluster {
    let cluster = Cluster::builder().setting("max_connections", "100").start().unwrap();
    let admin = cluster.primary();
    admin.query(&format!("CREATE DATABASE {TWIN} OWNER {}", integration::USER)).unwrap();
    admin.query("CREATE ROLE boss SUPERUSER LOGIN; CREATE ROLE one; CREATE ROLE two").unwrap();
    for database in [DATABASE, TWIN] {
        let sql = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t_where AS SELECT 'a' AS which; CREATE TABLE b.t_where AS SELECT 'b' AS which; \
            CREATE TABLE public.t_where AS SELECT 'public' AS which; GRANT ALL ON SCHEMA a, b, public TO PUBLIC; \
            GRANT SELECT ON a.t_where, b.t_where TO PUBLIC; \
            CREATE FUNCTION public.tells(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config($1, $2, false); END $$";
        admin.query_in(database, sql).unwrap();
    }
    cluster
}

impl Twins {
    fn new(pgweir: &Pgweir, cluster: &Cluster, number: usize) -> Self {
        let start = START[number % START.len()];
        let with = |database: &'static str| [&[("user", "boss"), ("database", database)], start].concat();
        Self {
            pooled: Client::connect_with(pgweir.port(), &with(DATABASE)),
            direct: Client::connect_with(cluster.primary().port(), &with(TWIN)),
            session: Session::default(),
            log: vec![format!("started with {start:?}")],
        }
    }

    /// Runs one statement on both and compares everything that came.
    fn run(&mut self, sql: &str, extended: bool) {
        let script = if extended && !sql.contains("; ") {
            Script::new().parse("", sql).bind("", "", &[]).execute("", 0).sync()
        } else {
            Script::new().query(sql)
        };
        self.log.push(format!("{} {sql}", if extended { "extended" } else { "simple" }));
        let pooled = told(self.pooled.run(&script));
        let direct = told(self.direct.run(&script));
        assert_eq!(pooled, direct, "pooled, direct; the session:\n{}", self.log.join("\n"));
        assert_eq!(self.pooled.parameters, self.direct.parameters, "reported; the session:\n{}", self.log.join("\n"));
    }
}

/// Frames as a client sees them, apart from where in the server's source an error was raised.
fn told(frames: Vec<Frame>) -> Vec<String> {
    let text = |frame: &Frame| match frame.tag {
        b'E' | b'N' => format!("{} {:?} {:?}", char::from(frame.tag), frame.field(b'C'), frame.field(b'M')),
        b'D' => {
            let value = |value: Option<Vec<u8>>| value.map_or("NULL".into(), |value| value.escape_ascii().to_string());
            frame.row().into_iter().map(value).collect::<Vec<_>>().join(" | ")
        }
        b'T' => format!("T, {} bytes", frame.body.len()),
        tag => format!("{} {}", char::from(tag), frame.body.escape_ascii()),
    };
    frames.iter().filter(|frame| frame.tag != b'S').map(text).collect()
}

fn program(pgweir: &Pgweir, cluster: &Cluster, seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let mut all: Vec<Twins> = (0..SESSIONS).map(|number| Twins::new(pgweir, cluster, number)).collect();
    let mut statements = 0;
    for _ in 0..SESSIONS * STEPS {
        let number = dice.roll(SESSIONS);
        let holding = all.iter().filter(|twins| twins.session.block || twins.session.holds).count();
        let twins = &mut all[number];
        let may_hold = holding + 1 < SERVERS;
        let sql = statement(&mut dice, &mut twins.session, may_hold);
        let extended = dice.once_in(3);
        twins.run(&sql, extended);
        statements += 1;
        if twins.session.holds && dice.once_in(10) {
            for sql in let_go(&mut twins.session) {
                twins.run(sql, false);
            }
        }
    }
    for twins in &mut all {
        for sql in let_go(&mut twins.session).into_iter().chain([SHOW]) {
            twins.run(sql, false);
        }
    }
    statements
}

#[test]
fn twenty_sessions_on_three_servers_are_twenty_sessions() {
    let cluster = cluster();
    let conf = Conf::trust(&cluster).user("boss", "").size(SERVERS).pool("server_order = \"rotate\"");
    let pgweir = conf.start();
    let first = std::env::var("PGWEIR_SEED").ok().and_then(|seed| seed.parse().ok());
    let limit = Duration::from_secs(if std::env::var_os("PGWEIR_LONG").is_some() { 600 } else { 15 });
    let (began, mut programs, mut statements) = (Instant::now(), 0u64, 0);
    while began.elapsed() < limit {
        let seed = first.unwrap_or(1) + programs;
        println!("seed {seed}");
        statements += program(&pgweir, &cluster, seed);
        programs += 1;
    }
    println!("{programs} programs of {SESSIONS} sessions, {statements} statements");
}
