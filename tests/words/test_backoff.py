"""The delay after a failed attempt."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_jobs.backoff import MAX_DELAY, Backoff
from django_durable_jobs.conf import Settings
from django_durable_jobs.errors import OptionError

pytestmark = pytest.mark.once

SECOND = timedelta(seconds=1)
lengths = st.timedeltas(timedelta(0), MAX_DELAY)
rules = st.builds(
    lambda kind, ends, jitter: Backoff(kind, min(ends), max(ends), jitter),
    st.sampled_from(["none", "fixed", "linear", "exponential"]),
    st.tuples(lengths, lengths),
    st.booleans(),
)


def largest(rule: Backoff, n: int) -> timedelta:
    return rule.delay(n, random=lambda: math.nextafter(1, 0))


@given(rules, st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_n7_a_delay_lies_between_zero_and_the_cap_after_any_number_of_failures(
    rule: Backoff, n: int, drawn: float
) -> None:
    assert timedelta(0) <= rule.delay(n, random=lambda: drawn) <= rule.cap


@given(rules, st.integers(0, 10**6))
def test_the_ceiling_never_falls(rule: Backoff, n: int) -> None:
    assert largest(rule, n) <= largest(rule, n + 1)


@given(rules)
def test_a_rule_survives_its_stored_form(rule: Backoff) -> None:
    assert Backoff.from_form(json.loads(json.dumps(rule.to_form()))) == rule


def test_exponential_doubles_up_to_the_cap() -> None:
    rule = Backoff.exponential(SECOND, cap=10 * SECOND, jitter=False)
    assert [rule.delay(n) / SECOND for n in range(6)] == [1, 2, 4, 8, 10, 10]


def test_linear_adds_up_to_the_cap() -> None:
    assert [Backoff.linear(2, cap=5).delay(n) / SECOND for n in range(4)] == [2, 4, 5, 5]


def test_fixed_and_none_do_not_change() -> None:
    assert Backoff.fixed(7).delay(10**9) == 7 * SECOND
    assert Backoff.none().delay(10**9) == timedelta(0)


def test_full_jitter_draws_from_zero_to_the_ceiling() -> None:
    rule = Backoff()
    assert rule.delay(3, random=lambda: 0.0) == timedelta(0)
    assert rule.delay(3, random=lambda: 0.5) == 4 * SECOND
    assert Backoff(jitter="full") == rule


def test_the_defaults_are_one_second_to_one_hour_and_shorter_inside_a_call() -> None:
    assert largest(Settings().backoff, 60) == pytest.approx(timedelta(hours=1), abs=timedelta(microseconds=1))
    assert (Settings().call_backoff.base, Settings().call_backoff.cap) == (
        timedelta(milliseconds=100),
        timedelta(seconds=5),
    )


@pytest.mark.parametrize(
    "length", [-1, math.nan, math.inf, -math.inf, 1e300, 10**400, timedelta(-1), timedelta.max, True, "3", None]
)
def test_a_length_out_of_range_is_refused_with_its_name(length: Any) -> None:
    with pytest.raises(OptionError, match="Back-off base"):
        Backoff.exponential(length)
    with pytest.raises(OptionError, match="Back-off cap"):
        Backoff(cap=length)


def test_a_cap_below_the_base_is_refused_with_both() -> None:
    with pytest.raises(OptionError, match=r"cap \(0:00:01\) must not be below its base \(0:00:02\)"):
        Backoff.linear(2, cap=1)


@pytest.mark.parametrize(("kind", "near"), [("exponental", "exponential"), ("lineal", "linear")])
def test_the_nearest_kind_is_suggested(kind: Any, near: str) -> None:
    with pytest.raises(OptionError, match=f"known are none, fixed, linear, exponential. Did you mean '{near}'"):
        Backoff(kind)


@pytest.mark.parametrize("kind", [None, 5, [], {}])
def test_a_kind_that_is_no_string_is_refused(kind: Any) -> None:
    with pytest.raises(OptionError, match="Unknown back-off kind"):
        Backoff(kind)


@pytest.mark.parametrize("n", [-1, 1.5, True, "3", math.nan])
def test_a_number_of_failures_that_is_none_is_refused(n: Any) -> None:
    with pytest.raises(OptionError, match="whole number"):
        Backoff().delay(n)


@pytest.mark.parametrize("jitter", [None, 0, 1, "half"])
def test_an_unknown_jitter_is_refused(jitter: Any) -> None:
    with pytest.raises(OptionError, match="jitter must be True, False or 'full'"):
        Backoff(jitter=jitter)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"kind": "fixed"},
        {**Backoff().to_form(), "more": 3},
        {**Backoff().to_form(), "factor": 0},
        {**Backoff().to_form(), "cap_seconds": math.nan},
    ],
)
def test_a_stored_form_that_does_not_fit_is_refused(form: Any) -> None:
    with pytest.raises(OptionError):
        Backoff.from_form(form)


def test_another_factor_than_two() -> None:
    tripling = Backoff.exponential(1, cap=100, jitter=False, factor=3)
    assert [tripling.delay(n).total_seconds() for n in (0, 1, 2, 4, 5, 10**6)] == [1, 3, 9, 81, 100, 100]
    assert Backoff.exponential(1, jitter=False, factor=1).delay(10**6).total_seconds() == 1
    assert Backoff.from_form(tripling.to_form()) == tripling
    assert "factor" not in Backoff().to_form()


@pytest.mark.parametrize("factor", [0.5, -2, math.nan, math.inf, "2", True, 101])
def test_a_factor_out_of_range_is_refused(factor: Any) -> None:
    with pytest.raises(OptionError, match="factor"):
        Backoff.exponential(factor=factor)
