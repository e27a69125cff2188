"""Run `watch` in a thread of this process, with a clock that can be moved."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from conftest import Machine
from watch_support import PATIENCE

from atom_saas_sync.core.connection import ConnectionRules
from atom_saas_sync.marketplace.websocket import open_link
from atom_saas_sync.model import RunReport
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.watch.edges import Connection
from atom_saas_sync.usecases.watch.jobs import Job
from atom_saas_sync.usecases.watch.service import Watch, WatchSettings


class JumpingClock:
    """The real time plus an adjustable offset."""

    def __init__(self) -> None:
        self.added = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() + self.added


class Nobody:
    """A supervisor without systemd that records the heartbeats."""

    def __init__(self, watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        self.signs = 0

    def ready(self) -> None: ...
    def status(self, text: str) -> None: ...
    def alive(self) -> None:
        self.signs += 1

    def stopping(self) -> None: ...


@dataclass
class Running:
    """A service that runs in a thread of this process; `polls` are the requested ones."""

    service: Watch
    loop: asyncio.AbstractEventLoop | None = None
    polls: list[str] = field(default_factory=list)
    bug: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __call__(self) -> None:
        async def run() -> None:
            self.loop = asyncio.get_running_loop()
            await self.service.run()

        try:
            asyncio.run(run())
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.bug = error

    def soon(self, call: Callable[[], object]) -> None:
        """Run a function in the event loop."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(call)


Connect = Callable[[Callable[[], None]], Awaitable[Connection]]


@contextmanager
def watch_in_thread(
    machine: Machine,
    clock: JumpingClock,
    *,
    connect: Connect | None = None,
    poll: Callable[[], RunReport | None] | None = None,
    supervisor: Nobody | None = None,
    jobs: Sequence[Job] = (),
) -> Iterator[Running]:
    """Run the service in a thread during the block, unless it ends before."""

    def noted_poll() -> RunReport | None:
        running.polls.append("poll")
        return (poll or machine.pull)()

    async def connect_really(on_frame: Callable[[], None]) -> Connection:
        return await open_link(machine.sandbox.ws_url, machine.sandbox.token, on_frame=on_frame)

    with (
        machine.store(any_thread=True) as store,
        machine.engine.upkeep() as upkeep,
    ):
        service = Watch(
            settings=WatchSettings(
                ConnectionRules(heartbeat_seconds=30, attempts=10), "ws://sandbox", "remote_wins", 15
            ),
            open_link=connect or connect_really,
            follower=EventFollower(store.events(history_versions=10), strategy="remote_wins"),
            store=store.watch_state(),
            upkeep=upkeep,
            schedule=store.schedule(),
            poll=noted_poll,
            interrupt=lambda: None,
            token_changed=lambda: False,
            supervisor=supervisor or Nobody(),
            clock=clock,
            jitter=lambda: 0.5,
            jobs=jobs,
        )
        running = Running(service)
        running.thread = thread = threading.Thread(target=running)
        thread.start()
        try:
            yield running
        finally:
            if thread.is_alive():
                running.soon(service.stop)
            thread.join(PATIENCE)
            assert not thread.is_alive()
