//! What a session starts with: options, settings, reported parameters.
//! It must never differ from a session with PostgreSQL itself but where pgweir says so.

use std::collections::BTreeMap;

use crate::common::Client;
use crate::common::client::said;
use crate::{cluster, conf};

fn with_options<'a>(port: u16, options: &'a str, more: &[(&'a str, &'a str)]) -> Client {
    let all: Vec<(&str, &str)> = [("options", options)].into_iter().chain(more.iter().copied()).collect();
    Client::connect_with(port, &all)
}

#[test]
fn options_are_read_as_postgresql_reads_them() {
    let pgweir = conf().size(1).start();
    let cases = [
        ("-c work_mem=5MB", "work_mem"),
        ("-cwork_mem=6MB", "work_mem"),
        ("--work-mem=7MB", "work_mem"),
        ("--work_mem=8MB -c statement_timeout=123456", "statement_timeout"),
        (r"-c search_path=one,\ two", "search_path"),
        (r"-c application_name=it\'s\ \\here", "application_name"),
        ("  -c\twork_mem=9MB ", "work_mem"),
        ("-c WORK_MEM=10MB", "work_mem"),
        ("-c DateStyle=SQL,DMY", "datestyle"),
        ("-c app.own=tenant", "app.own"),
        ("-c search_path=", "search_path"),
        (r#"-c search_path="Quoted""#, "search_path"),
    ];
    for (options, setting) in cases {
        // A setting with a dot in its name exists from its first use on, and is empty when it has been reset.
        let sql = format!("SELECT coalesce(current_setting('{setting}', true), '')");
        let expected = with_options(cluster().primary().port(), options, &[]).value(&sql);
        let mut client = with_options(pgweir.port(), options, &[]);
        assert_eq!(client.value(&sql), expected, "{options}");
        // Another client of the same server connection has none of it.
        let default = crate::direct().query(&sql).unwrap_or_default();
        assert_eq!(Client::connect(pgweir.port()).query(&sql).unwrap_or_default(), default, "{options}");
        assert_eq!(client.value(&sql), expected, "{options}, again");
    }
}

#[test]
fn a_parameter_wins_over_options() {
    let pgweir = conf().start();
    let both = [("work_mem", "11MB")];
    for port in [cluster().primary().port(), pgweir.port()] {
        assert_eq!(with_options(port, "-c work_mem=12MB", &both).value("SHOW work_mem"), "11MB");
    }
}

/// The words are PostgreSQL's, whatever is wrong.
#[test]
fn bad_settings_are_refused_as_postgresql_does() {
    let pgweir = conf().start();
    let cases = [
        [("no_such_setting", "1")],
        [("work_mem", "lots")],
        [("client_encoding", "klingon")],
        [("DateStyle", "never")],
        [("shared_buffers", "1GB")],
        [("options", "-c nothing_such=1")],
        [("options", "-c work_mem=huge")],
        [("TimeZone", "Atlantis")],
    ];
    for parameters in cases {
        let refused = |port| {
            let mut client = Client::tcp(port);
            client.startup(0, &parameters);
            let error = client.welcome().unwrap_err();
            assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
            assert!(client.read().is_none());
            said(&error)
        };
        assert_eq!(refused(pgweir.port()), refused(cluster().primary().port()), "{parameters:?}");
    }
    // Nothing of it sticks to the server connection they were tried on.
    assert_eq!(Client::connect(pgweir.port()).value("SHOW work_mem"), crate::direct().value("SHOW work_mem"));
}

#[test]
fn options_that_are_no_settings_are_refused() {
    let pgweir = conf().start();
    for options in ["-x", "-c", "-c work_mem", "-c =1", "nonsense", "-c=", "--"] {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[("options", options)]);
        let error = client.welcome().unwrap_err();
        assert!(said(&error).starts_with("42601"), "{options}: {}", said(&error));
    }
}

fn reported(port: u16, parameters: &[(&str, &str)]) -> BTreeMap<String, String> {
    Client::connect_with(port, parameters).parameters
}

#[test]
fn reported_parameters_are_those_of_a_direct_session() {
    let pgweir = conf().start();
    let cases: [&[(&str, &str)]; 6] = [
        &[],
        // PostgreSQL reports its own spelling of these.
        &[("client_encoding", "utf-8"), ("DateStyle", "iso, dmy")],
        &[("client_encoding", "'LATIN1'")],
        &[("application_name", "my app"), ("TimeZone", "europe/berlin")],
        &[("options", "-c intervalstyle=iso_8601 -c standard_conforming_strings=off")],
        &[("application_name", "")],
    ];
    for parameters in cases {
        let direct = reported(cluster().primary().port(), parameters);
        // Once before the settings are known to pgweir, twice from what it remembers.
        for round in 0..3 {
            assert_eq!(reported(pgweir.port(), parameters), direct, "{parameters:?}, round {round}");
        }
    }
}

/// ParameterStatus in the middle of a session reaches the client that caused it, and no other.
#[test]
fn changed_parameters_are_reported_to_their_client_only() {
    let pgweir = conf().size(1).start();
    let mut other = Client::connect(pgweir.port());
    let before = other.value("SHOW application_name");
    let mut client = Client::connect(pgweir.port());
    client.query("SET application_name = 'renamed'").unwrap();
    assert_eq!(client.parameters["application_name"], "renamed");
    assert_eq!(client.value("SHOW application_name"), "renamed");
    drop(client);
    assert_eq!(other.value("SHOW application_name"), before);
    assert_eq!(other.parameters.get("application_name"), Some(&String::new()));
}

#[test]
fn a_session_of_another_database_name_is_refused_after_the_login() {
    let pgweir = conf().start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[("database", "nowhere")]);
    let error = client.welcome().unwrap_err();
    assert_eq!(said(&error), "3D000 database \"nowhere\" does not exist");
}

/// Text in another encoding goes through untouched.
#[test]
fn bytes_that_are_no_utf8_pass() {
    let pgweir = conf().start();
    let mut client = Client::connect_with(pgweir.port(), &[("client_encoding", "LATIN1")]);
    let query = [&b"SELECT 'gr\xfcn'"[..], b"\0"].concat();
    let frames = client.run(&integration::wire::Script::new().raw(b'Q', &query));
    let row = frames.iter().find(|frame| frame.tag == b'D').unwrap().row();
    assert_eq!(row, [Some(b"gr\xfcn".to_vec())]);
}
