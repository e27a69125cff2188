"""The decision: what happens to a skill, given its base, the local copy and what the marketplace says.

One branch a cell; each has its row in docs/CONFLICTS.md and a test. Rules: data-model.md, 1 to 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from atom_saas_sync.core.canonical import (
    PACKAGE_FIELDS,
    canonical,
    decode_object,
    same,
    stored_version,
    version_from_fields,
    version_key,
    without_volatile,
)
from atom_saas_sync.core.merge import follow_volatile, loses_edit, merge
from atom_saas_sync.model import (
    Action,
    Base,
    BaseChange,
    CacheChange,
    Conflict,
    ConflictEntry,
    ConflictType,
    Known,
    LoggedConflict,
    Outcome,
    Resolution,
    Severity,
    SkillVersion,
    Strategy,
)
from atom_saas_sync.times import format_time, parse_time

CONVERGED = "converged"

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far another clock may be ahead of ours before its times count as unknown."""


def plan_listed(
    known: Known | None,
    remote: SkillVersion,
    strategy: Strategy,
    now: datetime,
    *,
    seen_otherwise: bool = False,
    stored: Mapping[str, Any] | None = None,
) -> Action:
    """Plan for a skill that the marketplace has, as `remote`. A time ahead of `now` is an unknown one.

    `seen_otherwise` says that the same version was seen with another exec digest, before the base. `stored` is the
    marketplace's version so far, decoded, if the caller has it.
    """
    return with_alarm(_plan_listed(known, remote, strategy, now, stored), known, seen_otherwise=seen_otherwise)


def with_alarm(action: Action, known: Known | None, *, seen_otherwise: bool) -> Action:
    """Return the action, marked as republished if its remote version was seen before with other code."""
    remote = action.remote
    if remote is None or action.republished or not _is_republished(known, remote, seen_otherwise=seen_otherwise):
        return action
    return replace(action, republished=True)


def _plan_listed(  # noqa: PLR0911 - a cell each
    known: Known | None,
    remote: SkillVersion,
    strategy: Strategy,
    now: datetime,
    stored: Mapping[str, Any] | None,
) -> Action:
    if known is None or (known.local_text is None and known.base is None):
        return _take_remote(known, remote, Outcome.ADDED)  # new to us
    if known.local_text is None:
        return _take_remote(known, remote, Outcome.ADDED)  # another program deleted the row: no edit, so put it back
    base = known.base
    if base is not None and base.text is None and not base.deleted and known.waiting is None:
        # Untouched here: it takes what the marketplace has.
        if base.wire_digest == remote.wire_digest:
            return Action(remote.skill_id, Outcome.UNCHANGED)
        if base.content_digest == remote.content_digest and _says_the_same(known.local_text, remote):
            return _respelled(known, remote)
        return _take_remote(known, remote, Outcome.UPDATED, before=stored)

    local = stored_version(remote.skill_id, known.local_text)
    if local is not None and local.content_digest == remote.content_digest:
        return _converge(known, remote)  # both sides came to the same: nothing to resolve
    if base is not None and local is not None and local.content_digest == base.content_digest:
        return _take_remote(known, remote, Outcome.UPDATED)  # touched but not changed in what matters
    if base is not None and remote.content_digest == base.content_digest:
        return _keep_edit(known, local, remote, now)  # changed here only: it stays
    return _settle(known, local, remote, strategy, now)


def plan_deleted(known: Known, strategy: Strategy) -> Action | None:
    """Plan for a skill that the marketplace has confirmed as deleted; None if nothing is to be done."""
    base, waiting = known.base, known.waiting
    if base is None:
        if waiting is None:
            return None  # exists only here: no sync deletes it
        # It existed only here, appeared there, and is gone there again: it exists only here.
        return Action(known.skill_id, Outcome.UNCHANGED, conflict=_closing(known, None, known.local_text))
    if known.local_text is None or not is_edited(known):
        return Action(
            known.skill_id,
            Outcome.DELETED,
            cache=CacheChange.REMOVE,
            base=BaseChange.DROP,
            conflict=_closing(known, None, None) or _replaced(known, None),
        )
    if waiting is not None and waiting.held:
        strategy = "manual"
    if strategy == "manual":
        if base.deleted and waiting is not None and waiting.remote_text is None:
            return None  # waits already
        entry = ConflictEntry(_conflict(known, None), None, _waiting_id(known))
        return Action(known.skill_id, Outcome.UNCHANGED, base=BaseChange.MARK_DELETED, conflict=entry)
    result = None if strategy == "remote_wins" else known.local_text
    return _settled_deletion(known, Resolution(strategy, result, replaces_edit=result is None))


def plan_resolution(known: Known, result: SkillVersion | None, strategy: str, now: datetime) -> Action:
    """Plan what a person has decided about the waiting conflict: the cache gets `result`; None removes the skill.

    The base becomes the remote version that was looked at. Raises ValueError if no conflict waits, the row is gone, or
    a skill is to be removed that the marketplace has.
    """
    waiting = known.waiting
    if waiting is None or known.local_text is None:
        raise ValueError("there is nothing to resolve")
    if waiting.remote_text is None:
        return _settled_deletion(known, Resolution(strategy, None if result is None else result.text))
    remote = stored_version(known.skill_id, waiting.remote_text)
    if remote is None or result is None:
        raise ValueError("a skill that the marketplace has can't be resolved to nothing")
    return _settled(known, remote, result, strategy, now)


def plan_undo(known: Known, logged: LoggedConflict) -> tuple[Action, ...]:
    """Plan to put back what a resolution replaced: local text and base as they were, and the conflict waits again.

    The remote side is what the marketplace has now. No conflict waits if there is none any more: both sides have only
    the local change left. A second action notes that the marketplace has deleted the skill.
    """
    skill_id = known.skill_id
    base = None if logged.base_text is None else stored_version(skill_id, logged.base_text)
    remote = None
    if known.base is not None and not known.base.deleted and known.base_text is not None:
        remote = stored_version(skill_id, known.base_text)
    put_back = Action(skill_id, Outcome.UPDATED, cache=CacheChange.WRITE, text=_with_volatile(logged, remote))
    if remote is None and base is None:
        return (replace(put_back, base=BaseChange.DROP),)  # exists only here, as before
    if remote is not None and base is not None and remote.content_digest == base.content_digest:
        return (put_back,)  # the marketplace went back to the base: a local edit is left
    before = Known(skill_id, logged.local_text, base=_base_of(base))
    waits = replace(put_back, conflict=ConflictEntry(_conflict(before, remote), None, logged.id))
    if base is None:
        return (replace(waits, base=BaseChange.DROP),)
    restored = replace(waits, base=BaseChange.RESTORE, remote=base)
    if remote is None:
        return (restored, Action(skill_id, Outcome.UNCHANGED, base=BaseChange.MARK_DELETED))
    return (restored,)


def _with_volatile(logged: LoggedConflict, remote: SkillVersion | None) -> str | None:
    """Return the local text of that day with the volatile fields of today."""
    local = None if logged.local_text is None else stored_version(logged.skill_id, logged.local_text)
    if local is None or remote is None:
        return logged.local_text
    return version_from_fields(logged.skill_id, follow_volatile(local.fields, remote.fields)).text


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
    conflict: Conflict, skill_id: str, strategy: Strategy, *, local_updated_at: str | None, now: datetime
) -> SkillVersion | None:
    """Return the version that `strategy` makes of a conflict; None if the skill goes. `manual` decides nothing.

    `local_updated_at` is when the row was last written. Raises ValueError for `manual`.
    """
    if strategy == "manual":
        raise ValueError("manual is no decision")
    local = None if conflict.local_text is None else stored_version(skill_id, conflict.local_text)
    remote = None if conflict.remote_text is None else stored_version(skill_id, conflict.remote_text)
    if remote is None:
        return None if strategy == "remote_wins" else local
    if strategy == "remote_wins" or local is None:
        return remote  # what is no JSON object can't be kept or merged; the log has it
    if strategy == "local_wins":
        return version_from_fields(skill_id, follow_volatile(local.fields, remote.fields))
    base = decode_object(conflict.base_text) if conflict.base_text is not None else None
    theirs = (conflict.base_text, conflict.remote_text)
    local_time = _local_time(local_updated_at, local.fields, theirs, now)
    remote_time = _past(remote.fields.get("updated_at"), now)
    # The local edit is lost only to what is surely newer.
    newer = local_time is not None and remote_time is not None and remote_time > local_time
    return version_from_fields(skill_id, merge(base or {}, local.fields, remote.fields, remote_is_newer=newer))


def classify(local: Mapping[str, Any], remote: Mapping[str, Any]) -> tuple[ConflictType, Severity]:
    """Return the type and the severity of a conflict between two versions (data-model.md, rule 2)."""
    different = differing_fields(local, remote)
    return _type(different), _severity(different)


def differing_fields(left: Mapping[str, Any], right: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the fields that differ in what matters.

    Volatile fields don't matter, nor does outer white space of code, the order of packages, or whether a field is
    absent or null.
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


def _local_time(
    row_updated_at: str | None, fields: Mapping[str, Any], theirs: Iterable[str | None], now: datetime
) -> datetime | None:
    """Return the later of the row's time and the one in its skill, unless that came with one of the texts `theirs`."""
    row, own = _past(row_updated_at, now), fields.get("updated_at")
    if any(own == (decode_object(text) or {}).get("updated_at") for text in theirs if text is not None):
        return row
    return None if row is None else max(row, _past(own, now) or row)


def _past(text: object, now: datetime) -> datetime | None:
    """Return the moment that `text` means; None if nobody can tell, or a clock ran ahead."""
    moment = parse_time(text)
    return moment if moment is not None and moment <= now + CLOCK_TOLERANCE else None


def _changed_at(known: Known, local: SkillVersion | None, now: datetime) -> str | None:
    """Return when the local side was last changed: read before its volatile fields are refreshed (rule 3)."""
    theirs = (known.base_text, known.waiting.remote_text if known.waiting else None)
    moment = _local_time(known.local_updated_at, local.fields if local else {}, theirs, now)
    return None if moment is None else format_time(moment)


def _take_remote(
    known: Known | None, remote: SkillVersion, outcome: Outcome, *, before: Mapping[str, Any] | None = None
) -> Action:
    return Action(
        remote.skill_id,
        outcome,
        cache=CacheChange.WRITE,
        text=remote.text,
        base=BaseChange.ADVANCE,
        remote=remote,
        conflict=None if known is None else _closing(known, remote, remote.text) or _replaced(known, remote),
        before=before,
    )


def _replaced(known: Known, remote: SkillVersion | None) -> ConflictEntry | None:
    """Return how the log keeps a text that counts as the marketplace's and is not.

    It may be an edit whose base another program has removed. Whatever the strategy, it gives way to `remote`.
    """
    base = known.base
    if base is None or base.text is not None or not is_tampered(known):
        return None
    is_base = remote is not None and remote.content_digest == base.content_digest
    result = None if remote is None else remote.text
    conflict = replace(_conflict(known, remote), base_text=result if is_base else None)
    return ConflictEntry(conflict, Resolution("remote_wins", result), None)


def is_tampered(known: Known | None) -> bool:
    """Tell whether the text that counts as the marketplace's is not what it sent."""
    if known is None or known.base is None or known.base_text is None or known.base_is_as_it_came:
        return False
    version = stored_version(known.skill_id, known.base_text)
    return version is None or version.content_digest != known.base.content_digest


def _respelled(known: Known, remote: SkillVersion) -> Action:
    """Store another spelling of the same JSON, so that the next sync knows its bytes. Nothing has changed."""
    return Action(
        remote.skill_id,
        Outcome.UNCHANGED,
        cache=CacheChange.KEEP if known.local_text == remote.text else CacheChange.WRITE,
        text=remote.text,
        base=BaseChange.ADVANCE,
        remote=remote,
        changed_at=known.local_updated_at,
    )


def _says_the_same(text: str, remote: SkillVersion) -> bool:
    fields = decode_object(text)
    return fields is not None and same(fields, remote.fields)


def _converge(known: Known, remote: SkillVersion) -> Action:
    entry, base = _closing(known, remote, remote.text), known.base
    assert known.local_text is not None
    same_base = base is not None and not base.deleted and base.content_digest == remote.content_digest
    if entry is None and same_base and _says_the_same(known.local_text, remote):
        return _respelled(known, remote)
    return Action(
        remote.skill_id,
        Outcome.UPDATED,
        cache=CacheChange.KEEP if known.local_text == remote.text else CacheChange.WRITE,
        text=remote.text,
        base=BaseChange.ADVANCE,
        remote=remote,
        conflict=entry,
    )


def _keep_edit(known: Known, local: SkillVersion | None, remote: SkillVersion, now: datetime) -> Action:
    """Keep the local edit: the remote side is (again) what it was. Volatile fields follow, no conflict is left."""
    assert known.base is not None
    text = _refreshed_text(known, local, remote)
    written = text != known.local_text
    same_base = known.base.wire_digest == remote.wire_digest and not known.base.deleted
    return Action(
        remote.skill_id,
        Outcome.UPDATED if written else Outcome.UNCHANGED,
        cache=CacheChange.WRITE if written else CacheChange.KEEP,
        text=text,
        base=BaseChange.KEEP if same_base else BaseChange.ADVANCE,
        remote=remote,
        conflict=_closing(known, remote, text),
        changed_at=_changed_at(known, local, now),
    )


def _settle(
    known: Known, local: SkillVersion | None, remote: SkillVersion, strategy: Strategy, now: datetime
) -> Action:
    """Both sides changed, differently: a conflict."""
    if known.waiting is not None and known.waiting.held:
        strategy = "manual"
    conflict = _conflict(known, remote)
    if strategy != "manual":
        result = resolve(conflict, remote.skill_id, strategy, local_updated_at=known.local_updated_at, now=now)
        assert result is not None
        return _settled(known, remote, result, strategy, now, by_itself=True)
    text = _refreshed_text(known, local, remote)
    written = text != known.local_text
    # Also if only volatile fields are new: who settles the conflict later gets what the marketplace has by then.
    news = known.waiting is None or known.waiting.remote_text != remote.text
    return Action(
        remote.skill_id,
        Outcome.UPDATED if written else Outcome.UNCHANGED,
        cache=CacheChange.WRITE if written else CacheChange.KEEP,
        text=text,
        base=BaseChange.UNMARK_DELETED if known.base is not None and known.base.deleted else BaseChange.KEEP,
        remote=remote,
        conflict=ConflictEntry(conflict, None, _waiting_id(known)) if news else None,
        changed_at=_changed_at(known, local, now),
        passed_over=_passed_over(known, remote),
    )


def _settled(
    known: Known,
    remote: SkillVersion,
    result: SkillVersion,
    strategy: str,
    now: datetime,
    *,
    by_itself: bool = False,
) -> Action:
    """Give the cache `result`; the base becomes the remote version that was looked at.

    `by_itself` tells that nobody has decided it but the strategy.
    """
    assert known.local_text is not None
    local = stored_version(known.skill_id, known.local_text)
    text = result.text
    if result.content_digest == remote.content_digest:
        text = remote.text
    elif local is not None and same(result.fields, local.fields):
        text = known.local_text
    written = text != known.local_text
    stays = local is not None and result.content_digest == local.content_digest
    return Action(
        remote.skill_id,
        Outcome.UPDATED if written else Outcome.UNCHANGED,
        cache=CacheChange.WRITE if written else CacheChange.KEEP,
        text=text,
        base=BaseChange.ADVANCE,
        remote=remote,
        conflict=ConflictEntry(
            _conflict(known, remote),
            Resolution(strategy, text, replaces_edit=by_itself and _loses_edit(known, local, result)),
            _waiting_id(known),
        ),
        changed_at=_changed_at(known, local, now) if stays else None,
        passed_over=_passed_over(known, remote),
    )


def _loses_edit(known: Known, local: SkillVersion | None, result: SkillVersion) -> bool:
    base = None if known.base_text is None else decode_object(known.base_text)
    return local is None or loses_edit(base or {}, local.fields, result.fields)


def _settled_deletion(known: Known, resolution: Resolution) -> Action:
    """Let a skill that was deleted there and changed here go, or stay and exist only here from now on."""
    entry = ConflictEntry(_conflict(known, None), resolution, _waiting_id(known))
    text = resolution.result_text
    if text is None:
        return Action(known.skill_id, Outcome.DELETED, cache=CacheChange.REMOVE, base=BaseChange.DROP, conflict=entry)
    written = text != known.local_text
    return Action(
        known.skill_id,
        Outcome.UPDATED if written else Outcome.UNCHANGED,
        cache=CacheChange.WRITE if written else CacheChange.KEEP,
        text=text,
        base=BaseChange.DROP,
        conflict=entry,
    )


def _conflict(known: Known, remote: SkillVersion | None) -> Conflict:
    local = (decode_object(known.local_text) if known.local_text is not None else None) or {}
    kind, severity = classify(local, {} if remote is None else remote.fields)
    return Conflict(
        type="DELETION_CONFLICT" if remote is None else kind,
        severity=severity,
        local_text=known.local_text,
        remote_text=None if remote is None else remote.text,
        base_text=known.base_text,
    )


def _closing(known: Known, remote: SkillVersion | None, text: str | None) -> ConflictEntry | None:
    """Return how the waiting conflict, if there is one, closes by itself."""
    if known.waiting is None:
        return None
    return ConflictEntry(_conflict(known, remote), Resolution(CONVERGED, text), known.waiting.id)


def _waiting_id(known: Known) -> int | None:
    return None if known.waiting is None else known.waiting.id


def _passed_over(known: Known, remote: SkillVersion) -> SkillVersion | None:
    """Return the version that waited in a conflict until `remote` took its place."""
    if known.waiting is None or known.waiting.remote_text is None or _is_same_remote(known.waiting.remote_text, remote):
        return None
    return stored_version(known.skill_id, known.waiting.remote_text)


def _refreshed_text(known: Known, local: SkillVersion | None, remote: SkillVersion) -> str:
    """Return the local text with the marketplace's volatile fields, and the very same text if they are the same."""
    assert known.local_text is not None
    if local is None:
        return known.local_text
    fields = follow_volatile(local.fields, remote.fields)
    return known.local_text if same(fields, local.fields) else version_from_fields(remote.skill_id, fields).text


def _is_news(known: Known, remote: SkillVersion) -> bool:
    """Tell whether no conflict waits with just this remote version."""
    return known.waiting is None or not _is_same_remote(known.waiting.remote_text, remote)


def _is_same_remote(waiting_text: str | None, remote: SkillVersion) -> bool:
    waiting = None if waiting_text is None else stored_version(remote.skill_id, waiting_text)
    return waiting is not None and waiting.content_digest == remote.content_digest


def _base_of(version: SkillVersion | None) -> Base | None:
    if version is None:
        return None
    return Base(
        version.wire_digest,
        version.content_digest,
        version.exec_digest,
        version.text,
        page=None,
        deleted=False,
        version=version_key(version.fields),
    )


def _is_republished(known: Known | None, remote: SkillVersion, *, seen_otherwise: bool) -> bool:
    """Tell whether the same version has come with another executable content, in this life of the skill or another."""
    base = None if known is None else known.base
    if base is not None and base.version == version_key(remote.fields):
        if base.exec_digest == remote.exec_digest:
            return False
        seen_otherwise = True
    return seen_otherwise and (known is None or _is_news(known, remote))
