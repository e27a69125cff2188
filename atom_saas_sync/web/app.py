"""The HTTP routes of `serve-health`: health, metrics, the admin API, the status page (cli.md, section "HTTP").

Only liveness runs in the event loop; whatever touches the database runs in threads, and syncs in processes, so that
nothing can delay it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from atom_saas_sync.config import Settings, require_agreement
from atom_saas_sync.core.comparison import conflict_document, conflict_line
from atom_saas_sync.core.documents import read_object
from atom_saas_sync.core.health import judge
from atom_saas_sync.core.reports import rating_document, status_document, sync_health_document
from atom_saas_sync.errors import AtomSyncError, DatabaseError, Locked, UsageError, WrongMarketplace
from atom_saas_sync.metrics import CONTENT_TYPE, render
from atom_saas_sync.model import STRATEGIES, ConflictFilter, Health, ScheduledJob, Status, Trouble
from atom_saas_sync.store.conflicts import ConflictLog
from atom_saas_sync.store.database import Database, exists
from atom_saas_sync.store.integrity import Signer
from atom_saas_sync.store.lifetime import Lifetime
from atom_saas_sync.store.migrations import current
from atom_saas_sync.store.ratings import Ratings
from atom_saas_sync.store.runs import Runs, runs_for
from atom_saas_sync.store.status import free_disk_gb, read_status
from atom_saas_sync.systemd import timers
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases.purge_cache import PurgeOptions, purge_cache
from atom_saas_sync.usecases.resolve_conflicts import Decision, Settled, resolve_conflicts
from atom_saas_sync.web.guard import Guard, TooLarge, TooSlow
from atom_saas_sync.web.jobs import STARTED_BY, Jobs
from atom_saas_sync.web.page import CONTENT_POLICY, status_page, unreadable_page
from atom_saas_sync.web.suggestions import suggested_route

_MOST_LISTED = 1000
_LARGEST_ID = 2**63 - 1

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    jobs: Jobs,
    now: Callable[[], datetime],
    timers: Callable[[], Sequence[ScheduledJob]] = timers,
) -> ASGIApp:
    """Return the application."""
    site = _Site(settings, jobs, now, timers)
    admin = "/api/admin/sync"
    routes = [
        Route("/", site.page),
        Route("/health/live", site.live),
        Route("/health/ready", site.ready),
        Route("/health/sync", site.sync_health),
        Route("/metrics/sync", site.metrics),
        Route(f"{admin}/status", site.status),
        Route(f"{admin}/config", site.config),
        Route(f"{admin}/jobs", site.list_jobs, methods=["GET"]),
        Route(f"{admin}/jobs", site.stop_jobs, methods=["DELETE"]),
        Route(f"{admin}/jobs", site.start_jobs, methods=["POST"]),
        Route(f"{admin}/skills", site.sync_skills, methods=["POST"]),
        Route(f"{admin}/ratings", site.sync_ratings, methods=["POST"]),
        Route(f"{admin}/conflicts", site.conflicts),
        Route(f"{admin}/conflicts/{{id:int}}", site.conflict),
        Route(f"{admin}/conflicts/{{id:int}}/resolve", site.resolve_one, methods=["POST"]),
        Route(f"{admin}/resolve", site.resolve_many, methods=["POST"]),
        Route(f"{admin}/ratings/status", site.rating_status),
        Route(f"{admin}/ratings/failed-uploads", site.failed_ratings),
        Route(f"{admin}/ratings/failed-uploads/{{id:int}}/retry", site.retry_rating, methods=["POST"]),
        Route(f"{admin}/cache/expired", site.purge, methods=["DELETE"]),
    ]
    admin_token = settings.admin_token.reveal() if settings.admin_token else None
    app = Starlette(
        routes=routes,
        exception_handlers={
            AtomSyncError: _tell_failure,
            TooLarge: _tell_too_large,
            TooSlow: _tell_too_slow,
            HTTPException: _tell_http_error,
            Exception: _tell_bug,
        },
    )
    app.router.redirect_slashes = False  # to an address made of whatever Host was sent
    app.router.default = _no_route(routes)
    # Around all of it, also around what answers for bugs.
    return Guard(app, admin_token=admin_token)


class _Site:
    """The routes. Those that are plain functions are run in threads."""

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        now: Callable[[], datetime],
        timers: Callable[[], Sequence[ScheduledJob]],
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._now = now
        self._timers = timers

    # Public

    async def live(self, _request: Request) -> Response:
        """Say that the process answers; nothing else is looked at."""
        return JSONResponse({"status": "healthy", "timestamp": format_time(self._now())})

    def ready(self, _request: Request) -> Response:
        """Say whether database, migrations and disk let us work: 200 or 503 with reasons."""
        reasons = []
        database, migrated = "connected", False
        try:
            status = self._read()
        except DatabaseError as error:
            _log.error("not ready: %s", error.message)
            database = "unavailable"
        else:
            migrated = not status.migrations_pending
            if not exists(self._settings.database_path):
                database = "unavailable"
            elif not migrated:
                reasons.append("migrations_pending")
        if database == "unavailable":
            reasons.append("database")
        free = self._free_disk_gb()
        if free is None or free < self._settings.min_free_disk_gb:
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
        """Say whether the cache is fresh and the WebSocket where it should be: 200 or 503 with reasons."""
        now = self._now()
        try:
            status = self._read()
            health = self._judge(status)
        except DatabaseError as error:
            _log.error("unhealthy: %s", error.message)
            status = Status(read_at=format_time(now), database_path="")
            health = Health((Trouble("database", error.message, error.hint or ""),))
        document = sync_health_document(status, health, now)
        return JSONResponse(document, status_code=200 if health.healthy else 503)

    def metrics(self, _request: Request) -> Response:
        """Return the metrics as Prometheus reads them."""
        try:
            text = render(self._read(), self._now())
        except DatabaseError as error:
            _log.error("no metrics: %s", error.message)
            return PlainTextResponse("# the database can't be read; the log says why\n", status_code=503)
        return Response(text, media_type=CONTENT_TYPE)

    def page(self, _request: Request) -> Response:
        """Return the status page for people."""
        now = self._now()
        headers = {"Content-Security-Policy": CONTENT_POLICY}
        try:
            status = self._read()
        except DatabaseError as error:
            _log.error("no status: %s", error.message)
            return HTMLResponse(unreadable_page(now), status_code=503, headers=headers)
        return HTMLResponse(status_page(status, self._judge(status), now), headers=headers)

    # The admin API, reading

    def status(self, _request: Request) -> Response:
        """Return what `status --json` prints."""
        status = self._read()
        return JSONResponse(status_document(status, self._judge(status), self._now()))

    def config(self, _request: Request) -> Response:
        """Return the effective configuration, secrets masked."""
        shown = [{"name": line.name, "value": line.value, "origin": line.origin} for line in self._settings.shown]
        return JSONResponse({"success": True, "settings": shown, "warnings": list(self._settings.warnings)})

    def list_jobs(self, _request: Request) -> Response:
        """Return the two periodic jobs, and when systemd's timers start them next, else `watch --jobs`."""
        status = self._read()
        try:
            planned = self._timers() or (status.jobs if status.websocket.alive else ())
        except AtomSyncError as error:
            _log.warning("systemd does not tell of its timers: %s", error.message)
            planned = ()
        return JSONResponse(
            {
                "success": True,
                "jobs": _jobs(planned, self._settings),
                "total": 2,
                "stopped": status.emergency_stop,
                "scheduler_enabled": self._settings.scheduler_enabled,
            }
        )

    def conflicts(self, request: Request) -> Response:
        """Return conflicts: those that wait, or with `?resolved=true` the others."""
        query = request.query_params
        wanted = ConflictFilter(
            severity=query.get("severity"),
            type=query.get("type"),
            skill_id=query.get("skill_id"),
            resolved=query.get("resolved", "false").lower() == "true",
        )
        with self._conflict_log() as log:
            found = log.list_conflicts(wanted, limit=_limit(request))
            total = log.count(wanted)
        return JSONResponse({"success": True, "conflicts": [conflict_line(each) for each in found], "total": total})

    def conflict(self, request: Request) -> Response:
        """Return one conflict, whole."""
        with self._conflict_log() as log:
            found = log.conflict(_id(request))
        if found is None:
            raise HTTPException(404, f"there is no conflict {_id(request)}")
        return JSONResponse({"success": True, "conflict": conflict_document(found)})

    def rating_status(self, _request: Request) -> Response:
        """Return how many ratings there are in each state, and how the last sync of them went."""
        status = self._read()
        last = status.last_runs.get("ratings")
        return JSONResponse(
            {
                "success": True,
                "pending": status.ratings_pending,
                "synced": status.ratings_synced,
                "failed": status.ratings_failed,
                "running": "ratings" in status.running,
                "last_sync_at": last.finished_at if last else None,
                "last_status": last.status if last else None,
                "last_successful_sync_at": status.last_rating_success_at,
            }
        )

    def failed_ratings(self, request: Request) -> Response:
        """Return the ratings that could not be sent, and why."""
        with self._database() as database:
            found, total = Ratings(database).listed(state="failed", limit=_limit(request))
        failed = [{**rating_document(each), "rating_id": each.id} for each in found]
        return JSONResponse({"success": True, "failed": failed, "total": total})

    # The admin API, doing

    def retry_rating(self, request: Request) -> Response:
        """Make a failed rating pending again: the next sync of ratings sends it."""
        rating_id = _id(request)
        with self._database() as database:
            retried = Ratings(database).retry([rating_id], actor=STARTED_BY, now=self._now())
        if not retried:
            raise HTTPException(404, f"no failed upload of a rating {rating_id}")
        return JSONResponse({"success": True, "rating_id": rating_id, "status": "pending"})

    def sync_skills(self, _request: Request) -> Response:
        """Start a sync of categories and skills."""
        return self._start("skills")

    def sync_ratings(self, _request: Request) -> Response:
        """Start a sync of ratings."""
        return self._start("ratings")

    def stop_jobs(self, _request: Request) -> Response:
        """Switch the emergency stop on."""
        with self._database() as database:
            Runs(database).stop_scheduling(actor=STARTED_BY, now=self._now())
        return JSONResponse({"success": True, "stopped": True})

    def start_jobs(self, _request: Request) -> Response:
        """Switch the emergency stop off."""
        with self._database() as database:
            Runs(database).resume_scheduling(actor=STARTED_BY, now=self._now())
        return JSONResponse({"success": True, "stopped": False})

    def purge(self, _request: Request) -> Response:
        """Remove expired entries, as `cache purge` does."""
        with self._database() as database:
            options = PurgeOptions(strict=self._settings.cache_strict_ttl)
            purged = purge_cache(Lifetime(database), options, actor=STARTED_BY, now=self._now())
        kept = purged.kept_stale
        return JSONResponse(
            {
                "success": True,
                "skills_removed": len(purged.removed.skills),
                "categories_removed": len(purged.removed.categories),
                "kept_stale": 0 if kept is None else len(kept.skills) + len(kept.categories),
            }
        )

    async def resolve_one(self, request: Request) -> Response:
        """Resolve one conflict: `{"strategy": S}`, `{"fields": {NAME: SIDE}}` or `{"data": {SKILL}}`."""
        body = await _json_body(request)
        return await run_in_threadpool(self._resolve, [_id(request)], body)

    async def resolve_many(self, request: Request) -> Response:
        """Resolve several: `{"conflict_ids": […], …}`, `{"conflict_id": N, …}` or `{"all": true, …}`."""
        body = await _json_body(request)
        return await run_in_threadpool(self._resolve, _wanted(body), body)

    def _resolve(self, wanted: list[int] | ConflictFilter, body: dict[str, Any]) -> Response:
        with self._conflict_log() as log:
            # Who decides is who showed the token, whatever the body says.
            settled = resolve_conflicts(log, wanted, _decision(body), actor=STARTED_BY, now=self._now())
        return JSONResponse(
            {"success": True, "resolved": [_settled(each) for each in settled], "total": len(settled)},
        )

    def _start(self, kind: str) -> Response:
        require_agreement(self._settings)
        self._refuse_other_marketplace()
        run_id = self._jobs.start(kind)
        return JSONResponse({"success": True, "run_id": run_id, "status": "running"}, status_code=202)

    # Edges

    def _read(self) -> Status:
        settings = self._settings
        return read_status(
            settings.database_path,
            now=self._now(),
            per_minute=settings.rate_limit_per_minute,
            per_hour=settings.rate_limit_per_hour,
        )

    def _judge(self, status: Status) -> Health:
        settings = self._settings
        return judge(
            status,
            self._now(),
            sync_interval_minutes=settings.sync_interval_minutes,
            enabled=settings.enabled,
            websocket_enabled=settings.ws_enabled,
            api_url=settings.api_url,
        )

    def _free_disk_gb(self) -> float | None:
        try:
            return round(free_disk_gb(self._settings.database_path), 1)
        except DatabaseError as error:
            _log.error("not ready: %s", error.message)
            return None

    def _database(self) -> Database:
        return Database.open(self._settings.database_path, create=False)

    def _refuse_other_marketplace(self) -> None:
        if exists(self._settings.database_path):
            with Database.open(self._settings.database_path, migrate=False, read_only=True) as database:
                if current(database):
                    runs_for(self._settings.api_url, database)

    @contextmanager
    def _conflict_log(self) -> Iterator[ConflictLog]:
        with self._database() as database:
            key = self._settings.digest_key
            signer = None if key is None else Signer(bytes.fromhex(key.reveal()))
            yield ConflictLog(database, history_versions=self._settings.history_versions, signer=signer)


def _jobs(planned: Sequence[ScheduledJob], settings: Settings) -> list[dict[str, Any]]:
    when = {job.id: job.next_run_time for job in planned}
    jobs = (
        ("skill-sync-atom-saas", "Skill Sync with Atom SaaS", settings.sync_interval_minutes),
        ("rating-sync-atom-saas", "Rating Sync with Atom SaaS", settings.rating_sync_interval_minutes),
    )
    return [
        {"id": name, "name": title, "next_run_time": when.get(name), "trigger": "interval", "minutes": minutes}
        for name, title, minutes in jobs
    ]


async def _json_body(request: Request) -> dict[str, Any]:
    return read_object(await request.body() or b"{}", "the request's body")


def _id(request: Request) -> int:
    number: int = request.path_params["id"]
    if number > _LARGEST_ID:
        raise HTTPException(404, "there is nothing of that number")
    return number


def _limit(request: Request) -> int:
    limit = request.query_params.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,4}", limit) or not 1 <= int(limit) <= _MOST_LISTED:
        raise UsageError(f"limit takes a number from 1 to {_MOST_LISTED}")
    return int(limit)


def _wanted(body: dict[str, Any]) -> list[int] | ConflictFilter:
    if body.get("all") is True:
        return ConflictFilter()
    ids = body.get("conflict_ids", [body["conflict_id"]] if "conflict_id" in body else [])
    if not isinstance(ids, list) or not ids or not all(type(each) is int and 0 < each <= _LARGEST_ID for each in ids):
        raise UsageError('say which: {"conflict_id": N}, {"conflict_ids": [N, …]} or {"all": true}')
    return ids


def _decision(body: dict[str, Any]) -> Decision:
    strategy, fields, data = body.get("strategy"), body.get("fields", {}), body.get("data")
    if strategy is not None and strategy not in STRATEGIES:
        raise UsageError(f"strategy takes {', '.join(STRATEGIES)}")
    if not isinstance(fields, dict) or not all(side in ("local", "remote") for side in fields.values()):
        raise UsageError('fields takes {NAME: "local" or "remote"}')
    if data is not None and (strategy is not None or fields or not isinstance(data, dict)):
        raise UsageError("data is a whole skill, and decides everything by itself: no strategy, no fields besides")
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


def _failure(status: int, kind: str, message: str, hint: str | None = None) -> Response:
    document = {"success": False, "error": {"type": kind, "message": message, "hint": hint}}
    return JSONResponse(document, status_code=status)


def _no_route(routes: Sequence[Route]) -> ASGIApp:
    """Return what answers for a path without a route: its hint names the route that was probably meant."""
    paths = [re.sub(r":\w+}", "}", route.path) for route in routes if route.path != "/"]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = _failure(404, "not_found", "there is no such route", suggested_route(scope["path"], paths))
        await response(scope, receive, send)

    return answer


def _tell_failure(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AtomSyncError)
    statuses = {UsageError: 400, Locked: 409, WrongMarketplace: 409, DatabaseError: 503}
    status = next((status for kind, status in statuses.items() if isinstance(error, kind)), 500)
    if status >= 500:  # noqa: PLR2004 - ours, not theirs
        _log.error("%s", error.message)
    kind = UsageError.kind if isinstance(error, UsageError) else error.kind
    return _failure(status, kind, error.message, error.hint)


def _tell_too_large(_request: Request, error: Exception) -> Response:
    return _failure(413, "too_large", str(error))


def _tell_too_slow(_request: Request, error: Exception) -> Response:
    return _failure(408, "too_slow", str(error))


def _tell_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code != 405:  # noqa: PLR2004 - Method Not Allowed
        return _failure(error.status_code, "usage", str(error.detail))
    routes = [each for each in request.app.routes if each.path_regex.match(request.url.path)]
    allowed = ", ".join(sorted({method for route in routes for method in route.methods}))
    response = _failure(405, "usage", f"{request.method} is not a method of this route", f"use {allowed}")
    response.headers["allow"] = allowed
    return response


def _tell_bug(_request: Request, _error: Exception) -> Response:
    """Say that it is our fault; the server logs the trace."""
    return _failure(500, "internal", "an error of atom-sync itself; the log has the details")
