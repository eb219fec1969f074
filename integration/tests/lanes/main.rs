//! Reads of several clients share servers, and no client can tell: on real servers, seen from clients and from the metrics.
//! It must never take for shared what was not: a test that says so has seen the count of rides move.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod cancels;
mod ddl;
mod errors;
mod fairness;
mod large;
mod limits;
mod locks;
mod loss;
mod replicas;
mod settings;
mod share;
mod switches;
mod volatile;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::client::outcome;
use common::{Client, Conf, PATIENCE, metric};
use integration::wire::{Frame, Script};
use integration::{Cluster, Pgweir};

/// Rows of `item`.
const ITEMS: usize = 1000;

const TABLES: &str = "CREATE TABLE item (id int PRIMARY KEY, v text);
    INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 1000) n;
    DO $$ BEGIN FOR t IN 1..11 LOOP
        EXECUTE format('CREATE TABLE guarded_%s AS SELECT n AS id, ''guarded '' || n AS v FROM generate_series(1, 100) n', t);
    END LOOP; END $$;
    CREATE TABLE part (id int, v text) PARTITION BY RANGE (id);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200);
    INSERT INTO part SELECT n, 'part ' || n FROM generate_series(0, 199) n;
    CREATE TABLE log (id int, v int); CREATE SEQUENCE counter;
    CREATE FUNCTION notes(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (n, 0); RETURN n; END';
    CREATE FUNCTION label() RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting('application_name')$$;
    CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.place (v text); CREATE TABLE b.place (v text);
    INSERT INTO a.place VALUES ('a'); INSERT INTO b.place VALUES ('b');
    CREATE TABLE moment (id int PRIMARY KEY, at timestamptz); INSERT INTO moment VALUES (1, '2024-02-03 12:00:00+00');
    CREATE TABLE blob (id int PRIMARY KEY, v text);
    INSERT INTO blob SELECT n, CASE n WHEN 7 THEN repeat('long', 50000) WHEN 8 THEN repeat('long', 15000000) ELSE 'short ' || n END
        FROM generate_series(1, 1000) n;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL TABLES IN SCHEMA a TO app; GRANT ALL ON SEQUENCE counter TO app;
    GRANT ALL ON ALL TABLES IN SCHEMA b TO app; GRANT ALL ON SCHEMA public, a, b TO app; ANALYZE";

/// One cluster for the tests that leave its tables and sessions as they are.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().sql(TABLES).start().unwrap())
}

/// One worker, as each learns for itself what is fast; and what counts as fast is so also where much else runs.
fn conf(cluster: &Cluster) -> Conf {
    conf_with(cluster, "20ms")
}

/// [`conf`], with what counts as fast.
fn conf_with(cluster: &Cluster, fast: &str) -> Conf {
    Conf::trust(cluster).top("workers = 1").pool(&format!("lanes = true\nlane_fast = \"{fast}\""))
}

/// pgweir, which knows what its database's code does.
fn start(conf: &Conf) -> Pgweir {
    let pgweir = conf.start();
    common::know(&pgweir);
    pgweir
}

/// How many requests shared a server, how many writes that took, and what else became of some.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rides {
    rides: f64,
    writes: f64,
    repeats: f64,
    stalls: f64,
    resends: f64,
}

impl Rides {
    fn of(pgweir: &Pgweir) -> Self {
        let count = |what: &str| metric(pgweir, &format!("pgweir_pool_lane_{what}_total"), &[]);
        Self {
            rides: count("rides"),
            writes: count("writes"),
            repeats: count("repeats"),
            stalls: count("stalls"),
            resends: count("resends"),
        }
    }

    /// What has come since.
    fn since(self, before: Self) -> Self {
        Self {
            rides: self.rides - before.rides,
            writes: self.writes - before.writes,
            repeats: self.repeats - before.repeats,
            stalls: self.stalls - before.stalls,
            resends: self.resends - before.resends,
        }
    }
}

fn rides(pgweir: &Pgweir) -> f64 {
    Rides::of(pgweir).rides
}

/// Runs a script until it shares servers; it must not fail.
fn warm(pgweir: &Pgweir, client: &mut Client, script: &Script) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = rides(pgweir);
        for _ in 0..120 {
            outcome(&client.run(script)).unwrap();
        }
        if rides(pgweir) > before {
            return;
        }
        assert!(Instant::now() < deadline, "does not ride: {:?}", unfit(pgweir));
    }
}

/// [`warm`] with simple queries and a client of its own.
fn warm_sql(pgweir: &Pgweir, sqls: &[&str]) {
    let mut client = Client::connect(pgweir.port());
    sqls.iter().for_each(|sql| warm(pgweir, &mut client, &Script::new().query(sql)));
}

/// Why requests did not share a server.
fn unfit(pgweir: &Pgweir) -> Vec<(&'static str, f64)> {
    let reasons = ["verdict", "alone", "pipeline", "session", "batch", "unknown", "slow", "stalled", "no_server"];
    reasons
        .map(|reason| (reason, metric(pgweir, "pgweir_pool_lane_unfit_total", &[("reason", reason)])))
        .into_iter()
        .filter(|(_, count)| *count > 0.0)
        .collect()
}

/// By which messages something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Simple,
    Unnamed,
    Named,
}

const WAYS: [Way; 3] = [Way::Simple, Way::Unnamed, Way::Named];

impl Way {
    /// `sql` with `id` for its parameter; where it is bound by a name, it has been prepared under that.
    fn script(self, sql: &str, name: &str, id: usize) -> Script {
        let id = id.to_string();
        let values = [Some(id.as_str())];
        match self {
            Self::Simple => Script::new().query(&sql.replace("$1", &id)),
            Self::Unnamed => {
                Script::new().parse("", sql).bind("", "", &values).describe(b'P', "").execute("", 0).sync()
            }
            Self::Named => Script::new().bind("", name, &values).describe(b'P', "").execute("", 0).sync(),
        }
    }
}

/// A client that knows what the answers must be.
struct Asker {
    client: Client,
    number: usize,
    turn: usize,
}

impl Asker {
    fn new(port: u16, number: usize) -> Self {
        Self::of(Client::connect(port), number)
    }

    /// Over this connection.
    fn of(mut client: Client, number: usize) -> Self {
        let frames =
            client.run(&Script::new().parse("find", "SELECT $1::text AS mark, v FROM item WHERE id = $2").sync());
        outcome(&frames).unwrap();
        Self { client, number, turn: 0 }
    }

    /// The next question, and its answer.
    fn question(&mut self, way: Way) -> (Script, [String; 2]) {
        self.turn += 1;
        let (mark, id) = (format!("{}/{}", self.number, self.turn), (self.number * 37 + self.turn) % ITEMS + 1);
        let right = [mark.clone(), format!("item {id}")];
        let text = id.to_string();
        let values = [Some(mark.as_str()), Some(text.as_str())];
        let script = match way {
            Way::Simple => Script::new().query(&format!("SELECT '{mark}' AS mark, v FROM item WHERE id = {id}")),
            Way::Unnamed => Script::new()
                .parse("", "SELECT $1::text AS mark, v FROM item WHERE id = $2")
                .bind("", "", &values)
                .describe(b'P', "")
                .execute("", 0)
                .sync(),
            Way::Named => Script::new().bind("", "find", &values).describe(b'P', "").execute("", 0).sync(),
        };
        (script, right)
    }

    /// Asks; the answer, if there is one, is right.
    fn try_ask(&mut self, way: Way) -> Result<(), String> {
        let (script, right) = self.question(way);
        let frames = self.client.run(&script);
        self.check(&frames, &right, way)
    }

    fn check(&self, frames: &[Frame], right: &[String; 2], way: Way) -> Result<(), String> {
        let rows = outcome(frames)?;
        assert_eq!(rows, std::slice::from_ref(right), "client {} asks {way:?}", self.number);
        let tags = match way {
            Way::Simple => "TDCZ",
            Way::Unnamed => "12TDCZ",
            Way::Named => "2TDCZ",
        };
        let told = frames.iter().find(|frame| frame.tag == b'N').map(common::client::said);
        assert_eq!(common::client::tags(frames), tags, "client {} is told {told:?}", self.number);
        Ok(())
    }

    /// [`Asker::try_ask`] of what must not fail.
    fn ask(&mut self, way: Way) {
        self.try_ask(way).unwrap_or_else(|error| panic!("client {} asks {way:?}: {error}", self.number));
    }
}

/// Makes the questions of an [`Asker`] known as fast.
fn warm_askers(pgweir: &Pgweir) {
    let mut asker = Asker::new(pgweir.port(), 9999);
    for way in WAYS {
        let deadline = Instant::now() + PATIENCE;
        let before = rides(pgweir);
        while rides(pgweir) == before {
            assert!(Instant::now() < deadline, "{way:?} does not ride: {:?}", unfit(pgweir));
            (0..120).for_each(|_| asker.ask(way));
        }
    }
}

/// A transaction on a connection of its own has the table for itself.
fn guard(cluster: &Cluster, table: &str) -> Client {
    let mut holder = Client::connect(cluster.primary().port());
    holder.query(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).unwrap();
    holder
}

/// A read of such a table, which answers `guarded 7`.
fn read_of(table: &str) -> String {
    format!("SELECT v FROM {table} WHERE id = 7")
}

/// Reads that wait for a lock on the shared table of this name.
fn waiting_for(cluster: &Cluster, table: &str) -> usize {
    let sql = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass");
    cluster.primary().value_in(integration::DATABASE, &sql).unwrap().parse().unwrap()
}

/// How long the answers of those who need not wait may take on a busy machine.
const SOON: Duration = Duration::from_millis(700);
