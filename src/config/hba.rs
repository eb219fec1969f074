//! Host-based authentication: the rules of a `pg_hba.conf`, and which of them a visitor falls under.
//! Must never let anybody in whom no rule names, nor guess at a rule it cannot honour; `hba_parse` refuses those.

use std::net::IpAddr;

use super::words::words;

/// Rules in the order of the file; the first that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hba {
    pub(super) rules: Vec<Rule>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Line of the file, or number of the item in the configuration, counted from 1.
    pub line: usize,
    pub(super) transport: Transport,
    pub(super) databases: Vec<Databases>,
    pub(super) users: Vec<Users>,
    /// `None` for `local`.
    pub(super) network: Option<Network>,
    /// How those who fall under it prove who they are.
    pub method: HbaMethod,
    /// Name of the map from outer names to users.
    pub map: Option<String>,
    /// Whether a certificate is demanded besides.
    pub client_cert: ClientCert,
}

/// Over what one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

/// A word of the second column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Databases {
    All,
    SameUser,
    Replication,
    Named(String),
}

/// A word of the third column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Users {
    All,
    Named(String),
}

/// The fourth column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Any,
    V4 { address: u32, mask: u32 },
    V6 { address: u128, mask: u128 },
}

/// The option `clientcert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCert {
    /// Not demanded.
    #[default]
    No,
    /// One that the CA has signed.
    Ca,
    /// And with the user's name in it, by way of the map if there is one.
    Full,
}

words! {
    /// How those who fall under a rule prove who they are.
    pub enum HbaMethod {
        /// Not at all.
        Trust = "trust",
        /// They do not come in.
        Reject = "reject",
        /// MD5 challenge; SCRAM for users with a SCRAM verifier.
        Md5 = "md5",
        /// The password itself, over TLS or a unix socket.
        Password = "password",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
        /// A client certificate.
        Cert = "cert",
        /// Who they are on this machine.
        Peer = "peer",
    }
    refused {
        "ident" => "a server that tells who its users are",
        "ldap" => "LDAP",
        "pam" => "PAM",
        "radius" => "RADIUS",
        "gss" => "GSSAPI",
        "sspi" => "SSPI",
        "bsd" => "BSD authentication",
        "oauth" => "OAuth",
    }
}

/// Somebody at the door.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Where from; `None` over a unix socket.
    pub address: Option<IpAddr>,
    /// Whether by TLS.
    pub tls: bool,
    /// The database asked for.
    pub database: &'a str,
    /// The user it wants to be.
    pub user: &'a str,
    /// Whether it wants physical replication, which is in no database.
    pub replication: bool,
}

impl Hba {
    /// The rule that decides about a visitor; `None` is a refusal (PostgreSQL `check_hba`).
    #[must_use]
    pub fn rule_for(&self, visitor: &Visitor<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(visitor))
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }
}

impl Rule {
    /// Whether it needs client certificates.
    #[must_use]
    pub fn wants_certificate(&self) -> bool {
        self.method == HbaMethod::Cert || self.client_cert != ClientCert::No
    }

    fn fits(&self, visitor: &Visitor<'_>) -> bool {
        let transport = match self.transport {
            Transport::Local => visitor.address.is_none(),
            Transport::Host => visitor.address.is_some(),
            Transport::HostSsl => visitor.address.is_some() && visitor.tls,
            Transport::HostNoSsl => visitor.address.is_some() && !visitor.tls,
        };
        let network = match (self.network, visitor.address) {
            (None, None) => true,
            (Some(network), Some(address)) => network.contains(address),
            _ => false,
        };
        transport && network && self.fits_database(visitor) && self.fits_user(visitor.user)
    }

    fn fits_database(&self, visitor: &Visitor<'_>) -> bool {
        self.databases.iter().any(|word| match word {
            // Physical replication is in no database, not even in `all`.
            Databases::Replication => visitor.replication,
            _ if visitor.replication => false,
            Databases::All => true,
            Databases::SameUser => visitor.database == visitor.user,
            Databases::Named(name) => name == visitor.database,
        })
    }

    fn fits_user(&self, user: &str) -> bool {
        self.users.iter().any(|word| match word {
            Users::All => true,
            Users::Named(name) => name == user,
        })
    }
}

impl Network {
    /// An address with `bits` of its prefix, or a mask of its own.
    pub(super) fn of(address: IpAddr, mask: Mask) -> Option<Self> {
        Some(match (address, mask) {
            (IpAddr::V4(address), Mask::Bits(bits @ 0..=32)) => {
                Self::V4 { address: address.into(), mask: u32::MAX.checked_shl(32 - bits).unwrap_or(0) }
            }
            (IpAddr::V6(address), Mask::Bits(bits @ 0..=128)) => {
                Self::V6 { address: address.into(), mask: u128::MAX.checked_shl(128 - bits).unwrap_or(0) }
            }
            (IpAddr::V4(address), Mask::Address(IpAddr::V4(mask))) => {
                Self::V4 { address: address.into(), mask: mask.into() }
            }
            (IpAddr::V6(address), Mask::Address(IpAddr::V6(mask))) => {
                Self::V6 { address: address.into(), mask: mask.into() }
            }
            _ => return None,
        })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::Any, _) => true,
            (Self::V4 { address, mask }, IpAddr::V4(other)) => address & mask == u32::from(other) & mask,
            (Self::V6 { address, mask }, IpAddr::V6(other)) => address & mask == u128::from(other) & mask,
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }
}

/// How much of an address counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mask {
    Bits(u32),
    Address(IpAddr),
}
