//! The unix socket: who may connect, what becomes of it, and that no live one is ever replaced.
//! It must never use a directory that anything else uses.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::common::{Client, Conf, eventually};
use crate::{cluster, conf, folder};
use integration::port::Port;
use integration::wire::{Script, Wire};
use integration::{DATABASE, Pgweir, Signal, USER};

fn with_socket(directory: &Path) -> Conf {
    conf().listen(&format!("unix_socket_dir = \"{}\"", directory.display()))
}

fn socket(directory: &Path, pgweir: &Pgweir) -> PathBuf {
    directory.join(format!(".s.PGSQL.{}", pgweir.port()))
}

fn login(socket: &Path) -> Wire {
    let mut wire = Wire::unix(socket).unwrap();
    wire.login(USER, DATABASE, "").unwrap();
    wire
}

#[test]
fn psql_finds_it() {
    let directory = folder();
    let pgweir = with_socket(&directory).start();
    let mut psql = integration::command("psql").unwrap();
    psql.args(["-XAtq", "-h"]).arg(&directory).args(["-p", &pgweir.port().to_string(), "-U", USER, "-d", DATABASE]);
    let done = psql.args(["-c", "SELECT 40 + 2"]).env("PGSSLMODE", "disable").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "42\n", "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn its_permissions_and_its_end() {
    let directory = folder();
    let group = fs::metadata(&directory).unwrap().gid();
    let conf = with_socket(&directory).listen(&format!("unix_socket_mode = \"0750\"\nunix_socket_group = \"{group}\""));
    let pgweir = conf.start();
    let file = fs::metadata(socket(&directory, &pgweir)).unwrap();
    assert_eq!((file.permissions().mode() & 0o7777, file.gid()), (0o750, group));
    let mut wire = login(&socket(&directory, &pgweir));
    assert_eq!(wire.query("SELECT 1").unwrap(), [["1"]]);
    drop(wire);
    assert!(pgweir.stop().unwrap().success());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "it left something behind");
}

/// A second process does not take it away, whatever its port is shared with; what a killed process left is replaced.
#[test]
fn a_live_one_stays_and_a_stale_one_goes() {
    let directory = folder();
    let (port, other) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let conf = with_socket(&directory).listen("so_reuseport = true");
    let first = Pgweir::start_on(&conf.text(), port.clone(), other).unwrap();
    let path = socket(&directory, &first);
    let error = Pgweir::start_on(&conf.text(), port.clone(), Port::reserve().unwrap()).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("unix_socket_dir of its own"), "{error}");
    assert_eq!(login(&path).query("SELECT 1").unwrap(), [["1"]]);
    first.signal(Signal::KILL);
    eventually("it is gone", || first.ended().is_some());
    assert!(path.exists());
    let second = Pgweir::start_on(&conf.text(), port, Port::reserve().unwrap()).unwrap();
    assert_eq!(login(&path).query("SELECT 2").unwrap(), [["2"]]);
    drop(second);
}

/// There is no TLS on it, so none can be required; a cancel request finds its way.
#[test]
fn it_needs_no_tls() {
    let directory = folder();
    let pgweir = with_socket(&directory).tls("require", cluster().certificates().unwrap()).start();
    let path = socket(&directory, &pgweir);
    let mut asking = Wire::unix(&path).unwrap();
    asking.write(&crate::common::client::SSL_REQUEST).unwrap();
    assert_eq!(asking.read_byte().unwrap(), b'N');
    asking.login(USER, DATABASE, "").unwrap();
    asking.send(&Script::new().query("SELECT pg_sleep(50) /* over unix */")).unwrap();
    crate::await_running("over unix");
    let (pid, secret) = asking.key.unwrap();
    let key = [pid.to_be_bytes(), secret.to_be_bytes()].concat();
    let mut carrier = Wire::unix(&path).unwrap();
    carrier.write(&crate::common::client::cancel_request(&key)).unwrap();
    assert!(carrier.read().is_err(), "it is closed without a word");
    let frames = asking.read_until_ready().unwrap();
    assert!(frames.iter().any(|frame| frame.field(b'C').as_deref() == Some("57014")));
    // Over TCP it is required as before.
    let mut plain = Client::tcp(pgweir.port());
    plain.startup(0, &[]);
    assert_eq!(plain.welcome().unwrap_err().field(b'C').as_deref(), Some("28000"));
    // The log says who it was.
    assert!(!pgweir.log().contains("panicked"));
}
