"""Values, arguments and errors to JSON text and back: everything the package stores of user data goes through here.

``encode``/``decode``
    any value, self-describing (``values``, ``reading``; scalar formats in ``tags``).
``Codec``
    a value with an annotation, so that dataclasses and enums come back (``codec``).
``ArgumentCodec``
    the arguments of a function, checked against its signature (``arguments``).
``encode_error``/``decode_error``
    exceptions of durable calls (``failures``).

Not here: text that is only shown to people (``rendering``). No pickle, no class looked up by a name in the data,
apart from exception classes that this process has already (see ``failures``).
"""

from django_durable_jobs.rendering import format_traceback, safe_repr, safe_str

from .arguments import ArgumentCodec
from .codec import Codec
from .failures import decode_error, encode_error
from .reading import decode, parse
from .values import MAX_DEPTH, encode

__all__ = [
    "MAX_DEPTH",
    "ArgumentCodec",
    "Codec",
    "decode",
    "decode_error",
    "encode",
    "encode_error",
    "format_traceback",
    "parse",
    "safe_repr",
    "safe_str",
]
