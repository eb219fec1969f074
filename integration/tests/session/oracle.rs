//! Twenty sessions on three servers, each against its twin on a direct connection.
//! It must never run two statements at once: what one session does is to be the only cause of a difference.
//!
//! What one client says is a program. A seed gives a *round*: twenty programs of some twelve batches each, of twenty clients
//! of the same user, woven into each other on a pool of exactly three servers, and every answer is compared with that of the
//! same program on a connection of its own to a second cluster; then each of the three servers is looked at. Who waits for a
//! server makes another give up what keeps one, on both sides; that nobody keeps one is an error.
//!
//! Runs the rounds of the seeds 1, 2, 3, … for some seconds; with `PGWEIR_LONG=1` as many as have 10,000 programs. A round
//! that differs is made smaller and printed. `PGWEIR_SEED=n` runs that seed alone, `PGWEIR_ROUNDS=k` that many from there
//! (or from 1), `DIRECT=1` leaves pgweir out: then nothing may differ, or a program is no good.
//! `PGWEIR_WITHOUT=word,word` leaves out the steps that have one of these words, to look behind what is known.
//! `PGWEIR_KNOWN=1` puts in what is known to differ (`words::KNOWN`). `PGWEIR_FAILURES=k` goes on until `k` rounds have
//! differed, `PGWEIR_SHRINK=s` spends at most `s` seconds on each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration::{Cluster, DATABASE, Pgweir};

use crate::common::{Client, Conf, eventually};
use crate::player::{Failure, SERVERS, Stage, Tally};
use crate::program::{SESSIONS, Step, known, program, start};
use crate::shrink::shrink;
use crate::words::{SHOW, SHOW_ALL};

/// The short form's time.
const SHORT: Duration = Duration::from_secs(20);
/// The long form's rounds: 10,000 programs.
const LONG: u64 = 10_000 / SESSIONS as u64;
/// A line is printed so often.
const TOLD: u64 = 25;

/// What every session finds. Everything of `evil` is in the way of SQL that is not qualified. No check of a domain calls code that
/// sets: no text names it, so that pgweir would ask about every statement, and nothing be left to find (`hidden` has that).
const SETUP: &str = r#"
    CREATE ROLE boss SUPERUSER LOGIN; CREATE ROLE plain LOGIN; CREATE ROLE one; CREATE ROLE two; CREATE ROLE doomed;
    CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA evil; CREATE SCHEMA "ö; x";
    CREATE TABLE a.t_where AS SELECT 'a' AS which; CREATE TABLE b.t_where AS SELECT 'b' AS which;
    CREATE TABLE public.t_where AS SELECT 'public' AS which; CREATE TABLE "ö; x".t_where AS SELECT 'ö' AS which;
    CREATE TABLE secret (n int); CREATE TABLE names AS SELECT 1 AS id, 'work_mem' AS name UNION SELECT 2, 'app.hidden';
    CREATE TABLE t_copied (n int, what text); CREATE SEQUENCE numbers; CREATE TABLE serials (n serial); CREATE TABLE triggers (n int);
    CREATE FUNCTION tells(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config($1, $2, false); END $$;
    CREATE FUNCTION definer(text, text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN set_config($1, $2, false); END $$;
    CREATE FUNCTION fixed() RETURNS text LANGUAGE sql SET work_mem = '36MB' AS $$ SELECT pg_catalog.current_setting('work_mem') $$;
    CREATE FUNCTION body_sets() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET app.hidden = 'body'; SET work_mem = '37MB'; END $$;
    CREATE FUNCTION body_resets() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RESET app.tenant; SET work_mem TO DEFAULT; END $$;
    CREATE PROCEDURE proc_sets() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '38MB'; COMMIT; SET app.hidden = 'proc'; END $$;
    CREATE FUNCTION dynamic(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SET %s = %L', $1, $2); END $$;
    CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET app.hidden = 'trigger'; RETURN NEW; END $$;
    CREATE TRIGGER t BEFORE INSERT ON triggers FOR EACH ROW EXECUTE FUNCTION on_insert();
    CREATE VIEW viewed AS SELECT set_config('app.hidden', 'view', false) AS v;
    CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$;
    CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$;
    CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$;
    CREATE FUNCTION evil.never(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$;
    CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
    CREATE VIEW evil.pg_settings AS SELECT 'work_mem' AS name, '1MB' AS setting, 'session' AS source;
    CREATE TYPE evil.text AS ENUM ('evil'); CREATE TYPE evil.bool AS ENUM ('evil');
    CREATE FUNCTION locks(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock($1, 4); RETURN 1; END $$;
    CREATE FUNCTION atomic_sets() RETURNS text BEGIN ATOMIC SELECT set_config('app.hidden', 'atomic', false); END;
    CREATE TABLE defaults (n int, what text DEFAULT tells('app.hidden', 'default'));
    CREATE TABLE checked (n int CHECK (tells('app.hidden', 'check') IS NOT NULL));
    CREATE TABLE deferred (n int);
    CREATE FUNCTION on_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET app.hidden = 'commit'; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER t AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION on_commit();
    CREATE TABLE ruled (n int);
    CREATE RULE r AS ON INSERT TO ruled DO INSTEAD SELECT set_config('app.hidden', 'rule', false);
    CREATE AGGREGATE agg_sets(text) (SFUNC = tells, STYPE = text, INITCOND = 'app.hidden');
    CREATE OPERATOR public.@~ (LEFTARG = text, RIGHTARG = text, FUNCTION = tells);
    CREATE DOMAIN told_domain AS text CHECK (VALUE IS NOT NULL);
    CREATE TABLE guarded AS SELECT 1 AS n; ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded USING (tells('app.hidden', 'policy') IS NOT NULL);
    SELECT lo_from_bytea(4711, 'abcdefgh'); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC;
    GRANT ALL ON SCHEMA a, b, public, evil, "ö; x" TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA a, b, public, evil, "ö; x" TO PUBLIC;
    REVOKE ALL ON secret FROM PUBLIC; GRANT ALL ON SEQUENCE numbers, serials_n_seq TO PUBLIC;
    REVOKE TEMP ON DATABASE app FROM PUBLIC; GRANT TEMP ON DATABASE app TO plain, one, two;
"#;

fn cluster() -> Arc<Cluster> {
    let builder = Cluster::builder()
        .setting("max_connections", "100")
        .setting("max_prepared_transactions", "50")
        .setting("synchronous_commit", "off")
        .setting("log_min_messages", "panic");
    let cluster = builder.start().unwrap();
    cluster.primary().query_in(DATABASE, SETUP).unwrap();
    Arc::new(cluster)
}

fn pgweir(cluster: &Cluster) -> Option<Pgweir> {
    if std::env::var_os("DIRECT").is_some() {
        return None;
    }
    let conf = Conf::trust(cluster)
        .user("boss", "")
        .user("plain", "")
        .size(SERVERS)
        .pool("query_wait_notify = \"100ms\"")
        .pool(&format!("min_pool_size = {SERVERS}"))
        .pool("server_order = \"rotate\"");
    let pgweir = conf.start();
    for user in ["boss", "plain"] {
        // Until the code was read for the first time, what it sets is forgotten.
        eventually("the code of the database is known", || {
            let mut client = Client::connect_with(pgweir.port(), &[("user", user)]);
            let _ = client.query("SELECT * FROM viewed");
            (0..SERVERS).all(|_| client.value("SELECT concat(current_setting('app.hidden', true))") == "view")
        });
    }
    Some(pgweir)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A program as text.
fn told(steps: &[Step]) -> String {
    let mut text = String::new();
    let mut known = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if !known.contains(&step.session) {
            known.push(step.session);
            text += &format!("       session {:2} starts as {:?}\n", step.session, start(step.session));
        }
        text += &format!("  {at:3}. session {:2} {:?}\n", step.session, step.act)
            .replace(SHOW, "SHOW")
            .replace(SHOW_ALL, "SHOW ALL");
    }
    text
}

/// Runs a program with a pgweir of its own.
fn alone(stage: &Stage, steps: &[Step]) -> Option<Failure> {
    let own = Stage::new(pgweir(&stage.pooled), Arc::clone(&stage.pooled), Arc::clone(&stage.direct));
    own.run(steps, &mut Tally::default()).err()
}

fn explain(stage: &Stage, seed: u64, steps: Vec<Step>, failure: Failure) {
    println!("seed {seed} differs at step {} of {}:\n{}", failure.at, steps.len(), failure.what);
    let limit = Duration::from_secs(number("PGWEIR_SHRINK").unwrap_or(60));
    let Some(again) = alone(stage, &steps) else {
        return println!("It does not with a new pgweir: it hangs on earlier programs.\n{}", told(&steps));
    };
    let (steps, failure) = shrink(steps, again, limit, |steps| alone(stage, steps));
    println!("seed {seed}, made smaller, differs at step {}:\n{}{}\n", failure.at, told(&steps), failure.what);
}

/// What all threads share.
struct Run {
    next: AtomicU64,
    last: Option<u64>,
    until: Instant,
    failures: AtomicU64,
    failures_limit: u64,
    without: Vec<String>,
    all: bool,
}

impl Run {
    fn seed(&self) -> Option<u64> {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        let goes_on = self.last.map_or(Instant::now() < self.until, |last| seed < last);
        (goes_on && self.failures.load(Ordering::Relaxed) < self.failures_limit).then_some(seed)
    }

    /// One program after the other, on servers of this thread.
    fn go(&self) -> Tally {
        let (pooled, direct) = (cluster(), cluster());
        crate::leaks::know_seeds(&direct);
        let mut stage = Stage::new(pgweir(&pooled), pooled, direct);
        let mut tally = Tally::default();
        while let Some(seed) = self.seed() {
            let mut steps = program(seed);
            steps.retain(|step| self.all || known(step).is_none());
            steps.retain(|step| !self.without.iter().any(|word| format!("{step:?}").contains(word)));
            tally.rounds += 1;
            if let Err(failure) = stage.run(&steps, &mut tally) {
                explain(&stage, seed, steps, failure);
                self.failures.fetch_add(1, Ordering::Relaxed);
                stage.pgweir = pgweir(&stage.pooled);
            }
            if seed % TOLD == 0 {
                println!("up to seed {seed}, here {tally:?}");
            }
        }
        tally
    }
}

#[test]
fn twenty_sessions_on_three_servers_are_twenty_sessions() {
    let (began, given) = (Instant::now(), number("PGWEIR_SEED"));
    let long = std::env::var_os("PGWEIR_LONG").is_some();
    let first = given.unwrap_or(1);
    let rounds = number("PGWEIR_ROUNDS").or(given.map(|_| 1)).or(long.then_some(LONG));
    let without = std::env::var("PGWEIR_WITHOUT").unwrap_or_default();
    let run = Run {
        next: AtomicU64::new(first),
        last: rounds.map(|count| first + count),
        until: began + SHORT,
        failures: AtomicU64::new(0),
        failures_limit: number("PGWEIR_FAILURES").unwrap_or(1),
        without: without.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        all: std::env::var_os("PGWEIR_KNOWN").is_some(),
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads = number("PGWEIR_THREADS").unwrap_or(if long { cores } else { 1 });
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(|| run.go())).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let failures = run.failures.load(Ordering::Relaxed);
    let rounds: usize = tallies.iter().map(|tally| tally.rounds).sum();
    println!(
        "seeds {first} to {}, {} programs, {:?}: {failures} seeds differ; {tallies:?}",
        first + rounds as u64 - 1,
        rounds * SESSIONS,
        began.elapsed()
    );
    assert_eq!(failures, 0, "see above; PGWEIR_SEED=n runs one seed again");
}
