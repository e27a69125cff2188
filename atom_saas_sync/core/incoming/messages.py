"""WebSocket messages (marketplace-api.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct, field

from atom_saas_sync.core.canonical import (
    AmbiguousError,
    Shape,
    decode_with_shape,
    is_plain,
    json_text,
    no_object,
    one_meaning,
    refuse_ambiguous,
)
from atom_saas_sync.core.incoming.bodies import MESSAGE_BYTES, memory_of, memory_of_shape
from atom_saas_sync.core.incoming.fields import (
    CONTROL,
    id_problem,
    name_problem,
    read_deletion,
    read_update,
    without_malformed,
)
from atom_saas_sync.core.incoming.limits import MAX_MESSAGE_MEMORY
from atom_saas_sync.times import parse_time

SKILL_UPDATE, CATEGORY_UPDATE, RATING_UPDATE, SKILL_DELETE = (
    "skill_update",
    "category_update",
    "rating_update",
    "skill_delete",
)
RATING_FIGURES = ("average_rating", "rating_count")
PING, PONG = "ping", "pong"
UNKNOWN = "unknown"
"""Counter label for message types outside the contract; keeps the label's cardinality bounded."""


class Message(Struct, frozen=True):
    """One valid message. `key` is the skill's id or the category's name, `text` the JSON of `fields` as received.

    `sent_at` is the message's own time, `updated_at` that of its data, both in UTC; None if missing. `only_if_held`
    means that its id could be mistaken for another one, so no skill with that id is added. `shape` is the shape of the
    fields, or of a value that contains them; `memory` is an upper estimate in bytes. `digest` is the SHA-256 of `text`,
    or None if `text` is not what was received.
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
    digest: bytes | None = None

    @property
    def brings_news(self) -> bool:
        """Tell whether it is about the catalogue; others are about the connection, or unknown."""
        return self.key != ""


class Malformed(Struct, frozen=True):
    """A frame that is not a valid message, and why. The reason repeats none of its content."""

    reason: str


_LARGE_FRAME = 64 * 1024
_NULL = Raw(b"null")
_decode = msgspec.json.Decoder().decode
_decode_envelope = msgspec.json.Decoder(dict[str, Raw]).decode


class _Envelope(NamedTuple):
    """A parsed frame: type, timestamp, data as JSON, and the decoded data if the type is known.

    A `plain` frame has no duplicate keys, not even in its data, and no keys spelled with escapes.
    """

    kind: object
    timestamp: object
    data: bytes
    decoded: tuple[dict[str, Any], Shape] | None
    plain: bool


def _open_envelope(frame: str) -> _Envelope | Malformed:
    if len(frame) > _LARGE_FRAME and memory_of(frame) > MAX_MESSAGE_MEMORY:
        return Malformed("it would take too much memory")
    try:
        raw = frame.encode()
        envelope = _decode_envelope(raw)
        data = bytes(envelope.get("data", _NULL))
        kind, timestamp = (_decode(envelope.get(name, _NULL)) for name in ("type", "timestamp"))
        decoded = decode_with_shape(data) if isinstance(kind, str) and kind in _READERS else None
        plain = decoded is not None and is_plain(raw, {**envelope, "data": decoded[0]})
        # Without the data, which is most of the frame: the caller checks it for duplicate keys.
        if not plain and not is_plain(raw.replace(data, b"null", 1), {**envelope, "data": _NULL}):
            refuse_ambiguous(raw)
    except AmbiguousError as error:
        return Malformed(str(error))
    except (msgspec.MsgspecError, ValueError):
        return Malformed("not a JSON object of valid text")
    except RecursionError:
        return Malformed("too deeply nested")
    return _Envelope(kind, timestamp, data, decoded, plain)


def parse_frame(frame: str | bytes) -> Message | Malformed:  # noqa: PLR0911 - a reason each
    """Read one frame: a text, or the bytes of a binary one, which the contract does not use."""
    if isinstance(frame, bytes):
        return Malformed("a binary frame")
    envelope = _open_envelope(frame)
    if isinstance(envelope, Malformed):
        return envelope
    kind, timestamp, raw, decoded, plain = envelope
    if not isinstance(kind, str):
        return Malformed("no type")
    sent_at = parse_time(timestamp)
    if kind in {PING, PONG}:
        return Message(kind, sent_at=sent_at)
    read = _READERS.get(kind)
    if read is None:
        return Message(UNKNOWN, sent_at=sent_at)
    if decoded is None:
        return Malformed(f"{kind}: data: {no_object(raw)}")
    fields, shape = decoded
    key, problem = read(fields)
    if problem or not isinstance(key, str):
        return Malformed(f"{kind}: {problem}")
    try:
        text = raw.decode() if plain else one_meaning(raw, fields)
    except AmbiguousError as error:
        return Malformed(f"{kind}: {error}")
    memory = MESSAGE_BYTES + memory_of_shape(text, shape, escaped=not plain)
    if kind != CATEGORY_UPDATE:
        fields, dropped = without_malformed(fields)
        text = json_text(fields) if dropped else text
        plain = plain and not dropped
    odd = kind != CATEGORY_UPDATE and name_problem(key) is not None
    digest = sha256(raw).digest() if plain else None
    updated_at = parse_time(fields.get("updated_at"))
    return Message(kind, key, text, fields, sent_at, updated_at, odd, shape, memory, digest)


def _read_rating(fields: dict[str, Any]) -> tuple[object, str | None]:
    skill_id = fields.get("skill_id", fields.get("id"))
    stars = fields.get("rating")
    if isinstance(stars, bool) or not isinstance(stars, int | float) or not 1 <= stars <= 5:  # noqa: PLR2004 - stars
        return skill_id, id_problem(skill_id) or "rating is not a number from 1 to 5"
    return skill_id, id_problem(skill_id)


def _read_category(fields: dict[str, Any]) -> tuple[object, str | None]:
    name = fields.get("name")
    usable = isinstance(name, str) and name and not CONTROL.search(name)
    return name, None if usable else "no valid name"


_READERS: dict[str, Callable[[dict[str, Any]], tuple[object, str | None]]] = {
    SKILL_UPDATE: read_update,
    SKILL_DELETE: read_deletion,
    RATING_UPDATE: _read_rating,
    CATEGORY_UPDATE: _read_category,
}
