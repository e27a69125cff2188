"""Plan what happens to a skill, given its base, the local copy and the marketplace's version.

Each branch has a row in docs/CONFLICTS.md and a test. A plan is an Action; the store carries out its effects, and
nothing else.
"""

from __future__ import annotations

from atom_saas_sync.core.plan.conflicts import CONVERGED, classify, differing_fields, resolve
from atom_saas_sync.core.plan.deletions import plan_deleted
from atom_saas_sync.core.plan.listed import is_newer, plan_listed, plan_touched, plan_waiting, with_alarm
from atom_saas_sync.core.plan.resolutions import plan_resolution, plan_undo
from atom_saas_sync.core.plan.sides import is_edited, is_tampered

__all__ = [
    "CONVERGED",
    "classify",
    "differing_fields",
    "is_edited",
    "is_newer",
    "is_tampered",
    "plan_deleted",
    "plan_listed",
    "plan_resolution",
    "plan_touched",
    "plan_undo",
    "plan_waiting",
    "resolve",
    "with_alarm",
]
