"""Read JSON that may have been stored by another program: what is no such document counts as an empty one."""

from __future__ import annotations

import json
from typing import Any


def stored_list(text: object) -> list[Any]:
    """Return the list in a stored text."""
    found = _decoded(text)
    return found if isinstance(found, list) else []


def stored_object(text: object) -> dict[str, Any]:
    """Return the object in a stored text."""
    found = _decoded(text)
    return found if isinstance(found, dict) else {}


def _decoded(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):  # also a whole number of more than 4,300 digits, which SQLite takes for JSON
        return None
