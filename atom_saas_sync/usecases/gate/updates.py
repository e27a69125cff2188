"""Waiting updates: listing, showing and naming them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import repeat

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.gate.digests import digits_of, parse_digits, split_at_last, whole_digest
from atom_saas_sync.core.gate.facts import Capabilities
from atom_saas_sync.core.gate.names import publisher_of
from atom_saas_sync.core.gate.stored import WaitingOffer
from atom_saas_sync.core.gate.types import NEEDS_PERSON, REASONS
from atom_saas_sync.errors import NotFound, UsageError
from atom_saas_sync.usecases.gate.capabilities import capabilities_of, served_fields
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.reports import ShownUpdate, Target, Update, Updates


def list_updates(
    desk: GateDesk,
    *,
    reason: str | None = None,
    pattern: str | None = None,
    limit: int | None = None,
    capabilities: bool = False,
) -> Updates:
    """Return the waiting updates: those that need a decision first, then the oldest.

    `pattern` is a shell pattern for ids; case is ignored. Raises UsageError for an unknown reason.
    """
    if reason is not None and reason not in REASONS:
        raise UsageError(f"invalid reason {reason!r}: expected {', '.join(REASONS)}")
    with desk.store.deciding(write=False) as batch:
        found = batch.gate.waiting(reason=reason)
    if pattern is not None:
        folded = pattern.casefold()
        found = [each for each in found if fnmatchcase(each.offer.skill_id.casefold(), folded)]
    found.sort(key=lambda each: (each.offer.reason not in NEEDS_PERSON, each.offer.first_seen_at, each.offer.skill_id))
    some = found[:limit]
    facts = capabilities_of(desk, some) if capabilities else repeat(None)
    return Updates(tuple(_update(each, able) for each, able in zip(some, facts, strict=False)), len(found))


def show_update(desk: GateDesk, skill_id: str) -> ShownUpdate:
    """Return the held or refused version of one skill, with its capabilities. Raises NotFound if there is none."""
    with desk.store.deciding(write=False) as batch:
        offer, known = batch.gate.offers([skill_id]).get(skill_id), batch.known([skill_id]).get(skill_id)
    if offer is None:
        raise NotFound(f"no update of {skill_id!r} is waiting", hint="`atom-sync updates list` shows what waits")
    base = None if known is None else known.base
    text = None if known is None else known.base_text
    digests = (None, None) if base is None else (base.content_digest, base.exec_digest)
    waiting = WaitingOffer(offer, text, *digests)
    (capabilities,) = capabilities_of(desk, [waiting])
    return ShownUpdate(_update(waiting, capabilities), text, offer.text)


def _update(waiting: WaitingOffer, capabilities: Capabilities | None) -> Update:
    offer = waiting.offer
    fields = decode_object(offer.text) or {}
    before = served_fields(waiting)
    return Update(
        skill_id=offer.skill_id,
        name=_text(fields.get("name")),
        publisher=publisher_of(fields),
        served_version=_text((before or {}).get("version")),
        offered_version=_text(fields.get("version")),
        served_digest=waiting.served_digest,
        offered_digest=offer.content_digest,
        exec_changed=waiting.served_exec_digest != offer.exec_digest,
        reasons=(offer.reason,),
        first_seen_at=offer.first_seen_at,
        due_at=offer.due_at,
        note=offer.note,
        capabilities=capabilities,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def targets_of(desk: GateDesk, texts: Sequence[str]) -> list[Target]:
    """Return the targets that `ID` or `ID@DIGEST` names; the text is split at its last `@` if it is not an id.

    Raises UsageError for a digest that is not one.
    """
    parts = {text: split_at_last(text) for text in texts}
    with desk.store.deciding(write=False) as batch:
        known = batch.known_ids({*texts, *(skill_id for skill_id, _ in parts.values())})
    targets = []
    for text, (skill_id, rest) in parts.items():
        if text in known or rest is None:
            targets.append(Target(text))
        elif skill_id in known:
            targets.append(Target(skill_id, parse_digits(rest)))
        else:
            digits = digits_of(rest)
            targets.append(Target(text) if digits is None else Target(skill_id, digits))
    return targets


def targets_in(document: bytes, *, name: str) -> list[Target]:
    """Return the skills and digests in the output of `updates list --json`. Raises UsageError for anything else."""
    parsed = decode_object(document)
    updates = None if parsed is None else parsed.get("updates")
    if not isinstance(updates, list):
        raise UsageError(f"{name} is not the JSON of `atom-sync updates list --json`", hint="nothing was done")
    targets = []
    for number, each in enumerate(updates, 1):
        skill_id = each.get("skill_id") if isinstance(each, dict) else None
        digest = whole_digest(each.get("offered_digest")) if isinstance(each, dict) else None
        if not isinstance(skill_id, str) or digest is None:
            raise UsageError(f"{name}: update {number} has no skill_id and offered_digest", hint="nothing was done")
        targets.append(Target(skill_id, digest.hex()))
    return targets
