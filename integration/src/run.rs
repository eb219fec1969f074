//! The run: one temporary directory per process that everything this library starts lives in, and its removal on every way out.
//! It must never remove a directory whose owner is alive, nor signal a process that does not work inside the directory.
//!
//! Three things make sure that nothing stays behind:
//! - values of this library stop their process and remove their folder when dropped, also during a panic;
//! - the kernel signals every child when this process ends in any way (`setpriv --pdeathsig`, see `process.rs`);
//! - a janitor, a small `sh` that waits for the end of a pipe whose other end only this process holds, then stops what still
//!   works inside the directory and removes it. It also serves clusters kept in a `static`, which Rust never drops.
//!
//! Should the janitor be killed as well, the next run sweeps: a directory whose `owner.lock` can be locked has no owner.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use crate::error::{During, Error, Result};

/// Start of the name of every run directory; short, because a unix socket's path may have 107 bytes.
const PREFIX: &str = "pgweir-it-";
/// A directory without a lock file may be in the making for this long.
const MAKING: Duration = Duration::from_secs(60);

/// Waits for the end of its input, then stops every process that works inside `$1` (PostgreSQL changes into its data directory,
/// everything else is started there) and removes the directory, with the shared memory of a PostgreSQL that was killed.
const JANITOR: &str = r#"
trap '' INT TERM HUP QUIT
cat >/dev/null
root=$1
inside() { find /proc -mindepth 2 -maxdepth 2 -path '/proc/[0-9]*/cwd' \( -lname "$root" -o -lname "$root/*" \) 2>/dev/null | cut -d/ -f3; }
tries=0
while pids=$(inside); [ -n "$pids" ] && [ $tries -lt 100 ]; do
    case $tries in
        0) kill -QUIT $pids ;;
        40) kill -KILL $pids ;;
    esac
    tries=$((tries + 1))
    sleep 0.05
done 2>/dev/null
for file in "$root"/*/data/postmaster.pid "$root"/template*/postmaster.pid; do
    [ -f "$file" ] && segment=$(sed -n '7s/.* //p' "$file") && [ -n "$segment" ] && ipcrm -m "$segment"
done 2>/dev/null
rm -rf -- "$root" 2>/dev/null || { sleep 0.3; rm -rf -- "$root"; } 2>/dev/null
"#;

/// The account PostgreSQL runs as when the caller is root, because it refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// Where `integration/test` installs what tests need beyond packages: `$PGWEIR_DRIVERS`, or `target/drivers`.
pub fn drivers() -> PathBuf {
    let target = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/drivers");
    std::env::var_os("PGWEIR_DRIVERS").map_or_else(target, PathBuf::from)
}

/// This process's run.
#[derive(Debug)]
pub struct Run {
    root: PathBuf,
    account: Option<Account>,
    next: AtomicU32,
    _lock: File,
    /// Holds the pipe the janitor waits for.
    janitor: Mutex<Option<Child>>,
}

impl Run {
    /// The run of this process, begun when it is first asked for.
    ///
    /// # Errors
    /// When the directory cannot be made, or when root has no `postgres` account to start servers with.
    pub fn current() -> Result<&'static Run> {
        static CURRENT: OnceLock<Result<Run>> = OnceLock::new();
        CURRENT.get_or_init(Run::begin).as_ref().map_err(Clone::clone)
    }

    /// The directory everything lives in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Stops everything of this run and removes its directory, now. For a program that was told to stop in the middle of anything.
    pub fn destroy(&self) {
        let janitor = self.janitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut janitor) = janitor {
            // It begins as soon as its input ends.
            drop(janitor.stdin.take());
            let _ = janitor.wait();
        }
        if self.root.exists() {
            clean(&self.root);
        }
    }

    pub(crate) fn account(&self) -> Option<Account> {
        self.account
    }

    /// Makes a folder of its own for one thing; servers may write in it.
    pub fn folder(&self, kind: &str) -> Result<PathBuf> {
        let path = self.root.join(format!("{kind}{}", self.next.fetch_add(1, Ordering::Relaxed)));
        self.make(&path)?;
        Ok(path)
    }

    /// Makes the directory `path`, private to the account servers run as.
    pub(crate) fn make(&self, path: &Path) -> Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path).during(|| format!("make {}", path.display()))?;
        self.give(path)
    }

    /// Gives a file or directory to the account servers run as.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        let Some(account) = self.account else {
            return Ok(());
        };
        chown(path, Some(account.uid), Some(account.gid)).during(|| format!("give {} away", path.display()))
    }

    fn begin() -> Result<Run> {
        sweep();
        let account = server_account()?;
        let (root, lock) = make_root()?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "pgweir-janitor"])
            .arg(&root)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C.
            .process_group_of_its_own()
            .spawn()
            .during(|| "start the janitor".into())?;
        Ok(Run { root, account, next: AtomicU32::new(0), _lock: lock, janitor: Mutex::new(Some(janitor)) })
    }
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

fn make_root() -> Result<(PathBuf, File)> {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.subsec_nanos());
    let root = std::env::temp_dir().join(format!("{PREFIX}{}-{:05x}", std::process::id(), nanos & 0xf_ffff));
    // Others may pass through, to the unix sockets and the CA certificate, but not look around.
    fs::DirBuilder::new().mode(0o711).create(&root).during(|| format!("make {}", root.display()))?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).during(|| format!("open {}", root.display()))?;
    let lock = File::create(root.join("owner.lock")).during(|| "make the lock file".into())?;
    lock.lock().during(|| "lock the lock file".into())?;
    Ok((root, lock))
}

fn server_account() -> Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").during(|| "read /etc/passwd".into())?;
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&"postgres"));
    let number = |at: usize| fields.as_ref().and_then(|fields| fields.get(at)).and_then(|text| text.parse().ok());
    match (number(2), number(3)) {
        (Some(uid), Some(gid)) => Ok(Some(Account { uid, gid })),
        _ => Err(Error::new("PostgreSQL does not run as root, and there is no account `postgres` to run it as")),
    }
}

/// Removes what runs left behind whose owner and janitor were both killed.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            clean(&entry.path());
        }
    }
}

fn is_abandoned(root: &Path) -> bool {
    if let Ok(lock) = File::open(root.join("owner.lock")) {
        return lock.try_lock().is_ok();
    }
    let age = fs::metadata(root).and_then(|meta| meta.modified()).ok().and_then(|made| made.elapsed().ok());
    age.is_some_and(|age| age > MAKING)
}

/// Does the janitor's work at once. What cannot be removed stays; the next sweep comes by again.
fn clean(root: &Path) {
    let mut janitor = Command::new("sh");
    janitor.args(["-c", JANITOR, "pgweir-janitor"]).arg(root).current_dir("/");
    janitor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It stands in for a janitor that is gone; there is nothing better to do when it cannot be started.
    let _ = janitor.process_group_of_its_own().status();
}
