"""The periodic jobs of `watch --jobs`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Never

from msgspec import Struct

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import ScheduledJob
from atom_saas_sync.usecases.schedule import first_run, next_run, spread
from atom_saas_sync.usecases.watch.background import BackgroundRuns
from atom_saas_sync.usecases.watch.edges import Clock, Write

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import JobStore


log = logging.getLogger(__name__)


class Job(Struct, frozen=True):
    """A periodic job; `kind` is the kind of its runs in the audit trail, and `run` blocks."""

    id: str
    name: str
    kind: str
    minutes: int
    run: Callable[[], object]


class PeriodicJobs:
    """Runs the jobs, and stores when each runs next. `jitter` returns numbers from 0 to 1.

    `ask` reads from the store, and waits while another program has its tables locked.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        schedule: JobStore,
        write: Write,
        ask: Write,
        runs: BackgroundRuns,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._schedule = schedule
        self._write = write
        self._ask = ask
        self._runs = runs
        self._clock = clock
        self._jitter = jitter
        self._replaced = asyncio.Event()

    def include(self, kind: str) -> bool:
        """Tell whether one of the jobs has this kind."""
        return any(job.kind == kind for job in self._jobs)

    def replace(self, jobs: Sequence[Job]) -> None:
        """Replace the jobs; a running one finishes."""
        if [(job.id, job.minutes) for job in jobs] != [(job.id, job.minutes) for job in self._jobs]:
            self._jobs = jobs
            self._replaced.set()

    async def withdraw(self) -> None:
        """Store that no jobs are planned. Raises DatabaseError."""
        if self._jobs:
            await self._write(self._schedule.plan, (), self._clock.now())

    async def run(self) -> Never:
        """Run the jobs when they are due, and plan again when they were replaced."""
        while True:
            self._replaced.clear()
            planned = await self._plan()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._keep_running(job, planned)) for job in self._jobs]
                await self._replaced.wait()
                for task in tasks:
                    task.cancel()

    async def _plan(self) -> dict[str, datetime]:
        now = self._clock.now()
        planned: dict[str, datetime] = {}
        for job in self._jobs:
            last = await self._ask(self._schedule.last_started, job.kind)
            planned[job.id] = first_run(last, timedelta(minutes=job.minutes), now, self._jitter())
        await self._write_plan(planned)
        return planned

    async def _keep_running(self, job: Job, planned: dict[str, datetime]) -> None:
        interval = timedelta(minutes=job.minutes)
        while True:
            while (wait := (planned[job.id] - self._clock.now()).total_seconds()) > 0:
                await asyncio.sleep(min(wait, 60.0))  # the wall clock may be changed
                if planned[job.id] > (latest := self._clock.now() + interval + spread(interval)):
                    planned[job.id] = latest
                    await self._write_plan(planned)
            if not await self._ask(self._schedule.stopped):
                await self._runs.run(job.run)
            else:
                log.info("%s: the emergency stop is on (`atom-sync jobs start` ends it): nothing done", job.name)
            planned[job.id] = next_run(planned[job.id], interval, self._clock.now())
            await self._write_plan(planned)

    async def _write_plan(self, planned: dict[str, datetime]) -> None:
        jobs = [ScheduledJob(job.id, job.name, job.minutes, planned[job.id]) for job in self._jobs]
        try:
            await self._write(self._schedule.plan, jobs, self._clock.now())
        except DatabaseError as error:
            log.warning("could not write the schedule: %s", error.message)
