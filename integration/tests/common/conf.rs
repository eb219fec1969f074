//! The configuration a test starts pgweir with, put together from TOML lines.
//! It must never set what a test did not ask for beyond what is needed to start.

use std::fmt::Write;

use integration::{Certificates, Cluster, DATABASE, Pgweir, USER};

/// Sections of a configuration, each as TOML lines.
#[derive(Debug, Clone, Default)]
pub struct Conf {
    top: String,
    listen: String,
    stats: String,
    pool: String,
    database: String,
    users: Vec<(String, String)>,
    rest: String,
}

impl Conf {
    /// Trusts [`USER`], and serves [`DATABASE`] of the cluster.
    pub fn trust(cluster: &Cluster) -> Self {
        Self::database_only(&cluster.config_lines()).listen("auth_type = \"trust\"").user(USER, "")
    }

    /// Database [`DATABASE`] with these lines, no users, the default authentication.
    pub fn database_only(lines: &str) -> Self {
        Self { database: lines.into(), ..Self::default() }
    }

    /// A line above every section.
    pub fn top(mut self, line: &str) -> Self {
        push(&mut self.top, line);
        self
    }

    /// A line of `[listen]`.
    pub fn listen(mut self, line: &str) -> Self {
        push(&mut self.listen, line);
        self
    }

    /// Offers TLS to clients.
    pub fn tls(self, mode: &str, files: &Certificates) -> Self {
        self.listen(&format!(
            "client_tls_sslmode = \"{mode}\"\nclient_tls_cert_file = \"{}\"\nclient_tls_key_file = \"{}\"",
            files.certificate.display(),
            files.key.display()
        ))
    }

    /// A line of `[stats]`.
    pub fn stats(mut self, line: &str) -> Self {
        push(&mut self.stats, line);
        self
    }

    /// A line of `[pool]`.
    pub fn pool(mut self, line: &str) -> Self {
        push(&mut self.pool, line);
        self
    }

    /// The size of every pool.
    pub fn size(self, size: usize) -> Self {
        self.pool(&format!("default_pool_size = {size}"))
    }

    /// A line of the database's section.
    pub fn database(mut self, line: &str) -> Self {
        push(&mut self.database, line);
        self
    }

    /// A user with these lines; an earlier one of the same name is replaced.
    pub fn user(mut self, name: &str, lines: &str) -> Self {
        self.users.retain(|(known, _)| known != name);
        self.users.push((name.into(), lines.into()));
        self
    }

    /// Lines behind everything, with their own section headers.
    pub fn rest(mut self, lines: &str) -> Self {
        push(&mut self.rest, lines);
        self
    }

    /// The configuration, with the placeholders of [`Pgweir::start`].
    pub fn text(&self) -> String {
        let Self { top, listen, stats, pool, database, users, rest } = self;
        let mut text = format!(
            "{top}[listen]\nport = {{port}}\n{listen}[stats]\naddress = \"127.0.0.1:{{stats_port}}\"\n{stats}\
             [pool]\n{pool}[databases.{DATABASE}]\n{database}\n"
        );
        for (name, lines) in users {
            let _ = writeln!(text, "[users.{name}]\n{lines}");
        }
        text + rest
    }

    /// Starts pgweir with it.
    pub fn start(&self) -> Pgweir {
        Pgweir::start(&self.text()).unwrap()
    }
}

fn push(section: &mut String, line: &str) {
    section.push_str(line);
    section.push('\n');
}
