"""The state of our units in systemd, as used by `jobs`, `doctor` and HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from atom_saas_sync.config import load_settings
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import ScheduledJob
from atom_saas_sync.systemd import Unit, timers, units
from atom_saas_sync.web.app import create_app
from atom_saas_sync.web.jobs import Jobs

NOON = 1_771_502_400_000_000  # 2026-02-19 12:00 UTC, in microseconds
LISTED = [
    {"next": NOON, "left": 1, "unit": "atom-sync-ratings.timer", "activates": "atom-sync-ratings.service"},
    {"next": NOON + 60_000_000, "unit": "atom-sync-skills.timer", "activates": "atom-sync-skills.service"},
    {"next": 0, "unit": "atom-sync-mine.timer", "activates": "atom-sync-mine.service"},
    {"next": None, "unit": "atom-sync-purge.timer", "activates": "atom-sync-purge.service"},
]


def test_timers_are_the_jobs_by_the_names_that_watch_gives_them() -> None:
    asked: list[str] = []

    def ask(*question: str) -> str:
        asked.extend(question)
        return json.dumps(LISTED)

    noon = datetime(2026, 2, 19, 12, tzinfo=UTC)
    assert timers(ask) == [
        ScheduledJob("skill-sync-atom-saas", "Skill Sync with Atom SaaS", None, noon + timedelta(minutes=1)),
        ScheduledJob("rating-sync-atom-saas", "Rating Sync with Atom SaaS", None, noon),
        ScheduledJob("cache-purge-atom-saas", "Purge of Expired Entries", None, None),
        ScheduledJob("atom-sync-mine.timer", "atom-sync-mine.timer", None, None),
    ]
    assert asked[0] == "list-timers"


@pytest.mark.parametrize("text", ["", "no JSON", "null", "7", "[7]", "{}x", '[{"next": 1}]', '{"unit": 1}'])
def test_an_invalid_list_of_timers_is_reported(text: str) -> None:
    with pytest.raises(AtomSyncError, match="did not print a list of timers"):
        timers(lambda *_: text)


@pytest.mark.parametrize("system", [None, "[]"])
def test_without_timers_of_the_system_those_of_the_user_are_the_jobs(system: str | None) -> None:
    own = timers(lambda *_: system, lambda *_: json.dumps(LISTED[:1]))
    assert [job.id for job in own] == ["rating-sync-atom-saas"]
    first = timers(lambda *_: json.dumps(LISTED[1:2]), lambda *_: pytest.fail("it is not asked"))
    assert [job.id for job in first] == ["skill-sync-atom-saas"]


def test_without_systemd_there_are_no_timers() -> None:
    assert timers(lambda *_: None, lambda *_: None) == []
    assert units(lambda *_: None, lambda *_: None) == []


def test_units_have_their_state() -> None:
    text = """\
atom-sync-skills.service loaded failed failed  atom-sync: skills and categories
atom-sync-skills.timer   loaded active waiting atom-sync: skills and categories, every 15 minutes
atom-sync-gone.service   not-found inactive dead atom-sync-gone.service

"""
    assert units(lambda *_: text) == [
        Unit("atom-sync-skills.service", "failed"),
        Unit("atom-sync-skills.timer", "active"),
        Unit("atom-sync-gone.service", "inactive"),
    ]


@pytest.mark.parametrize("system", [None, ""])
def test_without_units_of_the_system_those_of_the_user_are_found(system: str | None) -> None:
    own = "atom-sync-watch.service loaded failed failed atom-sync: changes as they happen\n"
    assert units(lambda *_: system, lambda *_: own) == [Unit("atom-sync-watch.service", "failed", own=True)]


def _refuse() -> list[ScheduledJob]:
    raise AtomSyncError("`systemctl list-timers` failed: access denied")


@pytest.mark.parametrize(
    ("ask", "next_runs"),
    [
        (lambda: timers(lambda *_: json.dumps(LISTED)), ["2026-02-19T12:01:00Z", "2026-02-19T12:00:00Z"]),
        (lambda: timers(lambda *_: None), [None, None]),
        (_refuse, [None, None]),
    ],
)
def test_http_shows_when_the_timers_start_the_jobs(ask: Any, next_runs: list[str | None], tmp_path: Path) -> None:
    environ = {"ATOM_SAAS_DATABASE_URL": str(tmp_path / "atom.db"), "ATOM_SYNC_ADMIN_TOKEN": "open-sesame-of-the-tests"}
    settings = load_settings(environ, working_directory=tmp_path)

    def now() -> datetime:
        return datetime(2026, 2, 19, 11, 50, tzinfo=UTC)

    app = create_app(settings, Jobs([], lambda *_: None, now), now, ask)

    async def ask_for_jobs() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as client:
            return await client.get(
                "/api/admin/sync/jobs", headers={"Authorization": "Bearer open-sesame-of-the-tests"}
            )

    answer = asyncio.run(ask_for_jobs())
    assert answer.status_code == 200
    listed = answer.json()["jobs"]
    assert [job["id"] for job in listed] == ["skill-sync-atom-saas", "rating-sync-atom-saas"]
    assert [job["next_run_time"] for job in listed] == next_runs
    assert [job["minutes"] for job in listed] == [15, 30]
