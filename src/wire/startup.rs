//! The packets before a session: startup, SSL and GSS requests, cancel.
//! Must never look at a byte beyond the packet's own length.

use super::frame::{be_u32, cstr};

/// Request code of a CancelRequest (src/include/libpq/pqcomm.h).
pub const CANCEL: u32 = 80_877_102;
/// Request code of an SSLRequest.
pub const SSL: u32 = 80_877_103;
/// Request code of a GSSENCRequest.
pub const GSSENC: u32 = 80_877_104;
/// Longest first packet: `MAX_STARTUP_PACKET_LENGTH` of src/include/libpq/pqcomm.h.
pub const MAX_PACKET: usize = 10_000;
/// Newest protocol minor version spoken towards clients.
pub const NEWEST_MINOR: u32 = 2;

/// The first packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSSAPI encryption.
    GssEnc,
    /// A cancel request for another connection.
    Cancel {
        /// Process id as told in BackendKeyData.
        pid: u32,
        /// Secret as told in BackendKeyData.
        key: Vec<u8>,
    },
    /// A session begins.
    Startup(Startup),
}

/// Name and value of settings.
pub type Settings = Vec<(Vec<u8>, Vec<u8>)>;

/// What a StartupMessage says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// Minor version of protocol 3 that the client asked for.
    pub minor: u32,
    /// Name and value in the order given, `_pq_.` options not among them.
    pub parameters: Settings,
    /// `_pq_.` options: none is known to pgweir.
    pub unknown_options: Vec<Vec<u8>>,
}

/// Why a first packet was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStartup {
    /// The length is out of bounds.
    #[error("invalid length of startup packet")]
    Length,
    /// Not protocol 3.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Version(u32, u32),
    /// Names and values do not pair up or are not terminated.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
}

/// Length of the whole packet at the front of `bytes`; `None` while it is not known.
///
/// # Errors
/// [`BadStartup::Length`] when it is below 8 or above [`MAX_PACKET`].
pub fn length(bytes: &[u8]) -> Result<Option<usize>, BadStartup> {
    match be_u32(bytes) {
        None => Ok(None),
        Some(length) if (8..=MAX_PACKET as u32).contains(&length) => Ok(Some(length as usize)),
        Some(_) => Err(BadStartup::Length),
    }
}

impl Packet {
    /// Reads a packet of exactly its own length.
    ///
    /// # Errors
    /// [`BadStartup`] says what was wrong with it.
    pub fn parse(packet: &[u8]) -> Result<Self, BadStartup> {
        let code = packet.get(4..).and_then(be_u32).ok_or(BadStartup::Length)?;
        let body = packet.get(8..).ok_or(BadStartup::Length)?;
        match code {
            SSL if body.is_empty() => Ok(Self::Ssl),
            GSSENC if body.is_empty() => Ok(Self::GssEnc),
            SSL | GSSENC => Err(BadStartup::Length),
            CANCEL => match be_u32(body) {
                Some(pid) if body.len() > 4 && body.len() <= 260 => Ok(Self::Cancel { pid, key: body[4..].to_vec() }),
                _ => Err(BadStartup::Length),
            },
            _ if code >> 16 == 3 => startup(code & 0xffff, body).map(Self::Startup),
            _ => Err(BadStartup::Version(code >> 16, code & 0xffff)),
        }
    }
}

fn startup(minor: u32, mut body: &[u8]) -> Result<Startup, BadStartup> {
    let mut startup = Startup { minor, ..Startup::default() };
    loop {
        let (name, rest) = cstr(body).ok_or(BadStartup::Layout)?;
        if name.is_empty() {
            return if rest.is_empty() { Ok(startup) } else { Err(BadStartup::Layout) };
        }
        let (value, rest) = cstr(rest).ok_or(BadStartup::Layout)?;
        if name.starts_with(b"_pq_.") {
            startup.unknown_options.push(name.to_vec());
        } else {
            startup.parameters.push((name.to_vec(), value.to_vec()));
        }
        body = rest;
    }
}

impl Startup {
    /// The value given for `name`; the last one wins, as in PostgreSQL.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| &value[..])
    }

    /// Settings the session starts with: everything but `user`, `database`, `replication` and
    /// `options`, and then what `options` sets, names in lower case, each once.
    ///
    /// # Errors
    /// The argument of `options` that is not a setting.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings::new();
        let mut set = |name: &[u8], value: &[u8]| {
            let name = name.to_ascii_lowercase();
            settings.retain(|(key, _)| *key != name);
            settings.push((name, value.to_vec()));
        };
        // PostgreSQL applies the command line first and the other parameters over it
        // (process_startup_options in src/backend/utils/init/postinit.c).
        if let Some(options) = self.get(b"options") {
            for (name, value) in options_settings(options)? {
                set(&name, &value);
            }
        }
        for (name, value) in &self.parameters {
            if !matches!(&name[..], b"user" | b"database" | b"replication" | b"options") {
                set(name, value);
            }
        }
        settings.sort();
        Ok(settings)
    }
}

/// Splits as `pg_split_opts` of src/backend/utils/init/postinit.c does: blanks separate, a
/// backslash takes the next byte as it is. Understands `-c name=value`, `-cname=value` and
/// `--name=value` (dashes in a long name stand for underscores).
fn options_settings(options: &[u8]) -> Result<Settings, String> {
    let mut words = split_options(options).into_iter();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let complain =
            || format!("invalid command-line argument for server process: {}", String::from_utf8_lossy(&word));
        let setting = match word.strip_prefix(b"--") {
            Some(long) => long.to_vec(),
            None => match word.strip_prefix(b"-c") {
                Some(b"") => words.next().ok_or_else(complain)?,
                Some(rest) => rest.to_vec(),
                None => return Err(complain()),
            },
        };
        let equals = memchr::memchr(b'=', &setting).ok_or_else(complain)?;
        // An empty name once made PgBouncer spin (`-c=`); it is refused here.
        if equals == 0 {
            return Err(complain());
        }
        let name = setting[..equals].iter().map(|&byte| if byte == b'-' { b'_' } else { byte }).collect();
        found.push((name, setting[equals + 1..].to_vec()));
    }
    Ok(found)
}

fn split_options(options: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = options.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[path = "startup_tests.rs"]
mod tests;
