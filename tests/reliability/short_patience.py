"""Makes a worker process give its database up after a second instead of five minutes (X15).

`DURABLE_JOBS_TEST_MODULE` names this file; nothing imports it in the process of the tests.
"""

from __future__ import annotations

from django_durable_jobs.worker import registering

registering.WAIT_FOR_DATABASE = 1.0  # type: ignore[misc]
