//! Defects that other poolers had, one test for each, by its number in the project's list of defects or by its name in
//! PgBouncer's release notes. Entries 1, 5, 10 and 11 have tests in `protocol` too, 2 to 4 in `lookup`, 9 in
//! `passthrough`. It must never prove less than the peer's fix did.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::client::{said, startup};
use crate::common::{Client, Conf};
use crate::exchange::{PROOF, begin, initial};
use crate::{SECRET, assert_discreet, methods, trusting};
use integration::USER;
use integration::wire::Script;

// === hostile clients ===

/// CVE of 2026: a client-final-message without a nonce ended the process.
#[test]
fn pgbouncer_1_26_scram_final_without_nonce() {
    let pgweir = methods("scram-sha-256").start();
    for user in ["plain", "verified", "stranger"] {
        for last in ["c=biws", "c=biws,p=AAAA", "", "c=", "r=,p=", "c=biws,r=", ",", "p="] {
            let last = last.replace("AAAA", PROOF);
            let (mut client, _) = begin(pgweir.port(), user);
            client.send(&initial("SCRAM-SHA-256", "n,,n=,r=rOprNGfwEbeRWgbNEkqO"));
            client.read().unwrap();
            client.send(&Script::new().raw(b'p', last.as_bytes()));
            let frames = client.frames_to_end();
            assert!(frames.len() == 1 && said(&frames[0]).starts_with("08P01"), "{user} {last}: {frames:?}");
        }
    }
    assert!(pgweir.ended().is_none());
}

/// CVE of 2026: a length near the end of the numbers made a buffer grow for ever.
#[test]
fn pgbouncer_1_26_buffer_growth_overflow() {
    let pgweir = methods("scram-sha-256").start();
    for length in [0x7fff_ffffu32, 0x8000_0000, 0xffff_ffff, 0x4000_0001, 3, 0] {
        let (mut client, _) = begin(pgweir.port(), "plain");
        client.write(&[&b"p"[..], &length.to_be_bytes(), b"x"].concat());
        assert!(client.frames_to_end().iter().all(|frame| frame.tag == b'E'), "{length}");
        let mut client = Client::tcp(pgweir.port());
        client.write(&[&length.to_be_bytes()[..], &196_608u32.to_be_bytes()].concat());
        assert!(client.frames_to_end().iter().all(|frame| frame.tag == b'E'), "{length}");
    }
    // A server's lengths count too.
    let port = saying(vec![b'R', 0x7f, 0xff, 0xff, 0xff]);
    assert!(refused_by(port, SECRET).starts_with("08006"));
}

/// CVE of 2026: a second StartupMessage in the middle of SCRAM made one user another.
#[test]
fn pgbouncer_1_26_startup_during_scram() {
    let pgweir = methods("scram-sha-256").start();
    for database in ["app", "nowhere"] {
        let again = startup(0, &[("user", "verified"), ("database", database)]);
        for before in [false, true] {
            let mut client = Client::tcp(pgweir.port());
            client.startup(0, &[("user", "plain"), ("database", database)]);
            client.read().unwrap();
            if before {
                client.send(&initial("SCRAM-SHA-256", "n,,n=,r=rOprNGfwEbeRWgbNEkqO"));
                client.read().unwrap();
            }
            client.write(&again);
            // Its length begins with a zero byte, which is no message of a login.
            let frames = client.frames_to_end();
            assert!(frames.len() <= 1 && frames.iter().all(|frame| frame.tag == b'E'), "{frames:?}");
        }
    }
}

/// CVE of 2026: an empty name in `options` kept a core busy for ever.
#[test]
fn pgbouncer_1_26_empty_option_name() {
    let pgweir = methods("trust").start();
    for options in ["-c=", "-c =", "-c", "-", "--=", "--", "-c  ", "=", "\\", "-c\\ =x", "-c=x -c=y"] {
        let started = Instant::now();
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[("user", "plain"), ("options", options)]);
        let error = client.welcome().expect_err(options);
        assert!(started.elapsed() < Duration::from_secs(20), "{options}");
        assert!(!said(&error).is_empty());
    }
    assert_eq!(Client::connect_with(pgweir.port(), &[("user", "plain")]).value("SELECT 'alive'"), "alive");
}

/// Nobody is listed for the console, so nobody gets in, by whatever method.
#[test]
fn defect_06_no_console_for_nobody() {
    let pgweir = methods("trust").start();
    for database in ["pgbouncer", "pgweir"] {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[("user", "plain"), ("database", database)]);
        let error = said(&client.welcome().unwrap_err());
        assert_eq!(error, "42501 pgweir: user \"plain\" may not use the console");
    }
}

/// Neither the log at its most talkative nor an answer shows a secret, a proof or a key.
#[test]
fn defect_07_no_secret_in_log_or_answer() {
    for auth_type in ["scram-sha-256", "md5"] {
        let pgweir = methods(auth_type).start();
        for (user, password) in [("plain", SECRET), ("verified", SECRET), ("plain", "wrong-password"), ("no", SECRET)] {
            let answer = crate::clients::psql(&pgweir, user, Some(password));
            assert_discreet(&format!("{answer:?}"));
        }
        let log = pgweir.log();
        assert_discreet(&log);
        for word in ["p=", "md5", "SCRAM-SHA-256$", "c=biws"] {
            assert!(!log.contains(word), "{word} in the log:\n{log}");
        }
    }
}

// === hostile servers ===

/// A server that answers whatever it is told first with `script`, each visitor in a thread: pgweir's probes come too, and
/// leave in the middle of it.
fn hostile(script: impl Fn(&mut TcpStream) -> Option<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                if stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {
                    script(&mut stream);
                }
                // Whatever comes is read until the other side has had enough.
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    port
}

/// A server that answers with these bytes.
fn saying(bytes: Vec<u8>) -> u16 {
    hostile(move |server| server.write_all(&bytes).ok())
}

/// Reads one message of the other side, if it is still there.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn authentication(code: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32 + 8).to_be_bytes();
    [&b"R"[..], &length, &code.to_be_bytes(), payload].concat()
}

/// What a client hears whose server is at `port`.
fn refused_by(port: u16, password: &str) -> String {
    refused_with(&format!("primary = \"127.0.0.1:{port}\"\nserver_tls_sslmode = \"disable\""), password)
}

fn refused_with(lines: &str, password: &str) -> String {
    let conf = Conf::database_only(lines).listen("auth_type = \"trust\"").pool("query_wait_timeout = \"20s\"");
    let pgweir = conf.user(USER, &format!("password = \"{password}\"")).rest("[log]\nlevel = \"trace\"").start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[]);
    let error = client.welcome().unwrap_err();
    // One bad server harms nobody else.
    assert!(pgweir.ended().is_none());
    assert_discreet(&pgweir.log());
    said(&error)
}

/// Plays SCRAM up to a server-first-message made of the client's nonce.
fn challenging(first: impl Fn(&str) -> String + Send + Sync + 'static) -> u16 {
    let script = move |server: &mut TcpStream| {
        server.write_all(&authentication(10, b"SCRAM-SHA-256\0\0")).ok()?;
        let initial = String::from_utf8(message(server)?).ok()?;
        let nonce = initial.rsplit_once("r=")?.1;
        server.write_all(&authentication(11, first(nonce).as_bytes())).ok()
    };
    hostile(script)
}

/// CVE of 2026: a server's iteration count kept the process busy for hours.
#[test]
fn pgbouncer_1_26_unbounded_scram_iterations() {
    for count in ["2147483647", "4294967296", "1000001", "99999999999999999999", "-1", "0", "", "1e9"] {
        let port = challenging(move |nonce| format!("r={nonce}x,s=c2FsdA==,i={count}"));
        let started = Instant::now();
        let error = refused_by(port, SECRET);
        assert!(error.starts_with("08006") && error.contains("iteration count"), "{count}: {error}");
        assert!(started.elapsed() < Duration::from_secs(20), "{count}");
    }
}

/// CVE-2026-6665 and CVE-2026-6666: a server's long nonce, and its ErrorResponse without SQLSTATE, ended the process.
#[test]
fn defect_05_a_servers_long_nonce_and_an_error_without_sqlstate() {
    for length in [2_000, 4_000, 60_000] {
        let port = challenging(move |nonce| format!("r={nonce}{},s=c2FsdA==,i=4096", "x".repeat(length)));
        let error = refused_by(port, SECRET);
        assert!(error.starts_with("08006") && error.contains("SCRAM"), "{error}");
    }
    for first in ["", "r=", "r=,s=,i=", "s=c2FsdA==,i=1", "r=short,s=c2FsdA==,i=1", "e=other-error"] {
        let port = challenging(move |_| first.to_owned());
        assert!(refused_by(port, SECRET).starts_with("08006"), "{first}");
    }
    // The client's own nonce alone: nothing of the server's in it.
    let port = challenging(|nonce| format!("r={nonce},s=c2FsdA==,i=4096"));
    assert!(refused_by(port, SECRET).contains("nonce"));
    for body in [&b"SFATAL\0Mbroken\0\0"[..], b"\0", b"", b"Mno end", b"C1\0M\0\0"] {
        let error = [&b"E"[..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
        let error = refused_by(saying(error), SECRET);
        assert!(error.len() > 5, "{error}");
    }
    // AuthenticationOk before the server has proved itself.
    let port = hostile(|server| {
        server.write_all(&authentication(10, b"SCRAM-SHA-256\0\0")).ok()?;
        message(server)?;
        server.write_all(&authentication(0, b"")).ok()
    });
    assert!(refused_by(port, SECRET).contains("cut the SCRAM exchange short"));
}

/// CVE-2021-43766 and its like: bytes that a man in the middle has put behind the server's `S` are not taken for what
/// came encrypted.
#[test]
fn defect_01_bytes_behind_a_servers_s() {
    let forged: Vec<u8> = [&b"S"[..], &authentication(0, b""), b"Z\0\0\0\x05I"].concat();
    for mode in ["require", "prefer"] {
        let port = saying(forged.clone());
        let lines = format!("primary = \"127.0.0.1:{port}\"\nserver_tls_sslmode = \"{mode}\"");
        let conf = Conf::database_only(&lines).listen("auth_type = \"trust\"").user(USER, "");
        let pgweir = conf.pool("server_connect_timeout = \"1s\"").start();
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        let error = client.welcome().unwrap_err();
        assert!(said(&error).starts_with("08006"), "{mode}: {}", said(&error));
    }
    let port = saying(b"X".to_vec());
    let lines = format!("primary = \"127.0.0.1:{port}\"\nserver_tls_sslmode = \"require\"");
    assert!(refused_with(&lines, SECRET).contains("0x58"));
}

/// A trusting server beside the hostile ones: the tests above would pass against nothing at all otherwise.
#[test]
fn a_server_that_is_not_hostile() {
    let conf = Conf::trust(trusting()).database("server_tls_sslmode = \"disable\"");
    assert_eq!(Client::connect(conf.start().port()).value("SELECT 1"), "1");
}
