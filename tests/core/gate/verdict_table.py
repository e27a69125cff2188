"""The verdict's table of docs/TRUST.md, generated from the code, and values for its tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from atom_saas_sync.core.canonical import version_from_fields, version_key
from atom_saas_sync.core.gate.types import Decision, Evidence, Gate, Pin, Policy, Quarantined, Served
from atom_saas_sync.core.gate.verdict import LINES
from atom_saas_sync.model import SkillVersion

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def table() -> str:
    rows = [f"| {number} | {line.condition} | {line.verdict} |" for number, line in enumerate(LINES, 1)]
    return "\n".join(["| # | if | verdict |", "|--:|---|---|", *rows])


def version(**fields: Any) -> SkillVersion:
    fields = {"skill_id": "s", "name": "S", "version": "1", "code": "a", "metadata": {"author": "acme"}, **fields}
    return version_from_fields(fields["skill_id"], fields)


def served(of: SkillVersion) -> Served:
    return Served(of.content_digest, of.exec_digest, version_key(of.fields), of.fields)


def gate(admission: Any = "review", **more: Any) -> Gate:
    names = Policy.__struct_fields__
    policy = {"min_age": 3 * DAY} | {name: more.pop(name) for name in names if name in more}
    return Gate(policy=Policy(admission=admission, **policy), **more)


def evidence(**more: Any) -> Evidence:
    return Evidence("s", **more)


def decision(of: SkillVersion, kind: Any) -> Decision:
    return Decision(of.skill_id, of.content_digest, kind, NOW, "eva")


def pin(of: SkillVersion) -> Pin:
    return Pin(of.skill_id, of.content_digest, version_key(of.fields), NOW, "eva")


def quarantined(of: SkillVersion, reason: Any) -> Quarantined:
    return Quarantined(of.skill_id, of.text, None, of.content_digest, reason, NOW, "eva", None, "marketplace")
