"""The arithmetic of rates: in any window no more than the number, in no moment more than the burst (I25)."""

from __future__ import annotations

import random

import pytest

from django_durable_jobs.rates import PARTS, Admitted, Rate

pytestmark = pytest.mark.once


def run(rate: Rate, *, seconds: float, seed: int, eager: bool) -> list[tuple[float, int]]:
    """Ask for jobs at random moments, or whenever the rate says that one is free, and return what was admitted."""
    chance, now, admitted = random.Random(seed), 1000.0, None
    taken: list[tuple[float, int]] = []
    while now < 1000.0 + seconds:
        wanted = chance.randint(1, 2 * rate.number)
        count = min(wanted, rate.free(admitted, now))
        late = chance.uniform(0, 0.001)
        if count:
            taken.append((now + late, count))
            admitted = Admitted.of(list(rate.noted(admitted, now, now + late, count)))
        pause = rate.wait(admitted, now, 1) if eager else chance.expovariate(rate.number / rate.per)
        now += max(pause, 1e-6)
    return taken


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(("number", "per", "burst"), [(1, 1, 1), (5, 1, 5), (60, 60, 3), (300, 2, 300), (1000, 1, 20)])
def test_i25_in_any_window_no_more_than_the_number_begin(number: int, per: float, burst: int, eager: bool) -> None:
    rate = Rate(number, per, burst)
    taken = run(rate, seconds=5 * per, seed=number, eager=eager)
    for start, _count in taken:
        assert sum(count for moment, count in taken if start <= moment < start + per) <= number
    assert max(count for _moment, count in taken) <= burst
    if eager:
        # And no less than it may, but for what the log rounds.
        assert sum(count for _moment, count in taken) >= 5 * number * (1 - 2 / PARTS) - number / 20


def test_a_burst_bounds_what_begins_at_one_moment_and_fills_up_again() -> None:
    rate = Rate(number=10, per=10, burst=2)
    admitted = rate.noted(None, 0, 0, rate.free(None, 0))
    assert rate.free(admitted, 0.9) == 0
    assert rate.wait(admitted, 0.0, 1) == pytest.approx(1)
    assert rate.free(admitted, 1.0) == 1
    assert rate.free(admitted, 100) == 2


def test_what_was_admitted_in_one_part_counts_until_the_last_of_it_has_left() -> None:
    rate = Rate(number=10, per=PARTS, burst=10)
    admitted = rate.noted(rate.noted(None, 0, 0, 9), 0.9, 0.9, 1)
    assert len(admitted.log) == 1
    assert rate.free(admitted, PARTS + 0.5) + 1 <= 10
    assert rate.free(admitted, PARTS + 1) == 10


def test_the_log_stays_short() -> None:
    rate, admitted = Rate(number=100_000, per=60, burst=100_000), None
    for step in range(6000):
        admitted = rate.noted(admitted, step / 50, step / 50, 1)
    assert admitted is not None
    assert len(admitted.log) <= PARTS + 1


def test_a_clock_that_is_set_back_closes_a_rate_for_two_windows_at_most() -> None:
    rate = Rate(number=5, per=10, burst=5)
    full = rate.noted(None, 10_000, 10_000, 5)
    assert rate.free(full, 9_995) == 0
    assert rate.wait(full, 9_995, 1) <= 20
    assert rate.free(rate.noted(full, 10_011, 10_011, 0), 6_400) == 5
