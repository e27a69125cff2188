"""Reading and editing skills: `skills list|search|show|edit|import|revert|diff`."""

from __future__ import annotations

import json
import shlex
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import Json, Machine
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.canonical import version_from_fields
from atom_saas_sync.core.gate.admission import admitted_before
from atom_saas_sync.core.plan import plan_listed
from atom_saas_sync.model import SkillFilter
from atom_saas_sync.store.sqlite.catalogue import Catalogue
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.reading import Reading, match_expression


@pytest.fixture
def synced(machine: Machine) -> Machine:
    for number, (name, words, tags) in enumerate(
        [
            ("Weather report", "forecast for tomorrow", ["weather", "api"]),
            ("Mail digest", "says what the weather was", ["mail"]),
            ("Wetter", "Ärger mit Umlauten; 天气预报", ["weather"]),
        ]
    ):
        machine.sandbox.put_skill(
            {
                "skill_id": f"known-{number}",
                "name": name,
                "description": words,
                "tags": tags,
                "category": "zz-known",
                "average_rating": number + 1,
                "updated_at": f"2026-01-0{3 - number}T00:00:00Z",
                "code": "print('\x1b[31mred')\n",
            }
        )
    machine.keep("known skills", machine.pull)
    return machine


def run_json(machine: Machine, *arguments: str) -> Json:
    result = machine.command(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    document: Json = json.loads(result.stdout)
    return document


def ids(document: Json) -> list[str]:
    return [skill["skill_id"] for skill in document["skills"]]


# Reading


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("list", "--category", "ZZ-known"), ["known-1", "known-0", "known-2"]),
        (("list", "--category", "zz-known", "--sort", "rating"), ["known-2", "known-1", "known-0"]),
        (("list", "--category", "zz-known", "--sort", "updated", "--limit", "1"), ["known-0"]),
        (("list", "--tag", "weather", "--category", "zz-known"), ["known-0", "known-2"]),
        (("search", "weather", "--category", "zz-known"), ["known-0", "known-2", "known-1"]),
        (("search", "weather", "forecast"), ["known-0"]),
        (("search", "arger umlaut"), ["known-2"]),
        (("search", "天气预报"), ["known-2"]),
        (("search", "weather", "--tag", "mail"), ["known-1"]),
        (("search", "weather", "--category", "zz-known", "--sort", "name"), ["known-1", "known-0", "known-2"]),
        (("search", "nosuchword"), []),
        (("list", "--modified"), []),
    ],
)
def test_list_and_search(synced: Machine, options: tuple[str, ...], found: list[str]) -> None:
    document = run_json(synced, "skills", *options)
    assert ids(document) == found
    assert document["total"] == (3 if "--limit" in options else len(found))


def test_lists_for_people(synced: Machine) -> None:
    result = synced.command("skills", "list", "--limit", "2")
    assert result.returncode == 0
    assert "2 of 63 skills, 61 more" in result.stderr
    assert synced.command("skills", "search", "nosuchword").stderr == "0 skills\n"


def test_show(synced: Machine) -> None:
    document = run_json(synced, "skills", "show", "known-0")
    assert document["skill"] == synced.cached()["known-0"]
    assert (document["source"], document["skill_id"]) == ("marketplace", "known-0")
    # Programs get the exact bytes of code; terminals get it without control characters.
    assert synced.command("skills", "show", "known-0", "--code").stdout == "print('\x1b[31mred')\n"
    assert "\x1b" not in synced.command("skills", "show", "known-0").stdout
    unknown = synced.command("skills", "show", "nothing")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no skill 'nothing'" in unknown.stderr


@given(st.text(max_size=40))
def test_no_text_breaks_the_search(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE skill_fts USING fts5(name, description, tags, category, code)")
    connection.execute("INSERT INTO skill_fts VALUES ('secret', '', '', '', '')")
    for wanted in (None, SkillFilter(tag=text, category=text)):
        expression = match_expression(text, wanted)
        if expression is not None:
            found = connection.execute("SELECT * FROM skill_fts WHERE skill_fts MATCH ?", (expression,)).fetchall()
            assert found in ([], [("secret", "", "", "", "")])
    connection.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"', 0),
        ("***", 0),
        ("qqq OR weather*", 0),
        ("weather NOT forecast", 0),
        ("NEAR(weather forecast)", 0),
        ("name:weather", 0),
        ('"weather" -forecast', 1),
        ("^weather", 3),
        ("x'); DROP TABLE skill_cache; --", 0),
        ("x" * 9999, 0),
    ],
)
def test_no_character_of_a_search_is_special(synced: Machine, text: str, found: int) -> None:
    result = synced.command("skills", "search", "--category", "zz-known", "--json", "--", text)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["total"] == found


def test_a_search_counts_what_it_finds_and_looks_only_at_the_best(tmp_path: Path) -> None:
    now = datetime(2026, 2, 19, tzinfo=UTC)
    with Database.open(tmp_path / "atom.db") as database:
        catalogue = Catalogue(database, history_versions=10)
        for start in range(0, 10_000, 5_000):
            versions = [
                version_from_fields(
                    f"s{number}",
                    {
                        "skill_id": f"s{number}",
                        "name": f"Skill {number}",
                        "description": f"the common words and number w{number % 301}",
                        "tags": [f"tag{number % 13}"],
                    },
                )
                for number in range(start, start + 5_000)
            ]
            with catalogue.batch() as batch:
                batch.known([version.skill_id for version in versions])
                batch.apply([plan_listed(None, admitted_before(version), "merge", now) for version in versions], now)
        reading = Reading(database, now=now)
        for text, total in (
            ("w7", 33),
            ("the skill", 10_000),
            ("common wor", 10_000),
            ("number", 10_000),
            ("w97 the", 33),
        ):
            # Counting takes some 26 steps for each; looking at each would take ten times as many.
            assert thousands_of_steps(database, reading, text, total) < 400, text


def thousands_of_steps(database: Database, reading: Reading, text: str, total: int) -> int:
    """The cost of a search in instructions of SQLite's virtual machine, independent of the machine's load."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    database.connection.set_progress_handler(step, 1000)
    skills, found = reading.search(text, SkillFilter(), limit=20)
    database.connection.set_progress_handler(None, 0)
    assert len(skills) == 20
    assert found >= total
    return steps


def test_reads_are_counted(synced: Machine) -> None:
    synced.sql("UPDATE skill_base SET confirmed_at = '2100-01-01T00:00:00Z'")
    run_json(synced, "skills", "show", "known-0")
    run_json(synced, "skills", "search", "umlaut")
    synced.command("skills", "show", "nothing")
    synced.sql("UPDATE skill_base SET confirmed_at = '2020-01-01T00:00:00Z'")
    synced.sql("UPDATE http_validator SET checked_at = '2020-01-01T00:00:00Z'")
    assert run_json(synced, "skills", "show", "known-0")["stale"] is True
    counted = dict(
        synced.sql(
            "SELECT json_extract(labels, '$.result'), value FROM counter WHERE name = 'atom_saas_cache_requests_total'"
        )
    )
    assert counted == {"hit": 2, "miss": 1, "stale": 1}
    assert synced.sql("SELECT hit_count FROM skill_cache WHERE skill_id = 'known-0'") == [(2,)]
    assert synced.sql("SELECT count(*) FROM skill_cache WHERE last_hit_at IS NOT NULL") == [(2,)]
    # Counting is no edit.
    assert run_json(synced, "skills", "list", "--modified")["total"] == 0


def test_reading_waits_for_no_writer(synced: Machine) -> None:
    with synced.database.writing("UPDATE skill_cache SET hit_count = 5"):
        for arguments, key, value in (
            (("skills", "show", "known-0"), "skill_id", "known-0"),
            (("skills", "search", "umlaut"), "total", 1),
        ):
            start = time.monotonic()
            assert run_json(synced, *arguments)[key] == value
            assert time.monotonic() - start < 10, "so long the database waits for a lock"
    assert synced.sql("SELECT sum(hit_count) FROM skill_cache") == [(0,)]


def test_text_that_is_not_json_is_shown_safely(synced: Machine) -> None:
    synced.sql("UPDATE skill_cache SET skill_data = 'no JSON \x1b[31m' WHERE skill_id = 'known-0'")
    result = synced.command("skills", "show", "known-0")
    assert result.returncode == 0
    assert "no JSON �[31m" in result.stdout
    assert "known-0" in ids(run_json(synced, "skills", "list", "--limit", "0"))


# Editing


def test_set_fields(synced: Machine) -> None:
    result = synced.command(
        "skills", "edit", "known-0", "--set", "code=x = 1", "--set", 'tags=["a", "b"]', "--set", "version=1.0"
    )
    assert (result.returncode, result.stdout) == (0, "known-0: edited\n")
    cached = synced.cached()["known-0"]
    assert (cached["code"], cached["tags"], cached["version"]) == ("x = 1", ["a", "b"], "1.0")
    assert ids(run_json(synced, "skills", "list", "--modified")) == ["known-0"]
    assert synced.sql("SELECT action, subject FROM audit_log") == [("skill edit", "known-0")]
    # The triggers handle it like any edit: no sync overwrites it, and search finds it.
    assert synced.pull().counts.updated == 0
    assert synced.cached()["known-0"] == cached
    assert ids(run_json(synced, "skills", "search", "--tag", "b", "weather")) == ["known-0"]


def test_an_edit_that_is_reversed_is_not_an_edit(synced: Machine) -> None:
    before = synced.cached()["known-0"]
    run_json(synced, "skills", "edit", "known-0", "--set", "code=other")
    document = run_json(synced, "skills", "diff", "known-0")
    assert document["fields"] == [{"name": "code", "from": before["code"], "to": "other"}]
    run_json(synced, "skills", "edit", "known-0", "--set", f"code={before['code']}")
    assert run_json(synced, "skills", "list", "--modified")["total"] == 0
    assert synced.cached()["known-0"] == before
    assert run_json(synced, "skills", "edit", "known-0", "--set", f"code={before['code']}")["changed"] is False


def test_revert(synced: Machine) -> None:
    before = synced.cached()["known-0"]
    run_json(synced, "skills", "edit", "known-0", "--set", "code=other")
    assert run_json(synced, "skills", "revert", "known-0")["changed"] is True
    assert synced.cached()["known-0"] == before
    assert run_json(synced, "skills", "revert", "known-0")["changed"] is False
    # Discarded edits can still be found.
    details = json.loads(synced.sql("SELECT details FROM audit_log WHERE action = 'skill revert'")[0][0])
    assert json.loads(details["replaced"])["code"] == "other"


def test_revert_does_not_resolve_an_open_conflict(synced: Machine) -> None:
    synced.edit("known-0", code="mine")
    synced.sandbox.patch_skill("known-0", {"code": "theirs"})
    synced.pull(strategy="manual")
    result = synced.command("skills", "revert", "known-0")
    assert result.returncode == 2
    assert "conflicts resolve 1 --strategy remote_wins" in result.stderr
    assert synced.cached()["known-0"]["code"] == "mine"


def test_by_editor_and_file(synced: Machine) -> None:
    script = synced.directory / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "path.write_text(path.read_text().replace('red', 'blue'))\n",
        encoding="utf-8",
    )
    result = synced.command("skills", "edit", "known-0", EDITOR=f"{sys.executable} {script}")
    assert (result.returncode, result.stdout) == (0, "known-0: edited\n")
    assert "blue" in synced.cached()["known-0"]["code"]
    whole = {**synced.cached()["known-0"], "description": "from a file"}
    assert synced.command("skills", "edit", "known-0", "--file", "-", stdin=json.dumps(whole)).returncode == 0
    assert synced.cached()["known-0"]["description"] == "from a file"


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("edit", "nothing", "--set", "code=x"), None, "no skill 'nothing'"),
        (("edit", "known-0", "--set", "code"), None, "FIELD=VALUE"),
        (("edit", "known-0", "--set", "tags=x"), None, "tags is not a list"),
        (("edit", "known-0", "--set", "skill_id=x"), None, "which skill this is"),
        (("edit", "known-0", "--set", "average_rating=5"), None, "follows the marketplace"),
        (
            ("edit", "known-0", "--file", "-"),
            "not JSON",
            "standard input is not valid JSON: Expecting value, line 1, column 1",
        ),
        (("edit", "known-0", "--file", "-"), '{"skill_id": "other", "name": "N"}', "another skill"),
        (("edit", "known-0", "--file", "-", "--set", "code=x"), None, "exclude"),
        (("edit", "known-0"), None, "no editor"),
        (("import", "nowhere.json"), None, "can't read"),
        (("import", "-"), '{"skill_id": "a", "name": "A"}\n{"skill_id": "b"}\n', "line 2 is not a skill: no name"),
        (("import", "-"), '[{"skill_id": "a", "name": "A"}, {"skill_id": "a", "name": "B"}]', "a second time"),
        (
            ("import", "-"),
            '{"skill_id": "../..", "name": "A"}\n{"skill_id": "..", "name": "A"}',
            "line 2 is not a skill",
        ),
        (("revert", "nothing"), None, "no skill 'nothing'"),
        (("diff", "known-0", "--from", "7.7.7"), None, "no version '7.7.7'"),
        (("diff", "nothing"), None, "no skill 'nothing'"),
        (("log", "nothing"), None, "no skill 'nothing'"),
        (("list", "--sort", "age"), None, "invalid --sort 'age'"),
    ],
)
def test_invalid_input_is_reported_and_changes_nothing(
    synced: Machine, arguments: tuple[str, ...], stdin: str | None, says: str
) -> None:
    before = [synced.sql(f"SELECT * FROM {table}") for table in ("skill_cache", "skill_base", "audit_log")]
    result = synced.command("skills", *arguments, stdin=stdin)
    assert (result.returncode, result.stdout) == (1 if says.startswith(("no skill", "no version")) else 2, "")
    assert says in result.stderr
    assert [synced.sql(f"SELECT * FROM {table}") for table in ("skill_cache", "skill_base", "audit_log")] == before


def test_import(synced: Machine) -> None:
    lines = [
        {"skill_id": "ours-1", "name": "Ours", "code": "1"},
        {"skill_id": "ours-2", "name": "Ours too"},
        {**synced.cached()["known-0"], "code": "imported", "average_rating": 5000},
        synced.cached()["known-1"],
    ]
    (synced.directory / "a.jsonl").write_text("\n".join(map(json.dumps, lines[:2])), encoding="utf-8")
    (synced.directory / "b.json").write_text(json.dumps({"skills": lines[2:]}, indent=1), encoding="utf-8")
    document = run_json(synced, "skills", "import", "a.jsonl", "b.json")
    assert document == {"success": True, "added": 2, "updated": 1, "unchanged": 1}
    cached = synced.cached()
    assert (cached["ours-1"], cached["known-0"]["code"]) == (lines[0], "imported")
    assert cached["known-0"]["average_rating"] == 1
    sources = dict(synced.sql("SELECT skill_id, source FROM usable_skill WHERE source != 'marketplace'"))
    assert sources == {"ours-1": "local", "ours-2": "local", "known-0": "edited"}
    synced.pull(force=True)
    assert synced.cached() == cached
    assert "exists only here" in synced.command("skills", "revert", "ours-1").stderr
    assert "exists only here" in synced.command("skills", "log", "ours-1").stdout


def test_printed_skills_can_be_imported_again(synced: Machine) -> None:
    whole = synced.cached()["known-0"]
    shown = synced.command("skills", "show", "known-0", "--json").stdout
    changed = shown.replace("forecast for tomorrow", "by pipe")
    assert synced.command("skills", "edit", "known-0", "--file", "-", stdin=changed).returncode == 0
    assert synced.cached()["known-0"] == {**whole, "description": "by pipe"}
    assert run_json_from(synced, shown, "skills", "import", "-")["updated"] == 1
    assert synced.cached()["known-0"] == whole
    # A line of a list has no code; importing it as a skill would remove the code.
    listed = synced.command("skills", "list", "--json").stdout
    for arguments in (("import", "-"), ("edit", "known-0", "--file", "-")):
        refused = synced.command("skills", *arguments, stdin=listed)
        assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
    assert synced.cached()["known-0"] == whole


def run_json_from(machine: Machine, stdin: str, *arguments: str) -> Json:
    result = machine.command(*arguments, "--json", stdin=stdin)
    assert result.returncode == 0, result.stderr
    document: Json = json.loads(result.stdout)
    return document


def test_a_decision_takes_what_show_prints(synced: Machine) -> None:
    synced.edit("known-0", code="mine")
    synced.sandbox.patch_skill("known-0", {"code": "theirs"})
    synced.pull(strategy="manual")
    shown = synced.command("skills", "show", "known-0", "--json").stdout
    summary = json.dumps({key: value for key, value in json.loads(shown).items() if key != "skill"})
    assert "summary" in synced.command("conflicts", "resolve", "1", "--data", "-", stdin=summary).stderr
    result = synced.command("conflicts", "resolve", "1", "--data", "-", stdin=shown.replace('"mine"', '"both"'))
    assert result.returncode == 0, result.stderr
    assert (synced.cached()["known-0"]["code"], "skill" in synced.cached()["known-0"]) == ("both", False)


@pytest.mark.parametrize("arguments", [("import", "-"), ("edit", "known-0", "--file", "-"), ("import", "file")])
def test_bytes_that_are_not_utf_8_are_refused_in_any_locale(synced: Machine, arguments: tuple[str, ...]) -> None:
    before = synced.sql("SELECT * FROM skill_cache")
    data = b'{"skill_id": "known-0", "name": "caf\xe9"}'
    (synced.directory / "file").write_bytes(data)
    for variables in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        result = subprocess.run(
            [sys.executable, "-m", "atom_saas_sync", "skills", *arguments],
            cwd=synced.directory,
            env=synced.environment(**variables),
            input=data,
            capture_output=True,
            check=False,
        )
        assert result.returncode == 2
        assert b"not valid UTF-8: byte 0xe9 at offset 36, line 1" in result.stderr
    assert synced.sql("SELECT * FROM skill_cache") == before


def test_set_reads_a_file_and_refuses_invalid_fields_and_numbers(synced: Machine) -> None:
    (synced.directory / "main.py").write_text("print('é')\n", encoding="utf-8")
    (synced.directory / "tags.json").write_text('["a", "b"]\n', encoding="utf-8")
    result = synced.command("skills", "edit", "known-0", "--set", "code=@main.py", "--set", "tags=@tags.json")
    assert result.returncode == 0, result.stderr
    before = synced.cached()["known-0"]
    assert (before["code"], before["tags"]) == ("print('é')\n", ["a", "b"])
    for change, says in (
        ("weight=NaN", "invalid --set weight"),
        ("parameters=[1e400]", "out of range"),
        ("descripton=x", "did you mean 'description'?"),
        ("code=@nowhere.py", "can't read nowhere.py: No such file"),
        ("x=" + "[" * 200 + "]" * 200, "deep"),
    ):
        refused = synced.command(
            "skills", "edit", "known-0", "--new-field" if change[0] in "wx" else "-q", "--set", change
        )
        assert (refused.returncode, refused.stdout) == (2, ""), change
        assert says in refused.stderr
    assert synced.cached()["known-0"] == before
    assert synced.command("skills", "edit", "known-0", "--new-field", "--set", "weight=1.5").returncode == 0
    assert synced.cached()["known-0"]["weight"] == 1.5


def test_numbers_are_shown_as_they_are(synced: Machine) -> None:
    skill = synced.cached()["known-0"]
    odd = {**skill, "download_count": 7406286, "share": 0.1234567, "average_rating": 10**400, "rating_count": -1}
    synced.sql("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'known-0'", json.dumps(odd))
    shown = synced.command("skills", "show", "known-0").stdout
    assert "download_count: 7406286\n" in shown
    assert "share: 0.1234567\n" in shown
    assert "rating" not in shown
    listed = run_json(synced, "skills", "list", "--modified", "--sort", "rating")["skills"][0]
    assert (listed["average_rating"], listed["rating_count"]) == (None, None)
    assert synced.command("skills", "list", "--limit", "0").returncode == 0


@pytest.mark.parametrize("odd", ["a b;c'd", "--help", "-x y"])
def test_suggested_commands_quote_ids(synced: Machine, odd: str) -> None:
    assert run_json_from(synced, json.dumps({"skill_id": odd, "name": "Odd"}), "skills", "import", "-")["added"] == 1
    result = synced.command("skills", "diff", "--from", "7.7.7", "--", odd)
    suggested = shlex.split(result.stderr.split("`")[1])
    assert suggested[:3] == ["atom-sync", "skills", "log"], result.stderr
    assert "Odd" in synced.command("skills", "show", *suggested[3:]).stdout
    assert synced.command(*suggested[1:]).returncode == 0


@pytest.mark.sqlite("a text that is nested too deep for a server to hold it as JSON")
def test_a_stored_text_that_is_nested_too_deep_is_not_edited_by_fields(synced: Machine) -> None:
    skill_id = next(iter(synced.cached()))
    synced.sql("UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?", '{"a":' * 101 + "1" + "}" * 101, skill_id)
    for words in (("--set", "code=x"), ("--code",)):
        result = synced.command("skills", "edit", skill_id, *words, EDITOR="true")
        assert result.returncode == 2
        assert "nested deeper than 100 levels" in result.stderr
        assert "skill_id" not in result.stderr
    assert synced.command("skills", "revert", skill_id).returncode == 0
    assert synced.command("skills", "edit", skill_id, "--set", "code=x").returncode == 0
