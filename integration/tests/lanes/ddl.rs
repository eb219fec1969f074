//! Tables that change under those who read them in lanes: answers are of before or of after, and errors those of PostgreSQL.
//! It must never change a table in a way that a direct connection would be told of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use integration::wire::Script;
use integration::{Cluster, DATABASE, USER};

use crate::common::client::outcome;
use crate::common::{Client, within};
use crate::{TABLES, WAYS, Way, conf, rides, start, unfit, warm};

const SQL: &str = "SELECT * FROM thing WHERE id = $1";
const MAKE: &str =
    "CREATE TABLE thing (id int PRIMARY KEY, v int); INSERT INTO thing SELECT n, n FROM generate_series(1, 50) n";

fn script(way: Way, id: usize) -> Script {
    way.script(SQL, "thing", id)
}

fn connect(port: u16) -> Client {
    let mut client = Client::connect(port);
    client.run(&Script::new().parse("thing", SQL).sync());
    client
}

/// One cluster, whose table belongs to one test at a time.
fn cluster() -> (MutexGuard<'static, ()>, &'static Cluster) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static TABLE: Mutex<()> = Mutex::new(());
    let guard = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = CLUSTER.get_or_init(|| Cluster::builder().sql(TABLES).start().unwrap());
    cluster.primary().query_in(DATABASE, "DROP TABLE IF EXISTS thing, old, elsewhere").unwrap();
    (guard, cluster)
}

/// Each of these leaves a table in which the first column is the number asked for.
const CHANGES: [&str; 6] = [
    "ALTER TABLE thing ADD COLUMN more text DEFAULT 'more'",
    "ALTER TABLE thing ALTER COLUMN v TYPE text USING v::text",
    "ALTER TABLE thing DROP COLUMN more",
    "ALTER TABLE thing ALTER COLUMN v TYPE bigint USING v::bigint",
    "BEGIN; DROP TABLE thing; CREATE TABLE thing (id int PRIMARY KEY, v int); INSERT INTO thing SELECT n, n FROM generate_series(1, 50) n; COMMIT",
    "BEGIN; ALTER TABLE thing RENAME TO old; CREATE TABLE thing AS SELECT id, v, v AS w FROM old; DROP TABLE old; COMMIT",
];

fn under_changes(through: bool) {
    let (_guard, cluster) = cluster();
    let mut direct = Client::connect(cluster.primary().port());
    MAKE.split(';').for_each(|sql| drop(direct.query(sql).unwrap()));
    let pgweir = start(&conf(cluster).size(4));
    let mut first = connect(pgweir.port());
    WAYS.iter().for_each(|way| warm(&pgweir, &mut first, &script(*way, 1)));
    let mut changer = if through { Client::connect(pgweir.port()) } else { direct };
    let (port, stop, answers) = (pgweir.port(), AtomicBool::new(false), AtomicU64::new(0));
    let before = rides(&pgweir);
    thread::scope(|scope| {
        let riders: Vec<_> = (0..12)
            .map(|number| {
                let (stop, answers) = (&stop, &answers);
                scope.spawn(move || {
                    let mut client = connect(port);
                    let mut turn = 0;
                    while !stop.load(Ordering::Relaxed) {
                        turn += 1;
                        let (way, id) = (WAYS[(number + turn) % 3], (number + turn) % 50 + 1);
                        let frames = client.run(&script(way, id));
                        let rows =
                            outcome(&frames).unwrap_or_else(|error| panic!("client {number} asks {way:?}: {error}"));
                        assert_eq!(rows.len(), 1);
                        assert_eq!(rows[0][..2], [id.to_string(), id.to_string()], "{way:?}");
                        // What was described is what came.
                        let described = frames.iter().find(|frame| frame.tag == b'T').unwrap();
                        assert_eq!(usize::from(described.body[1]), rows[0].len(), "{way:?}");
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let done = (|| {
            for change in CHANGES.iter().cycle().take(12) {
                let seen = answers.load(Ordering::Relaxed);
                changer.query(change).map_err(|error| format!("{change}: {error}"))?;
                while answers.load(Ordering::Relaxed) < seen + 60 {
                    if riders.iter().any(|rider| rider.is_finished()) {
                        return Err(format!("a rider has ended over {change}"));
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        riders.into_iter().for_each(|rider| rider.join().unwrap());
        done.unwrap();
    });
    let rode = rides(&pgweir) - before;
    println!("{} answers, {rode} in lanes", answers.into_inner());
    assert!(rode > 0.0, "{:?}", unfit(&pgweir));
    // They ride again once all is known of the table.
    let before = rides(&pgweir);
    within(Duration::from_secs(20), "they ride again", || {
        outcome(&first.run(&script(Way::Named, 1))).unwrap();
        rides(&pgweir) > before + 10.0
    });
}

#[test]
fn tables_change_behind_the_back() {
    under_changes(false);
}

#[test]
fn tables_change_through_the_same_servers() {
    under_changes(true);
}

/// What is no longer there is no longer there, as directly; and a statement that is made anew under the same name is the new one.
#[test]
fn what_is_dropped_is_gone_for_riders() {
    let (_guard, cluster) = cluster();
    let mut direct = connect(cluster.primary().port());
    MAKE.split(';').for_each(|sql| drop(direct.query(sql).unwrap()));
    let mut direct = connect(cluster.primary().port());
    let pgweir = start(&conf(cluster).size(2));
    let mut client = connect(pgweir.port());
    WAYS.iter().for_each(|way| warm(&pgweir, &mut client, &script(*way, 1)));
    let mut owner = Client::connect(cluster.primary().port());
    for _ in 0..3 {
        owner.query("ALTER TABLE thing RENAME TO elsewhere").unwrap();
        for way in WAYS {
            // How the text of an error is worded is the server's; here both are one.
            assert_eq!(outcome(&client.run(&script(way, 2))), outcome(&direct.run(&script(way, 2))), "{way:?}");
        }
        owner.query("ALTER TABLE elsewhere RENAME TO thing").unwrap();
        for way in WAYS {
            assert_eq!(outcome(&client.run(&script(way, 2))).unwrap(), [["2", "2"]], "{way:?}");
        }
    }
    // The right to read it.
    let admin = |sql: &str| drop(cluster.primary().query_in(DATABASE, sql).unwrap());
    admin("ALTER TABLE thing OWNER TO postgres");
    for way in WAYS {
        assert_eq!(
            outcome(&client.run(&script(way, 2))).unwrap_err(),
            "42501 permission denied for table thing",
            "{way:?}"
        );
    }
    admin(&format!("GRANT SELECT ON thing TO {USER}"));
    for way in WAYS {
        assert_eq!(outcome(&client.run(&script(way, 2))).unwrap(), [["2", "2"]], "{way:?}");
    }
    // The client's own name for another statement.
    client.run(&Script::new().close(b'S', "thing").parse("thing", "SELECT v, 'new' FROM thing WHERE id = $1").sync());
    for _ in 0..150 {
        assert_eq!(outcome(&client.run(&script(Way::Named, 3))).unwrap(), [["3", "new"]]);
    }
}
