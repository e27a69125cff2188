"""What `skills search`, `--category` and `--tag` find, in any script and whoever wrote the skill."""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.core.canonical import version_from_fields
from atom_saas_sync.core.plan import plan_listed
from atom_saas_sync.model import SkillFilter
from atom_saas_sync.store.sqlite import migrations
from atom_saas_sync.store.sqlite.catalogue import Catalogue
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.reading import Reading
from atom_saas_sync.store.sqlite.search_index import have_tokens

SORTS: tuple[Any, ...] = ("name", "updated", "rating")
NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
SKILLS: dict[str, dict[str, Any]] = {
    "report": {"name": "用Excel导出报表", "tags": ["天气", "数据\t分析"]},
    "pdf": {"name": "PDF & Excel", "category": "École"},
    "map": {"name": "Places - Mapbox", "tags": ['a "quoted" tag']},
    "hot": {"name": "🔥 Hot deals"},
    "b": {"name": "B ✔", "description": "first\0behind"},
    "thai": {"name": "ระบบนี้ช่วยค้นหาเที่ยวบิน"},
    "crab": {"name": "ปู"},
    "kana": {"name": "データを解析するツール"},
    "hangul": {"name": "PDF로 보고서작성"},
    "khmer": {"name": "ភាសាខ្មែរ"},
    "myanmar": {"name": "မြန်မာဘာသာ"},
    "lao": {"name": "ພາສາລາວ"},
    "composed": {"name": unicodedata.normalize("NFC", "ガイドcafé")},
    "decomposed": {"name": unicodedata.normalize("NFD", "ガイドcafé")},
    "code": {"name": "x", "code": "# 计算总和\nprint('\\u0000')\n" + "pass\n" * 60 + "# 结束"},
}
# What is searched for, and which skills it finds.
FOUND = {
    "Excel": ["pdf", "report"],
    "excel 导出": ["report"],
    "导出": ["report"],
    "出报": ["report"],
    "报表导出": [],
    "用Exc": ["report"],
    "天气": ["report"],
    "分析": ["report"],
    "u5929": [],
    "PDF & Excel": ["pdf"],
    "Places - Mapbox": ["map"],
    "quoted": ["map"],
    "🔥 Hot": ["hot"],
    "❤️ hot": ["hot"],
    "B ✔": ["b"],
    "behind": ["b"],
    "✔": ["b"],
    "✔\ufe0f": ["b"],
    "&": ["pdf"],
    "- &": [],
    "ค้นหา": ["thai"],
    "เที่ยวบิน": ["thai"],
    "ปี": [],  # another vowel than in "crab"
    "解析": ["kana"],
    "ール": ["kana"],
    "보고서": ["hangul"],
    "작성": ["hangul"],
    "pdf 보고": ["hangul"],
    "ខ្មែរ": ["khmer"],
    "ဘာသာ": ["myanmar"],
    "ລາວ": ["lao"],
    "ガイド": ["composed", "decomposed"],
    unicodedata.normalize("NFD", "ガイド"): ["composed", "decomposed"],
    "CAFE": ["composed", "decomposed"],
    "计算 结束": ["code"],
    "u0000": ["code"],
}


def write_as_a_sync(path: Path) -> None:
    with Database.open(path) as database, Catalogue(database).batch() as batch:
        versions = [version_from_fields(name, {"skill_id": name, **fields}) for name, fields in SKILLS.items()]
        batch.known(SKILLS)
        batch.apply([plan_listed(None, version, "merge", now=NOW) for version in versions], NOW)


def write_as_another_program(path: Path, *, escaped: bool = True) -> None:
    Database.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name, fields in SKILLS.items():
            connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, '{}')", (name,))
            connection.execute(
                "UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?",
                (json.dumps({"skill_id": name, **fields}, ensure_ascii=escaped), name),
            )


def write_unescaped(path: Path) -> None:
    write_as_another_program(path, escaped=False)


def write_before_the_upgrade(path: Path) -> None:
    write_as_another_program(path)
    with Database.open(path) as database:
        migrations.downgrade(database, "0004_ratings")
        expression = "SELECT count(*) FROM skill_fts WHERE skill_fts MATCH '\"导出\"'"
        assert database.connection.execute(expression).fetchone()[0] == 0


@pytest.fixture(
    params=[write_as_a_sync, write_as_another_program, write_unescaped, write_before_the_upgrade],
    ids=lambda write: write.__name__,
)
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reading]:
    path = tmp_path / "atom.db"
    request.param(path)
    with Database.open(path) as database:
        yield Reading(database, now=NOW)


def test_every_word_is_found_whoever_wrote_it(reading: Reading) -> None:
    found = {text: sorted(skill.skill_id for skill in reading.search(text, SkillFilter())[0]) for text in FOUND}
    assert found == FOUND
    assert {text: reading.search(text, SkillFilter())[1] for text in FOUND} == {
        text: len(ids) for text, ids in FOUND.items()
    }


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (SkillFilter(category="ÉCOLE"), ["pdf"]),
        (SkillFilter(category=unicodedata.normalize("NFD", "éCOLE")), ["pdf"]),
        (SkillFilter(category="ecole"), []),
        (SkillFilter(tag="天气"), ["report"]),
        (SkillFilter(tag="数据\t分析"), ["report"]),
        (SkillFilter(tag='A "QUOTED" TAG'), ["map"]),
    ],
)
def test_names_of_categories_and_tags_are_compared_without_case(
    reading: Reading, wanted: SkillFilter, found: list[str]
) -> None:
    assert [skill.skill_id for skill in reading.list_skills(wanted)] == found
    assert reading.count(wanted) == len(found)
    assert reading.search("PDF & Excel 用 Places", wanted) == ([], 0)
    word = {"pdf": "excel", "report": "导出", "map": "mapbox"}
    for skill_id in found:
        assert reading.search(word[skill_id], wanted)[1] == 1


def test_whether_a_text_has_tokens_is_what_sqlite_says() -> None:
    texts = ["&", "天", "🔥", "a", "\u3099", "é", "1", "_"]
    assert have_tokens(texts) == [False, True, False, True, True, True, True, False]
    assert have_tokens(["&", "a", "_"]) == [False, True, False]


def test_a_long_text_of_another_program_is_indexed_whole(tmp_path: Path) -> None:
    path = tmp_path / "atom.db"
    Database.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        skill = {"name": "long", "code": "天气预报" * 20_000 + "结束"}
        connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('long', ?)", (json.dumps(skill),))
    with Database.open(path) as database:
        assert Reading(database, now=NOW).search("报结束", SkillFilter())[1] == 1


def test_lists_sort_by_what_values_mean(tmp_path: Path) -> None:
    path = tmp_path / "atom.db"
    Database.open(path).close()
    skills: dict[str, dict[str, Any]] = {
        "a": {"name": "ÉCLAIR", "updated_at": "2026-01-01T23:00:00-05:00", "average_rating": 4.5},
        "b": {"name": "apple", "updated_at": "2026-01-02T03:00:00Z", "average_rating": 10**400},
        "c": {"name": "éa", "updated_at": "yesterday", "average_rating": 5},
        "d": {"name": "zebra", "updated_at": "2026-01-02T00:30:00+09:00", "average_rating": "best"},
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executemany(
            "INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)",
            [(name, json.dumps(fields)) for name, fields in skills.items()],
        )
        connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('e', 'no JSON')")
    with Database.open(path) as database:
        reading = Reading(database, now=NOW)
        lists = {
            sort: "".join(each.skill_id for each in reading.list_skills(SkillFilter(), sort=sort)) for sort in SORTS
        }
    assert lists == {"name": "ebdca", "updated": "abdce", "rating": "cabde"}


def test_the_command_finds_words_in_any_script(machine: Machine) -> None:
    for name in ("report", "hot"):
        machine.sandbox.put_skill({"skill_id": name, **SKILLS[name]})
    machine.pull()
    for words, skill_id in ((("导出",), "report"), (("🔥", "Hot", "deals"), "hot")):
        result = machine.command("skills", "search", "--json", "--", *words)
        assert [each["skill_id"] for each in json.loads(result.stdout)["skills"]] == [skill_id], result.stderr
