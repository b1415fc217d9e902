"""What becomes of a job whose worker dies is stored with it, so that any rescuer can read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_durable_jobs import OptionError, durable_job, enqueue_many
from django_durable_jobs.options import Options
from tests.factories import present

pytestmark = pytest.mark.django_db


@durable_job(on_crash="fail")
def once(number: int) -> int:
    return number


@durable_job
def again(number: int) -> int:
    return number


def _stored(handle: Any) -> Any:
    text = present(handle.id).options
    return None if text is None else json.loads(text)


def test_at_most_once_is_stored_with_the_job_whoever_said_so() -> None:
    of_definition, of_enqueue, usual = once.enqueue(1), again.using(on_crash="fail").enqueue(1), again.enqueue(1)
    assert (_stored(of_definition), _stored(of_enqueue)) == ({"on_crash": "fail"}, {"on_crash": "fail"})
    assert _stored(usual) is None
    assert [_stored(one) for one in enqueue_many([once.s(1), again.s(2)])] == [{"on_crash": "fail"}, None]
    assert _stored(once.using(timeout=5).enqueue(1)) == {"timeout": 5.0, "on_crash": "fail"}


def test_one_enqueue_of_such_a_definition_may_run_again() -> None:
    assert _stored(once.using(on_crash="retry").enqueue(1)) == {"on_crash": "retry"}


@pytest.mark.once
@pytest.mark.parametrize("value", ["Fail", "", 1, True, float("nan"), ["fail"]], ids=repr)
def test_anything_else_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^on_crash must be 'retry' or 'fail', not "):
        Options().changed({"on_crash": value})
