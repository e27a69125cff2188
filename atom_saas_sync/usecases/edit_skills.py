"""Edit skills here: a person's own changes, which no sync overwrites in silence (data-model.md, rule 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from atom_saas_sync.core.canonical import (
    DESCRIPTIVE_FIELDS,
    PACKAGE_FIELDS,
    VOLATILE_FIELDS,
    decode_object,
    json_text,
    stored_version,
    version_from_fields,
)
from atom_saas_sync.core.incoming.fields import TEXT_FIELDS
from atom_saas_sync.core.incoming.skills import read_skill
from atom_saas_sync.core.merge import follow_volatile
from atom_saas_sync.core.plan import is_edited, is_tampered
from atom_saas_sync.errors import NotFound, Tampered, UsageError
from atom_saas_sync.model import Action, BaseChange, CacheChange, InvalidItem, Known, Outcome, SkillVersion
from atom_saas_sync.usecases.ports import EditableCatalogue

_SHOWN = 10
_OBJECTS = ("metadata", "parameters", "env_vars", "local_files")
EDITABLE_FIELDS = frozenset({*TEXT_FIELDS, *PACKAGE_FIELDS, *DESCRIPTIVE_FIELDS, *_OBJECTS})
"""Fields that the contract knows (marketplace-api.md, section 3), but those that follow the marketplace."""


class Candidate(Struct, frozen=True):
    """One skill to import: where it stands, for messages, and its JSON text as it came."""

    place: str
    raw: bytes


class Imported(Struct, frozen=True):
    """How many skills an import added, changed, and found as they were."""

    added: int
    updated: int
    unchanged: int


def edit_skill(
    catalogue: EditableCatalogue, skill_id: str, text: str, *, seen: str | None, actor: str, now: datetime
) -> bool:
    """Replace the local version of a skill by the JSON `text`; return whether anything changed.

    Volatile fields stay as the marketplace has them. Raises UsageError, with nothing changed, if `text` is no skill or
    another one, or the cached text is no longer what the person has `seen` (None: did not look).
    """
    edited = _read(Candidate("the edited text", text.encode()), catalogue)
    if edited.skill_id != skill_id:
        raise UsageError(
            f"the edited text is another skill: {edited.skill_id!r}, not {skill_id!r}; nothing was changed",
            hint="`atom-sync skills import FILE` adds skills",
        )
    with catalogue.batch() as batch:
        known = batch.known([skill_id]).get(skill_id) or Known(skill_id)
        if seen is not None and known.local_text != seen:
            raise UsageError(
                f"{skill_id!r} has changed while you edited it; nothing was done", hint="edit it again as it is now"
            )
        action = _plan(known, edited.fields)
        if action is None:
            return False
        batch.apply([action], now, actor=actor)
        batch.note(actor, "skill edit", skill_id, now, **_replaced(known))
    return True


def set_fields(text: str, changes: Mapping[str, Any], *, new_fields: bool = False) -> str:
    """Return the skill `text` with these fields, as JSON.

    Raises UsageError for a field that can't be edited here, and unless `new_fields` for one that neither the skill nor
    the contract has.
    """
    fields = decode_object(text) or {}
    for name in changes:
        if name in VOLATILE_FIELDS:
            raise UsageError(f"{name} always follows the marketplace: it can't be edited here")
        if name in {"skill_id", "id"}:
            raise UsageError(f"{name} can't be edited: it says which skill this is")
        if not new_fields and name not in fields and name not in EDITABLE_FIELDS:
            close = get_close_matches(name, {*fields, *EDITABLE_FIELDS} - VOLATILE_FIELDS, n=1)
            raise UsageError(
                f"unknown field {name!r}" + (f": did you mean {close[0]!r}?" if close else ""),
                hint="nothing was changed; pass --new-field to add a field of that name",
            )
    return json_text({**fields, **changes})


def import_skills(
    catalogue: EditableCatalogue, candidates: Sequence[Candidate], *, actor: str, now: datetime
) -> Imported:
    """Add skills, or edit those that are there; all of them in one transaction, after all were found to be skills.

    Raises UsageError, with nothing changed, that names what is wrong and where.
    """
    problems: list[str] = []
    skills: dict[str, SkillVersion] = {}
    for candidate in candidates:
        try:
            skill = _read(candidate, catalogue)
        except UsageError as error:
            problems.append(error.message)
            continue
        if skill.skill_id in skills:
            problems.append(f"{candidate.place} has {skill.skill_id!r} a second time")
        skills[skill.skill_id] = skill
    if problems:
        more = f"\n… and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UsageError("\n".join(problems[:_SHOWN]) + more, hint="nothing was imported")
    with catalogue.batch() as batch:
        known = batch.known(skills)
        planned = [_plan(known.get(name) or Known(name), skill.fields) for name, skill in skills.items()]
        actions = [action for action in planned if action is not None]
        batch.apply(actions, now, actor=actor)
        for action in actions:
            batch.note(actor, "skill import", action.skill_id, now, **_replaced(known.get(action.skill_id)))
    added = sum(action.outcome is Outcome.ADDED for action in actions)
    return Imported(added=added, updated=len(actions) - added, unchanged=len(skills) - len(actions))


def revert_skill(catalogue: EditableCatalogue, skill_id: str, *, actor: str, now: datetime) -> bool:
    """Put the local version back to what the marketplace sent last; return whether anything changed.

    Raises UsageError, with nothing changed, for a skill that is unknown, exists only here, or has an open conflict.
    """
    with catalogue.batch() as batch:
        known = batch.known([skill_id]).get(skill_id)
        if known is None or (known.local_text is None and known.base is None):
            raise NotFound(f"there is no skill {skill_id!r} in the cache")
        if known.waiting is not None:
            raise UsageError(
                f"conflict {known.waiting.id} waits: the marketplace has another version, or has deleted the skill",
                hint=f"`atom-sync conflicts resolve {known.waiting.id} --strategy remote_wins` takes its side",
            )
        base = None if known.base_text is None else stored_version(skill_id, known.base_text)
        if base is None:
            raise UsageError(f"{skill_id!r} exists only here: there is nothing to go back to")
        if known.local_text == base.text:
            return False
        if is_tampered(known):
            raise Tampered(skill_id)
        batch.apply([_back_to(base)], now, actor=actor)
        batch.note(actor, "skill revert", skill_id, now, **_replaced(known))
    return True


def _read(candidate: Candidate, catalogue: EditableCatalogue) -> SkillVersion:
    skill = read_skill(candidate.raw)
    if isinstance(skill, InvalidItem) and skill.if_held is not None and catalogue.known([skill.if_held.skill_id]):
        return skill.if_held
    if isinstance(skill, InvalidItem):
        raise UsageError(f"{candidate.place} is no skill: {skill.reason}", hint="nothing was changed")
    return skill


def _plan(known: Known, fields: Mapping[str, Any]) -> Action | None:
    """Plan an edit; None if it changes nothing that a person can change."""
    base = None if known.base_text is None else stored_version(known.skill_id, known.base_text)
    local = None if known.local_text is None else stored_version(known.skill_id, known.local_text)
    # Volatile fields follow the marketplace: of an edited skill, the cached text has its newest.
    edited = version_from_fields(known.skill_id, follow_volatile(fields, (local or base).fields) if base else fields)
    if local is not None and local.content_digest == edited.content_digest:
        return None
    if base is not None and base.content_digest == edited.content_digest and known.waiting is None:
        return _back_to(base)
    outcome = Outcome.ADDED if known.local_text is None else Outcome.UPDATED
    return Action(known.skill_id, outcome, cache=CacheChange.WRITE, text=edited.text)


def _replaced(known: Known | None) -> dict[str, object]:
    """Return what the audit log keeps: a local version that exists nowhere else."""
    return {} if known is None or not is_edited(known) else {"replaced": known.local_text}


def _back_to(base: SkillVersion) -> Action:
    return Action(
        base.skill_id,
        Outcome.UPDATED,
        cache=CacheChange.WRITE,
        text=base.text,
        base=BaseChange.RESTORE,
        remote=base,
    )
