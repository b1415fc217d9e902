"""What tests of the worker's rooms share."""

from tests.durable.conftest import runner

__all__ = ["runner"]
