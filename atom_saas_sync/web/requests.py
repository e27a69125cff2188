"""Parsing requests of the admin API: ids, pages, filters, JSON bodies. Invalid input raises UsageError."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from atom_saas_sync.core.documents import read_json, read_object
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import CONFLICT_TYPES, SEVERITIES, ConflictFilter

LARGEST_ID = 2**63 - 1
PAGING = ("limit", "page", "page_size")
FILTERS = ("severity", "type", "conflict_type", "skill_id", "resolved", "status")
"""The query parameters of lists, and those that filter conflicts."""

_MOST_LISTED = 1000
_MOST_PAGES = 10**9
_LISTED = "100"


@dataclass(frozen=True, slots=True)
class Page:
    """The requested part of a list; `number` is None unless it was requested by page."""

    size: int
    number: int | None = None

    @property
    def offset(self) -> int:
        """Return the number of entries before it."""
        return 0 if self.number is None else (self.number - 1) * self.size

    def document(self) -> dict[str, int]:
        """Return the page's fields in the response."""
        return {} if self.number is None else {"page": self.number, "page_size": self.size}


def refuse_unknown(query: QueryParams, known: Collection[str]) -> None:
    """Raise UsageError for an unknown parameter, and for one given more than once."""
    takes = f"this route takes {', '.join(known)}" if known else "this route takes no query parameters"
    for name in query:
        if name not in known:
            raise UsageError(f"unknown query parameter {name[:80]!r}", hint=takes)
        if len(query.getlist(name)) > 1:
            raise UsageError(f"query parameter {name} is given more than once")


async def json_body(request: Request) -> dict[str, Any]:
    """Return the body, a JSON object; an empty body counts as an empty object."""
    return read_object(await request.body() or b"{}", "the request's body")


async def json_body_or_list(request: Request) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return the body, any JSON value; an empty body counts as an empty object."""
    return read_json(await request.body() or b"{}", "the request's body")


def number_of(request: Request) -> int:
    """Return the id in the path. Raises HTTPException (404) if no row can have it."""
    number: int = request.path_params["id"]
    if number > LARGEST_ID:
        raise HTTPException(404, "there is no entry with that number")
    return number


def page_of(query: QueryParams) -> Page:
    """Return the part of a list requested by `?limit=`, or `?page=` and `?page_size=`; by default the first 100."""
    if "page" not in query and "page_size" not in query:
        return Page(_whole("limit", query.get("limit", _LISTED), _MOST_LISTED))
    if "limit" in query:
        raise UsageError("limit and page exclude each other", hint="use page and page_size")
    size = _whole("page_size", query.get("page_size", _LISTED), _MOST_LISTED)
    return Page(size, _whole("page", query.get("page", "1"), _MOST_PAGES))


def conflicts_of(query: QueryParams) -> ConflictFilter:
    """Return the filter for conflicts; by default the open ones."""
    status = _one_of(query, "status", ("unresolved", "resolved"))
    resolved = _one_of(query, "resolved", ("false", "true"))
    if status and resolved and (status == "resolved") != (resolved == "true"):
        raise UsageError("status and resolved contradict each other")
    kind = "conflict_type" if "conflict_type" in query else "type"
    if kind == "conflict_type" and "type" in query:
        raise UsageError("type and conflict_type are the same filter", hint="use one of them")
    return ConflictFilter(
        severity=_one_of(query, "severity", SEVERITIES),
        type=_one_of(query, kind, CONFLICT_TYPES),
        skill_id=query.get("skill_id"),
        resolved=status == "resolved" or resolved == "true",
    )


def with_strategy(body: dict[str, Any], query: QueryParams) -> dict[str, Any]:
    """Return the body of a decision, with the strategy of `?strategy=` if given."""
    strategy = query.get("strategy")
    if strategy is None:
        return body
    if body.get("strategy", strategy) != strategy:
        raise UsageError("the query and the body give different strategies")
    return {**body, "strategy": strategy}


def _whole(name: str, text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= most:
        raise UsageError(f"invalid {name} {text[:80]!r}: expected a whole number from 1 to {most}")
    return int(text)


def _one_of(query: QueryParams, name: str, choices: Sequence[str]) -> str | None:
    text = query.get(name)
    if text is None:
        return None
    found = next((choice for choice in choices if choice.lower() == text.lower()), None)
    if found is None:
        raise UsageError(f"invalid {name} {text[:80]!r}: expected {', '.join(choices)}")
    return found
