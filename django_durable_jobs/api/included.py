"""Whether a project has opened the API, and whether it can know then who asks (S1)."""

from __future__ import annotations

import sys
from typing import Any, Final

from django.conf import settings
from django.urls import URLResolver, get_resolver
from rest_framework.settings import api_settings

ADDRESSES: Final = "django_durable_jobs.api.urls"


def knows_nobody() -> bool:
    """Answer whether the API is among the project's addresses while no class says who somebody is."""
    return not api_settings.DEFAULT_AUTHENTICATION_CLASSES and _is_included()


def _is_included() -> bool:
    return bool(getattr(settings, "ROOT_URLCONF", "")) and _holds(get_resolver())


def _holds(resolver: URLResolver) -> bool:
    below = [pattern for pattern in resolver.url_patterns if isinstance(pattern, URLResolver)]
    ours: Any = sys.modules.get(ADDRESSES)  # including it has imported it
    return ours is not None and any(one.urlconf_module is ours or _holds(one) for one in below)
