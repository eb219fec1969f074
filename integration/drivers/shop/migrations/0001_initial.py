from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Customer", [
            ("id", models.BigAutoField(primary_key=True, serialize=False)),
            ("name", models.CharField(max_length=50, unique=True)),
            ("since", models.DateTimeField()),
        ]),
        migrations.CreateModel("Order", [
            ("id", models.BigAutoField(primary_key=True, serialize=False)),
            ("cents", models.IntegerField()),
            ("customer", models.ForeignKey(on_delete=models.CASCADE, to="shop.customer")),
        ]),
    ]
