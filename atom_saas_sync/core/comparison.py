"""Differences between the versions of a skill, field by field, and resolving them by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from atom_saas_sync.core.canonical import decode_object, executable_part, same, without_volatile
from atom_saas_sync.model import LoggedConflict
from atom_saas_sync.times import time_text

Side = Literal["local", "remote"]
ChangedBy = Literal["local", "remote", "both"]


class Absent:
    """The value of an absent field."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


class FieldChange(Struct, frozen=True):
    """A field that differs between local and remote; its value is ABSENT on a side without the field."""

    name: str
    base: Any
    local: Any
    remote: Any
    changed_by: ChangedBy


def compare(
    base: Mapping[str, Any] | None, local: Mapping[str, Any], remote: Mapping[str, Any]
) -> tuple[FieldChange, ...]:
    """Return the fields that differ between local and remote, without the volatile ones, in order.

    Without a base both sides count as changed.
    """
    sides = [without_volatile(side or {}) for side in (base, local, remote)]
    return tuple(
        FieldChange(name, values[0], values[1], values[2], _changed_by(*values))
        for name in dict.fromkeys((*sides[1], *sides[2]))
        if (values := tuple(side.get(name, ABSENT) for side in sides)) and not _equal(values[1], values[2])
    )


def contested(changes: Sequence[FieldChange]) -> tuple[FieldChange, ...]:
    """Return the contested fields: if both sides changed executable fields, all of those that differ."""
    executable = [change for change in changes if _is_executable(change)]
    changed_by = {change.changed_by for change in executable}
    both = "both" in changed_by or len(changed_by) > 1
    return tuple(change for change in changes if change.changed_by == "both" or (both and change in executable))


def _is_executable(change: FieldChange) -> bool:
    left, right = (
        executable_part({} if value is ABSENT else {change.name: value}) for value in (change.local, change.remote)
    )
    return not same(left, right)


def combine(
    start: Mapping[str, Any], local: Mapping[str, Any], remote: Mapping[str, Any], sides: Mapping[str, Side]
) -> dict[str, Any]:
    """Return `start` with each field in `sides` taken from that side."""
    combined = dict(start)
    for name, side in sides.items():
        value = (local if side == "local" else remote).get(name, ABSENT)
        if value is ABSENT:
            combined.pop(name, None)
        else:
            combined[name] = value
    return combined


def conflict_line(conflict: LoggedConflict) -> dict[str, Any]:
    """Return the summary of a conflict for lists, as JSON."""
    return {
        "id": conflict.id,
        "skill_id": conflict.skill_id,
        "conflict_type": conflict.type,
        "severity": conflict.severity,
        "resolved": conflict.resolved,
        "resolution_strategy": conflict.strategy,
        "resolved_at": time_text(conflict.resolved_at),
        "resolved_by": conflict.resolved_by,
        "undone_at": time_text(conflict.undone_at),
        "undone_by": conflict.undone_by,
        "created_at": time_text(conflict.created_at),
        "updated_at": time_text(conflict.updated_at),
    }


def conflict_document(conflict: LoggedConflict) -> dict[str, Any]:
    """Return a whole conflict as JSON. A version that is not a JSON object is shown as text."""
    local_text, changes = local_side(conflict), differences(conflict)
    return {
        **conflict_line(conflict),
        "local": _value(local_text),
        "remote": _value(conflict.remote_text),
        "base": _value(conflict.base_text),
        "result": _value(conflict.result_text),
        "fields": [
            {
                "name": change.name,
                "changed_by": change.changed_by,
                **{
                    side: None if value is ABSENT else value
                    for side, value in (("base", change.base), ("local", change.local), ("remote", change.remote))
                },
            }
            for change in changes
        ],
    }


def local_side(conflict: LoggedConflict) -> str | None:
    """Return the local text: for an open conflict the current one in the cache, otherwise the one at the time."""
    if conflict.resolved or conflict.cached_text is None:
        return conflict.local_text
    return conflict.cached_text


def differences(conflict: LoggedConflict) -> Sequence[FieldChange]:
    """Return the fields in conflict; for a deleted skill, the fields changed locally since the base."""
    base, local = _object(conflict.base_text), _object(local_side(conflict)) or {}
    remote = _object(conflict.remote_text)
    return compare(base, local, (base or {}) if remote is None else remote)


def _changed_by(base: Any, local: Any, remote: Any) -> ChangedBy:  # noqa: ANN401 - JSON
    if _equal(base, local):
        return "remote"
    return "local" if _equal(base, remote) else "both"


def _equal(left: Any, right: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    if left is ABSENT or right is ABSENT:
        return left is right
    return same(left, right)


def _object(text: str | None) -> dict[str, Any] | None:
    return None if text is None else decode_object(text)


def _value(text: str | None) -> dict[str, Any] | str | None:
    return _object(text) or text
