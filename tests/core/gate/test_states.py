"""The state of a served skill, from its stored data."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from atom_saas_sync.core.canonical import content_digest, exec_digest
from atom_saas_sync.core.gate.states import STATES, is_good, state_of
from atom_saas_sync.core.gate.stored import ServedSkill

FIELDS = {"skill_id": "s", "code": "1"}
TEXT = json.dumps(FIELDS).encode()
RESPELLED = json.dumps(FIELDS, indent=1).encode()
OTHER = json.dumps({**FIELDS, "code": "2"}).encode()


def served(text: bytes = TEXT, **values: Any) -> ServedSkill:
    base = {
        "wire_digest": sha256(TEXT).digest(),
        "content_digest": content_digest(FIELDS),
        "exec_digest": exec_digest(FIELDS),
    }
    return ServedSkill("s", text, **{**base, **values})


@pytest.mark.parametrize(
    ("skill", "state"),
    [
        (served(), "ok"),
        (served(RESPELLED), "ok"),
        (served(is_waiting=True), "held"),
        (served(stale=True), "stale"),
        (served(stale=True, is_waiting=True), "stale"),
        (served(OTHER), "tampered"),
        (served(b"no JSON"), "tampered"),
        (served(is_forged=True), "tampered"),
        (served(OTHER, base_text=TEXT, is_waiting=True, stale=True), "edited"),
        (served(base_text=TEXT), "ok"),
        (served(TEXT, base_text=OTHER), "tampered"),
        (served(OTHER, wire_digest=None, content_digest=None, exec_digest=None), "edited"),
        (served(is_quarantined=True, is_forged=True), "quarantined"),
    ],
)
def test_the_state_of_what_is_served(skill: ServedSkill, state: str) -> None:
    assert state_of(skill, is_revoked=False, full=False) == state
    assert state_of(skill, is_revoked=False, full=True) == state
    assert state_of(skill, is_revoked=True, full=False) == "revoked"


def test_only_a_full_verification_hashes_unchanged_text_again() -> None:
    for wrong in (served(content_digest=b"x" * 32), served(exec_digest=b"x" * 32)):
        assert state_of(wrong, is_revoked=False, full=False) == "ok"
        assert state_of(wrong, is_revoked=False, full=True) == "tampered"


def test_which_states_are_good() -> None:
    assert {each for each in STATES if is_good(each, strict=True)} == {"ok", "stale", "held"}
    assert {each for each in STATES if is_good(each, strict=False)} == {"ok", "stale", "held", "edited"}
