"""Runs PostgreSQL's own test suites directly and through poolers, and compares the results test by test.

Started by integration/regress, which fetches and builds the suites. Each run has a new PostgreSQL cluster of its own. `direct` always
runs, the others are compared with it: a test is the same if it ends the same way and differs from what the suite expects in exactly the
same lines. Nothing is normalised. Prints a table of counts and the names of the tests that differ; keeps what each run wrote.
Exit status: 0 if exactly those tests differ through pgweir that are known to (KNOWN in integration/suites.py), 1 otherwise.

    integration/regress                                  direct, session and transaction mode
    integration/regress --mode transaction --third       what CI runs
    integration/regress --mode transaction --tests guc temp prepare
    integration/regress --isolation --mode session --mode transaction

It must never leave a process behind, nor touch a server that it has not started.
"""
import argparse
import atexit
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from schedules import Schedule, quick, third

SUPERUSER = "postgres"
MODES = ["direct", "session", "transaction", "pgbouncer"]
GUC = ("plpgsql, once loaded for any client, stays loaded in its server; the test assumes that it is not",
       {"+ERROR:  invalid configuration parameter name \"plpgsql.extra_foo_warnings\"", "+DETAIL:  \"plpgsql\" is a reserved prefix.",
        "-WARNING:  invalid configuration parameter name \"plpgsql.extra_foo_warnings\", removing it",
        "-DETAIL:  \"plpgsql\" is now a reserved prefix."})
TEMP = ("a server's temporary schema, once made for any client, stays; the test assumes that a session's first transaction makes it",
        {"-ERROR:  cannot PREPARE a transaction that has operated on temporary objects"})
# Whether the one connection that listens for all is there already when the test looks hangs on how busy the machine is.
TIMED = {"async-notify"}
# Tests that cannot give the same through a pooler that uses a server for more than one client, by mode: why, and the lines that differ,
# all of them. With any other line the test counts as different, and so it does when it no longer differs: this list has to be true.
# None: any lines or none, as that hangs on which servers the test met, and it may hang. Those of TIMED differ in these lines or in none.
KNOWN = {
    "session": {
        "guc": GUC,
        "temp": TEMP,
        "stats": ("pg_stat_database counts sessions of servers; a client that connects again does not begin one", {"- t", "+ f"}),
    },
    "transaction": {
        "guc": GUC,
        "temp": TEMP,
        "stats": ("pg_stat_force_next_flush() makes the server it runs on report what it counted, not those that the test was on before", None),
        "triggers": ("functions in C keep plans and a switch in variables of their process (check_primary_key, set_ttdummy)", None),
        "constraints": ("currval() behind nextval() on another server", None),
        "sequence": ("currval() and lastval() behind nextval() on another server", None),
    },
}
STORED = ("pg_cancel_backend(pid) FROM a table, where pg_backend_pid() was stored beside other things: that is a server's, which the "
          "session does not have any more", None)
# The same of src/test/isolation. Session mode: nothing.
KNOWN_ISOLATION = {
    "transaction": {
        "detach-partition-concurrently-3": STORED,
        "detach-partition-concurrently-4": STORED,
        "async-notify": ("the queue of notifications is empty sooner, as one connection reads it for all, also while the client is in "
                         "a transaction", {"-t      ", "+f      "}),
        "stats": ("pg_stat_force_next_flush() makes the server it runs on report what it counted, not those that the test was on before", None),
    },
}


def options():
    parse = argparse.ArgumentParser(prog="integration/regress", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--mode", action="append", choices=MODES, metavar="MODE", help=f"one of {', '.join(MODES)}; may be repeated")
    parse.add_argument("--isolation", action="store_true", help="src/test/isolation in place of src/test/regress")
    parse.add_argument("--tests", nargs="+", metavar="NAME", help="only these, and those they depend on")
    parse.add_argument("--third", action="store_true", help="only a third: the tests with the most kinds of session state; of "
                       "--isolation some that take ten seconds")
    parse.add_argument("--serial", action="store_true", help="one test at a time")
    parse.add_argument("--servers", type=int, help="servers for each database in transaction mode; default: 5, of --isolation 10 "
                       "(a test has up to 9 sessions), of --mode pgbouncer with --serial 1")
    parse.add_argument("--timeout", type=int, default=300, help="seconds after which a test counts as hung and is ended")
    parse.add_argument("--limit", type=int, default=3600, help="seconds after which a whole run is ended")
    parse.add_argument("--pooler-config", default="", metavar="TEXT", help="lines added to [pool] of pgweir")
    parse.add_argument("--source", type=Path, required=True, help=argparse.SUPPRESS)
    parse.add_argument("--kept", type=Path, required=True, help=argparse.SUPPRESS)
    return parse.parse_args()


def fail(text):
    sys.exit(f"integration/regress: {text}")


def say(text):
    print(f"==> {time.monotonic() - STARTED:4.0f}s  {text}", file=sys.stderr, flush=True)


def vacant_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stage:
    """A directory, and everything started in it, as `postgres` when started by root: PostgreSQL refuses to run as root, and reads and
    writes files of the tests."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="pgweir-regress-"))
        self.path.chmod(0o755)
        self.processes = []
        self.account = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("postgres")
            self.account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.path, entry.pw_uid, entry.pw_gid)
        atexit.register(self.clear)

    def give(self, path):
        if self.account:
            for each in [path, *path.rglob("*")]:
                os.chown(each, self.account["user"], self.account["group"])
        return path

    def directory(self, name):
        path = self.path / name
        path.mkdir()
        return self.give(path)

    def bring(self, source, name=None):
        """A copy: the account may not be able to enter where it was built."""
        path = self.path / (name or source.name)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path)
        return self.give(path)

    def start(self, command, log, **extra):
        with open(log, "ab") as output:
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       start_new_session=True, **self.account, **extra)
        self.processes.append(process)
        return process

    def stop(self, process, how=signal.SIGINT, patience=20):
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        # What it started may be alive still.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        self.processes = [each for each in self.processes if each is not process]

    def clear(self):
        for process in reversed(self.processes):
            self.stop(process, patience=5)
        shutil.rmtree(self.path, ignore_errors=True)


def answers(port, process, log, programs, database="postgres"):
    deadline = time.monotonic() + 60
    ask = [programs / "psql", "-X", "-h", "127.0.0.1", "-p", str(port), "-U", SUPERUSER, "-d", database, "-c", "SELECT 1"]
    while subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode:
        if time.monotonic() > deadline or process.poll() is not None:
            fail(f"{process.args[0]} does not serve:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def start_postgres(stage, home, programs):
    """As `make check` sets up its own cluster, pg_regress.c: temp_instance."""
    port, data, log = vacant_port(), home / "data", home / "postgres.log"
    command = [programs / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, **stage.account)
    if done.returncode:
        fail(f"initdb failed:\n{done.stderr}")
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 100, "fsync": "off",
                "max_prepared_transactions": 2, "log_line_prefix": "%m %b[%p] %q%a ", "log_lock_waits": "on"}
    with open(data / "postgresql.conf", "a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    process = stage.start([programs / "postgres", "-D", data], log, cwd=home)
    answers(port, process, log, programs)
    return port, process


def start_pgweir(stage, home, programs, server, mode, opts):
    port, log = vacant_port(), home / "pgweir.log"
    file = home / "pgweir.toml"
    # In session mode each client needs a server; a test that reconnects has two for a moment.
    servers = opts.servers or (10 if opts.isolation else 5) if mode == "transaction" else 60
    # A session of isolation's may be told only by their numbers who has notified: that takes the connection which listens for all.
    connections = servers + int(opts.isolation)
    file.write_text(f"""[listen]
port = {port}
auth_type = "trust"
[stats]
address = "off"
[pool]
pool_mode = "{mode}"
server_order = "rotate"
default_pool_size = {servers}
max_db_connections = {connections}
# Clients of a test that is too slow wait: it counts as hung in the end. A notice would be a difference.
query_wait_timeout = 0
query_wait_notify = 0
{opts.pooler_config}
[users.{SUPERUSER}]
""" + "".join(f'[databases.{name}]\nprimary = "127.0.0.1:{server}"\nserver_tls_sslmode = "disable"\n'
              for name in ["postgres", "template1", "regression", "isolation_regression"]))
    process = stage.start([stage.path / "pgweir", "run", "--config", stage.give(file)], log, cwd=home)
    answers(port, process, log, programs)
    return port, process


def start_pgbouncer(stage, home, programs, server, opts):
    port, log = vacant_port(), home / "pgbouncer.log"
    users, file = home / "users.txt", home / "pgbouncer.ini"
    users.write_text(f'"{SUPERUSER}" ""\n')
    # Older versions ignore `options`, with which pg_regress sets intervalstyle; servers get that here, so that it does not count.
    file.write_text(f"""[databases]
* = host=127.0.0.1 port={server} connect_query='SET intervalstyle TO postgres_verbose'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {opts.servers or (10 if opts.isolation else 1 if opts.serial else 5)}
server_round_robin = 1
max_client_conn = 200
max_prepared_statements = 200
query_wait_timeout = 0
ignore_startup_parameters = options,extra_float_digits
""")
    stage.give(file)
    stage.give(users)
    peers = os.environ.get("PEERS", "/var/tmp/pg-peers/bin")
    path = shutil.which("pgbouncer", path=peers) or shutil.which("pgbouncer") or fail("no pgbouncer: set PEERS")
    process = stage.start([path, file], log, cwd=home)
    answers(port, process, log, programs)
    return port, process


@dataclass
class Outcome:
    """How the tests of a run ended: name to "passed", "failed", "hung" or "not run"; the lines in which each differs; and where pgweir
    panicked."""
    ends: dict
    diffs: dict
    note: str = ""
    panics: tuple = ()


# pg_regress 15: `test NAME ... ok  12 ms`, `     NAME ... FAILED (test process exited with exit code 2)  12 ms`;
# from 16 on TAP: `ok 1 - NAME 12 ms`, `not ok 2 + NAME 12 ms`, and beside it `# (test process exited with exit code 2)`.
OLD = re.compile(r"^(?:test|    ) +?(\S+) +\.\.\. (ok|FAILED|failed \(ignored\))(.*)$")
NEW = re.compile(r"^(ok|not ok) \d+ +[-+] (\S+)(.*)$")
# How timeout(1) says that the time was up.
TIMED_OUT = re.compile(r"exit code (124|137)|signal 9")


def read_outcome(schedule, log, diffs):
    ends = dict.fromkeys(schedule.names(), "not run")
    last = None
    for line in log.read_text(errors="replace").splitlines():
        if match := OLD.match(line):
            name, word, rest = match[1], match[2], match[3]
        elif match := NEW.match(line):
            name, word, rest = match[2], match[1], match[3]
        else:
            if last and line.startswith("#") and TIMED_OUT.search(line) and ends[last] == "failed":
                ends[last] = "hung"
            continue
        if name in ends:
            last = name
            ends[name] = "passed" if word == "ok" else "hung" if TIMED_OUT.search(rest) else "failed"
    parts = {}
    if diffs.exists():
        for part in re.split(r"^(?=diff -)", diffs.read_text(errors="replace"), flags=re.M):
            # Names of directories and times of files stand in the lines before the first hunk.
            if match := re.match(r"diff .*/results/(\S+)\.out\n(?:---.*\n\+\+\+.*\n)?", part):
                parts[match[1]] = part[match.end():]
    return Outcome(ends, parts)


def panics(log):
    """Where pgweir panicked and what it said, whether or not a test has noticed."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [" ".join(lines[at:at + 2]) for at, line in enumerate(lines) if " panicked at " in line]


def launcher(stage, opts, home, programs, server):
    """What starts each test: it ends one that is too slow. The tests of isolation all use the same names: when one has not cleared what
    it made, that is done here, or those after it would fail too."""
    file = home / "launcher"
    clear = (f"{programs}/psql -X -q -h 127.0.0.1 -p {server} -U {SUPERUSER} -d isolation_regression -c 'SET lock_timeout = 5000; "
             "SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO public' "
             ">/dev/null 2>&1 </dev/null")
    file.write_text(f"""#!/bin/sh
timeout --foreground -k 5 {opts.timeout} "$@"
status=$?
{f"[ $status = 0 ] || {clear}" if opts.isolation else ""}
exit $status
""")
    file.chmod(0o755)
    return stage.give(file)


def run(stage, opts, mode, schedule, suite):
    """One run of the suite. What it wrote is kept in a directory of the mode's name."""
    name = f"{'isolation' if opts.isolation else 'regress'}-{mode}"
    say(f"{name}: {len(schedule.names())} tests")
    home, programs = stage.directory(name), Path(os.environ["PG_BIN"])
    server, postgres = start_postgres(stage, home, programs)
    port, pooler = server, None
    if mode == "pgbouncer":
        port, pooler = start_pgbouncer(stage, home, programs, server, opts)
    elif mode != "direct":
        port, pooler = start_pgweir(stage, home, programs, server, mode, opts)
    plan = home / "schedule"
    plan.write_text(schedule.text())
    limits = ["--max-connections=1"] if opts.serial else []
    command = [suite / ("pg_isolation_regress" if opts.isolation else "pg_regress"), f"--bindir={programs}", f"--inputdir={suite}",
               f"--outputdir={home}", f"--dlpath={suite}", f"--schedule={stage.give(plan)}", "--host=127.0.0.1", f"--port={port}",
               f"--user={SUPERUSER}", f"--launcher={launcher(stage, opts, home, programs, server)}", "--max-concurrent-tests=20", *limits]
    # pg_regress itself takes away most of what could change results.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    log, began, note = home / "output", time.monotonic(), ""
    tests = stage.start(command, log, cwd=home, env=clean)
    while tests.poll() is None:
        if pooler and pooler.poll() is not None and not note:
            note = f"the pooler ended by itself, status {pooler.returncode}"
        if time.monotonic() > began + opts.limit:
            note = note or f"ended after {opts.limit} s"
            stage.stop(tests, patience=1)
            break
        time.sleep(0.2)
    seconds = time.monotonic() - began
    outcome = read_outcome(schedule, log, home / "regression.diffs")
    outcome.note, outcome.panics = note, panics(home / "pgweir.log")
    for process in [tests, pooler, postgres]:
        if process:
            stage.stop(process, patience=3 if process is pooler else 20)
    kept = opts.kept / name
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for each in ["regression.diffs", "output", "results", "schedule", "postgres.log", "pgweir.log", "pgweir.toml", "pgbouncer.log"]:
        if (home / each).is_dir():
            shutil.copytree(home / each, kept / each)
        elif (home / each).exists():
            shutil.copy(home / each, kept / each)
    (kept / "outcome.json").write_text(json.dumps(outcome.__dict__, indent=1))
    shutil.rmtree(home)
    if all(end == "not run" for end in outcome.ends.values()):
        fail(f"{name}: no test ran:\n{(kept / 'output').read_text(errors='replace')[-2000:]}")
    say(f"{name}: {seconds:.0f} s, kept in {kept}" + (f"; {note}" if note else ""))
    return outcome


def changed(diff):
    return [line for line in diff.splitlines() if line.startswith(("+", "-"))]


def reasons_for(opts, mode):
    return (KNOWN_ISOLATION if opts.isolation else KNOWN).get(mode, {})


def compare(reasons, outcome, direct):
    """The tests that ended otherwise than directly, without those of KNOWN; those of KNOWN; and those of KNOWN that did not differ."""
    different, known, true = [], [], []
    for name in direct.ends:
        diff = outcome.diffs.get(name, "")
        if (outcome.ends[name], diff) != (direct.ends[name], direct.diffs.get(name, "")):
            expected = reasons[name][1] if name in reasons else set()
            ends = ("failed",) if expected is not None else ("failed", "hung")
            excused = name in reasons and outcome.ends[name] in ends and (expected is None or set(changed(diff)) == expected)
            (known if excused else different).append(name)
        elif name in reasons and reasons[name][1] is not None and name not in TIMED:
            true.append(name)
    return different, known, true


def report(opts, outcomes):
    """Prints what came out; true if anything is not as it should be through pgweir."""
    direct, wrong = outcomes["direct"], False
    print("\n| mode | passed | failed | hung | not run | different from direct | of these known |\n|---|---|---|---|---|---|---|")
    for mode, outcome in outcomes.items():
        counts = Counter(outcome.ends.values())
        different, known, _ = compare(reasons_for(opts, mode), outcome, direct)
        versus = ["-", "-"] if mode == "direct" else [len(different) + len(known), len(known)]
        cells = [mode, *(counts[end] for end in ("passed", "failed", "hung", "not run")), *versus]
        print(f"| {' | '.join(map(str, cells))} |")
    for mode, outcome in outcomes.items():
        different, known, true = compare(reasons_for(opts, mode), outcome, direct)
        if mode == "direct":
            different = [name for name, end in outcome.ends.items() if end != "passed"]
        wrong |= bool(different or true) and mode in ("session", "transaction")
        if different or known or true or outcome.note:
            note = f" ({outcome.note})" if outcome.note else ""
            print(f"\n{mode}, {'not passed' if mode == 'direct' else 'different from direct'}{note}:")
        for name in different:
            diff = outcome.diffs.get(name, "")
            print(f"  {name}: {outcome.ends[name]}{f', {len(changed(diff))} lines of diff' if diff else ''}")
            # All that a machine without what was kept has to go by.
            print("".join(f"    {line}\n" for line in diff.splitlines()[:30]), end="")
        for name in known:
            print(f"  {name}: known: {reasons_for(opts, mode)[name][0]}")
        for name in true:
            print(f"  {name}: does not differ: take it off the list of those known to (KNOWN in integration/suites.py)")
        for panic in outcome.panics:
            wrong = True
            print(f"\n{mode}, pgweir's own: {panic}")
    return wrong


def main():
    opts = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    # No variable of libpq's may steer what is started here.
    os.environ["PGSSLMODE"] = "disable"
    stage = Stage()
    tests = opts.source / "src/test"
    suite = stage.bring(tests / ("isolation" if opts.isolation else "regress"), "suite")
    stage.bring(Path(os.environ["PGWEIR_BIN"]), "pgweir").chmod(0o755)
    schedule = Schedule.read(suite / ("isolation_schedule" if opts.isolation else "parallel_schedule"))
    if opts.isolation:
        # Not in the schedule because they need max_prepared_transactions, which is set here.
        more = ("prepared-transactions", "prepared-transactions-cic")
        schedule.groups += [[name] for name in more if (suite / f"specs/{name}.spec").exists()]
    if opts.tests:
        schedule = schedule.only(schedule.with_needed(opts.tests))
    elif opts.third:
        schedule = schedule.only(quick(schedule) if opts.isolation else third(schedule, suite))
    modes = ["direct", *[mode for mode in dict.fromkeys(opts.mode or MODES[:3]) if mode != "direct"]]
    outcomes = {mode: run(stage, opts, mode, schedule, suite) for mode in modes}
    sys.exit(1 if report(opts, outcomes) else 0)


STARTED = time.monotonic()
if __name__ == "__main__":
    main()
