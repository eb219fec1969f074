//! Sockets that listen for clients: TCP, and the unix socket that libpq looks for.
//! Must never take the place of a socket on which somebody still listens.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::UnixSocket;

/// Attempts to get hold of a lock file that others keep removing.
const ATTEMPTS: u32 = 10;

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix; the file goes with it unless somebody else made it.
    Unix(UnixListener, Option<SocketFile>),
}

/// Listens on one TCP address. With `reuse_port` other processes of the same account may too.
///
/// # Errors
/// What the system says.
pub fn tcp(address: SocketAddr, backlog: u32, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.cast_signed())?;
    Ok(socket.into())
}

/// Listens on `.s.PGSQL.<port>` in the directory of `settings`. A socket left behind by a process
/// that was killed is replaced.
///
/// # Errors
/// What the system says, or that somebody listens there already.
pub fn unix(settings: &UnixSocket, port: u16, backlog: u32) -> io::Result<Listener> {
    let path = settings.directory.join(format!(".s.PGSQL.{port}"));
    let group = settings.group.as_deref().map(group_id).transpose()?;
    let lock = lock(&path)?;
    remove_stale(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let inode = fs::symlink_metadata(&path)?.ino();
    let file = SocketFile { path, inode, _lock: lock };
    // Nobody can connect before it listens, so nobody ever sees it with other permissions.
    if group.is_some() {
        chown(&file.path, None, group)?;
    }
    fs::set_permissions(&file.path, Permissions::from_mode(settings.mode))?;
    socket.listen(backlog.cast_signed())?;
    Ok(Listener::Unix(socket.into(), Some(file)))
}

/// A unix socket's file and its lock, both removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// Dropped after the file is gone.
    _lock: Lock,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // By now it might be another's, if ours was removed by hand.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// `.s.PGSQL.<port>.lock`, held by flock(2), which ends with the process however that ends. It has
/// our process id in its first line, where a PostgreSQL server that is told to use the same
/// directory and port looks for it (CreateLockFile in src/backend/utils/init/miscinit.c).
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn lock(socket: &Path) -> io::Result<Lock> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    for _ in 0..ATTEMPTS {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(taken("another pgweir listens there; each process needs a unix_socket_dir of its own"));
        }
        // Its owner may have removed it between our opening and locking it.
        let same = fs::metadata(&path).is_ok_and(|found| file.metadata().is_ok_and(|own| own.ino() == found.ino()));
        if !same {
            continue;
        }
        // The lock of a PostgreSQL server is not ours to write to.
        if is_live(socket)? {
            return Err(taken("somebody listens there"));
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        return Ok(Lock { path, _file: file });
    }
    Err(taken("its lock file keeps changing"))
}

fn taken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

/// Whether a connection to the socket would be taken.
fn is_live(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue is no reason to wait, but a sign of life.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// Removes what a dead process left, but nothing that is no socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket has its name")),
    }
}

fn group_id(name: &str) -> io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(name)? {
        Some(group) => Ok(group.gid.as_raw()),
        None => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("unix_socket_group: there is no group \"{name}\"")))
        }
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
