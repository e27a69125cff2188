"""The HTTP application of `serve-health`: its routes and error responses (docs/API_DOCUMENTATION.md).

Only the liveness probe runs in the event loop. Everything that uses the database runs in threads, and syncs run in
processes, so that nothing can delay it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from atom_saas_sync.config import Settings
from atom_saas_sync.errors import (
    AtomSyncError,
    ConfigError,
    DatabaseError,
    Locked,
    NotAdmitted,
    UsageError,
    WrongMarketplace,
)
from atom_saas_sync.model import ScheduledJob
from atom_saas_sync.systemd import timers
from atom_saas_sync.usecases.foreign_values import explained
from atom_saas_sync.web.admin import AdminRoutes
from atom_saas_sync.web.conflicts import ConflictRoutes
from atom_saas_sync.web.guard import ADMIN_PREFIX, Gone, Guard, TooLarge, TooSlow
from atom_saas_sync.web.health import HealthRoutes
from atom_saas_sync.web.jobs import Jobs
from atom_saas_sync.web.requests import FILTERS, PAGING, refuse_unknown
from atom_saas_sync.web.site import Site
from atom_saas_sync.web.suggestions import suggested_route
from atom_saas_sync.web.updates import UPDATE_FILTERS, UpdateRoutes
from atom_saas_sync.web.websocket import WebSocketRoutes

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports.engine import Engine

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    jobs: Jobs,
    now: Callable[[], datetime],
    timers: Callable[[], Sequence[ScheduledJob]] = timers,
) -> ASGIApp:
    """Return the application."""
    site = Site(settings, now)
    health, websocket = HealthRoutes(site), WebSocketRoutes(site)
    admin, conflicts, updates = AdminRoutes(site, jobs, timers), ConflictRoutes(site), UpdateRoutes(site)
    routes: list[Route] = [
        Route("/", health.page),
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/health/sync", health.sync_health),
        Route("/metrics/sync", health.metrics),
        AdminRoute("/status", admin.status),
        AdminRoute("/config", admin.config),
        AdminRoute("/jobs", admin.list_jobs),
        AdminRoute("/jobs", admin.stop_jobs, "DELETE"),
        AdminRoute("/jobs", admin.start_jobs, "POST"),
        AdminRoute("/trigger", admin.sync_skills, "POST"),
        AdminRoute("/skills", admin.sync_skills, "POST"),
        AdminRoute("/ratings", admin.sync_ratings, "POST"),
        AdminRoute("/conflicts", conflicts.conflicts, query=(*FILTERS, *PAGING)),
        AdminRoute("/conflicts/bulk-resolve", conflicts.resolve_listed, "POST", query=("strategy",)),
        AdminRoute("/conflicts/{id:int}", conflicts.conflict),
        AdminRoute("/conflicts/{id:int}/resolve", conflicts.resolve_one, "POST", query=("strategy",)),
        AdminRoute("/resolve", conflicts.resolve_many, "POST", query=("strategy",)),
        AdminRoute("/ratings/status", admin.rating_status),
        AdminRoute("/ratings/failed-uploads", admin.failed_ratings, query=PAGING),
        AdminRoute("/ratings/failed-uploads/{id}/retry", admin.retry_rating, "POST"),
        AdminRoute("/updates", updates.updates, query=(*UPDATE_FILTERS, *PAGING)),
        AdminRoute("/updates/{id:path}/approve", updates.approve, "POST"),
        AdminRoute("/updates/{id:path}/reject", updates.reject, "POST"),
        AdminRoute("/websocket/status", websocket.status),
        AdminRoute("/websocket/reconnect", websocket.reconnect, "POST"),
        AdminRoute("/websocket/enable", websocket.enable, "POST"),
        AdminRoute("/websocket/disable", websocket.disable, "POST"),
        AdminRoute("/cache/expired", admin.purge, "DELETE"),
    ]
    admin_token = settings.admin_token.reveal() if settings.admin_token else None
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Explaining, engine=site.engine)],
        exception_handlers={
            AtomSyncError: _tell_failure,
            TooLarge: _tell_too_large,
            TooSlow: _tell_too_slow,
            Gone: _tell_gone,
            HTTPException: _tell_http_error,
            Exception: _tell_bug,
        },
    )
    app.router.redirect_slashes = False  # to an address built from the client's Host header
    app.router.default = _no_route(routes)
    # Wraps everything, including the handler for bugs.
    return Guard(app, admin_token=admin_token)


class Explaining:
    """Answers 503, as for other faults of the database, if its values explain an error of the application."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        try:
            await self._app(scope, receive, send)
        except Exception as bug:
            found = await run_in_threadpool(explained, self._engine)
            if found is None:
                raise
            _log.debug("values of another program ended a request", exc_info=bug)
            await _tell_failure(Request(scope), found)(scope, receive, send)


class AdminRoute(Route):
    """A route of the admin API; `query` names its parameters. Any other parameter is answered with 400."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], method: str = "GET", *, query: Sequence[str] = ()
    ) -> None:
        super().__init__(f"{ADMIN_PREFIX}/sync{path}", endpoint, methods=[method])
        self._query = query

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, unless its query or method is not allowed on this route."""
        if self.methods and scope["method"] in self.methods:
            refuse_unknown(QueryParams(scope["query_string"]), self._query)
        await super().handle(scope, receive, send)


def _failure(status: int, kind: str, message: str, hint: str | None = None) -> Response:
    document = {"success": False, "error": {"type": kind, "message": message, "hint": hint}}
    return JSONResponse(document, status_code=status)


def _no_route(routes: Sequence[Route]) -> ASGIApp:
    """Return the handler for unknown paths; its hint names the route that was probably meant."""
    paths = [re.sub(r":\w+}", "}", route.path) for route in routes if route.path != "/"]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = _failure(404, "not_found", "there is no such route", suggested_route(scope["path"], paths))
        await response(scope, receive, send)

    return answer


def _tell_failure(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AtomSyncError)
    statuses = {
        NotAdmitted: 409,
        UsageError: 400,
        Locked: 409,
        WrongMarketplace: 409,
        ConfigError: 503,
        DatabaseError: 503,
    }
    status = next((status for kind, status in statuses.items() if isinstance(error, kind)), 500)
    if status >= 500:  # noqa: PLR2004 - ours, not theirs
        _log.error("%s", error.message)
    plain = isinstance(error, UsageError) and not isinstance(error, NotAdmitted)
    kind = UsageError.kind if plain else error.kind
    return _failure(status, kind, error.message, error.hint)


def _tell_too_large(_request: Request, error: Exception) -> Response:
    return _failure(413, "too_large", str(error))


def _tell_too_slow(_request: Request, error: Exception) -> Response:
    return _failure(408, "too_slow", str(error))


def _tell_gone(_request: Request, error: Exception) -> Response:
    return _failure(400, "bad_request", str(error))


def _tell_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code != 405:  # noqa: PLR2004 - Method Not Allowed
        return _failure(error.status_code, "usage", str(error.detail))
    routes = [each for each in request.app.routes if each.path_regex.match(request.url.path)]
    allowed = ", ".join(sorted({method for route in routes for method in route.methods}))
    response = _failure(405, "usage", f"{request.method[:20]} is not a method of this route", f"use {allowed}")
    response.headers["allow"] = allowed
    return response


def _tell_bug(_request: Request, _error: Exception) -> Response:
    """Report a bug of ours; the server logs the traceback."""
    return _failure(500, "internal", "internal error; see the log for details")
