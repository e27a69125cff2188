"""Convert rows of the gate's tables to values. An invalid time, from another program, becomes the oldest time."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.core.gate.types import Decision, Offer, Pin, Quarantined, Revocation, ScanResult
from atom_saas_sync.times import parse_time

OFFERED = (
    "o.skill_id, o.data, o.wire_digest, o.content_digest, o.exec_digest, o.version, o.page, o.kind, o.reason, "
    "o.due_at, o.first_seen_at, o.offered_at, o.abnormal, o.note"
)
"""The columns of skill_offer that `offer_of` reads, in this order."""


def moment_of(text: object) -> datetime:
    """Return a stored time."""
    return parse_time(text) or datetime.fromtimestamp(0, UTC)


def offer_of(row: sqlite3.Row) -> Offer:
    """Return the offer in a row of `OFFERED`."""
    skill_id, data, wire, content, executable, version, page, kind, reason, due, first_seen, offered, abnormal, note = (
        tuple(row)[:14]
    )
    return Offer(
        skill_id=skill_id,
        text=_text(skill_id, data, content),
        wire_digest=wire,
        content_digest=content,
        exec_digest=executable,
        version=version,
        page=page,
        kind=kind,
        reason=reason,
        due_at=parse_time(due),
        first_seen_at=moment_of(first_seen),
        offered_at=moment_of(offered),
        abnormal=bool(abnormal),
        note=note,
    )


def _text(skill_id: str, data: object, digest: bytes) -> str:
    """Return the text of an offer; empty if it does not match its digest because another program changed it.

    Such an offer cannot be admitted, and the next forced sync reads it again.
    """
    from atom_saas_sync.store.packing import unpack  # not needed by `skills verify`

    try:
        text = unpack(data) if isinstance(data, bytes) else ""
    except ValueError:
        return ""
    version = stored_version(skill_id, text)
    return text if version is not None and version.content_digest == digest else ""


def decision_of(row: sqlite3.Row) -> Decision:
    """Return the decision in a row."""
    return Decision(row["skill_id"], row["content_digest"], row["kind"], moment_of(row["at"]), row["by"], row["note"])


def pin_of(row: sqlite3.Row) -> Pin:
    """Return the pin in a row."""
    return Pin(row["skill_id"], row["content_digest"], row["version"], moment_of(row["at"]), row["by"], row["note"])


def revocation_of(row: sqlite3.Row) -> Revocation:
    """Return the revocation in a row."""
    return Revocation(
        skill_id=row["skill_id"],
        version=row["version"],
        digest=row["digest"],
        publisher=row["publisher"],
        note=row["note"],
        source=row["source"],
        added_at=moment_of(row["added_at"]),
        added_by=row["added_by"],
        id=row["id"],
    )


def quarantined_of(row: sqlite3.Row) -> Quarantined:
    """Return the quarantined skill in a row."""
    return Quarantined(
        skill_id=row["skill_id"],
        text=row["skill_data"],
        base_text=row["base_data"],
        content_digest=row["content_digest"],
        reason=row["reason"],
        at=moment_of(row["at"]),
        by=row["by"],
        note=row["note"],
        served_source=row["served_source"],
    )


def scan_of(row: sqlite3.Row) -> ScanResult:
    """Return the scan result in a row."""
    return ScanResult(row["content_digest"], bool(row["passed"]), row["note"], moment_of(row["at"]))
