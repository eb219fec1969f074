"""A queue of jobs: workers sleep in LISTEN and take jobs by SKIP LOCKED. Connections from libpq's environment variables.

Prints "ok STEP" for each step, and what it saw: that must be the same on direct connections. Stops at the first step that fails.
"""

import os
import socket
import threading

import psycopg

WORKERS = 3
JOBS = 150
FAILED = []


def ok(step, *saw):
    print("ok", step, flush=True)
    for each in saw:
        print("  saw", each, flush=True)


def create(conn):
    conn.execute("CREATE TABLE job (id int PRIMARY KEY, done_by int, tries int DEFAULT 0)")
    conn.execute("""CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_notify('jobs', NEW.id::text); RETURN NULL; END $$""")
    conn.execute("CREATE TRIGGER tell AFTER INSERT ON job FOR EACH ROW EXECUTE FUNCTION tell()")
    ok("create")


def take(conn, number):
    """One job in one transaction; None when there is none."""
    with conn.transaction():
        row = conn.execute("SELECT id FROM job WHERE done_by IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1").fetchone()
        if row is not None:
            conn.execute("UPDATE job SET done_by = %s, tries = tries + 1 WHERE id = %s", (number, row[0]))
        return row


class Worker(threading.Thread):
    def __init__(self, number):
        super().__init__(name=f"worker {number}", daemon=True)
        self.number = number
        self.heard = []
        self.listens = threading.Event()

    def run(self):
        try:
            with psycopg.connect(autocommit=True) as ear, psycopg.connect(autocommit=True) as hand:
                ear.execute("LISTEN jobs")
                self.listens.set()
                while not self.heard or self.heard[-1] != "stop":
                    # What was there before is done without a word.
                    while take(hand, self.number):
                        pass
                    # Those that came together.
                    told = [each.payload for each in ear.notifies(timeout=60, stop_after=1)]
                    assert told, "no notification within a minute"
                    self.heard += told
                ear.execute("UNLISTEN jobs")
        except BaseException as error:
            FAILED.append(f"{self.name}: {error!r}")
            self.listens.set()


def crash(conn):
    """A worker that dies in the middle of a job leaves it to others."""
    dying = psycopg.connect()
    row = dying.execute("SELECT id FROM job WHERE id = 0 FOR UPDATE SKIP LOCKED").fetchone()
    dying.execute("UPDATE job SET done_by = -1 WHERE id = 0")
    skipped = conn.execute("SELECT id FROM job WHERE id = 0 FOR UPDATE SKIP LOCKED").fetchone()
    # Without a word: no Terminate, no ROLLBACK.
    socket.socket(fileno=os.dup(dying.pgconn.socket)).shutdown(socket.SHUT_RDWR)
    # Waits for the lock.
    again = conn.execute("SELECT id, done_by FROM job WHERE id = 0 FOR UPDATE").fetchone()
    ok("crash", row, skipped, again)


def transactional():
    """Notifications of a transaction come with its COMMIT, once each, in order; those of one rolled back never."""
    with psycopg.connect(autocommit=True) as ear, psycopg.connect() as mouth:
        ear.execute("LISTEN one")
        ear.execute("LISTEN two")
        mouth.execute("NOTIFY one, 'lost'")
        mouth.rollback()
        for word in ["a", "b", "a", "c"]:
            mouth.execute("SELECT pg_notify('one', %s)", (word,))
        mouth.execute("NOTIFY two, 'd'")
        mouth.commit()
        heard = [(told.channel, told.payload) for told in ear.notifies(timeout=60, stop_after=4)]
        ear.execute("UNLISTEN one")
        mouth.execute("NOTIFY one, 'nobody'")
        mouth.execute("NOTIFY two, 'last'")
        mouth.commit()
        heard += [(told.channel, told.payload) for told in ear.notifies(timeout=60, stop_after=1)]
        # Its own too.
        ear.execute("NOTIFY two, 'self'")
        heard += [(told.channel, told.payload) for told in ear.notifies(timeout=60, stop_after=1)]
    ok("transactional", *heard)


def main():
    conn = psycopg.connect(autocommit=True)
    create(conn)
    conn.execute("INSERT INTO job VALUES (0)")
    crash(conn)
    transactional()
    workers = [Worker(number) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.listens.wait(60)
    ok("listen", len(workers))
    with psycopg.connect() as producer:
        for first in range(1, JOBS, 10):
            with producer.transaction():
                for job in range(first, min(first + 10, JOBS)):
                    producer.execute("INSERT INTO job VALUES (%s)", (job,))
        with producer.transaction():
            producer.execute("NOTIFY jobs, 'stop'")
    for worker in workers:
        worker.join(120)
        assert not worker.is_alive(), f"{worker.name} does not end"
    assert not FAILED, FAILED
    told = [str(job) for job in range(1, JOBS)] + ["stop"]
    for worker in workers:
        assert worker.heard == told, f"{worker.name} heard {worker.heard}"
    ok("told", len(told))
    rows = conn.execute("SELECT done_by IS NOT NULL, tries, count(*) FROM job GROUP BY 1, 2").fetchall()
    ok("done", rows)
    conn.execute("DROP TABLE job; DROP FUNCTION tell()")
    ok("drop")


main()
