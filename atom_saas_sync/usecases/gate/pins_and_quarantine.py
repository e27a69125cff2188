"""Users' decisions about whole skills: pins, revocations and the quarantine, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from atom_saas_sync.core.canonical import stored_version, version_key
from atom_saas_sync.core.gate.admission import judged
from atom_saas_sync.core.gate.digests import digits_of, parse_digits, split_at_last
from atom_saas_sync.core.gate.revocations import describe
from atom_saas_sync.core.gate.types import Decision, Gate, Pin, Quarantined, Revocation, Revocations
from atom_saas_sync.core.gate.verdict import judge
from atom_saas_sync.core.plan.offered import (
    ban_on_version,
    plan_put_back,
    plan_quarantine,
    plan_release,
)
from atom_saas_sync.errors import Ambiguous, NotFound, UsageError
from atom_saas_sync.model import SkillState, SkillVersion
from atom_saas_sync.usecases.gate.desk import GateDesk, is_digest, put_on_the_desk, served_of, strict_gate
from atom_saas_sync.usecases.gate.loading import renewed
from atom_saas_sync.usecases.gate.local import take_out_revoked
from atom_saas_sync.usecases.gate.passes import enforce, judge_offers
from atom_saas_sync.usecases.gate.reports import CHANGED, Decided, Done, Quarantining, Refused

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports.gate_desk import DecidingBatch


NOT_SERVED, NOT_QUARANTINED = "not_served", "not_quarantined"

_WHOLE = 64
_Former = tuple[SkillVersion, bool]


# Pins


def add_pin(desk: GateDesk, text: str, *, note: str | None, actor: str, now: datetime) -> Decided:
    """Pin the served version, or the one named by `ID@VERSION` or `ID@DIGEST`, which is restored and approved.

    Raises NotFound if there is no such skill or version, Ambiguous if several versions match.
    """
    gate = strict_gate(desk)
    skill_id, wanted = split_at_last(text)
    with desk.store.deciding() as batch:
        take_out_revoked(batch, now)
        gate = renewed(gate, batch.gate)
        if wanted is not None and _is_known(batch, text):
            skill_id, wanted = text, None
        found = put_on_the_desk(batch, [skill_id])
        known = found.known.get(skill_id)
        former, is_base = _former(batch.former_versions(skill_id), skill_id, wanted)
        digest = former.content_digest
        pin = Pin(skill_id, digest, version_key(former.fields), now, actor, note)
        if not (is_base and known is not None and known.local_text is not None):
            evidence = batch.gate.evidence([former])[skill_id]
            decision = Decision(skill_id, digest, "approve", now, actor, note)
            evidence = replace(evidence, decision=decision, admitted_since=False, pin=pin)
            stored = known or SkillState(skill_id)
            verdict = judge(gate, served_of(known), former, evidence, now)
            if verdict.kind != "admit":
                return Decided((), (Refused(skill_id, str(verdict.reason)),))
            batch.gate.decide([decision])
            action = plan_put_back(stored, judged(former, verdict), evidence, gate, desk.strategy, now, by=actor)
            batch.apply([action], now, actor=actor)
        batch.gate.set_pin(pin)
        details = {"note": note} if note else {}
        batch.note(actor, "pin add", skill_id, now, digest=f"sha256:{digest.hex()}", **details)
    return Decided((Done(skill_id, digest),))


def _is_known(batch: DecidingBatch, skill_id: str) -> bool:
    return skill_id in batch.known_ids([skill_id])


def _former(formers: Sequence[_Former], skill_id: str, wanted: str | None) -> _Former:
    """Return the version with this number or digest (None: the base). Raises NotFound or Ambiguous."""
    if wanted is None:
        base = next((each for each in formers if each[1]), None)
        if base is None:
            raise NotFound(
                f"{skill_id!r} is not a skill of the marketplace that is served",
                hint="`atom-sync skills list` shows what is served; ids must be complete here",
            )
        return base
    digits = digits_of(wanted)
    named = [each for each in formers if each[0].fields.get("version") == wanted] or [
        each for each in formers if digits is not None and is_digest(digits, each[0].content_digest)
    ]
    matching = {version.content_digest: (version, is_base) for version, is_base in reversed(named)}
    if not matching:
        raise NotFound(
            f"{skill_id!r} has no version {wanted!r} that was served here",
            hint="`atom-sync skills log ID` shows the versions that are kept",
        )
    if len(matching) > 1:
        raise Ambiguous(
            f"{skill_id!r} was served with {len(matching)} different contents as {wanted!r}",
            hint="name one by its digest: ID@sha256:…",
        )
    return next(iter(matching.values()))


def remove_pin(desk: GateDesk, skill_ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
    """Remove pins and return their skills; the next run acts on it. Raises NotFound for a skill without a pin."""
    with desk.store.deciding() as batch:
        take_out_revoked(batch, now)
        for skill_id in dict.fromkeys(skill_ids):
            if not batch.gate.remove_pin(skill_id):
                raise NotFound(f"{skill_id!r} is not pinned", hint="nothing was changed; `atom-sync pins list`")
            batch.note(actor, "pin remove", skill_id, now)
    return list(dict.fromkeys(skill_ids))


# Revocations


def add_revocation(
    desk: GateDesk,
    *,
    skill_id: str | None = None,
    version: str | None = None,
    digest: str | None = None,
    publisher: str | None = None,
    note: str | None,
    actor: str,
    now: datetime,
) -> tuple[int, list[str]]:
    """Add a revocation and quarantine what it matches; return its id and the matched skills.

    Raises UsageError unless exactly one of `skill_id`, `digest` and `publisher` is given, with a value.
    """
    given = [each for each in (skill_id, digest, publisher) if each is not None]
    if len(given) != 1 or not given[0].strip() or (version is not None and (skill_id is None or not version.strip())):
        raise UsageError("expected one of --id, --id with --version, --digest, and --publisher")
    revocation = Revocation(
        skill_id=skill_id,
        version=version,
        digest=None if digest is None else _whole_digest(desk, digest),
        publisher=publisher,
        note=note,
        added_at=now,
        added_by=actor,
    )
    loaded = desk.load()
    gate = replace(loaded.gate, revocations=Revocations((*loaded.gate.revocations.entries, revocation)))
    with desk.store.deciding() as batch:
        take_out_revoked(batch, now)
        number = batch.gate.add_revocation(revocation, now)
        alone = replace(gate, revocations=Revocations((revocation,)))
        hit = enforce(batch, alone, now, rules=False, actor=actor)
        batch.note(actor, "revocation add", describe(revocation), now, id=number, hit=[each.skill_id for each in hit])
        waiting = batch.gate.offers(batch.gate.ids_to_judge(now, everything=True)).values()
        revoked = [each.skill_id for each in waiting if _is_banned(alone, each.skill_id, each.text)]
        batch.apply(judge_offers(batch, revoked, gate, desk.strategy, now), now, actor=actor)
    return number, sorted(each.skill_id for each in hit)


def _is_banned(gate: Gate, skill_id: str, text: str) -> bool:
    version = stored_version(skill_id, text)
    return version is not None and ban_on_version(gate, version, rules=False) is not None


def _whole_digest(desk: GateDesk, text: str) -> bytes:
    digits = parse_digits(text)
    if len(digits) == _WHOLE:
        return bytes.fromhex(digits)
    with desk.store.deciding(write=False) as batch:
        found = batch.digests_like(digits)
    if not found:
        raise NotFound(
            f"no digest begins with {digits}", hint="give all 64 digits of a digest that was never seen here"
        )
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} digests begin with {digits}", hint="give more digits")
    return found[0]


def remove_revocation(desk: GateDesk, revocation_ids: Sequence[int], *, actor: str, now: datetime) -> list[int]:
    """Remove revocations added by a command; what they matched stays in quarantine until released.

    Raises NotFound for one that does not exist, UsageError for one that the revocations file lists.
    """
    ids = list(dict.fromkeys(revocation_ids))
    with desk.store.deciding(write=False) as batch:
        stored = {each.id: each for each in batch.gate.revocations().entries}
    for number in ids:
        found = stored.get(number)
        if found is None:
            raise NotFound(f"there is no revocation {number}", hint="nothing was changed; `atom-sync revocations list`")
        if found.source == "file":
            raise UsageError(
                f"revocation {number} is in the revocations file", hint="nothing was changed; remove it there"
            )
    with desk.store.deciding() as batch:
        take_out_revoked(batch, now)
        for number in ids:
            if batch.gate.remove_revocation(number):
                batch.note(actor, "revocation remove", describe(stored[number]), now, id=number)
    return ids


# The quarantine


def quarantine(
    desk: GateDesk, skill_ids: Sequence[str], *, note: str | None, actor: str, now: datetime
) -> Quarantining:
    """Stop serving skills, and keep them whole as evidence."""
    ids = list(dict.fromkeys(skill_ids))
    done: list[str] = []
    refused: list[Refused] = []
    with desk.store.deciding() as batch:
        take_out_revoked(batch, now)
        known, there, offers = batch.known(ids), batch.gate.quarantined(ids), batch.gate.offers(ids)
        actions = []
        for skill_id in ids:
            each = known.get(skill_id)
            if each is not None and each.local_text is not None:
                is_shown = skill_id in offers
                actions.append(plan_quarantine(each, reason="quarantined", by=actor, note=note, is_shown=is_shown))
                done.append(skill_id)
            elif skill_id in there and there[skill_id].reason == "quarantined":
                done.append(skill_id)  # already in quarantine
            else:
                refused.append(Refused(skill_id, NOT_SERVED))
        batch.apply(actions, now, actor=actor)
        details = {"note": note} if note else {}
        for action in actions:
            batch.note(actor, "quarantine add", action.skill_id, now, **details)
    return Quarantining(tuple(done), tuple(refused))


def release(desk: GateDesk, skill_ids: Sequence[str], *, actor: str, now: datetime) -> Quarantining:
    """Restore skills byte for byte; refused while a revocation (`revoked`) or rule (`denied`) matches.

    Also refused (`changed`) if another version is being served by now.
    """
    ids = list(dict.fromkeys(skill_ids))
    gate = strict_gate(desk)
    done: list[str] = []
    refused: list[Refused] = []
    with desk.store.deciding() as batch:
        take_out_revoked(batch, now)
        gate = renewed(gate, batch.gate)
        known, there = batch.known(ids), batch.gate.quarantined(ids)
        actions = []
        for skill_id in ids:
            each = known.get(skill_id) or SkillState(skill_id)
            reason = _not_releasable(gate, each, there.get(skill_id))
            if reason is None:
                actions.append(plan_release(each, there[skill_id]))
                done.append(skill_id)
            else:
                refused.append(Refused(skill_id, reason))
        batch.apply(actions, now, actor=actor)
        for action in actions:
            batch.note(actor, "quarantine release", action.skill_id, now)
    return Quarantining(tuple(done), tuple(refused))


def _not_releasable(gate: Gate, known: SkillState, kept: Quarantined | None) -> str | None:
    if kept is None:
        return NOT_QUARANTINED
    if known.local_text is not None and known.local_text != kept.text:
        return CHANGED
    for text in (kept.text, kept.base_text):
        version = None if text is None else stored_version(kept.skill_id, text)
        banned = version and ban_on_version(gate, version, rules=kept.served_source != "local")
        if banned:
            return banned[0]
    return "revoked" if any(not each.version for each in gate.revocations.by_skill.get(kept.skill_id, ())) else None
