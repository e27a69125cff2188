"""Decisions, pins, revocations, quarantine and scan results. All of them outlive the skill."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from atom_saas_sync.core.gate.types import Decision, Pin, Quarantined, Revocation, ScanResult
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.store.sqlite.counters import increment
from atom_saas_sync.store.sqlite.gate.rows import decision_of, pin_of, quarantined_of, revocation_of, scan_of
from atom_saas_sync.times import format_exact_time, format_time

# The day of a released skill began when the marketplace last confirmed it, and not with its release.
_REST_OF_LIFE = """
    UPDATE skill_cache AS c SET expires_at = min(c.expires_at, (
        SELECT strftime('%Y-%m-%dT%H:%M:%SZ', max(b.confirmed_at, coalesce(v.checked_at, '')), '+24 hours')
        FROM skill_base AS b LEFT JOIN http_validator AS v ON v.page = b.page WHERE b.skill_id = c.skill_id))
    WHERE skill_id = ?1 AND EXISTS (SELECT 1 FROM skill_base AS b WHERE b.skill_id = c.skill_id)
"""
_OF = "(?1 IS NULL OR skill_id IN (SELECT value FROM json_each(?1)))"


def _ids(skill_ids: Iterable[str] | None) -> tuple[str | None]:
    return (None if skill_ids is None else json.dumps(list(skill_ids)),)


def write_decisions(connection: sqlite3.Connection, decisions: Sequence[Decision], signer: Signer | None) -> None:
    """Add decisions; the last one for a digest of a skill counts."""
    connection.executemany(
        "INSERT INTO gate_decision (skill_id, content_digest, kind, at, by, note, signature) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                each.skill_id,
                each.content_digest,
                each.kind,
                format_exact_time(each.at),
                each.by,
                each.note,
                signer and _signature(signer, each),
            )
            for each in decisions
        ],
    )
    # An approved version is counted when it becomes the base.
    rejected = sum(each.kind == "reject" for each in decisions)
    increment(connection, "atom_saas_admissions_total", rejected, verdict="refuse", by="person")


def decisions(connection: sqlite3.Connection, skill_ids: Iterable[str] | None, signer: Signer | None) -> list[Decision]:
    """Return the decisions on these skills, or on all, oldest first.

    With a `signer`, approvals without its signature are left out: another program may have written them.
    """
    rows = connection.execute(f"SELECT * FROM gate_decision WHERE {_OF} ORDER BY id", _ids(skill_ids))  # noqa: S608
    found = ((decision_of(row), row["signature"]) for row in rows)
    return [
        decision
        for decision, signature in found
        if signer is None or decision.kind == "reject" or signature == _signature(signer, decision)
    ]


def _signature(signer: Signer, decision: Decision) -> bytes:
    texts = decision.skill_id, decision.kind, decision.by, format_exact_time(decision.at)
    return signer.sign_row(decision.content_digest, *(each.encode(errors="surrogatepass") for each in texts))


def set_pin(connection: sqlite3.Connection, pin: Pin) -> None:
    """Pin a skill, replacing an earlier pin."""
    connection.execute(
        "INSERT OR REPLACE INTO gate_pin (skill_id, content_digest, version, at, by, note) VALUES (?, ?, ?, ?, ?, ?)",
        (pin.skill_id, pin.content_digest, pin.version, format_time(pin.at), pin.by, pin.note),
    )


def remove_pin(connection: sqlite3.Connection, skill_id: str) -> bool:
    """Remove the pin of a skill; tell whether there was one."""
    return connection.execute("DELETE FROM gate_pin WHERE skill_id = ?", (skill_id,)).rowcount > 0


def pins(connection: sqlite3.Connection, skill_ids: Iterable[str] | None) -> dict[str, Pin]:
    """Return the pins of these skills, or all, by id."""
    rows = connection.execute(f"SELECT * FROM gate_pin WHERE {_OF} ORDER BY skill_id", _ids(skill_ids))  # noqa: S608
    return {row["skill_id"]: pin_of(row) for row in rows}


def add_revocation(connection: sqlite3.Connection, revocation: Revocation, now: datetime) -> int:
    """Add a revocation and return its id."""
    number = connection.execute(
        "INSERT INTO gate_revocation (skill_id, version, digest, publisher, note, source, added_at, added_by) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            revocation.skill_id,
            revocation.version,
            revocation.digest,
            revocation.publisher,
            revocation.note,
            revocation.source,
            format_time(revocation.added_at or now),
            revocation.added_by or "revocations file",
        ),
    ).lastrowid
    assert number is not None
    return number


def remove_revocation(connection: sqlite3.Connection, number: int) -> bool:
    """Remove a revocation that a command added; tell whether there was one."""
    return connection.execute("DELETE FROM gate_revocation WHERE id = ? AND source = 'command'", (number,)).rowcount > 0


def replace_file_revocations(connection: sqlite3.Connection, entries: Sequence[Revocation], now: datetime) -> bool:
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


def revocations(connection: sqlite3.Connection) -> list[Revocation]:
    """Return all revocations, oldest first."""
    return [revocation_of(row) for row in connection.execute("SELECT * FROM gate_revocation ORDER BY id")]


def quarantine(connection: sqlite3.Connection, entries: Sequence[Quarantined]) -> None:
    """Store skills as evidence, replacing earlier evidence."""
    connection.executemany(
        """
        INSERT OR REPLACE INTO gate_quarantine
            (skill_id, skill_data, base_data, content_digest, reason, served_source, at, by, note)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            (
                each.skill_id,
                each.text,
                each.base_text,
                each.content_digest,
                each.reason,
                each.served_source,
                format_time(each.at),
                each.by,
                each.note,
            )
            for each in entries
        ],
    )


def release(connection: sqlite3.Connection, skill_ids: Sequence[str]) -> None:
    """Remove skills from quarantine, with their evidence."""
    connection.executemany(_REST_OF_LIFE, [(each,) for each in skill_ids])
    connection.executemany("DELETE FROM gate_quarantine WHERE skill_id = ?", [(each,) for each in skill_ids])


def quarantined(connection: sqlite3.Connection, skill_ids: Iterable[str] | None) -> dict[str, Quarantined]:
    """Return the quarantined skills, of these or all, by id."""
    rows = connection.execute(f"SELECT * FROM gate_quarantine WHERE {_OF} ORDER BY skill_id", _ids(skill_ids))  # noqa: S608
    return {row["skill_id"]: quarantined_of(row) for row in rows}


def write_scans(connection: sqlite3.Connection, results: Sequence[ScanResult]) -> None:
    """Store scan results, replacing earlier results of the same digests."""
    connection.executemany(
        "INSERT OR REPLACE INTO gate_scan (content_digest, passed, note, at) VALUES (?, ?, ?, ?)",
        [(each.content_digest, each.passed, each.note, format_time(each.at)) for each in results],
    )


def scans(connection: sqlite3.Connection, digests: Iterable[bytes]) -> dict[bytes, ScanResult]:
    """Return the scan results of these digests."""
    found: dict[bytes, ScanResult] = {}
    if connection.execute("SELECT 1 FROM gate_scan LIMIT 1").fetchone() is None:  # there is no scan command
        return found
    for digest in set(digests):
        row = connection.execute("SELECT * FROM gate_scan WHERE content_digest = ?", (digest,)).fetchone()
        if row is not None:
            found[digest] = scan_of(row)
    return found


def forget_scans(connection: sqlite3.Connection, digests: Iterable[bytes]) -> None:
    """Delete the scan results of these digests."""
    connection.executemany("DELETE FROM gate_scan WHERE content_digest = ?", [(each,) for each in digests])
