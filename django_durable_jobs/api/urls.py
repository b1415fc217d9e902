"""The addresses, to be included by the project: ``path("jobs/", include("django_durable_jobs.api.urls"))``."""

from __future__ import annotations

from typing import Final

from django.urls import URLPattern, path

from ..operations.catalogue import Target
from . import views

app_name = "durable_jobs"

_DETAILS: Final[dict[str, Target]] = {
    "jobs": "job",
    "queues": "queue",
    "workers": "worker",
    "approvals": "approval",
}


def _below(plural: str, target: Target) -> list[URLPattern]:
    detail, order = views.Detail.as_view(target=target), views.Order.as_view(target=target)
    return [
        path(f"v1/{plural}/<str:key>", detail, name=target),
        path(f"v1/{plural}/<str:key>/<slug:verb>", order, name=f"{target}-order"),
    ]


urlpatterns = [
    path("v1/jobs", views.Jobs.as_view(), name="jobs"),
    path("v1/queues", views.Queues.as_view(), name="queues"),
    path("v1/workers", views.Workers.as_view(), name="workers"),
    path("v1/approvals", views.Approvals.as_view(), name="approvals"),
    path("v1/batches", views.Batches.as_view(), name="batches"),
    path("v1/batches/<str:key>", views.Detail.as_view(target="jobbatch"), name="batch"),
    path("v1/jobs/<str:key>/explain", views.Explain.as_view(), name="explain"),
    *(pattern for plural, target in _DETAILS.items() for pattern in _below(plural, target)),
]
