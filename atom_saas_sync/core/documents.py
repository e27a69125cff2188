"""Reading JSON with skills from users: imports, edits and resolutions of conflicts.

Accepts the output of our own commands (`skills show --json`), and refuses input that would lose data: a line of
`skills list --json` is not a whole skill. Errors name the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from atom_saas_sync.core.incoming.bodies import memory_of
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import BEST_RATING, LARGEST_COUNT, CachedSkill
from atom_saas_sync.times import time_text

_SHOWN_FIELDS = ("name", "version", "category", "description", "tags", "average_rating", "rating_count", "updated_at")
_FACTS = ("source", "confirmed_at", "stale")
FIGURES = {"average_rating": BEST_RATING, "rating_count": LARGEST_COUNT}
_VERSION_FACTS = ("number", "current", "ended_at", "ended_by", "origin", "content_digest", "exec_digest")
_SOURCES = ("marketplace", "edited", "local")
_MOST_PROBLEMS = 10
MAX_IMPORT_MEMORY = 512 * 1024 * 1024
_ENTRY_BYTES = 300

_BYTE = re.compile(r"(.*) \(byte (\d+)\)")
_HALF = re.compile(r"[\ud800-\udfff]")
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Problem(ValueError):
    """Why and where a text is not JSON."""


def skill_line(skill: CachedSkill, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of a skill for lists, as JSON."""
    return {
        "skill_id": skill.skill_id,
        **{name: fields.get(name) for name in _SHOWN_FIELDS},
        **{name: figure(fields.get(name), largest) for name, largest in FIGURES.items()},
        "source": skill.source,
        "confirmed_at": time_text(skill.confirmed_at),
        "stale": skill.stale,
    }


def figure(value: object, largest: int) -> float | None:
    """Return the value if it is a number from 0 to `largest`, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= largest else None


def decode_text(data: bytes, name: str) -> str:
    """Decode UTF-8, without a byte order mark. Raises UsageError, which names the place of an invalid byte."""
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{name} is not valid UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, line {line}",
            hint="nothing was changed; `iconv -t UTF-8` converts a file",
        ) from error


def read_skills(text: str, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the JSON text and place of each skill in a file: one skill, a list, `{"skills": […]}`, JSON lines.

    Raises UsageError if `text` is empty, is not JSON, or contains something that is not a whole skill.
    """
    if not text.strip():
        raise UsageError(f"{name} is empty", hint="nothing was changed")
    if memory_of(text) + _ENTRY_BYTES * text.count(",") > MAX_IMPORT_MEMORY:
        raise UsageError(f"{name} would take too much memory", hint="nothing was changed; import it in parts")
    if _has_lines(text):
        yield from _read_lines(text, name)
        return
    whole = _parse(text, name)
    if whole[:1] == b"{":
        members = _decode_members(whole)
        if not _is_list(members):
            yield name, _unwrapped(whole, name)
            return
        whole = bytes(members["skills"])
    entries = _entries(whole, name)
    if not entries:
        raise UsageError(f"{name} contains no skills", hint="nothing was changed")
    for number, entry in enumerate(entries, start=1):
        yield f"{name}, entry {number}", _unwrapped(entry, f"{name}, entry {number}")


def read_one(text: str, name: str) -> str:
    """Return the JSON text of the one skill in `text`. Raises UsageError like `read_skills`."""
    if not text.strip():
        raise UsageError(f"{name} is empty", hint="nothing was changed")
    whole = _parse(text, name)
    if whole[:1] != b"{" or _is_list(_decode_members(whole)):
        raise UsageError(f"{name} does not contain exactly one skill", hint="nothing was changed")
    return _unwrapped(whole, name).decode()


def read_json(data: bytes, name: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return the JSON value in `data`. Raises UsageError."""
    return msgspec.json.decode(_parse(decode_text(data, name), name))


def read_object(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in `data`. Raises UsageError."""
    value = read_json(data, name)
    if not isinstance(value, dict):
        raise UsageError(f"{name} is not a JSON object")
    return value


def check_text(text: str) -> str:
    """Return `text` if it can be stored. Raises Problem if it contains a lone surrogate."""
    if half := _HALF.search(text):
        raise Problem(f"a lone surrogate U+{ord(half.group()):04X}, {_position(text, half.start())}")
    return text


def read_value(text: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return `text` decoded as JSON, or unchanged if it is not JSON. Raises Problem for what JSON cannot hold."""
    import json

    try:
        json.loads(check_text(text))
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):
        pass  # said below
    return msgspec.json.decode(parse_json(text))


def _parse(text: str, name: str) -> bytes:
    try:
        return parse_json(text)
    except Problem as problem:
        raise UsageError(f"{name} is not valid JSON: {problem}", hint="nothing was changed") from problem


def parse_json(text: str) -> bytes:
    """Return a JSON text in UTF-8 without surrounding white space. Raises Problem with line and column."""
    data = check_text(text).encode().strip()
    try:
        msgspec.json.decode(data)
    except RecursionError as error:
        raise Problem("nested too deeply") from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Problem(_explain(text, str(error))) from error
    return data


def _explain(text: str, reason: str) -> str:
    """Say where a text stops being JSON. `json` has better messages, but accepts more than JSON."""
    import json

    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return f"{error.msg}, line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        pass  # msgspec's message is right
    found = _BYTE.fullmatch(reason)
    if found is None:
        half = re.search(r"(?<!\\)(?:\\\\)*(\\u[dD][89a-fA-F][0-9a-fA-F]{2})", text)
        return f"{reason}" if half is None else f"an incomplete surrogate pair, {_position(text, half.start(1))}"
    before = text.lstrip().encode()[: int(found[2])].decode(errors="ignore")
    return f"{found[1]}, {_position(text, len(text) - len(text.lstrip()) + len(before))}"


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _position(text: str, index: int) -> str:
    line = text.count("\n", 0, index) + 1
    return f"line {line}, column {index - text.rfind(chr(10), 0, index)}"


def place_of_field(text: str, name: str) -> str | None:
    """Return line and column of a field's value in the outermost object of `pretty` JSON."""
    found = re.search(rf'^ {{0,2}}"{re.escape(name)}"\s*:\s*', text, re.MULTILINE)
    return None if found is None else _position(text, found.end())


def _has_lines(text: str) -> bool:
    """Tell whether a text is JSON lines: its first two non-blank lines each start an object."""
    lines = (line for line in text.split("\n") if line.strip())
    first, second = next(lines, ""), next(lines, "")
    return first.startswith("{") and second.startswith("{")


def _read_lines(text: str, name: str) -> Iterator[tuple[str, bytes]]:
    problems: list[str] = []
    found: list[tuple[str, bytes]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            found.append((place, _unwrapped(parse_json(line), place)))
        except Problem as problem:
            problems.append(f"{place} is not valid JSON: {str(problem).replace('line 1, ', '')}")
        except UsageError as error:
            problems.append(error.message)
    if problems:
        more = [f"… and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
        raise UsageError("\n".join(problems[:_MOST_PROBLEMS] + more), hint="nothing was changed")
    yield from found


def _is_list(members: Mapping[str, msgspec.Raw]) -> bool:
    return "skills" in members and not {"name", "skill_id", "id"} & members.keys()


def _entries(data: bytes, name: str) -> list[bytes]:
    if data[:1] != b"[":
        raise UsageError(
            f"{name} contains no skills: expected an object or a list of objects", hint="nothing was changed"
        )
    return [bytes(entry) for entry in _decode_list(data)]


def _unwrapped(data: bytes, place: str) -> bytes:
    """Return the skill in output of `skills show --json`; anything else unchanged. Raises UsageError for a summary."""
    if data[:1] != b"{":
        return data
    members = _decode_members(data)
    facts = _are_facts(members)
    if "skill" not in members:
        if facts:
            raise UsageError(
                f"{place} is a summary, as `skills list --json` prints it: code and other fields are missing",
                hint="nothing was changed; `atom-sync skills show ID --json` prints a whole skill",
            )
        return data
    if not facts and members.keys() - {"skill", "success"}:
        return data  # a skill with a field of that name
    inner = bytes(members["skill"])
    if inner[:1] != b"{":
        raise UsageError(f"{place}: the skill in it is not a JSON object", hint="nothing was changed")
    if facts and (extra := members.keys() - {"skill_id", "skill", "success", *_SHOWN_FIELDS, *_FACTS, *_VERSION_FACTS}):
        raise UsageError(
            f"{place} wraps a skill, with {', '.join(sorted(extra))} beside it", hint="put new fields into `skill`"
        )
    return inner


def _are_facts(members: Mapping[str, msgspec.Raw]) -> bool:
    """Tell whether an object has fields about a skill that only our own commands print."""
    if not all(name in members for name in _FACTS):
        return False
    source, confirmed_at, stale = (msgspec.json.decode(members[name]) for name in _FACTS)
    return source in _SOURCES and isinstance(stale, bool) and isinstance(confirmed_at, str | None)
