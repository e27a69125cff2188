"""Searches and filters in any script and for texts of any program, and the order of lists."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from search_material import FOUND, SKILLS
from store_rooms import Rooms, skill
from store_worlds import Databases

from atom_saas_sync.model import SkillFilter

SORTS: tuple[Any, ...] = ("name", "updated", "rating")


def as_a_sync(store: Rooms) -> None:
    store.show(*(skill(name, **fields) for name, fields in SKILLS.items()))


def as_another_program(store: Rooms, *, escaped: bool = True) -> None:
    for name, fields in SKILLS.items():
        store.others.write_skill(name, "{}")
        store.others.write_skill(name, json.dumps({"skill_id": name, **fields}, ensure_ascii=escaped))


def unescaped(store: Rooms) -> None:
    as_another_program(store, escaped=False)


@pytest.fixture(params=[as_a_sync, as_another_program, unescaped], ids=lambda write: write.__name__)
def filled(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Rooms]:
    fill: Callable[[Rooms], None] = request.param
    rooms = databases.new(tmp_path, fill)
    yield rooms
    rooms.close()


def test_every_word_is_found_even_if_another_program_wrote_it(filled: Rooms) -> None:
    reading = filled.reading()
    found = {text: sorted(each.skill_id for each in reading.search(text, SkillFilter())[0]) for text in FOUND}
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
    filled: Rooms, wanted: SkillFilter, found: list[str]
) -> None:
    reading = filled.reading()
    assert [each.skill_id for each in reading.list_skills(wanted)] == found
    assert reading.count(wanted) == len(found)
    assert reading.search("PDF & Excel 用 Places", wanted) == ([], 0)
    word = {"pdf": "excel", "report": "导出", "map": "mapbox"}
    for skill_id in found:
        assert reading.search(word[skill_id], wanted)[1] == 1


def test_a_long_text_of_another_program_is_found_whole(store: Rooms) -> None:
    store.others.write_skill("long", json.dumps({"name": "long", "code": "天气预报" * 20_000 + "结束"}))
    assert store.reading().search("报结束", SkillFilter())[1] == 1


def test_a_text_of_a_megabyte_is_found_by_its_name(store: Rooms) -> None:
    words = " ".join(f"{number:x}" for number in range(150_000))
    store.show(skill("big", name="Needle", code=words))
    assert store.reading().search("needle", SkillFilter())[1] == 1
    assert store.reading().search("1000", SkillFilter())[1] == 1


def test_a_long_description_and_a_long_name_are_found(store: Rooms) -> None:
    """PostgreSQL keeps them in the row, which has room for some thousand bytes."""
    many = " ".join(f"word{number}" for number in range(5000))
    store.show(skill("description", name="Short", description=many), skill("name", name=f"Long {many}"))
    assert store.reading().search("word4999 word1", SkillFilter())[1] == 2
    assert [each.skill_id for each in store.reading().search("long word7", SkillFilter())[0]] == ["name"]


def test_lists_sort_by_what_values_mean(store: Rooms) -> None:
    skills: dict[str, dict[str, Any]] = {
        "a": {"name": "ÉCLAIR", "updated_at": "2026-01-01T23:00:00-05:00", "average_rating": 4.5},
        "b": {"name": "apple", "updated_at": "2026-01-02T03:00:00Z", "average_rating": 10**400},
        "c": {"name": "éa", "updated_at": "yesterday", "average_rating": 5},
        "d": {"name": "zebra", "updated_at": "2026-01-02T00:30:00+09:00", "average_rating": "best"},
    }
    for name, fields in skills.items():
        store.others.write_skill(name, json.dumps(fields))
    store.others.write_skill("e", "no JSON")
    reading = store.reading()
    lists = {sort: "".join(each.skill_id for each in reading.list_skills(SkillFilter(), sort=sort)) for sort in SORTS}
    assert lists == {"name": "ebdca", "updated": "abdce", "rating": "cabde"}


@pytest.mark.parametrize(
    "text", ['{"name": "\\u0000"}', '{"name": "\\ud800"}', "[]", "null", "{", '{"name": {"a": 1}}']
)
def test_one_odd_text_hides_no_other(store: Rooms, text: str) -> None:
    store.show(skill("a", name="Alpha"))
    store.others.write_skill("odd", text)
    reading = store.reading()
    assert sorted(each.skill_id for each in reading.list_skills(SkillFilter())) == ["a", "odd"]
    assert reading.search("alpha", SkillFilter())[1] == 1
    found = reading.skill("odd")
    assert found is not None
    assert found.text == text


def test_replaced_and_removed_text_is_not_found(store: Rooms) -> None:
    store.show(skill("a", name="Alpha"), skill("b", name="Beta"))
    store.others.write_skill("a", json.dumps({"name": "Gamma"}))
    store.show(skill("b", name="Delta"))
    found = {word: store.reading().search(word, SkillFilter())[1] for word in ("alpha", "beta", "gamma", "delta")}
    assert found == {"alpha": 0, "beta": 0, "gamma": 1, "delta": 1}


def test_names_come_before_other_words(store: Rooms) -> None:
    store.show(
        skill("code", name="x", code="needle"),
        skill("description", name="y", description="a needle"),
        skill("name", name="Needle"),
    )
    found = [each.skill_id for each in store.reading().search("needle", SkillFilter())[0]]
    assert found == ["name", "description", "code"]
