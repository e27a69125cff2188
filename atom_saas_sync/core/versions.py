"""Resolving a version of a skill: by number, version or digest."""

from __future__ import annotations

import re
from collections.abc import Sequence

from atom_saas_sync.characters import shell_argument
from atom_saas_sync.errors import Ambiguous, NotFound
from atom_saas_sync.model import PublishedVersion

_NUMBER = re.compile(r"#?(\d{1,18})", re.ASCII)
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})", re.ASCII | re.IGNORECASE)


def choose_version(skill_id: str, versions: Sequence[PublishedVersion], wanted: str) -> PublishedVersion:
    """Return the version that `wanted` names: `base`, a number of `skills log`, a version, 12 digits of a digest.

    Of several with that version, or that content, the newest is returned. Raises NotFound, and Ambiguous for a prefix
    of several digests.
    """
    found = [each for each in versions if wanted == "base" and each.number is None]
    if number := _NUMBER.fullmatch(wanted):
        found = [each for each in versions if each.number == int(number[1])]
    found = found or [each for each in versions if each.version == wanted]
    if not found and (digits := _DIGEST.fullmatch(wanted)):
        found = _with_digest(versions, digits[1].lower())
    if not found:
        raise NotFound(
            f"{skill_id!r} has no base: the marketplace does not have it"
            if wanted == "base"
            else f"{skill_id!r} has no version {wanted!r}",
            hint=f"`atom-sync skills log {shell_argument(skill_id)}` lists them",
        )
    return found[0]


def version_name(version: PublishedVersion, wanted: str | None = None) -> str:
    """Return a version's display name: `base (1.2.0)`, `#7 (1.1.0)`; `1.1.0 (#7)` if `wanted` was that."""
    number = "base" if version.number is None else f"#{version.number}"
    return f"{wanted} ({number})" if wanted == version.version else f"{number} ({version.version or '-'})"


def _with_digest(versions: Sequence[PublishedVersion], digits: str) -> list[PublishedVersion]:
    """Return the versions whose content digest has this prefix, or else those whose exec digest has it."""
    for kind in ("content_digest", "exec_digest"):
        found = [each for each in versions if getattr(each, kind).hex().startswith(digits)]
        if len({each.content_digest for each in found}) > 1:
            names = ", ".join(map(version_name, found))
            raise Ambiguous(f"{digits!r} is ambiguous, it could be: {names}", hint="give the number of the version")
        if found:
            return found
    return []
