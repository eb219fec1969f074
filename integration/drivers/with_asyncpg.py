"""The program every driver runs, with asyncpg. Connection from libpq's environment variables.

Prints "ok STEP" for each step and stops at the first that fails.
"""

import asyncio
import io
import os
import ssl
import time

import asyncpg

TABLE = f"asyncpg_{os.getpid()}_{time.time_ns() % 1_000_000}"
LARGE = "x" * (20 * 1024 * 1024)


def ok(step):
    print("ok", step, flush=True)


async def main():
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    conn = await asyncpg.connect(ssl=context)
    ok("connect")
    await conn.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, name text, data bytea)")
    ok("create")
    # asyncpg prepares every statement under a name and keeps it.
    for number in range(20):
        await conn.execute(f"INSERT INTO {TABLE} VALUES ($1, $2, $3)", number, f"name {number}", bytes([number, 0, 255]))
    await conn.executemany(f"INSERT INTO {TABLE} VALUES ($1, $2)", [(number, None) for number in range(20, 40)])
    ok("insert")
    for number in range(20):
        row = await conn.fetchrow(f"SELECT name, data FROM {TABLE} WHERE id = $1", number)
        assert tuple(row) == (f"name {number}", bytes([number, 0, 255])), row
    assert await conn.fetchval(f"SELECT count(*) FROM {TABLE} WHERE name IS NULL") == 20
    ok("read")
    try:
        await conn.execute(f"INSERT INTO {TABLE} VALUES ($1, 'again')", 1)
        raise AssertionError("no error")
    except asyncpg.UniqueViolationError:
        pass
    ok("error")
    async with conn.transaction():
        await conn.execute(f"INSERT INTO {TABLE} VALUES (100, 'hundred')")
        # A cursor is a portal read in pieces.
        seen = [row["id"] async for row in conn.cursor(f"SELECT id FROM {TABLE} WHERE id < 40 ORDER BY id", prefetch=7)]
        assert seen == list(range(40))
    assert await conn.fetchval(f"SELECT name FROM {TABLE} WHERE id = 100") == "hundred"
    ok("transaction")
    try:
        async with conn.transaction():
            await conn.execute(f"INSERT INTO {TABLE} VALUES (101, 'gone')")
            raise RuntimeError("undo")
    except RuntimeError:
        pass
    assert await conn.fetchval(f"SELECT count(*) FROM {TABLE} WHERE id = 101") == 0
    ok("rollback")
    records = [(number, f"copied {number}") for number in range(1000, 3000)]
    await conn.copy_records_to_table(TABLE, records=records, columns=["id", "name"])
    out = io.BytesIO()
    await conn.copy_from_query(f"SELECT id, name FROM {TABLE} WHERE id >= 1000 ORDER BY id", output=out)
    assert out.getvalue().decode() == "".join(f"{number}\t{name}\n" for number, name in records)
    ok("copy")
    started = time.monotonic()
    try:
        # A timeout makes asyncpg send a cancel request and wait for it to take effect.
        await conn.execute("SELECT pg_sleep(60)", timeout=1.0)
        raise AssertionError("not cancelled")
    except asyncio.TimeoutError:
        pass
    assert await conn.fetchval("SELECT 1") == 1
    assert time.monotonic() - started < 20
    ok("cancel")
    await conn.execute(f"INSERT INTO {TABLE} VALUES (5000, $1)", LARGE)
    assert await conn.fetchval(f"SELECT name FROM {TABLE} WHERE id = 5000") == LARGE
    ok("large")
    await conn.execute(f"DROP TABLE {TABLE}")
    await conn.close()


asyncio.run(main())
