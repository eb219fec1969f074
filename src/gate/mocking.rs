//! The secret behind what unknown users are shown, made of something that outlives the process.
//! Must never be made of users' secrets: salts made of it are shown to everybody, who could then guess at passwords
//! without being counted.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use crate::auth::{Mocks, VerifierCache};
use crate::config::Config;

/// The machine's id (machine-id(5)): random, made when the system was installed.
const MACHINE_ID: &str = "/etc/machine-id";

/// Lets unknown users be shown the same by every process that has the same configuration: by `mock_secret`, else by
/// the key of the TLS certificate, which siblings share and outsiders do not know, else by the id of the machine, which
/// at least a restart does not change. Without any of them it stays the random secret of this process.
pub(super) fn rekey(cache: &mut VerifierCache, config: &Config) {
    if let Some(secret) = &config.auth.mock_secret {
        return cache.rekey(Mocks::key_of("mock_secret", secret.expose().as_bytes()));
    }
    let tls = config.listen.client_tls_key_file.as_deref().and_then(|path| fs::read(path).ok()).map(Zeroizing::new);
    if let Some(key) = tls.filter(|key| !key.is_empty()) {
        return cache.rekey(Mocks::key_of("TLS key", &key));
    }
    match machine_id(Path::new(MACHINE_ID)) {
        Some(id) => cache.rekey(Mocks::key_of("machine-id", id.as_bytes())),
        None => tracing::debug!("no mock_secret: what unknown users are shown changes with the next start"),
    }
}

/// The id, unless it is one that an image came with to be replaced.
fn machine_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim();
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let varies = id.bytes().any(|byte| Some(&byte) != id.as_bytes().first());
    (is_id && varies).then(|| id.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            fs::write(file.path(), text).unwrap();
            machine_id(file.path())
        };
        let id = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        assert_eq!(read(&format!("{id}\n")).as_deref(), Some(id));
        for none in ["", "uninitialized\n", &"0".repeat(32), &id[1..], &id.replace('3', "x")] {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(machine_id(Path::new("/no/such/file")), None);
    }
}
