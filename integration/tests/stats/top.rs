//! `pgweir top` in a real pseudo-terminal: what somebody sees on its screen, and what keys do.
//! It must never look at the bytes that are sent, only at the screen that they make.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use integration::proxy::program;
use integration::{Certificates, Pgweir};

use crate::common::eventually;
use crate::{client, conf, ready};

const ROWS: u16 = 30;
const COLUMNS: u16 = 200;
const TOKENS: &str = "[stats.tokens.look]\nsecret = \"look-look-look-look\"\n";

/// A terminal of its own, in which the program runs; ends with the test.
struct Terminal {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(arguments: &str) -> Self {
        let program = program().unwrap();
        // The shell tells how the terminal is set when the program is gone.
        let shell = format!(
            "stty rows {ROWS} cols {COLUMNS}; '{}' top {arguments}; echo status $?; stty -a",
            program.display()
        );
        let mut command = Command::new("script");
        command.args(["-qfc", &shell, "/dev/null"]).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let [rows, columns] = [ROWS, COLUMNS].map(|it| it.try_into().unwrap());
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut from, seen) = (child.stdout.take().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn shows(&self, what: &str) {
        let start = std::time::Instant::now();
        while !self.text().contains(what) {
            assert!(start.elapsed() < crate::common::PATIENCE, "no {what:?} on\n{}", self.text());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn press(&mut self, keys: &str) {
        let to = self.child.stdin.as_mut().unwrap();
        to.write_all(keys.as_bytes()).unwrap();
        to.flush().unwrap();
    }

    fn is_alternate(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(pgweir: &Pgweir) -> String {
    format!("http://127.0.0.1:{}", pgweir.stats_port())
}

/// The program without a terminal.
fn plain(arguments: &[&str]) -> Output {
    let mut command = Command::new(program().unwrap());
    command.arg("top").args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn keys_show_pools_queries_and_replicas() {
    let pgweir = conf().start();
    ready(&pgweir);
    let mut client = client(&pgweir);
    for n in 0..20 {
        client.query(&format!("SELECT {n} AS for_the_top")).unwrap();
    }
    client.query("SELECT 1 AS another, 2 AS of_them").unwrap();
    let mut terminal = Terminal::start(&format!("--interval 100ms --url {}", url(&pgweir)));
    terminal.shows("[1 pools]");
    terminal.shows("QUERIES/Sv");
    terminal.shows("health ");
    terminal.shows("primary");
    assert!(terminal.is_alternate());
    terminal.press("2");
    terminal.shows("[2 queries]");
    terminal.shows("for_the_top");
    terminal.shows("of_them");
    terminal.press("/for_the\r");
    eventually("only what fits is shown", || !terminal.text().contains("of_them"));
    terminal.shows("filter: for_the");
    // Keys that come at once count one after the other; what is asked for changes with the column.
    terminal.press("<<<");
    terminal.shows("CALLSv");
    terminal.press("r");
    terminal.shows("CALLS^");
    // New values come by themselves.
    for n in 0..5 {
        client.query(&format!("SELECT {n} AS for_the_top")).unwrap();
    }
    eventually("the newest count is shown", || {
        terminal.text().lines().any(|line| line.contains("for_the_top") && line.split_whitespace().nth(1) == Some("25"))
    });
    terminal.press("3");
    terminal.shows("[3 replicas]");
    terminal.press("?");
    terminal.shows("any key closes it");
    terminal.press("xq");
    terminal.shows("status 0");
    // The terminal echoes again, and shows what was there before.
    eventually("the terminal is as it was", || {
        let text = terminal.text();
        text.contains(" icanon") && text.contains(" echo ") && !terminal.is_alternate()
    });
}

#[test]
fn last_values_stay_marked_while_it_cannot_be_reached() {
    let pgweir = conf().start();
    ready(&pgweir);
    client(&pgweir).query("SELECT 1 AS for_the_top").unwrap();
    let mut terminal = Terminal::start(&format!("--interval 100ms --url {}", url(&pgweir)));
    terminal.shows("primary");
    pgweir.stop().unwrap();
    terminal.shows("OLD, values are");
    terminal.shows("cannot reach http://127.0.0.1");
    assert!(terminal.text().contains("primary"), "{}", terminal.text());
    terminal.press("\u{3}");
    terminal.shows("status 0");
}

#[test]
fn without_a_terminal_there_is_plain_text_or_a_reason() {
    let pgweir = conf().rest(TOKENS).start();
    ready(&pgweir);
    client(&pgweir).query("SELECT 1 AS for_the_top").unwrap();
    let url = url(&pgweir);
    let told = |output: &Output| String::from_utf8(output.stderr.clone()).unwrap();
    let no_terminal = plain(&["--url", &url]);
    assert!(no_terminal.status.code() == Some(2) && told(&no_terminal).contains("--once"), "{no_terminal:?}");
    let refused = plain(&["--once", "--url", &url]);
    assert!(refused.status.code() == Some(1), "{refused:?}");
    assert!(told(&refused).contains("status 401") && told(&refused).contains("--token-file"), "{refused:?}");
    // The configuration tells where, and by which token.
    let file = pgweir.config_file();
    eventually("the statement is listed", || {
        let output = plain(&["--once", "--config", file.to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        let has = |part: &str| text.contains(part);
        output.status.success() && has("\npools\n") && has("\nreplicas\n") && has("for_the_top")
    });
}

#[test]
fn a_remote_instance_is_asked_over_tls() {
    let files = Certificates::new().unwrap();
    let (cert, key) = (files.certificate.display(), files.key.display());
    let stats = format!("tls_cert_file = \"{cert}\"\ntls_key_file = \"{key}\"");
    let pgweir = conf().stats(&stats).rest(TOKENS).start();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "look-look-look-look\n").unwrap();
    let url = format!("https://localhost:{}", pgweir.stats_port());
    let (token, ca) = (token.to_str().unwrap(), files.ca.to_str().unwrap());
    let good = plain(&["--once", "--url", &url, "--token-file", token, "--ca-file", ca]);
    assert!(good.status.success() && String::from_utf8_lossy(&good.stdout).contains(&url), "{good:?}");
    let stranger = plain(&["--once", "--url", &url, "--token-file", token]);
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("--ca-file"), "{stranger:?}");
    let no_tls = plain(&["--once", "--url", &url.replace("https", "http"), "--token-file", token]);
    assert!(String::from_utf8_lossy(&no_tls.stderr).contains("it is https://"), "{no_tls:?}");
}
