"""Users of the admin for tests: each with exactly the permissions that are named."""

from __future__ import annotations

from itertools import count
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client

_numbers = count(1)


def staff(*permissions: str) -> Client:
    """Return a logged-in client of a staff user with these permissions of our app and no others."""
    user = User.objects.create_user(f"staff-{next(_numbers)}", is_staff=True)
    found = Permission.objects.filter(content_type__app_label="django_durable_jobs", codename__in=permissions)
    assert found.count() == len(permissions), f"one of {permissions} is no permission"
    user.user_permissions.set(found)
    return client_of(user)


def superuser() -> Client:
    """Return a logged-in client of a superuser."""
    return client_of(User.objects.create_superuser(f"root-{next(_numbers)}"))


def client_of(user: Any) -> Client:
    """Log a user in."""
    client = Client()
    client.force_login(user)
    return client
