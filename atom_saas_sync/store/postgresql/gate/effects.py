"""The statements of the gate's effects: offers and quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model.effects import DropOffer, PutOffer, Quarantine, Release
from atom_saas_sync.store.gate_values import offers_of, quarantined_of
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
    """Store offers; `page` is their page in the list, or None."""
    signatures = [
        None if signer is None else signature_of(connection, signer, each.version, each.version_key, each.proof)
        for each in effects
    ]
    waiting = offers_of(effects, now, page=page)
    offers.put_offers(connection, waiting, now, history_versions=history_versions, signatures=signatures)


def drop_offers(
    connection: psycopg.Connection[Row], effects: Sequence[DropOffer], now: datetime, *, history_versions: int
) -> None:
    """Remove the offers of these skills."""
    for never_served, kept in ((True, history_versions), (False, 0)):
        ids = [each.skill_id for each in effects if each.never_served is never_served]
        if ids:
            offers.drop_offers(connection, ids, now, history_versions=kept)


def quarantine(connection: psycopg.Connection[Row], effects: Sequence[Quarantine], now: datetime) -> None:
    """Store what was served as evidence."""
    people.quarantine(connection, quarantined_of(effects, now))


def release(connection: psycopg.Connection[Row], effects: Sequence[Release]) -> None:
    """Delete the evidence."""
    people.release(connection, [each.skill_id for each in effects])
