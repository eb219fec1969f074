//! Checks of `[auth]`, and of TLS as far as it proves somebody.
//! Must never report a mere suspicion, nor show a secret.

use std::collections::BTreeMap;
use std::path::Path;

use super::auth::{Auth, AuthQuery};
use super::check::Check;
use super::encryption::{ChannelBinding, SslMode, TlsMode, TlsNegotiation};
use super::hba::{Hba, HbaMethod, Rule};
use super::ident::Ident;
use super::leaf::{FilePath, RawSecret, Word};
use super::model::{AuthType, Database, Listen};
use super::password::Password;
use super::problem::Source;
use super::reader::{Field, Span};
use super::schema::{RawAuth, RawDatabase, RawListen};
use super::tokens::Flaw;
use super::{hba_parse, userlist};
use crate::base::secret::Secret;

/// Longest file of rules, maps or users, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Name and password of each line of `users_file`; `None` if there is no such file.
pub(super) type Listed = Option<Vec<(String, Option<Password>)>>;

impl Check<'_> {
    /// Notes what the TLS settings of a database rule out.
    pub(super) fn server_tls(&mut self, raw: &RawDatabase) {
        let Some(mode) = raw.server_tls_sslmode.word(SslMode::Prefer) else { return };
        let weak = matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        if raw.server_tls_negotiation.word(TlsNegotiation::Postgres) == Some(TlsNegotiation::Direct)
            && weak
            && let Some(span) = raw.server_tls_negotiation.span()
        {
            // libpq refuses it too: there is no way back to an unencrypted connection.
            let mode = mode.as_str();
            let title = format!("`server_tls_negotiation` cannot be \"direct\" when `server_tls_sslmode` is {mode:?}");
            self.reader.note(span, title, |problem| problem.expected(r#"server_tls_sslmode = "require" or stronger"#));
        }
        if raw.server_channel_binding.word(ChannelBinding::Prefer) == Some(ChannelBinding::Require)
            && mode == SslMode::Disable
            && let Some(span) = raw.server_channel_binding.span()
        {
            let title = "`server_channel_binding` cannot be \"require\" when `server_tls_sslmode` is \"disable\"";
            self.reader.note(span, title, |problem| problem.expected("TLS, whose certificate SCRAM is bound to"));
        }
    }

    /// Notes certificates that are demanded of clients and could not be checked.
    pub(super) fn client_certificates(&mut self, raw: &RawListen) {
        if let Some(span) = raw.client_tls_ca_file.span()
            && raw.client_tls_cert_file.is_absent()
            && raw.client_tls_key_file.is_absent()
        {
            let title = "`client_tls_ca_file` is never used: without a certificate of pgweir's own there is no TLS";
            let expected = "`client_tls_cert_file` and `client_tls_key_file` next to it";
            self.reader.note(span, title, |problem| problem.expected(expected));
        }
        let by_mode = matches!(&raw.client_tls_sslmode, Field::Set(Word(mode), _) if mode.demands_certificate());
        let by_method = matches!(&raw.auth_type, Field::Set(Word(AuthType::Cert), _));
        let span = if by_mode { raw.client_tls_sslmode.span() } else { raw.auth_type.span() };
        let (Some(span), true) = (span, by_mode || by_method) else { return };
        if raw.client_tls_ca_file.is_absent() {
            let title = "client certificates are demanded, but nothing says who may sign them";
            self.reader.note(span.clone(), title, |problem| problem.expected("`client_tls_ca_file` next to it"));
        }
        if by_method && raw.client_tls_cert_file.is_absent() {
            let title = "client certificates are demanded, but there is no TLS";
            let expected = "`client_tls_cert_file` and `client_tls_key_file` next to it";
            self.reader.note(span, title, |problem| problem.expected(expected));
        }
    }

    /// `[auth]`, and the users of its file.
    pub(super) fn auth(&mut self, raw: RawAuth, listen: &Listen, auth_type: Option<AuthType>) -> (Auth, Listed) {
        let default = Auth::default();
        let ident = self.ident(raw.ident_file);
        let hba = self.hba(raw.hba_file, raw.hba, listen, auth_type, &ident);
        let listed = self.users_file(raw.users_file);
        let mut cache = AuthQuery::CACHE;
        if let Field::Set(wait, span) = raw.query_cache {
            cache = wait.0;
            if cache > AuthQuery::CACHE_MAX {
                let title = "`auth.query_cache` is too long: a changed or expired password would be good all the while";
                self.reader.note(span, title, |problem| problem.expected(r#"at most "1h""#));
            }
        }
        let user = raw.query_user.set().map(|text| text.0);
        for (name, span) in [
            ("query", raw.query.span()),
            ("query_password", raw.query_password.span()),
            ("query_database", raw.query_database.span()),
        ] {
            if let (Some(span), None) = (span, &user) {
                let title = format!("`auth.{name}` is never used without `query_user`");
                self.reader
                    .note(span, title, |problem| problem.expected("`query_user`, who asks the server for users"));
            }
        }
        let password = self.server_password(raw.query_password);
        let sql = raw.query.set().map_or_else(|| AuthQuery::SQL.to_owned(), |text| text.0);
        let database = raw.query_database.set().map(|text| text.0);
        let query = user.map(|user| AuthQuery { sql, user, password, database, cache });
        let failed_logins_max = raw.failed_logins_max.set().map_or(default.failed_logins_max, |n| n.0);
        let failed_logins_ban = raw.failed_logins_ban.set().map_or(default.failed_logins_ban, |timeout| timeout.0);
        let mock_secret = self.mock_secret(raw.mock_secret);
        (Auth { hba, ident, query, failed_logins_max, failed_logins_ban, mock_secret }, listed)
    }

    fn mock_secret(&mut self, raw: Field<RawSecret>) -> Option<Secret> {
        let span = raw.span()?;
        let secret = self.password(raw)?.secret().clone();
        if secret.expose().len() < Auth::MOCK_SECRET_MIN {
            let title = "`auth.mock_secret` is so short that it could be guessed";
            let expected = format!("at least {} random characters", Auth::MOCK_SECRET_MIN);
            self.reader.note(span, title, |problem| problem.expected(expected));
        }
        Some(secret)
    }

    /// Notes a database to look users up in that is none.
    pub(super) fn known_database(&mut self, named: Option<(Span, String)>, all: &Option<BTreeMap<String, Database>>) {
        if let (Some((span, name)), Some(all)) = (named, all)
            && !all.contains_key(&name)
        {
            let title = format!("`auth.query_database` names `{name}`, which is no database");
            self.reader.note(span, title, |problem| problem.expected("the NAME of a section [databases.NAME]"));
        }
    }

    fn ident(&mut self, raw: Field<FilePath>) -> Ident {
        let Field::Set(FilePath(path), span) = raw else { return Ident::default() };
        let path = self.outside.directory.join(path);
        let Some(text) = self.text_of_file(&path, span, FILE_MAX) else { return Ident::default() };
        Ident::parse(&text).unwrap_or_else(|flaws| {
            self.flaws_of_file(&path, &text, flaws);
            Ident::default()
        })
    }

    fn hba(
        &mut self,
        file: Field<FilePath>,
        inline: Field<super::leaf_auth::Texts>,
        listen: &Listen,
        auth_type: Option<AuthType>,
        ident: &Ident,
    ) -> Option<Hba> {
        if let (Field::Set(_, span), Field::Set(..)) = (&inline, &file) {
            let title = "there are rules in `auth.hba` and in `auth.hba_file`";
            self.reader
                .note(span.clone(), title, |problem| problem.expected("one of them: their order would be unclear"));
        }
        let span = file.span().or(inline.span());
        let is_bad = matches!(file, Field::Bad) || matches!(inline, Field::Bad);
        if let (Some(span), Some(other)) = (&span, auth_type.filter(|method| *method != AuthType::Hba)) {
            let title = format!("the rules are never used when `auth_type` is {:?}", other.as_str());
            self.reader.note(span.clone(), title, |problem| problem.expected(r#"auth_type = "hba" in [listen]"#));
        }
        if span.is_none() && auth_type == Some(AuthType::Hba) && !is_bad {
            let problem = self.reader.source.problem_of_all("`auth_type` is \"hba\", but there are no rules");
            self.reader.problems.push(problem.expected("`hba_file` or `hba` in [auth]"));
        }
        let hba = match (file, inline) {
            (Field::Set(FilePath(path), span), _) => self.hba_file(&path, span)?,
            (_, Field::Set(lines, _)) => self.hba_lines(lines.0),
            _ => return None,
        };
        for rule in hba.rules() {
            self.rule(rule, span.clone().unwrap_or_default(), listen, ident);
        }
        Some(hba)
    }

    fn hba_file(&mut self, path: &Path, span: Span) -> Option<Hba> {
        let path = self.outside.directory.join(path);
        let text = self.text_of_file(&path, span, FILE_MAX)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        match hba_parse::parse(&text, &|name| include(&folder, name)) {
            Ok(hba) => Some(hba),
            Err(flaws) => {
                self.flaws_of_file(&path, &text, flaws);
                None
            }
        }
    }

    /// Rules of the configuration itself: the number of an item stands for that of a line.
    fn hba_lines(&mut self, lines: Vec<(String, Span)>) -> Hba {
        let mut rules = Vec::new();
        let folder = self.outside.directory.to_owned();
        for (number, (text, span)) in lines.into_iter().enumerate() {
            match hba_parse::parse(&text, &|name| include(&folder, name)) {
                Ok(hba) => rules.extend(hba.rules.into_iter().map(|rule| Rule { line: number + 1, ..rule })),
                Err(flaws) => {
                    for flaw in flaws {
                        let title = format!("`auth.hba`: {}", flaw.what);
                        let word = self.reader.source.within(&span, &text, flaw.span);
                        self.reader.note(word, title, |problem| problem.expected(flaw.expected));
                    }
                }
            }
        }
        Hba { rules }
    }

    /// Notes what a rule needs and the rest of the configuration does not have.
    fn rule(&mut self, rule: &Rule, span: Span, listen: &Listen, ident: &Ident) {
        if rule.wants_certificate() && listen.client_tls_ca_file.is_none() {
            let title = format!("rule {} demands a client certificate, but nothing says who may sign it", rule.line);
            self.reader.note(span.clone(), title, |problem| problem.expected("`client_tls_ca_file` in [listen]"));
        }
        if rule.wants_certificate() && listen.client_tls_sslmode == TlsMode::Disable {
            let title = format!("rule {} demands a client certificate, but there is no TLS", rule.line);
            self.reader.note(span.clone(), title, |problem| problem.expected("`client_tls_cert_file` in [listen]"));
        }
        if rule.method == HbaMethod::Password && rule.network.is_some() && listen.client_tls_sslmode == TlsMode::Disable
        {
            let title =
                format!("rule {} lets nobody in: it takes passwords over TLS only, and there is no TLS", rule.line);
            self.reader.warn(
                span.clone(),
                title,
                "`client_tls_cert_file` in [listen], or \"scram-sha-256\" in the rule",
            );
        }
        if let Some(map) = &rule.map
            && !ident.has(map)
        {
            let title = format!("rule {} names the map `{map}`, which no line of `ident_file` has", rule.line);
            self.reader.note(span, title, |problem| problem.expected("a line: MAP OUTER-NAME USER"));
        }
    }

    fn users_file(&mut self, raw: Field<FilePath>) -> Listed {
        let Field::Set(FilePath(path), span) = raw else { return None };
        let path = self.outside.directory.join(path);
        let text = self.text_of_file(&path, span.clone(), FILE_MAX)?;
        // Lines are named, never shown: each holds a secret.
        let mut broken = |line: usize, what: &str, expected: &str| {
            let title = format!("{}, line {line}: {what}", path.display());
            self.reader.note(span.clone(), title, |problem| problem.expected(expected));
        };
        let lines = match userlist::parse(&text) {
            Ok(lines) => lines,
            Err(lines) => {
                lines.into_iter().for_each(|line| broken(line, "not a line of a user list", r#""NAME" "SECRET""#));
                return Some(Vec::new());
            }
        };
        let mut users: Vec<(String, Option<Password>)> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for user in lines {
            if !known.insert(user.name.clone()) {
                broken(user.line, "this user has a line above", "one line for each user");
                continue;
            }
            match Password::classify(user.secret) {
                Ok(password) => {
                    users.push((user.name, Some(password).filter(|password| !password.secret().is_empty())))
                }
                Err(verifier) => broken(user.line, "broken SCRAM verifier", &verifier.to_string()),
            }
        }
        Some(users)
    }

    /// Notes flaws of a file other than the configuration, with its lines.
    fn flaws_of_file(&mut self, path: &Path, text: &str, flaws: Vec<Flaw>) {
        let source = Source::new(&path.display().to_string(), text);
        for flaw in flaws {
            self.reader.problems.push(source.problem(flaw.span, flaw.what).expected(flaw.expected));
        }
    }
}

fn include(folder: &Path, name: &str) -> Result<String, String> {
    let path = folder.join(name);
    let length = std::fs::metadata(&path).map_err(|error| super::fetch::why(&error))?.len();
    if length > FILE_MAX {
        return Err("it is longer than 16MiB".to_owned());
    }
    std::fs::read_to_string(path).map_err(|error| super::fetch::why(&error))
}
