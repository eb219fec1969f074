//! What texts say about settings.
//! Must never be content with a name where the text leaves it open.

use super::*;

fn named(sql: &str) -> Named {
    let mut named = Named::default();
    named.read(sql.as_bytes(), true);
    named
}

fn list(names: &[Box<[u8]>]) -> Vec<String> {
    names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn every_way_to_set() {
    for (sql, names) in [
        ("SET work_mem = '4MB'", &["work_mem"][..]),
        ("set session Work_Mem to 4", &["work_mem"]),
        ("SET app.tenant TO 'x'; SET \"App\".B = 1", &["app.tenant", "app.b"]),
        ("SET TIME ZONE 'UTC'", &["timezone"]),
        ("SET SESSION TIME ZONE 'UTC'", &["timezone"]),
        ("SET NAMES 'UTF8'", &["client_encoding"]),
        ("SET SCHEMA 'a'", &["search_path"]),
        ("SET ROLE none", &["role", "session_authorization"]),
        ("SET SESSION AUTHORIZATION x", &["role", "session_authorization"]),
        ("RESET ROLE", &["role", "session_authorization"]),
        ("SET XML OPTION CONTENT", &["xmloption"]),
        ("SELECT set_config('a.b', 'c', false), pg_catalog.set_config('d', 'e', $2)", &["a.b", "d"]),
        ("SET LOCAL work_mem = 1", &[]),
        ("SET local.x = 1", &["local.x"]),
        ("SET session = 1", &["session"]),
        ("SET TRANSACTION READ ONLY", &[]),
        ("SELECT 1", &[]),
        ("SELECT f('a.b', 'c', 'mailto:d.e', 'f g.h')", &["a.b"]),
        ("SET a = 1; SET b = 1; SET c.d = 1; RESET ALL; SET b = 2", &["c.d", "b"]),
        ("SET a = 1; RESET a", &[]),
        ("RESET app.x", &["app.x"]),
        ("SET u&\"\\0061pp\".U&\"\\+000078\\\\\"\"y\" = 1", &["app.x\\\"y"]),
    ] {
        let named = named(sql);
        assert_eq!(
            (list(&named.names), named.others, named.hidden),
            (names.iter().map(|n| (*n).to_owned()).collect(), false, false),
            "{sql}"
        );
    }
    let characteristics =
        ["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"];
    assert_eq!(list(&named("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").names), characteristics);
    assert!(named("SET seed = 0.5").seeds && !named("SET work_mem = 1").seeds);
}

#[test]
fn what_a_statement_itself_says() {
    for (sql, name, said, or_local) in [
        ("SET app.x = ''", &b"APP.X"[..], true, true),
        ("SET LOCAL app.x = ''", b"app.x", false, true),
        ("SET app.x = 1; RESET app.x", b"app.x", false, false),
        ("SET app.x = 1; SET LOCAL app.x = 2", b"app.x", true, true),
        ("SET app.x = 1; RESET ALL", b"app.x", false, false),
        ("SELECT set_config('app.x', '', false)", b"app.x", true, true),
        ("SELECT f('app.x', '')", b"app.x", false, false),
        ("DO $$ BEGIN SET app.x = ''; END $$", b"app.x", false, false),
        ("SET TIME ZONE 'UTC'", b"TimeZone", true, true),
        ("SET ROLE NONE", b"role", true, true),
        ("SET LOCAL ROLE one", b"role", false, true),
        ("SET SESSION AUTHORIZATION one", b"role", true, true),
        ("RESET ROLE", b"role", false, false),
    ] {
        let named = named(sql);
        assert_eq!((named.has_said(name, false), named.has_said(name, true)), (said, or_local), "{sql}");
    }
}

#[test]
fn what_goes_back_to_the_start() {
    let back = |sql: &str| {
        let named = named(sql);
        let text = |back: &Mention| {
            format!("{}{}", String::from_utf8_lossy(&back.name), if back.local { " local" } else { "" })
        };
        (named.back.iter().map(text).collect::<Vec<_>>().join(","), named.all_back)
    };
    for (sql, names, all) in [
        ("RESET work_mem", "work_mem", false),
        ("reset u&\"w\\006frk_mem\"", "work_mem", false),
        ("RESET ALL", "", true),
        ("DISCARD ALL", "", true),
        ("RESET a.b; RESET ALL; RESET c", "c", true),
        ("SET LOCAL Work_Mem TO DEFAULT", "work_mem local", false),
        ("SET LOCAL Work_Mem TO DEFAULT; SET LOCAL work_mem = 5", "", false),
        ("SET a.b = DEFAULT; SET a.b = 5", "", false),
        ("RESET TIME ZONE", "timezone", false),
        ("SET TIME ZONE LOCAL", "timezone", false),
        ("SET LOCAL TIME ZONE DEFAULT", "timezone local", false),
        ("SET NAMES DEFAULT", "client_encoding", false),
        ("SET TIME ZONE 'UTC'", "", false),
        ("SELECT set_config('Work_Mem', NULL, false)", "work_mem", false),
        ("SELECT set_config('work_mem', null, true)", "work_mem local", false),
        ("SELECT set_config('a.b', null, false)", "a.b", false),
    ] {
        assert_eq!(back(sql), (names.to_owned(), all), "{sql}");
    }
}

#[test]
fn what_it_cannot_tell_it_says() {
    for (sql, names) in [
        ("RESET U&\"a!0062\" UESCAPE '!'", &[][..]),
        ("SET U&\"a!0062\" UESCAPE '!' TO DEFAULT", &[]),
        ("RESET U&\"\\d800\"", &[]),
        ("SELECT set_config('a' || 'b', 'c', false)", &[]),
        ("SELECT set_config(E'a\\x62', 'c', false)", &[]),
        ("SELECT set_config($$a.b$$, 'c', false)", &[]),
        ("SELECT set_config('a'\n'.b', 'c', false)", &[]),
        ("SELECT set_config($1 || 'x', 'c', false)", &[]),
        ("SELECT set_config(name, 'c', false) FROM t", &[]),
        ("SELECT set_config(setting_name => 'a.b', new_value => 'c', is_local => false)", &["a.b"]),
        ("SET U&\"\\00\" = 1", &[]),
        ("DO $x$ BEGIN PERFORM set_config('a.b' || c, 'c', false); SET c.d = 1; END $x$", &["a.b", "c.d"]),
        ("DO $x$ BEGIN EXECUTE 'SET c.d = ' || 1; END $x$", &[]),
        ("DO E'BEGIN\\nEND'", &[]),
    ] {
        let named = named(sql);
        assert_eq!(
            (list(&named.names), named.others, named.hidden),
            (names.iter().map(|n| (*n).to_owned()).collect(), true, true),
            "{sql}"
        );
    }
    let code = named(
        "DO $x$ BEGIN PERFORM set_config('a.b', 'c', false); SET c.d = 1; EXECUTE 'UPDATE t SET x = 1'; END $x$ LANGUAGE plpgsql",
    );
    assert_eq!((list(&code.names), code.others, code.hidden), (vec!["a.b".into(), "c.d".into()], true, false));
    let parameters = named("SELECT set_config($2, $1, false), set_config('a.b', $3, false)");
    assert_eq!((parameters.parameters, parameters.others, parameters.hidden), (vec![1], true, false));
}
