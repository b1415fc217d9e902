"""The addresses of the test project: the admin and the management API."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("jobs/", include("django_durable_jobs.api.urls"))]
