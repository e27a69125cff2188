"""`skills search`, `--category` and `--tag`, in any script and for texts of any program."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conftest import Machine
from search_material import FOUND, SKILLS

from atom_saas_sync.model import SkillFilter
from atom_saas_sync.store.sqlite import migrations
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.reading import Reading
from atom_saas_sync.store.sqlite.search_index import have_tokens

SORTS: tuple[Any, ...] = ("name", "updated", "rating")
NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)


def test_the_upgrade_indexes_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "atom.db"
    Database.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name, fields in SKILLS.items():
            row = name, json.dumps({"skill_id": name, **fields})
            connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)", row)
    with Database.open(path) as database:
        migrations.downgrade(database, "0004_ratings")
        expression = "SELECT count(*) FROM skill_fts WHERE skill_fts MATCH '\"导出\"'"
        assert database.connection.execute(expression).fetchone()[0] == 0
    with Database.open(path) as database:
        reading = Reading(database, now=NOW)
        found = {text: sorted(each.skill_id for each in reading.search(text, SkillFilter())[0]) for text in FOUND}
    assert found == FOUND


def test_whether_a_text_has_tokens_is_what_sqlite_says() -> None:
    texts = ["&", "天", "🔥", "a", "\u3099", "é", "1", "_"]
    assert have_tokens(texts) == [False, True, False, True, True, True, True, False]
    assert have_tokens(["&", "a", "_"]) == [False, True, False]


def test_the_command_finds_words_in_any_script(machine: Machine) -> None:
    for name in ("report", "hot"):
        machine.sandbox.put_skill({"skill_id": name, **SKILLS[name]})
    machine.pull()
    for words, skill_id in ((("导出",), "report"), (("🔥", "Hot", "deals"), "hot")):
        result = machine.command("skills", "search", "--json", "--", *words)
        assert [each["skill_id"] for each in json.loads(result.stdout)["skills"]] == [skill_id], result.stderr
