"""The admin API: listing and resolving conflicts."""

from __future__ import annotations

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atom_saas_sync.core.comparison import conflict_document, conflict_line
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import STRATEGIES, ConflictFilter
from atom_saas_sync.usecases.resolve_conflicts import Decision, Settled, resolve_conflicts
from atom_saas_sync.web.jobs import STARTED_BY
from atom_saas_sync.web.requests import (
    LARGEST_ID,
    conflicts_of,
    json_body,
    json_body_or_list,
    number_of,
    page_of,
    with_strategy,
)
from atom_saas_sync.web.site import Site


class ConflictRoutes:
    """Routes that need the admin token. Those that are plain functions are run in threads."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def conflicts(self, request: Request) -> Response:
        """Return the open conflicts, or with `?status=resolved` the resolved ones."""
        wanted, page = conflicts_of(request.query_params), page_of(request.query_params)
        with self._site.conflict_log() as log:
            found = log.list_conflicts(wanted, limit=page.size, offset=page.offset)
            total = log.count(wanted)
        conflicts = [conflict_line(each) for each in found]
        return JSONResponse({"success": True, "conflicts": conflicts, "total": total, **page.document()})

    def conflict(self, request: Request) -> Response:
        """Return one conflict with all fields."""
        with self._site.conflict_log() as log:
            found = log.conflict(number_of(request))
        if found is None:
            raise HTTPException(404, f"there is no conflict {number_of(request)}")
        return JSONResponse({"success": True, "conflict": conflict_document(found)})

    async def resolve_one(self, request: Request) -> Response:
        """Resolve one conflict: `{"strategy": S}`, `{"fields": {NAME: SIDE}}` or `{"data": {SKILL}}`."""
        body = with_strategy(await json_body(request), request.query_params)
        return await run_in_threadpool(self._resolve, [number_of(request)], body)

    async def resolve_many(self, request: Request) -> Response:
        """Resolve several: `{"conflict_ids": […], …}`, `{"conflict_id": N, …}` or `{"all": true, …}`."""
        body = with_strategy(await json_body(request), request.query_params)
        return await run_in_threadpool(self._resolve, _wanted(body), body)

    async def resolve_listed(self, request: Request) -> Response:
        """Resolve several, as `resolve_many` does; the body may also be the bare list of their ids."""
        found = await json_body_or_list(request)
        if not isinstance(found, dict | list):
            raise UsageError("the request body is neither a JSON object nor a list of ids")
        body = with_strategy({"conflict_ids": found} if isinstance(found, list) else found, request.query_params)
        return await run_in_threadpool(self._resolve, _wanted(body), body)

    def _resolve(self, wanted: list[int] | ConflictFilter, body: dict[str, Any]) -> Response:
        with self._site.conflict_log() as log:
            # The user is the holder of the token, whatever the body says.
            settled = resolve_conflicts(log, wanted, _decision(body), actor=STARTED_BY, now=self._site.now())
        return JSONResponse(
            {"success": True, "resolved": [_settled(each) for each in settled], "total": len(settled)},
        )


def _wanted(body: dict[str, Any]) -> list[int] | ConflictFilter:
    if body.get("all") is True:
        return ConflictFilter()
    ids = body.get("conflict_ids", [body["conflict_id"]] if "conflict_id" in body else [])
    if not isinstance(ids, list) or not ids or not all(type(each) is int and 0 < each <= LARGEST_ID for each in ids):
        raise UsageError('specify {"conflict_id": N}, {"conflict_ids": [N, …]} or {"all": true}')
    return ids


def _decision(body: dict[str, Any]) -> Decision:
    strategy, fields, data = body.get("strategy"), body.get("fields", {}), body.get("data")
    if strategy is not None and strategy not in STRATEGIES:
        raise UsageError(f"invalid strategy: expected {', '.join(STRATEGIES)}")
    if not isinstance(fields, dict) or not all(side in ("local", "remote") for side in fields.values()):
        raise UsageError('fields takes {NAME: "local" or "remote"}')
    if data is not None and (strategy is not None or fields or not isinstance(data, dict)):
        raise UsageError("data is a whole skill and decides everything: omit strategy and fields")
    return Decision(
        strategy=strategy, sides=fields, text=None if data is None else json.dumps(data, ensure_ascii=False)
    )


def _settled(settled: Settled) -> dict[str, Any]:
    return {
        "id": settled.id,
        "skill_id": settled.skill_id,
        "strategy": settled.strategy,
        "removed": settled.removed,
        "resolved_by": STARTED_BY,
    }
