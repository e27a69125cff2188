"""The floor for a sync: receive the bytes, parse them once, write them in one pass; nothing else is done.

One kept-alive connection, 1,000 skills a page, the standard library's JSON scanner cutting each item out as it came,
SHA-256 of these bytes, one executemany and one transaction per page, WAL, synchronous=NORMAL, and a contentless FTS5
index over name, description, tags, category and code in the same transaction. Sequential, one process.

    python benchmarks/floor.py URL TOKEN DATABASE
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import sys
from hashlib import sha256
from urllib.parse import urlsplit


def cut(body: str) -> tuple[list[tuple[str, dict[str, object]]], int]:
    """Return each item of a page as its text and its fields, and the size of the list."""
    decoder = json.JSONDecoder()
    position = body.index("[", body.index('"skills"')) + 1
    items = []
    while True:
        while body[position] in " \n\r\t,":
            position += 1
        if body[position] == "]":
            break
        fields, end = decoder.raw_decode(body, position)
        items.append((body[position:end], fields))
        position = end
    return items, int(
        json.loads(body[: body.index("[", body.index('"skills"'))] + "[]" + body[position + 1 :])["total"]
    )


def main(url: str, token: str, path: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE skill (id INTEGER PRIMARY KEY, skill_id TEXT UNIQUE, data TEXT, digest BLOB)")
    database.execute("CREATE VIRTUAL TABLE fts USING fts5(name, description, tags, category, code, content='')")
    page, stored = 1, 0
    while True:
        connection.request(
            "GET", f"/api/v1/skills?page={page}&page_size=1000", headers={"Authorization": f"Bearer {token}"}
        )
        items, total = cut(connection.getresponse().read().decode())
        if not items:
            break
        rows, texts = [], []
        for number, (text, fields) in enumerate(items, stored + 1):
            rows.append((number, fields["skill_id"], text, sha256(text.encode()).digest()))
            tags = fields.get("tags")
            texts.append(
                (
                    number,
                    fields.get("name"),
                    fields.get("description"),
                    " ".join(tags) if isinstance(tags, list) else None,
                    fields.get("category"),
                    fields.get("code"),
                )
            )
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO skill VALUES (?, ?, ?, ?)", rows)
        database.executemany(
            "INSERT INTO fts (rowid, name, description, tags, category, code) VALUES (?, ?, ?, ?, ?, ?)", texts
        )
        database.execute("COMMIT")
        stored += len(items)
        page += 1
    assert stored == total, (stored, total)
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
