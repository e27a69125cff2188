"""Values that another program, or a marketplace, may write to mislead people, terminals and commands."""

from __future__ import annotations

import re

ATTACKS = {
    "CSI": "\x1b[2J\x1b[1;1H\x1b[31m",
    "title": "\x1b]0;root\x07",
    "hyperlink": "\x1b]8;;https://example.org/\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "C1": "\x9b31m\x9d0;root\x9c",
    "DCS": "\x1bP$q\x1b\\",
    "bidi": "\u202egnp.exe\u202c\u2066x\u2069",
    "invisible": "\u200b\u200d\u2060\ufeff\u00ad",
    "return": "fine\rroot# \x08\x08\x7f\x00",
    "tags": "\U000e0041\U000e007f\U000e0101",
    "blank letters": "\u034f\u115f\u3164\uffa0\u2800\ufe0f\u17b4\u180e\U0001d173",
    "markup": "[bold red]x[/] [link=https://example.org]y[/link]",
}
HOSTILE = " ".join(ATTACKS.values())
SHOWN = HOSTILE.replace("\x00", "")  # to SQLite's functions, U+0000 ends a text; a marketplace can still send it
# Characters that a terminal interprets or does not show; line breaks are those of the screens.
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

# What a text of the database may be in place of a name, a time or a JSON document.
TEXTS = (
    SHOWN,
    "two\nlines\r\n\x1b[2J",
    "",
    "y" * 100_000,
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
    "-4713-11-24T12:00:00Z",
    "2026-13-45T99:99:99Z",
    "null",
    "[]",
    "{}",
    "7",
    '"x"',
    '{"a": NaN, "limit": Infinity}',
    '{"name": "\\ud800", "rating": "\\ud800"}',
    '{"added": 1e999}',
    "9" * 5000,
    "[" * 5000,
    "inf",
)
