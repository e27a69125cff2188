"""The verdict: each line of its table, the lines' order, and the rules around them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace
from verdict_table import DAY, NOW, decision, evidence, gate, pin, quarantined, served, table, version

from atom_saas_sync.core.gate.admission import judged
from atom_saas_sync.core.gate.types import (
    NEEDS_PERSON,
    REASONS,
    Evidence,
    Gate,
    Locked,
    LockFile,
    MaxChanged,
    Offer,
    Policy,
    Revocation,
    Revocations,
    Rule,
    ScanResult,
    Served,
)
from atom_saas_sync.core.gate.verdict import LINES, is_abnormal, judge
from atom_saas_sync.model import SkillVersion

DOCUMENT = Path(__file__).parents[3] / "docs" / "TRUST.md"

BASE = version()
NEW = version(version="2", code="b")
RENAMED = version(description="other words")
SCANNED = ScanResult(NEW.content_digest, passed=True, note=None, at=NOW)
UNSEEN = "the scan command has not seen it yet"
FAILED = ScanResult(NEW.content_digest, passed=False, note="CRITICAL: curl | sh", at=NOW)
OFFER = Offer(
    "s", NEW.text, NEW.wire_digest, NEW.content_digest, NEW.exec_digest, "2", 1, "hold", "review", None, NOW, NOW
)
DENY = Rule(1, "deny", {"publisher": ("ACME",)})


def locked(of: SkillVersion) -> LockFile:
    return LockFile("https://m.example", {of.skill_id: Locked("9", of.content_digest, of.exec_digest)})


class Row(NamedTuple):
    """A case, and the verdict on it: kind, line and reason."""

    line: int
    kind: str
    reason: str | None
    case: Gate = gate()
    known: Evidence = evidence()
    base: SkillVersion | None = BASE
    remote: SkillVersion = NEW


def revoking(**what: Any) -> Gate:
    return gate("open", revocations=Revocations((Revocation(**what),)))


ROWS = (
    Row(1, "refuse", "revoked", revoking(skill_id="s")),
    Row(1, "refuse", "revoked", revoking(skill_id="s", version=" 2\u200b")),
    Row(1, "refuse", "revoked", revoking(digest=NEW.content_digest)),
    Row(1, "refuse", "revoked", revoking(publisher="Acme")),
    Row(1, "refuse", "denied", gate("open", rules=(DENY,))),
    Row(2, "refuse", "rejected", gate("open"), evidence(decision=decision(NEW, "reject"))),
    Row(3, "hold", "quarantined", gate("open"), evidence(quarantined=quarantined(BASE, "quarantined"))),
    Row(4, "admit", None, gate("lock", lock=locked(NEW))),
    Row(4, "hold", "not_locked", gate("lock", lock=locked(BASE))),
    Row(4, "hold", "not_locked", gate("lock", lock=LockFile("", {})), remote=BASE),
    Row(5, "hold", "pinned", gate("open"), evidence(pin=pin(BASE), decision=decision(NEW, "approve"))),
    Row(6, "admit", None, remote=BASE),
    Row(6, "admit", None, gate(scope="executable"), remote=RENAMED),
    Row(7, "admit", None, known=evidence(decision=decision(NEW, "approve"))),
    Row(7, "hold", "downgrade", known=evidence(decision=decision(NEW, "approve"), admitted_since=True)),
    Row(8, "hold", "lookalike", known=evidence(lookalike_of="S"), base=None),
    Row(9, "hold", "publisher", remote=version(version="2", metadata={"author": "other"})),
    Row(9, "hold", "publisher", remote=version(version="2", metadata={})),
    Row(10, "hold", "republished", remote=version(code="b")),
    Row(10, "hold", "republished", known=evidence(seen_otherwise=True), base=None),
    Row(10, "hold", "republished", base=version(version=None), remote=version(version="\u200b", code="b")),
    Row(11, "hold", "abnormal", gate("open", abnormal=True)),
    Row(11, "hold", "abnormal", gate("open"), evidence(offer=replace(OFFER, abnormal=True))),
    Row(12, "hold", "scan", gate("open", scan_command=("scan",)), evidence(scan=FAILED)),
    Row(12, "hold", "scan", gate("open", scan_command=("scan",))),
    Row(12, "hold", "scan", gate("review", scan_command=("scan",)), evidence(scan=FAILED)),
    Row(13, "hold", "revocations", gate("open", revocations_broken=True)),
    Row(14, "admit", None, gate("open")),
    Row(14, "admit", None, gate("open", scan_command=("scan",)), evidence(scan=SCANNED)),
    Row(14, "admit", None, gate("open"), evidence(lookalike_of="S", seen_otherwise=True)),
    Row(14, "admit", None, gate("open"), remote=version(version="2", metadata={"author": "other"})),
    Row(14, "admit", None, gate("open"), evidence(offer=replace(OFFER, abnormal=True)), remote=version(version="3")),
    Row(15, "hold", "age", gate("age"), evidence(first_seen_at=NOW - 2 * DAY)),
    Row(15, "hold", "age", gate("age")),
    Row(15, "admit", None, gate("age"), evidence(first_seen_at=NOW - 3 * DAY)),
    Row(15, "hold", "clock", gate("age", clock_trusted=False), evidence(first_seen_at=NOW - 3 * DAY)),
    Row(16, "hold", "review"),
    Row(16, "hold", "review", gate("review", scan_command=("scan",))),
    Row(16, "hold", "review", base=None),
)


def verdict_of(row: Row) -> Any:
    return judge(row.case, None if row.base is None else served(row.base), row.remote, row.known, NOW)


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row.line}-{row.reason or 'admit'}" for n, row in enumerate(ROWS)])
def test_each_line_of_the_table_decides(row: Row) -> None:
    verdict = verdict_of(row)
    assert (verdict.line, verdict.kind, verdict.reason) == (row.line, row.kind, row.reason)
    assert verdict.note or row.line in {15, 16}, "people are told why"


def test_the_rows_above_cover_every_line_and_every_reason() -> None:
    assert {row.line for row in ROWS} == set(range(1, len(LINES) + 1))
    assert {row.reason for row in ROWS} - {None} == set(REASONS)
    assert set(REASONS) > NEEDS_PERSON


def test_the_table_in_the_documentation_is_what_the_code_does() -> None:
    assert table() in DOCUMENT.read_text(encoding="utf-8"), f"docs/TRUST.md should have:\n{table()}"


def test_the_first_line_that_applies_decides() -> None:
    """Remove the condition of each line, one after the other: the next line decides."""
    everything = evidence(
        decision=decision(NEW, "reject"), quarantined=quarantined(BASE, "quarantined"), pin=pin(BASE), lookalike_of="S"
    )
    case = gate(
        "age",
        revocations=Revocations((Revocation(skill_id="s"),)),
        rules=(),
        scan_command=("scan",),
        revocations_broken=True,
        abnormal=True,
    )
    remote = version(code="b", metadata={"author": "other"})
    steps: list[tuple[dict[str, Any], dict[str, Any], SkillVersion | None]] = [
        ({}, {}, None),
        ({"revocations": Revocations()}, {}, None),
        ({}, {"decision": None}, None),
        ({}, {"quarantined": None}, None),
        ({}, {"pin": None}, None),
        ({}, {"lookalike_of": None}, None),
        ({}, {}, version(code="b")),
        ({}, {}, NEW),
        ({"abnormal": False}, {}, None),
        ({}, {"scan": FAILED}, None),
        ({}, {"scan": SCANNED}, None),
        ({"revocations_broken": False}, {}, None),
    ]
    found = []
    for of_gate, of_evidence, other in steps:
        case, everything, remote = replace(case, **of_gate), replace(everything, **of_evidence), other or remote
        found.append(judge(case, served(BASE), remote, everything, NOW).line)
    assert found == [1, 2, 3, 5, 8, 9, 10, 11, 13, 12, 13, 15]


def test_a_revoked_skill_in_quarantine_is_judged_like_a_new_one() -> None:
    held = evidence(quarantined=quarantined(BASE, "revoked"))
    assert judge(gate(), served(BASE), BASE, held, NOW).line == 3, "evidence, until it is released"
    assert judge(gate(), served(BASE), NEW, held, NOW).line == 16
    assert judge(gate(), served(BASE), version(version="2", metadata={"author": "o"}), held, NOW).reason == "review"
    assert judge(gate(), served(BASE), version(code="b"), held, NOW).reason == "republished"
    assert judge(gate("open"), served(BASE), NEW, held, NOW).kind == "admit"


def test_admitted_by_is_the_policy_or_the_approving_user() -> None:
    approval = evidence(decision=decision(NEW, "approve"))
    verdict = judge(gate(), served(BASE), NEW, approval, NOW)
    assert verdict.by == "eva"
    assert judge(gate("open"), None, NEW, evidence(), NOW).by == "policy"


def test_only_an_admitted_version_can_be_served() -> None:
    assert judged(NEW, judge(gate("open"), None, NEW, evidence(), NOW)) is NEW
    for held in (judge(gate(), None, NEW, evidence(), NOW), judge(gate("deny"), None, NEW, evidence(), NOW)):
        with pytest.raises(ValueError, match="not admitted"):
            judged(NEW, held)


def test_adopting_admits_in_a_user_s_name_except_for_the_first_five_lines() -> None:
    case = gate("review", adopting="eva", revocations_broken=True)
    verdict = judge(case, None, NEW, evidence(seen_otherwise=True), NOW)
    assert (verdict.kind, verdict.line, verdict.by) == ("admit", 0, "eva")
    assert judge(case, None, NEW, evidence(decision=decision(NEW, "reject")), NOW).reason == "rejected"
    assert judge(case, None, NEW, evidence(pin=pin(BASE)), NOW).reason == "pinned"
    assert judge(gate("lock", adopting="eva", lock=locked(BASE)), None, NEW, evidence(), NOW).reason == "not_locked"


def test_only_what_would_be_admitted_is_scanned() -> None:
    scanned = {"scan_command": ("scan",)}
    assert judge(gate("open", **scanned), served(BASE), NEW, evidence(), NOW).note == UNSEEN
    assert judge(gate("age", **scanned), served(BASE), NEW, evidence(), NOW).reason == "age"
    assert judge(gate("open", revocations_broken=True, **scanned), None, NEW, evidence(), NOW).reason == "revocations"
    failed = judge(gate("open", **scanned), served(BASE), NEW, evidence(scan=FAILED), NOW)
    assert (failed.reason, failed.note) == ("scan", FAILED.note)


def test_an_age_counts_from_the_first_sight() -> None:
    verdict = judge(gate("age"), None, NEW, evidence(first_seen_at=NOW - DAY), NOW)
    assert verdict.due_at == NOW + 2 * DAY
    assert judge(gate("age"), None, NEW, evidence(), NOW).due_at == NOW + 3 * DAY
    assert judge(gate("age", min_age=timedelta()), None, NEW, evidence(), NOW).kind == "admit"


def test_an_abnormal_run_holds_changed_skills_that_it_saw_first() -> None:
    case = gate("open", abnormal=True, since=NOW)
    assert judge(case, served(BASE), NEW, evidence(first_seen_at=NOW), NOW).reason == "abnormal"
    assert judge(case, served(BASE), NEW, evidence(first_seen_at=NOW - DAY), NOW).kind == "admit"
    assert judge(case, None, NEW, evidence(first_seen_at=NOW), NOW).kind == "admit"


@pytest.mark.parametrize(
    ("changed", "limit", "abnormal"),
    [
        (3, None, False),
        (3, MaxChanged(number=3), False),
        (4, MaxChanged(number=3), True),
        (1, MaxChanged(number=0), True),
        (5, MaxChanged(share=0.05), False),
        (6, MaxChanged(share=0.05), True),
    ],
)
def test_more_changes_than_the_limit_are_abnormal(changed: int, limit: MaxChanged | None, *, abnormal: bool) -> None:
    assert is_abnormal(changed, 100, limit) is abnormal


def test_the_stricter_of_the_rules_for_the_offered_and_the_served_version_decides() -> None:
    rules = (Rule(1, "open", {"publisher": ("acme",)}), Rule(2, "deny", {"publisher": ("bad",)}))
    case = gate("review", rules=rules)
    taken_over = version(version="2", metadata={"author": "other"})
    assert judge(case, served(BASE), NEW, evidence(), NOW).kind == "admit"
    assert judge(case, served(BASE), taken_over, evidence(), NOW).reason == "publisher"
    assert judge(case, served(taken_over), NEW, evidence(), NOW).reason == "publisher"
    assert judge(case, served(BASE), version(metadata={"author": "bad"}), evidence(), NOW).reason == "denied"


def test_the_gate_is_idle_only_if_nothing_could_be_held() -> None:
    assert Gate(anything_stored=False).idle
    for busy in (
        Gate(),
        gate("age", anything_stored=False),
        gate("open", anything_stored=False, rules=(DENY,)),
        gate("open", anything_stored=False, scan_command=("scan",)),
        gate("open", anything_stored=False, max_changed=MaxChanged(number=1)),
        gate("open", anything_stored=False, revocations_broken=True),
        gate("open", anything_stored=False, revocations=Revocations((Revocation(skill_id="s"),))),
    ):
        assert not busy.idle


def test_the_fingerprint_changes_if_verdicts_can_change() -> None:
    gates = [
        gate("age"),
        gate("review"),
        gate("age", scope="executable"),
        gate("age", min_age=DAY),
        gate("age", rules=(DENY,)),
        gate("age", lock=locked(NEW)),
        gate("age", lock=locked(BASE)),
        gate("age", scan_command=("a",)),
        gate("age", revocations_broken=True),
        gate("age", revocations=Revocations((Revocation(skill_id="s"),))),
    ]
    assert len({each.fingerprint for each in gates}) == len(gates)
    assert (
        gate("age").fingerprint
        == Gate(Policy("age", min_age=3 * DAY), abnormal=True, anything_stored=False).fingerprint
    )


def test_a_base_without_its_text_has_no_publisher() -> None:
    gone = Served(BASE.content_digest, BASE.exec_digest, "1", None)
    assert judge(gate(), gone, NEW, evidence(), NOW).reason == "publisher"
    assert judge(gate(), gone, BASE, evidence(), NOW).line == 6
