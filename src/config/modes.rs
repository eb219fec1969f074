//! The choices of a pool: how servers are lent, which first, and what follows a session.
//! Must never be more than words: what they mean is done elsewhere.

use super::words::words;

words! {
    /// When a client gives its server back.
    pub enum PoolMode {
        /// When it leaves.
        Session = "session",
        /// At the end of each transaction.
        Transaction = "transaction",
        /// After each statement; transactions of several are refused.
        Statement = "statement",
    }
    refused {}
}

words! {
    /// Which server at rest is handed out first.
    pub enum ServerOrder {
        /// The one that was used last: few servers stay warm, the others can be closed.
        Lifo = "lifo",
        /// The one that has rested longest: all are used alike.
        Rotate = "rotate",
    }
    refused {}
}

words! {
    /// What becomes of a client that waited for a server longer than `query_wait_timeout`.
    pub enum WaitAction {
        /// Its request fails and it lives on.
        Error = "error",
        /// It is disconnected, as by PgBouncer.
        Close = "close",
    }
    refused {}
}

words! {
    /// What becomes of what a session leaves in its server, outside of session mode.
    pub enum SessionState {
        /// Settings follow the client; what lives in a server keeps the client there.
        Transparent = "transparent",
        /// PgBouncer's rules: only the settings that servers report follow the client, and nothing keeps it anywhere.
        PgBouncer = "pgbouncer",
        /// Settings follow the client; a statement that would keep it on a server is refused.
        Strict = "strict",
    }
    refused {}
}

words! {
    /// How it is known which host of a database takes writes.
    pub enum Roles {
        /// The hosts are asked; a promoted standby takes over.
        Found = "found",
        /// The configuration says so, for good.
        Declared = "declared",
    }
    refused {}
}
