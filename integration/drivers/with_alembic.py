"""Migrations with Alembic, by several processes at once that agree by an advisory lock. Connections from libpq's environment variables.

Prints "ok STEP" for each step, and what it saw: that must be the same on direct connections. Stops at the first step that fails.
"""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psycopg

PROCESSES = 3
# The lock belongs to the session, not to the transactions of the migrations, and is held meanwhile.
ENVIRONMENT = """
import time

from alembic import context
from sqlalchemy import create_engine, pool, text

engine = create_engine("postgresql+psycopg://", poolclass=pool.NullPool)
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
    # CREATE INDEX CONCURRENTLY waits for every statement that runs, and would wait for those that wait for the lock.
    while not guard.scalar(text("SELECT pg_try_advisory_lock(7201)")):
        time.sleep(0.02)
    with engine.connect() as connection:
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    assert guard.scalar(text("SELECT pg_advisory_unlock(7201)")), "the lock is not mine"
"""
VERSIONS = {
    "0001": ("None", "op.create_table('account', sa.Column('id', sa.Integer, primary_key=True), sa.Column('name', sa.Text))\n"
                     "    op.create_table('ran', sa.Column('what', sa.Text))"),
    "0002": ("'0001'", "op.execute(\"SET LOCAL lock_timeout = '10s'\")\n"
                       "    op.add_column('account', sa.Column('state', sa.Text, server_default='new'))"),
    "0003": ("'0002'", "with op.get_context().autocommit_block():\n"
                       "        op.create_index('account_name', 'account', ['name'], postgresql_concurrently=True)"),
    "0004": ("'0003'", "op.bulk_insert(sa.table('account', sa.column('name')), [{'name': 'first'}])\n"
                       "    op.execute('SELECT pg_sleep(0.1)')"),
}
TEMPLATE = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = '{revision}', {before}


def upgrade():
    {body}
    op.execute("INSERT INTO ran VALUES ('{revision}')")


def downgrade():
    raise NotImplementedError
"""


def ok(step, *saw):
    print("ok", step, flush=True)
    for each in saw:
        print("  saw", each, flush=True)


def upgrade(folder, to):
    from alembic.command import upgrade
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", folder)
    upgrade(config, to)


def others(stop):
    """What else goes on: without it a connection might find its last server free every time."""
    with psycopg.connect(autocommit=True) as conn:
        while not stop.is_set():
            conn.execute("SELECT pg_sleep(0.002)")


def at_once(folder, to):
    command = [sys.executable, __file__, folder, to]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(PROCESSES)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(said)


def main():
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(autocommit=True) as conn:
        Path(folder, "versions").mkdir()
        Path(folder, "env.py").write_text(ENVIRONMENT)
        for revision, (before, body) in VERSIONS.items():
            Path(folder, "versions", f"{revision}.py").write_text(TEMPLATE.format(revision=revision, before=before, body=body))
        saw, stop = [], threading.Event()
        busy = [threading.Thread(target=others, args=[stop]) for _ in range(4)]
        for thread in busy:
            thread.start()
        for to in ["0002", "head"]:
            try:
                at_once(folder, to)
            except BaseException:
                stop.set()
                raise
            saw.append(conn.execute("SELECT version_num, (SELECT count(*) FROM ran) FROM alembic_version").fetchone())
        stop.set()
        for thread in busy:
            thread.join()
        ok("upgrade", *saw)
        ok("once", conn.execute("SELECT what, count(*) FROM ran GROUP BY 1 ORDER BY 1").fetchall(),
           conn.execute("SELECT name, state FROM account").fetchall(),
           conn.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'account_name'::regclass").fetchone())
        # Nobody holds it any more.
        ok("unlocked", conn.execute("SELECT pg_try_advisory_lock(7201), pg_advisory_unlock(7201)").fetchone())
        conn.execute("DROP TABLE account, ran, alembic_version")
        ok("drop")


upgrade(*sys.argv[1:]) if len(sys.argv) > 1 else main()
