"""Text for people: nothing from strangers that is a control, invisible or bidirectional character; right plurals."""

from __future__ import annotations

import re

# Unicode 16.0.0, DerivedCoreProperties.txt, Default_Ignorable_Code_Point. `str.isprintable` accepts many of them.
DEFAULT_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that are shown as nothing, as the inside of a regular expression's character class."""

# The blank of Braille is a letter for Unicode, and a space for everybody who looks at it.
_HIDDEN = f"[{DEFAULT_IGNORABLE}\u2800]"
_LONGEST_ID = 80


def is_shown(character: str) -> bool:
    """Tell whether a character is shown as itself, and does nothing to others."""
    return character.isprintable() and re.match(_HIDDEN, character) is None


def printable(text: str, *, lines: bool = False) -> str:
    """Return text from strangers as a terminal may show it: what is not shown as itself becomes a replacement.

    With `lines`, line breaks stay and tabs become spaces.
    """
    if lines:
        return "\n".join(printable(line) for line in text.expandtabs(4).split("\n"))
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "�" for character in text)
    return text if text.isascii() else re.sub(_HIDDEN, "�", text)


def without_hidden(text: str) -> str:
    """Return text from strangers without what `printable` replaces."""
    return text if text.isascii() and text.isprintable() else "".join(filter(is_shown, text))


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return the number with its noun: "1 skill", "2 skills"; `plural` where an s is not enough."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def escaped(json_text: str) -> str:
    """Return a JSON text in which what is not shown as itself is escaped. Its own line breaks stay."""
    if json_text.isascii() and "\x7f" not in json_text:  # in JSON's strings other control characters are escaped
        return json_text
    return "".join(
        character if character == "\n" or is_shown(character) else _escape(character) for character in json_text
    )


def short_id(skill_id: str) -> str:
    """Return an id as a line of the log has it: cut to 80 characters."""
    return skill_id if len(skill_id) <= _LONGEST_ID else f"{skill_id[: _LONGEST_ID - 1]}…"


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
