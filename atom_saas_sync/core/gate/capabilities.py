"""Capabilities of a skill's version, found without running it: an aid for reviewers, never a decision.

Python is read with `ast`, everything else by patterns. The work grows linearly with the length of the texts.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from atom_saas_sync.characters import DEFAULT_IGNORABLE
from atom_saas_sync.core.canonical import without_volatile
from atom_saas_sync.core.gate.facts import NOT_EXAMINED, Capabilities, Fact, fact
from atom_saas_sync.core.gate.patterns import BASE64, FENCE, SHELL_FENCE, code_facts, shell_facts
from atom_saas_sync.core.gate.python_code import python_facts

LONGEST_TEXT = 1_000_000
"""Characters of one version that are examined; a longer one gets a fact that says so."""

_LONGEST_DECODED = 80
_PACKAGE_FIELDS = ("python_packages", "npm_packages")
# The values of these are labels or links, which no agent or interpreter follows.
_LABELS = frozenset({"skill_id", "id", "version", "category", "tags", "created_at", "content_hash", *_PACKAGE_FIELDS})
_METADATA_LABELS = frozenset({"author", "slug", "homepage", "repository", "license", "keywords", "icon"})
_HIDDEN = re.compile(f"[{DEFAULT_IGNORABLE}\u2800\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
# Variation selectors and joiners are normal after a symbol: emoji contain them.
_OF_EMOJI = frozenset("\ufe0e\ufe0f\u200d")
_KEYCAPS = frozenset("0123456789#*")


def compare_facts(before: frozenset[Fact], after: frozenset[Fact]) -> Capabilities:
    """Return the capabilities that a version with the facts `after` adds and removes."""
    return Capabilities(added=tuple(sorted(after - before)), removed=tuple(sorted(before - after)))


def facts_of(fields: Mapping[str, Any]) -> frozenset[Fact]:
    """Return the facts about a version."""
    content = without_volatile(fields)
    found = set(_hidden_characters(_all_strings(content)))
    found.update(_listed(content))
    room = LONGEST_TEXT
    for name, text in _instructions(content):
        if room <= 0 or len(text) > room:
            found.add(Fact("hidden", NOT_EXAMINED))
        if room <= 0:
            break
        found.update(_text_facts(name, text[:room], str(content.get("skill_type") or "").casefold()))
        room -= len(text)
    return frozenset(found)


@lru_cache(maxsize=32)  # most texts are the same in both versions of an update
def _text_facts(name: str, text: str, skill_type: str) -> frozenset[Fact]:
    return frozenset(_found_in(name, text, skill_type))


def _found_in(name: str, text: str, skill_type: str) -> Iterator[Fact]:
    text = _HIDDEN.sub("", text)  # inside a word, they would hide it from the patterns
    yield from code_facts(text)
    if name == "code":
        yield from python_facts(text)
    if name == "command" or (name == "code" and _is_shell(text, skill_type)):
        yield from shell_facts(text)
    for block in SHELL_FENCE.finditer(text):
        end = FENCE.search(text, block.end() - 1)
        yield from shell_facts(text[block.end() : end.start() if end else len(text)])
    for coded in BASE64.finditer(text):
        decoded = _decoded(coded[0])
        if decoded is not None:
            yield fact("encoded", decoded[:_LONGEST_DECODED])
            yield from code_facts(decoded)


def _is_shell(text: str, skill_type: str) -> bool:
    first = text[:200].partition("\n")[0]
    if first.startswith("#!"):
        return re.search(r"\b(?:ba|z|da|k)?sh\b", first) is not None
    return skill_type in {"shell", "bash", "sh"} and not text.startswith("---")


def _instructions(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the texts that may be executed or followed, each with its field name."""
    for name, value in content.items():
        if name in _LABELS:
            continue
        if name == "metadata" and isinstance(value, Mapping):
            for key, entry in value.items():
                if key not in _METADATA_LABELS:
                    yield from ((f"metadata.{key}", text) for text in _all_strings(entry))
        else:
            yield from ((name, text) for text in _all_strings(value))


def _all_strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield every string in a JSON value, including keys."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            waiting.extend(reversed([part for entry in each.items() for part in entry]))
        elif isinstance(each, list):
            waiting.extend(reversed(each))


def _listed(content: Mapping[str, Any]) -> Iterator[Fact]:
    """Yield the packages and environment variables that fields list."""
    for name in _PACKAGE_FIELDS:
        for text in _names(content.get(name)):
            yield fact("package", text)
    for text in _names(content.get("env_vars")):
        yield fact("env", text)


def _names(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield the names in a list of names or of objects with one, or the keys of an object."""
    for entry in value if isinstance(value, list | Mapping) else ():
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        if isinstance(name, str) and name.strip():
            yield name.strip()


def _hidden_characters(texts: Iterator[str]) -> Iterator[Fact]:
    for text in texts:
        if not (text.isascii() and text.isprintable()):
            for character in set(_HIDDEN.findall(text)):
                if character not in _OF_EMOJI or any(
                    _stands_alone(text, match) for match in re.finditer(character, text)
                ):
                    yield Fact("hidden", f"U+{ord(character):04X} {unicodedata.name(character, 'control character')}")


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    """Tell whether a selector or joiner does not follow a symbol."""
    before = text[match.start() - 1 : match.start()]
    return not before or not (before in _KEYCAPS or before in _OF_EMOJI or _is_symbol(before))


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character) in {"So", "Sk", "Sm", "Po"}


def _decoded(coded: str) -> str | None:
    """Return the text that base64 encodes; None if it does not decode to text."""
    core = coded.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(core + "=" * (-len(core) % 4), validate=True)
        text = data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if text and all(each.isprintable() or each in "\r\n\t" for each in text) else None
