"""The decision: what happens to a skill, given its base, the local copy and what the marketplace says.

One branch a cell; each has its row in docs/ATOM_SAAS_SYNC_ARCHITECTURE.md and a parametrised test. Rules:
data-model.md, 1 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from atom_saas_sync.core.canonical import decode_object, same, stored_version, version_from_fields
from atom_saas_sync.core.merge import follow_volatile, merge
from atom_saas_sync.model import (
    Action,
    BaseChange,
    CacheChange,
    Conflict,
    ConflictEntry,
    ConflictType,
    Known,
    Outcome,
    Resolution,
    Severity,
    SkillVersion,
    Strategy,
)
from atom_saas_sync.times import parse_time

CONVERGED = "converged"


def plan_listed(known: Known | None, remote: SkillVersion, strategy: Strategy) -> Action:  # noqa: PLR0911 - a cell each
    """Plan for a skill that the marketplace has, as `remote`."""
    if known is None or (known.local_text is None and known.base is None):
        return _take_remote(remote, Outcome.ADDED)  # new to us
    if known.local_text is None:
        return _take_remote(remote, Outcome.ADDED)  # another program deleted the row: no edit, so put it back
    base = known.base
    if base is not None and base.text is None and not base.deleted:
        # Untouched here: it takes what the marketplace has.
        if base.wire_digest == remote.wire_digest:
            return Action(remote.skill_id, Outcome.UNCHANGED)
        return _take_remote(remote, Outcome.UPDATED, republished=_is_republished(known, remote))

    local = stored_version(remote.skill_id, known.local_text)
    if local is not None and local.content_digest == remote.content_digest:
        return _converge(known, remote)  # both sides came to the same: nothing to resolve
    if base is not None and local is not None and local.content_digest == base.content_digest:
        # Touched but not changed in what matters.
        return _take_remote(remote, Outcome.UPDATED, republished=_is_republished(known, remote))
    if base is not None and remote.content_digest == base.content_digest:
        return _keep_edit(known, local, remote)  # changed here only: it stays
    return _settle(known, local, remote, strategy)


def plan_deleted(known: Known, strategy: Strategy) -> Action | None:
    """Plan for a skill that the marketplace has confirmed as deleted; None if it exists only here, or waits already."""
    base = known.base
    if base is None:
        return None
    if known.local_text is None or not is_edited(known):
        return Action(known.skill_id, Outcome.DELETED, cache=CacheChange.REMOVE, base=BaseChange.DROP)
    conflict = Conflict(
        type="DELETION_CONFLICT",
        severity=_severity(decode_object(known.local_text) or {}, {}),
        local_text=known.local_text,
        remote_text=None,
        base_text=known.base_text,
    )
    waiting_id = known.waiting.id if known.waiting else None
    if strategy == "manual":
        if base.deleted and known.waiting is not None and known.waiting.remote_text is None:
            return None
        entry = ConflictEntry(conflict, None, waiting_id)
        return Action(known.skill_id, Outcome.UNCHANGED, base=BaseChange.MARK_DELETED, conflict=entry)
    if strategy == "remote_wins":
        entry = ConflictEntry(conflict, Resolution(strategy, None), waiting_id)
        return Action(known.skill_id, Outcome.DELETED, cache=CacheChange.REMOVE, base=BaseChange.DROP, conflict=entry)
    # local_wins, and merge acts like it: the skill stays, and exists only here from now on.
    entry = ConflictEntry(conflict, Resolution(strategy, known.local_text), waiting_id)
    return Action(known.skill_id, Outcome.UNCHANGED, base=BaseChange.DROP, conflict=entry)


def is_edited(known: Known) -> bool:
    """Tell whether the local copy differs from its base in fields that matter; also if it exists only here."""
    if known.local_text is None:
        return False
    if known.base is None:
        return True
    if known.base.text is None:
        return False
    local = stored_version(known.skill_id, known.local_text)
    return local is None or local.content_digest != known.base.content_digest


def resolve(
    conflict: Conflict, skill_id: str, strategy: Strategy, *, local_updated_at: str | None = None
) -> SkillVersion | None:
    """Return the version that `strategy` makes of a conflict; None if the skill goes. `manual` decides nothing.

    Raises ValueError for `manual`.
    """
    if strategy == "manual":
        raise ValueError("manual is no decision")
    local = stored_version(skill_id, conflict.local_text)
    remote = None if conflict.remote_text is None else stored_version(skill_id, conflict.remote_text)
    if remote is None:
        return None if strategy == "remote_wins" else local
    if strategy == "remote_wins" or local is None:
        return remote  # what is no JSON object can't be kept or merged; the log has it
    if strategy == "local_wins":
        return version_from_fields(skill_id, follow_volatile(local.fields, remote.fields))
    base = decode_object(conflict.base_text) if conflict.base_text is not None else None
    merged = merge(base or {}, local.fields, remote.fields, local_time=_local_time(local_updated_at, local.fields))
    return version_from_fields(skill_id, merged)


def classify(local: Mapping[str, Any], remote: Mapping[str, Any]) -> tuple[ConflictType, Severity]:
    """Return the type and the severity of a conflict between two versions (data-model.md, rule 2)."""
    return _type(local, remote), _severity(local, remote)


def differing_fields(left: Mapping[str, Any], right: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the fields that differ; code is compared without outer white space."""
    names = {*left, *right}
    return frozenset(name for name in names if not _same_field(name, left, right))


def _same_field(name: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    mine, theirs = left.get(name), right.get(name)
    if name == "code" and isinstance(mine, str) and isinstance(theirs, str):
        return mine.strip() == theirs.strip()
    return (name in left) == (name in right) and same(mine, theirs)


def _type(local: Mapping[str, Any], remote: Mapping[str, Any]) -> ConflictType:
    different = differing_fields(local, remote)
    if "version" in different:
        return "VERSION_MISMATCH"
    if "code" in different:
        return "CONTENT_MISMATCH"
    for name in ("python_packages", "npm_packages"):
        if name in different and _as_set(local.get(name)) != _as_set(remote.get(name)):
            return "DEPENDENCY_CONFLICT"
    return "OTHER"


def _as_set(packages: object) -> frozenset[str]:
    return frozenset(map(str, packages)) if isinstance(packages, list) else frozenset()


def _severity(local: Mapping[str, Any], remote: Mapping[str, Any]) -> Severity:
    different = differing_fields(local, remote)
    if different & {"code", "command", "local_files"}:
        return "CRITICAL"
    if different & {"version", "python_packages", "npm_packages"}:
        return "HIGH"
    if different & {"parameters", "metadata", "env_vars"}:
        return "MEDIUM"
    return "LOW"


def _local_time(row_updated_at: str | None, fields: Mapping[str, Any]) -> datetime | None:
    times = [moment for moment in (parse_time(row_updated_at), parse_time(fields.get("updated_at"))) if moment]
    return max(times, default=None)


def _take_remote(remote: SkillVersion, outcome: Outcome, *, republished: bool = False) -> Action:
    return Action(
        remote.skill_id,
        outcome,
        cache=CacheChange.WRITE,
        text=remote.text,
        base=BaseChange.ADVANCE,
        remote=remote,
        republished=republished,
    )


def _converge(known: Known, remote: SkillVersion) -> Action:
    assert known.local_text is not None
    entry = None
    if known.waiting is not None:
        entry = ConflictEntry(_conflict(known, remote), Resolution(CONVERGED, remote.text), waiting_id=known.waiting.id)
    unchanged = (
        entry is None
        and known.local_text == remote.text
        and known.base is not None
        and not known.base.deleted
        and known.base.wire_digest == remote.wire_digest
    )
    return Action(
        remote.skill_id,
        Outcome.UNCHANGED if unchanged else Outcome.UPDATED,
        cache=CacheChange.KEEP if known.local_text == remote.text else CacheChange.WRITE,
        text=remote.text,
        base=BaseChange.ADVANCE,
        remote=remote,
        conflict=entry,
        republished=_is_republished(known, remote),
    )


def _keep_edit(known: Known, local: SkillVersion | None, remote: SkillVersion) -> Action:
    """Keep the local edit: the remote side is (again) what it was. Volatile fields follow, no conflict is left."""
    assert known.local_text is not None
    text = _refreshed_text(known.local_text, local, remote)
    entry = None
    if known.waiting is not None:
        entry = ConflictEntry(_conflict(known, remote), Resolution(CONVERGED, text), waiting_id=known.waiting.id)
    assert known.base is not None
    return Action(
        remote.skill_id,
        Outcome.UNCHANGED if text == known.local_text else Outcome.UPDATED,
        cache=CacheChange.KEEP if text == known.local_text else CacheChange.WRITE,
        text=text,
        base=BaseChange.KEEP
        if known.base.wire_digest == remote.wire_digest and not known.base.deleted
        else BaseChange.ADVANCE,
        remote=remote,
        conflict=entry,
    )


def _settle(known: Known, local: SkillVersion | None, remote: SkillVersion, strategy: Strategy) -> Action:
    """Both sides changed, differently: a conflict."""
    assert known.local_text is not None
    conflict = _conflict(known, remote)
    waiting_id = known.waiting.id if known.waiting else None
    republished = _is_republished(known, remote)
    if strategy == "manual":
        text = _refreshed_text(known.local_text, local, remote)
        news = known.waiting is None or not _is_same_remote(known.waiting.remote_text, remote)
        written = text != known.local_text
        return Action(
            remote.skill_id,
            Outcome.UPDATED if written else Outcome.UNCHANGED,
            cache=CacheChange.WRITE if written else CacheChange.KEEP,
            text=text,
            base=BaseChange.UNMARK_DELETED if known.base is not None and known.base.deleted else BaseChange.KEEP,
            remote=remote,
            conflict=ConflictEntry(conflict, None, waiting_id) if news else None,
            republished=republished and news,
        )
    result = resolve(conflict, remote.skill_id, strategy, local_updated_at=known.local_updated_at)
    assert result is not None
    text = remote.text if result.content_digest == remote.content_digest else result.text
    written = text != known.local_text
    return Action(
        remote.skill_id,
        Outcome.UPDATED if written else Outcome.UNCHANGED,
        cache=CacheChange.WRITE if written else CacheChange.KEEP,
        text=text,
        base=BaseChange.ADVANCE,
        remote=remote,
        conflict=ConflictEntry(conflict, Resolution(strategy, text), waiting_id),
        republished=republished,
    )


def _conflict(known: Known, remote: SkillVersion) -> Conflict:
    assert known.local_text is not None
    local = decode_object(known.local_text) or {}
    kind, severity = classify(local, remote.fields)
    return Conflict(
        type=kind,
        severity=severity,
        local_text=known.local_text,
        remote_text=remote.text,
        base_text=known.base_text if known.base is not None else None,
    )


def _refreshed_text(local_text: str, local: SkillVersion | None, remote: SkillVersion) -> str:
    """Return the local text with the marketplace's volatile fields, and the very same text if they are the same."""
    if local is None:
        return local_text
    fields = follow_volatile(local.fields, remote.fields)
    return local_text if same(fields, local.fields) else version_from_fields(remote.skill_id, fields).text


def _is_same_remote(waiting_text: str | None, remote: SkillVersion) -> bool:
    waiting = None if waiting_text is None else stored_version(remote.skill_id, waiting_text)
    return waiting is not None and waiting.content_digest == remote.content_digest


def _is_republished(known: Known, remote: SkillVersion) -> bool:
    """Tell whether the same version comes with another executable content (data-model.md, rule 11)."""
    if known.base is None or known.base.exec_digest == remote.exec_digest or known.base_text is None:
        return False
    base_fields = decode_object(known.base_text) or {}
    return base_fields.get("version") is not None and same(base_fields["version"], remote.fields.get("version"))
