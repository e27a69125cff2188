"""The words of skills and of search texts: one tokeniser for both, so that the server needs no parser.

Words are as in SQLite's index: runs of letters and digits, without case, Latin ones without accents. In scripts without
spaces, each character is a word, and so is each pair of neighbours: pairs find adjacent characters, for which SQLite's
index uses phrases.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from atom_saas_sync.core.scripts import ALONE, MARKS

# The name first: if there are too many words, those of the code are dropped.
HEAD = (("name", "A"), ("tags", "B"), ("category", "B"), ("description", "C"))
SEARCHED = (*(name for name, _ in HEAD), "code")

_BYTES_OF_CHARACTER = 4  # at most
_LONGEST_WORD = 255
_MOST_BYTES = 900_000  # a tsvector holds a megabyte
_MOST_OF_HEAD = 300_000
_MOST_TERMS = 32
# A shorter prefix matches too many words of code to be searched there.
_SHORTEST_PREFIX = 4

_ALONE_RANGES = ALONE.strip("[]")
_TOKENS = re.compile(f"{ALONE}|(?:[^\\W_{_ALONE_RANGES}]|[\ue000-\uf8ff])+").findall
_is_alone = re.compile(ALONE).match
_is_alone_somewhere = re.compile(ALONE).search
_LATIN_MARKS = re.compile("(?<=[A-Za-z])[\u0300-\u036f]+")
_OTHER_MARKS = re.compile("[\u0300-\u036f]+")
_MARK_TOKENS = frozenset(chr(code) for first, last in MARKS for code in range(first, last + 1))
# ASCII in lower case, with spaces for anything but letters and digits; other bytes stay.
_PLAIN = bytes(ord(chr(code).lower()) if chr(code).isalnum() else 32 for code in range(128)) + bytes(range(128, 256))


class _Simple(dict[int, str]):
    """Folds single characters to single ones.

    `ß` stays, a final sigma becomes a sigma, Latin letters lose their marks.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        base = unicodedata.normalize("NFD", character)[0]
        full = character.casefold()
        if base.isascii() and base.isalpha():
            full = base.lower()
        self[code] = found = full if len(full) == 1 else character.lower()
        return found


_simple = _Simple()


class Terms(NamedTuple):
    """The terms of a search text: words that must occur, and the last one, which may be a prefix.

    `prefix` says where the last one counts as a prefix: `words`, `head`, or nowhere. If the last term has several words
    (`os.path`), this is its last word; the others are in `before`.
    """

    whole: tuple[str, ...]
    before: tuple[str, ...]
    last: str
    prefix: str | None


def tokens(text: str) -> list[str]:
    """Return the words of a text in order."""
    if text.isascii():
        return text.encode().translate(_PLAIN).decode().split()
    folded = text.encode(errors="replace").decode().translate(_simple)
    folded = _OTHER_MARKS.sub("", unicodedata.normalize("NFC", _LATIN_MARKS.sub("", folded)))
    return [token for token in _TOKENS(folded) if not _is_alone(token) or token.isalnum() or token in _MARK_TOKENS]


def words(texts: Iterable[str]) -> list[str]:
    """Return the distinct words and pairs of several texts, those of the first text first, as many as fit."""
    found: dict[str, None] = {}
    for text in texts:
        # Most words of a long text are ASCII, which need no more work, and occur often.
        chunks = dict.fromkeys(text.encode(errors="replace").translate(_PLAIN).decode().split())
        others = [] if text.isascii() else [chunk for chunk in chunks if not chunk.isascii()]
        if others and _is_alone_somewhere("".join(others)):
            each = tokens(text)
            found |= dict.fromkeys((*each, *_pairs(each)))
            continue
        for chunk in others:
            del chunks[chunk]
        found |= chunks
        for chunk in others:
            found |= dict.fromkeys(tokens(chunk))
    return _that_fit(dict.fromkeys(_short(found)), _MOST_BYTES)


def texts_of(fields: Mapping[str, Any]) -> list[str]:
    """Return the searched texts of a skill: each field of HEAD, then the code."""
    values = [fields.get(name) for name in SEARCHED]
    return [value if isinstance(value, str) else " ".join(_leaves(value)) for value in values]


def head(texts: Iterable[str]) -> str:
    """Return the text form of a tsvector with positions and weights, for the texts of HEAD."""
    entries: list[str] = []
    for text, (_, weight) in zip(texts, HEAD, strict=False):
        found = tokens(text)
        if not text.isascii():
            found = [*found, *_pairs(found)]
        entries += [f"'{word}':{place}{weight}" for place, word in enumerate(_short(found), len(entries) + 1)]
    return " ".join(_that_fit(entries, _MOST_OF_HEAD))


def terms(text: str) -> Terms | None:
    """Return the terms of a search text; None if it has no words."""
    typed = [(each, found) for each in text.replace("\0", " ").split()[:_MOST_TERMS] if (found := tokens(each))]
    if not typed:
        return None
    *first, (last_typed, last) = typed
    whole = dict.fromkeys(_cut(word) for _, found in first for word in (*found, *_pairs(found)))
    before = dict.fromkeys(_cut(word) for word in (*last[:-1], *_pairs(last)))
    return Terms(tuple(whole), tuple(before), _cut(last[-1]), _prefix(last_typed))


def _prefix(typed: str) -> str | None:
    """Return where the last word of a search text counts as a prefix."""
    end = re.split(ALONE, typed)[-1]
    letters = sum(map(str.isalnum, end)) if end else 1
    if letters >= _SHORTEST_PREFIX:
        return "words"
    return "head" if letters > 1 else None


def _pairs(found: list[str]) -> Iterator[str]:
    """Yield pairs of neighbouring characters that are words of their own."""
    return (a + b for a, b in pairwise(found) if _is_alone(a) and _is_alone(b))


def _leaves(value: object) -> Iterator[str]:
    """Yield the values of a field without structure, as in SQLite's index."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, bool):
        yield str(int(value))
    elif value is not None:
        yield str(value)


def _short(found: Collection[str]) -> Iterable[str]:
    """Return these words as they fit into the index; nearly always all of them do."""
    if max(map(len, found), default=0) * _BYTES_OF_CHARACTER <= _LONGEST_WORD:
        return found
    return map(_cut, found)


def _cut(word: str) -> str:
    if len(word) * _BYTES_OF_CHARACTER <= _LONGEST_WORD:
        return word
    encoded = word.encode()
    return word if len(encoded) <= _LONGEST_WORD else encoded[:_LONGEST_WORD].decode(errors="ignore")


def _that_fit(found: Iterable[str], most: int) -> list[str]:
    """Return the first ones, as many as fit. Nearly all skills fit, which is cheap to find out."""
    words = list(found)
    if sum(map(len, words)) * _BYTES_OF_CHARACTER <= most:
        return words
    kept: list[str] = []
    size = 0
    for word in words:
        size += len(word) if word.isascii() else len(word.encode())
        if size > most:
            break
        kept.append(word)
    return kept
