//! Names of hosts as one process sees them, by nss_wrapper (cwrap.org), which takes the place of the system's resolver in it.
//! It must never change what any other process sees.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::error::{During, Error, Result};
use crate::run::Run;

/// A file of addresses and names.
#[derive(Debug)]
pub struct Names {
    folder: PathBuf,
    library: PathBuf,
    /// How often it was written.
    version: AtomicU64,
}

impl Names {
    /// Nobody has a name.
    ///
    /// # Errors
    /// nss_wrapper is not there.
    pub fn new() -> Result<Self> {
        let places = fs::read_dir("/usr/lib").during(|| "look into /usr/lib".into())?.flatten();
        let mut found = places.map(|place| place.path().join("libnss_wrapper.so")).filter(|path| path.is_file());
        let library = found.next().ok_or_else(|| Error::new("no libnss_wrapper.so (Debian: libnss-wrapper)"))?;
        let names = Self { folder: Run::current()?.folder("names")?, library, version: AtomicU64::new(0) };
        names.set(&[])?;
        Ok(names)
    }

    /// From now on names resolve to these addresses, and others to nothing: pairs of address and name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, pairs: &[(String, &str)]) -> Result<()> {
        let text: String = pairs.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
        let new = self.folder.join("new");
        fs::write(&new, text).during(|| "write names".into())?;
        // It looks whether the file is another and of another second.
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + version);
        let file = File::options().append(true).open(&new).during(|| "open names".into())?;
        file.set_modified(time).during(|| "date names".into())?;
        fs::rename(&new, self.folder.join("hosts")).during(|| "replace names".into())
    }

    /// Lines for [`Pgweir::start_after`](crate::Pgweir::start_after): the process sees these names only.
    #[must_use]
    pub fn script(&self) -> String {
        let (library, hosts) = (self.library.display(), self.folder.join("hosts"));
        format!("export NSS_WRAPPER_HOSTS={} LD_PRELOAD={library}", hosts.display())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
