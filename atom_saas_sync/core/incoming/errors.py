"""Error responses (marketplace-api.md, section 3, "Errors and limits")."""

from __future__ import annotations

import msgspec

from atom_saas_sync.core.incoming.bodies import UNREADABLE

_ERROR_FIELDS = (
    "error_description",
    "error",
    "message",
    "detail",
    "description",
    "title",
    "msg",
    "reason",
    "errors",
    "code",
)
_MOST_NESTED_ERRORS = 4


def error_words(body: bytes) -> str:
    """Return the marketplace's message in the body of an error response, from JSON or plain text; else ""."""
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        text = body.decode(errors="replace").strip()
        return "" if text.startswith(("<", "{", "[")) or "\0" in text else text.partition("\n")[0]
    return _first_words(document, _MOST_NESTED_ERRORS) or ""


def _first_words(value: object, depth: int) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if depth == 0:
        return None
    inner: list[object] = []
    if isinstance(value, dict):
        inner = [value.get(name) for name in _ERROR_FIELDS]
    elif isinstance(value, list):
        inner = value[:1]
    found = (words for each in inner if (words := _first_words(each, depth - 1)) is not None)
    return next(found, None) or _words_of_a_field(value, depth)


def _words_of_a_field(value: object, depth: int) -> str | None:
    """Return the words about one field of what was sent, inside of an error: `{"errors": {"rating": ["too high"]}}`."""
    if not isinstance(value, dict) or depth == _MOST_NESTED_ERRORS:
        return None
    found = ((name, _first_words(each, depth - 1)) for name, each in value.items())
    return next((f"{name}: {words}" for name, words in found if words is not None), None)
