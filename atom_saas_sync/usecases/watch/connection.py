"""The connection of `watch`: executes the commands of the state machine (core/connection.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, Never

from msgspec.structs import replace

from atom_saas_sync.core.connection import DISABLED_BY_ADMIN, Command, ConnectionRules, ConnectionState, asks_for_retry
from atom_saas_sync.core.incoming.messages import PING
from atom_saas_sync.core.outgoing import heartbeat
from atom_saas_sync.errors import AtomSyncError, WebSocketClosed
from atom_saas_sync.model import ConnectionSwitch, ReportedConnection
from atom_saas_sync.usecases.watch.background import wait_for
from atom_saas_sync.usecases.watch.edges import Clock, Connection
from atom_saas_sync.usecases.watch.inbox import Inbox
from atom_saas_sync.usecases.watch.reporting import ConnectionReport

_FRAMES_IN_A_ROW = 100
_CLOCK_SECONDS = 1.0  # the clock jumps after a suspend

log = logging.getLogger(__name__)


class ConnectionKeeper:
    """Maintains the connection, reconnecting as needed. Everything runs in the event loop.

    `inbox` receives each frame; `catch_up` requests a poll for missed changes. `token_changed` may block; it tells
    whether the token differs from the one used last.
    """

    def __init__(
        self,
        machine: ConnectionState,
        *,
        open_link: Callable[[Callable[[], None]], Awaitable[Connection]],
        inbox: Inbox,
        catch_up: Callable[[], None],
        token_changed: Callable[[], bool],
        report: ConnectionReport,
        clock: Clock,
    ) -> None:
        self._machine = machine
        self._open_link = open_link
        self._inbox = inbox
        self._catch_up = catch_up
        self._token_changed = token_changed
        self._report = report
        self._clock = clock
        self._link: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._hung_up: str | None = None
        self._talk: asyncio.Task[None] | None = None
        self._unsaid: set[Literal["ping", "pong"]] = set()
        self._rescheduled = asyncio.Event()
        self._stopping = False

    async def run(self) -> Never:
        """Maintain the connection. Raises an internal error after which nothing would reconnect."""
        self._bug: asyncio.Future[Never] = asyncio.get_running_loop().create_future()
        self._carry_out(self._machine.start(self._clock.monotonic()))
        while True:
            now = self._clock.monotonic()
            if self._inbox.is_full:
                self._note_frame()
            if actions := self._machine.tick(now):
                self._carry_out(actions)
            self._rescheduled.clear()
            wait = min(max(0.0, self._machine.due() - self._clock.monotonic()), _CLOCK_SECONDS)
            await wait_for(self._rescheduled, wait)
            if self._bug.done():
                await self._bug
            if self._machine.token_refused and await asyncio.to_thread(self._token_changed):
                log.info("there is a new token: trying it")
                self._carry_out(self._machine.new_token(self._clock.monotonic()))

    def begin(self, rules: ConnectionRules, switch: ConnectionSwitch) -> None:
        """Set the initial rules, before `run`: the settings and the stored switch of the administrators."""
        self._machine.rules = replace(rules, allowed=switch.enabled)
        self._poll_if_switched_off()

    def new_rules(self, rules: ConnectionRules, *, reconnect: bool) -> None:
        """Apply new settings; the administrators' switch keeps its value."""
        if reconnect and self._machine.holds:
            self._hang_up("reloaded the configuration")
        rules = replace(rules, allowed=self._machine.rules.allowed)
        self._carry_out(self._machine.new_rules(self._clock.monotonic(), rules))

    def obey(self, found: ConnectionSwitch, before: ReportedConnection | None) -> None:
        """Act on what other programs have written into the stored state (docs/API_DOCUMENTATION.md)."""
        machine, now = self._machine, self._clock.monotonic()
        if self._stopping:
            return
        if found.enabled != machine.rules.allowed:
            log.warning("an administrator has switched the WebSocket %s", "on" if found.enabled else "off")
            self._carry_out(machine.new_rules(now, replace(machine.rules, allowed=found.enabled)))
            self._poll_if_switched_off()
        elif asks_for_retry(found, before) and (actions := machine.retry()):
            log.info("another program has reset the connection: trying it now")
            self._carry_out(actions)

    def stop(self) -> None:
        """Accept no more frames, and do not reconnect."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Close the connection properly, within a second, after `stop`."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._machine.reason = "stopped"
        if (link := self._link) is not None:
            with suppress(TimeoutError, WebSocketClosed):
                async with asyncio.timeout(1.0):
                    await link.close("stopping")
            link.abort()

    def _carry_out(self, actions: Sequence[Command]) -> None:
        """Execute one command of the state machine."""
        for action in actions:
            if action is Command.CONNECT:
                self._task = asyncio.create_task(self._hold())
                self._task.add_done_callback(self._note_bug)
            elif action is Command.HANG_UP:
                silence = f"no frame for {self._machine.stale_after:.0f} s"
                self._hang_up(self._machine.rules.polling_only or silence)
            elif action is Command.CATCH_UP:
                self._catch_up()
            elif action is Command.PING:
                self._say("ping")
        self._rescheduled.set()
        self._report.changed()

    def _hang_up(self, reason: str) -> None:
        """End the connection, or the attempt to connect; the next attempt follows the schedule."""
        self._hung_up = reason
        if self._link is not None:
            self._link.abort()
        elif self._task is not None:
            self._task.cancel()
            self._note_end(WebSocketClosed(reason))

    def _say(self, kind: Literal["ping", "pong"]) -> None:
        """Send a ping or pong; a reply that is still queued answers any number of pings."""
        if self._link is None:
            return
        self._unsaid.add(kind)
        if self._talk is None or self._talk.done():
            self._talk = asyncio.create_task(self._send_unsaid(self._link, self._unsaid))

    def _note_frame(self) -> None:
        """Record that a frame arrived, or that we were not reading."""
        self._machine.frame(self._clock.monotonic())

    def heard(self, kind: str) -> None:
        """Record that a valid message arrived, which proves that the connection works, and answer a ping."""
        was_in_fallback = self._machine.fallback
        if actions := self._machine.message(self._clock.monotonic()):
            self._carry_out(actions)
            if was_in_fallback:
                log.info("reconnected: polling fallback ended")
        if kind == PING:
            self._say("pong")

    async def _hold(self) -> None:
        """Hold one connection from its handshake to its end."""
        try:
            await self._follow()
        except WebSocketClosed as failure:
            ended = failure
        except AtomSyncError as error:  # unreadable certificates, for example: they may be just being replaced
            ended = WebSocketClosed(error.message)
        except Exception:
            log.exception("internal error in the connection")
            self._report.internal_error()
            if self._link is not None:
                self._link.abort()
            ended = WebSocketClosed("internal error; the log has the traceback")
        self._link = None
        self._note_end(ended)

    async def _follow(self) -> Never:
        """Connect and receive frames. Raises WebSocketClosed when the connection ends."""
        machine, clock = self._machine, self._clock
        link = await self._open_link(self._note_frame)
        self._link, self._hung_up = link, None
        self._talk, self._unsaid = None, set()
        self._report.connected()
        log.info("connected to %s", self._report.shown_url)
        self._carry_out(machine.opened(clock.monotonic()))
        while True:
            # While frames are queued, neither of the two lets the event loop do anything else.
            for _ in range(_FRAMES_IN_A_ROW):
                await self._inbox.take(await link.receive())
            await asyncio.sleep(0)

    def _note_bug(self, task: asyncio.Task[None]) -> None:
        """End the service if handling the end of a connection failed: without a connection it would hang."""
        if not task.cancelled() and (bug := task.exception()) is not None and not self._bug.done():
            self._bug.set_exception(bug)
            self._rescheduled.set()

    def _poll_if_switched_off(self) -> None:
        if self._machine.rules.polling_only == DISABLED_BY_ADMIN:
            self._catch_up()

    def _note_end(self, ended: WebSocketClosed) -> None:
        self._report.invalid(ended.bad_frame)
        reason, self._hung_up = self._hung_up or ended.message, None
        was_in_fallback = self._machine.fallback
        now = self._clock.monotonic()
        self._carry_out(self._machine.ended(now, reason, token_refused=ended.token_refused))
        if self._machine.rules.polling_only is not None:
            log.info("the connection was closed: %s", reason)
            return
        following = self._machine.next_attempt
        again = "no further attempt" if following is None else f"next attempt in {following - now:.0f} s"
        log.warning("%s; %s (failure %d)", reason, again, self._machine.failures)
        if self._machine.fallback and not was_in_fallback:
            log.error("falling back to polling; failures in a row: %d", self._machine.failures)

    async def _send_unsaid(self, link: Connection, unsaid: set[Literal["ping", "pong"]]) -> None:
        with suppress(WebSocketClosed):  # reported by the receiver
            while unsaid:
                await link.send(heartbeat(unsaid.pop(), self._clock.now()))
