"""The admin API: status, settings, jobs, ratings, cache. Conflicts are in conflicts.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atom_saas_sync.config import Settings, require_agreement
from atom_saas_sync.core.reports import rating_document, status_document
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import ScheduledJob
from atom_saas_sync.times import time_text
from atom_saas_sync.usecases.purge_cache import PurgeOptions, purge_cache
from atom_saas_sync.web.jobs import STARTED_BY, Jobs
from atom_saas_sync.web.requests import page_of
from atom_saas_sync.web.site import Site

_log = logging.getLogger(__name__)


class AdminRoutes:
    """Routes that need the admin token. All are plain functions, which are run in threads."""

    def __init__(self, site: Site, jobs: Jobs, timers: Callable[[], Sequence[ScheduledJob]]) -> None:
        self._site = site
        self._jobs = jobs
        self._timers = timers

    def status(self, _request: Request) -> Response:
        """Return the document of `status --json`."""
        status = self._site.read()
        return JSONResponse(status_document(status, self._site.health(status), self._site.now()))

    def config(self, _request: Request) -> Response:
        """Return the effective configuration, secrets masked."""
        shown = [{"name": line.name, "value": line.value, "origin": line.origin} for line in self._site.settings.shown]
        return JSONResponse({"success": True, "settings": shown, "warnings": list(self._site.settings.warnings)})

    def list_jobs(self, _request: Request) -> Response:
        """Return the two periodic jobs, and when systemd timers or `watch --jobs` start them next."""
        status = self._site.read()
        try:
            planned = self._timers() or (status.jobs if status.websocket.alive else ())
        except AtomSyncError as error:
            _log.warning("could not query systemd's timers: %s", error.message)
            planned = ()
        return JSONResponse(
            {
                "success": True,
                "jobs": _jobs(planned, self._site.settings),
                "total": 2,
                "stopped": status.emergency_stop,
                "scheduler_enabled": self._site.settings.scheduler_enabled and not status.auto_sync_off,
            }
        )

    def rating_status(self, _request: Request) -> Response:
        """Return the number of ratings in each state, and the result of their last sync."""
        status = self._site.read()
        last = status.last_runs.get("ratings")
        return JSONResponse(
            {
                "success": True,
                "pending": status.ratings_pending,
                "synced": status.ratings_synced,
                "failed": status.ratings_failed,
                "running": "ratings" in status.running,
                "last_sync_at": time_text(last.finished_at) if last else None,
                "last_status": last.status if last else None,
                "last_successful_sync_at": time_text(status.last_rating_success_at),
            }
        )

    def failed_ratings(self, request: Request) -> Response:
        """Return the ratings that could not be sent, and why."""
        page = page_of(request.query_params)
        with self._site.store() as store:
            found, total = store.own_ratings().listed(state="failed", limit=page.size, offset=page.offset)
        failed = [{**rating_document(each), "rating_id": each.id} for each in found]
        return JSONResponse({"success": True, "failed": failed, "total": total, **page.document()})

    def retry_rating(self, request: Request) -> Response:
        """Make a failed rating pending again: the next sync of ratings sends it."""
        rating_id = request.path_params["id"]
        with self._site.store() as store:
            retried = store.own_ratings().retry([rating_id], actor=STARTED_BY, now=self._site.now())
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
        with self._site.store() as store:
            store.runs().stop_scheduling(actor=STARTED_BY, now=self._site.now())
        return JSONResponse({"success": True, "stopped": True})

    def start_jobs(self, _request: Request) -> Response:
        """Switch the emergency stop off."""
        with self._site.store() as store:
            store.runs().resume_scheduling(actor=STARTED_BY, now=self._site.now())
        return JSONResponse({"success": True, "stopped": False})

    def purge(self, _request: Request) -> Response:
        """Remove expired entries, as `cache purge` does."""
        with self._site.store() as store:
            options = PurgeOptions(strict=self._site.settings.cache_strict_ttl)
            purged = purge_cache(store.lifetime(), options, actor=STARTED_BY, now=self._site.now())
        kept = purged.kept_stale
        return JSONResponse(
            {
                "success": True,
                "skills_removed": len(purged.removed.skills),
                "categories_removed": len(purged.removed.categories),
                "kept_stale": 0 if kept is None else len(kept.skills) + len(kept.categories),
            }
        )

    def _start(self, kind: str) -> Response:
        require_agreement(self._site.settings)
        self._site.refuse_other_marketplace()
        run_id = self._jobs.start(kind)
        return JSONResponse({"success": True, "run_id": run_id, "status": "running"}, status_code=202)


def _jobs(planned: Sequence[ScheduledJob], settings: Settings) -> list[dict[str, Any]]:
    when = {job.id: time_text(job.next_run_time) for job in planned}
    jobs = (
        ("skill-sync-atom-saas", "Skill Sync with Atom SaaS", settings.sync_interval_minutes),
        ("rating-sync-atom-saas", "Rating Sync with Atom SaaS", settings.rating_sync_interval_minutes),
    )
    return [
        {
            "id": name,
            "name": title,
            "next_run_time": when.get(name),
            "trigger": "interval",
            "minutes": minutes,
        }
        for name, title, minutes in jobs
    ]
