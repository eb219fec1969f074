//! Logging in: clients to pgweir, pgweir to servers, every method with right and wrong secrets.
//! It must never tell a right name from a wrong one, nor write a secret down.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod binding;
mod clients;
mod doors;
mod exchange;
mod limits;
mod lookup;
mod newer;
mod passthrough;
mod regressions;
mod servers;

use std::sync::OnceLock;

use common::Conf;
use integration::{Cluster, USER};

/// One cluster that trusts everybody, for tests of what happens in front of it.
fn trusting() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

/// A password that no log may contain.
const SECRET: &str = "correct-horse-battery";

/// The users of [`methods`], by the kind of secret kept for them.
const KINDS: [&str; 3] = ["plain", "hashed", "verified"];

/// [`SECRET`] of `user` as PostgreSQL would store it.
fn stored(user: &str, encryption: &str) -> String {
    let sql = format!(
        "SET password_encryption = '{encryption}'; DROP ROLE IF EXISTS {user}; CREATE ROLE {user} PASSWORD '{SECRET}';
         SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'"
    );
    trusting().primary().value_in("postgres", &sql).unwrap()
}

/// Secrets of [`KINDS`] as configuration lines, made once.
fn secrets() -> &'static [String; 3] {
    static SECRETS: OnceLock<[String; 3]> = OnceLock::new();
    SECRETS.get_or_init(|| [SECRET.into(), stored("hashed", "md5"), stored("verified", "scram-sha-256")])
}

/// pgweir with this `auth_type` and a user of each kind that it allows, all of whom are [`USER`] on the server.
fn methods(auth_type: &str) -> Conf {
    let lines = format!("{}user = \"{USER}\"\n", trusting().config_lines());
    let conf =
        Conf::database_only(&lines).listen(&format!("auth_type = \"{auth_type}\"")).rest("[log]\nlevel = \"trace\"");
    // A configuration in which an MD5 hash could never be matched is refused as a whole.
    let users = KINDS.iter().zip(secrets()).filter(|(name, _)| auth_type != "scram-sha-256" || **name != "hashed");
    users.fold(conf, |conf, (name, secret)| conf.user(name, &format!("password = \"{secret}\"")))
}

/// Neither a password nor what stands for one is in the log.
fn assert_discreet(log: &str) {
    let all = secrets().iter().map(String::as_str);
    for secret in all.chain([integration::PASSWORD, "wrong-password"]) {
        assert!(!log.contains(secret), "the log has {secret}:\n{log}");
    }
}
