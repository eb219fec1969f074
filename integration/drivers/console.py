"""What psycopg 3 does on the console, and what the Prometheus community's exporter asks. Connection from libpq's environment variables.

Prints a word for each step and stops at the first that fails.
"""

import psycopg

# What prometheus-community/pgbouncer_exporter reads: the question and the columns.
EXPORTER = {
    "SHOW STATS": "",
    "SHOW STATS_TOTALS;": "database query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count"
                          " server_parse_count bind_count",
    "SHOW POOLS;": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel"
                   " sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait",
    "SHOW DATABASES;": "name host port database force_user pool_mode pool_size reserve_pool_size max_connections current_connections"
                       " paused disabled",
    "SHOW LISTS;": "list items",
    "SHOW CONFIG;": "key value",
    "SHOW VERSION;": "version",
}


def exporter():
    """By the simple protocol, as libpq's PQexec and lib/pq speak it, on one connection."""
    with psycopg.connect(dbname="pgbouncer", client_encoding="UTF8", autocommit=True) as conn:
        for sql, names in EXPORTER.items():
            done = conn.pgconn.exec_(sql.encode())
            assert done.status == psycopg.pq.ExecStatus.TUPLES_OK, (sql, done.error_message)
            columns = [done.fname(at).decode() for at in range(done.nfields)]
            lacking = set(names.split()) - set(columns)
            assert done.ntuples > 0 and not lacking, (sql, lacking)
            if sql == "SHOW LISTS;":
                assert len(columns) == 2, columns
            if sql == "SHOW CONFIG;":
                config = {done.get_value(row, 0): done.get_value(row, 1) for row in range(done.ntuples)}
                assert float(config[b"max_client_conn"]) > 0 and float(config[b"max_user_connections"]) >= 0
            if sql == "SHOW VERSION;":
                assert done.get_value(0, 0).startswith(b"PgBouncer ")
    print("exporter", flush=True)


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
    exporter()


main()
