"""What we accept from a marketplace: lists, skills, categories, ratings, messages, times (marketplace-api.md).

Forgiving where nothing is lost: unknown fields are kept, and an unusable item is an InvalidItem that never stops the
rest. Exact where it matters: ids, types, sizes. A body that breaks the contract as a whole raises BadResponse.
What we send is in core/outgoing.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct, field

from atom_saas_sync.core.canonical import canonical, decode_object, version_from
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import Category, InvalidItem, RatingReceipt, RemoteRating, SkillPage, SkillVersion
from atom_saas_sync.times import parse_time

MAX_SKILL_BYTES = 1024 * 1024
MAX_ID_LENGTH = 256
MAX_FRAME_BYTES = 1024 * 1024

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
_STARS = range(1, 6)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


# Times (section 3, "List skills")

_YEARS = range(1900, 9000)


def read_time(text: object) -> datetime | None:
    """Return the moment in UTC that an ISO 8601 text means, None if it means none that can be told.

    The ends of the calendar stand for no time (the year 1 is how some languages write zero); nobody can add to them.
    """
    moment = parse_time(text)
    return moment.astimezone(UTC) if moment is not None and moment.year in _YEARS else None


# The list of skills, and one skill (section 3)


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
    if _CONTROL.search(skill_id):
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


# Categories (section 3)


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
        if isinstance(name, str) and name and not _CONTROL.search(name):
            good[name] = Category(name=name, text=canonical(entry).decode())
        else:
            bad.append(InvalidItem(None, "a category without a usable name"))
    return list(good.values()), bad


# Ratings (section 3, "One skill" and "Send a rating")


def parse_receipt(body: bytes, *, known_id: str | None = None) -> RatingReceipt:
    """Read the answer to a rating that was taken; `known_id` is its id if the answer may leave it out.

    Raises BadResponse if it is not of the contract's form.
    """
    document = decode_object(body)
    if document is None:
        raise BadResponse("the answer to a rating is not a JSON object")
    if document.get("success", True) is not True:
        raise BadResponse("the answer to a rating says that it was no success, with a status that says it was")
    rating_id = _identifier(document.get("rating_id")) or known_id
    if rating_id is None:
        raise BadResponse("the answer to a rating has no usable rating_id")
    count = document.get("rating_count")
    return RatingReceipt(
        rating_id,
        _average(document.get("average_rating")),
        count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 1 << 53 else None,
    )


def parse_conflict(body: bytes, *, skill_id: str, user_id: str) -> RemoteRating | None:
    """Return the stored rating that a 409 shows, flat or nested in `rating`; None if it shows none that is ours."""
    document = decode_object(body)
    if document is None:
        return None
    nested = document.get("rating")
    fields = nested if isinstance(nested, dict) else document
    if fields.get("skill_id", skill_id) != skill_id or fields.get("user_id", user_id) != user_id:
        return None
    return _remote_rating(fields)


def parse_skill_ratings(body: bytes) -> tuple[RemoteRating, ...]:
    """Return the usable ratings among those that a skill shows. Raises BadResponse if it is no skill."""
    document = decode_object(body)
    if document is None:
        raise BadResponse("the answer for a skill is not a JSON object")
    entries = document.get("ratings")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise BadResponse("the answer for a skill is not of the expected form: `ratings` is no list")
    found = (_remote_rating(entry) for entry in entries if isinstance(entry, dict))
    return tuple(rating for rating in found if rating is not None)


def _remote_rating(fields: dict[str, Any]) -> RemoteRating | None:
    stars, comment = _stars(fields.get("rating")), fields.get("comment")
    if stars is None or not isinstance(comment, str | None):
        return None
    user_id, updated_at = fields.get("user_id"), fields.get("updated_at")
    return RemoteRating(
        stars=stars,
        comment=comment or None,
        rating_id=_identifier(fields.get("rating_id")),
        user_id=user_id if isinstance(user_id, str) else None,
        # Of one that was changed at an unreadable time, nobody can tell when.
        rated_at=read_time(fields.get("created_at") if updated_at is None else updated_at),
    )


def _stars(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in _STARS:
        return None
    return int(value)


def _identifier(value: object) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and id_problem(text) is None else None


def _average(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= _STARS[-1] else None


# Messages (section 4)

SKILL_UPDATE, CATEGORY_UPDATE, RATING_UPDATE, SKILL_DELETE = (
    "skill_update",
    "category_update",
    "rating_update",
    "skill_delete",
)
RATING_FIGURES = ("average_rating", "rating_count")
PING, PONG = "ping", "pong"
UNKNOWN = "unknown"
"""Under this type all are counted that the contract does not know: a label's values must be few."""


class Message(Struct, frozen=True):
    """One usable message. `key` is the skill's id or the category's name, `text` the JSON of `fields` as it came.

    `sent_at` is the message's own time, `updated_at` that of its data; None if it does not say. Both are UTC.
    """

    type: str
    key: str = ""
    text: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    sent_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def brings_news(self) -> bool:
        """Tell whether it is about the catalogue; the others are about the connection, or nobody knows."""
        return self.key != ""


class Malformed(Struct, frozen=True):
    """A frame that is no usable message, and why. The reason repeats nothing of its content."""

    reason: str


class _Envelope(msgspec.Struct):
    type: Any = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    timestamp: Any = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def parse_frame(frame: str | bytes) -> Message | Malformed:  # noqa: PLR0911 - a reason each
    """Read one frame: a text, or the bytes of a binary one, which the contract has no use for."""
    if isinstance(frame, bytes):
        return Malformed("a binary frame")
    try:
        envelope = _decode_envelope(frame)
    except (msgspec.DecodeError, UnicodeError):
        return Malformed("no JSON object of valid text")
    except RecursionError:
        return Malformed("too deeply nested")
    if not isinstance(envelope.type, str):
        return Malformed("no type")
    sent_at = read_time(envelope.timestamp)
    if envelope.type in {PING, PONG}:
        return Message(envelope.type, sent_at=sent_at)
    read = _READERS.get(envelope.type)
    if read is None:
        return Message(UNKNOWN, sent_at=sent_at)
    raw = bytes(envelope.data)
    fields = decode_object(raw)
    if fields is None:
        return Malformed(f"{envelope.type}: data is no JSON object of valid text")
    key, problem = read(fields)
    if problem or not isinstance(key, str):
        return Malformed(f"{envelope.type}: {problem}")
    return Message(envelope.type, key, raw.decode(), fields, sent_at, read_time(fields.get("updated_at")))


def _read_update(fields: dict[str, Any]) -> tuple[object, str | None]:
    skill_id = fields.get("skill_id", fields.get("id"))
    return skill_id, id_problem(skill_id) or skill_problem(fields)


def _read_deletion(fields: dict[str, Any]) -> tuple[object, str | None]:
    skill_id = fields.get("skill_id", fields.get("id"))
    return skill_id, id_problem(skill_id)


def _read_rating(fields: dict[str, Any]) -> tuple[object, str | None]:
    skill_id = fields.get("skill_id", fields.get("id"))
    stars = fields.get("rating")
    if isinstance(stars, bool) or not isinstance(stars, int | float) or not 1 <= stars <= 5:  # noqa: PLR2004 - stars
        return skill_id, id_problem(skill_id) or "rating is no number from 1 to 5"
    figures: dict[str, Any] = {name: fields[name] for name in RATING_FIGURES if name in fields}
    return skill_id, id_problem(skill_id) or partial_problem(figures)


def _read_category(fields: dict[str, Any]) -> tuple[object, str | None]:
    name = fields.get("name")
    usable = isinstance(name, str) and name and not _CONTROL.search(name)
    return name, None if usable else "no usable name"


_READERS: dict[str, Callable[[dict[str, Any]], tuple[object, str | None]]] = {
    SKILL_UPDATE: _read_update,
    SKILL_DELETE: _read_deletion,
    RATING_UPDATE: _read_rating,
    CATEGORY_UPDATE: _read_category,
}
