"""`doctor`: the troubleshooting chapter of the deployment guide as checks, each with its hint.

A check that depends on a failed one is skipped: with a wrong token, the WebSocket cannot be tested, and one cause gives
one finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Protocol, TypeVar

from atom_saas_sync.core.diagnosis.configuration import configuration
from atom_saas_sync.core.diagnosis.database import broken, disk, ids, integrity, other_marketplace, revision
from atom_saas_sync.core.diagnosis.findings import DoctorFinding, DoctorSettings, Timers, skipped
from atom_saas_sync.core.diagnosis.marketplace import clock, health_route, hint_for, token_accepted
from atom_saas_sync.core.diagnosis.server import can_read, can_write, server
from atom_saas_sync.core.diagnosis.state import schedule, state
from atom_saas_sync.errors import ConfigError, ConnectionFailed, DatabaseError, MarketplaceError
from atom_saas_sync.model import Status
from atom_saas_sync.model.server import ServerFacts

Answer = TypeVar("Answer")
_QUESTIONS = 3  # the health route, the list, the WebSocket


class Network(Protocol):
    """Single requests to the marketplace. After `look_up`, threads may share it."""

    def look_up(self) -> int:
        """Return how many addresses the marketplace's host has."""

    def health(self) -> tuple[int, float | None]:
        """Return the status of the health route, and how far the marketplace's clock is ahead of ours."""

    def skills(self) -> int:
        """Return the status of the list of skills."""

    def websocket(self) -> None:
        """Connect as `watch` does."""


class Store(Protocol):
    """The database as the checks see it."""

    def read(self) -> Status:
        """Return the state."""

    def integrity(self) -> tuple[int, int]:
        """Return the numbers of skills that were tampered with, and of unsigned ones."""

    def try_writing(self) -> None:
        """Raise DatabaseError if nothing can be written."""

    def skill_ids(self) -> list[str]:
        """Return the ids of all skills in the database."""

    def free_disk_gb(self) -> float | None:
        """Return the free space on its disk; None if that is not on this machine."""

    def server_facts(self) -> ServerFacts | None:
        """Return what the database's server says about itself; None if it has none."""


class Host(Protocol):
    """The machine."""

    def timers(self) -> Timers:
        """Return the timers, crontabs and services that start syncs regularly."""


def diagnose(plan: DoctorSettings, *, network: Network, store: Store, host: Host, now: datetime) -> list[DoctorFinding]:
    """Run all applicable checks, and return their findings."""
    findings = list(configuration(plan, now))
    online = plan.enabled and plan.has_token
    findings += _reachability(plan, network) if online else [skipped("marketplace", "no token, or disabled")]
    findings += _database(plan, store)
    try:
        status = store.read()
    except (ConfigError, DatabaseError):
        return [*findings, skipped("sync", "the database can't be read")]
    timers = host.timers()
    findings += schedule(plan, timers, status, now)
    findings += state(plan, timers, status, now)
    return findings


def _reachability(plan: DoctorSettings, network: Network) -> Iterator[DoctorFinding]:
    try:
        network.look_up()
    except ConnectionFailed as error:
        yield DoctorFinding(
            "dns", "problem", error.message, "check ATOM_SAAS_API_URL for typos, and the resolver: `resolvectl status`"
        )
        yield skipped("http", "the marketplace's name is not known")
        return
    yield DoctorFinding("dns", "ok", "the marketplace's host name resolves")
    with _asking(plan.connections) as ask:
        health, skills = ask(network.health), ask(network.skills)

        def connect() -> None:
            """Connect only once the list has accepted the token: a refused one is sent no second time."""
            if token_accepted(skills()).verdict == "ok":
                network.websocket()

        websocket = ask(connect) if plan.ws_enabled else None
        try:
            status, skew = health()
            yield health_route(status)
            if skew is not None:
                yield clock(skew)
            token = token_accepted(skills())
            yield token
        except MarketplaceError as error:
            yield DoctorFinding("http", "problem", error.message, hint_for(error))
            return
        if websocket is not None and token.verdict == "ok":
            yield _websocket(websocket)


class _Ask(Protocol):
    """Begins to ask a question, and returns a function that waits for its answer."""

    def __call__(self, question: Callable[[], Answer], /) -> Callable[[], Answer]: ...


@contextmanager
def _asking(connections: int) -> Iterator[_Ask]:
    """Ask so many questions at a time; with one, each is asked when its answer is needed.

    A question may wait for the answers to those before it.
    """
    if connections == 1:
        yield cache
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(min(connections, _QUESTIONS), thread_name_prefix="doctor")
    try:
        yield lambda question: pool.submit(question).result
    finally:
        pool.shutdown(cancel_futures=True)


def _websocket(connect: Callable[[], object]) -> DoctorFinding:
    hint = "check ATOM_SAAS_WS_URL, and that firewall and proxy allow WebSockets; polling continues"
    try:
        connect()
    except (MarketplaceError, ConfigError) as error:
        return DoctorFinding("websocket", "problem", error.message, hint)
    return DoctorFinding("websocket", "ok", "the WebSocket connects")


def _database(plan: DoctorSettings, store: Store) -> Iterator[DoctorFinding]:
    try:
        free = store.free_disk_gb()
        yield skipped("disk", "the database is on a server") if free is None else disk(free, plan)
        facts = store.server_facts()
        if facts is not None:
            yield from server(facts)
            if not can_read(facts):
                yield skipped("database", "the role may not read it")
                return
        status = store.read()
        is_writable = facts is None or can_write(facts)
        if status.revision is not None and is_writable:
            store.try_writing()
    except (ConfigError, DatabaseError) as error:
        yield broken("database", error)
        return
    yield from revision(status, is_writable=is_writable)
    if status.revision is not None and not status.migrations_pending:
        yield from ids(store.skill_ids())
        try:
            yield integrity(*store.integrity())
        except DatabaseError as error:
            yield broken("integrity", error)
    yield from other_marketplace(plan, status)
