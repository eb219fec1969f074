"""The program every driver runs, with psycopg 3. Connection from libpq's environment variables.

Prints "ok STEP" for each step and stops at the first that fails.
"""

import os
import threading
import time

import psycopg

TABLE = f"psycopg_{os.getpid()}_{time.time_ns() % 1_000_000}"
LARGE = "x" * (20 * 1024 * 1024)


def ok(step):
    print("ok", step, flush=True)


def cancel_sleep(conn, how):
    timer = threading.Timer(1.0, how)
    timer.start()
    started = time.monotonic()
    try:
        conn.execute("SELECT pg_sleep(60)")
        raise AssertionError("not cancelled")
    except psycopg.errors.QueryCanceled:
        conn.rollback()
    assert time.monotonic() - started < 20
    timer.join()


def main():
    conn = psycopg.connect()
    assert conn.pgconn.ssl_in_use, "not encrypted"
    ok("connect")
    conn.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, name text, data bytea)")
    conn.commit()
    ok("create")
    with conn.cursor() as cur:
        # From the sixth execution on psycopg uses a named prepared statement.
        for number in range(20):
            cur.execute(f"INSERT INTO {TABLE} VALUES (%s, %s, %s)", (number, f"name {number}", bytes([number, 0, 255])))
            conn.commit()
        cur.executemany(f"INSERT INTO {TABLE} VALUES (%s, %s)", [(number, None) for number in range(20, 40)])
    conn.commit()
    ok("insert")
    for number in range(20):
        row = conn.execute(f"SELECT name, data FROM {TABLE} WHERE id = %s", (number,)).fetchone()
        assert row == (f"name {number}", bytes([number, 0, 255])), row
        conn.commit()
    assert conn.execute(f"SELECT count(*) FROM {TABLE} WHERE name IS NULL").fetchone() == (20,)
    conn.commit()
    # Everything forgotten by SQL, then prepared by the driver again.
    conn.prepare_threshold = 0
    for forget in ("DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE ALL"):
        for number in range(5):
            assert conn.execute(f"SELECT id FROM {TABLE} WHERE id = %s", (number,)).fetchone() == (number,)
            conn.commit()
        conn.autocommit = True
        conn.execute(forget)
        conn.autocommit = False
    conn.prepare_threshold = 5
    ok("read")
    try:
        conn.execute(f"INSERT INTO {TABLE} VALUES (%s, 'again')", (1,))
        raise AssertionError("no error")
    except psycopg.errors.UniqueViolation:
        conn.rollback()
    ok("error")
    with conn.transaction():
        conn.execute(f"INSERT INTO {TABLE} VALUES (100, 'hundred')")
    assert conn.execute(f"SELECT name FROM {TABLE} WHERE id = 100").fetchone() == ("hundred",)
    conn.rollback()
    ok("transaction")
    try:
        with conn.transaction():
            conn.execute(f"INSERT INTO {TABLE} VALUES (101, 'gone')")
            raise RuntimeError("undo")
    except RuntimeError:
        pass
    assert conn.execute(f"SELECT count(*) FROM {TABLE} WHERE id = 101").fetchone() == (0,)
    conn.rollback()
    with conn.pipeline():
        answers = [conn.execute("SELECT %s::int + 1", (number,)) for number in range(50)]
        assert [answer.fetchone()[0] for answer in answers] == list(range(1, 51))
    conn.rollback()
    ok("rollback")
    with conn.cursor() as cur:
        with cur.copy(f"COPY {TABLE} (id, name) FROM STDIN") as copy:
            for number in range(1000, 3000):
                copy.write_row((number, f"copied {number}"))
        conn.commit()
        with cur.copy(f"COPY (SELECT id, name FROM {TABLE} WHERE id >= 1000 ORDER BY id) TO STDOUT") as copy:
            copy.set_types(["int4", "text"])
            rows = list(copy.rows())
    conn.commit()
    assert rows == [(number, f"copied {number}") for number in range(1000, 3000)]
    ok("copy")
    cancel_sleep(conn, conn.cancel)
    # Over TLS where the bundled libpq can (17 and newer).
    cancel_sleep(conn, conn.cancel_safe)
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.rollback()
    ok("cancel")
    conn.execute(f"INSERT INTO {TABLE} VALUES (5000, %s)", (LARGE,))
    assert conn.execute(f"SELECT name FROM {TABLE} WHERE id = 5000").fetchone() == (LARGE,)
    conn.commit()
    ok("large")
    conn.execute(f"DROP TABLE {TABLE}")
    conn.commit()
    conn.close()


main()
