"""The categories (marketplace-api.md, section 3)."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from atom_saas_sync.core.canonical import canonical, decode_object, no_object
from atom_saas_sync.core.incoming.bodies import UNREADABLE, cut_list, is_json_if_odd, reason_of
from atom_saas_sync.core.incoming.fields import CONTROL
from atom_saas_sync.core.incoming.limits import MAX_CATEGORIES
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import Category, InvalidItem


class _Categories(Struct):
    categories: list[Raw]


_decode_categories = msgspec.json.Decoder(_Categories | list[Raw]).decode


def parse_categories(body: bytes) -> tuple[list[Category], list[InvalidItem]]:
    """Read the categories: an object with a list, or a bare list.

    Raises BadResponse for any other form, and for too many.
    """
    good: dict[str, Category] = {}
    bad: list[InvalidItem] = []
    for raw in _split_categories(body):
        entry = decode_object(raw)
        name = None if entry is None else entry.get("name")
        if entry is None:
            bad.append(InvalidItem(None, f"a category: {no_object(raw)}"))
        elif isinstance(name, str) and name and not CONTROL.search(name):
            good[name] = Category(name=name, text=canonical(entry).decode())
        else:
            bad.append(InvalidItem(None, "a category without a valid name"))
    return list(good.values()), bad


def _split_categories(body: bytes) -> list[bytes]:
    problem: Exception | None = None
    if body.count(b",") < MAX_CATEGORIES:  # n items have n - 1 commas
        try:
            form = _decode_categories(body)
        except UNREADABLE as error:
            problem = error
        else:
            return list(map(bytes, form.categories if isinstance(form, _Categories) else form))
    cut = cut_list(body, b"categories", MAX_CATEGORIES)
    try:
        if cut is not None and all(map(is_json_if_odd, cut[1])):
            _decode_categories(cut[0])
            return cut[1]
    except UNREADABLE as error:
        problem = error
    reason = reason_of(problem) if problem else "it is not JSON"
    raise BadResponse(f"the list of categories is not of the expected form: {reason}") from problem
