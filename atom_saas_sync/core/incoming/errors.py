"""Error responses (section 3, "Errors and limits")."""

from __future__ import annotations

from atom_saas_sync.core.canonical import decode_object

_ERROR_FIELDS = ("error", "message", "detail", "description", "title", "msg", "reason", "errors")
_MOST_NESTED_ERRORS = 4


def error_words(body: bytes) -> str:
    """Return the marketplace's message in the body of an error response, from JSON or plain text; else ""."""
    document = decode_object(body)
    if document is not None:
        return _first_words(document, _MOST_NESTED_ERRORS) or ""
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return ""
    return "" if text.startswith(("<", "{", "[")) else text.partition("\n")[0]


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
    return next((words for each in inner if (words := _first_words(each, depth - 1)) is not None), None)
