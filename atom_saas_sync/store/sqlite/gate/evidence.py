"""Read the stored facts that verdicts depend on, with a few statements for many skills."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from atom_saas_sync.core.canonical import version_key
from atom_saas_sync.core.gate.types import Decision, Evidence
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.store.sqlite.gate import names, offers, people
from atom_saas_sync.store.sqlite.gate.rows import moment_of
from atom_saas_sync.times import format_exact_time

# Each entry of `wanted`: id, version, exec digest, content digest.
_SEEN_OTHERWISE = """
    SELECT DISTINCT s.skill_id FROM json_each(?) AS wanted
    CROSS JOIN skill_seen AS s ON s.skill_id = json_extract(wanted.value, '$[0]')
        AND s.version = json_extract(wanted.value, '$[1]') AND hex(s.exec_digest) != json_extract(wanted.value, '$[2]')
"""
_FIRST_SEEN = """
    SELECT s.skill_id, coalesce(s.first_seen_at, s.seen_at) FROM json_each(?) AS wanted
    CROSS JOIN skill_seen AS s ON s.skill_id = json_extract(wanted.value, '$[0]')
        AND hex(s.content_digest) = json_extract(wanted.value, '$[3]')
"""
_ADMITTED_AS_BASE = """
    SELECT b.skill_id, b.admitted_at FROM json_each(?) AS wanted
    CROSS JOIN skill_base AS b ON b.skill_id = json_extract(wanted.value, '$[0]')
        AND hex(b.content_digest) = json_extract(wanted.value, '$[3]')
"""
# A version counts as newer if it was seen later; a pin may have restored an older one.
_ADMITTED_SINCE = """
    WITH seen AS (
        SELECT content_digest, admitted_at, coalesce(first_seen_at, seen_at) AS first_seen_at
        FROM skill_seen WHERE skill_id = ?1
        UNION ALL SELECT content_digest, admitted_at, admitted_at FROM skill_base AS b WHERE skill_id = ?1
        AND NOT EXISTS (SELECT 1 FROM skill_seen WHERE skill_id = ?1 AND content_digest = b.content_digest)
    ), base AS (SELECT content_digest, admitted_at FROM skill_base WHERE skill_id = ?1)
    SELECT 1 FROM seen LEFT JOIN base ON base.content_digest = seen.content_digest
    WHERE seen.content_digest != ?2 AND max(coalesce(seen.admitted_at, ''), coalesce(base.admitted_at, '')) > ?3
        AND seen.first_seen_at >= coalesce((SELECT first_seen_at FROM seen WHERE content_digest = ?2), '')
"""


def evidence(
    connection: sqlite3.Connection, versions: Sequence[SkillVersion], signer: Signer | None
) -> dict[str, Evidence]:
    """Return the evidence on these versions, one per skill, by skill id."""
    ids = [each.skill_id for each in versions]
    wanted = json.dumps(
        [
            (each.skill_id, version_key(each.fields), each.exec_digest.hex().upper(), each.content_digest.hex().upper())
            for each in versions
        ]
    )
    otherwise = {row[0] for row in connection.execute(_SEEN_OTHERWISE, (wanted,))}
    first_seen = dict(connection.execute(_ADMITTED_AS_BASE, (wanted,)).fetchall())
    first_seen.update(connection.execute(_FIRST_SEEN, (wanted,)).fetchall())
    newest: dict[tuple[str, bytes], Decision] = {}
    for decision in people.decisions(connection, ids, signer):
        newest[decision.skill_id, decision.content_digest] = decision
    offered, pins = offers.offers(connection, ids, texts=False), people.pins(connection, ids)
    quarantined = people.quarantined(connection, ids)
    scans = people.scans(connection, (each.content_digest for each in versions))
    alike = names.lookalikes(connection, ids)
    found = {}
    for each in versions:
        said = newest.get((each.skill_id, each.content_digest))
        seen = first_seen.get(each.skill_id)
        found[each.skill_id] = Evidence(
            skill_id=each.skill_id,
            offer=offered.get(each.skill_id),
            decision=said,
            admitted_since=said is not None and said.kind == "approve" and _admitted_since(connection, said),
            pin=pins.get(each.skill_id),
            quarantined=quarantined.get(each.skill_id),
            lookalike_of=alike.get(each.skill_id),
            seen_otherwise=each.skill_id in otherwise,
            first_seen_at=None if seen is None else moment_of(seen),
            scan=scans.get(each.content_digest),
        )
    return found


def _admitted_since(connection: sqlite3.Connection, decision: Decision) -> bool:
    values = decision.skill_id, decision.content_digest, format_exact_time(decision.at)
    return connection.execute(_ADMITTED_SINCE, values).fetchone() is not None
