"""Edit skills locally: a user's changes, which syncs never overwrite silently (docs/CONFLICTS.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from atom_saas_sync.characters import shell_argument
from atom_saas_sync.core.canonical import (
    DESCRIPTIVE_FIELDS,
    PACKAGE_FIELDS,
    VOLATILE_FIELDS,
    decode_object,
    json_text,
    no_object,
    stored_version,
)
from atom_saas_sync.core.incoming.fields import TEXT_FIELDS
from atom_saas_sync.core.incoming.skills import read_skill
from atom_saas_sync.core.plan import is_edited, is_tampered
from atom_saas_sync.core.plan.edits import plan_edit, plan_removal, plan_revert
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.errors import NotFound, NotLocal, Tampered, UsageError
from atom_saas_sync.model import InvalidItem, Outcome, SkillState, SkillVersion
from atom_saas_sync.model.effects import Admitted
from atom_saas_sync.usecases.gate.local import refuse_banned, take_out_revoked

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import EditableCatalogue, EditBatch


_SHOWN = 10
_OBJECTS = ("metadata", "parameters", "env_vars", "local_files")
EDITABLE_FIELDS = frozenset({*TEXT_FIELDS, *PACKAGE_FIELDS, *DESCRIPTIVE_FIELDS, *_OBJECTS})
"""Fields of the contract (marketplace-api.md, section 3) without those that follow the marketplace."""


class Candidate(Struct, frozen=True):
    """One skill to import: its place for messages, and its JSON text."""

    place: str
    raw: bytes


class Imported(Struct, frozen=True):
    """The numbers of skills that an import added, changed, and left unchanged."""

    added: int
    updated: int
    unchanged: int


def edit_skill(
    catalogue: EditableCatalogue, skill_id: str, text: str, *, seen: str | None, actor: str, now: datetime
) -> bool:
    """Replace the local version of a skill by the JSON `text`; return whether anything changed.

    Volatile fields stay as the marketplace has them. Raises UsageError, with nothing changed, if `text` is not a skill,
    has another id, or the cached text is no longer the one that the user has `seen` (None: not checked).
    """
    edited = check_edit(catalogue, skill_id, text)
    with catalogue.batch() as batch:
        take_out_revoked(batch, now)
        known = batch.known([skill_id]).get(skill_id) or SkillState(skill_id)
        if seen is not None and known.local_text != seen:
            raise UsageError(
                f"{skill_id!r} has changed while you edited it; nothing was done", hint="edit the current text again"
            )
        action = plan_edit(known, edited.fields)
        if action is None:
            return False
        refuse_banned(batch, {skill_id: known}, [action])
        _keep(batch, [known], now)
        batch.apply([action], now, actor=actor)
        batch.note(actor, "skill edit", skill_id, now, **_replaced(known))
    return True


def check_edit(
    catalogue: EditableCatalogue, skill_id: str, text: str, *, name: str = "the edited text"
) -> SkillVersion:
    """Return the skill in the JSON `text`. Raises UsageError if there is none, or it has another id."""
    edited = _read(Candidate(name, text.encode()), catalogue)
    if edited.skill_id != skill_id:
        raise UsageError(
            f"{name} is another skill: {edited.skill_id!r}, not {skill_id!r}; nothing was changed",
            hint="`atom-sync skills import FILE` adds skills",
        )
    return edited


def set_fields(text: str, changes: Mapping[str, Any], *, new_fields: bool = False) -> str:
    """Return the skill `text` with these fields, as JSON.

    Raises UsageError if `text` is not a JSON object, for a field that can't be edited here, and unless `new_fields` for
    one that neither the skill nor the contract has.
    """
    fields = decode_object(text)
    if fields is None:
        raise UsageError(
            f"single fields of the stored text can't be edited: {no_object(text)}",
            hint="nothing was changed; --file replaces the whole text, and `atom-sync skills revert` puts the "
            "marketplace's back",
        )
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
    """Add skills, or edit existing ones; in one transaction, after all were validated.

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
        take_out_revoked(batch, now)
        known = batch.known(skills)
        planned = [plan_edit(known.get(name) or SkillState(name), skill.fields) for name, skill in skills.items()]
        actions = [action for action in planned if action is not None]
        refuse_banned(batch, known, actions)
        _keep(batch, [known[action.skill_id] for action in actions if action.skill_id in known], now)
        batch.apply(actions, now, actor=actor)
        for action in actions:
            batch.note(actor, "skill import", action.skill_id, now, **_replaced(known.get(action.skill_id)))
    added = sum(action.outcome is Outcome.ADDED for action in actions)
    return Imported(added=added, updated=len(actions) - added, unchanged=len(skills) - len(actions))


def restore_version(
    catalogue: EditableCatalogue, skill_id: str, text: str, *, version: str, actor: str, now: datetime
) -> bool:
    """Put the `text` of a former version back as a local edit; return whether anything changed.

    The local text that it replaces goes into the history. Raises UsageError if the text is not a skill.
    """
    former = stored_version(skill_id, text)
    if former is None:
        raise UsageError(f"version {version} of {skill_id!r} is no longer a valid skill", hint="nothing was changed")
    with catalogue.batch() as batch:
        take_out_revoked(batch, now)
        known = batch.known([skill_id]).get(skill_id) or SkillState(skill_id)
        action = plan_edit(known, former.fields)
        if action is None:
            return False
        if action.sets_base and is_tampered(known):
            raise Tampered(skill_id)
        refuse_banned(batch, {skill_id: known}, [action])
        _keep(batch, [known], now)
        batch.apply([action], now, actor=actor)
        batch.note(actor, "skill restore", skill_id, now, version=version, **_replaced(known))
    return True


def edits_of(catalogue: EditableCatalogue, skill_ids: Sequence[str]) -> dict[str, str]:
    """Return the texts of those skills that were edited here, or exist only here."""
    known = catalogue.known(skill_ids)
    return {name: each.local_text for name, each in known.items() if each.local_text is not None and is_edited(each)}


def revert_skills(
    catalogue: EditableCatalogue,
    skill_ids: Sequence[str],
    *,
    actor: str,
    now: datetime,
    seen: Mapping[str, str] | None = None,
) -> list[str]:
    """Put local versions back to what the marketplace sent last, in one transaction; return what changed.

    Raises UsageError, with nothing changed, for a skill that is unknown, exists only here, or has an open conflict, and
    if the edits are no longer those that somebody has `seen`.
    """
    ids = list(dict.fromkeys(skill_ids))
    with catalogue.batch() as batch:
        take_out_revoked(batch, now)
        known = batch.known(ids)
        _refuse_unseen(known, ids, seen)
        bases = [base for skill_id in ids if (base := _reverted(known.get(skill_id), skill_id)) is not None]
        replaced = [known[base.skill_id] for base in bases]
        actions = [plan_revert(known[base.skill_id], base) for base in bases]
        refuse_banned(batch, known, actions)
        _keep(batch, replaced, now)
        batch.apply(actions, now, actor=actor)
        for each in replaced:
            batch.note(actor, "skill revert", each.skill_id, now, **_replaced(each))
    return [base.skill_id for base in bases]


def delete_skills(
    catalogue: EditableCatalogue,
    skill_ids: Sequence[str],
    *,
    actor: str,
    now: datetime,
    seen: Mapping[str, str] | None = None,
) -> None:
    """Remove skills that exist only here, in one transaction; their last texts go into the history.

    Raises UsageError, with nothing removed, if one is unknown, belongs to the marketplace, or is no longer the text
    that somebody has `seen`.
    """
    ids = list(dict.fromkeys(skill_ids))
    with catalogue.batch() as batch:
        take_out_revoked(batch, now)
        known = batch.known(ids)
        _refuse_to_delete(known, ids)
        _refuse_unseen(known, ids, seen)
        _keep(batch, [known[skill_id] for skill_id in ids], now, ended_by="deleted")
        batch.apply([plan_removal(each) for each in ids], now, actor=actor)
        for skill_id in ids:
            batch.note(actor, "skill delete", skill_id, now, **_replaced(known[skill_id]))


def refuse_to_delete(catalogue: EditableCatalogue, skill_ids: Sequence[str]) -> None:
    """Raise what `delete_skills` would raise for these skills in their current state."""
    _refuse_to_delete(catalogue.known(skill_ids), skill_ids)


def _refuse_to_delete(known: Mapping[str, SkillState], skill_ids: Sequence[str]) -> None:
    for skill_id in skill_ids:
        each = known.get(skill_id)
        if each is None or each.local_text is None:
            raise NotFound(
                f"there is no skill {skill_id!r} in the cache", hint="nothing was removed; ids must be complete here"
            )
        if each.waiting is not None:
            raise NotLocal(
                f"{skill_id!r} has an open conflict with the marketplace; nothing was removed",
                hint=f"`atom-sync conflicts resolve {each.waiting.id} --strategy remote_wins` takes the remote version",
            )
        if each.base is not None:
            raise NotLocal(
                f"{skill_id!r} belongs to the marketplace, and the next sync would bring it back; nothing was removed",
                hint=f"`atom-sync skills revert {shell_argument(skill_id)}` drops the local edit"
                if is_edited(each)
                else "only the marketplace can delete it; `atom-sync cache purge --all` empties the cache until the "
                "next sync",
            )


def _refuse_unseen(known: Mapping[str, SkillState], skill_ids: Sequence[str], seen: Mapping[str, str] | None) -> None:
    for skill_id in skill_ids:
        each = known.get(skill_id)
        if each is not None and is_edited(each) and seen is not None and each.local_text != seen.get(skill_id):
            raise UsageError(f"{skill_id!r} has changed meanwhile; nothing was done", hint="run it again")


def _reverted(known: SkillState | None, skill_id: str) -> Admitted | None:
    """Return the version to revert to; None if the skill has it. Raises UsageError if it cannot be reverted."""
    if known is None or (known.local_text is None and known.base is None):
        raise NotFound(f"there is no skill {skill_id!r} in the cache")
    if known.waiting is not None:
        raise UsageError(
            f"conflict {known.waiting.id} is open: the marketplace has a different version, or has deleted the skill",
            hint=f"`atom-sync conflicts resolve {known.waiting.id} --strategy remote_wins` takes the remote version",
        )
    base = Sides(known).base_version
    if base is None:
        raise UsageError(
            f"{skill_id!r} exists only here: there is no marketplace version to revert to",
            hint=f"`atom-sync skills delete {shell_argument(skill_id)}` removes it",
        )
    if known.local_text == base.text:
        return None
    if is_tampered(known):
        raise Tampered(skill_id)
    return base


def _keep(batch: EditBatch, replaced: Iterable[SkillState], now: datetime, *, ended_by: str = "superseded") -> None:
    """Store local texts that are about to be replaced in the history. What is not a skill is in the audit log alone."""
    texts = [(each.skill_id, each.local_text) for each in replaced if each.local_text is not None and is_edited(each)]
    versions = [stored_version(skill_id, text) for skill_id, text in texts]
    batch.keep_local([each for each in versions if each is not None], now, ended_by=ended_by)


def _read(candidate: Candidate, catalogue: EditableCatalogue) -> SkillVersion:
    skill = read_skill(candidate.raw)
    if isinstance(skill, InvalidItem) and skill.if_held is not None and catalogue.known([skill.if_held.skill_id]):
        skill = skill.if_held
    if isinstance(skill, InvalidItem):
        raise UsageError(f"{candidate.place} is not a skill: {skill.reason}", hint="nothing was changed")
    for reason in catalogue.unstorable([skill]).values():
        raise UsageError(f"{candidate.place} cannot be stored: it {reason}", hint="nothing was changed")
    return skill


def _replaced(known: SkillState | None) -> dict[str, object]:
    """Return what the audit log keeps: a local version that exists nowhere else."""
    return {} if known is None or not is_edited(known) else {"replaced": known.local_text}
