"""Text for people: foreign text without control, invisible or bidirectional characters; correct plurals."""

from __future__ import annotations

import re

# Unicode 16.0.0, DerivedCoreProperties.txt, Default_Ignorable_Code_Point. `str.isprintable` accepts many of them.
DEFAULT_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Invisible characters, as the content of a character class in a regular expression."""

# The Braille blank is a letter in Unicode, but looks like a space.
_HIDDEN = f"[{DEFAULT_IGNORABLE}\u2800]"
_LONGEST_ID = 80


def is_shown(character: str) -> bool:
    """Tell whether a character is visible and does not affect others."""
    return character.isprintable() and re.match(_HIDDEN, character) is None


def printable(text: str, *, lines: bool = False) -> str:
    """Return foreign text safe for a terminal: unprintable characters are replaced.

    With `lines`, line breaks stay and tabs become spaces.
    """
    if lines:
        return "\n".join(printable(line) for line in text.expandtabs(4).split("\n"))
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "�" for character in text)
    return text if text.isascii() else re.sub(_HIDDEN, "�", text)


def without_hidden(text: str) -> str:
    """Return foreign text without the characters that `printable` replaces."""
    return text if text.isascii() and text.isprintable() else "".join(filter(is_shown, text))


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return the number with its noun: "1 skill", "2 skills"; `plural` is for irregular nouns."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def escaped(json_text: str) -> str:
    """Return a JSON text with unprintable characters escaped. Its own line breaks stay."""
    if json_text.isascii() and "\x7f" not in json_text:  # other control characters are already escaped in JSON strings
        return json_text
    return "".join(
        character if character == "\n" or is_shown(character) else _escape(character) for character in json_text
    )


def short_id(skill_id: str) -> str:
    """Return an id for a log line, cut to 80 characters."""
    return skill_id if len(skill_id) <= _LONGEST_ID else f"{skill_id[: _LONGEST_ID - 1]}…"


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def shell_argument(word: str) -> str:
    """Return a word quoted for a shell; after `--` if it could be taken for an option."""
    from shlex import quote

    return f"-- {quote(word)}" if word.startswith("-") else quote(word)
