"""Where the sandbox's skills come from: generated from a seed, or read from a file (contract, section 3, SKILL).

Both kinds are lazy: a skill is built on request, and is always the same for the same position, so 100,000 skills start
at once and need no memory.
"""

from __future__ import annotations

import bisect
import gzip
import json
import random
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox import material
from atom_saas_sync.times import format_time

Json = dict[str, Any]

_FIRST_DAY = datetime(2024, 1, 8, tzinfo=UTC)
_DAYS = 560
_POOL = 240  # variants of each kind of fragment, from which a skill picks
_KINDS = ("prompt", "python", "bash", "node")
_KIND_ENDS = list(accumulate((50, 27, 11, 12)))
_SUFFIX = {"prompt": "SKILL.md", "python": "main.py", "bash": "run.sh", "node": "index.mjs"}
_COMMAND = {"prompt": "prompt", "python": "python main.py", "bash": "bash run.sh", "node": "node index.mjs"}


class Catalogue(Protocol):
    """Skills by position. `ids[i]` and `categories_of[i]` belong to `skill(i)`."""

    ids: list[str]
    categories_of: list[str]

    def skill(self, index: int) -> Json:
        """Return a new copy of the skill at that position."""

    def summary(self, index: int) -> Json:
        """Return at least the fields that `query` searches: name, description and tags."""

    def categories(self) -> list[Json]:
        """Return the categories, without their `skill_count`."""

    def ratings(self, index: int) -> list[Json]:
        """Return the skill's initial ratings."""


def _category(name: str, description: str) -> Json:
    return {
        "name": name,
        "description": description,
        "icon_url": f"https://cdn.example/icons/{name}.svg",
        "created_at": format_time(_FIRST_DAY),
    }


class GeneratedCatalogue:
    """`count` realistic skills, identical for the same seed on every machine."""

    def __init__(self, count: int, seed: int) -> None:
        if count < 0:
            raise UsageError(f"a catalogue cannot have {count} skills")
        self._seed = seed
        # A separate generator for each, so that a small catalogue is a prefix of a large one.
        source = random.Random(f"ids {seed}")
        self.ids = [str(uuid.UUID(int=source.getrandbits(128), version=4)) for _ in range(count)]
        names, weights = [name for name, _, _ in material.CATEGORIES], [weight for _, _, weight in material.CATEGORIES]
        self.categories_of = random.Random(f"categories {seed}").choices(names, weights, k=count)
        self._pools = _pools(seed)
        self._frames = {
            "prompt": (material.PROMPT_HEAD, material.PROMPT_TAIL),
            "python": (material.PYTHON_HEAD, material.PYTHON_TAIL),
            "bash": (material.BASH_HEAD, material.BASH_TAIL),
            "node": (material.NODE_HEAD, material.NODE_TAIL),
        }

    def summary(self, index: int) -> Json:
        """Return the fields of a skill that are cheap to generate."""
        return self._head(index, self._random(index))

    def skill(self, index: int) -> Json:
        """Return the whole skill; its code is a template filled with fragments."""
        source = self._random(index)
        skill = self._head(index, source)
        words, kind = skill["metadata"].pop("words"), _KINDS[bisect.bisect_right(_KIND_ENDS, source.random() * 100)]
        head, tail = self._frames[kind]
        parts = min(120, 1 + int(source.lognormvariate(2.25, 0.6)))
        code = head + "".join(source.choices(self._pools[kind], k=parts)) + tail
        for token, word in words.items():
            code = code.replace(token, word)
        created = _FIRST_DAY + timedelta(seconds=source.randrange(_DAYS * 86400))
        updated = created + timedelta(seconds=source.randrange(40 * 86400))
        ratings = int(source.expovariate(1 / 9)) if source.random() < 0.6 else 0  # noqa: PLR2004 - most have some
        skill |= {
            "version": f"{source.randrange(4)}.{source.randrange(12)}.{source.randrange(20)}",
            "code": code,
            "command": _COMMAND[kind],
            "skill_type": "prompt_only" if kind == "prompt" else "code",
            "python_packages": sorted(source.sample(material.PYTHON_PACKAGES, source.randrange(4)))
            if kind == "python"
            else [],
            "npm_packages": sorted(source.sample(material.NPM_PACKAGES, source.randrange(4))) if kind == "node" else [],
            "local_files": [_SUFFIX[kind], "_meta.json"],
            "category": self.categories_of[index],
            "average_rating": round(source.uniform(2.4, 5.0), 2) if ratings else None,
            "rating_count": ratings,
            "created_at": format_time(created),
            "updated_at": format_time(updated),
        }
        if kind != "prompt":
            noun = words["@noun@"]
            skill["parameters"] = {
                "type": "object",
                "properties": {noun: {"type": "string"}, "limit": {"type": "integer", "maximum": int(words["@NUM@"])}},
                "required": [noun],
            }
            skill["env_vars"] = {f"{words['@SERVICE@']}_TOKEN": {"required": True, "description": "access token"}}
        if index % 4 == 0:
            skill["examples"] = [{"input": f"{words['@verb@']} {words['@noun@']} {n}", "output": "ok"} for n in (1, 2)]
        return skill

    def categories(self) -> list[Json]:
        """Return all 24 categories, including those that are empty in a small catalogue."""
        return [_category(name, description) for name, description, _ in material.CATEGORIES]

    def ratings(self, index: int) -> list[Json]:
        """Return up to three of the skill's ratings."""
        source = random.Random(f"ratings {self._seed} {index}")
        created = _FIRST_DAY + timedelta(days=_DAYS)
        return [
            {
                "rating_id": f"seed-{index}-{n}",
                "user_id": f"{source.choice(material.AUTHORS)}-{n}",
                "rating": source.randint(1, 5),
                "comment": source.choice(material.COMMENTS),
                "created_at": format_time(created + timedelta(hours=source.randrange(2000))),
            }
            for n in range(min(3, self.skill(index)["rating_count"]))
        ]

    def _random(self, index: int) -> random.Random:
        # An integer seed is several times faster than a text; the factor keeps neighbouring seeds apart.
        return random.Random(self._seed * 1_000_003 + index)

    def _head(self, index: int, source: random.Random) -> Json:
        noun, verb = source.choice(material.NOUNS), source.choice(material.VERBS)
        adjective, service = source.choice(material.ADJECTIVES), source.choice(material.SERVICES)
        words = {
            "@noun@": noun,
            "@Noun@": noun.capitalize(),
            "@verb@": verb,
            "@Verb@": verb.capitalize(),
            "@adjective@": adjective,
            "@service@": service,
            "@service_low@": service.lower(),
            "@SERVICE@": service.upper(),
            "@NUM@": str(source.randrange(5, 200)),
            "@NUM1@": str(source.randrange(1, 6)),
        }
        # Half of the skills are in English, the rest in the other languages.
        english = source.random() < 0.5  # noqa: PLR2004 - a half
        description = source.choice(material.DESCRIPTIONS[:5] if english else material.DESCRIPTIONS[5:])
        for token, word in words.items():
            description = description.replace(token, word)
        name = f"{adjective} {noun} {verb}" if index % 3 else f"{service} {noun} {verb}"
        if index % 23 == 0:
            odd = source.choice(material.ODD_UNICODE)
            description, name = f"{description} {odd}", f"{name} {odd}" if index % 46 == 0 else name
        slug = f"{adjective}-{noun}-{verb}-{index}"
        author = source.choice(material.AUTHORS)
        return {
            "skill_id": self.ids[index],
            "name": name,
            "description": description,
            "tags": sorted({noun, service.lower(), *source.sample(material.TAGS, source.randrange(4))}),
            "metadata": {
                "author": author,
                "slug": slug,
                "homepage": f"https://{service.lower()}.example/{slug}",
                "releases": source.randrange(1, 30),
                "words": words,
            },
        }


class FileCatalogue:
    """Skills from a file with one JSON object a line, gzip if its name ends in `.gz`."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        self._lines = [line for line in content.split(b"\n") if line.strip()]
        self.ids: list[str] = []
        self.categories_of: list[str] = []
        for number, line in enumerate(self._lines, 1):
            skill = _parse(path, number, line)
            self.ids.append(skill["skill_id"])
            self.categories_of.append(str(skill.get("category") or ""))
        twice = [skill_id for skill_id, count in Counter(self.ids).items() if count > 1]
        if twice:
            raise UsageError(f"{path}: skill_id {twice[0]!r} is there more than once")

    def skill(self, index: int) -> Json:
        """Return the skill on that line."""
        skill: Json = json.loads(self._lines[index])
        return skill

    summary = skill

    def categories(self) -> list[Json]:
        """Return the categories that the skills name, largest first."""
        counts = Counter(name for name in self.categories_of if name)
        return [_category(name, f"Skills about {name}") for name, _ in counts.most_common()]

    def ratings(self, _index: int) -> list[Json]:
        """Return nothing: a file holds no ratings."""
        return []


def _parse(path: Path, number: int, line: bytes) -> Json:
    try:
        skill = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(skill, dict) or not isinstance(skill.get("skill_id"), str):
        raise UsageError(f"{path}, line {number}: no object with a skill_id")
    return skill


def _sentence(source: random.Random) -> str:
    starts, middles, ends = material.SENTENCE_STARTS, material.SENTENCE_MIDDLES, material.SENTENCE_ENDS
    return f"{source.choice(starts)} {source.choice(middles)} {source.choice(ends)}"


@lru_cache(maxsize=4)  # tests start many sandboxes
def _pools(seed: int) -> dict[str, list[str]]:
    source = random.Random(f"fragments {seed}")
    sentences = [_sentence(source) for _ in range(_POOL * 4)]
    return {
        "prompt": _pool(source, material.PROMPT, sentences),
        "python": _pool(source, material.PYTHON, sentences),
        "bash": _pool(source, material.BASH, sentences),
        "node": _pool(source, material.NODE, sentences),
    }


def _pool(source: random.Random, fragments: tuple[str, ...], sentences: list[str]) -> list[str]:
    """Return variants of the fragments, numbered and with sentences filled in."""
    pool = []
    for number in range(_POOL):
        first, *rest = fragments[number % len(fragments)].replace("@k@", str(number)).split("@sentence@")
        pool.append(first + "".join(source.choice(sentences) + part for part in rest))
    return pool
