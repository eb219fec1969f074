//! The lattice and its sources, and reads in a catalog written by hand.
//! Must never need a server.

use super::*;
use crate::sql::code::Code;

const SAFE: Footing = Footing::Safe;
const TIMED: Footing = Footing::Timed;
const MAYBE: Footing = Footing::Optimistic;

fn no(reason: Reason) -> Footing {
    Footing::Primary(reason)
}

#[test]
fn the_worst_part_decides() {
    let (one, two) = (no(Reason::Sequence), no(Reason::ForeignTable));
    for (a, b, both) in [
        (SAFE, SAFE, SAFE),
        (SAFE, TIMED, TIMED),
        (TIMED, SAFE, TIMED),
        (TIMED, MAYBE, MAYBE),
        (SAFE, MAYBE, MAYBE),
        (MAYBE, SAFE, MAYBE),
        (MAYBE, one, one),
        (one, SAFE, one),
        (one, two, one),
        (two, one, two),
    ] {
        assert_eq!(a.and(b), both, "{a:?} {b:?}");
        let mut merged = a;
        assert_eq!(merged.merge(b), a != both, "{a:?} {b:?}");
        assert_eq!(merged, both);
    }
    assert_eq!(no(Reason::VolatileFunction).implied(), MAYBE);
    assert_eq!(no(Reason::UnseenCode).implied(), MAYBE);
    assert_eq!(no(Reason::Function).implied(), no(Reason::Function));
    assert_eq!((SAFE.implied(), MAYBE.implied()), (SAFE, MAYBE));
}

#[test]
fn functions_are_judged_by_what_they_are_declared() {
    let quiet: &[&[u8]] = &[b"citext", b"pgcrypto"];
    for (flags, expected) in [
        ("fis-", SAFE),
        ("fip-", SAFE),
        ("fss-", TIMED),
        ("fvs-", MAYBE),
        ("fvp-", MAYBE),
        ("fic-", SAFE),
        ("fic-citext", SAFE),
        ("fsc-citext", SAFE),
        ("fsi-citext", SAFE),
        ("fsc-pg_trgm", SAFE),
        ("fvc-pg_trgm", no(Reason::VolatileFunction)),
        ("fvc-citext", no(Reason::VolatileFunction)),
        ("fvc-pgcrypto", SAFE),
        ("fvc-", no(Reason::VolatileFunction)),
        ("fsc-", no(Reason::UnseenCode)),
        ("fsc-dblink", no(Reason::UnseenCode)),
        ("fsc-pg_buffercache", no(Reason::Function)),
        ("fii-", no(Reason::UnseenCode)),
        ("fii-citext", SAFE),
        ("fsi-", no(Reason::UnseenCode)),
        ("fvi-", no(Reason::VolatileFunction)),
        ("fio-", no(Reason::UnseenCode)),
        ("fix-", no(Reason::UnseenCode)),
        ("avi-", SAFE),
        ("", no(Reason::UnseenCode)),
    ] {
        assert_eq!(declared(flags.as_bytes(), quiet), expected, "{flags}");
    }
}

#[test]
fn relations_are_judged_by_kind_and_persistence() {
    for (flags, expected) in [
        ("rp", SAFE),
        ("pp", SAFE),
        ("vp", SAFE),
        ("mp", SAFE),
        ("mu", no(Reason::UnloggedTable)),
        ("ru", no(Reason::UnloggedTable)),
        ("Sp", no(Reason::Sequence)),
        ("Su", no(Reason::Sequence)),
        ("fp", no(Reason::ForeignTable)),
        ("rt", no(Reason::TemporaryRelation)),
    ] {
        assert_eq!(stored(flags.as_bytes()), expected, "{flags}");
    }
}

const ROWS: &[&[&str]] = &[
    &["r", "1", "app", "t", "rp"],
    &["r", "2", "app", "v", "vp"],
    &["r", "3", "app", "vv", "vp"],
    &["e", "r3", "r2"],
    &["m", "r2", "locks"],
    &["r", "4", "app", "counter", "Sp"],
    &["r", "5", "app", "x_seq", "rp"],
    &["r", "6", "app", "parent", "pp"],
    &["r", "7", "app", "child", "ru"],
    &["e", "r6", "r7"],
    &["r", "8", "app", "far", "fp"],
    &["r", "9", "a", "twice", "rp"],
    &["r", "10", "b", "twice", "ru"],
    &["r", "11", "app", "guarded", "rp"],
    &["e", "r11", "p4"],
    &["r", "12", "app", "watch", "vp"],
    &["m", "r12", "catalog"],
    &["r", "13", "app", "node", "vp"],
    &["c", "r13", "pg_is_in_recovery"],
    &["r", "14", "app", "fine", "vp"],
    &["c", "r14", "random"],
    &["r", "15", "app", "recent", "vp"],
    &["c", "r15", "now"],
    &["r", "16", "app", "dated", "vp"],
    &["m", "r16", "timed"],
    &["r", "17", "app", "own", "rps"],
    &["c", "r17", "current_setting"],
    &["g", "r17", "app.tenant"],
    &["r", "18", "app", "own_view", "vp"],
    &["e", "r18", "r17"],
    &["r", "19", "app", "server", "vp"],
    &["c", "r19", "current_setting"],
    &["g", "r19", "Work_Mem"],
    &["g", "r19", "in_hot_standby"],
    &["r", "20", "app", "asking", "vp"],
    &["g", "r20", ""],
    &["p", "p1", "app", "pure", "fip-"],
    &["s", "p1", "0", "BEGIN RETURN $1 + 1; END"],
    &["p", "p2", "app", "looks", "fss-"],
    &["s", "p2", "0", "SELECT count(*) FROM t"],
    &["p", "p3", "app", "scans", "fvp-"],
    &["s", "p3", "0", "BEGIN RETURN QUERY SELECT * FROM t; END"],
    &["p", "p4", "app", "writes", "fvp-"],
    &["s", "p4", "0", "BEGIN INSERT INTO t VALUES (1); RETURN 1; END"],
    &["p", "p5", "app", "draws", "fsp-"],
    &["s", "p5", "0", "BEGIN PERFORM nextval('counter'); RETURN 1; END"],
    &["p", "p6", "app", "other", "fss-"],
    &["s", "p6", "0", "SELECT 1"],
    &["m", "p6", "definer"],
    &["p", "p7", "app", "lies", "fip-"],
    &["s", "p7", "0", "BEGIN RETURN pg_is_in_recovery(); END"],
    &["p", "p8", "app", "dynamic", "fsp-"],
    &["s", "p8", "0", "BEGIN EXECUTE q; END"],
    &["p", "p9", "app", "total", "aii-"],
    &["e", "p9", "p4"],
    &["p", "p10", "x", "now", "fvp-"],
    &["s", "p10", "0", "BEGIN DELETE FROM t; END"],
    &["p", "p11", "app", "full_name", "fvpa"],
    &["s", "p11", "0", "BEGIN UPDATE t SET a = 1; END"],
    &["p", "p12", "app", "nested", "fss-"],
    &["s", "p12", "0", "SELECT app.draws()"],
    &["p", "p13", "app", "stats", "fss-"],
    &["s", "p13", "0", "SELECT count(*) FROM pg_stat_activity"],
    &["p", "p14", "app", "far_away", "fss-"],
    &["s", "p14", "0", "SELECT count(*) FROM far"],
    &["p", "p15", "app", "read_only", "fis-"],
    &["s", "p15", "0", "SELECT current_setting('transaction_read_only')"],
    &["p", "p16", "app", "port", "fsp-"],
    &["s", "p16", "0", "DECLARE x text; BEGIN EXECUTE 'SHOW port' INTO x; RETURN x; END"],
    &["p", "p17", "app", "tenant", "fss-"],
    &["s", "p17", "0", "SELECT current_setting('app.tenant', true)"],
    &["p", "p18", "app", "over_port", "fss-"],
    &["s", "p18", "0", "SELECT app.port()"],
    &["o", "o1", "app", "==="],
    &["e", "o1", "p1"],
    &["o", "o2", "app", "!!!"],
    &["e", "o2", "p4"],
];

#[test]
fn reads_stand_as_what_they_name() {
    let code = Code::of_rows(ROWS);
    for (sql, expected) in [
        ("SELECT * FROM t", SAFE),
        ("SELECT * FROM app.t", SAFE),
        ("SELECT * FROM nowhere.t", no(Reason::UnknownRelation)),
        ("SELECT * FROM missing", no(Reason::UnknownRelation)),
        ("WITH missing AS (SELECT 1) SELECT * FROM missing", SAFE),
        ("WITH far AS (SELECT 1) SELECT * FROM far", no(Reason::ForeignTable)),
        ("SELECT * FROM v", no(Reason::ViewLocksRows)),
        ("SELECT * FROM t, LATERAL (SELECT * FROM vv) x", no(Reason::ViewLocksRows)),
        ("SELECT * FROM counter", no(Reason::Sequence)),
        ("SELECT last_value FROM counter", no(Reason::Sequence)),
        ("SELECT * FROM x_seq", SAFE),
        ("SELECT * FROM parent", no(Reason::UnloggedTable)),
        ("SELECT (SELECT count(*) FROM far)", no(Reason::ForeignTable)),
        ("SELECT * FROM twice", no(Reason::UnloggedTable)),
        ("SELECT * FROM a.twice", SAFE),
        ("SELECT * FROM guarded", no(Reason::VolatileFunction)),
        ("SELECT * FROM watch", no(Reason::CatalogRelation)),
        ("SELECT * FROM node", no(Reason::Function)),
        ("SELECT * FROM fine", Footing::Alone),
        ("SELECT current_setting('application_name')", Footing::Alone),
        ("SELECT pg_catalog.current_setting('application_name')", Footing::Alone),
        ("SELECT clock_timestamp()", Footing::TimedAlone),
        ("SELECT * FROM recent", TIMED),
        ("SELECT * FROM fine, dated", Footing::TimedAlone),
        ("SELECT * FROM dated, fine", Footing::TimedAlone),
        ("SELECT current_date, looks()", TIMED),
        ("SELECT a::date FROM t", TIMED),
        ("SELECT pure(1)", SAFE),
        ("SELECT app.pure(1)", SAFE),
        ("SELECT looks()", TIMED),
        ("SELECT * FROM scans()", MAYBE),
        ("SELECT writes()", no(Reason::VolatileFunction)),
        ("SELECT 1 FROM t ORDER BY writes()", no(Reason::VolatileFunction)),
        ("SELECT draws()", no(Reason::Function)),
        ("SELECT nested()", no(Reason::Function)),
        ("SELECT other()", no(Reason::SecurityDefiner)),
        ("SELECT * FROM own", Footing::Alone),
        ("SELECT * FROM own_view", Footing::Alone),
        ("SELECT * FROM server", no(Reason::NodeSetting)),
        ("SELECT * FROM asking", no(Reason::NodeSetting)),
        ("SELECT read_only()", no(Reason::NodeSetting)),
        ("SELECT port()", no(Reason::NodeSetting)),
        ("SELECT over_port()", no(Reason::NodeSetting)),
        ("SELECT tenant()", Footing::TimedAlone),
        ("SELECT lies()", no(Reason::Function)),
        ("SELECT dynamic()", no(Reason::UnseenCode)),
        ("SELECT stats()", no(Reason::CatalogRelation)),
        ("SELECT far_away()", no(Reason::ForeignTable)),
        ("SELECT total(a) FROM t", no(Reason::VolatileFunction)),
        ("SELECT now()", no(Reason::VolatileFunction)),
        ("SELECT pg_catalog.now()", TIMED),
        ("SELECT lower('x')", SAFE),
        ("SELECT made_since()", no(Reason::FunctionUnknown)),
        ("SELECT nowhere.pure(1)", no(Reason::FunctionUnknown)),
        ("SELECT t.full_name FROM t", no(Reason::VolatileFunction)),
        ("SELECT 1 === 2", SAFE),
        ("SELECT 1 OPERATOR(app.===) 2", SAFE),
        ("SELECT 1 OPERATOR(app.!!!) 2", no(Reason::VolatileFunction)),
        ("SELECT 1 OPERATOR(app.###) 2", no(Reason::Operator)),
        ("COPY t TO STDOUT", SAFE),
        ("COPY far TO STDOUT", no(Reason::ForeignTable)),
        ("COPY (SELECT draws()) TO STDOUT", no(Reason::Function)),
        ("EXPLAIN SELECT looks()", TIMED),
    ] {
        assert_eq!(code.footing(sql.as_bytes(), true), expected, "{sql}");
    }
}

#[test]
fn what_nobody_names_counts_for_everything() {
    for (rows, expected) in [
        (&[&["p", "p1", "x", "f", "fvc-"][..], &["e", "a", "p1"]], MAYBE),
        (&[&["p", "p1", "x", "f", "fic-"], &["e", "a", "p1"]], SAFE),
        (&[&["p", "p1", "x", "f", "fsc-"], &["e", "t", "p1"]], MAYBE),
        (&[&["c", "a", "current_setting"], &["g", "a", "app.tenant"]], Footing::Alone),
        (&[&["c", "a", "current_setting"], &["g", "a", "in_hot_standby"]], no(Reason::NodeSetting)),
        (&[&["c", "a", "pg_is_in_recovery"], &["p", "p1", "x", "f", "fvc-"]], no(Reason::Function)),
    ] {
        assert_eq!(Code::of_rows(rows).footing(b"SELECT 1", true), expected, "{rows:?}");
    }
}
