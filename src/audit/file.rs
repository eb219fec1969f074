//! The file of the audit log: appended to, and put aside under a number when it has become too long.
//! Must never be readable by others, nor cut a line in two.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, rename};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::calendar::Moment;
use crate::config::Audit;

/// A moment as RFC 3339 has it, in UTC and to the microsecond.
#[must_use]
pub fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment = Moment::at(since.as_secs());
    format!("{}T{}.{:06}Z", moment.date(), moment.time(), since.subsec_micros())
}

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    config: Audit,
    file: File,
    bytes: u64,
    /// The last line may not be whole.
    torn: bool,
}

impl Log {
    /// Opens the file behind what is in it, or makes it.
    pub fn open(config: &Audit) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&config.file)?;
        let bytes = file.metadata()?.len();
        // What a process that ended in the middle of a write has left is no line.
        Ok(Self { config: config.clone(), file, bytes, torn: bytes > 0 && !ends_whole(&config.file) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.config.file
    }

    /// Appends lines; how many of them are certainly there, and what was wrong with the others.
    pub fn append(&mut self, lines: &[String]) -> (u64, io::Result<()>) {
        let mut written = 0;
        let mut rest = lines;
        while !rest.is_empty() {
            let count = self.fitting(rest);
            let (now, later) = rest.split_at(count);
            if let Err(error) = self.write(now) {
                return (written, Err(error));
            }
            written += count as u64;
            rest = later;
        }
        (written, Ok(()))
    }

    /// How many of the next lines go into the file as it is: at least one, into a new one if need be.
    fn fitting(&mut self, lines: &[String]) -> usize {
        let limit = u64::from(self.config.rotate_bytes);
        if limit == 0 {
            return lines.len();
        }
        let fits = |from: u64| {
            let ends = lines.iter().scan(from, |end, line| {
                *end += line.len() as u64 + 1;
                Some(*end)
            });
            ends.take_while(|end| *end <= limit).count()
        };
        let count = fits(self.bytes);
        if count > 0 || self.bytes == 0 {
            return count.max(1);
        }
        if let Err(error) = self.rotate() {
            tracing::error!("cannot put the audit log {} aside: {error}", self.path().display());
            return lines.len();
        }
        fits(0).max(1)
    }

    fn write(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum::<usize>() + 1);
        if self.torn {
            text.push('\n');
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        self.torn = true;
        self.file.write_all(text.as_bytes())?;
        self.torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// `audit.log` becomes `audit.log.1`, that `audit.log.2`, and so on; the last is lost.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        for number in (0..self.config.keep).rev() {
            match rename(self.kept(number), self.kept(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self = Self::open(&self.config)?;
        Ok(())
    }

    /// Where the file of this age is; 0 is the one that is written to.
    fn kept(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.config.file);
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    }
}

/// Whether the last byte of a file ends a line.
fn ends_whole(path: &Path) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    last().is_ok_and(|byte| byte == b'\n')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn moments_are_those_of_rfc_3339() {
        let at = UNIX_EPOCH + std::time::Duration::from_micros(1_763_865_000_000_042);
        assert_eq!(stamp(at), "2025-11-23T02:30:00.000042Z");
    }

    #[test]
    fn a_file_that_is_full_is_put_aside_and_few_are_kept() {
        let folder = std::env::temp_dir().join(format!("pgweir-audit-{}-rotate", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = Audit { file: folder.join("a.log"), rotate_bytes: 10, keep: 2, ..Audit::default() };
        let mut log = Log::open(&config).unwrap();
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (written, outcome) = log.append(&lines(&["aaaa", "bbbb", "cccc", "longer than all", "dd", "ee", "ff"]));
        assert!(written == 7 && outcome.is_ok());
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        assert_eq!(read("a.log").unwrap(), "dd\nee\nff\n");
        assert_eq!(read("a.log.1").unwrap(), "longer than all\n");
        assert_eq!(read("a.log.2").unwrap(), "cccc\n");
        assert!(read("a.log.3").is_err());
        assert_eq!(std::fs::metadata(&config.file).unwrap().permissions().mode() & 0o777, 0o600);
        // Half a line of a process that is gone.
        std::fs::write(&config.file, "half").unwrap();
        let (written, outcome) = Log::open(&config).unwrap().append(&lines(&["x"]));
        assert!(written == 1 && outcome.is_ok());
        assert_eq!(read("a.log").unwrap(), "half\nx\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
