"""Waiting updates, as after a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from conftest import Machine

from atom_saas_sync.core.canonical import json_text, version_from_fields, version_key
from atom_saas_sync.core.gate.types import Offer, Reason
from atom_saas_sync.model import SkillVersion

FIRST_SEEN = datetime(2026, 2, 1, 12, tzinfo=UTC)


def offered(machine: Machine, skill_id: str, **changes: Any) -> SkillVersion:
    """Return the served version of a skill with other fields; a new skill if it is not served."""
    served = machine.cached().get(skill_id, {"skill_id": skill_id, "name": "New", "version": "1.0.0"})
    return version_from_fields(skill_id, json.loads(json_text({**served, **changes})))


def hold(machine: Machine, version: SkillVersion, reason: Reason = "review", **values: Any) -> str:
    """Hold a version; return its printed digest."""
    offer = Offer(
        skill_id=version.skill_id,
        text=version.text,
        wire_digest=version.wire_digest,
        content_digest=version.content_digest,
        exec_digest=version.exec_digest,
        version=version_key(version.fields),
        page=1,
        reason=reason,
        **{"kind": "hold", "due_at": None, "first_seen_at": FIRST_SEEN, "offered_at": FIRST_SEEN, **values},
    )
    with machine.store() as store, store.gate(history_versions=10).deciding() as batch:
        batch.gate.put_offers([offer], FIRST_SEEN)
    return f"sha256:{version.content_digest.hex()}"
