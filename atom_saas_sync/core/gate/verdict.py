"""The verdict: may this version be served? The first line of LINES that applies decides (docs/TRUST.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from msgspec import Struct

from atom_saas_sync.core.canonical import version_key
from atom_saas_sync.core.gate.names import publisher_of
from atom_saas_sync.core.gate.revocations import describe, revoked
from atom_saas_sync.core.gate.rules import Ruling, ruling, stricter
from atom_saas_sync.core.gate.types import Evidence, Gate, MaxChanged, Reason, Served, Verdict
from atom_saas_sync.model import SkillVersion

_BEFORE_ADOPTION = 5


class _Case(Struct, frozen=True, dict=True):
    """One version to judge. `base` is None if the skill is judged as new; `last` is always the base."""

    gate: Gate
    base: Served | None
    last: Served | None
    remote: SkillVersion
    evidence: Evidence
    now: datetime

    @cached_property
    def version(self) -> str:
        return version_key(self.remote.fields)

    @cached_property
    def ruling(self) -> Ruling:
        policy, skill_id = self.gate.policy, self.remote.skill_id
        found = ruling(policy, skill_id, self.remote.fields, new=self.base is None)
        if self.base is None or not policy.rules:
            return found
        return stricter(found, ruling(policy, skill_id, self.base.fields, new=False))

    @property
    def is_open(self) -> bool:
        return self.ruling.admission == "open"


def judge(gate: Gate, served: Served | None, remote: SkillVersion, evidence: Evidence, now: datetime) -> Verdict:
    """Return the verdict on the marketplace's version `remote`; `served` is the base.

    A skill quarantined by a revocation or a rule is judged as new.
    """
    case = _case(gate, served, remote, evidence, now)
    if gate.adopting is None:
        return _first(LINES, case)
    return _decide(LINES[:_BEFORE_ADOPTION], case) or Verdict("admit", 0, by=gate.adopting, note="admitted by --adopt")


def ruling_of(gate: Gate, served: Served | None, remote: SkillVersion, evidence: Evidence, now: datetime) -> Ruling:
    """Return the policy that `judge` applies: from a rule, or from the settings."""
    return _case(gate, served, remote, evidence, now).ruling


def is_abnormal(changed: int, served: int, limit: MaxChanged | None) -> bool:
    """Tell whether this number of changed skills in scope is abnormal; `served` counts marketplace skills."""
    return limit is not None and changed > limit.limit(served)


def _case(gate: Gate, served: Served | None, remote: SkillVersion, evidence: Evidence, now: datetime) -> _Case:
    base = None if evidence.quarantined is not None else served
    return _Case(gate, base, served, remote, evidence, now)


def _decide(lines: Sequence[Line], case: _Case) -> Verdict | None:
    for line in lines:
        verdict = line.decide(case)
        if verdict is not None:
            return verdict
    return None


def _first(lines: Sequence[Line], case: _Case) -> Verdict:
    verdict = _decide(lines, case)
    assert verdict is not None, "the last line holds everything"
    return verdict


def _hold(line: int, reason: Reason, note: str | None = None) -> Verdict:
    return Verdict("hold", line, reason, note=note)


def _refused(case: _Case) -> Verdict | None:
    remote = case.remote
    found = revoked(
        case.gate.revocations, remote.skill_id, case.version, remote.content_digest, publisher_of(remote.fields)
    )
    if found is not None:
        note = f": {found.note}" if found.note else ""
        return Verdict("refuse", 1, "revoked", note=f"revoked: {describe(found)}{note}")
    if case.ruling.admission == "deny":
        return Verdict("refuse", 1, "denied", note=f"denied by rule {case.ruling.rule}")
    return None


def _rejected(case: _Case) -> Verdict | None:
    decision = case.evidence.decision
    if decision is None or decision.kind != "reject":
        return None
    return Verdict("refuse", 2, "rejected", note=f"rejected by {decision.by}")


def _quarantined(case: _Case) -> Verdict | None:
    found = case.evidence.quarantined
    if found is None:
        return None
    if found.reason != "quarantined":  # this version is evidence until released; another version is judged as new
        is_evidence = found.content_digest == case.remote.content_digest
        return _hold(3, "quarantined", f"in quarantine: it was {found.reason}") if is_evidence else None
    return _hold(3, "quarantined", f"in quarantine by {found.by}")


def _locked(case: _Case) -> Verdict | None:
    if case.ruling.admission != "lock":
        return None
    lock = case.gate.policy.lock
    entry = None if lock is None else lock.skills.get(case.remote.skill_id)
    if entry is None:
        return _hold(4, "not_locked", "the lock file does not list it")
    if entry.content != case.remote.content_digest:
        return _hold(4, "not_locked", f"the lock file lists another version: {entry.version or '-'}")
    return Verdict("admit", 4, note="listed in the lock file")


def _pinned(case: _Case) -> Verdict | None:
    pin = case.evidence.pin
    if pin is None or pin.content_digest == case.remote.content_digest:
        return None
    return _hold(5, "pinned", f"pinned to {pin.version or '-'} by {pin.by}")


def _unchanged(case: _Case) -> Verdict | None:
    base, remote = case.base, case.remote
    if base is None:
        return None
    if base.content_digest == remote.content_digest:
        return Verdict("admit", 6, note="it is the version that is served")
    if case.gate.policy.scope == "executable" and base.exec_digest == remote.exec_digest:
        return Verdict("admit", 6, note="nothing that can be executed has changed")
    return None


def _approved(case: _Case) -> Verdict | None:
    decision = case.evidence.decision
    if decision is None:
        return None
    if case.evidence.admitted_since:
        return _hold(7, "downgrade", f"approved by {decision.by}, but another version was admitted since")
    return Verdict("admit", 7, by=decision.by, note=f"approved by {decision.by}")


def _lookalike(case: _Case) -> Verdict | None:
    other = case.evidence.lookalike_of
    return None if case.is_open or other is None else _hold(8, "lookalike", f"its id looks like {other!r}")


def _other_publisher(case: _Case) -> Verdict | None:
    if case.is_open or case.base is None:
        return None
    before, after = publisher_of(case.base.fields), publisher_of(case.remote.fields)
    return None if before == after else _hold(9, "publisher", f"the publisher was {before!r} and is {after!r}")


def _republished(case: _Case) -> Verdict | None:
    if case.is_open:
        return None
    last, remote = case.last, case.remote
    other_code = last is not None and last.version == case.version and last.exec_digest != remote.exec_digest
    if not (other_code or case.evidence.seen_otherwise):
        return None
    name = f"version {case.version}" if case.version else "no version number"
    return _hold(10, "republished", f"seen before with {name} and different code")


def _abnormal(case: _Case) -> Verdict | None:
    gate, offer, first_seen = case.gate, case.evidence.offer, case.evidence.first_seen_at
    if offer is not None and offer.abnormal and offer.content_digest == case.remote.content_digest:
        return _hold(11, "abnormal", "offered by a run that changed too many skills")
    if case.base is None or not gate.abnormal:
        return None
    if gate.since is not None and first_seen is not None and first_seen < gate.since:
        return None
    return _hold(11, "abnormal", "this run changes too many skills")


def _not_scanned(case: _Case) -> Verdict | None:
    scan = case.evidence.scan
    if not case.gate.policy.scan_command or (scan is not None and scan.passed):
        return None
    if scan is not None:
        return _hold(12, "scan", scan.note or "the scan command did not pass it")
    if _first(LINES[12:], case).kind != "admit":
        return None  # scan only what would otherwise be admitted
    return Verdict("hold", 12, "scan", note="the scan command has not seen it yet")


def _revocations_broken(case: _Case) -> Verdict | None:
    if not case.gate.revocations_broken:
        return None
    return _hold(13, "revocations", "the revocations file cannot be read")


def _open(case: _Case) -> Verdict | None:
    return Verdict("admit", 14, note="the policy is open") if case.is_open else None


def _old_enough(case: _Case) -> Verdict | None:
    if case.ruling.admission != "age":
        return None
    due_at = (case.evidence.first_seen_at or case.now) + case.ruling.min_age
    if case.now < due_at:
        return Verdict("hold", 15, "age", due_at)
    if not case.gate.clock_trusted:
        return Verdict("hold", 15, "clock", due_at, note="old enough, but the clock cannot be trusted")
    return Verdict("admit", 15, note="old enough")


def _review(_: _Case) -> Verdict | None:
    return _hold(16, "review")


class Line(NamedTuple):
    """One line of the table: when it applies, the verdict, both in Markdown, and how it is decided."""

    condition: str
    verdict: str
    decide: Callable[[_Case], Verdict | None]


LINES: tuple[Line, ...] = (
    Line("revoked, or a rule says `deny`", "refuse: `revoked`, `denied`", _refused),
    Line("the newest decision on this digest is a rejection", "refuse: `rejected`", _rejected),
    Line("somebody put the skill into quarantine, or just this version is there", "hold: `quarantined`", _quarantined),
    Line("the policy is `lock`", "admit if the lock file lists this digest, else hold: `not_locked`", _locked),
    Line("the skill is pinned to another version", "hold: `pinned`", _pinned),
    Line("it is the base, or differs from it only in fields outside the scope", "admit", _unchanged),
    Line(
        "the newest decision on this digest is an approval",
        "admit, unless another version was admitted since; then hold: `downgrade`",
        _approved,
    ),
    Line("the policy is not `open`, and the id looks like one known before", "hold: `lookalike`", _lookalike),
    Line("the policy is not `open`, and the publisher is not the base's", "hold: `publisher`", _other_publisher),
    Line(
        "the policy is not `open`, and the same version number was seen here with another exec digest",
        "hold: `republished`",
        _republished,
    ),
    Line("the run changes too many skills, or did when it held this digest", "hold: `abnormal`", _abnormal),
    Line("the scan command did not pass it", "hold: `scan`", _not_scanned),
    Line("the revocations file is invalid", "hold: `revocations`", _revocations_broken),
    Line("the policy is `open`", "admit", _open),
    Line(
        "the policy is `age`",
        "admit if first seen here at least `min_age` ago, else hold: `age`; `clock` if old enough by a wrong clock",
        _old_enough,
    ),
    Line("the policy is `review`", "hold: `review`", _review),
)
"""The table of docs/TRUST.md. Line numbers count from 1."""
