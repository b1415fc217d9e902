"""The settings: defaults, what is refused and with which words, and their page of the reference."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_durable_jobs.backoff import Backoff
from django_durable_jobs.conf import Settings, get_settings, problems
from django_durable_jobs.options import MAX_ATTEMPTS, MAX_PRIORITY, QUEUE_PATTERN
from tests import reference

pytestmark = pytest.mark.once


def said(**settings: Any) -> list[str]:
    with override_settings(DURABLE_JOBS=settings):
        return [f"{number} {text} {hint}" for number, text, hint in problems()]


def test_without_any_setting_the_defaults_hold_and_are_faultless() -> None:
    assert said() == []
    with override_settings():
        from django.conf import settings  # noqa: PLC0415 -- the overridden one

        del settings.DURABLE_JOBS
        get_settings.cache_clear()
        assert get_settings() == Settings()
        assert list(problems()) == []
    get_settings.cache_clear()


@pytest.mark.parametrize("entry", fields(Settings), ids=lambda entry: entry.name)
def test_every_default_passes_its_own_rule(entry: Any) -> None:
    assert said(**{entry.name.upper(): entry.default}) == []
    assert entry.metadata["help"].endswith(".")


def test_lengths_of_time_are_seconds_or_timedeltas() -> None:
    with override_settings(DURABLE_JOBS={"LEASE": 30, "HEARTBEAT": timedelta(seconds=2), "GRACE": 0.5}):
        settings = get_settings()
        assert (settings.lease, settings.heartbeat) == (timedelta(seconds=30), timedelta(seconds=2))
        assert settings.grace == timedelta(milliseconds=500)
    assert get_settings().lease == Settings().lease, "override_settings is followed back"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("RETRIES", "3", "must be a whole number, not '3'"),
        ("RETRIES", True, "must be a whole number, not True"),
        ("RETRIES", 1.5, "must be a whole number, not 1.5"),
        ("RETRIES", 1000, "must lie between 0 and 999, not 1000"),
        ("PRIORITY", -101, "must lie between -100 and 100"),
        ("LEASE", "20", "must be a timedelta or a number of seconds, not '20'"),
        ("LEASE", float("nan"), "must be a timedelta or a number of seconds, not nan"),
        ("LEASE", float("inf"), "must lie between 0.3 and 86400 seconds, not inf"),
        ("LEASE", None, "must be a timedelta or a number of seconds, not None"),
        ("POLL_INTERVAL", 0, "must lie between 0.01 and 3600 seconds, not 0"),
        ("GRACE", timedelta(days=-1), "must lie between 0 and 86400 seconds"),
        ("NOTIFY", 1, "must be True or False, not 1"),
        ("DATABASE", "", "must be a text that matches"),
        ("DEFAULT_QUEUE", "my queue", "must be a text that matches"),
        ("DEFAULT_QUEUE", ["default"], "must be a text that matches"),
        ("BACKOFF", 5, "must be a Backoff, not 5"),
        ("RETENTION", 5, "must be a dictionary of queues, not 5"),
        ("RETENTION", {7: {}}, "names of queues or '*' as its keys, not 7"),
        ("RETENTION", {"mail": 5}, "must say of 'mail' how long jobs of each status are kept, not 5"),
        ("RETENTION", {"mail": {"running": 5}}, "for cancelled, completed, expired, failed, not for 'running'"),
        (
            "RETENTION",
            {"mail": {"failed": -1}},
            "for 'mail' and failed 0 seconds to 100 years",
        ),
        ("RETENTION", {"mail": {"failed": float("nan")}}, "not nan"),
        ("RETENTION", {"mail": {"failed": "1"}}, "not '1'"),
        ("CALL_BACKOFF", "exponential", "must be a Backoff, not 'exponential'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_and_the_default_holds(key: str, value: Any, words: str) -> None:
    """N52, N53: the message says what was given, what is allowed."""
    (text,) = said(**{key: value})
    assert text.startswith(f"E003 DURABLE_JOBS['{key}']")
    assert words in text
    with override_settings(DURABLE_JOBS={key: value}):
        assert getattr(get_settings(), key.lower()) == getattr(Settings(), key.lower())


def test_a_hostile_value_makes_a_short_message_on_one_line() -> None:
    (text,) = said(RETRIES="x\n\x1b[2J" * 10_000)
    assert text.isprintable()
    assert len(text) < 300
    (text,) = said(**{"LEASE\n" * 1000: 1})
    assert text.isprintable()
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("typo", "right"), [("LEASES", "LEASE"), ("lease", "LEASE"), ("POLLINTERVAL", "POLL_INTERVAL")]
)
def test_a_misspelt_key_gets_the_nearest_right_one(typo: str, right: str) -> None:
    """N53."""
    (text,) = said(**{typo: 1})
    assert text == f"E002 DURABLE_JOBS has no setting {typo!r}. Did you mean {right!r}?"


def test_a_lease_of_less_than_three_heartbeats_is_refused_with_both_numbers() -> None:
    """N52; by what holds in the end, so that one of the two is enough to go wrong."""
    assert said(LEASE=15, HEARTBEAT=5) == []
    (text,) = said(LEASE=14.9)
    assert text.startswith("E004 DURABLE_JOBS: LEASE (14.9 s) is shorter than three HEARTBEATs (5 s each).")
    (text,) = said(HEARTBEAT=7)
    assert "LEASE (20 s)" in text
    assert "(7 s each)" in text


def test_rules_that_stand_in_two_places_are_the_same() -> None:
    """`conf` stands below `definitions` and cannot ask it."""
    rules = {entry.name: entry.metadata for entry in fields(Settings)}
    assert rules["default_queue"]["pattern"] == QUEUE_PATTERN.pattern
    assert rules["priority"]["range"] == (-MAX_PRIORITY, MAX_PRIORITY)
    assert rules["retries"]["range"] == rules["call_retries"]["range"] == (0, MAX_ATTEMPTS - 1)


def test_every_setting_is_in_the_reference() -> None:
    page = reference.PAGES["settings.md"]()
    for entry in fields(Settings):
        assert f"\n## `{entry.name.upper()}`\n" in page
        assert entry.metadata["help"] in page


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (reference.FOLDER / name).read_text() == reference.PAGES[name](), "run: python -m tests.reference"


def test_a_default_is_shown_as_one_would_write_it() -> None:
    assert reference.written(timedelta(seconds=20)) == "`20` (seconds)"
    assert reference.written(timedelta(days=7)) == "`timedelta(days=7)`"
    assert reference.written(256 * 1024) == "`262144` (256 KiB)"
    assert reference.written(True) == "`True`"
    assert "Backoff.exponential(" in reference.written(Backoff.exponential())
