//! The command line: `check`, `run` with a file, `run` with a URL, and everything wrong with them.
//! It must never leave a program running that a test started.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{Client, eventually};
use crate::{cluster, conf};
use integration::port::Port;
use integration::proxy::program;
use integration::{DATABASE, Run, USER};

/// A file with this text.
fn file(text: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = Run::current().unwrap().root().join(format!("start-{number}.toml"));
    fs::write(&path, text).unwrap();
    path
}

fn run(arguments: &[&str]) -> Output {
    let mut command = integration::command("timeout").unwrap();
    command.env_remove("PGWEIR_CONFIG").arg("20").arg(program().unwrap()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_praises_a_good_file() {
    let good = conf().text().replace("{port}", "1").replace("{stats_port}", "2");
    let path = file(&good);
    let done = run(&["check", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let said = text(&done.stdout);
    assert!(said.contains(path.to_str().unwrap()) && said.contains("good"), "{said}");
}

/// All problems in one run, each with file, line, column, the line itself and what was meant.
#[test]
fn check_tells_every_problem() {
    let path = file(
        "[listen]\nport = 70000\nauth_typ = \"trust\"\n[pool]\ndefault_pool_size = \"many\"\nquery_wait_timeout = \"5 parsecs\"\n\
         [databases.app]\nreplicas = []\n[users.app]\npassword = \"hidden-in-here\"\n",
    );
    let done = run(&["check", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(2));
    let said = text(&done.stderr);
    let at = |line: u32, column: u32| format!("{}:{line}:{column}", path.display());
    assert!(said.contains(&at(2, 8)), "{said}");
    assert!(said.contains(&at(3, 1)) && said.contains("auth_type"), "{said}");
    assert!(said.contains(&at(5, 21)) && said.contains("default_pool_size = \"many\""), "{said}");
    assert!(said.contains(&at(6, 22)), "{said}");
    assert!(said.contains("primary"), "{said}");
    assert!(said.contains('^'), "{said}");
    assert!(!said.contains("hidden-in-here"), "{said}");
    assert!(done.stdout.is_empty());
}

/// What can work and was hardly meant is told and refuses nothing, here and at the start.
#[test]
fn check_warns_and_praises() {
    let suspicious = conf().user("late", "valid_until = 2020-01-01T00:00:00Z").pool("min_pool_size = 30");
    let path = file(&suspicious.text().replace("{port}", "1").replace("{stats_port}", "2"));
    let done = run(&["check", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let said = text(&done.stderr);
    assert_eq!(said.matches("warning: ").count(), 2, "{said}");
    assert!(said.contains("user `late` cannot log in") && said.contains("`default_pool_size` allows 20"), "{said}");
    assert!(said.contains("valid_until = 2020-01-01T00:00:00Z") && said.contains('^'), "{said}");
    assert!(text(&done.stdout).contains("good"));
    let log = suspicious.start().log();
    assert!(log.contains("WARN") && log.contains("user `late` cannot log in"), "{log}");
}

#[test]
fn check_needs_a_file_that_is_there() {
    let done = run(&["check", "/nowhere/pgweir.toml"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains("/nowhere/pgweir.toml"));
    assert_eq!(run(&["check"]).status.code(), Some(2));
    let path = file("[listen\nport = 1");
    let done = run(&["check", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains(&format!("{}:1:", path.display())), "{}", text(&done.stderr));
}

/// Exit status 2, and nobody ever listened.
#[test]
fn run_refuses_a_bad_file_before_listening() {
    let port = Port::reserve().unwrap();
    let stats = Port::reserve().unwrap();
    // Whoever tried to listen would fail with another status, because the ports are taken.
    let _taken = [port.number(), stats.number()].map(|number| TcpListener::bind(("127.0.0.1", number)).unwrap());
    let good = conf().text().replace("{port}", &port.number().to_string());
    let good = good.replace("{stats_port}", &stats.number().to_string());
    let path = file(&good.replace("[pool]", "[pool]\nmagic = true"));
    let done = run(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(2), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("magic"));
    // The same without the mistake: it is the port now.
    let done = run(&["run", "--config", file(&good).to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains(&format!("127.0.0.1:{}", port.number())), "{}", text(&done.stderr));
}

#[test]
fn a_certificate_of_no_use_is_refused_at_the_start() {
    let port = Port::reserve().unwrap();
    let path = file("no certificate");
    let lines = format!(
        "client_tls_sslmode = \"allow\"\nclient_tls_cert_file = \"{0}\"\nclient_tls_key_file = \"{0}\"",
        path.display()
    );
    let good = conf().listen(&lines).text().replace("{port}", &port.number().to_string());
    let done = run(&["run", "--config", file(&good.replace("127.0.0.1:{stats_port}", "off")).to_str().unwrap()]);
    assert_ne!(done.status.code(), Some(0));
    assert!(text(&done.stderr).contains(path.to_str().unwrap()), "{}", text(&done.stderr));
    assert!(TcpStream::connect(("127.0.0.1", port.number())).is_err());
}

#[test]
fn the_command_line_is_checked() {
    for arguments in
        [&[][..], &["run"], &["walk"], &["run", "--config"], &["run", "mysql://x@y/z"], &["run", "postgres://"]]
    {
        let done = run(arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", text(&done.stderr));
        assert!(!done.stderr.is_empty());
    }
    let path = file("");
    let both = run(&["run", "--config", path.to_str().unwrap(), "postgres://a@b/c"]);
    assert_eq!(both.status.code(), Some(2));
    for arguments in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["--version"]] {
        let done = run(arguments);
        assert_eq!(done.status.code(), Some(0), "{arguments:?}");
        assert!(!done.stdout.is_empty());
    }
}

/// Killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without a file pgweir listens on its default ports, which this machine may have taken: then it says so, which is all that can be
/// seen here.
#[test]
fn run_with_a_url_and_no_file() {
    let url = format!("postgres://{USER}@{}/{DATABASE}", cluster().primary().address());
    let mut command = integration::command(program().unwrap()).unwrap();
    command.env_remove("PGWEIR_CONFIG").args(["run", &url]).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let log = BufReader::new(running.0.stderr.take().unwrap());
    let mut seen = String::new();
    for line in log.lines().map_while(Result::ok) {
        seen += &line;
        if line.contains("metrics on") || line.contains("cannot listen") {
            break;
        }
    }
    if seen.contains("cannot listen on 127.0.0.1:6432") || seen.contains("cannot listen on 127.0.0.1:9127") {
        assert_eq!(running.0.wait().unwrap().code(), Some(1));
        return;
    }
    assert!(seen.contains("127.0.0.1:6432") && seen.contains("http://127.0.0.1:9127/metrics"), "{seen}");
    let mut client = Client::connect(6432);
    assert_eq!(client.value("SELECT current_user || '@' || current_database()"), "app@app");
    eventually("it is ready", || integration::http::get(9127, "/readyz").is_ok_and(|(status, _)| status == 200));
}
