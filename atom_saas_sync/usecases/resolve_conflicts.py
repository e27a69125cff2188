"""Resolve conflicts as the user decides, and undo resolutions (docs/CONFLICTS.md).

All conflicts of one call are resolved in one transaction, or none. The sides are the current ones, not those when the
conflict was logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct, field

from atom_saas_sync.characters import shell_argument
from atom_saas_sync.core.canonical import decode_object, stored_version, version_from_fields
from atom_saas_sync.core.comparison import Side, combine, compare, contested
from atom_saas_sync.core.documents import read_one
from atom_saas_sync.core.incoming.skills import read_skill
from atom_saas_sync.core.merge import follow_volatile
from atom_saas_sync.core.plan import CONVERGED, is_edited, is_tampered, plan_resolution, plan_undo, resolve
from atom_saas_sync.errors import NotFound, Tampered, UsageError
from atom_saas_sync.model import (
    Action,
    Conflict,
    ConflictFilter,
    InvalidItem,
    LoggedConflict,
    SkillState,
    SkillVersion,
    Strategy,
)
from atom_saas_sync.times import time_text
from atom_saas_sync.usecases.gate.local import refuse_banned, take_out_revoked

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import StoredConflicts


class Decision(Struct, frozen=True):
    """How a conflict is resolved: by a strategy, by field (the rest by the strategy, or merged), or by a given text.

    `seen` are the local and remote texts on which the decision is based, if a user has seen them.
    """

    strategy: Strategy | None = None
    sides: Mapping[str, Side] = field(default_factory=dict)
    text: str | None = None
    seen: tuple[str | None, str | None] | None = None


class Settled(Struct, frozen=True):
    """The resolution of one conflict; `removed` if the skill was removed."""

    id: int
    skill_id: str
    strategy: str
    removed: bool = False


def resolve_conflicts(
    store: StoredConflicts, wanted: Sequence[int] | ConflictFilter, decision: Decision, *, actor: str, now: datetime
) -> list[Settled]:
    """Resolve these conflicts, or all matching open ones. Writes cache, bases, conflict log and audit log.

    Raises UsageError, with nothing changed, for an unknown or resolved conflict and for an invalid decision.
    """
    with store.resolving() as desk:
        take_out_revoked(desk, now)
        ids = desk.open_ids(wanted) if isinstance(wanted, ConflictFilter) else list(dict.fromkeys(wanted))
        conflicts = [_open(desk.conflict(each), each) for each in ids]
        known = desk.known([each.skill_id for each in conflicts])
        strategy = _name(decision)
        actions = [_decide(known[each.skill_id], each, decision, strategy, now) for each in conflicts]
        refuse_banned(desk, known, actions)
        desk.apply(actions, now, actor=actor)
        for each in conflicts:
            desk.note(
                actor, "conflict resolve", each.skill_id, now, conflict=each.id, strategy=strategy, **_details(decision)
            )
        return [
            Settled(each.id, each.skill_id, strategy, removed=_removes(action))
            for each, action in zip(conflicts, actions, strict=True)
        ]


def undo_resolution(store: StoredConflicts, conflict_id: int, *, actor: str, now: datetime) -> Settled:
    """Undo a resolution and reopen the conflict, which then needs a manual resolution whatever the strategy is.

    Raises UsageError, with nothing changed, if there is nothing to restore or the skill was changed since.
    """
    with store.resolving() as desk:
        take_out_revoked(desk, now)
        logged = desk.conflict(conflict_id)
        if logged is None:
            raise _unknown(conflict_id)
        known = desk.known([logged.skill_id]).get(logged.skill_id) or SkillState(logged.skill_id)
        _refuse_undo(logged, known)
        action = plan_undo(known, logged)
        refuse_banned(desk, {logged.skill_id: known}, [action])
        desk.apply([action], now, actor=actor)
        desk.mark_undone(conflict_id, actor, now)
        desk.note(
            actor,
            "conflict undo",
            logged.skill_id,
            now,
            conflict=logged.id,
            strategy=logged.strategy,
            replaced=known.local_text,
        )
        return Settled(logged.id, logged.skill_id, logged.strategy or "")


def open_conflict(store: StoredConflicts, conflict_id: int) -> LoggedConflict:
    """Return the current state of an open conflict. Raises NotFound if there is no conflict with that number."""
    return _open(store.conflict(conflict_id), conflict_id)


def proposal(conflict: LoggedConflict, now: datetime) -> str | None:
    """Return the result of the strategy `merge` for an open conflict; None if the skill can't be parsed."""
    result = _by_strategy(conflict, "merge", now)
    return None if result is None else result.text


def outcome(logged: LoggedConflict, decision: Decision, now: datetime) -> SkillVersion | None:
    """Return the result of a decision for an open conflict; None if the skill is removed. Raises UsageError."""
    conflict = _current(logged)
    if decision.text is not None:
        return _own_version(conflict, logged, decision.text)
    if decision.sides:
        return _by_field(conflict, logged, decision, now)
    assert decision.strategy is not None
    return _by_strategy(logged, decision.strategy, now)


def _open(logged: LoggedConflict | None, conflict_id: int) -> LoggedConflict:
    if logged is None:
        raise _unknown(conflict_id)
    if logged.resolved:
        raise UsageError(
            f"conflict {conflict_id} is resolved already: {logged.strategy}, by {logged.resolved_by} "
            f"at {time_text(logged.resolved_at)}",
            hint=f"`atom-sync conflicts undo {conflict_id}` restores what that replaced",
        )
    if logged.cached_text is None:
        raise UsageError(
            f"conflict {conflict_id} no longer has a local side: another program deleted {logged.skill_id!r}",
            hint="the next sync restores the marketplace's version and closes the conflict",
        )
    return logged


def _unknown(conflict_id: int) -> NotFound:
    return NotFound(f"there is no conflict {conflict_id}", hint="`atom-sync conflicts list` shows them")


def _decide(known: SkillState, logged: LoggedConflict, decision: Decision, strategy: str, now: datetime) -> Action:
    if decision.seen is not None and decision.seen != (logged.cached_text, logged.remote_text):
        raise UsageError(
            f"conflict {logged.id} has changed while you looked at it; nothing was done",
            hint=f"inspect it again: `atom-sync conflicts show {logged.id}`",
        )
    if logged.remote_text is not None and _fields(logged.remote_text) is None:
        raise UsageError(
            f"conflict {logged.id}: the marketplace's version in it is no longer a skill: another program wrote it",
            hint="`atom-sync sync skills --force` reads it again",
        )
    return plan_resolution(known, outcome(logged, decision, now), strategy, now)


def _current(logged: LoggedConflict) -> Conflict:
    return Conflict(logged.type, logged.severity, logged.cached_text, logged.remote_text, logged.base_text)


def _by_strategy(logged: LoggedConflict, strategy: Strategy, now: datetime) -> SkillVersion | None:
    return resolve(_current(logged), logged.skill_id, strategy, local_updated_at=logged.cached_at, now=now)


def _by_field(conflict: Conflict, logged: LoggedConflict, decision: Decision, now: datetime) -> SkillVersion:
    local, remote = _fields(conflict.local_text), _fields(conflict.remote_text)
    if local is None or remote is None:
        raise UsageError(
            f"conflict {logged.id} can't be resolved by field: one side has no fields",
            hint="choose one side: --strategy local_wins or remote_wins",
        )
    changes = {change.name: change for change in compare(_fields(conflict.base_text), local, remote)}
    unknown = [name for name in decision.sides if name not in changes]
    if unknown:
        raise UsageError(
            f"conflict {logged.id}: {', '.join(unknown)}: no field that differs; those are {', '.join(changes)}"
        )
    open_fields = [change.name for change in contested(list(changes.values())) if change.name not in decision.sides]
    if open_fields and decision.strategy is None:
        raise UsageError(
            f"conflict {logged.id}: both sides changed {', '.join(open_fields)} too",
            hint="choose a side for each with --field NAME=local or NAME=remote, or pass --strategy for the rest",
        )
    start = _by_strategy(logged, decision.strategy or "merge", now)
    assert start is not None
    return version_from_fields(logged.skill_id, combine(start.fields, local, remote, decision.sides))


def _own_version(conflict: Conflict, logged: LoggedConflict, text: str) -> SkillVersion:
    own = own_skill(text, logged.skill_id)
    remote = _fields(conflict.remote_text)
    return own if remote is None else version_from_fields(logged.skill_id, follow_volatile(own.fields, remote))


def own_skill(text: str, skill_id: str) -> SkillVersion:
    """Return the skill in a text written by a user; it must have this id. Raises UsageError."""
    skill = read_skill(read_one(text, "the given skill").encode())
    if isinstance(skill, InvalidItem) and skill.if_held is not None:
        skill = skill.if_held  # its id must be that of the conflict
    if isinstance(skill, InvalidItem):
        raise UsageError(f"this is not a skill: {skill.reason}; nothing was changed")
    if skill.skill_id != skill_id:
        raise UsageError(f"this is another skill: {skill.skill_id!r}, not {skill_id!r}; nothing was changed")
    return skill


def _refuse_undo(logged: LoggedConflict, known: SkillState) -> None:
    if not logged.resolved:
        raise UsageError(f"conflict {logged.id} is open: there is nothing to undo")
    if logged.undone_at is not None:
        when = time_text(logged.undone_at)
        raise UsageError(f"conflict {logged.id} was undone already, by {logged.undone_by} at {when}")
    if logged.strategy == CONVERGED or logged.local_text is None:
        raise UsageError(
            f"conflict {logged.id} closed automatically: no local change was replaced, so there is nothing to undo"
        )
    if known.waiting is not None:
        raise UsageError(
            f"conflict {known.waiting.id} of the same skill is open",
            hint=f"resolve that one first: `atom-sync conflicts show {known.waiting.id}`",
        )
    if is_tampered(known):
        raise Tampered(logged.skill_id)
    if known.local_text is None or not is_edited(known):
        return  # only the marketplace has changed it since
    now = stored_version(logged.skill_id, known.local_text)
    then = None if logged.result_text is None else stored_version(logged.skill_id, logged.result_text)
    if now is None or then is None or now.content_digest != then.content_digest:
        raise UsageError(
            f"{logged.skill_id!r} was changed here since conflict {logged.id} was resolved; undoing it would lose that",
            hint=f"`atom-sync skills diff {shell_argument(logged.skill_id)}` shows it; "
            f"`atom-sync conflicts show {logged.id} --json` has all versions of that time",
        )


def _name(decision: Decision) -> str:
    """Return the strategy for the log: `manual` for a result that a user composed."""
    if decision.text is not None or decision.sides:
        return "manual"
    if decision.strategy is None or decision.strategy == "manual":
        raise UsageError(
            "`manual` does not resolve a conflict",
            hint="use remote_wins, local_wins or merge; or --field, --edit or --data",
        )
    return decision.strategy


def _details(decision: Decision) -> dict[str, object]:
    if decision.sides:
        return {"fields": dict(decision.sides), "rest": decision.strategy or "merge"}
    return {"own_text": True} if decision.text is not None else {}


def _removes(action: Action) -> bool:
    return action.conflict is not None and (
        action.conflict.resolution is not None and action.conflict.resolution.result_text is None
    )


def _fields(text: str | None) -> dict[str, object] | None:
    return None if text is None else decode_object(text)
