//! What a configuration says that can work, and was hardly meant: warnings, shown by `check` and logged at the start.
//! Must never refuse anything, nor repeat what `check` refuses.

use std::time::{Duration, SystemTime};

use super::check::Check;
use super::encryption::TlsMode;
use super::leaf::{Number, Word};
use super::model::{AuthType, Pool};
use super::reader::{Field, Named, Span};
use super::schema::{RawConfig, RawDatabase, RawListen, RawPool, RawUser};

/// Sizes that hold where nothing else is said, and what says how many servers a pool keeps.
struct Sizes {
    keep: u32,
    size: u32,
    of_database: u32,
    of_user: u32,
}

impl Check<'_> {
    /// Warns of everything.
    pub(super) fn suspect(&mut self, raw: &RawConfig) {
        if let Field::Set(listen, _) = &raw.listen {
            self.suspect_listen(listen);
        }
        let general = match &raw.pool {
            Field::Set(pool, _) => {
                self.suspect_waits(pool);
                self.suspect_pool(pool)
            }
            Field::Absent | Field::Bad => Sizes::of(&RawPool::default()),
        };
        let no_databases = Named::default();
        let databases = if let Field::Set(named, _) = &raw.databases { named } else { &no_databases };
        for (_, _, database) in &databases.0 {
            if let Some(database) = database {
                self.suspect_database(database, &general);
            }
        }
        if let Field::Set(users, _) = &raw.users {
            for (name, _, user) in &users.0 {
                if let Some(user) = user {
                    self.suspect_user(name, user, &general, databases);
                }
            }
        }
    }

    fn suspect_listen(&mut self, raw: &RawListen) {
        if let Field::Set(directory, span) = &raw.unix_socket_dir {
            let path = self.outside.directory.join(&directory.0);
            if !path.is_dir() {
                let title = format!("`unix_socket_dir`: there is no directory {}", path.display());
                self.reader.warn(span.clone(), title, "a directory that is there when pgweir starts");
            }
        }
        let no_tls = raw.client_tls_cert_file.is_absent()
            || matches!(&raw.client_tls_sslmode, Field::Set(Word(TlsMode::Disable), _));
        if let Field::Set(Word(AuthType::Password), span) = &raw.auth_type
            && no_tls
        {
            let title = "nobody can log in over TCP: `auth_type` \"password\" takes passwords over TLS only, and there is no TLS";
            let expected =
                "`client_tls_cert_file` and `client_tls_key_file` next to it, or auth_type = \"scram-sha-256\"";
            self.reader.warn(span.clone(), title, expected);
        }
    }

    fn suspect_waits(&mut self, raw: &RawPool) {
        let limit = match &raw.query_wait_timeout {
            Field::Set(wait, _) => Some(wait.0).filter(|limit| !limit.is_zero()),
            Field::Absent => Pool::default().query_wait_timeout,
            Field::Bad => None,
        };
        if let (Field::Set(notify, span), Some(limit)) = (&raw.query_wait_notify, limit)
            && notify.0 >= limit
            && notify.0 > Duration::ZERO
        {
            let title =
                "`query_wait_notify` is never used: whoever waits so long has had the error of `query_wait_timeout`";
            self.reader.warn(span.clone(), title, "a shorter time than `query_wait_timeout`, or 0");
        }
    }

    fn suspect_pool(&mut self, raw: &RawPool) -> Sizes {
        let sizes = Sizes::of(raw);
        if let Some((_, span)) = raw.min_pool_size.number() {
            self.keeps_too_many(span, &sizes, "default_pool_size");
        }
        sizes
    }

    fn suspect_database(&mut self, raw: &RawDatabase, general: &Sizes) {
        let own = |field: &Field<Number<0, 100_000>>| field.number();
        let size = raw.pool_size.number();
        let sizes = Sizes {
            keep: own(&raw.min_pool_size).map_or(general.keep, |(n, _)| n),
            size: size.as_ref().map_or(general.size, |(n, _)| *n),
            of_database: raw.max_db_connections.number().map_or(general.of_database, |(n, _)| n),
            of_user: general.of_user,
        };
        let place = own(&raw.min_pool_size).or(size).or(raw.max_db_connections.number());
        if let Some((_, span)) = place {
            self.keeps_too_many(span, &sizes, "pool_size");
        }
    }

    fn suspect_user(&mut self, name: &str, raw: &RawUser, general: &Sizes, databases: &Named<RawDatabase>) {
        if let Field::Set(until, span) = &raw.valid_until
            && until.0 <= SystemTime::now()
        {
            let title = format!("user `{name}` cannot log in: `valid_until` is in the past");
            self.reader.warn(span.clone(), title, "a later time, or no such user");
        }
        let own = raw.pool_size.number();
        // Where the user says nothing its database does: only what holds for all of them is certain.
        let of_databases = databases.0.iter().filter_map(|(_, _, raw)| raw.as_ref());
        let largest = of_databases.map(|raw| raw.pool_size.number().map_or(general.size, |(n, _)| n)).max();
        let sizes = Sizes {
            keep: raw.min_pool_size.number().map_or(general.keep, |(n, _)| n),
            size: own.as_ref().map_or(largest.unwrap_or(general.size), |(n, _)| *n),
            of_database: 0,
            of_user: raw.max_user_connections.number().map_or(general.of_user, |(n, _)| n),
        };
        if let Some((_, span)) = raw.min_pool_size.number().or(own).or(raw.max_user_connections.number()) {
            self.keeps_too_many(span, &sizes, "pool_size");
        }
    }

    /// Warns of more servers to be kept than there may be.
    fn keeps_too_many(&mut self, span: Span, sizes: &Sizes, size_key: &str) {
        let limits = [
            (size_key, sizes.size),
            ("max_db_connections", sizes.of_database),
            ("max_user_connections", sizes.of_user),
        ];
        let Some((key, limit)) = limits.into_iter().find(|(_, limit)| (1..sizes.keep).contains(limit)) else { return };
        let title = format!("`min_pool_size` is {}, but `{key}` allows {limit}", sizes.keep);
        self.reader.warn(span, title, "`min_pool_size` no larger than what is allowed: no more are kept");
    }
}

impl Sizes {
    fn of(raw: &RawPool) -> Self {
        let default = Pool::default();
        Self {
            keep: raw.min_pool_size.number().map_or(default.min_pool_size, |(n, _)| n),
            size: raw.default_pool_size.number().map_or(default.default_pool_size, |(n, _)| n),
            of_database: raw.max_db_connections.number().map_or(default.max_db_connections, |(n, _)| n),
            of_user: raw.max_user_connections.number().map_or(default.max_user_connections, |(n, _)| n),
        }
    }
}
