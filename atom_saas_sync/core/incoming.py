"""What we accept from a marketplace: lists, skills, categories, ratings, messages (marketplace-api.md).

Forgiving where nothing is lost: unknown fields are kept, and an unusable item is an InvalidItem that never stops the
rest. Exact where it matters: ids, types, sizes. A body that breaks the contract as a whole raises BadResponse.
What we send is in core/outgoing.py, the forms of a time in times.py.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from hashlib import sha256
from sys import getsizeof
from typing import Any
from unicodedata import is_normalized

import msgspec
from msgspec import Raw, Struct, field
from msgspec.structs import astuple

from atom_saas_sync.characters import DEFAULT_IGNORABLE
from atom_saas_sync.core.canonical import (
    Shape,
    TwiceError,
    canonical,
    decode_object,
    decode_with_shape,
    is_plain,
    json_text,
    no_object,
    one_meaning,
    refuse_twice,
    version_from,
)
from atom_saas_sync.errors import BadResponse, TooLarge
from atom_saas_sync.model import Category, InvalidItem, RatingReceipt, RemoteRating, SkillPage, SkillVersion
from atom_saas_sync.times import parse_time

MAX_SKILL_BYTES = 1024 * 1024
MAX_ID_LENGTH = 256
MAX_FRAME_BYTES = 1024 * 1024
MAX_PAGE_ITEMS = 1000
"""The largest `page_size` of the contract. A server may send more than was asked for, but not more than that."""

MAX_PAGE_MEMORY = 40 * 1024 * 1024
"""Of the changed skills of a page, or of another answer, decoded. More is refused, and pages asked for in smaller."""

MAX_MESSAGE_MEMORY = 24 * 1024 * 1024
"""Of a message, decoded, estimated from above. Larger ones are dropped: polling fetches what they said."""

MAX_CATEGORIES = 10_000
MAX_COUNT = 2**53
"""Larger whole numbers are not the same number in every JSON parser, and none is a count."""

TEXT_FIELDS = ("name", "description", "version", "code", "command", "category", "skill_type")
TIME_FIELDS = ("created_at",)
MAX_RATINGS = 100
MAX_COMMENT_LENGTH = 1000
_TEXT_LIST_FIELDS = ("python_packages", "npm_packages", "tags")
_TEXT_TYPES = frozenset({str})
_NUMBER_TYPES = frozenset({int, float})
_TIME_TYPES = _TEXT_TYPES | _NUMBER_TYPES
_STARS = range(1, 6)
_STARS_AS_TEXT = frozenset(map(str, _STARS))
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# Bodies (section 5)


def is_utf8(body: bytes) -> bool:
    """Tell whether a body is UTF-8. One that is not was probably damaged on its way."""
    if body.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(body), _CHUNK):  # in the processor's cache; a whole copy takes four times the memory
            decoder.decode(body[start : start + _CHUNK], final=start + _CHUNK >= len(body))
    except UnicodeDecodeError:
        return False
    return True


def memory_of(text: str) -> int:
    """Estimate, from above, the memory that JSON takes as text and decoded, in bytes.

    Many small values take thirty times their text; a character like an emoji makes the whole text around it four
    times as large, also one that is written as an escape.
    """
    shape = Shape(0, text.count(","), text.count("[") + text.count("{"), has_exponent=False)
    return _memory(text, shape, escaped=True)


def _memory(text: str, shape: Shape, *, escaped: bool) -> int:
    r"""Estimate the memory of a text of that shape; it has no `\u` unless it may be `escaped`."""
    size = getsizeof(text)
    decoded = max(size, _WIDEST * len(text)) if escaped and "\\u" in text else size
    return size + decoded + _VALUE_BYTES * shape.values + _CONTAINER_BYTES * shape.containers


_WIDEST, _VALUE_BYTES, _CONTAINER_BYTES, _MESSAGE_BYTES = 4, 32, 100, 1024
_CHUNK = 16 * 1024
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]', re.DOTALL)
_MAX_TOKENS = 8_000_000


def _cut(body: bytes, key: bytes, limit: int) -> tuple[bytes, list[bytes]] | None:
    """Return the body with an empty list, and the items of that list; None if the brackets do not match.

    The list is the value of `key`, or the whole body. For lists that the fast parser refuses as a whole because one
    item is half a surrogate pair, absurdly nested, or a number out of range. Raises BadResponse for more items than
    `limit`.
    """
    named = re.compile(rb'"' + key + rb'"\s*:\s*\Z')
    depth, level, start, begin, items = 0, -1, 0, 0, []
    for number, token in enumerate(_TOKEN.finditer(body)):
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


def _is_json_if_odd(item: bytes) -> bool:
    """Tell whether an item is JSON, or was refused for what it says rather than for how it is written."""
    try:
        json.loads(item.decode(errors="replace"))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)


_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


def check_memory(body: bytes, what: str) -> None:
    """Raise TooLarge if a body would take more memory, decoded, than MAX_PAGE_MEMORY."""
    if memory_of(body.decode(errors="replace")) > MAX_PAGE_MEMORY:
        raise TooLarge(f"{what} would take too much memory ({len(body)} bytes)")


# The list of skills, and one skill (section 3)


_NONE = Raw(b"")


@cache
def _page_decoder() -> Callable[[bytes], Any]:
    # A structure of so many fields: unlike a list, it is refused at the first item too many.
    fields = [(f"i{number}", Raw, _NONE) for number in range(MAX_PAGE_ITEMS)]
    items = msgspec.defstruct("items", fields, array_like=True, forbid_unknown_fields=True)
    page = msgspec.defstruct("page", [("skills", items | None), ("total", Any, None)])
    return msgspec.json.Decoder(page).decode


def parse_skill_page(body: bytes, *, page: int, page_size: int) -> SkillPage:
    """Cut a page of the list into its items, unparsed.

    Raises BadResponse if the body is not JSON, not of the contract's form, or has more than MAX_PAGE_ITEMS.
    """
    decode = _page_decoder()
    try:
        form = decode(body)
        items = None if form.skills is None else tuple(item for item in astuple(form.skills) if item is not _NONE)
    except _UNREADABLE as error:
        cut = _cut(body, b"skills", MAX_PAGE_ITEMS)
        if cut is None:
            raise BadResponse(f"the list of skills is not of the expected form: {_reason(error)}") from error
        try:
            form = decode(cut[0])
        except _UNREADABLE as second:
            raise BadResponse(f"the list of skills is not of the expected form: {_reason(second)}") from second
        if not all(map(_is_json_if_odd, cut[1])):
            raise BadResponse(f"the list of skills is not JSON: {_reason(error)}") from error
        items = tuple(map(Raw, cut[1]))
    total = _count(form.total)
    if items is None:
        # Some languages write an empty list as null. Only where the list has ended: it must not look empty by accident.
        if total is None or (page - 1) * page_size < total:
            raise BadResponse("the list of skills is not of the expected form: `skills` is null")
        items = ()
    return SkillPage(items=items, total=total)


def _count(value: object) -> int | None:
    """Return a count if that is what the value is."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT else None


def read_skill(raw: bytes, wire_digest: bytes | None = None) -> SkillVersion | InvalidItem:
    """Validate one item of the list, or the body of one skill."""
    if len(raw) > MAX_SKILL_BYTES:
        return InvalidItem(_guess_id(raw), f"larger than {MAX_SKILL_BYTES} bytes")
    decoded = decode_with_shape(raw)
    if decoded is None:
        return InvalidItem(_guess_id(raw), no_object(raw), damaged=not is_utf8(raw))
    fields, shape = decoded
    skill_id, problem = _read_update(fields)
    if problem or not isinstance(skill_id, str):
        return InvalidItem(skill_id if isinstance(skill_id, str) and not id_problem(skill_id) else None, problem or "")
    plain = is_plain(raw, fields)
    try:
        text = raw.decode() if plain else one_meaning(raw, fields)
    except TwiceError as error:
        return InvalidItem(_guess_id(raw), str(error))
    # What is plain has no escapes but of control characters, which are not wide.
    memory = _memory(text, shape, escaped=not plain)
    fields, dropped = without_malformed(fields)
    if dropped:
        text = json_text(fields)
    version = version_from(
        skill_id, text, fields, wire_digest or sha256(raw).digest(), dropped=dropped, shape=shape, memory=memory
    )
    ambiguous = name_problem(skill_id)
    return version if ambiguous is None else InvalidItem(skill_id, ambiguous, if_held=version)


def id_problem(skill_id: object) -> str | None:
    """Say why this can't be the id of a skill ("One skill"), or return None."""
    if not isinstance(skill_id, str):
        return "no skill_id" if skill_id is None else "skill_id is not a string"
    if skill_id in {"", ".", ".."}:
        return "skill_id is empty or dots"
    if len(skill_id) > MAX_ID_LENGTH:
        return f"skill_id is longer than {MAX_ID_LENGTH} characters"
    if _CONTROL.search(skill_id):
        return "skill_id has control characters"
    return None


_USUAL_ID = re.compile(r"[A-Za-z0-9_@+:-][A-Za-z0-9_@+:.-]*")
_HIDDEN = re.compile(f"[\u2028\u2029\u2800\ufff9-\ufffb{DEFAULT_IGNORABLE}]")


def name_problem(skill_id: str) -> str | None:
    """Say why an id could be taken for another one, or return None (docs/TRUST.md, "One name")."""
    if _USUAL_ID.fullmatch(skill_id):
        return None
    if skill_id.strip() != skill_id:
        return "skill_id has blanks at its ends"
    if "\\" in skill_id:
        return "skill_id has a backslash"
    if _HIDDEN.search(skill_id):
        return "skill_id has invisible characters"
    if not {"", ".", ".."}.isdisjoint(skill_id.split("/")):
        return "skill_id has a part between slashes that is empty or dots"
    return None if is_normalized("NFC", skill_id) else "skill_id is not in Unicode's form NFC"


def skill_problem(fields: dict[str, Any]) -> str | None:
    """Say which field of a skill has a wrong type, or return None. All fields but `name` may be absent or null."""
    if not isinstance(fields.get("name"), str):
        return "no name" if fields.get("name") is None else "name is not a string"
    return partial_problem(fields)


def partial_problem(fields: dict[str, Any]) -> str | None:
    """Like `skill_problem` for part of a skill, as WebSocket messages may carry."""
    for name in TEXT_FIELDS:
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            return f"{name} is not a string"
    for name in TIME_FIELDS:
        value = fields.get(name)
        if value is not None and type(value) not in _TIME_TYPES:
            return f"{name} is not a time"
    for name in _TEXT_LIST_FIELDS:
        value = fields.get(name)
        if value is not None and not (isinstance(value, list) and _TEXT_TYPES.issuperset(map(type, value))):
            return f"{name} is not a list of strings"
    value = fields.get("metadata")
    if value is not None and not isinstance(value, dict):
        return "metadata is not an object"
    return None


def without_malformed(fields: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return `fields` without what is malformed in the volatile ones, and the names of those that it was in.

    They reach a skill without anybody's approval, so they hold figures and times, and no texts but ratings.
    """
    wrong = tuple(
        name
        for name in _FORMS
        if (value := fields.get(name)) is not None and (name == "ratings" or not _FORMS[name](value))
    )
    if not wrong:
        return fields, ()
    formed = {name: value for name, value in fields.items() if name not in wrong or name == "ratings"}
    if isinstance(fields.get("ratings"), list):
        ratings = list(filter(None, map(_formed_rating, fields["ratings"][:MAX_RATINGS])))
        if ratings == fields["ratings"]:
            wrong = tuple(name for name in wrong if name != "ratings")
        else:
            formed["ratings"] = ratings
    else:
        formed.pop("ratings", None)
    return formed if wrong else fields, wrong


def _formed_rating(entry: object) -> dict[str, Any] | None:
    """Return an entry of `ratings` without fields that the contract does not know; None if one has another form."""
    if not isinstance(entry, dict) or _stars(entry.get("rating")) is None:
        return None
    comment = entry.get("comment")
    if not isinstance(comment, str | None) or len(comment or "") > MAX_COMMENT_LENGTH:
        return None
    for names, has_form in ((_RATING_IDS, _identifier), (_RATING_TIMES, parse_time)):
        if any(entry.get(name) is not None and has_form(entry[name]) is None for name in names):
            return None
    return {name: value for name, value in entry.items() if name in _RATING_FIELDS}


def _is_figure(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


_FORMS: dict[str, Callable[[Any], bool]] = {
    "updated_at": lambda value: parse_time(value) is not None,
    "average_rating": lambda value: _is_figure(value, _STARS[-1]),
    "rating_count": lambda value: _is_figure(value, MAX_COUNT),
    "ratings": lambda value: isinstance(value, list),
}
_RATING_IDS, _RATING_TIMES = ("user_id", "rating_id", "skill_id"), ("created_at", "updated_at")
_RATING_FIELDS = frozenset({"rating", "comment", *_RATING_IDS, *_RATING_TIMES})


_MAX_TOKENS_BEFORE_ID = 10_000
_STRING_VALUE = re.compile(rb'\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)


def _guess_id(raw: bytes) -> str | None:
    """Return the id that an item has which can't be read as a whole; never one of what is inside it."""
    found: dict[bytes, str] = {}
    depth = 0
    for number, token in enumerate(_TOKEN.finditer(raw)):
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


# Categories (section 3)


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
        elif isinstance(name, str) and name and not _CONTROL.search(name):
            good[name] = Category(name=name, text=canonical(entry).decode())
        else:
            bad.append(InvalidItem(None, "a category without a usable name"))
    return list(good.values()), bad


def _split_categories(body: bytes) -> list[bytes]:
    problem: Exception | None = None
    if body.count(b",") < MAX_CATEGORIES:  # no more commas, no more items
        try:
            form = _decode_categories(body)
        except _UNREADABLE as error:
            problem = error
        else:
            return list(map(bytes, form.categories if isinstance(form, _Categories) else form))
    cut = _cut(body, b"categories", MAX_CATEGORIES)
    try:
        if cut is not None and all(map(_is_json_if_odd, cut[1])):
            _decode_categories(cut[0])
            return cut[1]
    except _UNREADABLE as error:
        problem = error
    reason = _reason(problem) if problem else "it is not JSON"
    raise BadResponse(f"the list of categories is not of the expected form: {reason}") from problem


# Error answers (section 3, "Errors and limits")

_ERROR_FIELDS = ("error", "message", "detail", "description", "title", "msg", "reason", "errors")
_MOST_NESTED_ERRORS = 4


def error_words(body: bytes) -> str:
    """Return what the body of an error answer says, in the marketplace's own words: JSON, or plain text; else ""."""
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


# Ratings (section 3, "One skill" and "Send a rating")


def _lenient_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body holds, also if some text or number in it is not valid."""
    fields = decode_object(body)
    if fields is not None:
        return fields
    try:
        document = json.loads(body.decode(errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def parse_receipt(body: bytes, *, known_id: str | None = None) -> RatingReceipt:
    """Read the answer to a rating that was taken; `known_id` is its id if the answer may leave it out.

    Raises BadResponse if it is not of the contract's form.
    """
    document = _lenient_object(body)
    if document is None:
        raise BadResponse("the answer to a rating is not a JSON object")
    if document.get("success", True) is not True:
        raise BadResponse("the answer to a rating says that it was no success, with a status that says it was")
    rating_id = _identifier(document.get("rating_id")) or known_id
    if rating_id is None:
        raise BadResponse("the answer to a rating has no usable rating_id")
    return RatingReceipt(rating_id, _average(document.get("average_rating")), _count(document.get("rating_count")))


def parse_conflict(body: bytes, *, skill_id: str, user_id: str) -> RemoteRating | None:
    """Return the stored rating that a 409 shows, flat or nested in `rating`; None if it shows none that is ours."""
    document = _lenient_object(body)
    if document is None:
        return None
    nested = document.get("rating")
    fields = nested if isinstance(nested, dict) else document
    if fields.get("skill_id", skill_id) != skill_id or fields.get("user_id", user_id) != user_id:
        return None
    return _remote_rating(fields)


def parse_skill_ratings(body: bytes) -> tuple[RemoteRating, ...]:
    """Return the usable ratings among those that a skill shows. Raises BadResponse if it is not a skill."""
    document = _lenient_object(body)
    if document is None:
        raise BadResponse("the answer for a skill is not a JSON object")
    entries = document.get("ratings")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise BadResponse("the answer for a skill is not of the expected form: `ratings` is not a list")
    found = (_remote_rating(entry) for entry in entries if isinstance(entry, dict))
    return tuple(rating for rating in found if rating is not None)


def _remote_rating(fields: dict[str, Any]) -> RemoteRating | None:
    stars, comment = _stars(fields.get("rating")), fields.get("comment")
    if stars is None or not isinstance(comment, str | None):
        return None
    user_id, updated_at = fields.get("user_id"), fields.get("updated_at")
    return RemoteRating(
        stars=stars,
        comment=_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", comment) if comment else None,
        rating_id=_identifier(fields.get("rating_id")),
        user_id=user_id if isinstance(user_id, str) else None,
        # Of one that was changed at an unreadable time, nobody can tell when.
        rated_at=parse_time(fields.get("created_at") if updated_at is None else updated_at),
    )


def _stars(value: object) -> int | None:
    if isinstance(value, str):
        value = int(value) if value in _STARS_AS_TEXT else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in _STARS:
        return None
    return int(value)


def _identifier(value: object) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and id_problem(text) is None and not _SURROGATE.search(text) else None


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
    `only_if_held` says that its id could be taken for another one: no skill of that id is added. `shape` is that of
    the fields, or of more than them, and `memory` how many bytes all takes, estimated from above.
    """

    type: str
    key: str = ""
    text: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    sent_at: datetime | None = None
    updated_at: datetime | None = None
    only_if_held: bool = False
    shape: Shape | None = None
    memory: int = 0

    @property
    def brings_news(self) -> bool:
        """Tell whether it is about the catalogue; the others are about the connection, or nobody knows."""
        return self.key != ""


class Malformed(Struct, frozen=True):
    """A frame that is no usable message, and why. The reason repeats nothing of its content."""

    reason: str


_LARGE_FRAME = 64 * 1024
_NULL = Raw(b"null")
_decode = msgspec.json.Decoder().decode
_decode_envelope = msgspec.json.Decoder(dict[str, Raw]).decode


def _open_envelope(frame: str) -> tuple[object, object, bytes] | Malformed:
    """Return a frame's type, its timestamp, and its data as JSON."""
    if len(frame) > _LARGE_FRAME and memory_of(frame) > MAX_MESSAGE_MEMORY:
        return Malformed("it would take too much memory")
    try:
        raw = frame.encode()
        envelope = _decode_envelope(raw)
        data = bytes(envelope.get("data", _NULL))
        # Without the data, which is looked at later: it is most of the frame.
        if not is_plain(raw.replace(data, b"null", 1), {**envelope, "data": _NULL}):
            refuse_twice(raw)
        kind, timestamp = (_decode(envelope.get(name, _NULL)) for name in ("type", "timestamp"))
    except TwiceError as error:
        return Malformed(str(error))
    except (msgspec.MsgspecError, ValueError):
        return Malformed("no JSON object of valid text")
    except RecursionError:
        return Malformed("too deeply nested")
    return kind, timestamp, data


def parse_frame(frame: str | bytes) -> Message | Malformed:  # noqa: PLR0911 - a reason each
    """Read one frame: a text, or the bytes of a binary one, which the contract has no use for."""
    if isinstance(frame, bytes):
        return Malformed("a binary frame")
    envelope = _open_envelope(frame)
    if isinstance(envelope, Malformed):
        return envelope
    kind, timestamp, raw = envelope
    if not isinstance(kind, str):
        return Malformed("no type")
    sent_at = parse_time(timestamp)
    if kind in {PING, PONG}:
        return Message(kind, sent_at=sent_at)
    read = _READERS.get(kind)
    if read is None:
        return Message(UNKNOWN, sent_at=sent_at)
    decoded = decode_with_shape(raw)
    if decoded is None:
        return Malformed(f"{kind}: data: {no_object(raw)}")
    fields, shape = decoded
    key, problem = read(fields)
    if problem or not isinstance(key, str):
        return Malformed(f"{kind}: {problem}")
    plain = is_plain(raw, fields)
    try:
        text = raw.decode() if plain else one_meaning(raw, fields)
    except TwiceError as error:
        return Malformed(f"{kind}: {error}")
    memory = _MESSAGE_BYTES + _memory(text, shape, escaped=not plain)
    if kind != CATEGORY_UPDATE:
        fields, dropped = without_malformed(fields)
        text = json_text(fields) if dropped else text
    odd = kind != CATEGORY_UPDATE and name_problem(key) is not None
    return Message(kind, key, text, fields, sent_at, parse_time(fields.get("updated_at")), odd, shape, memory)


def _read_update(fields: dict[str, Any]) -> tuple[object, str | None]:
    skill_id, problem = _read_deletion(fields)
    return skill_id, problem or skill_problem(fields)


def _read_deletion(fields: dict[str, Any]) -> tuple[object, str | None]:
    skill_id, other = fields.get("skill_id", fields.get("id")), fields.get("id")
    problem = id_problem(skill_id)
    return skill_id, problem or (None if other is None or other == skill_id else "skill_id and id differ")


def _read_rating(fields: dict[str, Any]) -> tuple[object, str | None]:
    skill_id = fields.get("skill_id", fields.get("id"))
    stars = fields.get("rating")
    if isinstance(stars, bool) or not isinstance(stars, int | float) or not 1 <= stars <= 5:  # noqa: PLR2004 - stars
        return skill_id, id_problem(skill_id) or "rating is not a number from 1 to 5"
    return skill_id, id_problem(skill_id)


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
