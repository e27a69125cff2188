"""Short ids in every command that takes an id."""

from __future__ import annotations

import json

import pytest
from conftest import Machine

from atom_saas_sync.cli.identify import whole_rating_id

IDS = ("invoice-reader", "invoice-writer", "invo", "café-menu", "100%_done")


@pytest.fixture
def some(machine: Machine) -> Machine:
    for skill_id in IDS:
        machine.sandbox.put_skill({"skill_id": skill_id, "name": f"The {skill_id}", "version": "1.0"}, push=False)
    machine.pull()
    return machine


def test_the_store_finds_ids_by_their_beginning(some: Machine) -> None:
    some.sandbox.delete_skill("invoice-writer", push=False)
    some.pull()
    some.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('invoice-scanner', 'ada', 5)")
    with some.store() as store:
        current, former = store.ids().skills_from("invo", limit=9)
        assert current == {"invo": "The invo", "invoice-reader": "The invoice-reader"}
        assert list(former) == ["invoice-scanner", "invoice-writer"]
        assert store.ids().skills_from("invo", limit=1)[0] == {"invo": "The invo"}
        assert list(store.ids().skills_from("100%", limit=9)[0]) == ["100%_done"]
        assert list(store.ids().skills_from("caf", limit=9)[0]) == ["café-menu"]
        assert store.ids().skills_from("Invoice", limit=9) == ({}, {})


def test_commands_take_a_beginning_of_an_id(some: Machine) -> None:
    edited = some.command("skills", "edit", "invoice-r", "--set", "description=mine")
    assert edited.stdout == "invoice-reader: edited\n"
    assert "+mine" in some.command("skills", "diff", "invoice-r").stdout
    assert some.command("skills", "revert", "invoice-r").stdout == "invoice-reader: reverted\n"
    rated = json.loads(some.command("ratings", "add", "invoice-w", "4", "--json").stdout)
    assert rated["rating"]["skill_id"] == "invoice-writer"


def test_ratings_have_short_ids_too(some: Machine) -> None:
    for rating_id in ("abcd-1", "abcd-2"):
        some.sql(
            "INSERT INTO skill_ratings (id, skill_id, user_id, rating) VALUES (?, ?, 'ada', 5)",
            rating_id,
            f"s{rating_id}",
        )
    shown = json.loads(some.command("ratings", "show", "abcd-2", "--json").stdout)
    assert shown["rating"]["id"] == "abcd-2"
    refused = json.loads(some.command("ratings", "show", "abcd", "--json").stdout)
    assert refused["error"]["message"] == "'abcd' is ambiguous, it could be: abcd-1 (sabcd-1), abcd-2 (sabcd-2)"
    some.sql("UPDATE skill_ratings SET id = 'bcde-1' WHERE id = 'abcd-1'")
    with some.store() as store:
        assert [whole_rating_id(store, given) for given in ("abcd", "bcde", "abc")] == ["abcd-2", "bcde-1", "abc"]


def test_an_ambiguous_or_too_short_beginning_is_refused(some: Machine) -> None:
    assert json.loads(some.command("skills", "show", "invo", "--json").stdout)["skill_id"] == "invo"
    refused = some.command("skills", "show", "invoice", "--json")
    assert refused.returncode == 1
    error = json.loads(refused.stdout)["error"]
    assert error["type"] == "ambiguous"
    assert "invoice-reader (The invoice-reader), invoice-writer (The invoice-writer)" in error["message"]
    assert refused.stderr.splitlines()[-2].startswith("atom-sync: 'invoice' is ambiguous")
    for words in (("ratings", "add", "invoice", "3"), ("conflicts", "list", "--skill", "invoice")):
        assert some.command(*words).returncode == 1
    assert some.sql("SELECT count(*) FROM skill_rating") == [(0,)]
    short = some.command("skills", "show", "inv", "--json")
    assert json.loads(short.stdout)["error"]["type"] == "not_found"
