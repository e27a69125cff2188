"""Ids that look alike, such as `pdf-reader` with a Cyrillic letter."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.resources import files

from atom_saas_sync.characters import without_hidden

_ROUNDS = 2


def skeleton(skill_id: str) -> str:
    """Return the skeleton of an id: two ids look alike if their skeletons are equal.

    That is the id after NFKC, case folding, and replacing each character by the one it is confusable with.
    """
    table = _table()
    text = unicodedata.normalize("NFKC", without_hidden(skill_id).strip()).casefold()
    for _ in range(_ROUNDS):  # the replacement may be a capital, or a letter with an accent
        text = unicodedata.normalize("NFD", text).translate(table).casefold()
    return text


def confusables_version() -> str:
    """Return the version of the table of confusable characters."""
    return _lines()[1].removeprefix("# Version: ")


@cache
def _lines() -> list[str]:
    return files(__package__).joinpath("confusables.txt").read_text(encoding="ascii").splitlines()


@cache
def _table() -> dict[int, str]:
    pairs = (line.split(";") for line in _lines() if not line.startswith("#"))
    return {int(source, 16): "".join(chr(int(each, 16)) for each in target.split()) for source, target in pairs}
