"""Read JSON that may have been stored by another program: what is no such document counts as an empty one."""

from __future__ import annotations

import json
from typing import Any

from atom_saas_sync.model import LARGEST_COUNT


def stored_list(text: object) -> list[Any]:
    """Return the list in a stored text."""
    found = _decoded(text)
    return found if isinstance(found, list) else []


def stored_object(text: object) -> dict[str, Any]:
    """Return the object in a stored text."""
    found = _decoded(text)
    return found if isinstance(found, dict) else {}


def stored_pairs(text: object) -> dict[str, tuple[int, int]]:
    """Return the pairs of counts in a stored object; other values are left out."""
    return {
        name: (entry[0], entry[1])
        for name, entry in stored_object(text).items()
        if isinstance(entry, list) and list(map(_is_count, entry)) == [True, True]
    }


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_COUNT


def _decoded(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):  # also a whole number of more than 4,300 digits, which SQLite takes for JSON
        return None
