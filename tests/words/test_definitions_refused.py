"""What the decorator refuses at import, and how it says so (N1–N9, N13)."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import Backoff, OptionError, durable_job, registry
from django_durable_jobs.errors import DefinitionError
from django_durable_jobs.options import PRIORITY_NAMES

pytestmark = pytest.mark.once


def plain(n: int) -> int:
    return n


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Holder:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...

    @classmethod
    def for_class(cls) -> None: ...

    def __call__(self) -> None: ...


def nested() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


NOT_A_JOB: dict[str, tuple[Any, str]] = {
    "lambda": (lambda: 1, "at module level"),
    "nested function": (nested(), "at module level"),
    "method": (Holder.method, "at module level"),
    "bound method": (Holder().method, "function defined with def, not method"),
    "static method": (Holder.__dict__["static"], "plain function"),
    "class method": (Holder.__dict__["for_class"], "plain function"),
    "partial": (functools.partial(plain, 1), "function defined with def, not partial"),
    "builtin": (len, "function defined with def, not builtin"),
    "class": (Holder, "function defined with def, not type"),
    "object with __call__": (Holder(), "function defined with def, not Holder"),
    "cached function": (functools.cache(plain), "function defined with def, not"),
    "none": (17, "function defined with def, not int"),
    "generator": (generator, "is a generator"),
    "async generator": (async_generator, "is a generator"),
}


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions of a test are gone after it."""
    monkeypatch.setattr(registry, "_definitions", dict(registry._definitions))


def known() -> list[str]:
    return list(registry.names())


@pytest.mark.parametrize("kind", NOT_A_JOB)
@pytest.mark.parametrize("with_options", [False, True], ids=["plain", "with options"])
def test_n1_n2_what_a_worker_could_not_find_or_run_is_refused(kind: str, with_options: bool) -> None:
    target, reason = NOT_A_JOB[kind]
    decorate = durable_job(queue="mail") if with_options else durable_job
    before = known()
    with pytest.raises(DefinitionError, match=reason):
        decorate(target)
    assert known() == before


def test_n3_a_coroutine_function_is_a_job() -> None:
    async def job(n: int) -> int:
        return n

    job.__qualname__ = "async_job_of_this_test"
    assert durable_job(job).definition.is_async


def test_n4_two_functions_of_one_name_are_refused_and_both_places_named() -> None:
    durable_job(name="twice")(plain)

    def other(n: int) -> int:
        return n

    other.__qualname__ = "other"
    with pytest.raises(DefinitionError, match="Two durable jobs have the name 'twice'") as caught:
        durable_job(name="twice")(other)
    message = str(caught.value)
    for function in (plain, other):
        assert f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}" in message
    assert registry.get("twice").function is plain


def test_n4_a_module_that_is_loaded_again_may_register_again() -> None:
    durable_job(name="twice")(plain)
    durable_job(name="twice")(plain)


NO_COUNT: list[Any] = [-1, 1.5, "3", True, 10**9, 1000, None, math.nan]


@pytest.mark.parametrize("option", ["retries", "call_retries"])
@pytest.mark.parametrize("value", NO_COUNT)
def test_n5_a_number_of_retries_is_whole_and_at_most_999(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"{option} must be a whole number from 0 to 999, not"):
        durable_job(**{option: value})(plain)


@pytest.mark.parametrize("value", [0, 1, 999])
def test_n5_the_ends_of_the_range_are_allowed(value: int) -> None:
    assert durable_job(retries=value)(plain).options.retries == value


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 1e12, "5", True, timedelta(seconds=-1), timedelta.max])
def test_n6_a_delay_is_a_length_of_time_within_ten_years(value: Any) -> None:
    with pytest.raises(OptionError, match="delay must"):
        durable_job(delay=value)(plain)


@pytest.mark.parametrize("option", ["backoff", "call_backoff"])
@pytest.mark.parametrize("value", [5, "exponential", {"kind": "fixed"}, timedelta(seconds=1)])
def test_n7_a_back_off_is_a_rule(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=r"must be a Backoff, e\.g\. Backoff\.fixed"):
        durable_job(**{option: value})(plain)


def test_n7_a_rule_that_would_overflow_is_capped() -> None:
    job = durable_job(backoff=Backoff.exponential(base=timedelta(hours=1), cap=timedelta(hours=2)))(plain)
    backoff = job.options.backoff
    assert isinstance(backoff, Backoff)
    assert backoff.delay(10**6) <= timedelta(hours=2)


BAD_QUEUES: list[Any] = ["", "x" * 101, "two words", "a\0b", "a/b", "..", "ü", "-a", "a\n", " a", 5, None, b"a", ["a"]]


@pytest.mark.parametrize("value", BAD_QUEUES)
def test_n8_a_queue_has_a_plain_name_and_the_pattern_is_shown(value: Any) -> None:
    with pytest.raises(OptionError, match="not a usable name") as caught:
        durable_job(queue=value)(plain)
    message = str(caught.value)
    assert "[A-Za-z0-9]" in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("value", ["a", "A.b:c_d-e9", "0", "x" * 100])
def test_n8_usable_names_of_queues(value: str) -> None:
    assert durable_job(queue=value)(plain).options.queue == value


@pytest.mark.parametrize("value", ["", "two words", "1st", "a/b", "x" * 201, "a\0", 5, ("a",)])
def test_a_registered_name_has_a_pattern_too(value: Any) -> None:
    with pytest.raises(DefinitionError, match="does not match"):
        durable_job(name=value)(plain)


@pytest.mark.parametrize(
    ("given", "near"),
    [("retry", "retries"), ("prioritty", "priority"), ("que", "queue"), ("backof", "backoff")],
)
def test_n9_for_an_unknown_option_the_nearest_is_suggested(given: str, near: str) -> None:
    with pytest.raises(DefinitionError, match=f"no option '{given}'. Did you mean '{near}'"):
        durable_job(**{given: 1})(plain)  # type: ignore[call-overload]


def test_n9_for_a_far_off_option_all_are_shown() -> None:
    with pytest.raises(DefinitionError, match=r"no option 'zzz'. Known: backoff, call_backoff, .*retries"):
        durable_job(zzz=1)(plain)  # type: ignore[call-overload]


@pytest.mark.parametrize("option", ["run_at", "id"])
def test_an_option_of_one_enqueue_is_refused_for_all(option: str) -> None:
    with pytest.raises(DefinitionError, match=rf"belongs to one enqueue: plain\.using\({option}="):
        durable_job(**{option: None})(plain)  # type: ignore[call-overload]


@pytest.mark.parametrize("value", [101, -101, 3.1, "highest", "HIGH", True, None, [1]])
def test_n27_a_priority_is_a_whole_number_or_a_name(value: Any) -> None:
    with pytest.raises(OptionError, match="priority must be a whole number from -100 to 100") as caught:
        durable_job(priority=value)(plain)
    assert all(name in str(caught.value) for name in PRIORITY_NAMES)


@pytest.mark.parametrize(("name", "number"), [("critical", 100), ("high", 50), ("normal", 0), ("low", -50)])
def test_n27_names_of_priorities(name: str, number: int) -> None:
    assert durable_job(priority=name)(plain).options.priority == number


# N13: other decorators ---------------------------------------------------------------------------------------


def test_n13_a_function_that_was_wrapped_properly_keeps_its_signature_and_name() -> None:
    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs) + 1

    job = durable_job(wrapper)
    assert job.name == f"{__name__}.plain"
    assert job(1) == 2
    assert job.definition.arguments.dump((1,), {}, 1000)
    with pytest.raises(TypeError, match="n"):
        job.definition.arguments.dump((), {"m": 1}, 1000)


def test_n13_a_function_that_was_wrapped_carelessly_is_refused() -> None:
    def careless(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    with pytest.raises(DefinitionError, match="at module level"):
        durable_job(careless(plain))


def test_n13_a_wrapper_around_something_that_is_no_function_is_refused() -> None:
    def wrapper() -> None: ...

    wrapper.__qualname__ = "wrapper"
    wrapper.__wrapped__ = Holder()  # type: ignore[attr-defined]
    with pytest.raises(DefinitionError, match="wraps Holder"):
        durable_job(wrapper)


def test_n13_a_durable_job_decorated_again_is_still_one_job() -> None:
    job = durable_job(durable_job(plain))
    assert job(3) == 3
    assert [name for name in registry.names() if name == job.name] == [job.name]


def test_n13_above_and_below_staticmethod_the_decorator_says_what_to_do() -> None:
    with pytest.raises(DefinitionError, match="plain function"):
        durable_job(staticmethod(plain))
    with pytest.raises(DefinitionError, match="at module level"):
        durable_job(Holder.static)
