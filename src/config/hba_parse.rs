//! Reads host-based rules in the syntax of PostgreSQL's `pg_hba.conf`.
//! Must never drop a word it does not understand: a rule read wrongly is a door left open.
//!
//! After `parse_hba_line` of PostgreSQL's `src/backend/libpq/hba.c`; what pgweir cannot know (members of roles, names
//! of hosts, interfaces) is refused with what to write instead.

use std::net::IpAddr;

use super::hba::{ClientCert, Databases, Hba, HbaMethod, Mask, Network, Rule, Transport, Users};
use super::tokens::{Flaw, Line, Token, lines};
use super::words::Words;

/// Most names taken from one `@file`.
const FILE_NAMES_MAX: usize = 100_000;

/// Reads the text of a file named by `@`; the error is a reason.
pub(super) type Include<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Reads rules.
pub(super) fn parse(text: &str, include: Include<'_>) -> Result<Hba, Vec<Flaw>> {
    let (mut rules, mut flaws) = (Vec::new(), Vec::new());
    for line in lines(text)? {
        match rule(&line, include) {
            Ok(rule) => rules.push(rule),
            Err(flaw) => flaws.push(flaw),
        }
    }
    if flaws.is_empty() { Ok(Hba { rules }) } else { Err(flaws) }
}

/// The fields of one line, taken one after the other.
struct Fields<'a> {
    line: &'a Line,
    next: usize,
    include: Include<'a>,
}

fn rule(line: &Line, include: Include<'_>) -> Result<Rule, Flaw> {
    let mut fields = Fields { line, next: 0, include };
    let (transport, at) = fields.transport()?;
    let databases = fields.databases()?;
    let users = fields.users()?;
    let network = if transport == Transport::Local { None } else { Some(fields.network()?) };
    let (method, method_at) = fields.method()?;
    let (mut map, mut client_cert) = (None, ClientCert::No);
    while let Some(option) = fields.line.fields.get(fields.next) {
        fields.next += 1;
        let token = single(fields.line, option)?;
        match token.text.split_once('=') {
            Some(("map", name)) if !name.is_empty() => map = Some((name.to_owned(), token)),
            Some(("clientcert", "verify-ca")) => client_cert = ClientCert::Ca,
            Some(("clientcert", "verify-full")) => client_cert = ClientCert::Full,
            _ => {
                let what = "unknown option of a rule";
                return Err(fields.flaw(token, what, "map=NAME, clientcert=verify-ca or clientcert=verify-full"));
            }
        }
    }
    let flaw = |token, what, expected| Err(fields.flaw(token, what, expected));
    match method {
        HbaMethod::Peer if transport != Transport::Local => {
            return flaw(method_at, "only a unix socket tells who its peer is", "`local` in front, or another method");
        }
        HbaMethod::Cert if transport != Transport::HostSsl => {
            return flaw(method_at, "without TLS nobody has a certificate", "`hostssl` in front, or another method");
        }
        HbaMethod::Password if transport == Transport::HostNoSsl => {
            return flaw(
                method_at,
                "a password is never taken in the clear without TLS",
                "\"scram-sha-256\" or `hostssl`",
            );
        }
        _ if client_cert != ClientCert::No && transport != Transport::HostSsl => {
            return flaw(at, "without TLS nobody has a certificate", "`hostssl` in front, or no clientcert");
        }
        _ => {}
    }
    let full = client_cert == ClientCert::Full;
    if let Some((_, token)) = &map
        && !full
        && !matches!(method, HbaMethod::Cert | HbaMethod::Peer)
    {
        return flaw(token, "a map is used with \"cert\", \"peer\" and clientcert=verify-full only", "no map here");
    }
    let map = map.map(|(name, _)| name);
    Ok(Rule { line: line.number, transport, databases, users, network, method, map, client_cert })
}

fn single<'a>(line: &Line, field: &'a [Token]) -> Result<&'a Token, Flaw> {
    match field {
        [token] => Ok(token),
        [first, .., last] => {
            let span = first.span.start..last.span.end;
            Err(Flaw::new(line.number, span, "a list where one word belongs", "one word"))
        }
        [] => Err(Flaw::new(line.number, line.span.clone(), "an empty field", "one word")),
    }
}

impl<'a> Fields<'a> {
    fn flaw(&self, token: &Token, what: impl Into<String>, expected: impl Into<String>) -> Flaw {
        Flaw::new(self.line.number, token.span.clone(), what, expected)
    }

    fn list(&mut self, what: &str) -> Result<&'a [Token], Flaw> {
        let line = self.line;
        let field = line.fields.get(self.next).ok_or_else(|| {
            let title = format!("the rule ends before {what}");
            Flaw::new(line.number, line.span.clone(), title, "TYPE DATABASE USER [ADDRESS] METHOD [OPTIONS]")
        })?;
        self.next += 1;
        Ok(field)
    }

    fn one(&mut self, what: &str) -> Result<&'a Token, Flaw> {
        let line = self.line;
        single(line, self.list(what)?)
    }

    fn transport(&mut self) -> Result<(Transport, &'a Token), Flaw> {
        let token = self.one("its type")?;
        let transport = match token.text.as_str() {
            "local" => Transport::Local,
            "host" => Transport::Host,
            "hostssl" => Transport::HostSsl,
            "hostnossl" => Transport::HostNoSsl,
            // No connection is ever encrypted so: the rules are without effect, and no harm.
            "hostgssenc" => return Err(self.flaw(token, "pgweir has no GSSAPI encryption", "no such rule")),
            "hostnogssenc" => return Err(self.flaw(token, "pgweir has no GSSAPI encryption", "`host`")),
            "include" | "include_if_exists" | "include_dir" => {
                return Err(self.flaw(token, "files are not included", "the rules themselves"));
            }
            _ => return Err(self.flaw(token, "unknown type of rule", "local, host, hostssl or hostnossl")),
        };
        Ok((transport, token))
    }

    /// The words of a list, those of its `@files` in their place.
    fn words(&self, list: &[Token]) -> Result<Vec<Token>, Flaw> {
        let mut words = Vec::new();
        for token in list {
            if !token.begins('@') || token.text.len() == 1 {
                words.push(token.clone());
                continue;
            }
            let name = token.text.trim_start_matches('@');
            let text = (self.include)(name)
                .map_err(|why| self.flaw(token, format!("cannot read the list {name}: {why}"), "a readable file"))?;
            let inside = lines(&text)
                .map_err(|_| self.flaw(token, format!("the list {name} cannot be read"), "names, quoted if need be"))?;
            for mut word in inside.into_iter().flat_map(|line| line.fields).flatten().take(FILE_NAMES_MAX) {
                if word.begins('@') {
                    return Err(self.flaw(token, format!("the list {name} names another list"), "names only"));
                }
                word.span = token.span.clone();
                words.push(word);
            }
        }
        Ok(words)
    }

    /// Notes what only a PostgreSQL server could look up.
    fn known(&self, token: &Token) -> Result<(), Flaw> {
        let (what, expected) = if token.begins('/') {
            ("regular expressions are not supported", "the names themselves, or @file with a list of them")
        } else if token.begins('+') || token.is("samerole") || token.is("samegroup") {
            ("pgweir does not know who is member of which role", "the names of the users, or @file with a list of them")
        } else {
            return Ok(());
        };
        Err(self.flaw(token, what, expected))
    }

    fn databases(&mut self) -> Result<Vec<Databases>, Flaw> {
        let list = self.list("its databases")?;
        let mut databases = Vec::new();
        for token in self.words(list)? {
            self.known(&token)?;
            databases.push(match token {
                token if token.is("all") => Databases::All,
                token if token.is("sameuser") => Databases::SameUser,
                token if token.is("replication") => Databases::Replication,
                token => Databases::Named(token.text),
            });
        }
        Ok(databases)
    }

    fn users(&mut self) -> Result<Vec<Users>, Flaw> {
        let list = self.list("its users")?;
        let mut users = Vec::new();
        for token in self.words(list)? {
            self.known(&token)?;
            users.push(if token.is("all") { Users::All } else { Users::Named(token.text) });
        }
        Ok(users)
    }

    fn network(&mut self) -> Result<Network, Flaw> {
        const EXPECTED: &str = "an address such as 10.0.0.0/8 or ::1/128, or `all`";
        let token = self.one("its address")?;
        if token.is("all") {
            return Ok(Network::Any);
        }
        if token.is("samehost") || token.is("samenet") {
            return Err(self.flaw(token, "pgweir does not look at the addresses of this machine", EXPECTED));
        }
        let (address, bits) = match token.text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (token.text.as_str(), None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(self.flaw(token, "not an address; names of hosts are not looked up", EXPECTED));
        };
        let mask = match bits {
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().map(Mask::Bits)
            }
            Some(_) => None,
            None => self.one("its mask")?.text.parse().ok().map(Mask::Address),
        };
        let network = mask.and_then(|mask| Network::of(address, mask));
        network.ok_or_else(|| self.flaw(token, "no valid mask for this address", EXPECTED))
    }

    fn method(&mut self) -> Result<(HbaMethod, &'a Token), Flaw> {
        let token = self.one("its method")?;
        if let Some((_, method)) = HbaMethod::WORDS.iter().find(|(word, _)| *word == token.text) {
            return Ok((*method, token));
        }
        let expected = HbaMethod::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let what = match HbaMethod::REFUSED.iter().find(|(word, _)| *word == token.text) {
            Some((word, feature)) => {
                format!("`{word}` is not supported: {feature} is not part of this version of pgweir")
            }
            None => "unknown authentication method".to_owned(),
        };
        Err(self.flaw(token, what, format!("one of {expected}")))
    }
}
