//! What the classifier says of a statement: where it may run, why, and what it leaves behind in the server's session.
//! Must never say `Replica` where it does not know.

/// Where a statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// One read that a standby answers as the primary would, as far as grammar and built-in functions tell. What the catalog says of views,
    /// operators, casts and tables may hold it on the primary. Only outside an explicit transaction; inside, the transaction decides.
    Replica,
    /// One read that a standby may answer if the catalog says so of what it names ([`super::code::Code::footing`]); else the primary.
    Catalog,
    /// The primary.
    Primary,
    /// Opens a transaction that only reads. Under READ COMMITTED its reads may go to replicas one by one; else it is for the primary.
    BeginReadOnly,
    /// Belongs to the open transaction and goes where that is (COMMIT, SAVEPOINT, FETCH, SET LOCAL ..); outside of one, the primary.
    FollowTransaction,
}

impl Route {
    /// Its name for the console and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Catalog => "catalog",
            Self::Primary => "primary",
            Self::BeginReadOnly => "begin_read_only",
            Self::FollowTransaction => "transaction",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident $code:literal $text:literal),* $(,)?) => {
        /// Why a statement got its route.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $text] $variant,)*
        }

        impl Reason {
            /// Stable code for metrics, logs and the console.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One line for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    PureRead "pure_read" "a read that calls only immutable and stable built-in functions",
    VolatileRead "volatile_read" "a read that calls volatile built-in functions without effect, such as random() or pg_sleep()",
    SessionSetting "session_setting" "a read that asks for settings of its own session",
    NodeSetting "node_setting" "asks for a setting that may be another on every server",
    Empty "empty" "no statement",
    Unparsable "unparsable" "not understood by PostgreSQL's grammar",
    TooLong "too_long" "too long to parse",
    TooDeep "too_deep" "nested too deeply to parse",
    Encoding "encoding" "bytes outside of strings that are not UTF-8 may be parts of characters",
    ManyStatements "many_statements" "more than one statement",
    Write "write" "changes data",
    Ddl "ddl" "changes the schema",
    Maintenance "maintenance" "maintenance command",
    Locking "locking" "locks rows or tables",
    Into "select_into" "makes a table or changes one",
    DataModifyingCte "data_modifying_cte" "changes data in a WITH clause",
    Function "function_denied" "calls a function that writes, locks, keeps session state, or describes the node it runs on",
    FunctionUnknown "function_unknown" "calls a function that is not known to be safe on a standby",
    CatalogRelation "catalog_relation" "reads a system catalog or node-local view",
    Sequence "sequence" "reads a sequence, which a standby answers ahead of the primary",
    TemporaryRelation "temporary_relation" "reads a temporary schema",
    Operator "operator_unknown" "uses an operator of a named schema",
    UnicodeName "unicode_name" "a name in Unicode escapes",
    ExplainOfWrite "explain_of_write" "EXPLAIN of something that is not a plain read",
    Session "session" "sets or reads session state",
    SessionObject "session_object" "prepared statement, cursor or notification of this session",
    Opaque "opaque" "runs code that is not visible in the statement",
    Copy "copy" "COPY",
    BeginReadWrite "begin_read_write" "opens a transaction that may write",
    BeginSerializable "begin_serializable" "standbys refuse serializable transactions",
    BeginRepeatableRead "begin_repeatable_read" "a statement that follows may be one for the primary, and all of them read one snapshot",
    BeginReadOnly "begin_read_only" "opens a read-only transaction",
    InTransaction "in_transaction" "belongs to the open transaction",
    ReadWriteRequested "read_write_requested" "asks that the transaction may write, be serializable or take a snapshot over",
    TwoPhase "two_phase" "two-phase commit",
    StableRead "stable_read" "reads by way of code that seems only to read",
    UnknownRelation "unknown_relation" "reads a relation that was not there when the catalog was read",
    ForeignTable "foreign_table" "reads a foreign table, or one with such a part",
    UnloggedTable "unlogged_table" "reads an unlogged table, or one with such a part: standbys do not have it",
    ViewLocksRows "view_locks_rows" "a view or function that it uses locks rows",
    VolatileFunction "volatile_function" "runs code that writes, locks, or is declared volatile and cannot be looked into",
    SecurityDefiner "security_definer" "runs code of another role (SECURITY DEFINER)",
    UnseenCode "unseen_code" "runs code that nobody can look into: another language, or SQL put together as it runs",
}

/// What a statement does to the session or the transaction, as a set of bits; a text of several statements has the union.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Effects(u64);

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:literal,)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            /// All effects with their names.
            pub const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)*];
        }
    };
}

effects! {
    /// BEGIN or START TRANSACTION.
    BEGIN = 0,
    /// COMMIT or END.
    COMMIT = 1,
    /// ROLLBACK or ABORT of the whole transaction.
    ROLLBACK = 2,
    /// COMMIT or ROLLBACK with AND CHAIN: the next transaction begins at once.
    CHAIN = 3,
    /// SAVEPOINT.
    SAVEPOINT = 4,
    /// RELEASE SAVEPOINT.
    RELEASE = 5,
    /// ROLLBACK TO SAVEPOINT, which also undoes settings made since.
    ROLLBACK_TO = 6,
    /// SET, SET SESSION, SET SESSION CHARACTERISTICS, SET ROLE, SET SESSION AUTHORIZATION. Name and value: read the text.
    SET_SESSION = 7,
    /// SET LOCAL, SET TRANSACTION, SET CONSTRAINTS, `set_config` whose third argument is the word `true`.
    SET_LOCAL = 8,
    /// RESET.
    RESET = 9,
    /// `set_config` whose third argument is not the word `true`.
    SET_CONFIG = 10,
    /// LISTEN.
    LISTEN = 11,
    /// UNLISTEN.
    UNLISTEN = 12,
    /// PREPARE as a statement.
    PREPARE = 13,
    /// EXECUTE as a statement: has the effects of what was prepared.
    EXECUTE = 14,
    /// DEALLOCATE.
    DEALLOCATE = 15,
    /// DISCARD ALL.
    DISCARD_ALL = 16,
    /// DISCARD PLANS, SEQUENCES, TEMP.
    DISCARD = 17,
    /// Creates a temporary table, view, sequence, function or type.
    TEMP = 18,
    /// With `TEMP`: the table goes with the transaction (ON COMMIT DROP).
    TEMP_ON_COMMIT_DROP = 19,
    /// DECLARE CURSOR WITH HOLD.
    HOLD_CURSOR = 20,
    /// Takes a session-level advisory lock.
    ADVISORY_LOCK = 21,
    /// Gives a session-level advisory lock back.
    ADVISORY_UNLOCK = 22,
    /// LOAD.
    LOAD = 23,
    /// `setseed`.
    SETSEED = 24,
    /// `nextval`, `setval` by name; a serial column's default is not visible here, see [`Verdict::may_draw`].
    SEQUENCE_STATE = 25,
    /// DO, CALL, or a built-in that runs SQL given as text: anything may have happened.
    OPAQUE = 26,
    /// Changes the schema: shared statements and cached catalogs may be stale.
    DDL = 27,
    /// COPY in either direction.
    COPY = 28,
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TWO_PHASE = 29,
    /// Calls a function outside the built-in list: what it does to the session is for the catalog to say.
    UNKNOWN_FUNCTION = 30,
    /// CLOSE of one or all cursors.
    CLOSE_CURSOR = 31,
    /// Drops something, possibly temporary.
    DROP = 32,
    /// `currval`, `lastval` by name: reads what the session drew.
    SEQUENCE_READ = 45,
    /// NOTIFY, `pg_notify`; what triggers and functions send is not visible here.
    NOTIFY = 40,
    /// `pg_listening_channels`.
    LISTENING = 41,
    /// Asks for the own process alone, or names others by number where processes are meant; or is about pgweir's own
    /// settings.
    PIDS = 50,
}

impl Effects {
    /// No effect.
    pub const NONE: Self = Self(0);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is no effect.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl std::ops::BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl std::fmt::Debug for Effects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(Self::NAMES.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| name)).finish()
    }
}

/// Kind of a statement, as far as anything depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the statement of its name")]
pub enum StatementKind {
    Empty,
    /// More than one statement.
    Many,
    /// Not parsed, or a statement newer than the parser.
    Unknown,
    /// SELECT, VALUES, TABLE, also behind WITH.
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Copy,
    Explain,
    Show,
    /// SET in all forms but SET TRANSACTION.
    Set,
    SetTransaction,
    Reset,
    Begin,
    /// COMMIT and END.
    Commit,
    /// ROLLBACK and ABORT.
    Rollback,
    RollbackTo,
    Savepoint,
    Release,
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    Prepare,
    Execute,
    Deallocate,
    Declare,
    /// FETCH and MOVE.
    Fetch,
    Close,
    Listen,
    Unlisten,
    Notify,
    Discard,
    Call,
    Do,
    Lock,
    Load,
    /// CREATE, ALTER, DROP, GRANT and the like; and TRUNCATE, though without [`Effects::DDL`]: it changes rows, not what there is.
    Ddl,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH, CHECKPOINT.
    Maintenance,
}

/// The classifier's word on one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where it may run.
    pub route: Route,
    /// Why.
    pub reason: Reason,
    /// What it leaves behind.
    pub effects: Effects,
    /// What it is.
    pub kind: StatementKind,
}

impl Verdict {
    /// Whether running it may draw from a sequence: by name, by a column's default, or by a trigger.
    #[must_use]
    pub const fn may_draw(&self) -> bool {
        const BY_NAME: Effects = Effects::SEQUENCE_STATE.union(Effects::OPAQUE).union(Effects::UNKNOWN_FUNCTION);
        let hidden =
            matches!(self.reason, Reason::DataModifyingCte | Reason::TooLong | Reason::TooDeep | Reason::Encoding);
        hidden
            || self.effects.any(BY_NAME.union(Effects::EXECUTE))
            || match self.kind {
                StatementKind::Insert | StatementKind::Update | StatementKind::Delete | StatementKind::Merge => true,
                StatementKind::Copy => matches!(self.route, Route::Primary),
                StatementKind::Many => true,
                StatementKind::Explain => matches!(self.reason, Reason::ExplainOfWrite),
                StatementKind::Unknown => matches!(self.route, Route::Primary),
                _ => false,
            }
    }

    /// Whether running it on the primary may change what its client reads afterwards; what only the catalog or a standby
    /// can tell of a read is not considered.
    #[must_use]
    pub const fn may_write(&self) -> bool {
        match self.route {
            Route::Replica | Route::BeginReadOnly | Route::FollowTransaction => false,
            Route::Primary | Route::Catalog => match self.reason {
                Reason::Empty | Reason::BeginReadWrite | Reason::BeginSerializable | Reason::BeginRepeatableRead => {
                    false
                }
                Reason::ReadWriteRequested => false,
                Reason::CatalogRelation | Reason::Sequence | Reason::TemporaryRelation | Reason::NodeSetting => false,
                Reason::Session => !matches!(self.kind, StatementKind::Load),
                Reason::SessionObject => matches!(self.kind, StatementKind::Execute | StatementKind::Declare),
                _ => true,
            },
        }
    }

    /// Whether the verdict holds for every text of the shape. Not so where it hangs on the text: a literal of the wrong kind makes one text unparsable,
    /// a long list too long, and says which setting `current_setting` tells; and remembering that for the shape would misjudge the others, effects included.
    #[must_use]
    pub const fn follows_from_shape(&self) -> bool {
        !matches!(self.reason, Reason::Unparsable | Reason::TooLong | Reason::SessionSetting | Reason::NodeSetting)
    }
}
