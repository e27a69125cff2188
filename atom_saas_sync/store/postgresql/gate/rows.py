"""Rows of the gate's tables as values. Another program may have written them: an invalid time counts as the oldest."""

from __future__ import annotations

from datetime import UTC, datetime

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.core.gate.types import Decision, Offer, Pin, Quarantined, Revocation, ScanResult
from atom_saas_sync.store.packing import unpack
from atom_saas_sync.store.postgresql.rows import Row

OFFERED = (
    "o.skill_id, o.data, o.wire_digest, o.content_digest, o.exec_digest, o.version, o.page, o.kind, o.reason, "
    "o.due_at, o.first_seen_at, o.offered_at, o.abnormal, o.note"
)
"""The columns of skill_offer that make an Offer."""


def moment_of(stored: datetime | None) -> datetime:
    """Return a stored time."""
    return stored or datetime.fromtimestamp(0, UTC)


def offer_of(row: Row) -> Offer:
    """Return the offer in a row with `OFFERED`."""
    return Offer(
        skill_id=row["skill_id"],
        text=_text(row["skill_id"], row["data"], row["content_digest"]),
        wire_digest=row["wire_digest"],
        content_digest=row["content_digest"],
        exec_digest=row["exec_digest"],
        version=row["version"],
        page=row["page"],
        kind=row["kind"],
        reason=row["reason"],
        due_at=row["due_at"],
        first_seen_at=moment_of(row["first_seen_at"]),
        offered_at=moment_of(row["offered_at"]),
        abnormal=row["abnormal"],
        note=row["note"],
    )


def _text(skill_id: str, data: bytes, digest: bytes) -> str:
    """Return the text of an offer; empty if it does not have its digest, because another program changed it.

    Such an offer cannot be admitted, and the next forced sync reads it again.
    """
    try:
        text = unpack(data)
    except ValueError:
        return ""
    version = stored_version(skill_id, text)
    return text if version is not None and version.content_digest == digest else ""


def decision_of(row: Row) -> Decision:
    """Return the decision in a whole row."""
    return Decision(row["skill_id"], row["content_digest"], row["kind"], moment_of(row["at"]), row["by"], row["note"])


def pin_of(row: Row) -> Pin:
    """Return the pin in a whole row."""
    return Pin(row["skill_id"], row["content_digest"], row["version"], moment_of(row["at"]), row["by"], row["note"])


def revocation_of(row: Row) -> Revocation:
    """Return the revocation in a whole row."""
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


def quarantined_of(row: Row) -> Quarantined:
    """Return the quarantined skill in a whole row."""
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


def scan_of(row: Row) -> ScanResult:
    """Return the scan result in a whole row."""
    return ScanResult(row["content_digest"], row["passed"], row["note"], moment_of(row["at"]))
