"""What psycopg 3 does on the console. Connection from libpq's environment variables.

Prints a word for each step and stops at the first that fails.
"""

import psycopg


def main():
    # Not in autocommit mode: it begins a transaction of its own.
    with psycopg.connect() as conn:
        rows = conn.execute("SHOW LISTS").fetchall()
        assert dict(rows)["databases"] == 2, rows
        print("rows", flush=True)
        for binary in (False, True):
            with conn.cursor(binary=binary) as cur:
                cur.execute("SHOW CLIENTS WHERE user = %s AND remote_pid >= %s LIMIT 1", ("root", 0), prepare=True)
                row = cur.fetchone()
                names = [column.name for column in cur.description]
                assert dict(zip(names, row))["state"] == "active", row
                cur.execute("SHOW STATS_TOTALS WHERE database = %s", ("pgbouncer",))
                assert cur.fetchone()[3] > 0
        print("parameters", flush=True)
        try:
            conn.execute("SHOW nothing")
            raise AssertionError("no error")
        except psycopg.errors.SyntaxError:
            conn.rollback()
        print("error", flush=True)
    with psycopg.connect(autocommit=True) as conn:
        assert conn.execute("RECONNECT").statusmessage == "RECONNECT"
    print("command", flush=True)


main()
