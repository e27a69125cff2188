"""Conflicts: type and severity, the result of a strategy, and the log entry (docs/CONFLICTS.md)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from atom_saas_sync.core.canonical import (
    PACKAGE_FIELDS,
    canonical,
    same,
    version_from_fields,
    without_volatile,
)
from atom_saas_sync.core.merge import follow_volatile, loses_edit, merge
from atom_saas_sync.core.plan.sides import Sides, StoredText
from atom_saas_sync.model import (
    Conflict,
    ConflictEntry,
    ConflictType,
    Resolution,
    Severity,
    SkillVersion,
    Strategy,
)
from atom_saas_sync.times import CLOCK_TOLERANCE, format_time, parse_time

CONVERGED = "converged"


def resolve(
    conflict: Conflict, skill_id: str, strategy: Strategy, *, local_updated_at: str | None, now: datetime
) -> SkillVersion | None:
    """Return the version that `strategy` chooses; None if the skill is removed. `manual` decides nothing.

    `local_updated_at` is when the row was last written. Raises ValueError for `manual`.
    """
    local, remote, base = (
        None if text is None else StoredText(skill_id, text)
        for text in (conflict.local_text, conflict.remote_text, conflict.base_text)
    )
    return resolve_versions(
        local, None if remote is None else remote.version, base, strategy, local_updated_at=local_updated_at, now=now
    )


def resolve_versions(
    local: StoredText | None,
    remote: SkillVersion | None,
    base: StoredText | None,
    strategy: Strategy,
    *,
    local_updated_at: str | None,
    now: datetime,
) -> SkillVersion | None:
    """Do the same as `resolve` with decoded versions."""
    if strategy == "manual":
        raise ValueError("manual is no decision")
    if remote is None:
        return None if strategy == "remote_wins" or local is None else local.version
    if strategy == "remote_wins" or local is None or local.fields is None:
        return remote  # a text that is not a JSON object can't be kept or merged; the log keeps it
    if strategy == "local_wins":
        return version_from_fields(remote.skill_id, follow_volatile(local.fields, remote.fields))
    base_fields = fields_of(base)
    local_time = _local_time(local_updated_at, local.fields, now, theirs=(base_fields, remote.fields))
    remote_time = _past(remote.fields.get("updated_at"), now)
    # The local edit is only replaced by a version that is certainly newer.
    newer = local_time is not None and remote_time is not None and remote_time > local_time
    merged = merge(base_fields or {}, local.fields, remote.fields, remote_is_newer=newer)
    return version_from_fields(remote.skill_id, merged)


def classify(local: Mapping[str, Any], remote: Mapping[str, Any]) -> tuple[ConflictType, Severity]:
    """Return the type and the severity of a conflict between two versions (docs/CONFLICTS.md)."""
    different = differing_fields(local, remote)
    return _type(different), _severity(different)


def differing_fields(left: Mapping[str, Any], right: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the fields that differ significantly.

    Not significant: volatile fields, outer white space of code, the order of packages, and absent versus null.
    """
    left, right = without_volatile(left), without_volatile(right)
    names = {*left, *right}
    return frozenset(name for name in names if not _same_field(name, left.get(name), right.get(name)))


def _same_field(name: str, left: Any, right: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    if name == "code" and isinstance(left, str) and isinstance(right, str):
        return left.strip() == right.strip()
    if name in PACKAGE_FIELDS:
        return _as_set(left) == _as_set(right)
    return same(left, right)


def _as_set(packages: object) -> frozenset[bytes]:
    return frozenset(map(canonical, packages)) if isinstance(packages, list) else frozenset()


def _type(different: frozenset[str]) -> ConflictType:
    if "version" in different:
        return "VERSION_MISMATCH"
    if "code" in different:
        return "CONTENT_MISMATCH"
    return "DEPENDENCY_CONFLICT" if different & PACKAGE_FIELDS else "OTHER"


def _severity(different: frozenset[str]) -> Severity:
    if different & {"code", "command", "local_files"}:
        return "CRITICAL"
    if different & {"version", *PACKAGE_FIELDS}:
        return "HIGH"
    if different & {"parameters", "metadata", "env_vars"}:
        return "MEDIUM"
    return "LOW"


def fields_of(side: StoredText | None) -> Mapping[str, Any] | None:
    """Return the fields of a side; None if there is none or it is not a JSON object."""
    return None if side is None else side.fields


def _local_time(
    row_updated_at: str | None,
    fields: Mapping[str, Any],
    now: datetime,
    *,
    theirs: tuple[Mapping[str, Any] | None, ...],
) -> datetime | None:
    """Return the later of the row's time and the one in its skill, unless that came with one of the sides `theirs`."""
    row, own = _past(row_updated_at, now), fields.get("updated_at")
    if any(own == side.get("updated_at") for side in theirs if side is not None):
        return row
    return None if row is None else max(row, _past(own, now) or row)


def _past(text: object, now: datetime) -> datetime | None:
    """Return the time in `text`; None if it is invalid, or in the future because a clock ran ahead."""
    moment = parse_time(text)
    return moment if moment is not None and moment <= now + CLOCK_TOLERANCE else None


def changed_at(sides: Sides, now: datetime) -> str | None:
    """Return when the local side was last changed; call it before volatile fields are refreshed (rule 3)."""
    theirs = fields_of(sides.base), fields_of(sides.waiting)
    moment = _local_time(sides.known.local_updated_at, fields_of(sides.local) or {}, now, theirs=theirs)
    return None if moment is None else format_time(moment)


# The log


def conflict_with(sides: Sides, remote: SkillVersion | None) -> Conflict:
    """Return the conflict of the local copy with `remote`, None if the marketplace deleted the skill."""
    kind, severity = classify(fields_of(sides.local) or {}, {} if remote is None else remote.fields)
    return Conflict(
        type="DELETION_CONFLICT" if remote is None else kind,
        severity=severity,
        local_text=sides.known.local_text,
        remote_text=None if remote is None else remote.text,
        base_text=sides.known.base_text,
    )


def closing(sides: Sides, remote: SkillVersion | None, text: str | None) -> ConflictEntry | None:
    """Return the entry that closes an open conflict without a decision; None if none is open."""
    if sides.known.waiting is None:
        return None
    return ConflictEntry(conflict_with(sides, remote), Resolution(CONVERGED, text), sides.waiting_id)


def replaced_forgery(sides: Sides, remote: SkillVersion | None) -> ConflictEntry | None:
    """Return the log entry that keeps a tampered text.

    It may be an edit whose base another program removed. Whatever the strategy, `remote` replaces it.
    """
    base = sides.known.base
    if base is None or base.text is not None or not sides.is_tampered:
        return None
    is_base = remote is not None and remote.content_digest == base.content_digest
    result = None if remote is None else remote.text
    conflict = replace(conflict_with(sides, remote), base_text=result if is_base else None)
    return ConflictEntry(conflict, Resolution("remote_wins", result), None)


def loses_local_edit(sides: Sides, result: SkillVersion) -> bool:
    """Tell whether the result lacks a local change."""
    local = fields_of(sides.local)
    return local is None or loses_edit(fields_of(sides.base) or {}, local, result.fields)


def skipped_version(sides: Sides, remote: SkillVersion) -> SkillVersion | None:
    """Return the version that waited in an open conflict and is replaced by `remote`."""
    return None if sides.waiting is None or waits_with(sides, remote) else sides.waiting.version


def waits_with(sides: Sides, remote: SkillVersion) -> bool:
    """Tell whether the open conflict has exactly this remote version."""
    if sides.waiting is None:
        return False
    return sides.waiting.text == remote.text or sides.waiting.content_digest == remote.content_digest


def same_as(side: StoredText | None, fields: Mapping[str, Any]) -> bool:
    """Tell whether a side has the same content as `fields`, whatever its spelling."""
    ours = fields_of(side)
    return ours is not None and same(ours, fields)
