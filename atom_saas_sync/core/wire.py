"""Validation of what comes over the wire (marketplace-api.md, section 3): strict in form, tolerant in content.

A body that is not the contract is a BadResponse; an item that is not usable is an InvalidItem and never stops the
rest; unknown fields are kept.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import msgspec

from atom_saas_sync.core.canonical import decode_object, json_text, version_from
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import Category, InvalidItem, SkillPage, SkillVersion

MAX_SKILL_BYTES = 1024 * 1024
MAX_ID_LENGTH = 256

TEXT_FIELDS = (
    "name",
    "description",
    "version",
    "code",
    "command",
    "category",
    "skill_type",
    "created_at",
    "updated_at",
)
_TEXT_LIST_FIELDS = ("python_packages", "npm_packages", "tags")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class _PageForm(msgspec.Struct):
    skills: list[msgspec.Raw]
    total: Any = None


_decode_page = msgspec.json.Decoder(_PageForm).decode


def parse_skill_page(body: bytes) -> SkillPage:
    """Cut a page of the list into its items, unparsed.

    Raises BadResponse if the body is not JSON, or not of the contract's form.
    """
    try:
        form = _decode_page(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # One item with a lone surrogate or absurd nesting makes the fast parser refuse the whole page.
        form = _decode_odd_page(body, error)
    total = form.total if isinstance(form.total, int) and not isinstance(form.total, bool) else None
    return SkillPage(items=tuple(form.skills), total=total)


def _decode_odd_page(body: bytes, error: Exception) -> _PageForm:
    cut = _cut_items(body)
    if cut is None:
        raise BadResponse(f"the list of skills is not of the expected form: {_reason(error)}") from error
    envelope, items = cut
    try:
        form = _decode_page(envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as second:
        raise BadResponse(f"the list of skills is not of the expected form: {_reason(second)}") from second
    if not all(_is_json_if_odd(item) for item in items):
        raise BadResponse(f"the list of skills is not JSON: {_reason(error)}") from error
    form.skills = [msgspec.Raw(item) for item in items]
    return form


def _is_json_if_odd(item: bytes) -> bool:
    if _SURROGATE_ESCAPE.search(item):
        return True
    try:
        msgspec.json.decode(item, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError):
        return False
    except RecursionError:
        return True
    return True


_SKILLS_KEY = re.compile(rb'"skills"\s*:\s*\Z')
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def _cut_items(body: bytes) -> tuple[bytes, list[bytes]] | None:
    """Return the body with an empty list of skills, and the items; None if the brackets do not match."""
    depth, start, begin, items = 0, None, None, []
    for token in _TOKEN.finditer(body):
        kind = token.group()
        if kind in b"[{":
            depth += 1
            if depth == 2 and kind == b"[" and _SKILLS_KEY.search(body, max(0, token.start() - 64), token.start()):  # noqa: PLR2004
                begin = start = token.end()
        elif kind in b"]}":
            depth -= 1
            if depth == 1 and begin is not None and start is not None:
                items.append(body[start : token.start()].strip())
                rest = body[:begin] + body[token.start() :]
                return rest, [item for item in items if item]
        elif kind == b"," and depth == 2 and start is not None:  # noqa: PLR2004 - inside the list itself
            items.append(body[start : token.start()].strip())
            start = token.end()
    return None


def _reason(error: Exception) -> str:
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)


def read_skill(raw: bytes, wire_digest: bytes | None = None) -> SkillVersion | InvalidItem:
    """Validate one item of the list, or the body of one skill."""
    if len(raw) > MAX_SKILL_BYTES:
        return InvalidItem(_guess_id(raw), f"larger than {MAX_SKILL_BYTES} bytes")
    fields = decode_object(raw)
    if fields is None:
        return InvalidItem(_guess_id(raw), "not a JSON object of valid text")
    skill_id = fields.get("skill_id", fields.get("id"))
    problem = id_problem(skill_id) or skill_problem(fields)
    if problem or not isinstance(skill_id, str):
        return InvalidItem(skill_id if isinstance(skill_id, str) else None, problem or "no skill_id")
    return version_from(skill_id, raw.decode(), fields, wire_digest or sha256(raw).digest())


def id_problem(skill_id: object) -> str | None:
    """Say why this can't be the id of a skill (marketplace-api.md, "One skill"), or None."""
    if not isinstance(skill_id, str):
        return "no skill_id" if skill_id is None else "skill_id is no text"
    if skill_id in {"", ".", ".."}:
        return "skill_id is empty or dots"
    if len(skill_id) > MAX_ID_LENGTH:
        return f"skill_id is longer than {MAX_ID_LENGTH} characters"
    if CONTROL.search(skill_id):
        return "skill_id has control characters"
    return None


def skill_problem(fields: dict[str, Any]) -> str | None:
    """Say which field of a skill has a type that can't be, or None. Absent and null fields are fine but `name`."""
    if not isinstance(fields.get("name"), str):
        return "no name" if fields.get("name") is None else "name is no text"
    return partial_problem(fields)


def partial_problem(fields: dict[str, Any]) -> str | None:
    """Like `skill_problem` for part of a skill, as WebSocket messages may carry."""
    for name in TEXT_FIELDS:
        if not isinstance(fields.get(name, ""), str | None):
            return f"{name} is no text"
    for name in _TEXT_LIST_FIELDS:
        value = fields.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(entry, str) for entry in value)):
            return f"{name} is no list of texts"
    if not isinstance(fields.get("metadata"), dict | None):
        return "metadata is no object"
    for name in ("average_rating", "rating_count"):
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return f"{name} is no number"
    return None


_ID_FIELD = re.compile(rb'"(?:skill_id|id)"\s*:\s*"([^"\\]{1,256})"')


def _guess_id(raw: bytes) -> str | None:
    found = _ID_FIELD.search(raw[:4096])
    return found.group(1).decode(errors="replace") if found else None


def parse_categories(body: bytes) -> tuple[list[Category], list[InvalidItem]]:
    """Read the categories: an object with a list, or a bare list. Raises BadResponse for any other form."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadResponse(f"the list of categories is not JSON: {_reason(error)}") from error
    entries = document.get("categories") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise BadResponse("the list of categories is not of the expected form: no list `categories`")
    good: dict[str, Category] = {}
    bad: list[InvalidItem] = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name and not CONTROL.search(name):
            good[name] = Category(name=name, text=json_text(entry))
        else:
            bad.append(InvalidItem(None, "a category without a usable name"))
    return list(good.values()), bad
