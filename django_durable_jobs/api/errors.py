"""Every error in one form: ``{"error": text, "code": "NOT_FOUND"}``, with the status that HTTP has for it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from ..errors import (
    ApprovalDecided,
    ApprovalExpired,
    ArgumentError,
    DurableJobsError,
    JobExists,
    OptionError,
    SerializationError,
    TransitionRefused,
)

CODES: Final[dict[int, str]] = {
    400: "VALIDATION_ERROR",
    401: "NOT_AUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    409: "CONFLICT",
    413: "TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "THROTTLED",
}
"""The code beside the text, by status."""


def handle(error: Exception, _context: Any) -> Response | None:
    """Answer an error in our form; ``None`` leaves one that is nobody's order to Django: it is logged, and is a 500."""
    status, text, headers = _answer(error)
    if status is None:
        return None
    set_rollback()
    code = CODES.get(status, HTTPStatus(status).name)
    return Response({"error": text, "code": code}, status=status, headers=headers)


def _answer(error: Exception) -> tuple[int | None, str, dict[str, str]]:
    match error:
        case exceptions.APIException():
            headers = {}
            if wait := getattr(error, "wait", None):
                headers["Retry-After"] = f"{wait:.0f}"
            if challenge := getattr(error, "auth_header", None):
                headers["WWW-Authenticate"] = challenge
            return error.status_code, _text_of(error.detail), headers
        case Http404():
            return 404, "There is nothing at this address.", {}
        case PermissionDenied():
            return 403, "You may not do this.", {}
        case DurableJobsError():
            return _status_of(error), str(error), {}
    return None, "", {}


def _status_of(error: DurableJobsError) -> int:
    match error:
        case TransitionRefused() | JobExists() | ApprovalDecided() | ApprovalExpired():
            return 409
        case OptionError() | ArgumentError() | SerializationError():
            return 400
        case LookupError():
            return 404
    return 400


def _text_of(detail: Any) -> str:
    if isinstance(detail, dict):
        return " ".join(f"{name}: {_text_of(value)}" for name, value in detail.items())
    return " ".join(map(_text_of, detail)) if isinstance(detail, list) else str(detail)
