"""Canonical JSON and our own digests of a skill, in their final form (docs/TRUST.md, "Identity of a version")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from atom_saas_sync.characters import without_hidden
from atom_saas_sync.model import SkillVersion

VOLATILE_FIELDS = frozenset({"average_rating", "rating_count", "ratings", "updated_at"})
"""Fields that never cause a conflict and always follow the marketplace (docs/CONFLICTS.md)."""

PACKAGE_FIELDS = frozenset({"python_packages", "npm_packages"})
"""Fields that are sets: their order does not matter."""

DESCRIPTIVE_FIELDS = frozenset(
    {
        "skill_id",
        "id",
        "name",
        "version",
        "description",
        "category",
        "tags",
        "examples",
        "created_at",
        "content_hash",
    }
)
"""Descriptive fields (docs/TRUST.md). Any other field, known or unknown, counts as executable."""

COUNTERS = frozenset({"downloads", "installs", "stars", "views", "likes", "releases"})
"""Keys of `metadata` that are volatile if their values are numbers."""

DESCRIPTIVE_METADATA = COUNTERS | {
    "author",
    "slug",
    "homepage",
    "documentation",
    "repository",
    "license",
    "keywords",
    "icon",
}
"""Descriptive keys of `metadata`."""

MAX_DEPTH = 100
"""Levels of nested objects and lists. The parser's own limit depends on the machine and on the call depth."""

_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_as_it_is = msgspec.json.Encoder().encode
_NUL = rb"\u0000"
_TEXT = re.compile(rb'"((?:[^"\\]++|\\.)*+)"\s*+(:?)', re.DOTALL)


class Shape(NamedTuple):
    """Properties of a decoded JSON value, collected in one traversal.

    `levels` is the depth of nested objects and lists; `values` and `containers` are counts.
    """

    levels: int
    values: int
    containers: int
    has_exponent: bool
    """Whether a number is written with an exponent."""


def shape_of(value: Any) -> Shape:  # noqa: ANN401 - whatever JSON can hold
    """Return the shape of a decoded JSON value."""
    levels, values, containers, has_exponent = 0, 1, 0, False
    nodes = [value]
    while True:
        inner: list[Any] = []
        for node in nodes:
            kind = type(node)
            if kind is str or kind is int:  # most are: the others need not be asked about
                continue
            if kind is list:
                containers += 1
                inner += node
            elif kind is dict:
                containers += 1
                inner += node.values()
            elif kind is float and node != 0 and not _LEAST_PLAIN <= abs(node) < _LEAST_LARGE:
                has_exponent = True
        if not inner:
            return Shape(levels, values, containers, has_exponent)
        levels += 1
        values += len(inner)
        nodes = inner


def canonical(value: Any, shape: Shape | None = None) -> bytes:  # noqa: ANN401 - whatever JSON can hold
    """Return the canonical JSON of `value`: the standard library's output with sorted keys and no white space.

    The fast encoder writes the same, except for numbers with an exponent, and refuses lone surrogates. `shape` is the
    shape of `value` or of a value that contains it.
    """
    if not (shape or shape_of(value)).has_exponent:
        try:
            return _encode(value)
        except UnicodeEncodeError:
            pass
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


_LEAST_PLAIN, _LEAST_LARGE = 1e-4, 1e16


def same(left: Any, right: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    """Tell whether two JSON values are the same; unlike with `==`, 1, 1.0 and true differ."""
    return left is right or _encode(left) == _encode(right)


def json_text(fields: Mapping[str, Any]) -> str:
    """Return `fields` as JSON text, keeping their order."""
    return msgspec.json.encode(fields).decode()


def content_digest(fields: Mapping[str, Any], shape: Shape | None = None) -> bytes:
    """Return SHA-256 over all fields except the volatile ones."""
    return sha256(canonical(without_volatile(fields), shape)).digest()


def exec_digest(fields: Mapping[str, Any], shape: Shape | None = None) -> bytes:
    """Return SHA-256 over the executable fields; an absent field, a null and an empty one are the same."""
    return sha256(canonical(executable_part(fields), shape)).digest()


def without_volatile(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` without those that never cause a conflict."""
    kept = dict(fields)
    for name in kept.keys() & VOLATILE_FIELDS:
        del kept[name]
    metadata = kept.get("metadata")
    if isinstance(metadata, dict) and not COUNTERS.isdisjoint(metadata):
        kept["metadata"] = {
            name: value for name, value in metadata.items() if name not in COUNTERS or not _counts(name, value)
        }
    return kept


def counters(metadata: object) -> dict[str, float]:
    """Return the counters in `metadata`, which are volatile too."""
    if not isinstance(metadata, dict) or COUNTERS.isdisjoint(metadata):
        return {}
    return {name: value for name, value in metadata.items() if _counts(name, value)}


def _counts(name: str, value: object) -> bool:
    return name in COUNTERS and isinstance(value, int | float) and not isinstance(value, bool)


def executable_part(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the executable fields, without null and empty ones (docs/TRUST.md)."""
    # Zero and false are values, unlike null, "", [] and {}.
    part = {name: value for name, value in fields.items() if name not in _NOT_EXECUTABLE and (value or value == 0)}
    if isinstance(metadata := part.get("metadata"), dict):
        part["metadata"] = {name: value for name, value in metadata.items() if name not in DESCRIPTIVE_METADATA}
        if not part["metadata"]:
            del part["metadata"]
    return part


_NOT_EXECUTABLE = DESCRIPTIVE_FIELDS | VOLATILE_FIELDS


def decode_object(raw: bytes | str) -> dict[str, Any] | None:
    """Return the JSON object in `raw`; None if there is none, or it is nested deeper than MAX_DEPTH."""
    try:
        value = _decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    # With so few brackets nothing is nested too deep: counting them is faster than walking.
    brackets = raw.count("[") + raw.count("{") if isinstance(raw, str) else raw.count(b"[") + raw.count(b"{")
    return value if brackets <= MAX_DEPTH or shape_of(value).levels <= MAX_DEPTH else None


def decode_with_shape(raw: bytes | str) -> tuple[dict[str, Any], Shape] | None:
    """Return the result of `decode_object`, with its shape."""
    try:
        value = _decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    shape = shape_of(value)
    return None if shape.levels > MAX_DEPTH else (value, shape)


class AmbiguousError(ValueError):
    """Parsers disagree about an object: it has a duplicate key, or one with U+0000, where SQLite ends a key."""


def is_plain(raw: bytes, value: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    """Tell whether `raw`, which was decoded to `value`, is our own encoding of it, except for white space.

    Then it has no duplicate key, of which `value` would contain only one, and no key with needless escapes or U+0000.
    """
    own = _encode_as_it_is(value)
    if _NUL in own:  # perhaps in a key
        return False
    if own == raw:
        return True
    try:
        return own == msgspec.json.format(raw, indent=-1)
    except msgspec.MsgspecError:  # a part of `raw` that `value` holds as it came may be half a surrogate pair
        return False


def refuse_ambiguous(raw: bytes) -> None:
    """Raise AmbiguousError if an object in the JSON `raw`, at any depth, has a duplicate key or one with U+0000."""
    json.loads(raw, object_pairs_hook=_object_of_pairs)


def one_meaning(raw: bytes, fields: Mapping[str, Any]) -> str:
    """Return the text to store for `raw`, decoded to `fields`, so that every reader sees the same content.

    This is `raw`, or our own encoding if a key has escapes, which SQLite does not decode. Raises AmbiguousError.
    """
    if is_plain(raw, fields):
        return raw.decode()
    refuse_ambiguous(raw)
    if any(colon and b"\\" in text for text, colon in _TEXT.findall(raw)):
        return json_text(fields)
    return raw.decode()


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise AmbiguousError("an object has a key twice")
    if any("\0" in name for name in result):
        raise AmbiguousError("a key contains U+0000")
    return result


def no_object(raw: bytes | str) -> str:
    """Say why `decode_object` returned None, without repeating any of `raw`."""
    try:
        value = _decode(raw)
    except RecursionError:
        return _TOO_DEEP
    except UnicodeError:
        return "not valid UTF-8"
    except msgspec.MsgspecError as error:
        return str(error)
    return _TOO_DEEP if isinstance(value, dict) else "not a JSON object"


def version_from(
    skill_id: str,
    text: str,
    fields: Mapping[str, Any],
    wire_digest: bytes | None = None,
    *,
    dropped: tuple[str, ...] = (),
    shape: Shape | None = None,
    memory: int = 0,
) -> SkillVersion:
    """Return the version for `text`, decoded to `fields`; `shape` is theirs, or of a value that contains them."""
    shape = shape or shape_of(fields)
    return SkillVersion(
        skill_id=skill_id,
        text=text,
        fields=fields,
        wire_digest=wire_digest or sha256(text.encode()).digest(),
        content_digest=content_digest(fields, shape),
        exec_digest=exec_digest(fields, shape),
        dropped=dropped,
        memory=memory,
    )


def version_from_fields(skill_id: str, fields: Mapping[str, Any]) -> SkillVersion:
    """Return the version for `fields`, with our own encoding as its text."""
    return version_from(skill_id, json_text(fields), fields)


def version_key(fields: Mapping[str, Any]) -> str:
    """Return the version number as compared: without invisible characters. A missing one counts as a version, too."""
    version = fields.get("version")
    return without_hidden(version).strip() if isinstance(version, str) else ""


def stored_version(skill_id: str, text: str) -> SkillVersion | None:
    """Return the version for a stored text; None if another program stored something that is not a JSON object."""
    decoded = decode_with_shape(text)
    return None if decoded is None else version_from(skill_id, text, decoded[0], shape=decoded[1])
