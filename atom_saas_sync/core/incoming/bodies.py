"""Checks for every body and frame: encoding, memory, and splitting lists that the fast parser refuses."""

from __future__ import annotations

import codecs
import json
import re
from sys import getsizeof

import msgspec

from atom_saas_sync.core.canonical import Shape
from atom_saas_sync.core.incoming.limits import MAX_PAGE_MEMORY
from atom_saas_sync.errors import BadResponse, TooLarge


def is_utf8(body: bytes) -> bool:
    """Tell whether a body is UTF-8. If it is not, it was probably damaged in transit."""
    if body.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(
            0, len(body), _CHUNK
        ):  # fits the processor's cache; a copy of the whole body takes four times its memory
            decoder.decode(body[start : start + _CHUNK], final=start + _CHUNK >= len(body))
    except UnicodeDecodeError:
        return False
    return True


def memory_of(text: str) -> int:
    """Return an upper estimate of the memory that JSON takes as text and decoded, in bytes.

    Many small values take fifty times their text; a character like an emoji, even one written as an escape, makes
    the whole string around it four times as large.
    """
    containers = text.count("[") + text.count("{")
    # Each value follows a comma or the beginning of a container.
    shape = Shape(0, text.count(",") + containers, containers, has_exponent=False)
    return memory_of_shape(text, shape, escaped=True)


def memory_of_shape(text: str, shape: Shape, *, escaped: bool) -> int:
    r"""Estimate the memory of a text of this shape; it contains `\u` only if it may be `escaped`.

    Braces and quotation marks within strings count too, but never for more than the shape has values.
    """
    size = getsizeof(text)
    decoded = max(size, _WIDEST * len(text)) if escaped and "\\u" in text else size
    objects, strings = shape.containers, 2 * shape.values  # a key and a value each
    if shape.values > _FEW_VALUES:  # otherwise it matters less than the time to count them
        objects, strings = min(objects, text.count("{")), min(strings, text.count('"') // 2)
    lists = shape.containers - objects
    return (
        size
        + decoded
        + _LEAF_BYTES * (shape.values - shape.containers)
        + _LIST_BYTES * lists
        + _OBJECT_BYTES * objects
        + _STRING_BYTES * strings
    )


# What the interpreter allocates for each with its place in the container, beside the characters of strings.
_LEAF_BYTES, _LIST_BYTES, _OBJECT_BYTES, _STRING_BYTES = 40, 96, 200, 56
_FEW_VALUES = 100
_WIDEST, MESSAGE_BYTES = 4, 1024
_CHUNK = 16 * 1024
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]', re.DOTALL)
_MAX_TOKENS = 8_000_000


def cut_list(body: bytes, key: bytes, limit: int) -> tuple[bytes, list[bytes]] | None:
    """Return the body with its list emptied, and the items of that list; None if the brackets do not match.

    The list is the value of `key`, or the whole body. This is for lists that the fast parser refuses as a whole because
    one item contains half a surrogate pair, extreme nesting, or a number out of range. Raises BadResponse for more
    items than `limit`.
    """
    named = re.compile(rb'"' + key + rb'"\s*:\s*\Z')
    depth, level, start, begin, items = 0, -1, 0, 0, []
    for number, token in enumerate(TOKEN.finditer(body)):
        kind = token.group()
        if number > _MAX_TOKENS:
            break
        if kind in b"[{":
            depth += 1
            bare = depth == 1 and kind == b"["
            if level < 0 and kind == b"[" and (bare or (depth == 2 and _precedes(named, body, token.start()))):  # noqa: PLR2004
                level, begin, start = depth, token.end(), token.end()
        elif kind in b"]}":
            depth -= 1
            if depth == level - 1:
                items.append(body[start : token.start()].strip())
                return body[:begin] + body[token.start() :], [item for item in items if item]
        elif kind == b"," and depth == level:
            items.append(body[start : token.start()].strip())
            start = token.end()
            if len(items) >= limit:
                raise BadResponse(_too_many(key.decode(), limit))
    return None


def _precedes(pattern: re.Pattern[bytes], body: bytes, position: int) -> bool:
    return pattern.search(body, max(0, position - 64), position) is not None


def _too_many(what: str, limit: int) -> str:
    return f"the list of {what} has more than {limit} items"


def is_json_if_odd(item: bytes) -> bool:
    """Tell whether an item is JSON, or was refused for its content rather than its syntax."""
    try:
        json.loads(item.decode(errors="replace"))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def reason_of(error: Exception) -> str:
    """Return why parsing failed."""
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)


UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


def check_memory(body: bytes, what: str) -> None:
    """Raise TooLarge if a decoded body would take more memory than MAX_PAGE_MEMORY."""
    if memory_of(body.decode(errors="replace")) > MAX_PAGE_MEMORY:
        raise TooLarge(f"{what} would take too much memory ({len(body)} bytes)")
