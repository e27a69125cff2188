"""Revocations: matching, and the file that lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from atom_saas_sync.characters import without_hidden
from atom_saas_sync.core.gate.digests import whole_digest
from atom_saas_sync.core.gate.names import folded
from atom_saas_sync.core.gate.types import Revocation, Revocations
from atom_saas_sync.errors import ConfigError

_HINT = "nothing new is admitted until the file is correct; the last valid list stays in force"
_NAMES = ("id", "version", "digest", "publisher")


def revoked(
    revocations: Revocations, skill_id: str, version: str, content_digest: bytes, publisher: str | None
) -> Revocation | None:
    """Return the first revocation that matches a version; None if none does. `version` is its `version_key`."""
    if not revocations.entries:
        return None
    for each in revocations.by_skill.get(skill_id, ()):
        if each.version is None or without_hidden(each.version).strip() == version:
            return each
    by_digest = revocations.by_digest.get(content_digest)
    return by_digest or revocations.by_publisher.get(folded(publisher or ""))


def describe(revocation: Revocation) -> str:
    """Describe what a revocation matches: `publisher acme`, `id calc, version 1.0.0`."""
    parts = []
    if revocation.skill_id is not None:
        parts.append(f"id {revocation.skill_id}")
    if revocation.version is not None:
        parts.append(f"version {revocation.version}")
    if revocation.digest is not None:
        parts.append(f"digest sha256:{revocation.digest.hex()}")
    if revocation.publisher is not None:
        parts.append(f"publisher {revocation.publisher}")
    return ", ".join(parts)


def parse_revocations(data: bytes, name: str) -> tuple[Revocation, ...]:
    """Return the entries of the revocations file `name`. Raises ConfigError with all problems, by entry and key."""
    entries = _entries(data, name)
    problems = [
        f"{name}: revocation {number}: {problem}"
        for number, entry in enumerate(entries, 1)
        for problem in _problems(entry)
    ]
    if problems:
        raise ConfigError("\n".join(problems), hint=_HINT)
    return tuple(
        Revocation(
            skill_id=entry.get("id"),
            version=entry.get("version"),
            digest=whole_digest(entry.get("digest")),
            publisher=entry.get("publisher"),
            note=entry.get("note"),
            source="file",
        )
        for entry in entries
    )


def _entries(data: bytes, name: str) -> list[Any]:
    from atom_saas_sync.core.canonical import AmbiguousError, decode_object, no_object, refuse_ambiguous

    document = decode_object(data.removeprefix(b"\xef\xbb\xbf"))
    if document is None:
        raise ConfigError(f"{name}: {no_object(data)}", hint=_HINT)
    try:
        refuse_ambiguous(data.removeprefix(b"\xef\xbb\xbf"))
    except AmbiguousError as error:
        raise ConfigError(f"{name}: {error}", hint=_HINT) from error
    unknown = [key for key in document if key != "revocations"]
    entries = document.get("revocations")
    if unknown or not isinstance(entries, list):
        key = f"unknown key {unknown[0]!r}" if unknown else "no list `revocations`"
        raise ConfigError(f'{name}: {key}: expected {{"revocations": […]}}', hint=_HINT)
    return entries


def _problems(entry: object) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield "is not an object"
        return
    names = frozenset(entry) - {"note"}
    unknown = sorted(names - {*_NAMES})
    yield from (f"unknown key {key!r}: expected {', '.join(_NAMES)} or note" for key in unknown)
    if not unknown and names not in _FORMS:
        yield "expected an id, an id with a version, a digest, or a publisher"
    for key in (*_NAMES, "note"):
        value = entry.get(key)
        if key == "note" and value is None:
            continue
        if key in entry and not (isinstance(value, str) and (key == "note" or without_hidden(value).strip())):
            yield f"{key} is not a string with a value"
        elif key == "digest" and key in entry and whole_digest(value) is None:
            yield f"digest: invalid value {value!r}: expected sha256: and 64 hexadecimal digits"


_FORMS = frozenset(map(frozenset, (("id",), ("id", "version"), ("digest",), ("publisher",))))
