"""Read the stored facts that verdicts depend on, with a few statements for many skills."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.core.canonical import version_key
from atom_saas_sync.core.gate.types import Decision, Evidence
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.store.postgresql.gate import offers, people
from atom_saas_sync.store.postgresql.gate.lookalikes import lookalikes
from atom_saas_sync.store.postgresql.rows import Row

_WANTED = "unnest(%s::text[], %s::text[], %s::bytea[], %s::bytea[]) AS w (skill_id, version, executable, content)"
_SEEN = f"""
    SELECT s.skill_id, s.version = w.version AND s.exec_digest <> w.executable AS otherwise,
        CASE WHEN s.content_digest = w.content THEN coalesce(s.first_seen_at, s.seen_at) END AS first_seen_at
    FROM {_WANTED} JOIN skill_seen AS s ON s.skill_id = w.skill_id
        AND (s.content_digest = w.content OR (s.version = w.version AND s.exec_digest <> w.executable))
"""  # noqa: S608 - constants
_ADMITTED_AS_BASE = f"""
    SELECT b.skill_id, b.admitted_at
    FROM {_WANTED} JOIN skill_base AS b ON b.skill_id = w.skill_id AND b.content_digest = w.content
"""  # noqa: S608 - constants
# A newer version is one that was seen later; an older one may have been put back by a pin.
_ADMITTED_SINCE = """
    WITH seen AS (
        SELECT content_digest, admitted_at, coalesce(first_seen_at, seen_at) AS first_seen_at
        FROM skill_seen WHERE skill_id = %(id)s
        UNION ALL SELECT content_digest, admitted_at, admitted_at FROM skill_base AS b WHERE skill_id = %(id)s
        AND NOT EXISTS (SELECT FROM skill_seen WHERE skill_id = %(id)s AND content_digest = b.content_digest)
    ), base AS (SELECT content_digest, admitted_at FROM skill_base WHERE skill_id = %(id)s)
    SELECT 1 FROM seen LEFT JOIN base ON base.content_digest = seen.content_digest
    WHERE seen.content_digest <> %(digest)s AND greatest(seen.admitted_at, base.admitted_at) > %(at)s
        AND seen.first_seen_at >= coalesce(
            (SELECT first_seen_at FROM seen WHERE content_digest = %(digest)s), '-infinity')
"""


def evidence(
    connection: psycopg.Connection[Row], versions: Sequence[SkillVersion], signer: Signer | None
) -> dict[str, Evidence]:
    """Return the evidence on these versions, one per skill, by skill id."""
    if not versions:
        return {}
    ids = [each.skill_id for each in versions]
    wanted = (
        ids,
        [version_key(each.fields) for each in versions],
        [each.exec_digest for each in versions],
        [each.content_digest for each in versions],
    )
    first_seen: dict[str, datetime | None] = {row[0]: row[1] for row in connection.execute(_ADMITTED_AS_BASE, wanted)}
    otherwise = set()
    for row in connection.execute(_SEEN, wanted):
        if row["otherwise"]:
            otherwise.add(row["skill_id"])
        if row["first_seen_at"] is not None:
            first_seen[row["skill_id"]] = row["first_seen_at"]
    newest: dict[tuple[str, bytes], Decision] = {}
    for decision in people.decisions(connection, ids, signer):
        newest[decision.skill_id, decision.content_digest] = decision
    offered, pins = offers.offers(connection, ids), people.pins(connection, ids)
    quarantined = people.quarantined(connection, ids)
    scans = people.scans(connection, (each.content_digest for each in versions))
    alike = lookalikes(connection, ids)
    found = {}
    for each in versions:
        said = newest.get((each.skill_id, each.content_digest))
        found[each.skill_id] = Evidence(
            skill_id=each.skill_id,
            offer=offered.get(each.skill_id),
            decision=said,
            admitted_since=said is not None and said.kind == "approve" and _admitted_since(connection, said),
            pin=pins.get(each.skill_id),
            quarantined=quarantined.get(each.skill_id),
            lookalike_of=alike.get(each.skill_id),
            seen_otherwise=each.skill_id in otherwise,
            first_seen_at=first_seen.get(each.skill_id),
            scan=scans.get(each.content_digest),
        )
    return found


def _admitted_since(connection: psycopg.Connection[Row], decision: Decision) -> bool:
    values = {"id": decision.skill_id, "digest": decision.content_digest, "at": decision.at}
    return connection.execute(_ADMITTED_SINCE, values).fetchone() is not None
