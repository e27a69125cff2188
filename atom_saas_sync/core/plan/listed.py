"""Plan for a skill that the marketplace lists."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime

from msgspec.structs import replace

from atom_saas_sync.core.canonical import same, version_from_fields, version_key
from atom_saas_sync.core.gate.admission import text_of, written_here
from atom_saas_sync.core.merge import follow_volatile
from atom_saas_sync.core.plan.conflicts import (
    changed_at,
    closing,
    conflict_with,
    fields_of,
    loses_local_edit,
    replaced_forgery,
    resolve_versions,
    same_as,
    skipped_version,
    waits_with,
)
from atom_saas_sync.core.plan.deletions import plan_deleted
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import (
    SENT,
    STORED,
    Source,
    based_on,
    ended_before,
    life,
    logged,
    seen,
    served,
)
from atom_saas_sync.model import Action, ConflictEntry, Outcome, Resolution, SkillState, SkillVersion, Strategy
from atom_saas_sync.model.effects import (
    AddServed,
    Admitted,
    Effect,
    KeepBase,
    Life,
    NoteRepublished,
    Servable,
    SetBase,
    UnmarkDeleted,
)
from atom_saas_sync.times import CLOCK_TOLERANCE, parse_time


def plan_listed(
    known: SkillState | None,
    remote: Admitted,
    strategy: Strategy,
    now: datetime,
    *,
    seen_otherwise: bool = False,
) -> Action:
    """Plan for a listed skill with the version `remote`. Times after `now` count as unknown.

    `seen_otherwise`: the same version number was seen with another exec digest, before the base.
    """
    if known is None and not seen_otherwise:
        return _new(remote)
    sides = Sides(known or SkillState(remote.skill_id))
    return with_alarm(plan_sides(sides, remote, strategy, now, SENT), sides, seen_otherwise=seen_otherwise)


def _new(remote: Admitted) -> Action:
    skill_id, key = remote.skill_id, version_key(remote.fields)
    effects = (
        AddServed(skill_id, text_of(remote), remote.fields, Life.CONFIRMED, None),
        SetBase(skill_id, remote, key, None, SENT.confirms, SENT.proof(remote, key)),
    )
    return Action(skill_id, Outcome.ADDED, effects, remote)


def plan_touched(known: SkillState, strategy: Strategy, now: datetime) -> Action | None:
    """Plan for a listed skill whose row another program deleted or changed; None if there is nothing to do.

    Nothing is restored from a tampered base, or while a conflict is open: then the base is not the marketplace's
    version.
    """
    sides = Sides(known)
    if sides.is_tampered or (known.local_text is not None and known.waiting is not None):
        return None
    newest = sides.base_version if known.waiting is None else sides.waiting_version
    return _plan_stored(sides, newest, strategy, now)


def plan_waiting(known: SkillState, strategy: Strategy, now: datetime, *, listed: bool) -> Action | None:
    """Plan for an open conflict, which a local edit or a changed strategy may resolve.

    None if there is nothing to do, or if the skill is not `listed`: it may have been deleted.
    """
    if known.waiting is None:
        return None
    if known.waiting.remote_text is None:
        return plan_deleted(known, strategy)
    sides = Sides(known)
    return _plan_stored(sides, sides.waiting_version, strategy, now) if listed else None


def _plan_stored(sides: Sides, newest: Admitted | None, strategy: Strategy, now: datetime) -> Action | None:
    if newest is None:
        return None
    action = with_alarm(plan_sides(sides, newest, strategy, now, STORED), sides, seen_otherwise=False)
    return action if action.does_something else None


def without_outdated(
    changed: Mapping[str, SkillVersion], told: AbstractSet[str], known: Mapping[str, SkillState], now: datetime
) -> dict[str, SkillVersion]:
    """Drop skills that messages have changed since the page was requested, unless the page is certainly newer."""
    return {
        name: remote for name, remote in changed.items() if name not in told or is_newer(remote, known.get(name), now)
    }


def is_newer(remote: SkillVersion, known: SkillState | None, now: datetime) -> bool:
    """Tell whether the listed version is certainly newer than the newest version that we know."""
    newest = None if known is None else Sides(known).newest
    stored = parse_time((fields_of(newest) or {}).get("updated_at"))
    updated_at = parse_time(remote.fields.get("updated_at"))
    return stored is not None and updated_at is not None and updated_at <= now + CLOCK_TOLERANCE and updated_at > stored


def with_alarm(action: Action, sides: Sides, *, seen_otherwise: bool) -> Action:
    """Return the action, marked as republished if the same version was seen with different code."""
    remote = action.remote
    if remote is None or not _is_republished(sides, remote, seen_otherwise=seen_otherwise):
        return action
    return replace(action, effects=(*action.effects, NoteRepublished(action.skill_id)))


def _is_republished(sides: Sides, remote: SkillVersion, *, seen_otherwise: bool) -> bool:
    """Tell whether the same version was sent with different executable content, even before a deletion of the skill."""
    base = sides.known.base
    if base is not None and base.version == version_key(remote.fields):
        if base.exec_digest == remote.exec_digest:
            return False
        seen_otherwise = True
    return seen_otherwise and not waits_with(sides, remote)


def plan_sides(  # noqa: PLR0911 - a cell each
    sides: Sides, remote: Admitted, strategy: Strategy, now: datetime, source: Source
) -> Action:
    """Do the same as `plan_listed`, without marking republished versions."""
    known, base = sides.known, sides.known.base
    if known.local_text is None:  # new; or another program deleted the row, which is not an edit: restore it
        return _take_remote(sides, remote, Outcome.ADDED, source)
    if base is not None and base.text is None and not base.deleted and known.waiting is None:
        # Not edited: take the marketplace's version.
        if base.wire_digest == remote.wire_digest:
            return Action(remote.skill_id, Outcome.UNCHANGED)
        if base.content_digest == remote.content_digest and same_as(sides.local, remote.fields):
            return _respelled(sides, remote, source)
        return _take_remote(sides, remote, Outcome.UPDATED, source)

    local = None if sides.local is None else sides.local.content_digest
    if local == remote.content_digest:
        return _converge(sides, remote, source)  # both sides have become equal: nothing to resolve
    if base is not None and local == base.content_digest:
        return _take_remote(sides, remote, Outcome.UPDATED, source)  # edited, but not significantly
    if base is not None and remote.content_digest == base.content_digest:
        return _keep_edit(sides, remote, now, source)  # changed locally only: keep it
    return _settle(sides, remote, strategy, now, source)


def _take_remote(sides: Sides, remote: Admitted, outcome: Outcome, source: Source) -> Action:
    entry = closing(sides, remote, remote.text) or replaced_forgery(sides, remote)
    effects: tuple[Effect, ...] = (
        served(sides, text_of(remote), remote.fields, life=life(sides, source)),
        *based_on(sides, remote, source, text=remote.text, settles=entry is not None),
        *logged(remote.skill_id, entry),
    )
    return Action(remote.skill_id, outcome, effects, remote)


def _respelled(sides: Sides, remote: Admitted, source: Source) -> Action:
    """Store a different spelling of the same JSON, so that the next sync recognizes its bytes."""
    effects = _written(sides, remote, source, changed_at=sides.known.local_updated_at)
    effects += based_on(sides, remote, source, text=remote.text, settles=False)
    return Action(remote.skill_id, Outcome.UNCHANGED, tuple(effects), remote)


def _converge(sides: Sides, remote: Admitted, source: Source) -> Action:
    entry, base = closing(sides, remote, remote.text), sides.known.base
    same_base = base is not None and not base.deleted and base.content_digest == remote.content_digest
    if entry is None and same_base and same_as(sides.local, remote.fields):
        return _respelled(sides, remote, source)
    effects = [
        *_written(sides, remote, source),
        *based_on(sides, remote, source, text=remote.text, settles=entry is not None),
        *logged(remote.skill_id, entry),
    ]
    return Action(remote.skill_id, Outcome.UPDATED, tuple(effects), remote)


def _written(sides: Sides, remote: Admitted, source: Source, *, changed_at: str | None = None) -> list[Effect]:
    """Serve the marketplace's text, unless it is already served."""
    if sides.known.local_text == remote.text:
        return []
    return [served(sides, text_of(remote), remote.fields, life=life(sides, source), changed_at=changed_at)]


def _keep_edit(sides: Sides, remote: Admitted, now: datetime, source: Source) -> Action:
    """Keep the local edit: the remote side equals the base (again), so no conflict is left. Volatile fields follow."""
    known, base = sides.known, sides.known.base
    assert base is not None
    text = _refreshed_text(sides, remote)
    entry = closing(sides, remote, text)
    advances = base.wire_digest != remote.wire_digest or base.deleted
    effects: list[Effect] = []
    if text != known.local_text:
        lives = Life.CONFIRMED if advances and source.confirms else Life.AS_BEFORE
        effects.append(served(sides, text, None, life=lives, changed_at=changed_at(sides, now)))
    if advances:
        effects += based_on(sides, remote, source, text=text, settles=entry is not None)
    else:
        effects += [*seen(sides, remote, source, entry), *kept_base(sides, text)]
    effects += logged(remote.skill_id, entry)
    return Action(remote.skill_id, _outcome(sides, text), tuple(effects), remote)


def kept_base(sides: Sides, text: str) -> list[KeepBase]:
    """Keep the former base text if a different text is served from now on."""
    local = sides.known.local_text
    if local is None or text == local or not sides.is_untouched:
        return []
    return [KeepBase(sides.skill_id, local)]


def _settle(sides: Sides, remote: Admitted, strategy: Strategy, now: datetime, source: Source) -> Action:
    """Handle a conflict: both sides changed in different ways."""
    known = sides.known
    if known.waiting is not None and known.waiting.reopened:
        strategy = "manual"
    if strategy != "manual":
        result = resolve_versions(
            sides.local, remote, sides.base, strategy, local_updated_at=known.local_updated_at, now=now
        )
        assert result is not None
        return settled(sides, remote, result, strategy, now, source, by_itself=True)
    text = _refreshed_text(sides, remote)
    # Even if only volatile fields are new, so that a later resolution uses the marketplace's current version.
    news = sides.waiting is None or sides.waiting.text != remote.text
    entry = ConflictEntry(conflict_with(sides, remote), None, sides.waiting_id) if news else None
    effects: list[Effect] = []
    if text != known.local_text:
        effects.append(served(sides, text, None, life=Life.AS_BEFORE, changed_at=changed_at(sides, now)))
    effects += seen(sides, remote, source, entry)
    if known.base is not None and known.base.deleted:
        effects.append(UnmarkDeleted(remote.skill_id))
    else:
        effects += kept_base(sides, text)
    effects += [*ended_before(skipped_version(sides, remote)), *logged(remote.skill_id, entry)]
    return Action(remote.skill_id, _outcome(sides, text), tuple(effects), remote)


def settled(
    sides: Sides,
    remote: Admitted,
    result: SkillVersion,
    strategy: str,
    now: datetime,
    source: Source,
    *,
    by_itself: bool = False,
) -> Action:
    """Serve `result`; the base becomes the remote version that was compared.

    `by_itself`: the strategy decided, not a user.
    """
    local, text = sides.local, written_here(result.text)
    if result.content_digest == remote.content_digest:
        text = text_of(remote)
    elif local is not None and same_as(local, result.fields):
        text = written_here(local.text)
    stays = local is not None and result.content_digest == local.content_digest
    loses = by_itself and loses_local_edit(sides, result)
    entry = ConflictEntry(
        conflict_with(sides, remote), Resolution(strategy, text, replaces_edit=loses), sides.waiting_id
    )
    effects: list[Effect] = []
    if text != sides.known.local_text:
        fields = remote.fields if text is remote.text else result.fields
        moment = changed_at(sides, now) if stays else None
        effects.append(served(sides, text, fields, life=life(sides, source), changed_at=moment))
    effects += [
        *ended_before(skipped_version(sides, remote)),
        *based_on(sides, remote, source, text=text, settles=True),
        *logged(remote.skill_id, entry),
    ]
    return Action(remote.skill_id, _outcome(sides, text), tuple(effects), remote)


def _outcome(sides: Sides, text: str) -> Outcome:
    return Outcome.UNCHANGED if text == sides.known.local_text else Outcome.UPDATED


def _refreshed_text(sides: Sides, remote: SkillVersion) -> Servable:
    """Return the local text with the marketplace's volatile fields; the identical text if they are equal."""
    local = sides.local
    assert local is not None
    if local.fields is None:
        return written_here(local.text)
    fields = follow_volatile(local.fields, remote.fields)
    return written_here(local.text if same(fields, local.fields) else version_from_fields(remote.skill_id, fields).text)
