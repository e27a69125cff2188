"""The floor for a sync into a PostgreSQL server, and bare statements to compare with.

As benchmarks/floor.py: receive, parse once, SHA-256, and write each page of 1,000 in one transaction; here with the
words of the search made by the same tokeniser, three `INSERT … FROM unnest` and a GIN index over the words.

    python benchmarks/postgresql_floor.py URL TOKEN DATABASE_URL
"""

from __future__ import annotations

import http.client
import sys
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import psycopg
from floor import cut

from atom_saas_sync.store.postgresql.words import head, texts_of, words

TABLES = """
    CREATE TABLE skill (skill_id text COLLATE "C" PRIMARY KEY, data text NOT NULL, expires_at timestamptz,
        updated_at timestamptz);
    CREATE TABLE base (skill_id text COLLATE "C" PRIMARY KEY, digest bytea NOT NULL, page bigint);
    CREATE TABLE entry (skill_id text COLLATE "C" PRIMARY KEY, name text, version text, category text,
        head tsvector NOT NULL, words tsvector NOT NULL);
    ALTER TABLE skill ALTER data SET STORAGE EXTERNAL;
    ALTER TABLE entry ALTER head SET STORAGE PLAIN;
    ALTER TABLE entry ALTER words SET STORAGE EXTERNAL;
    CREATE INDEX ON skill (expires_at);
    CREATE INDEX ON base (page);
    CREATE INDEX ON entry USING gin (head);
    CREATE INDEX ON entry USING gin (words);
"""
_SKILLS = "INSERT INTO skill SELECT *, now() + interval '24 hours', now() FROM unnest(%b::text[], %b::text[])"
_BASES = "INSERT INTO base SELECT *, %s::bigint FROM unnest(%b::text[], %b::bytea[])"
_ENTRIES = """
    INSERT INTO entry SELECT skill_id, name, version, category, head::tsvector,
        array_to_tsvector(string_to_array(words, ' '))
    FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
        AS new (skill_id, name, version, category, head, words)
"""


def write(connection: psycopg.Connection[Any], page: int, items: list[tuple[str, dict[str, Any]]]) -> None:
    """Write one page in one transaction."""
    ids = [fields["skill_id"] for _, fields in items]
    texts = [texts_of(fields) for _, fields in items]
    with connection.pipeline(), connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute(_SKILLS, (ids, [text for text, _ in items]))
        connection.execute(_BASES, (page, ids, [sha256(text.encode()).digest() for text, _ in items]))
        columns = [[fields.get(name) for _, fields in items] for name in ("name", "version", "category")]
        connection.execute(
            _ENTRIES, (ids, *columns, [head(each) for each in texts], [" ".join(words(each)) for each in texts])
        )


def main(url: str, token: str, database: str) -> None:
    parts = urlsplit(url)
    market = http.client.HTTPConnection(parts.hostname or "", parts.port)
    page, stored = 1, 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA floor")
        connection.execute("SET search_path = floor")
        connection.execute(TABLES.encode())
        while True:
            headers = {"Authorization": f"Bearer {token}"}
            market.request("GET", f"/api/v1/skills?page={page}&page_size=1000", headers=headers)
            items, total = cut(market.getresponse().read().decode())
            if not items:
                break
            write(connection, page, items)
            stored += len(items)
            page += 1
    assert stored == total, (stored, total)


if __name__ == "__main__":
    main(*sys.argv[1:])
