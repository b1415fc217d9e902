"""Bodies: JSON of a bounded size."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from rest_framework import exceptions
from rest_framework.parsers import JSONParser

from ..conf import get_settings

BESIDES: Final = 64 * 1024
"""Bytes of a body beside the arguments of a job."""


class TooLarge(exceptions.APIException):
    """The body is larger than any that can be of use."""

    status_code = 413


class BoundedJSON(JSONParser):
    """JSON as the standard has it; a body beyond the limit is not read, whatever the server lets through."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:  # noqa: ARG002 -- REST framework's interface
        """Read a body."""
        most = get_settings().argument_limit + BESIDES
        body = stream.read(most + 1)
        if len(body) > most:
            raise TooLarge(f"The body is larger than {most} bytes.")
        try:
            return json.loads(body.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            # The reason would repeat what was sent.
            raise exceptions.ParseError("The body is no JSON that can be read.") from None


def _refuse(_name: str) -> NoReturn:
    raise ValueError
