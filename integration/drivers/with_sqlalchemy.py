"""An application with SQLAlchemy, Core and ORM, with more connections than there are servers. Connections from libpq's environment variables.

Prints "ok STEP" for each step, and what it saw: that must be the same on direct connections. Stops at the first step that fails.
"""

from contextlib import ExitStack

from sqlalchemy import (Column, Computed, ForeignKey, Identity, Integer, MetaData, String, Table, create_engine, event, func, inspect,
                        select, text)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.orm.exc import StaleDataError

CONNECTIONS = 8


def ok(step, *saw):
    print("ok", step, flush=True)
    for each in saw:
        print("  saw", each, flush=True)


class Base(DeclarativeBase):
    metadata = MetaData(schema="shop")


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str] = mapped_column(server_default="new")
    version: Mapped[int] = mapped_column()
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.title", cascade="all, delete-orphan")
    __mapper_args__ = {"version_id_col": version}


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)  # serial
    title: Mapped[str]
    size: Mapped[int] = mapped_column(Computed("length(title)"))
    author_id: Mapped[int] = mapped_column(ForeignKey("shop.author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


def connected(zone, path):
    """An engine whose connections begin with settings of their own, as applications do it."""
    engine = create_engine("postgresql+psycopg://", pool_size=CONNECTIONS, max_overflow=0)

    @event.listens_for(engine, "connect")
    def begin(connection, _record):
        with connection.cursor() as cursor:
            cursor.execute(f"SET TIME ZONE '{zone}'")
            cursor.execute(f"SET search_path TO {path}")
        connection.commit()

    return engine


def core(engine):
    table = Table("plain", MetaData(schema="shop"), Column("id", Integer, Identity(), primary_key=True), Column("name", String(20)),
                  Column("twice", Integer, Computed("id * 2")))
    table.create(engine)
    with engine.begin() as connection:
        made = connection.execute(table.insert().returning(table.c.id, table.c.twice), [{"name": f"n{n}"} for n in range(50)]).all()
    with engine.connect() as connection:
        few = connection.execute(select(table.c.name).where(table.c.id.in_([1, 7, 50])).order_by(table.c.id)).scalars().all()
        connection.execute(table.delete())
        connection.rollback()
        count = connection.scalar(select(func.count()).select_from(table))
    ok("core", made[:3], few, count)
    return table


def settings(east, west):
    """Connections of two engines in turn, outside of transactions: each keeps what it was begun with."""
    moment = text("SELECT to_char(timestamptz '2024-01-01 00:00Z', 'HH24:MI TZ'), current_schema()")
    saw = set()
    with ExitStack() as stack:
        pairs = [(stack.enter_context(one.connect().execution_options(isolation_level="AUTOCOMMIT")), one)
                 for one in [east, west] * (CONNECTIONS // 2)]
        for _ in range(5):
            for connection, engine in pairs:
                saw.add((engine is east, tuple(connection.execute(moment).one())))
    ok("settings", *sorted(saw))


def isolation(engine):
    saw = []
    with ExitStack() as stack:
        levels = ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"]
        pairs = [(level, stack.enter_context(engine.connect().execution_options(isolation_level=level))) for level in levels]
        for _ in range(2):
            for level, connection in pairs:
                saw.append((level, connection.scalar(text("SHOW transaction_isolation")), connection.get_isolation_level()))
                connection.rollback()
    with engine.connect() as connection:
        saw.append(connection.scalar(text("SHOW transaction_isolation")))
    ok("isolation", *saw)


def orm(engine):
    saw = []
    with Session(engine) as session:
        for name in ["Ann", "Bob"]:
            session.add(Author(name=name, books=[Book(title=f"{name} {n}") for n in range(3)]))
        session.commit()
        ann = session.scalars(select(Author).where(Author.name == "Ann").options(selectinload(Author.books))).one()
        saw.append((ann.state, ann.version, [(book.title, book.size) for book in ann.books]))
        with Session(engine) as other:
            other.scalars(select(Author).where(Author.name == "Ann")).one().state = "changed elsewhere"
            other.commit()
        ann.state = "mine"
        try:
            session.commit()
            raise AssertionError("a lost update")
        except StaleDataError as error:
            saw.append(type(error).__name__)
            session.rollback()
        saw.append((ann.state, ann.version))
    ok("orm", *saw)


def savepoints(engine):
    with Session(engine) as session:
        session.add(Author(name="Cyn"))
        session.flush()
        try:
            with session.begin_nested():
                session.add(Author(name="Ann"))
        except IntegrityError as error:
            code = error.orig.sqlstate
        with session.begin_nested():
            session.add(Author(name="Dan"))
        session.commit()
        ok("savepoints", code, session.scalars(select(Author.name).order_by(Author.name)).all())


def streams(engine, table):
    with engine.connect() as connection, engine.connect() as other:
        rows = connection.execution_options(stream_results=True, yield_per=7).execute(select(table.c.id).order_by(table.c.id))
        total = 0
        for part in rows.partitions():
            total += sum(row.id for row in part)
            other.scalar(text("SELECT 1"))
            other.rollback()
        ok("streams", total)


def locks(engine):
    with engine.connect() as one, engine.connect() as two:
        queue = text("SELECT name FROM shop.author ORDER BY name LIMIT 1 FOR UPDATE SKIP LOCKED")
        saw = [one.scalar(queue), two.scalar(queue)]
        one.execute(text("SET LOCAL lock_timeout = '50ms'"))
        try:
            one.execute(text("SELECT 1 FROM shop.author WHERE name = :name FOR UPDATE"), {"name": saw[1]})
        except DBAPIError as error:
            saw.append(error.orig.sqlstate)
    ok("locks", *saw)


def temporary(engine):
    """A temporary table lives as long as its connection, also outside of transactions, and nobody else sees it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as one, engine.connect() as two:
        one.execute(text("CREATE TEMP TABLE mine AS SELECT generate_series(1, 5) AS n"))
        saw = []
        for _ in range(3):
            saw.append(one.scalar(text("SELECT sum(n) FROM mine")))
            saw.append(two.scalar(text("SELECT to_regclass('mine') IS NULL")))
            two.rollback()
        one.execute(text("DROP TABLE mine"))
    ok("temporary", *saw)


def reflection(engine):
    look = inspect(engine)
    columns = [(column["name"], str(column["type"]), column["nullable"]) for column in look.get_columns("author", schema="shop")]
    read = MetaData()
    read.reflect(engine, schema="shop")
    # By the connection's own search_path.
    here = sorted(look.get_table_names())
    ok("reflection", columns, look.get_foreign_keys("book", schema="shop")[0]["referred_table"], sorted(read.tables), here)


def main():
    east, west = connected("Asia/Tokyo", "shop, public"), connected("America/Lima", "public")
    with west.begin() as connection:
        connection.execute(text("CREATE SCHEMA shop"))
    Base.metadata.create_all(west)
    ok("create")
    table = core(east)
    settings(east, west)
    isolation(west)
    orm(east)
    savepoints(west)
    streams(east, table)
    locks(west)
    temporary(west)
    reflection(east)
    with west.begin() as connection:
        connection.execute(text("DROP SCHEMA shop CASCADE"))
    ok("drop")


main()
