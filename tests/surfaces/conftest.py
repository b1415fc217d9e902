"""Databases for tests of checks: an empty one, and the settings of the default one to be changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from tests.databases import current_url, lane_of, renamed
from tests.servers import EmbeddedPostgres


@pytest.fixture
def database_options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the default connection, to be changed: nobody connects with them."""
    connection.close()
    settings = dict(connection.settings_dict)
    settings["OPTIONS"] = dict(settings["OPTIONS"])
    monkeypatch.setattr(connections["default"], "settings_dict", settings)
    return settings


@pytest.fixture
def empty_database(tmp_path: Path) -> Iterator[str]:
    """The URL of a database of this lane's kind in which nothing was migrated."""
    lane = lane_of(current_url())
    if lane == "postgresql":
        with EmbeddedPostgres() as server:
            yield server.create_database("empty")
    elif lane == "mariadb":
        name = f"{connection.settings_dict['NAME']}_empty"
        with connections["default"].cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}`")
        yield renamed(current_url(), name)
        with connections["default"].cursor() as cursor:
            cursor.execute(f"DROP DATABASE `{name}`")
    else:
        yield f"sqlite:///{tmp_path / 'empty.sqlite3'}"
