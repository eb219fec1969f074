//! What `[stats]` becomes, and what is said of one that would let anybody in.
//! Must never depend on this machine: files are made.
#![allow(clippy::unwrap_used)]

use super::warning_tests::identity;
use super::*;

const REST: &str = "[databases.d]\nprimary = \"h\"\n[users.u]\npassword = \"x\"\n";
const TOKEN: &str = "[stats.tokens.t]\nsecret = \"0123456789abcdef\"\n";

fn said(stats: &str) -> String {
    Config::parse(&format!("{stats}\n{REST}"), "f.toml").unwrap_err().to_string()
}

fn accepted(stats: &str) -> Config {
    Config::parse(&format!("{stats}\n{REST}"), "f.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn tokens_have_roles() {
    let config = accepted(&format!("[stats.tokens.w]\nrole = \"write\"\nsecret = \"fedcba9876543210\"\n{TOKEN}"));
    let roles: Vec<_> = config.stats.tokens.iter().map(|(name, token)| (name.as_str(), token.role)).collect();
    assert_eq!(roles, [("t", Access::Read), ("w", Access::Write)]);
    assert!(config.warnings.is_empty());
}

#[test]
fn beyond_loopback_there_must_be_a_token() {
    assert_eq!(
        said("[stats]\naddress = \"0.0.0.0:9127\""),
        "error: anybody who reaches 0.0.0.0:9127 could read everything there: there is no token\n \
         --> f.toml:2:11\n  |\n2 | address = \"0.0.0.0:9127\"\n  |           ^^^^^^^^^^^^^^\n  \
         = expected a section [stats.tokens.NAME] with role and secret, or address = \"127.0.0.1:9127\"\n"
    );
    assert!(said("[stats]\naddress = \"[2001:db8::1]:9127\"\n[stats.tokens]\n").contains("there is no token"));
    for address in ["127.3.4.5:9127", "[::1]:9127", "off"] {
        accepted(&format!("[stats]\naddress = \"{address}\""));
    }
}

#[test]
fn beyond_loopback_there_must_be_tls() {
    assert_eq!(
        said(&format!("[stats]\naddress = \"0.0.0.0:9127\"\n{TOKEN}")),
        "error: tokens for 0.0.0.0:9127 would cross the network in the clear\n \
         --> f.toml:2:11\n  |\n2 | address = \"0.0.0.0:9127\"\n  |           ^^^^^^^^^^^^^^\n  \
         = expected `tls_cert_file` and `tls_key_file` in [stats], or `allow_cleartext_tokens = true` where TLS ends in front of it\n"
    );
    let wanted = "[stats]\naddress = \"0.0.0.0:9127\"\nallow_cleartext_tokens";
    assert!(said(&format!("{wanted} = false\n{TOKEN}")).contains("in the clear"));
    let config = accepted(&format!("{wanted} = true\n{TOKEN}"));
    assert!(config.stats.allow_cleartext_tokens && config.warnings.is_empty());
    // It takes nothing else back.
    assert!(said(&format!("{wanted} = true")).contains("there is no token"));
}

#[test]
fn with_tls_nothing_crosses_the_network_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = identity();
    std::fs::write(dir.path().join("c.pem"), cert).unwrap();
    std::fs::write(dir.path().join("k.pem"), key).unwrap();
    let files = "tls_cert_file = \"c.pem\"\ntls_key_file = \"k.pem\"";
    let text = format!("[stats]\naddress = \"0.0.0.0:9127\"\n{files}\n{TOKEN}{REST}");
    let file = dir.path().join("f.toml");
    std::fs::write(&file, &text).unwrap();
    let config = Config::load(&file).unwrap();
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    assert_eq!(config.stats.tls_key_file, Some(dir.path().join("k.pem")));
    std::fs::write(&file, text.replace("k.pem", "c.pem")).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("`tls_key_file`: "));
    std::fs::write(&file, text.replace("tls_key_file = \"k.pem\"", "")).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("`tls_cert_file` needs `tls_key_file`"));
}

#[test]
fn secrets_that_are_none() {
    assert!(said("[stats.tokens.t]\nrole = \"read\"").contains("token `t` has no secret"));
    assert!(said("[stats.tokens.t]\nsecret = \"short\"").contains("could be guessed"));
    assert!(said("[stats.tokens.t]\nsecret = \"with a space in it, so no header\"").contains("could be guessed"));
    assert!(
        said("[stats.tokens.t]\nrole = \"admin\"\nsecret = \"0123456789abcdef\"").contains("\"read\" or \"write\"")
    );
    let twice = said(&format!("{TOKEN}{}", TOKEN.replace(".t]", ".u]")));
    assert!(twice.contains("tokens `t` and `u` have the same secret") && !twice.contains("0123456789"), "{twice}");
}
