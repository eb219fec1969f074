//! What may be kept of reads in a catalog written by hand.
//! Must never need a server.

use super::*;

const ROWS: &[&[&str]] = &[
    &["r", "1", "app", "item", "rp"],
    &["r", "2", "app", "secret", "rps"],
    &["r", "3", "app", "secrets", "vp"],
    &["e", "r3", "r2"],
    &["r", "4", "app", "whole", "pp"],
    &["e", "r4", "r2"],
    &["r", "5", "app", "chance", "vp"],
    &["e", "r5", "p1"],
    &["r", "6", "app", "shown", "vp"],
    &["c", "r6", "pg_table_is_visible"],
    &["r", "7", "app", "told", "vp"],
    &["c", "r7", "to_char"],
    // A default is nothing to who reads.
    &["r", "8", "app", "stamped", "rp"],
    &["c", "w8", "now"],
    &["p", "p1", "app", "gen_key", "fvc-pgcrypto"],
    &["p", "p2", "app", "doubled", "fis-"],
    &["s", "p2", "0", "SELECT $1 * 2"],
    &["p", "p3", "app", "near", "fsc-pg_trgm"],
    &["p", "p4", "app", "longest", "avi-"],
    &["r", "9", "app", "matched", "vp"],
    &["e", "r9", "o1"],
    &["o", "o1", "app", "~~~"],
    &["e", "o1", "p3"],
    &["n", "birthday"],
    &["m", "k", "timed"],
    &["c", "k", "now"],
];

#[test]
fn what_hangs_on_data_and_settings_alone_is_kept() {
    let code = Code::of_rows(ROWS);
    for sql in [
        "SELECT 1",
        "SELECT * FROM item WHERE id = $1",
        "SELECT to_char(at, 'YYYY'), date_trunc('day', at), regexp_replace(v, 'a', 'b') FROM told",
        "SELECT regr_slope(a, b), region, version FROM item",
        "SELECT doubled(n), longest(v) FROM item GROUP BY 1",
        "SELECT to_tsvector('english'::regconfig, v) FROM stamped",
        "SELECT current_user, pg_typeof(v) FROM item",
        "VALUES (1), (2)",
    ] {
        let footing = code.footing(sql.as_bytes(), true);
        assert!(code.keeps(sql.as_bytes(), true, footing), "{sql}: {footing:?}");
    }
}

#[test]
fn what_hangs_on_more_is_not() {
    let code = Code::of_rows(ROWS);
    for sql in [
        "SELECT now()",
        "SELECT random() FROM item",
        "SELECT current_date",
        "SELECT current_setting('app.tenant')",
        "SELECT ('app.tenant'::text).current_setting",
        "SELECT (v).timestamptz FROM item",
        "SELECT (1259::oid).pg_relation_size",
        "SELECT (v).near FROM item",
        "SELECT '2024-01-01'::birthday",
        "SELECT u.to_regclass FROM unnest($1::text[]) u",
        "SELECT * FROM secret",
        "SELECT * FROM secrets",
        "SELECT * FROM whole",
        "SELECT * FROM chance",
        "SELECT gen_key()",
        "SELECT near(v) FROM item",
        "SELECT v ~~~ 'a' FROM item",
        "SELECT * FROM matched",
        "SELECT * FROM shown",
        "SELECT has_table_privilege('item', 'SELECT')",
        "SELECT PG_CATALOG.Pg_Get_ViewDef(1)",
        "SELECT 'item'::regclass",
        "SELECT CAST(1259 AS \"regclass\")",
        "SELECT to_regclass('item'), version()",
        "SELECT * FROM item TABLESAMPLE BERNOULLI (10)",
        "SELECT inet_client_addr()",
        "SELECT U&\"v\" FROM item",
        "SELECT * FROM missing",
    ] {
        let footing = code.footing(sql.as_bytes(), true);
        assert!(!code.keeps(sql.as_bytes(), true, footing), "{sql}: {footing:?}");
    }
}

#[test]
fn a_cast_nobody_names_that_is_not_immutable_stops_all() {
    let rows: Vec<&[&str]> = ROWS.iter().copied().chain([&["e", "a", "p3"][..]]).collect();
    let code = Code::of_rows(&rows);
    assert!(!code.keeps(b"SELECT * FROM item", true, Footing::Safe));
}
