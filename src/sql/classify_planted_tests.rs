//! Volatile functions planted in every place that a read has.
//! Must never contain a place in which a safe function is not a plain read, or finding nothing would prove nothing.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::sql::shape::scan;

fn verdict_of(sql: &str) -> Verdict {
    classify(sql.as_bytes(), &scan(sql.as_bytes(), true))
}

/// A place for an expression of any type in a read.
const PLACES: &[&str] = &[
    "SELECT #",
    "SELECT 1 FROM t WHERE # IS NOT NULL",
    "SELECT * FROM abs(#) f",
    "SELECT * FROM ROWS FROM (abs(#), abs(1)) f",
    "WITH x AS (SELECT #) SELECT 1",
    "WITH x AS (WITH y AS (SELECT #) TABLE y) TABLE x",
    "SELECT (SELECT # FROM u)",
    "SELECT CASE # WHEN 1 THEN 2 END",
    "SELECT CASE WHEN a THEN # ELSE 1 END FROM t",
    "SELECT CASE WHEN a THEN 1 ELSE # END FROM t",
    "SELECT count(*) FILTER (WHERE # = 1) FROM t",
    "SELECT array_agg(a ORDER BY #) FROM t",
    "SELECT percentile_cont(#) WITHIN GROUP (ORDER BY a) FROM t",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY #) FROM t",
    "SELECT sum(a) OVER (PARTITION BY # ORDER BY b) FROM t",
    "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY a ROWS # PRECEDING)",
    "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY a ROWS BETWEEN 1 PRECEDING AND # FOLLOWING)",
    "SELECT 1 FROM t LIMIT #",
    "SELECT 1 FROM t OFFSET #",
    "SELECT 1 FROM t FETCH FIRST (#) ROWS ONLY",
    "SELECT 1 FROM t JOIN u ON # = 1",
    "SELECT 1 FROM t LEFT JOIN LATERAL (SELECT #) q ON true",
    "VALUES (1), (#)",
    "SELECT * FROM (VALUES (1, #)) v(a, b)",
    "SELECT a FROM t GROUP BY #",
    "SELECT a FROM t GROUP BY CUBE (a, #)",
    "SELECT a FROM t GROUP BY a HAVING # = 1",
    "SELECT a FROM t ORDER BY #",
    "SELECT DISTINCT ON (#) a FROM t",
    "SELECT ROW(1, #)",
    "SELECT (1, #)",
    "SELECT ARRAY[1, #]",
    "SELECT ARRAY(SELECT #)",
    "SELECT a[#] FROM t",
    "SELECT a[1:#] FROM t",
    "SELECT (#).f",
    "SELECT #::text",
    "SELECT CAST(# AS numeric(10))",
    "SELECT # COLLATE \"C\"",
    "SELECT # AT TIME ZONE 'UTC'",
    "SELECT EXTRACT(year FROM #)",
    "SELECT SUBSTRING('a' FROM # FOR 2)",
    "SELECT OVERLAY('a' PLACING 'b' FROM #)",
    "SELECT POSITION('a' IN #)",
    "SELECT TRIM(BOTH 'a' FROM #)",
    "SELECT COALESCE(1, #)",
    "SELECT GREATEST(1, #)",
    "SELECT NULLIF(1, #)",
    "SELECT 1 IN (2, #)",
    "SELECT # IN (SELECT 1)",
    "SELECT 1 = ANY (ARRAY[#])",
    "SELECT 1 BETWEEN 0 AND #",
    "SELECT NOT (# IS TRUE)",
    "SELECT # IS DISTINCT FROM 1",
    "SELECT 'a' LIKE # ESCAPE 'x'",
    "SELECT 'a' SIMILAR TO #",
    "SELECT make_interval(days => #)",
    "SELECT concat(VARIADIC ARRAY[#])",
    "SELECT (1, 2) OVERLAPS (3, #)",
    "SELECT XMLELEMENT(name a, XMLATTRIBUTES(# AS b), 1)",
    "SELECT XMLFOREST(# AS a)",
    "SELECT x.* FROM XMLTABLE('/a' PASSING # COLUMNS b text DEFAULT 'c') x",
    "SELECT JSON_OBJECT('a' : #)",
    "SELECT JSON_ARRAY(1, #)",
    "SELECT JSON_ARRAYAGG(#) FROM t",
    "SELECT JSON_OBJECTAGG('a' : #) FROM t",
    "SELECT JSON_VALUE('{}'::jsonb, '$' PASSING # AS x)",
    "SELECT JSON_QUERY(#, '$')",
    "SELECT # IS JSON",
    "SELECT * FROM JSON_TABLE(#, '$' COLUMNS (a int PATH '$')) j",
    "SELECT * FROM t TABLESAMPLE SYSTEM (#)",
    "SELECT * FROM t TABLESAMPLE SYSTEM (1) REPEATABLE (#)",
    "SELECT 1 UNION SELECT #",
    "(SELECT 1 EXCEPT SELECT 2) INTERSECT (SELECT #)",
    "EXPLAIN ANALYZE SELECT #",
    "SELECT abs(abs(#))",
    "SELECT - #",
    "SELECT 1 + #",
    "SELECT GROUPING(a), # FROM t GROUP BY a",
];

const VOLATILE: &[&str] = &[
    "nextval('s')",
    "app.f(1)",
    "my_function()",
    "pg_advisory_lock(1)",
    "\"f\"(2)",
    "pg_catalog.txid_current()",
    "lo_unlink(1)",
];

#[test]
fn every_place_is_a_read_with_a_safe_function() {
    for place in PLACES {
        let sql = place.replace('#', "abs(1)");
        // A name behind a value may be that of a function, which no server's catalog has told about here.
        let expected = if place.ends_with(").f") { Reason::FunctionUnknown } else { Reason::PureRead };
        assert_eq!(verdict_of(&sql).reason, expected, "{sql}");
    }
}

proptest! {
    /// A volatile function planted in any place, itself planted in any place, is found.
    #[test]
    fn planted_functions_are_found(outer in 0..PLACES.len(), inner in 0..PLACES.len(), function in 0..VOLATILE.len()) {
        let place = if PLACES[inner].starts_with("EXPLAIN") { PLACES[0] } else { PLACES[inner] };
        let once = PLACES[outer].replace('#', VOLATILE[function]);
        prop_assert!(matches!(verdict_of(&once).route, Route::Primary | Route::Catalog), "{}", once);
        let twice = PLACES[outer].replace('#', &format!("({})", place.replace('#', VOLATILE[function])));
        let verdict = verdict_of(&twice);
        prop_assert!(matches!(verdict.route, Route::Primary | Route::Catalog), "{}", &twice);
        prop_assert!(verdict.reason != Reason::Unparsable, "{}", twice);
    }

    #[test]
    fn no_bytes_do_harm(sql in proptest::collection::vec(any::<u8>(), 0..200), conforming: bool) {
        let _ = classify(&sql, &scan(&sql, conforming));
    }
}
