"""The list of skills, and one skill (marketplace-api.md, section 3)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import astuple

from atom_saas_sync.core.canonical import (
    AmbiguousError,
    decode_with_shape,
    is_plain,
    json_text,
    no_object,
    one_meaning,
    version_from,
)
from atom_saas_sync.core.incoming.bodies import (
    TOKEN,
    UNREADABLE,
    cut_list,
    is_json_if_odd,
    is_utf8,
    memory_of_shape,
    reason_of,
)
from atom_saas_sync.core.incoming.fields import id_problem, name_problem, read_count, read_update, without_malformed
from atom_saas_sync.core.incoming.limits import MAX_PAGE_ITEMS, MAX_SKILL_BYTES
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import FetchedPage, InvalidItem, SkillVersion

_NONE = Raw(b"")


@cache
def _page_decoder() -> Callable[[bytes], Any]:
    # A structure with this many fields: unlike a list, it is refused at the first item too many.
    fields = [(f"i{number}", Raw, _NONE) for number in range(MAX_PAGE_ITEMS)]
    items = msgspec.defstruct("items", fields, array_like=True, forbid_unknown_fields=True)
    page = msgspec.defstruct("page", [("skills", items | None), ("total", Any, None)])
    return msgspec.json.Decoder(page).decode


def parse_skill_page(body: bytes, *, page: int, page_size: int) -> FetchedPage:
    """Split a page of the list into unparsed items.

    Raises BadResponse if the body is not JSON, not of the contract's form, or has more than MAX_PAGE_ITEMS items.
    """
    decode = _page_decoder()
    try:
        form = decode(body)
        items = None if form.skills is None else tuple(item for item in astuple(form.skills) if item is not _NONE)
    except UNREADABLE as error:
        cut = cut_list(body, b"skills", MAX_PAGE_ITEMS)
        if cut is None:
            raise BadResponse(f"the list of skills is not of the expected form: {reason_of(error)}") from error
        try:
            form = decode(cut[0])
        except UNREADABLE as second:
            raise BadResponse(f"the list of skills is not of the expected form: {reason_of(second)}") from second
        if not all(map(is_json_if_odd, cut[1])):
            raise BadResponse(f"the list of skills is not JSON: {reason_of(error)}") from error
        items = tuple(map(Raw, cut[1]))
    total = read_count(form.total)
    if items is None:
        # Some languages write an empty list as null. Accepted only past the end: no list may look empty by accident.
        if total is None or (page - 1) * page_size < total:
            raise BadResponse("the list of skills is not of the expected form: `skills` is null")
        items = ()
    return FetchedPage(items, total, size=len(items), size_bytes=sum(map(len, items)))


def read_skill(raw: bytes, wire_digest: bytes | None = None) -> SkillVersion | InvalidItem:
    """Validate one item of the list, or the body of one skill."""
    if len(raw) > MAX_SKILL_BYTES:
        return InvalidItem(_guess_id(raw), f"larger than {MAX_SKILL_BYTES} bytes")
    decoded = decode_with_shape(raw)
    if decoded is None:
        return InvalidItem(_guess_id(raw), no_object(raw), damaged=not is_utf8(raw))
    fields, shape = decoded
    skill_id, problem = read_update(fields)
    if problem or not isinstance(skill_id, str):
        return InvalidItem(skill_id if isinstance(skill_id, str) and not id_problem(skill_id) else None, problem or "")
    plain = is_plain(raw, fields)
    try:
        text = raw.decode() if plain else one_meaning(raw, fields)
    except AmbiguousError as error:
        return InvalidItem(_guess_id(raw), str(error))
    # A plain item has no escapes except for control characters, which are not wide.
    memory = memory_of_shape(text, shape, escaped=not plain)
    fields, dropped = without_malformed(fields)
    if dropped:
        text = json_text(fields)
    version = version_from(
        skill_id, text, fields, wire_digest or sha256(raw).digest(), dropped=dropped, shape=shape, memory=memory
    )
    ambiguous = name_problem(skill_id)
    return version if ambiguous is None else InvalidItem(skill_id, ambiguous, if_held=version)


_MAX_TOKENS_BEFORE_ID = 10_000
_STRING_VALUE = re.compile(rb'\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)


def _guess_id(raw: bytes) -> str | None:
    """Return the id of an item that cannot be parsed as a whole; never the id of something nested in it."""
    found: dict[bytes, str] = {}
    depth = 0
    for number, token in enumerate(TOKEN.finditer(raw)):
        kind = token.group()
        if number > _MAX_TOKENS_BEFORE_ID:
            break
        depth += (kind in b"[{") - (kind in b"]}")
        if depth == 1 and kind in {b'"skill_id"', b'"id"'}:
            value = _STRING_VALUE.match(raw, token.end())
            name = value and json.loads(value[1].decode(errors="replace"), strict=False)
            if isinstance(name, str) and id_problem(name) is None and name.isprintable():
                found[kind] = name
    return found.get(b'"skill_id"', found.get(b'"id"'))
