"""Texts that jsonb cannot hold, and so the Atom backend's own tables neither."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from atom_saas_sync.model import SkillVersion
from atom_saas_sync.store.postgresql.rows import Row

_ESCAPE = "\\u0000"
_REASON = f"contains {_ESCAPE}, which the Atom backend's table skill_cache cannot hold"
_UNFIT = """
    SELECT skill_id FROM unnest(%s::text[], %s::text[]) AS s (skill_id, document)
    WHERE atom_sync_jsonb(document) IS NULL AND EXISTS (
        SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE c.oid = to_regclass('public.skill_cache') AND c.relkind IN ('r', 'p')
            AND p.pronamespace = current_schema()::regnamespace)
"""
# Without tables of the backend there is a view of ours by that name, with triggers of its own.


def unfit(connection: psycopg.Connection[Row], versions: Iterable[SkillVersion]) -> dict[str, str]:
    """Return the skills whose text jsonb refuses, each with the reason; none if the backend's table is not shared."""
    texts = suspects(versions)
    if not texts:
        return {}
    rows = connection.execute(_UNFIT, (list(texts), list(texts.values())))
    return {row[0]: _REASON for row in rows}


def suspects(versions: Iterable[SkillVersion]) -> dict[str, str]:
    """Return the texts that jsonb may refuse, by skill: with a backslash before it, the escape is a good one."""
    return {each.skill_id: each.text for each in versions if _ESCAPE in each.text}
