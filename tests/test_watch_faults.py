"""`watch` when the other side, the network or the database does what it should not."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from watch_support import (
    PATIENCE,
    counter,
    messages,
    stop,
    wait_for_catch_up,
    wait_for_state,
    watching,
    websocket_state,
)

from atom_saas_sync.core.realtime import Rules
from atom_saas_sync.errors import LinkEnded
from atom_saas_sync.marketplace.websocket import open_link
from atom_saas_sync.model import RunReport
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.database import Database
from atom_saas_sync.store.realtime import RealtimeStore, Schedule, WriteAheadLog
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.watch import Watch, WatchSettings


@pytest.fixture
def machine(sandbox: Sandbox, tmp_path: Path) -> Machine:
    """Return a machine that shares the real time with the sandbox."""
    return Machine(sandbox, tmp_path)


def invalid(machine: Machine) -> float:
    return counter(machine, "atom_saas_websocket_messages_invalid_total")


def test_a_server_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    with Sandbox(skills=30) as sandbox:
        machine = Machine(sandbox, tmp_path)
        with watching(machine) as process:
            sandbox.stop()
            state = wait_for_state(machine, connected=0, fallback_to_polling=1)
            assert state["consecutive_failures"] >= 3
            assert state["fallback_started_at"] is not None
            assert state["next_ws_attempt_at"] > state["heartbeat_at"]
            assert "onnect" in state["disconnect_reason"]
            shown = json.loads(machine.command("status", "--json").stdout)["websocket"]
            assert (shown["connected"], shown["fallback_to_polling"]) == (False, True)
            sandbox.put_skill({"skill_id": "missed", "name": "Missed"}, push=False)
            sandbox.delete_skill(sandbox.skill_ids()[0], push=False)
            sandbox.start()
            state = wait_for_state(machine, connected=1, fallback_to_polling=0)
            assert (state["consecutive_failures"], state["next_ws_attempt_at"]) == (0, None)
            wait_until(lambda: machine.cached() == machine.listed(), PATIENCE)
            assert counter(machine, "atom_saas_websocket_reconnects_total") >= 3
            logged = stop(process)
        assert "falling back to polling after 3 failures in a row" in logged
        assert counter(machine, "atom_saas_websocket_fallback_seconds_total") > 0


MALFORMED = [
    "binary",
    "not_json",
    "empty",
    "not_object",
    "no_type",
    "type_number",
    "no_data",
    "data_list",
    "no_id",
    "no_name",
    "id_dotdot",
    "rating_nine",
    "surrogates",
    "deep",
]


def test_bad_messages_are_counted_and_the_connection_stays(machine: Machine, sandbox: Sandbox) -> None:
    with watching(machine) as process:
        for name in MALFORMED:
            assert sandbox.push_bad(name) == 1
        sandbox.push_bad("unknown_type")
        sandbox.push_bad("largest")
        wait_until(lambda: "padded" in machine.cached(), PATIENCE)
        assert len(machine.cached()["padded"]["code"]) > 1_000_000
        logged = stop(process)
    assert invalid(machine) == len(MALFORMED)
    assert messages(machine, "unknown") == 1
    assert sandbox.counters()["ws_connections"] == 1
    assert logged.count("dropped a malformed message") == len(MALFORMED)
    assert "@@" not in logged


@pytest.mark.parametrize(("name", "code"), [("oversized", 1009), ("bad_utf8", 1007), ("reserved", 1002)])
def test_frames_that_end_the_connection_are_counted_and_it_is_made_again(
    machine: Machine, sandbox: Sandbox, name: str, code: int
) -> None:
    with watching(machine) as process:
        sandbox.push_bad(name)
        wait_until(lambda: sandbox.counters()["ws_connections"] == 2, PATIENCE)
        wait_for_catch_up(machine, 2)
        logged = stop(process)
    assert invalid(machine) == 1
    assert f"closed with {code}" in logged


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4000])
def test_a_close_of_any_kind_is_followed_by_another_try(machine: Machine, sandbox: Sandbox, code: int) -> None:
    with watching(machine) as process:
        sandbox.close_ws(code, "restart\x1b[31m")
        wait_until(lambda: sandbox.counters()["ws_connections"] == 2, PATIENCE)
        wait_for_catch_up(machine, 2)
        logged = stop(process)
    assert f"closed by the marketplace with {code}: restart" in logged
    assert "\x1b" not in logged


@pytest.mark.parametrize("code", [1008, 4401])
def test_a_token_that_is_refused_later_waits_for_minutes(machine: Machine, sandbox: Sandbox, code: int) -> None:
    with watching(machine):
        sandbox.close_ws(code)
        state = wait_for_state(machine, connected=0, fallback_to_polling=1)
        planned = datetime.fromisoformat(state["next_ws_attempt_at"]) - datetime.now(UTC)
        assert 280 < planned.total_seconds() < 400
    assert sandbox.counters()["ws_connections"] == 1


@pytest.mark.parametrize("where", ["same", "other"])
def test_a_redirected_handshake_is_never_followed(machine: Machine, sandbox: Sandbox, where: str) -> None:
    caught: list[bytes] = []
    with listening(caught.append) as port:
        location = f"http://127.0.0.1:{port}" if where == "other" else ""
        sandbox.fault("redirect", endpoint="ws", value=where, location=location, times=1)
        with watching(machine) as process:
            logged = stop(process)
    assert "the handshake was redirected (302), which is never followed" in logged
    assert caught == []
    assert [entry.status for entry in sandbox.requests("ws")] == [302, 101]


@contextmanager
def listening(hear: Callable[[bytes], None]) -> Iterator[int]:
    """Listen on a port, hear whatever is sent there, and refuse it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(1)
                    hear(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_the_connection_goes_through_a_proxy(machine: Machine, sandbox: Sandbox) -> None:
    caught: list[bytes] = []
    with listening(caught.append) as port:
        proxy = f"http://user:secret@127.0.0.1:{port}"
        variables = {"ATOM_SAAS_WS_URL": "wss://marketplace.example/ws", "HTTPS_PROXY": proxy}
        with machine.started("watch", **variables) as process:
            wait_until(lambda: any(data.startswith(b"CONNECT marketplace.example:443 ") for data in caught), PATIENCE)
            logged = stop(process)
    assert "secret" not in logged
    assert sandbox.token.encode() not in b"".join(caught)


def test_accepting_and_closing_at_once_is_no_success(machine: Machine, sandbox: Sandbox) -> None:
    sandbox.fault("accept_close", endpoint="ws", status=1011)
    with machine.started("watch") as process:
        wait_for_state(machine, connected=0, fallback_to_polling=1)
        assert sandbox.counters()["ws_connections"] <= 4
        wait_for_catch_up(machine)  # by polling
        sandbox.clear_faults()
        wait_for_state(machine, connected=1, fallback_to_polling=0)
        stop(process)


def test_a_catch_up_that_fails_leaves_the_flow_alone(machine: Machine, sandbox: Sandbox) -> None:
    first = sandbox.skill_ids()[0]
    sandbox.fault("error", endpoint="list", status=400)
    with machine.started("watch") as process:
        wait_for_state(machine, connected=1)
        sandbox.patch_skill(first, {"name": "by message"})
        wait_until(lambda: machine.cached().get(first, {}).get("name") == "by message")
        wait_until(lambda: machine.sql("SELECT 1 FROM sync_run WHERE finished_at IS NOT NULL"))
        logged = stop(process)
    assert "catching up did not succeed; trying again in 15 s" in logged


def test_stopping_does_not_wait_for_a_poll_that_hangs(machine: Machine, sandbox: Sandbox) -> None:
    sandbox.fault("hang", endpoint="list")
    with machine.started("watch") as process:
        wait_for_state(machine, connected=1)
        wait_until(lambda: sandbox.requests("list"))
        stop(process)


def test_a_page_that_is_older_than_a_message_does_not_undo_it(machine: Machine, sandbox: Sandbox) -> None:
    changed, deleted = sandbox.skill_ids()[:2]
    with watching(machine):
        sandbox.fault("delay", endpoint="list", seconds=1.0)
        sandbox.patch_skill(sandbox.skill_ids()[5], {"name": "another page"}, push=False)
        asked = len(sandbox.requests("list"))
        sync = threading.Thread(target=machine.command, args=("sync", "skills"))
        sync.start()
        wait_until(lambda: len(sandbox.requests("list")) > asked)
        sandbox.push(
            {
                "type": "skill_update",
                "data": {**sandbox.skill(changed), "name": "newer", "updated_at": "2040-01-01T00:00:00Z"},
                "timestamp": "2040-01-01T00:00:00Z",
            }
        )
        sandbox.push({"type": "skill_delete", "data": {"skill_id": deleted}, "timestamp": "2040-01-01T00:00:00Z"})
        wait_until(lambda: deleted not in machine.cached())
        sync.join(PATIENCE)
        assert machine.cached()[changed]["name"] == "newer"
        assert deleted not in machine.cached()


# In this process, with a clock that can be moved


class JumpingClock:
    """The real time, and what was added to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() + self.added


class Nobody:
    """No systemd."""

    watchdog_seconds: float | None = None

    def ready(self) -> None: ...
    def status(self, text: str) -> None: ...
    def alive(self) -> None: ...
    def stopping(self) -> None: ...


@contextmanager
def watch_in_thread(machine: Machine, clock: JumpingClock) -> Iterator[list[str]]:
    """Run the service in a thread; yields the list of polls that it asked for."""
    polls: list[str] = []

    def poll() -> RunReport | None:
        polls.append("poll")
        return machine.pull()

    with (
        Database.open(machine.database_path, any_thread=True) as database,
        Database.open(machine.database_path, any_thread=True) as beside,
    ):
        store = RealtimeStore(database)

        async def connect(on_frame: Callable[[], None]) -> object:
            return await open_link(machine.sandbox.ws_url, machine.sandbox.token, on_frame=on_frame)

        service = Watch(
            settings=WatchSettings(Rules(), machine.sandbox.ws_url, "remote_wins", 15),
            open_link=connect,  # type: ignore[arg-type]
            follower=EventFollower(store, strategy="remote_wins"),
            store=store,
            log_store=WriteAheadLog(beside),
            schedule=Schedule(database),
            poll=poll,
            interrupt=lambda: None,
            token_changed=lambda: False,
            supervisor=Nobody(),
            clock=clock,
            jitter=lambda: 0.5,
        )
        loops: list[asyncio.AbstractEventLoop] = []

        async def run() -> None:
            loops.append(asyncio.get_running_loop())
            await service.run()

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        try:
            yield polls
        finally:
            loops[0].call_soon_threadsafe(service.stop)
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_silence_is_noticed_and_ends_in_another_connection(machine: Machine, sandbox: Sandbox) -> None:
    clock = JumpingClock()
    with watch_in_thread(machine, clock) as polls:
        wait_until(lambda: polls == ["poll"])
        sandbox.silence()
        clock.added += 31
        wait_until(lambda: sum('"ping"' in str(each) for each in sandbox.ws_messages()) >= 2, PATIENCE)
        assert sandbox.counters()["ws_connections"] == 1
        clock.added += 10
        wait_until(lambda: websocket_state(machine)["disconnect_reason"] == "no frame for 40 s", PATIENCE)
        sandbox.silence(on=False)
        clock.added += 2
        wait_until(lambda: sandbox.counters()["ws_connections"] == 2, PATIENCE)
        wait_until(lambda: len(polls) == 2, PATIENCE)


def test_pings_of_the_other_side_are_answered(machine: Machine, sandbox: Sandbox) -> None:
    with watch_in_thread(machine, JumpingClock()):
        assert sandbox.wait_for_listeners(1)
        sandbox.push({"type": "ping"})
        wait_until(lambda: any('"pong"' in str(each) for each in sandbox.ws_messages()))
        pong = next(json.loads(each) for each in sandbox.ws_messages() if '"pong"' in str(each))
        assert pong["timestamp"].endswith("Z")


def test_a_handshake_that_hangs_is_given_up(sandbox: Sandbox) -> None:
    sandbox.fault("hang", endpoint="ws")

    async def connect() -> None:
        await open_link(sandbox.ws_url, sandbox.token, on_frame=lambda: None, handshake_seconds=0.2)

    with pytest.raises(LinkEnded, match="no handshake within"):
        asyncio.run(connect())


def test_a_disk_that_is_full_ends_the_service_only_after_a_while(machine: Machine, sandbox: Sandbox) -> None:
    first = sandbox.skill_ids()[0]
    with watching(machine) as process, closing(sqlite3.connect(machine.database_path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON last_message BEGIN SELECT RAISE(ABORT, 'no room'); END")
        sandbox.patch_skill(first, {"name": "later"})
        threading.Event().wait(1.5)  # at least one attempt fails
        other.execute("DROP TRIGGER full")
        other.commit()
        wait_until(lambda: machine.cached()[first]["name"] == "later", PATIENCE)
        logged = stop(process)
    assert "no room; trying again" in logged
