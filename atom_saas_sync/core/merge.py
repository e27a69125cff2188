"""The field-level three-way merge (docs/CONFLICTS.md).

A field that only one side changed takes that side's value. If both changed it differently:

    tags, examples, other descriptive lists     united; items that one side removed stay removed
    version                                     LOCAL+merged+REMOTE
    other descriptive fields                    the newer side
    descriptive keys of metadata                likewise, key by key
    everything else                             local

Everything else is executable and forms one unit: all of it comes from the side that changed any of it, or from the
local side if both did. Volatile fields, and the counters of metadata, always follow the marketplace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atom_saas_sync.core.canonical import (
    DESCRIPTIVE_FIELDS,
    DESCRIPTIVE_METADATA,
    VOLATILE_FIELDS,
    canonical,
    counters,
    executable_part,
    same,
)

_MERGED = "+merged+"


class _Absent:
    """The value of an absent field."""


_ABSENT = _Absent()


def merge(
    base: Mapping[str, Any], local: Mapping[str, Any], remote: Mapping[str, Any], *, remote_is_newer: bool
) -> dict[str, Any]:
    """Merge two versions of a skill derived from `base`, which is empty if they have no common base."""
    runs = _executable_side(base, local, remote)
    merged: dict[str, Any] = {}
    for name in _names(local, remote):
        if name in VOLATILE_FIELDS:
            value = remote.get(name, _ABSENT)
        elif name == "metadata":
            value = _merge_metadata(base, local, remote, runs, remote_is_newer=remote_is_newer)
        elif name in DESCRIPTIVE_FIELDS:
            value = _merge_field(name, *_values(name, base, local, remote), remote_is_newer=remote_is_newer)
        else:
            value = runs.get(name, _ABSENT)
        if value is not _ABSENT:
            merged[name] = value
    return merged


def follow_volatile(local: Mapping[str, Any], remote: Mapping[str, Any]) -> dict[str, Any]:
    """Return `local` with the volatile fields of `remote` (docs/CONFLICTS.md)."""
    result = {name: value for name, value in local.items() if name not in VOLATILE_FIELDS or name in remote}
    result.update({name: value for name, value in remote.items() if name in VOLATILE_FIELDS})
    ours, theirs = result.get("metadata"), counters(remote.get("metadata"))
    if isinstance(ours, dict) and counters(ours) != theirs:
        dropped = counters(ours).keys() - theirs.keys()
        result["metadata"] = {name: value for name, value in ours.items() if name not in dropped} | theirs
    return result


def loses_edit(base: Mapping[str, Any], local: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Tell whether something that was changed here since `base` is not in the `result` of a merge."""
    return any(
        _is_lost(name, *_values(name, base, local, result))
        for name in _names(base, local)
        if name not in VOLATILE_FIELDS
    )


def _is_lost(name: str, base: Any, local: Any, result: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    if _equal(local, base) or _equal(local, result):
        return False
    if name == "version" and isinstance(local, str) and isinstance(result, str):
        return not result.startswith(local.split(_MERGED)[0])
    if name == "metadata" and all(isinstance(side, dict) for side in (local, result)):
        sides = [side if isinstance(side, dict) else {} for side in (base, local, result)]
        kept = [{key: value for key, value in side.items() if key not in counters(side)} for side in sides]
        return any(_is_lost("", *_values(key, *kept)) for key in _names(*kept[:2]))
    if isinstance(local, list) and isinstance(result, list):
        return not {canonical(entry) for entry in local} <= {canonical(entry) for entry in result}
    return True


def _executable_side(base: Mapping[str, Any], local: Mapping[str, Any], remote: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the side from which all executable fields are taken: nobody has reviewed a mixture of both."""
    before, ours, theirs = (canonical(executable_part(side)) for side in (base, local, remote))
    return remote if ours in (before, theirs) else local


def _merge_metadata(
    base: Mapping[str, Any],
    local: Mapping[str, Any],
    remote: Mapping[str, Any],
    runs: Mapping[str, Any],
    *,
    remote_is_newer: bool,
) -> Any:  # noqa: ANN401 - whatever JSON can hold
    before, ours, theirs = _values("metadata", base, local, remote)
    if not all(isinstance(side, dict) or _is_none(side) for side in (ours, theirs)):
        return runs.get("metadata", _ABSENT)
    sides = [side if isinstance(side, dict) else {} for side in (before, ours, theirs)]
    kept = runs.get("metadata") or {}
    numbers, old_numbers = counters(theirs), counters(ours)
    merged = {}
    for name in _names(*sides[1:]):
        if name in numbers or (name in old_numbers and name not in sides[2]):
            value = numbers.get(name, _ABSENT)
        elif name in DESCRIPTIVE_METADATA:
            value = _merge_field(name, *_values(name, *sides), remote_is_newer=remote_is_newer)
        else:
            value = kept.get(name, _ABSENT)
        if value is not _ABSENT:
            merged[name] = value
    chosen = theirs if _equal(ours, before) else ours
    return merged if merged or isinstance(chosen, dict) else chosen


def _merge_field(name: str, base: Any, local: Any, remote: Any, *, remote_is_newer: bool) -> Any:  # noqa: ANN401 - JSON
    if _equal(local, base) or _equal(local, remote):
        return remote
    if _equal(remote, base):
        return local
    if name == "version":
        return _merged_version(local, remote)
    if all(isinstance(side, list) or _is_none(side) for side in (local, remote)):
        return _united(*(side if isinstance(side, list) else [] for side in (base, local, remote)))
    return remote if remote_is_newer else local


def _values(name: str, *sides: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(side.get(name, _ABSENT) for side in sides)


def _names(local: Mapping[str, Any], remote: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys((*local, *remote)))


def _is_none(value: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    return value is _ABSENT or value is None


def _equal(left: Any, right: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    if left is _ABSENT or right is _ABSENT:
        return left is right
    return same(left, right)


def _merged_version(local: Any, remote: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if not isinstance(local, str) or not isinstance(remote, str):
        return remote if isinstance(remote, str) else local
    # Derived from the version before the first merge, so that it does not grow with each merge.
    return f"{local.split(_MERGED)[0]}{_MERGED}{remote}"


def _united(base: list[Any], local: list[Any], remote: list[Any]) -> list[Any]:
    """Return the entries that both sides have or that one of them added, local ones first, without duplicates."""
    before, ours, theirs = ({canonical(entry) for entry in side} for side in (base, local, remote))
    stays = (ours & theirs) | (ours ^ theirs) - before
    return list({key: entry for entry in (*local, *remote) if (key := canonical(entry)) in stays}.values())
