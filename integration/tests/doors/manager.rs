//! systemd's side: sockets handed over, and what the service manager is told.
//! It must never need systemd itself.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Client, eventually};
use crate::{conf, folder};
use integration::port::Port;
use integration::wire::Wire;
use integration::{DATABASE, Pgweir, Signal, USER};
use rustix::io::{FdFlags, fcntl_setfd};

/// Lets children have the descriptor.
fn pass_on(fd: impl AsFd) {
    fcntl_setfd(fd, FdFlags::empty()).unwrap();
}

#[test]
fn sockets_are_taken_over() {
    let (port, stats_port) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let clients = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    let stats = TcpListener::bind(("127.0.0.1", stats_port.number())).unwrap();
    let path = folder().join("any-name");
    let unix = UnixListener::bind(&path).unwrap();
    pass_on(&clients);
    pass_on(&stats);
    pass_on(&unix);
    let script = format!(
        "exec 3<&{} 4<&{} 5<&{}; export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=pgweir.socket:stats:unix",
        clients.as_raw_fd(),
        stats.as_raw_fd(),
        unix.as_raw_fd()
    );
    // The addresses of the file would fail: the clients' is not ours. They are not looked at.
    // Nor is the stats port, which is taken; beyond loopback it would need a token.
    let text = conf().listen("address = \"192.0.2.1\"").text().replace("127.0.0.1:{stats_port}", "127.0.0.1:{port}");
    let pgweir = Pgweir::start_after(&script, &text, port, stats_port).unwrap();
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
    let mut wire = Wire::unix(&path).unwrap();
    wire.login(USER, DATABASE, "").unwrap();
    assert_eq!(wire.query("SELECT 2").unwrap(), [["2"]]);
    assert!(pgweir.metrics().unwrap().contains("pgweir_"));
    drop(wire);
    assert!(pgweir.stop().unwrap().success());
    // What systemd made is systemd's: the file stays, and both sockets still listen.
    assert!(path.exists());
    Client::tcp(clients.local_addr().unwrap().port());
}

/// Variables that are meant for another process are not for us; descriptors that are no sockets are refused.
#[test]
fn sockets_of_others_are_left_alone() {
    let script = "export LISTEN_PID=1 LISTEN_FDS=1";
    let pgweir = crate::start_after(script, &conf());
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
    let script = "exec 3</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1";
    let text = conf().text();
    let error = Pgweir::start_after(script, &text, Port::reserve().unwrap(), Port::reserve().unwrap()).unwrap_err();
    assert!(error.to_string().contains("cannot listen on the sockets of the service manager"), "{error}");
}

/// Packaged programs that play systemd are better than our own play, where they are there.
#[test]
fn systemd_socket_activate() {
    let Some(program) = Some(Path::new("/usr/bin/systemd-socket-activate")).filter(|path| path.exists()) else {
        return;
    };
    let (port, stats_port) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let script = format!("exec {} --fdname=clients -l 127.0.0.1:{} \"$0\" \"$@\"", program.display(), port.number());
    let text = conf().listen("address = \"192.0.2.1\"").text();
    let pgweir = Pgweir::start_after(&script, &text, port, stats_port).unwrap();
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
}

/// The other end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram, PathBuf);

impl Manager {
    fn new() -> Self {
        let path = folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(socket, path)
    }

    /// The next message that is not about the watchdog.
    fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn any(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

#[test]
fn the_manager_is_told() {
    let manager = Manager::new();
    let script = format!("export NOTIFY_SOCKET={} WATCHDOG_PID=$$ WATCHDOG_USEC=200000", manager.1.display());
    let pgweir = crate::start_after(&script, &conf());
    let ready = manager.next();
    assert!(ready.lines().any(|line| line == "READY=1") && ready.contains("STATUS="), "{ready}");
    for _ in 0..3 {
        assert_eq!(manager.any(), "WATCHDOG=1");
    }
    pgweir.reload(&conf().text()).unwrap();
    let reloading = manager.next();
    let clock = || rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec * 1_000_000;
    let said_us =
        reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap().parse::<i64>().unwrap();
    assert!(reloading.lines().any(|line| line == "RELOADING=1"), "{reloading}");
    assert!((clock() - said_us).abs() < 30_000_000, "{said_us}");
    assert!(manager.next().lines().any(|line| line == "READY=1"));
    // A worker that hangs ends the watchdog; here only that the end is told.
    let mut inside = Client::connect(pgweir.port());
    inside.query("BEGIN").unwrap();
    pgweir.signal(Signal::TERM);
    assert!(manager.next().lines().any(|line| line == "STOPPING=1"));
    inside.query("COMMIT").unwrap();
    eventually("it ends", || pgweir.ended().is_some());
    let _ = fs::remove_file(&manager.1);
}

/// Without a watchdog nobody hears of one; a manager that is not there does no harm.
#[test]
fn a_manager_that_is_not_there() {
    let pgweir =
        crate::start_after("export NOTIFY_SOCKET=/nowhere/at/all WATCHDOG_USEC=100000 WATCHDOG_PID=1", &conf());
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
    assert!(pgweir.stop().unwrap().success());
    let manager = Manager::new();
    let script = format!("export NOTIFY_SOCKET={}", manager.1.display());
    let pgweir = crate::start_after(&script, &conf());
    assert!(manager.any().starts_with("READY=1"));
    assert!(pgweir.stop().unwrap().success());
    assert!(manager.any().starts_with("STOPPING=1"));
}
