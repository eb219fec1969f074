//! What the console understands.
//! Must never need a session.
#![allow(clippy::unwrap_used)]

use super::super::view::By;
use super::*;

fn one(text: &str) -> Command {
    let mut all = commands(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(all.len(), 1, "{text}: {all:?}");
    all.remove(0)
}

#[test]
fn commands_are_read_whatever_their_case() {
    let name = |text: &str| Literal::Text(text.into());
    for (text, expected) in [
        ("", Command::Empty),
        (" ; -- nothing", Command::Empty),
        ("SHOW POOLS;", Command::Show(View::Pools, Select::default())),
        ("select pools", Command::Show(View::Pools, Select::default())),
        ("show help", Command::Help),
        ("SHOW DateStyle", Command::Setting("datestyle")),
        ("SHOW TIME ZONE", Command::Setting("timezone")),
        ("SHOW QUERIES BY p99", Command::Show(View::Queries(By::P99), Select::default())),
        ("set extra_float_digits = 3", Command::Accept("SET")),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Command::Accept("SET")),
        ("SET max_client_conn TO 5", Command::Set("max_client_conn".into(), name("5"))),
        ("SET query_timeout = '30s'", Command::Set("query_timeout".into(), name("30s"))),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", Command::Begin),
        ("start transaction", Command::Begin),
        ("END", Command::Finish("COMMIT")),
        ("DISCARD ALL", Command::Accept("DISCARD ALL")),
        ("reload", Command::Reload),
        ("warm cache", Command::WarmCache(None)),
        ("PAUSE", Command::Pause(None)),
        ("pause shop", Command::Pause(Some(name("shop")))),
        ("RESUME \"My shop\"", Command::Resume(Some(name("My shop")))),
        ("KILL_CLIENT $1", Command::KillClient(Literal::Parameter(1))),
        ("SHUTDOWN", Command::Shutdown(How::AtOnce)),
        ("shutdown wait_for_clients", Command::Shutdown(How::WaitForClients)),
        (
            "EXPLAIN ROUTE ON shop AS app SELECT ';' /* x */;",
            Command::Explain {
                database: Some(name("shop")),
                user: Some(name("app")),
                sql: "SELECT ';' /* x */;".into(),
            },
        ),
    ] {
        assert_eq!(one(text), expected, "{text}");
    }
    assert_eq!(commands("BEGIN; SHOW POOLS; COMMIT").unwrap().len(), 3);
}

#[test]
fn what_is_wrong_is_said() {
    for (text, said) in [
        ("SELECT 1", "invalid command"),
        ("VACUUM", "invalid command"),
        ("SHOW nonsense", "invalid command"),
        ("SHOW", "what is to be shown is missing"),
        ("RELOAD now", "syntax error at \"now\""),
        ("DISABLE", "a database is missing"),
        ("SET query_timeout", "a value for \"query_timeout\" is missing"),
        ("SET query_timeout =", "a value is missing"),
        ("SET query_timeout = 1 s", "syntax error at \"s\""),
        ("SHUTDOWN later", "syntax error at \"later\""),
        ("SHOW POOLS WHERE", "a column is missing"),
        ("SHOW POOLS WHERE a", "no operator behind \"a\""),
        ("SHOW POOLS ORDER database", "ORDER without BY"),
        ("SHOW QUERIES BY luck", "BY takes one of"),
        ("EXPLAIN ROUTE ON shop", "a statement is missing"),
    ] {
        let error = commands(text).unwrap_err();
        assert!(error.message.contains(said), "{text}: {error}");
        assert_eq!(error.code, SqlState::SYNTAX_ERROR);
    }
}
