//! The words for encryption: with clients, with servers, and what SCRAM has to do with it.
//! Must never hold a file or a key.

use super::words::words;

words! {
    /// Whether clients use TLS.
    pub enum TlsMode {
        /// Refuse TLS; the connection goes on in plain.
        Disable = "disable",
        /// TLS for clients that ask for it.
        Allow = "allow",
        /// Refuse clients that do not use TLS.
        Require = "require",
        /// And who have no certificate signed by `client_tls_ca_file`.
        VerifyCa = "verify-ca",
        /// The same, as in PgBouncer: whose certificate it is, the rules about users say.
        VerifyFull = "verify-full",
    }
    refused {}
}

impl TlsMode {
    /// Whether clients without TLS are refused.
    #[must_use]
    pub fn demands_tls(self) -> bool {
        matches!(self, Self::Require | Self::VerifyCa | Self::VerifyFull)
    }

    /// Whether clients without a certificate are refused.
    #[must_use]
    pub fn demands_certificate(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

words! {
    /// TLS to servers, with the meaning libpq gives these words.
    pub enum SslMode {
        /// Never.
        Disable = "disable",
        /// Only if the server refuses plain connections.
        Allow = "allow",
        /// If the server has it.
        Prefer = "prefer",
        /// Always, whoever the server is.
        Require = "require",
        /// Always, with a certificate signed by a trusted authority.
        VerifyCa = "verify-ca",
        /// As before, and with the server's host name in it.
        VerifyFull = "verify-full",
    }
    refused {}
}

impl SslMode {
    /// Whether the server's certificate is checked.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

words! {
    /// How TLS to servers begins, as libpq's `sslnegotiation`.
    pub enum TlsNegotiation {
        /// By an SSLRequest.
        Postgres = "postgres",
        /// At once, naming the protocol by ALPN: PostgreSQL 17 and later.
        Direct = "direct",
    }
    refused {}
}

words! {
    /// Whether SCRAM with servers is bound to their certificates, as libpq's `channel_binding`.
    pub enum ChannelBinding {
        /// Never.
        Disable = "disable",
        /// Where the server offers it.
        Prefer = "prefer",
        /// Always; a server that does not prove itself so is refused.
        Require = "require",
    }
    refused {}
}
