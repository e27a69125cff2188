"""The admin API: listing, approving and rejecting waiting updates."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atom_saas_sync.core.gate.digests import whole_digest
from atom_saas_sync.errors import UsageError
from atom_saas_sync.usecases.gate.approvals import approve, reject
from atom_saas_sync.usecases.gate.documents import decided_document, update_document
from atom_saas_sync.usecases.gate.reports import CHANGED, NOT_WAITING, Decided, Target
from atom_saas_sync.usecases.gate.updates import list_updates
from atom_saas_sync.web.requests import json_body, page_of
from atom_saas_sync.web.site import Site

ACTOR = "admin-api"
"""Who decided: the holder of the token, whatever the body says."""

UPDATE_FILTERS = ("reason", "skill")
"""The query parameters of the list, besides those for paging."""

_LONGEST_NOTE = 1000
_REFUSALS = {
    CHANGED: ("another version is waiting by now", "GET the list again, and review it first"),
    NOT_WAITING: ("no update of this skill is waiting", "GET the list of updates: ids must be whole"),
}


class _Decide(Protocol):
    def __call__(self, desk: Any, targets: list[Target], *, note: str | None, actor: str, now: Any) -> Decided: ...  # noqa: ANN401 - as the use case has it


class UpdateRoutes:
    """Routes that need the admin token. Those that are plain functions are run in threads."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def updates(self, request: Request) -> Response:
        """Return what waits; `?reason=` and `?skill=` (a shell pattern) filter it."""
        query, page = request.query_params, page_of(request.query_params)
        with self._site.gate_desk() as desk:
            found = list_updates(
                desk, reason=query.get("reason"), pattern=query.get("skill"), limit=page.offset + page.size
            )
        rows = [update_document(each) for each in found.updates[page.offset :]]
        return JSONResponse({"success": True, "updates": rows, "total": found.total, **page.document()})

    async def approve(self, request: Request) -> Response:
        """Approve one version: `{"digest": "sha256:…", "note": "…"}`."""
        return await self._decided(request, approve, "approved")

    async def reject(self, request: Request) -> Response:
        """Reject one version, likewise."""
        return await self._decided(request, reject, "rejected")

    async def _decided(self, request: Request, decide: _Decide, verb: str) -> Response:
        digest, note = _decision(await json_body(request))
        target = Target(request.path_params["id"], digest.hex())

        def carry_out() -> Decided:
            with self._site.gate_desk() as desk:
                return decide(desk, [target], note=note, actor=ACTOR, now=self._site.now())

        return _answer(await run_in_threadpool(carry_out), verb)


def _decision(body: dict[str, Any]) -> tuple[bytes, str | None]:
    digest, note = whole_digest(body.get("digest")), body.get("note")
    if digest is None:
        raise UsageError(
            "invalid digest: expected sha256: and 64 hexadecimal digits",
            hint="offered_digest of the update that was looked at",
        )
    if note is not None and not (isinstance(note, str) and len(note) <= _LONGEST_NOTE):
        raise UsageError(f"invalid note: expected a string of at most {_LONGEST_NOTE:,} characters")
    return digest, note


def _answer(decided: Decided, verb: str) -> Response:
    document = decided_document(decided, verb)
    if decided.success:
        return JSONResponse(document)
    reason = decided.refused[0].reason
    message, hint = _REFUSALS.get(reason, (f"refused: {reason}", "`atom-sync policy explain ID` says why"))
    document["error"] = {"type": reason, "message": message, "hint": hint}
    return JSONResponse(document, status_code=404 if reason == NOT_WAITING else 409)
