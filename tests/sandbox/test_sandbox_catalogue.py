"""The generated catalogue resembles a real one, and a file is served unchanged."""

from __future__ import annotations

import gzip
import json
import statistics
from pathlib import Path

import pytest

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.catalogue import FileCatalogue, GeneratedCatalogue
from atom_saas_sync.times import format_time, parse_time


@pytest.fixture(scope="module")
def catalogue() -> GeneratedCatalogue:
    return GeneratedCatalogue(2000, seed=1)


def test_the_same_seed_gives_the_same_skills(catalogue: GeneratedCatalogue) -> None:
    twin, other = GeneratedCatalogue(2000, seed=1), GeneratedCatalogue(2000, seed=2)
    assert [twin.skill(index) for index in range(50)] == [catalogue.skill(index) for index in range(50)]
    assert not set(other.ids) & set(catalogue.ids)


def test_a_small_catalogue_is_the_beginning_of_a_large_one(catalogue: GeneratedCatalogue) -> None:
    small = GeneratedCatalogue(10, seed=1)
    assert [small.skill(index) for index in range(10)] == [catalogue.skill(index) for index in range(10)]


def test_skills_have_the_size_and_the_variety_of_real_ones(catalogue: GeneratedCatalogue) -> None:
    skills = [catalogue.skill(index) for index in range(2000)]
    sizes = sorted(len(json.dumps(skill)) for skill in skills)
    assert 4000 <= statistics.median(sizes) <= 6000
    assert sizes[-1] > 20_000
    assert len({skill["skill_id"] for skill in skills}) == 2000
    assert len({skill["category"] for skill in skills}) == 24
    assert {skill["command"].split()[0] for skill in skills} == {"prompt", "python", "bash", "node"}
    assert any(skill["python_packages"] for skill in skills)
    assert any(skill["npm_packages"] for skill in skills)
    assert any("examples" in skill for skill in skills)
    assert any("parameters" in skill for skill in skills)
    assert len({skill["version"] for skill in skills}) > 500
    assert any("\u202b" in skill["description"] for skill in skills)


def test_skills_are_complete_and_valid(catalogue: GeneratedCatalogue) -> None:
    for index in range(2000):
        skill = catalogue.skill(index)
        assert "@" not in skill["name"] + skill["description"] + skill["code"]
        json.dumps(skill, ensure_ascii=False).encode()
        created, updated = parse_time(skill["created_at"]), parse_time(skill["updated_at"])
        assert created is not None
        assert updated is not None
        assert created <= updated
        assert format_time(updated) == skill["updated_at"]
        assert (skill["average_rating"] is None) == (skill["rating_count"] == 0)
        assert skill["average_rating"] is None or 1 <= skill["average_rating"] <= 5
        summary = catalogue.summary(index)
        assert all(summary[key] == skill[key] for key in ("skill_id", "name", "description", "tags"))


def test_a_negative_number_of_skills_is_refused() -> None:
    with pytest.raises(UsageError):
        GeneratedCatalogue(-1, seed=1)


@pytest.mark.parametrize("name", ["skills.jsonl", "skills.jsonl.gz"])
def test_a_file_gives_its_skills_and_categories(tmp_path: Path, name: str) -> None:
    skills = [
        {"skill_id": "a", "name": "A", "category": "x", "odd": "\u2028\u0085"},
        {"skill_id": "b", "name": "B", "category": "y"},
        {"skill_id": "c", "name": "C", "category": "y"},
        {"skill_id": "d", "name": "D"},
    ]
    content = "\n".join(json.dumps(skill, ensure_ascii=False) for skill in skills).encode() + b"\n\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    catalogue = FileCatalogue(path)
    assert [catalogue.skill(index) for index in range(4)] == skills
    assert [category["name"] for category in catalogue.categories()] == ["y", "x"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"skill_id": "a"}\n{', "line 2"),
        (b"[]", "line 1"),
        (b'{"name": "a"}', "skill_id"),
        (b'{"skill_id": "a"}\n{"skill_id": "a"}', "more than once"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "skills.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        FileCatalogue(path)
