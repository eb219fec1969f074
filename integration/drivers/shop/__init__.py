"""The Django application of with_django.py."""
