"""The public routes: probes, metrics, and the page for people."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from atom_saas_sync.core.reports import sync_health_document
from atom_saas_sync.errors import ConfigError, DatabaseError
from atom_saas_sync.metrics import CONTENT_TYPE, render
from atom_saas_sync.model import Health, HealthIssue, Status
from atom_saas_sync.times import format_time
from atom_saas_sync.web.page import CONTENT_POLICY, status_page, unreadable_page
from atom_saas_sync.web.site import Site

# A server refuses a wrong name or password with ConfigError; its message names the server, which is not public.
_UNREADABLE = DatabaseError, ConfigError
_log = logging.getLogger(__name__)


class HealthRoutes:
    """Routes that need no token. Those that are plain functions are run in threads."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def live(self, _request: Request) -> Response:
        """Report that the process responds; checks nothing else."""
        return JSONResponse({"status": "healthy", "timestamp": format_time(self._site.now())})

    def ready(self, _request: Request) -> Response:
        """Report whether database, migrations and disk are usable: 200, or 503 with reasons."""
        reasons = []
        database, migrated = "connected", False
        try:
            status, exists = self._site.state()
        except _UNREADABLE as error:
            _log.error("not ready: %s", error.message)
            database = "unavailable"
        else:
            migrated = not status.migrations_pending
            if not exists:
                database = "unavailable"
            elif not migrated:
                reasons.append("migrations_pending")
        if database == "unavailable":
            reasons.append("database")
        free = None
        try:
            free = self._site.engine.free_disk_gb()
        except _UNREADABLE as error:
            _log.error("not ready: %s", error.message)
            reasons.append("disk_space")
        if free is not None and (free := round(free, 1)) < self._site.settings.min_free_disk_gb:
            reasons.append("disk_space")
        document = {
            "status": "not_ready" if reasons else "ready",
            "database": database,
            "disk_space_gb": free,
            "migrations_applied": migrated,
            **({"reasons": reasons} if reasons else {}),
        }
        return JSONResponse(document, status_code=503 if reasons else 200)

    def sync_health(self, _request: Request) -> Response:
        """Report whether the cache is fresh and the WebSocket connected if expected: 200, or 503 with reasons."""
        now = self._site.now()
        try:
            status = self._site.read()
            health = self._site.health(status)
        except _UNREADABLE as error:
            _log.error("unhealthy: %s", error.message)
            status = Status(read_at=now, database_path="")
            health = Health((HealthIssue("database", error.message, error.hint or ""),))
        document = sync_health_document(status, health, now)
        return JSONResponse(document, status_code=200 if health.healthy else 503)

    def metrics(self, _request: Request) -> Response:
        """Return the metrics in Prometheus' format."""
        try:
            text = render(self._site.read(), self._site.now())
        except _UNREADABLE as error:
            _log.error("no metrics: %s", error.message)
            return PlainTextResponse("# the database can't be read; the log says why\n", status_code=503)
        return Response(text, media_type=CONTENT_TYPE)

    def page(self, _request: Request) -> Response:
        """Return the status page for people."""
        now = self._site.now()
        headers = {"Content-Security-Policy": CONTENT_POLICY}
        try:
            status = self._site.read()
        except _UNREADABLE as error:
            _log.error("no status: %s", error.message)
            return HTMLResponse(unreadable_page(now), status_code=503, headers=headers)
        return HTMLResponse(status_page(status, self._site.health(status), now), headers=headers)
