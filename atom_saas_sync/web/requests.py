"""What requests of the admin API ask for: ids, limits, JSON bodies. Invalid input raises UsageError."""

from __future__ import annotations

import re
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from atom_saas_sync.core.documents import read_object
from atom_saas_sync.errors import UsageError

LARGEST_ID = 2**63 - 1
_MOST_LISTED = 1000


async def json_body(request: Request) -> dict[str, Any]:
    """Return the body, a JSON object; an empty body counts as an empty object."""
    return read_object(await request.body() or b"{}", "the request's body")


def number_of(request: Request) -> int:
    """Return the id in the path. Raises HTTPException (404) for one that no row can have."""
    number: int = request.path_params["id"]
    if number > LARGEST_ID:
        raise HTTPException(404, "there is nothing of that number")
    return number


def limit_of(request: Request) -> int:
    """Return how many entries `?limit=` asks for."""
    limit = request.query_params.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,4}", limit) or not 1 <= int(limit) <= _MOST_LISTED:
        raise UsageError(f"limit takes a number from 1 to {_MOST_LISTED}")
    return int(limit)
