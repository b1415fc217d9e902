"""What tests of durable execution share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.durable.running import SCRIPTS, Runner


@pytest.fixture
def runner(transactional_db: None) -> Iterator[Runner]:
    """A worker that does one thing at a time."""
    runner = Runner()
    yield runner
    runner.close()
    SCRIPTS.clear()
