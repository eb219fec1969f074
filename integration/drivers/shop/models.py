"""What the application stores."""

from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=50, unique=True)
    since = models.DateTimeField()


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE)
    cents = models.IntegerField()
    paid = models.BooleanField(default=False)
