"""Fair turns between the tenants of one queue, on every database (F6)."""

from __future__ import annotations

from collections import Counter

import pytest

from django_durable_jobs import OptionError, limit_queue, unlimit_queue
from django_durable_jobs.models import Job, Limit, Queue
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.limited_claim import claim_limited
from tests.factories import claim_of, make_worker
from tests.jobs import noop
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])


@pytest.fixture(autouse=True)
def _queue() -> None:
    Queue.objects.create(name="mail")


def fill(tenant: str | None, count: int, **options: object) -> None:
    noop.using(queue="mail", tenant=tenant, **options).enqueue_many([(n,) for n in range(count)])  # type: ignore[arg-type]


def served(amount: int) -> list[str | None]:
    """Claim so many, and return whose jobs they are, in the order of the claim."""
    ids = [job.id for job in claim_limited(claim_of(make_worker(), amount, "mail")).jobs]
    tenants = dict(Job.objects.filter(id__in=ids).values_list("id", "tenant"))
    return [tenants[job_id] for job_id in ids]


def test_a_tenant_with_many_jobs_does_not_hold_up_the_others() -> None:
    fill("a", 20)
    fill("b", 3)
    fill("c", 3)
    limit_queue("mail", fair=True)
    assert Counter(served(6)) == {"a": 2, "b": 2, "c": 2}
    assert Counter(served(6)) == {"a": 4, "b": 1, "c": 1}
    assert Counter(served(6)) == {"a": 6}


def test_the_turn_is_kept_from_claim_to_claim_whichever_worker_makes_it() -> None:
    for tenant in ("a", "b", "c", "d"):
        fill(tenant, 3)
    limit_queue("mail", fair=True)
    assert [served(1) for _claim in range(8)] == [["a"], ["b"], ["c"], ["d"]] * 2
    assert Counter(served(3)) == {"a": 1, "b": 1, "c": 1}
    assert served(1) == ["d"]


def test_jobs_without_a_tenant_are_one_tenant_together() -> None:
    fill("a", 5)
    fill(None, 5)
    limit_queue("mail", fair=True)
    assert Counter(served(6)) == {"a": 3, None: 3}


def test_within_a_tenant_priorities_hold() -> None:
    fill("a", 2)
    fill("a", 1, priority="high")
    limit_queue("mail", fair=True)
    (first,) = claim_limited(claim_of(make_worker(), 1, "mail")).jobs
    assert first.rank == -50


def test_fair_turns_go_together_with_limits_and_others_heed_them() -> None:
    fill("a", 5)
    fill("b", 5)
    limit_queue("mail", fair=True, concurrency=4)
    assert claim(claim_of(make_worker(), 5, "mail")) == []
    assert Counter(served(10)) == {"a": 2, "b": 2}
    assert served(10) == []
    unlimit_queue("mail")
    assert len(claim(claim_of(make_worker(), 10, "mail"))) == 6


def test_several_workers_at_once_take_each_job_once_and_serve_all() -> None:
    for tenant in ("a", "b", "c"):
        fill(tenant, 10)
    limit_queue("mail", fair=True)

    def work() -> list[str | None]:
        return [one for _claim in range(20) for one in served(3)]

    found = [one for part in together(work, work, work) for one in part]
    assert Counter(found) == {"a": 10, "b": 10, "c": 10}


def test_many_tenants_each_have_their_turn() -> None:
    for number in range(30):
        fill(f"tenant {number:02}", 1)
    limit_queue("mail", fair=True)
    assert len(set(served(25)) | set(served(25))) == 30


def test_bad_words_are_refused() -> None:
    with pytest.raises(OptionError, match="fair must be True or False"):
        limit_queue("mail", fair="yes")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(OptionError, match=r"tenant: .* 1 to 100 printable characters"):
        noop.using(tenant="x" * 101)
    with pytest.raises(OptionError, match="must return a str"):
        noop.using(tenant=lambda _n: 7).enqueue(1)  # type: ignore[arg-type, return-value]
    assert not Job.objects.exists()
    assert not Limit.objects.exists()
