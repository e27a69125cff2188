"""Which policy applies to a skill: the first rule that matches, else the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct

from atom_saas_sync.core.canonical import canonical
from atom_saas_sync.core.gate.names import folded, publisher_of
from atom_saas_sync.core.gate.types import ADMISSIONS, Admission, Policy, Rule

CONDITIONS = ("publisher", "id", "name", "category", "skill_type")
"""The fields that a rule can match."""

_PATTERN = re.compile(r"[*?\[]")


class Ruling(Struct, frozen=True):
    """The policy for one skill; `rule` is the number of the deciding rule, None for the settings."""

    admission: Admission
    min_age: timedelta
    rule: int | None = None

    @property
    def strictness(self) -> tuple[int, timedelta]:
        """The key for comparing rulings: larger is stricter."""
        return ADMISSIONS.index(self.admission), self.min_age if self.admission == "age" else timedelta()


def ruling(policy: Policy, skill_id: str, fields: Mapping[str, Any] | None, *, new: bool) -> Ruling:
    """Return the policy for a skill with these fields; `new` if none of its versions has been admitted yet.

    Names are not verified: for a new skill, a rule that is looser than the settings is skipped unless it has `new` or
    gives the full id.
    """
    settings = Ruling(policy.admission, policy.min_age)
    if not policy.rules:
        return settings
    values = _values(skill_id, fields or {})
    for rule in policy.rules:
        found = Ruling(rule.admission, policy.min_age if rule.min_age is None else rule.min_age, rule.number)
        if not _matches(rule, values):
            continue
        if not new or rule.new or found.strictness >= settings.strictness or _names(rule, skill_id):
            return found
    return settings


def stricter(one: Ruling, other: Ruling) -> Ruling:
    """Return the stricter of two rulings."""
    return other if other.strictness > one.strictness else one


def _values(skill_id: str, fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values that each condition is compared with. A list in place of a string matches with any entry."""
    found = {name: _texts(fields.get(name)) for name in ("name", "category", "skill_type")}
    return found | {"publisher": [folded(publisher_of(fields) or "")], "id": [folded(skill_id)]}


def _texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [folded(each) for each in value if isinstance(each, str)]
    if value is None or isinstance(value, str):
        return [folded(value or "")]
    return [canonical(value).decode()]


def _matches(rule: Rule, values: Mapping[str, list[str]]) -> bool:
    return all(
        any(fnmatchcase(value, folded(pattern)) for value in values[name] for pattern in patterns)
        for name, patterns in rule.conditions.items()
    )


def _names(rule: Rule, skill_id: str) -> bool:
    return skill_id in rule.conditions.get("id", ()) and _PATTERN.search(skill_id) is None
