"""Revocations: the file, and what they match. Digests as people type them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atom_saas_sync.core.gate.digests import digest_text, digits_of, parse_digits, split_at_last, whole_digest
from atom_saas_sync.core.gate.revocations import describe, parse_revocations, revoked
from atom_saas_sync.core.gate.types import Revocation, Revocations
from atom_saas_sync.errors import ConfigError, UsageError

DIGEST = bytes(range(32))


def parse(*entries: Any) -> tuple[Revocation, ...]:
    return parse_revocations(json.dumps({"revocations": entries}).encode(), "revoked.json")


def test_the_four_forms_are_read_with_their_notes() -> None:
    entries = parse(
        {"id": "calc", "note": "steals keys"},
        {"id": "calc", "version": "1.0"},
        {"digest": digest_text(DIGEST)},
        {"publisher": "Bad Corp", "note": None},
    )
    assert [(each.skill_id, each.version, each.digest, each.publisher) for each in entries] == [
        ("calc", None, None, None),
        ("calc", "1.0", None, None),
        (None, None, DIGEST, None),
        (None, None, None, "Bad Corp"),
    ]
    assert [each.note for each in entries] == ["steals keys", None, None, None]
    assert {each.source for each in entries} == {"file"}
    assert [describe(each) for each in entries] == [
        "id calc",
        "id calc, version 1.0",
        f"digest sha256:{DIGEST.hex()}",
        "publisher Bad Corp",
    ]
    assert parse() == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "revoked.json: "),
        (b"[]", "not a JSON object"),
        (b"{}", "no list `revocations`"),
        (b'{"revocations": {}}', "no list `revocations`"),
        (b'{"revocations": [], "revoked": []}', "unknown key 'revoked'"),
        (b'{"revocations": [], "revocations": [{"id": "a"}]}', "key twice"),
        (b'{"revocations": ["calc"]}', "revocation 1: is not an object"),
        (b'{"revocations": [{"id": "a"}, {"ids": "b"}]}', "revocation 2: unknown key 'ids'"),
        (b'{"revocations": [{"note": "x"}]}', "revocation 1: expected an id, an id with a version, a digest, or a pu"),
        (b'{"revocations": [{"version": "1"}]}', "revocation 1: expected an id"),
        (b'{"revocations": [{"id": "a", "publisher": "b"}]}', "revocation 1: expected an id"),
        (b'{"revocations": [{"id": ""}]}', "revocation 1: id is not a string with a value"),
        (b'{"revocations": [{"id": null}]}', "revocation 1: id is not a string"),
        (b'{"revocations": [{"publisher": "\xe2\x80\x8b"}]}', "revocation 1: publisher is not a string with"),
        (b'{"revocations": [{"id": "a", "note": 1}]}', "revocation 1: note is not a string"),
        (b'{"revocations": [{"digest": "sha256:abc"}]}', "revocation 1: digest: invalid value 'sha256:abc'"),
    ],
)
def test_a_malformed_file_names_the_entry_and_the_key(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_revocations(data, "revoked.json")
    assert raised.value.message.startswith("revoked.json: ")
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("revocation", "matches"),
    [
        (Revocation(skill_id="calc"), True),
        (Revocation(skill_id="Calc"), False),
        (Revocation(skill_id="calc", version="1.0"), True),
        (Revocation(skill_id="calc", version=" 1.\u200b0"), True),
        (Revocation(skill_id="calc", version="1.1"), False),
        (Revocation(skill_id="other", version="1.0"), False),
        (Revocation(digest=DIGEST), True),
        (Revocation(digest=bytes(32)), False),
        (Revocation(publisher="ACME inc"), True),
        (Revocation(publisher="acme"), False),
        (Revocation(publisher="acme*"), False),
    ],
)
def test_a_revocation_matches_whole_values_and_a_publisher_in_any_case(
    revocation: Revocation, *, matches: bool
) -> None:
    others = (Revocation(skill_id="x"), Revocation(skill_id="calc", version="9"), Revocation(publisher="y"))
    found = revoked(Revocations((*others, revocation)), "calc", "1.0", DIGEST, "Acme Inc ")
    assert (found is revocation) is matches


def test_a_skill_without_a_publisher_is_hit_by_no_publisher() -> None:
    assert revoked(Revocations((Revocation(publisher="a"),)), "calc", "1.0", DIGEST, None) is None


def test_digests_are_typed_with_at_least_12_digits() -> None:
    text = digest_text(DIGEST)
    assert text == "sha256:" + DIGEST.hex()
    assert digits_of(text.upper().replace("SHA256", "sha256")) == DIGEST.hex()
    assert digits_of(DIGEST.hex()[:12]) == DIGEST.hex()[:12]
    assert [digits_of(each) for each in ("", DIGEST.hex()[:11], "g" * 12, DIGEST.hex() + "0", "sha256:")] == [None] * 5
    assert whole_digest(text) == whole_digest(DIGEST.hex()) == DIGEST
    assert [whole_digest(each) for each in (text[:-1], 7, None)] == [None] * 3
    with pytest.raises(UsageError, match="expected 12 to 64 hexadecimal digits"):
        parse_digits("abc")


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("calc", ("calc", None)),
        ("calc@1.0", ("calc", "1.0")),
        ("@acme/tool", ("@acme/tool", None)),
        ("@acme/tool@1.0", ("@acme/tool", "1.0")),
        ("a@b@c", ("a@b", "c")),
        ("calc@", ("calc", "")),
    ],
)
def test_an_argument_is_cut_at_its_last_at(argument: str, parts: tuple[str, str | None]) -> None:
    assert split_at_last(argument) == parts
