"""Facts about the capabilities of a skill's version."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from atom_saas_sync.characters import printable

Kind = Literal["hidden", "dynamic", "encoded", "command", "host", "env", "path", "package"]
KINDS: tuple[Kind, ...] = ("hidden", "dynamic", "encoded", "command", "host", "env", "path", "package")
"""All kinds, in the order in which reviewers see them."""

NOT_EXAMINED = "text after the first 1,000,000 characters was not examined"
_LONGEST_VALUE = 200


class Fact(Struct, frozen=True, order=True):
    """Something that a version can do."""

    kind: Kind
    value: str


class Capabilities(Struct, frozen=True):
    """The capabilities that an update adds and removes."""

    added: tuple[Fact, ...] = ()
    removed: tuple[Fact, ...] = ()


def fact(kind: Kind, value: str) -> Fact:
    """Return a fact with its value on one line, cut to 200 characters."""
    text = printable(" ".join(value[: 2 * _LONGEST_VALUE].split()))
    return Fact(kind, text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…")
