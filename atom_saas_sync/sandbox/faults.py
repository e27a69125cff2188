"""Faults of the marketplace that can be enabled one by one.

A `Fault` is a frozen value: `kind` is what goes wrong; the other fields are where, how often and how much. `Faults`
holds the enabled ones and returns those that apply to a request.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.catalogue import Json

ENDPOINTS = ("any", "list", "skill", "categories", "ratings", "health", "ws")

KINDS = {
    "error": "answers `status`, with `retry_after` if given",
    "delay": "waits `seconds` before it answers",
    "drip": "sends `amount` bytes of the body a second",
    "hang": "never answers; value=body: stops in the middle of the body",
    "drop": "closes the connection without an answer; value=reset: with a TCP reset",
    "drop_body": "breaks the connection in the middle of the body",
    "store_then_drop": "does the work, also stores a rating, and closes the connection without an answer",
    "truncated": "announces the full length, sends half of the body, and closes in an orderly way",
    "not_json": "value: html, empty, cut, nan, bad_utf8 or deep",
    "wrong_form": "value: list, missing, not_list, null or text",
    "empty_list": 'answers {"skills": []} and nothing else',
    "total": "value: missing, wrong (off by `amount`), drifting (grows with each request), text, or negative",
    "total_pages": "value: missing, wrong or text",
    "page_cap": "answers with at most `amount` skills a page, and says so in page_size",
    "oversized": "a body of `amount` bytes; value=length: with a content-length, else chunked",
    "bomb": "a small body that unpacks to `amount` bytes; value: gzip or zstd",
    "redirect": "`status` to `location`, or value: same (origin) or other (origin)",
    "lying_encoding": "says content-encoding `value` (gzip, zstd, br) about a plain body",
    "invalid_items": "puts invalid skills before the real ones; value: names of INVALID_ITEMS joined by +, or all",
    "broken_items": "like invalid_items, but in place of the first real ones",
    "drift": "value: add or remove `amount` skills at the list's beginning, after the page was answered",
    "no_rating_id": "a rating is accepted without a rating_id",
    "conflict_form": "the 409 of a rating; value: nested (in `rating`) or none",
    "other_list": "categories as a bare list where an object is usual, and the other way round",
    "limit_headers": "value: ietf (unprefixed RateLimit-* with seconds) or none",
    "old_ids": "skills carry `id` in place of `skill_id`, as older servers do",
    "accept_close": "WebSocket: accepts, then closes at once with `status` as its code",
}

_MIB = 1024 * 1024
_AMOUNTS = {"drip": 1000, "total": 7, "page_cap": 100, "oversized": 64 * _MIB, "bomb": 256 * _MIB, "drift": 1}
_STATUSES = {"error": 500, "redirect": 302, "accept_close": 1011}
_VALUES = {
    "not_json": "html",
    "wrong_form": "list",
    "total": "wrong",
    "total_pages": "wrong",
    "bomb": "gzip",
    "redirect": "same",
    "lying_encoding": "gzip",
    "invalid_items": "all",
    "broken_items": "no_id",
    "drift": "add",
    "conflict_form": "nested",
    "limit_headers": "ietf",
}
_CHOICES = {
    "hang": ("", "body"),
    "drop": ("", "reset"),
    "not_json": ("html", "empty", "cut", "nan", "bad_utf8", "deep"),
    "wrong_form": ("list", "missing", "not_list", "null", "text"),
    "total": ("missing", "wrong", "drifting", "text", "negative"),
    "total_pages": ("missing", "wrong", "text"),
    "oversized": ("", "length"),
    "bomb": ("gzip", "zstd"),
    "redirect": ("same", "other"),
    "drift": ("add", "remove"),
    "conflict_form": ("nested", "none"),
    "limit_headers": ("ietf", "none"),
}
INVALID_ITEMS = (
    *("no_id", "id_number", "id_null", "id_list", "id_empty", "id_dot", "id_dotdot", "id_control", "id_surrogate"),
    *("name_missing", "name_number", "name_null", "types", "surrogates", "deep", "not_object", "null", "huge"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault.

    `endpoint`: list, skill, categories, ratings, health, ws, or any (all but ws). `method`, `page` and `skill_id`
    narrow it down. The first `after` matching requests are
    spared; then it applies `times` times (None: always),
    each with `probability`, from a generator seeded with
    `seed`. `status`, `amount` and `value` have a default for each kind.
    `retry_after`: seconds, `date:SECONDS` for the form of an HTTP date, or any text as it is.
    """

    kind: str
    endpoint: str = "any"
    method: str | None = None
    page: int | None = None
    skill_id: str | None = None
    after: int = 0
    times: int | None = None
    probability: float = 1.0
    seed: int = 1
    status: int = 0
    retry_after: int | str | None = None
    seconds: float = 0.0
    amount: int = 0
    value: str = ""
    location: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"no fault is called {self.kind!r}", hint=f"there are: {', '.join(KINDS)}")
        if self.endpoint not in ENDPOINTS:
            raise UsageError(f"no endpoint is called {self.endpoint!r}", hint=f"there are: {', '.join(ENDPOINTS)}")
        for name, defaults in (("status", _STATUSES), ("amount", _AMOUNTS), ("value", _VALUES)):
            if not getattr(self, name) and self.kind in defaults:
                object.__setattr__(self, name, defaults[self.kind])
        if self.value not in _CHOICES.get(self.kind, (self.value,)):
            raise UsageError(
                f"{self.kind} has no value {self.value!r}", hint=f"there are: {', '.join(_CHOICES[self.kind])}"
            )
        if self.kind in ("invalid_items", "broken_items") and set(self.item_names()) - set(INVALID_ITEMS):
            raise UsageError(f"no invalid item is called {self.value!r}", hint=f"there are: {', '.join(INVALID_ITEMS)}")

    def item_names(self) -> list[str]:
        """Return the names of the invalid items that `value` selects."""
        return list(INVALID_ITEMS) if self.value == "all" else self.value.split("+")

    def concerns(self, endpoint: str, method: str, page: int | None, skill_id: str) -> bool:
        """Tell whether this fault may apply to a request."""
        return (
            (self.endpoint == endpoint or (self.endpoint == "any" and endpoint != "ws"))
            and self.method in (None, method)
            and self.page in (None, page)
            and self.skill_id in (None, skill_id)
        )

    def retry_after_header(self, now: datetime) -> list[tuple[str, str]]:
        """Return the Retry-After header, if the fault has one."""
        if self.retry_after is None:
            return []
        text = str(self.retry_after)
        if text.startswith("date:"):
            text = format_datetime(now + timedelta(seconds=float(text.removeprefix("date:"))), usegmt=True)
        return [("retry-after", text)]


def parse_fault(text: str) -> Fault:
    """Parse a fault in the form of the command line, `KIND[:FIELD=VALUE[,FIELD=VALUE…]]`."""
    kind, _, rest = text.partition(":")
    given: Json = {"kind": kind}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{part!r} in the fault {text!r} is not FIELD=VALUE")
        given[name] = value
    return fault_from(given)


def fault_from(given: Json) -> Fault:
    """Return the fault that a document describes; strings are converted where a field is a number."""
    kinds = {field.name: str(field.type) for field in fields(Fault)}
    unknown = sorted(given.keys() - kinds.keys())
    if unknown:
        raise UsageError(f"a fault has no field {unknown[0]!r}", hint=f"there are: {', '.join(kinds)}")
    values: Json = {}
    for name, value in given.items():
        try:
            if isinstance(value, str) and kinds[name] in ("int", "int | None"):
                values[name] = int(value)
            elif isinstance(value, str) and kinds[name] == "float":
                values[name] = float(value)
            else:
                values[name] = value
        except ValueError as error:
            raise UsageError(f"{name} of a fault is a number, not {value!r}") from error
    if "kind" not in values:
        raise UsageError("a fault needs a kind", hint=f"there are: {', '.join(KINDS)}")
    return Fault(**values)


@dataclass(slots=True)
class _Active:
    fault: Fault
    source: random.Random
    hits: int = 0
    strikes: int = 0


@dataclass(frozen=True, slots=True)
class Strikes:
    """The faults that apply to one request, each with its count so far, from 1."""

    found: tuple[tuple[Fault, int], ...] = ()

    def get(self, *kinds: str) -> Fault | None:
        """Return the first fault of one of the kinds."""
        return next((fault for fault, _ in self.found if fault.kind in kinds), None)

    def delay(self) -> float:
        """Return how long to delay the response."""
        return sum(fault.seconds for fault, _ in self.found if fault.kind == "delay")


class Faults:
    """The enabled faults by number; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: dict[int, _Active] = {}
        self._next = 1

    def add(self, fault: Fault) -> int:
        """Enable a fault; return its number."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._active[number] = _Active(fault, random.Random(fault.seed))
            return number

    def clear(self, number: int | None = None) -> None:
        """Disable one fault, or all."""
        with self._lock:
            if number is None:
                self._active.clear()
            else:
                self._active.pop(number, None)

    def listing(self) -> dict[int, tuple[Fault, int]]:
        """Return the enabled faults by number, with how often each has applied."""
        with self._lock:
            return {number: (active.fault, active.strikes) for number, active in self._active.items()}

    def take(self, endpoint: str, method: str, page: int | None = None, skill_id: str = "") -> Strikes:
        """Return the faults that apply to this request, and count them."""
        with self._lock:
            found = []
            for active in self._active.values():
                fault = active.fault
                if not fault.concerns(endpoint, method, page, skill_id):
                    continue
                active.hits += 1
                used_up = fault.times is not None and active.strikes >= fault.times
                if active.hits <= fault.after or used_up or active.source.random() >= fault.probability:
                    continue
                active.strikes += 1
                found.append((fault, active.strikes))
            return Strikes(tuple(found))


# Faults of the content

DEEP = "@@deep@@"  # placeholder for a nesting that Python's encoder refuses to write
_DEPTH = 100_000


def invalid_item(name: str) -> Any:  # noqa: ANN401 - deliberately not a skill
    """Return one invalid skill. Raises KeyError for an unknown name."""
    good: Json = {"skill_id": f"invalid-{name}", "name": f"Invalid: {name}", "version": "1.0.0", "code": "true"}
    changes: dict[str, Any] = {
        "no_id": {"skill_id": ...},
        "id_number": {"skill_id": 17},
        "id_null": {"skill_id": None},
        "id_list": {"skill_id": ["a"]},
        "id_empty": {"skill_id": ""},
        "id_dot": {"skill_id": "."},
        "id_dotdot": {"skill_id": ".."},
        "id_control": {"skill_id": "a\u0000b\nc"},
        "id_surrogate": {"skill_id": "a\ud800"},
        "name_missing": {"name": ...},
        "name_number": {"name": 5},
        "name_null": {"name": None},
        "types": {"version": [1], "tags": "one", "python_packages": {"a": 1}, "metadata": "no", "rating_count": "many"},
        "surrogates": {"name": "half \ud83d of an emoji", "description": "\udc00"},
        "deep": {"metadata": DEEP},
    }
    if name == "not_object":
        return "a text in place of a skill"
    if name == "null":
        return None
    if name == "huge":
        return {**good, "code": "#" * (8 * _MIB)}
    return {key: value for key, value in (good | changes[name]).items() if value is not ...}


def spoil(document: Any, strikes: Strikes) -> Any:  # noqa: ANN401, C901 - one branch a kind, JSON in and out
    """Apply all faults of the content to a document."""
    for fault, number in strikes.found:
        match fault.kind:
            case "wrong_form":
                document = _wrong_form(fault.value, document)
            case "empty_list":
                document = {"skills": []}
            case "total" if isinstance(document, dict) and "total" in document:
                _wrong_number(
                    document, "total", fault.value, fault.amount * (number if fault.value == "drifting" else 1)
                )
            case "total_pages" if isinstance(document, dict) and "total_pages" in document:
                _wrong_number(document, "total_pages", fault.value, 3)
            case "invalid_items" | "broken_items" if isinstance(document, dict) and "skills" in document:
                names = fault.item_names()
                skip = len(names) if fault.kind == "broken_items" else 0
                document["skills"] = [invalid_item(name) for name in names] + document["skills"][skip:]
            case "no_rating_id" if isinstance(document, dict):
                document.pop("rating_id", None)
            case "conflict_form" if isinstance(document, dict) and document.get("error") == "already rated":
                document = {"success": False, "error": "already rated"} | (
                    {"rating": document} if fault.value == "nested" else {}
                )
            case "other_list":
                document = (
                    {"categories": document} if isinstance(document, list) else document.get("categories", document)
                )
            case "old_ids" if isinstance(document, dict):
                for skill in document.get("skills", [document]):
                    if isinstance(skill, dict) and "skill_id" in skill:
                        skill["id"] = skill.pop("skill_id")
    return document


def _wrong_form(value: str, document: Any) -> Any:  # noqa: ANN401 - JSON
    skills = document.get("skills", []) if isinstance(document, dict) else document
    forms = {
        "list": skills,
        "missing": {"page": 1, "total": 1},
        "not_list": {"skills": {"0": skills[:1]}},
        "null": None,
        "text": "skills",
    }
    return forms[value]


def _wrong_number(document: Json, key: str, value: str, amount: int) -> None:
    if value == "missing":
        del document[key]
    else:
        document[key] = {"text": "many", "negative": -1}.get(value, document[key] + amount)


def write_deep(body: bytes) -> bytes:
    """Replace the placeholder in a body by 100,000 nested lists."""
    return body.replace(b'"' + DEEP.encode() + b'"', b"[" * _DEPTH + b"]" * _DEPTH)
