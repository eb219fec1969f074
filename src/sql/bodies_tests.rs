//! Bodies, and what is found in them.
//! Must never be read as if a body in it had ever run.

use super::*;

fn plpgsql(body: &str) -> Touch {
    read(body.as_bytes(), Language::PlPgSql, &mut |_| {})
}

fn sql(body: &str) -> Touch {
    read(body.as_bytes(), Language::Sql, &mut |_| {})
}

fn names(touch: &Touch) -> String {
    let names: Vec<_> = touch.names.iter().map(|name| String::from_utf8_lossy(name)).collect();
    names.join(",")
}

#[test]
fn harmless_bodies_do_nothing() {
    for body in [
        "BEGIN RETURN a + 1; END",
        "DECLARE x int := 1; y text; BEGIN SELECT a INTO x FROM t WHERE b = $1; RETURN x; END",
        "BEGIN IF a THEN UPDATE t SET b = 1 WHERE c; ELSE DELETE FROM t; END IF; RETURN NULL; END",
        "BEGIN FOR r IN SELECT * FROM t LOOP INSERT INTO u (set_at) VALUES (now()); END LOOP; END",
        "BEGIN RAISE NOTICE 'set %', 1; END",
        "BEGIN PERFORM pg_advisory_xact_lock(1); END",
        "BEGIN -- SET a = 1\n /* LISTEN b */ RAISE EXCEPTION 'SET x = 1; LISTEN y'; EXCEPTION WHEN OTHERS THEN RETURN 1; END",
        "DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; FETCH c INTO x; END",
        "BEGIN COMMIT; ROLLBACK; CALL p(1); END",
        "BEGIN EXECUTE 'DELETE FROM t WHERE a = $1' USING x; END",
        "BEGIN EXECUTE 'SELECT ''set''' INTO x; END",
        "BEGIN EXECUTE $x$ UPDATE t SET a = 1 $x$; END",
        "BEGIN CREATE TEMP TABLE x (a int) ON COMMIT DROP; GRANT EXECUTE ON FUNCTION f TO x; END",
        "BEGIN RETURN CASE WHEN a THEN b ELSE c END; END",
    ] {
        let touch = plpgsql(body);
        let effects = touch.effects.without(Effects::CLOSE_CURSOR);
        assert!(effects.is_empty() && touch.names.is_empty() && !touch.hidden, "{body}: {touch:?}");
    }
    for body in ["SELECT a + 1 FROM t", "INSERT INTO t VALUES (1) RETURNING a; SELECT 2", "SELECT f(a, 'b') FROM g"] {
        assert_eq!(sql(body), Touch::default(), "{body}");
    }
}

#[test]
fn every_construct_is_found() {
    let (one, temp) = (Effects::SET_CONFIG, Effects::TEMP);
    for (body, effects) in [
        ("BEGIN PERFORM set_config('app.user', u, false); END", one),
        ("DECLARE x text := pg_catalog.set_config('app.user', u, f); BEGIN NULL; END", one),
        ("BEGIN PERFORM set_config('app.user', u, true); END", Effects::SET_LOCAL),
        ("BEGIN SET app.user = 'x'; END", Effects::SET_SESSION),
        ("begin if a then set work_mem to '1MB'; end if; end", Effects::SET_SESSION),
        ("BEGIN LOOP SET a.b = 1; END LOOP; END", Effects::SET_SESSION),
        ("<<x>> BEGIN RESET work_mem; END", Effects::RESET),
        ("BEGIN a; EXCEPTION WHEN OTHERS THEN SET LOCAL a = 1; END", Effects::SET_LOCAL),
        ("BEGIN CREATE TEMP TABLE x AS SELECT 1; END", temp),
        ("BEGIN IF NOT a THEN CREATE LOCAL TEMPORARY TABLE x (a int); END IF; END", temp),
        ("BEGIN EXECUTE 'CREATE TEMP TABLE x (a int)'; END", temp),
        ("BEGIN LISTEN a; END", Effects::LISTEN),
        ("BEGIN IF a THEN UNLISTEN *; END IF; END", Effects::UNLISTEN),
        ("BEGIN RETURN pg_try_advisory_lock(1); END", Effects::ADVISORY_LOCK),
        ("BEGIN x := pg_advisory_unlock ( 1 ); END", Effects::ADVISORY_UNLOCK),
        ("BEGIN LOAD 'x'; END", Effects::LOAD),
        ("BEGIN PERFORM setseed(1); END", Effects::SETSEED),
        ("BEGIN NEW.id := nextval('s'); RETURN NEW; END", Effects::SEQUENCE_STATE),
        ("BEGIN RETURN lastval(); END", Effects::SEQUENCE_READ),
        ("BEGIN CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; END", Effects::DDL),
        ("BEGIN ALTER TABLE t ADD a int DEFAULT f(); END", Effects::DDL),
        ("BEGIN EXECUTE x; END", Effects::UNKNOWN_FUNCTION),
        ("BEGIN EXECUTE 'SELECT ' || x INTO y; END", Effects::UNKNOWN_FUNCTION),
        ("BEGIN RETURN QUERY EXECUTE format('SELECT %I', x); END", Effects::UNKNOWN_FUNCTION),
        ("BEGIN FOR r IN EXECUTE x LOOP NULL; END LOOP; END", Effects::UNKNOWN_FUNCTION),
        ("BEGIN DO 'BEGIN END'; END", Effects::UNKNOWN_FUNCTION),
        ("BEGIN PREPARE x AS SELECT 1; END", Effects::UNKNOWN_FUNCTION),
        ("BEGIN PERFORM query_to_xml(x, true, true, ''); END", Effects::UNKNOWN_FUNCTION),
        ("BEGIN PERFORM U&\"\\0061\"(); END", Effects::UNKNOWN_FUNCTION),
    ] {
        assert!(plpgsql(body).effects.has(effects), "{body}: {:?}", plpgsql(body));
    }
    for (body, effects) in [
        ("SELECT 1; SET a = 1", Effects::SET_SESSION),
        ("SELECT 1 INTO TEMP x", temp),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Effects::HOLD_CURSOR),
        ("EXECUTE x", Effects::UNKNOWN_FUNCTION),
        ("DISCARD TEMP", Effects::DISCARD),
        ("NOTIFY a; SELECT pg_notify('a', 'b')", Effects::NOTIFY),
        ("SELECT set_config('a.b', $1, false)", one),
    ] {
        assert!(sql(body).effects.has(effects), "{body}: {:?}", sql(body));
    }
}

#[test]
fn settings_are_named_or_said_to_be_hidden() {
    for (body, expected, others, hidden) in [
        ("BEGIN PERFORM set_config('app.user', 'x', false); END", "app.user", false, false),
        ("BEGIN SET app.a = 1; IF x THEN SET app.b = 2; END IF; END", "app.a,app.b", false, false),
        ("BEGIN EXECUTE 'SET app.c = 1'; END", "app.c", false, false),
        ("BEGIN PERFORM set_config(name, value, false); END", "", true, true),
        ("BEGIN RESET work_mem; END", "", true, false),
        ("BEGIN EXECUTE 'SET app.d = ' || quote_literal(x); END", "", false, true),
    ] {
        let touch = plpgsql(body);
        assert_eq!((names(&touch).as_str(), touch.others, touch.hidden), (expected, others, hidden), "{body}");
    }
    let touch = sql("SELECT set_config($1, $2, false)");
    assert!(touch.others && touch.hidden);
}

#[test]
fn other_languages_are_seen_to_run_sql_or_not() {
    for (body, unseen) in [
        ("return args[0] + 1", false),
        ("my $x = shift; return $x;", false),
        ("plpy.execute('SET a = 1')", true),
        ("spi_exec_query(\"SET a = 1\");", true),
        ("plv8.execute('x')", true),
        ("plan = SD.setdefault('p', plpy.prepare('x'))", true),
    ] {
        let touch = read(body.as_bytes(), Language::Other, &mut |_| {});
        assert_eq!(touch.effects.any(Effects::UNKNOWN_FUNCTION), unseen, "{body}");
    }
}

#[test]
fn names_are_told_folded() {
    let mut all = Vec::new();
    read(b"BEGIN Perform App.\"Do\"(1); EXECUTE 'SELECT inner(2)'; a +|+ b; END", Language::PlPgSql, &mut |told| {
        if let Found::Name(name) = told {
            all.push(String::from_utf8_lossy(name).into_owned());
        }
    });
    for name in ["app", "Do", "inner", "+|+"] {
        assert!(all.iter().any(|known| known == name), "{name}: {all:?}");
    }
}

#[test]
fn settings_that_differ_by_server_are_told_of() {
    for (body, expected) in [
        ("SELECT current_setting('transaction_read_only')", true),
        ("SELECT pg_catalog.\"current_setting\" ('Port'::text, true)", true),
        ("SELECT current_setting(name) FROM t", true),
        ("SELECT current_setting('role' || a) FROM t", true),
        ("SELECT current_setting('app.tenant'), current_setting('in_hot_standby')", true),
        ("BEGIN RETURN (SELECT current_setting('app.' || current_setting('port'))); END", true),
        ("DECLARE x text := current_setting('in_hot_standby'); BEGIN RETURN x; END", true),
        ("BEGIN EXECUTE 'SELECT current_setting(''port'')' INTO x; RETURN x; END", true),
        ("BEGIN EXECUTE 'SHOW port' INTO x; RETURN x; END", true),
        ("BEGIN FOR r IN SHOW ALL LOOP RETURN r; END LOOP; END", true),
        ("BEGIN EXECUTE 'SHOW work_mem' INTO x; EXECUTE 'SHOW app.tenant' INTO y; END", false),
        ("BEGIN show := 1; SELECT show FROM t; END", false),
        ("SELECT current_setting('app.tenant')::int, current_setting('app.tenant' , true)", false),
        ("SELECT current_setting('app.' || a) FROM t", false),
        ("SELECT current_setting('Work_Mem'), current_setting('TimeZone'::text)", false),
        ("SELECT current_setting FROM t -- current_setting('port')", false),
    ] {
        for language in [Language::Sql, Language::PlPgSql] {
            let mut told = false;
            read(body.as_bytes(), language, &mut |found| told |= found == Found::NodeSetting);
            // EXECUTE of a text is PL/pgSQL's.
            if language == Language::PlPgSql || !body.contains("EXECUTE") {
                assert_eq!(told, expected, "{language:?}: {body}");
            }
        }
    }
}

/// Linear in what is odd, too.
#[test]
fn long_bodies_take_no_time() {
    for part in ["THEN (SELECT ", "EXECUTE ", "LOOP BEGIN ", "f(", "set_config(", "'a' "] {
        let body = part.repeat(1_000_000 / part.len());
        let begun = std::time::Instant::now();
        plpgsql(&body);
        assert!(begun.elapsed().as_secs() < 20, "{part}: {:?}", begun.elapsed());
    }
}
