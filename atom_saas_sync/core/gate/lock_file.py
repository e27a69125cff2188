"""The lock file: which version of each skill is served, as JSON with one skill per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Literal

from msgspec import Struct

from atom_saas_sync.core.canonical import (
    AmbiguousError,
    decode_object,
    no_object,
    refuse_ambiguous,
    stored_version,
)
from atom_saas_sync.core.gate.digests import digest_text, whole_digest
from atom_saas_sync.core.gate.types import Locked, LockFile
from atom_saas_sync.errors import ConfigError

LOCK_VERSION = 1

_KEYS = {"lock_version", "marketplace", "skills"}
_ENTRY_KEYS = {"version", "content", "exec", "source"}
_MOST_PROBLEMS = 10
_HINT = "nothing was changed; `atom-sync lock write` writes a new one from what is served"
_BOM = b"\xef\xbb\xbf"


class ServedText(Struct, frozen=True):
    """A served skill, and its base's digests: of the bytes, the content, and the executable part."""

    skill_id: str
    text: str
    source: Literal["marketplace", "edited", "local"]
    wire_digest: bytes | None = None
    content_digest: bytes | None = None
    exec_digest: bytes | None = None


class Difference(Struct, frozen=True):
    """A skill whose served version differs from the lock file; `extra` ones are served but not listed."""

    skill_id: str
    kind: Literal["missing", "different", "extra"]
    locked: Locked | None = None
    served: Locked | None = None


def locked(row: ServedText) -> Locked:
    """Return a skill's entry in the lock file: the digests of the served text."""
    source = None if row.source == "marketplace" else row.source
    fields = decode_object(row.text) or {}
    version = fields.get("version") if isinstance(fields.get("version"), str) else None
    digest = sha256(row.text.encode("utf-8", "surrogatepass")).digest()
    # Hashing the bytes is cheaper than the canonical form, and shows whether the stored digests belong to this text.
    if source is None and digest == row.wire_digest and row.content_digest and row.exec_digest:
        return Locked(version, row.content_digest, row.exec_digest)
    found = stored_version(row.skill_id, row.text)
    if found is None:  # another program stored something that is not a JSON object
        return Locked(None, digest, digest, source or "edited")
    return Locked(version, found.content_digest, found.exec_digest, source)


def lock_of(rows: Iterable[ServedText], marketplace: str) -> LockFile:
    """Return the lock file of what is served."""
    return LockFile(marketplace, {row.skill_id: locked(row) for row in rows})


def lock_text(lock: LockFile) -> str:
    """Return a lock file as text: ids sorted, one skill per line, non-ASCII characters escaped to make them visible."""
    lines = [f"{json.dumps(skill_id)}: {json.dumps(_entry(lock.skills[skill_id]))}" for skill_id in sorted(lock.skills)]
    skills = "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"
    return f'{{"lock_version": {LOCK_VERSION}, "marketplace": {json.dumps(lock.marketplace)}, "skills": {skills}}}\n'


def parse_lock(data: bytes, name: str) -> LockFile:
    """Return the lock file in `data`. Raises ConfigError, which names the skill and the key."""
    data = data.removeprefix(_BOM)
    document = decode_object(data)
    if document is None:
        raise ConfigError(f"{name}: not a lock file: {no_object(data)}", hint=_HINT)
    try:
        refuse_ambiguous(data)
    except AmbiguousError as error:
        raise ConfigError(f"{name}: {error}", hint=_HINT) from error
    problems = list(_problems(document))
    if problems:
        raise ConfigError("\n".join(f"{name}: {problem}" for problem in problems[:_MOST_PROBLEMS]), hint=_HINT)
    return LockFile(document["marketplace"], {skill_id: _read(entry) for skill_id, entry in document["skills"].items()})


def compare(lock: LockFile, served: Mapping[str, Locked]) -> tuple[Difference, ...]:
    """Return the differences between the lock file and what is served, sorted by id."""
    found = []
    for skill_id in sorted({*lock.skills, *served}):
        wanted, got = lock.skills.get(skill_id), served.get(skill_id)
        if wanted is None:
            found.append(Difference(skill_id, "extra", None, got))
        elif got is None:
            found.append(Difference(skill_id, "missing", wanted, None))
        elif (wanted.content, wanted.exec) != (got.content, got.exec):
            found.append(Difference(skill_id, "different", wanted, got))
    return tuple(found)


def _entry(of: Locked) -> dict[str, Any]:
    entry = {"version": of.version, "content": digest_text(of.content), "exec": digest_text(of.exec)}
    return entry if of.source is None else {**entry, "source": of.source}


def _read(entry: Mapping[str, Any]) -> Locked:
    content, executable = whole_digest(entry["content"]), whole_digest(entry["exec"])
    assert content is not None and executable is not None  # noqa: PT018 - checked by _entry_problems
    return Locked(entry.get("version"), content, executable, entry.get("source"))


def _problems(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("lock_version") != LOCK_VERSION or isinstance(document.get("lock_version"), bool):
        yield f"lock_version: invalid value {document.get('lock_version')!r}: expected {LOCK_VERSION}"
        return
    yield from (f"unknown key {key!r}: expected {', '.join(sorted(_KEYS))}" for key in document if key not in _KEYS)
    if not isinstance(document.get("marketplace"), str):
        yield "marketplace is not a string"
    if not isinstance(document.get("skills"), dict):
        yield "skills is not an object"
        return
    for skill_id, entry in document["skills"].items():
        if not isinstance(entry, dict):
            yield f"{skill_id!r} is not an object"
            continue
        yield from (f"{skill_id!r}: {problem}" for problem in _entry_problems(entry))


def _entry_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"unknown key {key!r}: expected {', '.join(sorted(_ENTRY_KEYS))}" for key in entry.keys() - _ENTRY_KEYS)
    if not isinstance(entry.get("version"), str | None):
        yield "version is not a string or null"
    for key in ("content", "exec"):
        if whole_digest(entry.get(key)) is None:
            yield f"{key}: invalid value {entry.get(key)!r}: expected sha256: and 64 hexadecimal digits"
    if "source" in entry and entry["source"] not in {"edited", "local"}:
        yield f"source: invalid value {entry['source']!r}: expected edited or local"
