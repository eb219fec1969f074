//! pgweir: a PostgreSQL proxy that pools connections, sends reads to replicas and measures every query.
//! Must never be used as a library from outside: the program is `src/main.rs`, this is how it is built.
//!
//! This page is the architecture document: what happens to a query, the floors, the invariants, what was measured
//! before deciding, and what is deliberately absent. Where it disagrees with the code, the code is wrong or this is.
//!
//! # What happens to a query, from socket to socket
//!
//! 1. A **gate** ([`gate`]) accepts, negotiates TLS, authenticates ([`auth`]; by the rules and from the sources of
//!    [`config::Auth`], if need be with a question to a server on a connection of its own), and hands the connection to a
//!    **worker** ([`worker`]): one of those on which the pool of that database and user has a slice, the one with the
//!    fewest of its clients. With one worker the gate runs on its thread and the hand-over is a call; with several it has
//!    a thread of its own, and that is the only time a connection changes threads: a transaction never leaves its worker.
//!    What takes a processor long (TLS handshakes, keys from passwords) is done aside, on threads that relay nothing.
//! 2. On the worker everything is in one structure, the [`relay::Relay`]: clients and servers in slabs, pools, the
//!    statistics. Each connection has a task that waits for its socket and then enters the relay for one **turn**.
//!    A turn never waits; what must wait (opening a connection, cancelling) is left as a [`relay::Todo`].
//! 3. A client's turn reads into the worker's one read buffer, so an idle client owns none. The bytes are looked at
//!    message by message without decoding them. A client without a server needs a whole *batch* first: one Query, or
//!    everything up to Sync ([`flow::requests`]).
//! 4. Each statement's text is passed once over by the lexer, which yields its **shape** ([`sql::shape`]); the verdict
//!    of PostgreSQL's own grammar is looked up by shape and computed only for a shape never seen
//!    ([`sql::classify`]). The verdict says where the batch may run and whether it leaves anything in the session; what names in it stand for the
//!    catalog tells ([`sql::footing`]).
//! 5. The slice of the pool ([`pool::slice`]) has a server at rest, best the one that the client had last, or the client joins the end of the queue, its bytes
//!    kept. A slice opens servers for those who wait as far as its budgets allow ([`pool::budget`]).
//! 6. The batch goes to the server in **one write**: as it came, or copied once with statement names replaced, a Parse
//!    put in front of a Bind whose statement this server lacks, and the client's settings in front of that. Every
//!    message entered on the wire enters the reply it owes into the server's ring ([`flow::expect`]).
//! 7. The server's turn reads the replies against the ring ([`flow::replies`]): answers to what pgweir put in are
//!    dropped, answers to what it left out are made up, everything else goes to the owner as it came. At the last
//!    ReadyForQuery owed, with status `I`, the server goes back *first*, so that the oldest waiter's request is on the
//!    wire, and *then* the reply is written to its client.
//! 8. A client that wrote, or was shown something by the primary, has a *floor* from then on: a position in the write-ahead
//!    log that a replica must have replayed to serve it (`relay::floor`); past the point where the newest timeline began
//!    positions of a replica count only once it was seen on that timeline (`pool::line`). One connection per host and process asks what the
//!    host is, its timeline and its position, for all clients at once (`relay::watch`); what it hears is kept in atomics
//!    that all workers read ([`pool::cluster`]), and which pool takes writes follows from it (`relay::roles`).
//!    A batch on a replica is kept until the first byte of its answer leaves, and goes to the primary if the replica cannot
//!    run it (`relay::again`); one that certainly only reads is kept on the primary, too, in case that is lost.
//!    A READ ONLY transaction, and with `reads_in_transactions` any, begins on no server until it does anything but read (`relay::unopened`): what its
//!    reads then answer must not hang on the time or on the transaction ([`sql::timed`]).
//!    With `lanes` a batch that certainly only reads, of a shape that was seen to be fast and small (`relay::learned`), may join
//!    others on a server (`relay::lane`): their requests are written together, PostgreSQL answers them one after the other, each
//!    answer goes to its own client, and whatever goes wrong is a reason to run a request again on a server of its client's own.
//!    With a cache (`[cache]`, [`cache`]) such a batch is answered before a server is asked for, if its answer hangs on nothing that is not in
//!    its key ([`sql::kept`]) and is no older than its client's own last write (`relay::cached`); else its answer is kept as it passes
//!    (`relay::fill`), and who asks the same meanwhile, on whichever worker (`relay::abroad`), waits for it. It is good for a time, or until what it reads is
//!    changed, of which one task per process and database hears by logical replication (`relay::stream`, [`cache::feed`]); or, where writes are
//!    *fenced*, until one begins that passes through any pgweir: each is counted in Redis for all that it may change ([`sql::writes`]) before it goes to
//!    its server, and each hit waits to hear what was counted (`relay::fence`, [`cache::fence`]).
//!    Near its end one client asks anew, while the others are given it; where it is configured they are given it beyond that, as long as it is being
//!    renewed, or no server answers (`relay::given`, `relay::stand_in`).
//!    In any case it is until somebody says that it does not count any more: on the console, over HTTP, or by NOTIFY in the database, which one task
//!    per process and database hears (`relay::hear`, `relay::signalled`, [`cache::signal`], [`cache::pattern`]).
//!    What the process does not have it may find in a cache that several share (`relay::remote`, [`cache::remote`]), with up to where that shows every change: then a lookup
//!    leads those who wait, and of all processes one asks a server.
//! 9. Each finished statement is one record in the statistics of its shape and of who answered it ([`meter`], `relay::counted`): two clock
//!    reads per transaction, plain stores, no lock. A client that does not take its answer is timed apart (`relay::backlogs`). The control thread ([`export`]) reads them at any time.
//! 10. Who asks for the database `pgweir` or `pgbouncer` and is listed in `[console]` goes on to the **console** ([`console`]):
//!     sessions on the control thread, which answer from the statistics and ask workers by message for what only they know.
//!     What a worker notes in passing it is asked for, too: statements that were slow, that ended in a deadlock, or that a client ran for
//!     each row of another's answer (`relay::slow`, `relay::deadlocks`, `relay::repeats`). Where it is asked for, a worker asks servers now
//!     and then how they would run what has just run, on connections of their own (`relay::plans`, [`server::explain`], [`sql::plan`]), and which
//!     index would serve that ([`sql::index`], `relay::indexes`).
//!     Statements that an auditor asks for are noted when they are forwarded, and handed to the task that writes the audit log when their
//!     batch is over (`relay::notes`, `relay::audit`, [`audit`]).
//!     Where statements are traced, whether one is recorded is decided when it is counted: as the parent says that its comments name, or by the number of
//!     a new trace (`relay::spans`). What is recorded is handed over as one piece; a task on the control thread makes spans of it and
//!     sends them to a collector ([`trace`]). The histograms keep a few of each shape as exemplars ([`meter::Exemplars`]).
//!     The HTTP API and the dashboard of the stats port ([`export`]) answer from the same; what is alarming a task there finds out
//!     every few seconds, and tells webhooks, mailboxes and who listens in a database ([`health`]).
//!     `pgweir top` (`app::top`) is another process, which shows the same at a terminal and knows no more than the HTTP API says.
//!
//! A transaction so costs two reads, two writes, no allocation and no wake-up of a task other than those whose sockets
//! spoke.
//!
//! # Floors
//!
//! A module imports from lower floors only; `tests/tidy.rs` enforces it.
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`base`] |
//! | 1 | [`wire`], [`config`] |
//! | 2 | [`flow`], [`auth`], [`meter`], [`sql`]: pure, no I/O, no clock |
//! | 3 | [`net`], [`audit`] |
//! | 4 | [`server`], [`cache`], [`trace`] |
//! | 5 | [`pool`]: pure |
//! | 6 | [`relay`], [`health`] |
//! | 7 | [`gate`], [`worker`], [`export`] |
//! | 8 | [`console`] |
//! | 9 | [`app`] |
//!
//! # Invariants
//!
//! - **I1** A server enters its pool only clean: nothing owed, nothing half read or half written, no COPY, status `I`,
//!   no cancel request under way. One function puts it there (`relay::release`), which closes it otherwise.
//! - **I2** A server is in one place: at rest, lent to one client or to those who ride in its lane, being cleaned, or cooling down after a cancel
//!   request (`relay::server::Use`). Each slice has one count of its open servers; what slices share (the size of a pool
//!   cut over workers, the connections of a database or a user) is taken from a budget before a connection is opened
//!   and given back when it is closed, and is never touched by a transaction. Whoever has less than its part of a budget
//!   is served first; whoever has more gives servers up as they come back.
//! - **I3** A client receives exactly the replies to its own messages, in order. Replies to what pgweir put in never
//!   leave. On a server that clients share, an answer is the oldest rider's until its ReadyForQuery; nothing of it leaves before it
//!   is whole or long, and a client that rides has nothing else under way anywhere.
//! - **I4** Every batch taken ends in its ReadyForQuery, or the connection ends with an error that has a SQLSTATE.
//! - **I5** The queue of a slice is first come, first served; a server never rests while a client of the slice waits,
//!   and not for long while one of another slice does.
//! - **I6** No statement runs under settings that are not its client's. They go ahead of the first request of a lease in
//!   the same write, once a server has accepted that very set; until then they are tried alone. Texts only say *when*
//!   settings may have changed; *what* they are then the server is asked at the end of the lease (`relay::inventory`),
//!   and so are temporary tables, held cursors, session locks and channels: as long as there are any the server stays with
//!   its client, and is reset by DISCARD ALL before another gets it. What code that cannot be seen into may have left
//!   besides is cleared in front of another client's first statement. Whether a function, trigger, view or default can be
//!   seen into is read from the catalog by the way (`relay::catalog`, [`sql::code`]): a statement's effects are those of
//!   its text and of all code it may run, by name, the worst of each. That knowledge may be old by `catalog_refresh`
//!   where code was changed past pgweir, never where it was changed through pgweir.
//! - A client never reads a value that another drew from a sequence: whose values a server has is noted, and they are
//!   discarded before anybody else reads there (`relay::sequences`). Who keeps a server, since when and why is counted,
//!   listed at `/pins` and limited (`relay::pins`).
//! - Who listens (LISTEN) has no server for it: a group has one [`relay`] listener per worker, a connection of its own to
//!   the primary. A client's channels go over to it at the end of the lease, and come back onto a server in front of a
//!   statement about channels, each time at a mark in PostgreSQL's queue of notifications, which both connections read
//!   in the same order (`relay::listen`). It is the one connection whose task is no turn: `relay::listen_task`.
//! - A client never reads from a replica that may lack what it wrote. A prepared statement is shared only between
//!   clients whose settings give its text the same meaning.
//! - Who the servers of a database are may be found out as the program runs (`app::discover`): on the control thread, and it
//!   takes effect as a reload does. What was seen of a server, and the newest timeline, goes over from one cluster of a
//!   database to the next ([`pool::clusters`]); a group that was replaced watches its servers as long as one of them is in use.
//! - A rule of the operator's ([`config::Steering`], [`relay::rules`]) decides for a whole lease, when it begins, and only
//!   between servers that may have it anyway: where reads go, from which workload's pools, how fast, how long. It is held
//!   against a session once per set of settings and against a statement once per shape; `relay::course` applies it.
//! - **I7** A turn does no blocking call, takes no lock but those that the workers' cache needs for as long as a lookup takes (of a shard, of a key that is being kept, of the list of what is
//!   under way), and in steady state allocates nothing. Memory per connection
//!   and direction is bounded by [`relay::BACKLOG_BYTES`] + [`relay::READ_BYTES`] of backlog and
//!   [`relay::LOOK_BYTES`] held back for looking.
//! - An answer is kept only if it is whole, without error, notice or anything else that is no answer, under all that it hangs on: who asks,
//!   where, every setting but those known to matter to none, text, types, parameters, formats, timeline, and how often the schema was changed
//!   through pgweir. Its stamp is from before its execution began. A client is never given one that may be older than its own last write;
//!   other people's writes it may miss for as long as the configuration allows ([`config::Cache`]): for the answer's time, longer where that is said
//!   ([`config::Stale`]), or for `max_staleness`, behind which nothing is given that hangs on changes, as it is not known whether there were any ([`cache::feed`]).
//!   Where writes are fenced it misses none that went through any pgweir: when that cannot be told nothing is given, and no statement that may write goes to its
//!   server before everybody can know of it ([`cache::fence`]).
//! - What comes from the cache that processes share counts only if it was sealed over its key, its age and its bytes with the secret that they share, and is
//!   still looked at as a whole; nothing waits for that longer than its timeout ([`cache::remote`]).
//! - **I8** Bytes received before a TLS handshake are never interpreted after it. Secrets are compared in constant
//!   time. An unknown user is answered as a wrong password is.
//! - **I9** A server whose client is lost is cancelled, rolled back and reset, one step after the other
//!   (`relay::release`), and comes back only if it ends clean and in time.
//! - What a client is told as its process id is its server's where it keeps one from login to goodbye, and no process's
//!   otherwise; a statement that means a client by such a number reaches its server or nobody's (`relay::told`, `relay::pids`).
//! - A cancel request is acted on by the instance and worker that its key names, and passed on to another instance once
//!   at most, however wrong `[peers]` may be ([`wire::pid`]). The client's address is what the system says, or a PROXY
//!   header from a listed network, never what the client says (`gate::proxied`).
//! - What workers tell each other without being asked is that an answer has come that others wait for (`relay::abroad`), and in [`pool::vacate`]: a database that somebody needs to have for
//!   himself, and that a schema has changed, after which a text that is prepared anew shares nothing that is prepared.
//! - What an operator blocks is refused by shape ([`relay::blocked`]): a batch before it waits for a server, and in a lease by a statement that
//!   fails in its place. What he resets is where readers count from; the workers' numbers never go back.
//! - The console decides nothing: what an operator wants of clients and servers a worker does itself, between two turns, when it
//!   gets the message ([`worker::Mail::Do`]). A pause is a pool that lends nothing (`relay::commands`), as one is that has no
//!   primary; long lists are asked for in pages.
//! - A panic in a turn ends the connections it was about and nothing else (`relay::task`).
//!
//! # What was measured before deciding
//!
//! *Runtime.* The same 80-line relay in several forms, 2 cores shared with the load generator, PostgreSQL and other
//! work, ratios to PgBouncer in the same run (tps / CPU per transaction), `SELECT :aid`, pool 20:
//!
//! | form | 40 clients | 500 clients |
//! |---|---|---|
//! | one `LocalRuntime`, client's task drives the server socket | 1.06–1.09 / 0.80–0.83 | 1.39–1.50 / 0.63–0.81 |
//! | two `LocalRuntime`s, pool cut in two | 1.49–2.04 / 0.77–0.82 | 1.87–1.94 / 0.70–0.82 |
//! | multi-thread runtime, 2 workers, one pool behind a mutex | 1.36–1.52 / 0.91–1.04 | 1.63–2.55 / 0.76–0.84 |
//! | one `LocalRuntime`, task per server, no channels (what is built) | 1.04–1.40 / 0.86–0.90 | 1.21–1.53 / 0.66–0.87 |
//!
//! Differences below about 15 % are noise on that machine. A task per server is at most a few per cent dearer than the
//! client's task driving both sockets, and it is what lets several clients share a connection, notices a server's death
//! at rest, and keeps no buffer in a client: so it was chosen. Thread per core was chosen over the multi-thread runtime
//! because its CPU per transaction was never higher and often lower, and because everything on a worker is then free of
//! locks and atomics. Each form made exactly 2 receives and 2 sends per transaction (strace).
//!
//! *Handing a server on before writing the reply* (pool of 4, 64 clients): tps 1.20 against 1.11 times PgBouncer's, CPU
//! the same; a lean, not a proof.
//!
//! *Workers.* One worker against two on the same 2 cores, as ratios to PgBouncer in one run (tps / CPU per transaction):
//! simple 1.06 / 0.98 and 1.09 / 1.06 with 40 clients, 1.07 / 0.88 and 1.09 / 0.95 with 500; extended 0.91 / 1.01 and
//! 1.03 / 1.04, 1.09 / 0.84 and 1.15 / 0.89; prepared 1.19 / 0.80 and 1.27 / 0.82, 1.46 / 0.66 and 1.47 / 0.71. A second
//! worker buys throughput with CPU, so the default is one for two cores.
//!
//! *Where the time goes.* With 40 clients a transaction costs four system calls and about 3 µs outside the kernel, here
//! and in PgBouncer; the kernel's share is waking the other side. A shorter slice asked of the scheduler
//! (`sched_setattr`) changed nothing. A transaction on a connection of its own costs 13 system calls, PgBouncer's 27;
//! while the gate had a thread of its own beside the only worker it was 1.27 times PgBouncer's CPU, now it is 0.96 to 1.05.
//!
//! # Deliberately absent
//!
//! - No decoding of messages on the data path, and no `String`: text that is not UTF-8 passes untouched.
//! - No timer per request: one sweep per 100 ms and worker applies every limit ([`relay::sweep`]); while there are lanes one
//!   look per millisecond at all of them (`relay::lane_watch`).
//! - No lock or map shared between workers on the data path but those of the cache, and no server that travels between workers: a slice that
//!   waits for long has another close a server at rest and opens one itself. A pool has one slice per four servers, at
//!   most one per worker: with few servers one queue for all is worth more than a second core.
//! - No pool for replication: each such connection has a server of its own (`relay::own`).
//! - No health check query on connections that are lent: the idle server's socket tells its death, and the pool looks at
//!   it when lending. Hosts are asked beside the data path.
//! - No retry of a request that may have written, nor of one of whose answer a byte has left.

pub mod app;
pub mod audit;
pub mod auth;
pub mod base;
pub mod cache;
pub mod config;
pub mod console;
pub mod export;
pub mod flow;
pub mod gate;
pub mod health;
pub mod meter;
pub mod net;
pub mod pool;
pub mod relay;
pub mod server;
pub mod sql;
pub mod trace;
pub mod wire;
pub mod worker;
