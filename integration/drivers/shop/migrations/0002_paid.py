from datetime import datetime, timezone

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


def first(apps, _schema):
    apps.get_model("shop", "Customer").objects.create(name="first", since=datetime(2024, 1, 1, tzinfo=timezone.utc))


def not_first(apps, _schema):
    apps.get_model("shop", "Customer").objects.filter(name="first").delete()


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY cannot run in a transaction.
    atomic = False
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("Order", "paid", models.BooleanField(default=False)),
        migrations.RunPython(first, not_first),
        AddIndexConcurrently("Order", models.Index(fields=["cents"], name="order_cents")),
    ]
