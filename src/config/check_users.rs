//! Checks of the users: sections of the configuration, and what `users_file` adds to them.
//! Must never report a mere suspicion, nor show a secret.

use std::collections::BTreeMap;

use super::check::{Check, overrides};
use super::check_auth::Listed;
use super::leaf::RawSecret;
use super::model::{AuthType, User};
use super::password::Password;
use super::reader::{Field, Named, Span};
use super::schema::RawUser;
use super::terms::Overrides;

impl Check<'_> {
    /// All users. `listed` are those of `users_file`; `looked_up` says that the servers are asked for others.
    pub(super) fn users(
        &mut self,
        raw: Field<Named<RawUser>>,
        auth_type: Option<AuthType>,
        listed: Listed,
        looked_up: bool,
    ) -> Option<BTreeMap<String, User>> {
        let elsewhere = listed.is_some() || looked_up;
        let named = match raw {
            Field::Absent if elsewhere => Named::default(),
            raw => self.at_least_one(raw, "user", "[users.NAME] with a password")?,
        };
        let mut listed: BTreeMap<_, _> = listed.unwrap_or_default().into_iter().collect();
        let mut users = BTreeMap::new();
        let mut complete = true;
        for (name, span, raw) in named.0 {
            let Some(raw) = raw else {
                complete = false;
                continue;
            };
            let of_file = listed.remove(&name).flatten();
            users.insert(name.clone(), self.user(name, span, raw, auth_type, of_file, looked_up));
        }
        for (name, password) in listed {
            let user = User {
                name: name.clone(),
                password,
                also: Vec::new(),
                valid_until: None,
                terms: Overrides::default(),
                max_user_connections: None,
                max_client_connections: None,
            };
            users.insert(name, user);
        }
        complete.then_some(users)
    }

    fn user(
        &mut self,
        name: String,
        span: Span,
        raw: RawUser,
        auth_type: Option<AuthType>,
        of_file: Option<Password>,
        looked_up: bool,
    ) -> User {
        let absent = raw.password.is_absent();
        let at = raw.password.span().unwrap_or(span);
        let secrets: Vec<(RawSecret, Span)> = raw.password.set().map(|list| list.0).unwrap_or_default();
        let wanted = secrets.len();
        let mut passwords: Vec<Password> =
            secrets.into_iter().filter_map(|(secret, span)| self.password(Field::Set(secret, span))).collect();
        let complete = passwords.len() == wanted;
        if absent {
            passwords.extend(of_file);
        }
        self.judge(&name, at, &passwords, auth_type.filter(|_| complete), absent && !looked_up);
        let mut passwords = passwords.into_iter();
        User {
            name,
            password: passwords.next(),
            also: passwords.collect(),
            valid_until: raw.valid_until.set().map(|moment| moment.0),
            terms: overrides!(raw),
            max_user_connections: raw.max_user_connections.set().map(|n| n.0),
            max_client_connections: raw.max_client_connections.set().map(|n| n.0),
        }
    }

    /// Notes passwords with which nobody can ever log in by this method. That one cannot log in to servers is not
    /// certain here: they may trust pgweir.
    fn judge(&mut self, name: &str, at: Span, passwords: &[Password], auth_type: Option<AuthType>, alone: bool) {
        let Some(auth_type) = auth_type else { return };
        let by_password = matches!(auth_type, AuthType::Md5 | AuthType::ScramSha256 | AuthType::Password);
        let is_md5 = |password: &Password| matches!(password, Password::Md5(_));
        let (title, expected) = if by_password && passwords.is_empty() && alone {
            (
                format!("user `{name}` has no password and can never log in"),
                "a password, or auth_type = \"trust\" in [listen]",
            )
        } else if auth_type == AuthType::ScramSha256 && !passwords.is_empty() && passwords.iter().all(is_md5) {
            (
                format!("user `{name}` has an MD5 password and can never log in by SCRAM"),
                "the password itself, a SCRAM verifier, or auth_type = \"md5\" in [listen]",
            )
        } else if auth_type != AuthType::Password && differently_salted(passwords) {
            (
                format!("user `{name}` has SCRAM verifiers of different salts or iteration counts"),
                "at most one verifier besides passwords in plain text: a client is told one salt only",
            )
        } else {
            return;
        };
        self.reader.note(at, title, |problem| problem.expected(expected));
    }
}

/// Whether two verifiers differ in what a client is told of them: `SCRAM-SHA-256$iterations:salt`.
fn differently_salted(passwords: &[Password]) -> bool {
    let mut told = passwords.iter().filter_map(|password| match password {
        Password::Scram(secret) => secret.expose().rsplit_once('$').map(|(told, _)| told),
        Password::Plain(_) | Password::Md5(_) => None,
    });
    let first = told.next();
    told.any(|other| Some(other) != first)
}
