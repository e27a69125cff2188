"""The field-level three-way merge (data-model.md, rule 3).

What only one side changed is taken. Where both changed a field differently:

    description, examples, metadata   the newer side; lists are united
    tags                              united; absent or null is none
    code, command, local_files        local
    parameters, env_vars              local: they belong to the code, which stays local
    python_packages, npm_packages     united, likewise
    version                           LOCAL+merged+REMOTE
    anything else                     the newer side

Volatile fields always follow the marketplace.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from atom_saas_sync.core.canonical import PACKAGE_FIELDS, VOLATILE_FIELDS, canonical, same
from atom_saas_sync.times import parse_time

_STAYS_LOCAL = frozenset({"code", "command", "local_files", "parameters", "env_vars"})
_UNITED = frozenset({"tags", *PACKAGE_FIELDS})
_MERGED = "+merged+"


class _Absent:
    """The value of a field that is not there."""


_ABSENT = _Absent()


def merge(
    base: Mapping[str, Any], local: Mapping[str, Any], remote: Mapping[str, Any], *, local_time: datetime | None
) -> dict[str, Any]:
    """Merge two versions of a skill that come from `base`, which is empty if they have no common one.

    `local_time` is when the local side was last changed, None if nobody knows; the remote side's is its `updated_at`.
    On equal or unknown times the remote side counts as the newer one.
    """
    remote_time = parse_time(remote.get("updated_at"))
    local_is_newer = local_time is not None and (remote_time is None or local_time > remote_time)
    merged: dict[str, Any] = {}
    for name in [*local, *(name for name in remote if name not in local)]:
        value = _merge_field(
            name,
            base.get(name, _ABSENT),
            local.get(name, _ABSENT),
            remote.get(name, _ABSENT),
            local_is_newer=local_is_newer,
        )
        if value is not _ABSENT:
            merged[name] = value
    return merged


def follow_volatile(local: Mapping[str, Any], remote: Mapping[str, Any]) -> dict[str, Any]:
    """Return `local` with the volatile fields of `remote` (data-model.md, rule 1)."""
    result = {name: value for name, value in local.items() if name not in VOLATILE_FIELDS or name in remote}
    result.update({name: value for name, value in remote.items() if name in VOLATILE_FIELDS})
    return result


def _merge_field(name: str, base: Any, local: Any, remote: Any, *, local_is_newer: bool) -> Any:  # noqa: ANN401 - JSON
    if name in VOLATILE_FIELDS or _equal(local, base) or _equal(local, remote):
        return remote
    if _equal(remote, base) or name in _STAYS_LOCAL:
        return local
    if name == "version":
        return _merged_version(local, remote)
    if isinstance(local, list) and isinstance(remote, list):
        return _union(local, remote)
    if name in _UNITED and isinstance(local, list) != isinstance(remote, list):
        return local if isinstance(local, list) else remote  # the other side has none: absent, or null
    return local if local_is_newer else remote


def _equal(left: Any, right: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    if left is _ABSENT or right is _ABSENT:
        return left is right
    return same(left, right)


def _merged_version(local: Any, remote: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if not isinstance(local, str) or not isinstance(remote, str):
        return remote if isinstance(remote, str) else local
    # From the version that the merge began with: it must not grow with each merge.
    return f"{local.split(_MERGED)[0]}{_MERGED}{remote}"


def _union(local: list[Any], remote: list[Any]) -> list[Any]:
    """Return the entries of both in order, local ones first, each once."""
    seen: set[bytes] = set()
    united = []
    for entry in [*local, *remote]:
        key = canonical(entry)
        if key not in seen:
            seen.add(key)
            united.append(entry)
    return united
