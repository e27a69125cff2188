"""Files with skills: JSON (one skill, a list of them, or an object with `skills`) or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec


def split_skills(text: str, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield each skill of a file with where it stands; what is no JSON comes out as it is, to be refused by who reads.

    `name` is the file's name, for the places.
    """
    try:
        document: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"{name}, line {number}", line.encode(errors="replace")
        return
    if isinstance(document, dict) and isinstance(document.get("skills"), list) and "name" not in document:
        document = document["skills"]
    if not isinstance(document, list):
        yield name, _raw(document)
        return
    for number, entry in enumerate(document, start=1):
        yield f"{name}, entry {number}", _raw(entry)


def _raw(entry: Any) -> bytes:  # noqa: ANN401 - JSON
    # What `skills show --json` prints is a skill with facts about it around.
    if isinstance(entry, dict) and isinstance(entry.get("skill"), dict) and "code" not in entry:
        entry = entry["skill"]
    return msgspec.json.encode(entry)
