"""The lock file: its form, its entries, and comparing it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from verdict_table import version

from atom_saas_sync.core.gate.lock_file import ServedText, compare, lock_of, lock_text, locked, parse_lock
from atom_saas_sync.core.gate.types import Locked, LockFile
from atom_saas_sync.errors import ConfigError

ONE, TWO = version(), version(version="2", code="b")
HEX = "ab" * 32
ENTRY = {"version": "1", "content": f"sha256:{HEX}", "exec": f"sha256:{HEX}"}


def row(of: Any = ONE, source: Any = "marketplace", *, base: Any = None, text: str | None = None) -> ServedText:
    base = base or of
    return ServedText(of.skill_id, text or of.text, source, base.wire_digest, base.content_digest, base.exec_digest)


def document(**changes: Any) -> bytes:
    return json.dumps({"lock_version": 1, "marketplace": "https://m", "skills": {"a": ENTRY}, **changes}).encode()


def test_a_lock_file_has_a_skill_a_line_in_order_and_is_read_back() -> None:
    lock = lock_of([row(version(skill_id=name)) for name in ("b", "\u0430", "a", 'q"\n')], "https://m.example")
    text = lock_text(lock)
    lines = text.splitlines()
    assert [json.loads("{" + line.rstrip(",") + "}").popitem()[0] for line in lines[1:-1]] == [
        "a",
        "b",
        'q"\n',
        "\u0430",
    ]
    assert lines[0] == '{"lock_version": 1, "marketplace": "https://m.example", "skills": {'
    assert text.isascii()
    assert text.endswith("}}\n")
    assert parse_lock(text.encode(), "x") == lock
    assert json.loads(lock_text(LockFile("m", {}))) == {"lock_version": 1, "marketplace": "m", "skills": {}}
    assert compare(lock, lock.skills) == ()


def test_the_digests_are_those_of_the_text_that_is_served() -> None:
    assert locked(row()) == Locked("1", ONE.content_digest, ONE.exec_digest)
    stored = ServedText("s", ONE.text, "marketplace", ONE.wire_digest, b"c" * 32, b"e" * 32)
    assert locked(stored) == Locked("1", b"c" * 32, b"e" * 32), "stored digests are taken if the bytes are the same"
    tampered = row(TWO, base=ONE)
    assert locked(tampered) == Locked("2", TWO.content_digest, TWO.exec_digest)
    assert locked(row(TWO, "edited", base=ONE)) == Locked("2", TWO.content_digest, TWO.exec_digest, "edited")
    assert locked(ServedText("s", ONE.text, "local")) == Locked("1", ONE.content_digest, ONE.exec_digest, "local")
    assert locked(row(version(version=7))).version is None


def test_a_text_that_is_not_an_object_has_the_digest_of_its_bytes() -> None:
    broken = locked(row(text="not json \udcff"))
    assert broken.content == broken.exec
    assert (broken.version, broken.source) == (None, "edited")


def test_missing_different_and_extra_skills_are_distinguished() -> None:
    one, two = Locked("1", b"1" * 32, b"e" * 32), Locked("1", b"2" * 32, b"e" * 32)
    lock = LockFile("m", {"gone": one, "other": one, "same": one})
    found = compare(lock, {"same": one, "other": two, "new": two})
    assert [(each.skill_id, each.kind, each.locked, each.served) for each in found] == [
        ("gone", "missing", one, None),
        ("new", "extra", None, two),
        ("other", "different", one, two),
    ]
    edited = Locked("9", one.content, one.exec, "edited")
    assert compare(LockFile("m", {"same": one}), {"same": edited}) == (), "content counts, not where it came from"
    assert compare(LockFile("m", {"same": one}), {"same": Locked("1", one.content, b"x" * 32)}) != ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a lock file"),
        (b"[1]", "not a lock file: not a JSON object"),
        (document(lock_version=2), "lock_version: invalid value 2: expected 1"),
        (document(lock_version=True), "lock_version: invalid value True"),
        (document(marketplace=None), "marketplace is not a string"),
        (document(skills=[]), "skills is not an object"),
        (document(skill={}), "unknown key 'skill'"),
        (document(skills={"a": 1}), "'a' is not an object"),
        (document(skills={"a": {**ENTRY, "content": "sha256:ab"}}), "'a': content: invalid value 'sha256:ab'"),
        (document(skills={"a": {"version": "1", "content": HEX}}), "'a': exec: invalid value None"),
        (document(skills={"a": {**ENTRY, "version": 1}}), "'a': version is not a string or null"),
        (document(skills={"a": {**ENTRY, "source": "marketplace"}}), "'a': source: invalid value 'marketplace'"),
        (document(skills={"a": {**ENTRY, "digest": "x"}}), "'a': unknown key 'digest'"),
        (document()[:-2] + b', "a": {}}}', "key twice"),
    ],
)
def test_an_invalid_lock_file_names_the_skill_and_the_key(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_lock(data, "skills.lock")
    assert raised.value.message.startswith("skills.lock: ")
    assert message in raised.value.message


def test_digests_without_their_prefix_and_a_mark_at_the_beginning_are_read() -> None:
    entry = {"version": None, "content": HEX.upper(), "exec": "SHA256:" + HEX}
    lock = parse_lock(b"\xef\xbb\xbf" + document(skills={"a": entry}), "x")
    assert lock.skills["a"] == Locked(None, bytes.fromhex(HEX), bytes.fromhex(HEX))
