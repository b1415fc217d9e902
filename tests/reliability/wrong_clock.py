"""A host whose clock is wrong: moves the time of day of the process that imports this, and nothing else.

`DURABLE_JOBS_TEST_MODULE` names this file, `DURABLE_JOBS_TEST_CLOCK` the seconds.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Final

from django.utils import timezone

SHIFT: Final = float(os.environ.get("DURABLE_JOBS_TEST_CLOCK", "0"))

_time, _now = time.time, timezone.now
if SHIFT:
    time.time = lambda: _time() + SHIFT
    timezone.now = lambda: _now() + timedelta(seconds=SHIFT)
