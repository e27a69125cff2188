"""Files with skills from users: what is accepted, what is refused, and the position of errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from atom_saas_sync.core.documents import (
    Problem,
    decode_text,
    read_object,
    read_one,
    read_skills,
    read_value,
    skill_line,
)
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import CachedSkill
from atom_saas_sync.usecases.edit_skills import set_fields

SKILL = {"skill_id": "a", "name": "A", "code": "x", "metadata": {"n": 1.0}}
NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)
LINE = skill_line(CachedSkill("a", json.dumps(SKILL), "edited", NOON, stale=False), SKILL)
WRAPPED = {**LINE, "skill": SKILL}
# Skills with fields of these names.
OWN_SKILL_FIELD = {"skill_id": "b", "name": "B", "skill": {"skill_id": "c", "name": "C"}}
OWN_FACTS = {"skill_id": "b", "name": "B", "source": "https://example.com", "confirmed_at": 7, "stale": "no"}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (SKILL, [SKILL]),
        ([SKILL, OWN_SKILL_FIELD], [SKILL, OWN_SKILL_FIELD]),
        ({"skills": [SKILL], "total": 1}, [SKILL]),
        ({"skill_id": "s", "name": "S", "skills": ["swim"]}, [{"skill_id": "s", "name": "S", "skills": ["swim"]}]),
        (WRAPPED, [SKILL]),
        ([WRAPPED, WRAPPED], [SKILL, SKILL]),
        ({"success": True, "skill": SKILL}, [SKILL]),
        ({"skill": SKILL}, [SKILL]),
        ({**LINE, "success": True, "skill": OWN_SKILL_FIELD}, [OWN_SKILL_FIELD]),
        (OWN_SKILL_FIELD, [OWN_SKILL_FIELD]),
        (OWN_FACTS, [OWN_FACTS]),
    ],
)
def test_output_of_our_own_commands_is_unwrapped(document: Any, found: list[Any]) -> None:
    for text in (json.dumps(document), json.dumps(document, indent=2), f"\n\n {json.dumps(document)}\n"):
        assert [json.loads(raw) for _, raw in read_skills(text, "f")] == found
    if isinstance(document, dict) and "skills" not in document:
        assert json.loads(read_one(json.dumps(document), "f")) == found[0]
        lines = f"{json.dumps(document)}\n\n{json.dumps(document)}\r\n"
        assert [(place, json.loads(raw)) for place, raw in read_skills(lines, "f")] == [
            ("f, line 1", found[0]),
            ("f, line 3", found[0]),
        ]


def test_values_keep_their_spelling() -> None:
    text = '{"skills": [{"name": "a", "n": 1.50e2, "big": 123456789012345678901234567890}]}'
    assert [raw for _, raw in read_skills(text, "f")] == [
        b'{"name": "a", "n": 1.50e2, "big": 123456789012345678901234567890}'
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "f is empty"),
        (" \n\t", "f is empty"),
        ("[]", "f contains no skills"),
        ('{"skills": [], "total": 0}', "f contains no skills"),
        ('{"skills": 5}', "f contains no skills: expected an object or a list of objects"),
        ('"text"', "f contains no skills: expected an object or a list of objects"),
        (json.dumps(LINE), "f is a summary"),
        (json.dumps({"skills": [SKILL, LINE]}), "f, entry 2 is a summary"),
        (json.dumps({**LINE, "code": "x"}), "f is a summary"),
        (json.dumps({**WRAPPED, "code": "x"}), "f wraps a skill, with code beside it"),
        (json.dumps({**WRAPPED, "skill": "no JSON"}), "f: the skill in it is not a JSON object"),
        ('{\n  "name": "a",\n  "tags": [1 2]\n}', "f is not valid JSON: Expecting ',' delimiter, line 3, column 14"),
        ('[\n{"name": "a"},\n{"name" "b"}\n]', "f is not valid JSON: Expecting ':' delimiter, line 3, column 9"),
        ('{"name": "a"} x', "f is not valid JSON: Extra data, line 1, column 15"),
        (
            '{"name": "a"}\n{"name": "b", 5}\n',
            "f, line 2 is not valid JSON: Expecting property name enclosed in double quotes",
        ),
        ('{"name": "a", "n": NaN}', "line 1, column 20"),
        ('{"name": "a",\n"n": -Infinity}', "line 2, column 7"),
        ('{"name": "a", "n": 1e400}', "Number out of range"),
        ('{"name":\n"\\ud83d"}', "an incomplete surrogate pair, line 2, column 2"),
        ('{"name": "\udc80"}', "a lone surrogate U+DC80, line 1, column 11"),
        ("[" * 5000, "f is not valid JSON"),
        ("[" * 50_000 + "]" * 50_000, "nested too deeply"),
    ],
)
def test_errors_name_the_position(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(read_skills(text, "f"))
    assert says in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    with pytest.raises(UsageError):
        read_one(text, "f")


def test_many_bad_lines_are_counted() -> None:
    with pytest.raises(UsageError) as caught:
        list(read_skills('{"name": "a"}\n' + '{"name": }\n' * 25, "f"))
    lines = caught.value.message.splitlines()
    assert lines[0].startswith("f, line 2 is not valid JSON: Expecting value, column 10")
    assert (len(lines), lines[-1]) == (11, "… and 15 more")


@pytest.mark.parametrize("data", [b'{"name": "\xff"}', "é".encode("latin-1"), b"\xed\xa0\x80", "{}".encode("utf-16")])
def test_bytes_that_are_not_utf_8_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"f is not valid UTF-8: byte 0x.. at offset \d+, line 1"):
        decode_text(data, "f")


def test_a_byte_order_mark_is_taken() -> None:
    assert decode_text("\ufeff{}".encode(), "f") == "{}"
    assert read_object("\ufeff{}".encode(), "f") == {}
    with pytest.raises(UsageError, match="f is not a JSON object"):
        read_object(b"[]", "f")


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "Infinity", "1e400", '{"a": [NaN]}', "[-1e999]", '"\\ud83d"', "\udcff"]
)
def test_a_value_that_json_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(Problem):
        read_value(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("1.5", 1.5),
        ('["a"]', ["a"]),
        ("plain text", "plain text"),
        ('"NaN"', "NaN"),
        ("", ""),
        ("nan", "nan"),
    ],
)
def test_a_value_is_json_or_else_text(text: str, value: object) -> None:
    assert read_value(text) == value


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("descripton", "did you mean 'description'?"),
        ("tag", "did you mean 'tags'?"),
        ("Code", "'code'"),
        ("zzz", "'zzz'"),
    ],
)
def test_an_unknown_field_needs_new_field(name: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        set_fields(json.dumps(SKILL), {name: "x"})
    assert says in caught.value.message
    assert "--new-field" in (caught.value.hint or "")
    assert json.loads(set_fields(json.dumps(SKILL), {name: "x"}, new_fields=True))[name] == "x"


def test_fields_of_the_contract_and_of_the_skill_are_known() -> None:
    known = {"command": "c", "python_packages": [], "examples": [], "parameters": {}, "metadata": {}, "own": 2}
    assert json.loads(set_fields(json.dumps({**SKILL, "own": 1}), known)) == {**SKILL, **known}


def test_a_file_of_millions_of_values_is_refused_before_it_is_decoded() -> None:
    for text in (
        f"[{'1,' * 3_000_000}1]",
        f'{{"skills":[{"[]," * 2_000_000}[]]}}',
        f"{'{}' + chr(10)}[{'{},' * 2_000_000}1]",
    ):
        with pytest.raises(UsageError, match="too much memory"):
            list(read_skills(text, "file"))


@pytest.mark.parametrize(
    ("text", "says"), [('{"a":' * 101 + "1" + "}" * 101, "nested deeper than 100 levels"), ("[1]", "not a JSON object")]
)
def test_a_stored_text_that_is_no_skill_has_no_fields_to_set(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        set_fields(text, {"code": "x"})
    assert "skills revert" in (caught.value.hint or "")
