"""A small Django project in this one process, with more connections than there are servers. Connections from libpq's environment variables.

Prints "ok STEP" for each step, and what it saw: that must be the same on direct connections. Stops at the first step that fails.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import django
from django.conf import settings

THREADS = 6


def database(zone, **options):
    return {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
            "TIME_ZONE": zone, "CONN_MAX_AGE": None, "OPTIONS": options}


sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
settings.configure(
    DATABASES={
        "default": database(None),
        "tokyo": database("Asia/Tokyo", isolation_level=3, server_side_binding=True),
        "lima": database("America/Lima", options="-c search_path=public -c work_mem=5MB"),
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "shop"], USE_TZ=True, TIME_ZONE="UTC", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import IntegrityError, connection, connections, transaction  # noqa: E402
from django.db.models import Count, Sum  # noqa: E402
from django.db.models.functions import TruncDate  # noqa: E402
from shop.models import Customer, Order  # noqa: E402


def ok(step, *saw):
    print("ok", step, flush=True)
    for each in saw:
        print("  saw", each, flush=True)


def one(using, sql, *values):
    with connections[using].cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()


def threads(work):
    """Each thread has connections of its own, which outlive its work."""
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS * 5)))
        list(pool.map(lambda _: connections.close_all(), range(THREADS)))
    return found


def migrate():
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        index = connection.introspection.get_constraints(cursor, "shop_order")["order_cents"]["columns"]
        tables = sorted(name for name in connection.introspection.table_names(cursor) if name.startswith("shop"))
    call_command("migrate", "shop", "0001", verbosity=0)
    call_command("migrate", verbosity=0)
    ok("migrate", index, tables, Customer.objects.count())


def orm(number):
    with transaction.atomic():
        customer, _ = Customer.objects.get_or_create(name=f"c{number % 5}", defaults={"since": datetime(2024, 1, 1, 20, tzinfo=timezone.utc)})
        Order.objects.bulk_create(Order(customer=customer, cents=number * 10 + n) for n in range(10))
    # Outside of any transaction, another statement each.
    Order.objects.filter(customer=customer, cents=number * 10).update(paid=True)
    return Order.objects.filter(cents__range=(number * 10, number * 10 + 9), paid=True).count()


def transactions():
    saw, ran = [], []
    try:
        with transaction.atomic():
            transaction.on_commit(lambda: ran.append("outer"))
            Customer.objects.create(name="kept", since=datetime.now(timezone.utc))
            try:
                with transaction.atomic():
                    Customer.objects.create(name="c0", since=datetime.now(timezone.utc))
            except IntegrityError as error:
                saw.append(error.__cause__.sqlstate)
            with transaction.atomic():
                Customer.objects.filter(name="kept").update(name="kept still")
        with transaction.atomic():
            Customer.objects.all().delete()
            raise RuntimeError
    except RuntimeError:
        saw.append(Customer.objects.filter(name="kept still").count())
    with transaction.atomic(using="tokyo"):
        saw.append(one("tokyo", "SHOW transaction_isolation"))
    saw.append(one("tokyo", "SHOW default_transaction_isolation"))
    ok("transactions", *saw, ran)


def cursors():
    """Outside of a transaction Django reads through cursors WITH HOLD: on several connections at once, statements between."""
    halves = []
    iterators = [Order.objects.using(using).order_by("cents").values_list("cents", flat=True).iterator(chunk_size=20)
                 for using in ("default", "tokyo", "lima")]
    for row in zip(*iterators):
        halves.append(len(set(row)))
        if len(halves) % 50 == 0:
            one("default", "SELECT 1")
    with transaction.atomic():
        inside = sum(1 for _ in Order.objects.iterator(chunk_size=50))
    ok("cursors", len(halves), set(halves), inside, one("default", "SELECT count(*) FROM pg_cursors WHERE is_holdable"))


def locks(_number):
    """A lock of the session guards what is done in several transactions."""
    one("default", "SELECT pg_advisory_lock(4711)")
    try:
        with transaction.atomic():
            customer = Customer.objects.get(name="kept still")
        cents = one("default", "SELECT cents FROM shop_order WHERE customer_id = %s", customer.pk)
        if cents is None:
            Order.objects.create(customer=customer, cents=1)
        else:
            # A read and a write that would lose updates without the lock.
            Order.objects.filter(customer=customer).update(cents=cents[0] + 1)
    finally:
        released = one("default", "SELECT pg_advisory_unlock(4711)")[0]
    return released


def zone(_number):
    saw = set()
    for using in ("default", "tokyo", "lima"):
        clock = one(using, "SELECT to_char(timestamptz '2024-01-01 00:00Z', 'DD HH24:MI'), current_setting('work_mem')")
        days = Customer.objects.using(using).filter(name="c0").annotate(day=TruncDate("since")).values_list("day", flat=True)
        saw.add((using, *clock, str(days[0])))
    return saw


def main():
    migrate()
    ok("orm", threads(orm).count(1), Order.objects.values_list("customer__name").annotate(Count("id"), Sum("cents")).order_by("customer__name"))
    transactions()
    cursors()
    ok("locks", set(threads(locks)), Order.objects.get(customer__name="kept still").cents)
    ok("zones", *sorted(set.union(*threads(zone))))
    call_command("migrate", "shop", "zero", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_migrations, django_content_type CASCADE")
    ok("drop")


main()
