//! Unix sockets that live, that were left behind, and that are none.
//! Must never leave the temporary directory.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;

use super::*;

fn settings(directory: &Path) -> UnixSocket {
    UnixSocket { directory: directory.to_owned(), mode: 0o740, group: None }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn comes_with_its_permissions_and_goes_without_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let listener = unix(&settings(dir.path()), 6432, 5).unwrap();
    assert_eq!(names(dir.path()), [".s.PGSQL.6432", ".s.PGSQL.6432.lock"]);
    let path = dir.path().join(".s.PGSQL.6432");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o740);
    let lock = fs::read_to_string(dir.path().join(".s.PGSQL.6432.lock")).unwrap();
    assert_eq!(lock, format!("{}\n", std::process::id()));
    UnixStream::connect(&path).unwrap();
    // Another port is another socket.
    let other = unix(&settings(dir.path()), 6433, 5).unwrap();
    drop(listener);
    assert_eq!(names(dir.path()), [".s.PGSQL.6433", ".s.PGSQL.6433.lock"]);
    drop(other);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn never_steals_a_live_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = unix(&settings(dir.path()), 1, 5).unwrap();
    assert_eq!(unix(&settings(dir.path()), 1, 5).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    // Nor from a program that locks nothing, with a lock file as PostgreSQL leaves it or without.
    let path = dir.path().join(".s.PGSQL.2");
    let foreign = UnixListener::bind(&path).unwrap();
    let lock = dir.path().join(".s.PGSQL.2.lock");
    fs::write(&lock, "4711\n/data\n").unwrap();
    assert_eq!(unix(&settings(dir.path()), 2, 5).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&lock).unwrap(), "4711\n/data\n");
    UnixStream::connect(&path).unwrap();
    drop(foreign);
    // Now it is a stale one.
    let second = unix(&settings(dir.path()), 2, 5).unwrap();
    UnixStream::connect(&path).unwrap();
    drop((first, second));
    assert!(names(dir.path()).is_empty());
}

/// A queue that is full refuses for now; somebody listens all the same.
#[test]
fn a_full_queue_is_a_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    assert!(!is_live(&path).unwrap(), "bound, but it does not listen");
    socket.listen(0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    assert!(is_live(&path).unwrap());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".s.PGSQL.3");
    fs::write(&path, "precious").unwrap();
    unix(&settings(dir.path()), 3, 5).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    unix(&settings(&dir.path().join("nowhere")), 3, 5).unwrap_err();
}

#[test]
fn a_file_that_is_anothers_by_now_stays() {
    let dir = tempfile::tempdir().unwrap();
    let listener = unix(&settings(dir.path()), 4, 5).unwrap();
    let path = dir.path().join(".s.PGSQL.4");
    // Renamed over, so that the new file has another inode for certain.
    let other = dir.path().join("other");
    let _foreign = UnixListener::bind(&other).unwrap();
    fs::rename(&other, &path).unwrap();
    drop(listener);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn groups_by_name_and_number() {
    assert_eq!(group_id("root").unwrap(), 0);
    assert_eq!(group_id("12345").unwrap(), 12345);
    let error = group_id("no-such-group").unwrap_err().to_string();
    assert!(error.contains("no-such-group") && error.contains("unix_socket_group"), "{error}");
}

#[test]
fn a_port_is_shared_only_if_both_say_so() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let shared = tcp(any, 5, true).unwrap();
    let address = shared.local_addr().unwrap();
    assert!(tcp(address, 5, false).is_err());
    tcp(address, 5, true).unwrap();
    let alone = tcp(any, 5, false).unwrap();
    assert!(tcp(alone.local_addr().unwrap(), 5, true).is_err());
}
