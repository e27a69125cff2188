"""Decisions, pins, revocations, quarantine and scan results. All of them outlive the skill."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.core.gate.types import Decision, Pin, Quarantined, Revocation, ScanResult
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.store.postgresql.counters import increment
from atom_saas_sync.store.postgresql.gate.rows import decision_of, pin_of, quarantined_of, revocation_of, scan_of
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.times import format_exact_time

# The lifetime of a released skill began when the marketplace last confirmed it, not with its release.
_REST_OF_LIFE = """
    UPDATE skill_cache AS c
    SET expires_at = least(c.expires_at, greatest(b.confirmed_at, v.checked_at) + interval '24 hours')
    FROM skill_base AS b LEFT JOIN http_validator AS v ON v.page = b.page
    WHERE b.skill_id = c.skill_id AND c.skill_id = ANY(%s)
"""
_OF = "(%(ids)s::text[] IS NULL OR skill_id = ANY(%(ids)s::text[]))"
_QUARANTINE = """
    INSERT INTO gate_quarantine
        (skill_id, skill_data, base_data, content_digest, reason, served_source, at, by, note)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bytea[], %s::text[], %s::text[], %s::timestamptz[],
        %s::text[], %s::text[])
    ON CONFLICT (skill_id) DO UPDATE SET skill_data = excluded.skill_data, base_data = excluded.base_data,
        content_digest = excluded.content_digest, reason = excluded.reason, served_source = excluded.served_source,
        at = excluded.at, by = excluded.by, note = excluded.note
"""


def _ids(skill_ids: Iterable[str] | None) -> dict[str, list[str] | None]:
    return {"ids": None if skill_ids is None else list(skill_ids)}


def write_decisions(connection: psycopg.Connection[Row], decisions: Sequence[Decision], signer: Signer | None) -> None:
    """Add decisions; the last one for a digest of a skill counts."""
    for each in decisions:
        connection.execute(
            "INSERT INTO gate_decision (skill_id, content_digest, kind, at, by, note, signature) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                each.skill_id,
                each.content_digest,
                each.kind,
                each.at,
                each.by,
                each.note,
                signer and _signature(signer, each),
            ),
        )
    # Approvals are counted when the version becomes the base.
    rejected = sum(each.kind == "reject" for each in decisions)
    increment(connection, "atom_saas_admissions_total", rejected, verdict="refuse", by="person")


def decisions(
    connection: psycopg.Connection[Row], skill_ids: Iterable[str] | None, signer: Signer | None
) -> list[Decision]:
    """Return the decisions on these skills, or on all, oldest first.

    With a `signer`, approvals without its signature are left out: another program may have written them.
    """
    rows = connection.execute(f"SELECT * FROM gate_decision WHERE {_OF} ORDER BY id", _ids(skill_ids))  # noqa: S608 - constant
    found = ((decision_of(row), row["signature"]) for row in rows)
    return [
        decision
        for decision, signature in found
        if signer is None or decision.kind == "reject" or signature == _signature(signer, decision)
    ]


def _signature(signer: Signer, decision: Decision) -> bytes:
    texts = decision.skill_id, decision.kind, decision.by, format_exact_time(decision.at)
    return signer.sign_row(decision.content_digest, *(each.encode(errors="surrogatepass") for each in texts))


def set_pin(connection: psycopg.Connection[Row], pin: Pin) -> None:
    """Pin a skill, replacing an earlier pin."""
    connection.execute(
        "INSERT INTO gate_pin (skill_id, content_digest, version, at, by, note) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (skill_id) DO UPDATE SET content_digest = excluded.content_digest, version = excluded.version, "
        "at = excluded.at, by = excluded.by, note = excluded.note",
        (pin.skill_id, pin.content_digest, pin.version, pin.at.replace(microsecond=0), pin.by, pin.note),
    )


def remove_pin(connection: psycopg.Connection[Row], skill_id: str) -> bool:
    """Remove the pin of a skill; tell whether there was one."""
    return bool(connection.execute("DELETE FROM gate_pin WHERE skill_id = %s RETURNING 1", (skill_id,)).fetchall())


def pins(connection: psycopg.Connection[Row], skill_ids: Iterable[str] | None) -> dict[str, Pin]:
    """Return the pins of these skills, or all, by id."""
    rows = connection.execute(f"SELECT * FROM gate_pin WHERE {_OF} ORDER BY skill_id", _ids(skill_ids))  # noqa: S608 - constant
    return {row["skill_id"]: pin_of(row) for row in rows}


def add_revocation(connection: psycopg.Connection[Row], revocation: Revocation, now: datetime) -> int:
    """Add a revocation and return its id."""
    row = connection.execute(
        "INSERT INTO gate_revocation (skill_id, version, digest, publisher, note, source, added_at, added_by) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (
            revocation.skill_id,
            revocation.version,
            revocation.digest,
            revocation.publisher,
            revocation.note,
            revocation.source,
            (revocation.added_at or now).replace(microsecond=0),
            revocation.added_by or "revocations file",
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


def remove_revocation(connection: psycopg.Connection[Row], number: int) -> bool:
    """Remove a revocation that a command added; tell whether there was one."""
    statement = "DELETE FROM gate_revocation WHERE id = %s AND source = 'command' RETURNING 1"
    return bool(connection.execute(statement, (number,)).fetchall())


def replace_file_revocations(connection: psycopg.Connection[Row], entries: Sequence[Revocation], now: datetime) -> bool:
    """Replace the stored list of the revocations file; tell whether it differs."""
    stored = [each for each in revocations(connection) if each.source == "file"]
    if [_entry(each) for each in stored] == [_entry(each) for each in entries]:
        return False
    connection.execute("DELETE FROM gate_revocation WHERE source = 'file'")
    for each in entries:
        add_revocation(connection, each, now)
    return True


def _entry(revocation: Revocation) -> tuple[object, ...]:
    return revocation.skill_id, revocation.version, revocation.digest, revocation.publisher, revocation.note


def revocations(connection: psycopg.Connection[Row]) -> list[Revocation]:
    """Return all revocations, oldest first."""
    return [revocation_of(row) for row in connection.execute("SELECT * FROM gate_revocation ORDER BY id")]


def quarantine(connection: psycopg.Connection[Row], entries: Sequence[Quarantined]) -> None:
    """Store skills as evidence, replacing earlier evidence."""
    last = {each.skill_id: each for each in entries}.values()
    connection.execute(
        _QUARANTINE,
        (
            [each.skill_id for each in last],
            [each.text for each in last],
            [each.base_text for each in last],
            [each.content_digest for each in last],
            [each.reason for each in last],
            [each.served_source for each in last],
            [each.at.replace(microsecond=0) for each in last],
            [each.by for each in last],
            [each.note for each in last],
        ),
    )


def release(connection: psycopg.Connection[Row], skill_ids: Sequence[str]) -> None:
    """Remove skills from quarantine, with their evidence."""
    connection.execute(_REST_OF_LIFE, (list(skill_ids),))
    connection.execute("DELETE FROM gate_quarantine WHERE skill_id = ANY(%s)", (list(skill_ids),))


def quarantined(connection: psycopg.Connection[Row], skill_ids: Iterable[str] | None) -> dict[str, Quarantined]:
    """Return the quarantined skills, of these or all, by id."""
    rows = connection.execute(f"SELECT * FROM gate_quarantine WHERE {_OF} ORDER BY skill_id", _ids(skill_ids))  # noqa: S608 - constant
    return {row["skill_id"]: quarantined_of(row) for row in rows}


def write_scans(connection: psycopg.Connection[Row], results: Sequence[ScanResult]) -> None:
    """Store scan results, replacing earlier results of the same digests."""
    for each in results:
        connection.execute(
            "INSERT INTO gate_scan (content_digest, passed, note, at) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (content_digest) DO UPDATE SET passed = excluded.passed, note = excluded.note, "
            "at = excluded.at",
            (each.content_digest, each.passed, each.note, each.at.replace(microsecond=0)),
        )


def scans(connection: psycopg.Connection[Row], digests: Iterable[bytes]) -> dict[bytes, ScanResult]:
    """Return the scan results of these digests."""
    rows = connection.execute("SELECT * FROM gate_scan WHERE content_digest = ANY(%s)", (list(set(digests)),))
    return {row["content_digest"]: scan_of(row) for row in rows}


def forget_scans(connection: psycopg.Connection[Row], digests: Iterable[bytes]) -> None:
    """Delete the scan results of these digests."""
    connection.execute("DELETE FROM gate_scan WHERE content_digest = ANY(%s)", (list(set(digests)),))
