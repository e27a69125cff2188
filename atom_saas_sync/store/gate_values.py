"""The gate's effects as values to store, for both engines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from atom_saas_sync.core.gate.types import Offer, Quarantined, Reason
from atom_saas_sync.model.effects import PutOffer, Quarantine


def offers_of(effects: Sequence[PutOffer], now: datetime, *, page: int | None) -> list[Offer]:
    """Return the offers to store; `page` is their page in the list, or None."""
    return [
        Offer(
            skill_id=each.skill_id,
            text=each.version.text,
            wire_digest=each.version.wire_digest,
            content_digest=each.version.content_digest,
            exec_digest=each.version.exec_digest,
            version=each.version_key,
            page=each.page if page is None else page,
            kind=each.kind,
            reason=cast("Reason", each.reason),
            due_at=each.due_at,
            first_seen_at=each.first_seen_at or now,
            offered_at=now,
            abnormal=each.abnormal,
            note=each.note,
        )
        for each in effects
    ]


def quarantined_of(effects: Sequence[Quarantine], now: datetime) -> list[Quarantined]:
    """Return the evidence to store."""
    return [
        Quarantined(
            skill_id=each.skill_id,
            text=each.text,
            base_text=each.base_text,
            content_digest=each.content_digest,
            reason=each.reason,
            at=now,
            by=each.by,
            note=each.note,
            served_source=each.served_source,
        )
        for each in effects
    ]
