"""Administrators of the Atom backend control `watch` by writing to websocket_state."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from backend_models import WebSocketState, backend
from conftest import Machine, wait_until
from sqlalchemy.orm import Session
from watch_support import PATIENCE, wait_for_state, watching, websocket_state
from watch_thread import JumpingClock, watch_in_thread

from atom_saas_sync.errors import WebSocketClosed
from atom_saas_sync.marketplace.websocket import open_link
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.usecases.watch import reporting
from atom_saas_sync.usecases.watch.edges import Connection


@pytest.fixture
def machine(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine whose `watch`, in this process, checks the switch more often than every 10 s."""
    monkeypatch.setattr(reporting, "HEARTBEAT_SECONDS", 0.05)
    return Machine(sandbox, tmp_path)


def switch(machine: Machine, on: int) -> None:
    machine.sql("UPDATE websocket_state SET websocket_enabled = ?", bool(on))


def test_switched_off_it_closes_and_polls_and_switched_on_it_connects(machine: Machine, sandbox: Sandbox) -> None:
    with watch_in_thread(machine, JumpingClock()) as running:
        wait_for_state(machine, connected=1)
        wait_until(lambda: running.polls == ["poll"], PATIENCE)
        switch(machine, 0)
        off = wait_for_state(machine, connected=0, disconnect_reason="disabled_by_admin", fallback_to_polling=1)
        assert (off["websocket_enabled"], off["next_ws_attempt_at"]) == (0, None)
        wait_until(lambda: len(running.polls) == 2, PATIENCE)  # at once, although the last one just ended
        assert sandbox.counters()["ws_connections"] == 1
        switch(machine, 1)
        on = wait_for_state(machine, connected=1, disconnect_reason=None, fallback_to_polling=0)
        assert on["websocket_enabled"] == 1
    assert sandbox.counters()["ws_connections"] == 2


def test_started_while_it_is_switched_off_it_only_polls(machine: Machine) -> None:
    attempts: list[int] = []

    async def connect(_on_frame: Callable[[], None]) -> Connection:
        attempts.append(1)
        raise WebSocketClosed("nobody should come here")

    machine.pull()
    switch(machine, 0)
    with watch_in_thread(machine, JumpingClock(), connect=connect) as running:
        wait_for_state(machine, connected=0, disconnect_reason="disabled_by_admin", fallback_to_polling=1)
        wait_until(lambda: running.polls == ["poll"], PATIENCE)
    assert not attempts
    assert websocket_state(machine)["websocket_enabled"] == 0


@pytest.mark.sqlite("the backend's tables in its file")
@pytest.mark.parametrize("has_row", [True, False])
def test_the_backend_s_own_switch_is_obeyed_after_its_database_was_adopted(machine: Machine, has_row: bool) -> None:
    engine = backend(machine.database_path)
    with Session(engine) as session:
        session.add_all([WebSocketState(id=1, websocket_enabled=False)] if has_row else [])
        session.commit()
    with watch_in_thread(machine, JumpingClock()):
        if has_row:
            wait_for_state(machine, disconnect_reason="disabled_by_admin")
            with Session(engine) as session:
                session.get_one(WebSocketState, 1).websocket_enabled = True
                session.commit()
        wait_for_state(machine, connected=1)
        with Session(engine) as session:
            assert session.get_one(WebSocketState, 1).last_connected_at is not None


@pytest.mark.parametrize("column", ["reconnect_attempts", "fallback_to_polling"])
def test_a_reset_by_others_is_an_attempt_at_once(machine: Machine, sandbox: Sandbox, column: str) -> None:
    failures = iter([WebSocketClosed("no route"), WebSocketClosed("refused", token_refused=True)])

    async def connect(on_frame: Callable[[], None]) -> Connection:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await open_link(sandbox.ws_url, sandbox.token, on_frame=on_frame)

    clock = JumpingClock()
    with watch_in_thread(machine, clock, connect=connect):
        wait_for_state(machine, consecutive_failures=1)
        clock.added += 2
        wait_for_state(machine, consecutive_failures=2, reconnect_attempts=1, fallback_to_polling=1)
        # The next attempt is five minutes away.
        nothing = "FALSE" if column == "fallback_to_polling" else "0"
        machine.sql(f"UPDATE websocket_state SET {column} = {nothing}")
        wait_for_state(machine, connected=1, fallback_to_polling=0, reconnect_attempts=0)


def test_a_row_that_others_deleted_comes_back(machine: Machine) -> None:
    with watch_in_thread(machine, JumpingClock()):
        wait_for_state(machine, connected=1)
        machine.sql("DELETE FROM websocket_state")
        wait_until(lambda: machine.sql("SELECT connected FROM websocket_state") == [(1,)], PATIENCE)


def test_the_real_command_obeys_and_is_healthy_when_it_is_switched_off(machine: Machine) -> None:
    """SIGHUP makes it check at once."""
    with watching(machine) as process:
        switch(machine, 0)
        process.send_signal(signal.SIGHUP)
        wait_for_state(machine, connected=0, disconnect_reason="disabled_by_admin")
        assert "switched off by an administrator: polling only" in machine.command("status").stdout
        status = json.loads(machine.command("status", "--json").stdout)
        assert (status["health"]["status"], status["websocket"]["connected"]) == ("healthy", False)
        assert "websocket_disabled" in status["health"]["notices"]
        switch(machine, 1)
        process.send_signal(signal.SIGHUP)
        wait_for_state(machine, connected=1)
