"""Ids that look alike, by Unicode's table of confusable characters."""

from __future__ import annotations

import pytest

from atom_saas_sync.core.gate.lookalikes import confusables_version, skeleton


@pytest.mark.parametrize(
    "other",
    [
        "PDF-Reader",
        "\u0440df-reader",  # Cyrillic er
        "pdf\u2010reader",  # another hyphen
        "\uff50df-reader",  # full width
        "pdf-re\u0430der",  # Cyrillic a
        "pdf-\U0001d42beader",  # mathematical r
        "pdf-\u200breader",  # invisible: only an older database can contain it
        " pdf-reader",
    ],
    ids=ascii,
)
def test_ids_that_look_alike_have_the_same_skeleton(other: str) -> None:
    assert other != "pdf-reader"
    assert skeleton(other) == skeleton("pdf-reader")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tool-1", "tool-l"),
        ("tool-0", "tool-O"),
        ("modern", "modem"),
        ("caf\u00e9", "cafe\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("@acme/tool", "@\u0430cme/tool"),
        ("AI-tool", "ai-tool"),
        ("50kg", "50\u338f"),  # one character
        ("modern", "\u13b7odern"),  # a Cherokee letter that looks like a capital M
    ],
)
def test_digits_ligatures_and_accents_are_compared_as_they_look(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("pdf-reader", "pdf_reader"), ("pdf-reader", "pdf-readers"), ("acme/tool", "acme-tool"), ("cafe", "caf\u00e9")],
)
def test_ids_that_differ_visibly_do_not(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


def test_the_table_names_its_version() -> None:
    assert confusables_version() == "17.0.0"
