"""The statements of the gate's effects: what waits, and the quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

import psycopg

from atom_saas_sync.core.gate.types import Offer, Quarantined, Reason
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model.effects import DropOffer, PutOffer, Quarantine, Release
from atom_saas_sync.store.postgresql.bases import signature_of
from atom_saas_sync.store.postgresql.gate import offers, people
from atom_saas_sync.store.postgresql.rows import Row


def put_offers(
    connection: psycopg.Connection[Row],
    effects: Sequence[PutOffer],
    now: datetime,
    *,
    page: int | None,
    history_versions: int,
    signer: Signer | None,
) -> None:
    """Let versions wait; `page` is where the list showed them, if it did."""
    signatures = [
        None if signer is None else signature_of(connection, signer, each.version, each.version_key, each.proof)
        for each in effects
    ]
    waiting = [
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
    offers.put_offers(connection, waiting, now, history_versions=history_versions, signatures=signatures)


def drop_offers(
    connection: psycopg.Connection[Row], effects: Sequence[DropOffer], now: datetime, *, history_versions: int
) -> None:
    """Let nothing wait of these skills."""
    for never_served, kept in ((True, history_versions), (False, 0)):
        ids = [each.skill_id for each in effects if each.never_served is never_served]
        if ids:
            offers.drop_offers(connection, ids, now, history_versions=kept)


def quarantine(connection: psycopg.Connection[Row], effects: Sequence[Quarantine], now: datetime) -> None:
    """Keep what was served as evidence."""
    entries = [
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
    people.quarantine(connection, entries)


def release(connection: psycopg.Connection[Row], effects: Sequence[Release]) -> None:
    """Forget what was kept as evidence."""
    people.release(connection, [each.skill_id for each in effects])
