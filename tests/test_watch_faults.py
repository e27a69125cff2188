"""`watch` with faults of the marketplace, the network or the database."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from watch_support import (
    PATIENCE,
    STOP_PATIENCE,
    counter,
    deaf_flood,
    messages,
    stop,
    text_frame,
    told,
    wait_for_catch_up,
    wait_for_state,
    watching,
    websocket_state,
)
from watch_thread import JumpingClock, Nobody, watch_in_thread

from atom_saas_sync.core.incoming.messages import Malformed, Message, parse_frame
from atom_saas_sync.errors import ConfigError, DatabaseBusy, WebSocketClosed
from atom_saas_sync.marketplace.websocket import open_link
from atom_saas_sync.model import RunReport
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.watch.backlog import Backlog
from atom_saas_sync.usecases.watch.edges import Connection
from atom_saas_sync.usecases.watch.jobs import Job
from atom_saas_sync.usecases.watch.writer import Writer


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
        assert "falling back to polling; failures in a row: 3" in logged
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


ENDING = [("oversized", 1009), ("huge", 1009), ("huge_binary", 1009), ("bad_utf8", 1007), ("reserved", 1002)]


def test_frames_that_end_the_connection_are_counted_and_it_is_made_again(machine: Machine, sandbox: Sandbox) -> None:
    with watching(machine) as process:
        for number, (name, _) in enumerate(ENDING, start=1):
            sandbox.push_bad(name)
            wait_until(lambda number=number: sandbox.counters()["ws_connections"] == number + 1, PATIENCE)
            wait_for_catch_up(machine, number + 1)
        logged = stop(process)
    assert invalid(machine) == len(ENDING)
    for _, code in ENDING:
        assert f"closed with {code}" in logged


def test_a_close_of_any_kind_is_followed_by_another_try(machine: Machine, sandbox: Sandbox) -> None:
    codes = [1000, 1001, 1011, 4000]
    with watching(machine) as process:
        for number, code in enumerate(codes, start=1):
            sandbox.close_ws(code, "restart\x1b[31m")
            wait_until(lambda number=number: sandbox.counters()["ws_connections"] == number + 1, PATIENCE)
            wait_for_catch_up(machine, number + 1)
        logged = stop(process)
    for code in codes:
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


def test_a_proxy_that_refuses_learns_neither_token_nor_is_its_password_logged(
    machine: Machine, sandbox: Sandbox
) -> None:
    caught: list[bytes] = []
    with listening(caught.append) as port:
        proxy = f"http://user:secret@127.0.0.1:{port}"
        variables = {"ATOM_SAAS_WS_URL": "wss://marketplace.example/ws", "HTTPS_PROXY": proxy}
        with machine.started("watch", **variables) as process:
            wait_until(lambda: any(data.startswith(b"CONNECT marketplace.example:443 ") for data in caught), PATIENCE)
            logged = stop(process)
    assert "secret" not in logged
    assert f"cannot connect to marketplace.example through the proxy http://127.0.0.1:{port} (HTTPS_PROXY)" in logged
    assert sandbox.token.encode() not in b"".join(caught)


def test_accepting_and_closing_at_once_is_not_a_success(machine: Machine, sandbox: Sandbox) -> None:
    sandbox.fault("accept_close", endpoint="ws", status=1011)
    with machine.started("watch") as process:
        wait_for_state(machine, connected=0, fallback_to_polling=1)
        assert sandbox.counters()["ws_connections"] <= 4
        wait_for_catch_up(machine)  # by polling
        sandbox.clear_faults()
        wait_for_state(machine, connected=1, fallback_to_polling=0)
        stop(process)


def collect(stream: Iterable[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)  # noqa: PERF402 - each as it comes


def test_a_failed_catch_up_does_not_interrupt_messages(machine: Machine, sandbox: Sandbox) -> None:
    first = sandbox.skill_ids()[0]
    sandbox.fault("error", endpoint="list", status=400)
    with machine.started("watch") as process:
        wait_for_state(machine, connected=1)
        sandbox.patch_skill(first, {"name": "by message"})
        wait_until(lambda: machine.cached().get(first, {}).get("name") == "by message")
        assert process.stderr is not None
        logged: list[str] = []
        reader = threading.Thread(target=collect, args=(process.stderr, logged))
        reader.start()
        wait_until(lambda: "catching up did not succeed; trying again in 15 s" in "".join(logged))
        process.terminate()
        assert process.wait(60) == 0
        reader.join(60)


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
        sync = threading.Thread(target=machine.command, args=("sync", "skills", "--wait", "60"))
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


def test_silence_is_noticed_and_ends_in_another_connection(machine: Machine, sandbox: Sandbox) -> None:
    clock = JumpingClock()
    with watch_in_thread(machine, clock) as running:
        wait_until(lambda: running.polls == ["poll"])
        sandbox.silence()
        clock.added += 31
        wait_until(lambda: sum('"ping"' in str(each) for each in sandbox.ws_messages()) >= 2, PATIENCE)
        assert sandbox.counters()["ws_connections"] == 1
        clock.added += 10
        wait_until(lambda: websocket_state(machine)["disconnect_reason"] == "no frame for 40 s", PATIENCE)
        sandbox.silence(on=False)
        clock.added += 2
        wait_until(lambda: sandbox.counters()["ws_connections"] == 2, PATIENCE)
        wait_until(lambda: len(running.polls) == 2, PATIENCE)


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
        async with asyncio.timeout(PATIENCE):  # without a limit of its own it would hang
            await open_link(sandbox.ws_url, sandbox.token, on_frame=lambda: None, handshake_seconds=0.2)

    with pytest.raises(WebSocketClosed, match=r"no handshake with 127\.0\.0\.1 within 0\.2 s"):
        asyncio.run(connect())


def test_a_disk_that_is_full_ends_the_service_only_after_a_while(machine: Machine, sandbox: Sandbox) -> None:
    first = sandbox.skill_ids()[0]
    with watching(machine) as process:
        machine.database.refuse("last_message", "no room")
        sandbox.patch_skill(first, {"name": "later"})
        assert process.stderr is not None
        said = re.compile("(no room|its disk is full); trying again")
        assert any(said.search(line) for line in process.stderr)  # at least one attempt fails
        machine.sql("DROP TRIGGER refused", on_server="DROP TRIGGER refused ON last_message")
        wait_until(lambda: machine.cached()[first]["name"] == "later", PATIENCE)


# What is sent, and never read


def test_unread_replies_do_not_pile_up(machine: Machine, sandbox: Sandbox) -> None:
    tasks: list[int] = []

    async def connect(on_frame: Callable[[], None]) -> Connection:
        return await open_link(f"ws://127.0.0.1:{port}/ws", sandbox.token, on_frame=on_frame)

    def many_came() -> bool:
        running.soon(lambda: tasks.append(len(asyncio.all_tasks())))
        return messages(machine, "ping") > 20_000

    with (
        deaf_flood(text_frame(b'{"type":"ping"}')) as port,
        watch_in_thread(machine, JumpingClock(), connect=connect) as running,
    ):
        wait_until(lambda: running.polls, PATIENCE)
        wait_until(many_came, PATIENCE)
    assert max(tasks) < 30


@pytest.mark.parametrize(
    ("frame", "control_frames", "why"),
    [
        (b"\x89\x7d" + b"x" * 125, 10**9, "does not read what is sent to it"),
        (b"\x89\x7d" + b"x" * 125, 1_000, "floods the connection with pings or pongs"),
        (b"\x8a\x7d" + b"x" * 125, 1_000, "floods the connection with pings or pongs"),
    ],
    ids=["replies", "pings", "pongs"],
)
def test_pings_of_the_protocol_are_limited_and_replies_to_them_do_not_pile_up(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, frame: bytes, control_frames: int, why: str
) -> None:
    """The library sends each reply at once. Nothing else is sent here, so no other limit ends the connection."""
    monkeypatch.setattr("atom_saas_sync.marketplace.websocket.MOST_CONTROL_FRAMES", control_frames)

    async def receive(port: int) -> None:
        link = await open_link(f"ws://127.0.0.1:{port}/ws", sandbox.token, on_frame=lambda: None)
        try:
            async with asyncio.timeout(PATIENCE):
                await link.receive()
        finally:
            link.abort()

    with deaf_flood(frame) as port, pytest.raises(WebSocketClosed, match=why):
        asyncio.run(receive(port))


# The event loop and the watchdog


def test_a_loop_that_hangs_gives_no_sign_of_life(machine: Machine) -> None:
    systemd = Nobody(watchdog_seconds=0.2)
    with watch_in_thread(machine, JumpingClock(), supervisor=systemd) as running:
        wait_until(lambda: systemd.signs >= 2)
        hung, over = threading.Event(), threading.Event()

        def hang() -> None:
            hung.set()
            over.wait(PATIENCE)

        running.soon(hang)
        hung.wait(PATIENCE)
        before = systemd.signs
        threading.Event().wait(1.0)  # five times what systemd would wait
        assert systemd.signs == before
        over.set()
        wait_until(lambda: systemd.signs > before)


def test_a_disk_that_hangs_ends_the_signs_of_life_but_a_slow_one_does_not(machine: Machine) -> None:
    clock, systemd = JumpingClock(), Nobody(watchdog_seconds=0.1)
    with (
        watch_in_thread(machine, clock, supervisor=systemd) as running,
    ):
        wait_until(lambda: running.polls and not machine.sql("SELECT 1 FROM sync_run WHERE finished_at IS NULL"))
        with machine.database.writing():
            machine.sandbox.patch_skill(machine.sandbox.skill_ids()[0], {"name": "waits"})
            threading.Event().wait(0.3)  # messages in flight still reach the writer
            before = systemd.signs
            wait_until(lambda: systemd.signs > before + 1)
            clock.added += 61
            # None in five intervals.
            wait_until(lambda: systemd.signs == (systemd.signs, threading.Event().wait(0.5))[0])
        before = systemd.signs
        wait_until(lambda: systemd.signs > before)


def test_a_write_that_hangs_after_waiting_for_its_turn_counts() -> None:
    clock = JumpingClock()
    writer = Writer(clock)
    first, begun, second = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        second.wait(PATIENCE)

    async def both() -> float:
        writing = [asyncio.create_task(writer.write(each)) for each in (first.wait, hang)]
        await asyncio.sleep(0)  # both are in the queue
        first.set()
        await writing[0]
        await asyncio.to_thread(begun.wait, PATIENCE)
        clock.added += 61
        seconds = writer.busy_seconds
        second.set()
        await writing[1]
        return seconds

    assert asyncio.run(both()) > 60
    assert writer.busy_seconds == 0
    writer.close()


def test_the_loop_does_not_wait_for_the_disk(machine: Machine, sandbox: Sandbox) -> None:
    with watch_in_thread(machine, JumpingClock()) as running:
        wait_until(lambda: running.polls and not machine.sql("SELECT 1 FROM sync_run WHERE finished_at IS NULL"))
        with machine.database.writing():
            sandbox.patch_skill(sandbox.skill_ids()[0], {"name": "waits"})
            sandbox.push({"type": "ping"})
            wait_until(lambda: any('"pong"' in str(each) for each in sandbox.ws_messages()))
        wait_until(lambda: machine.cached() == machine.listed())


@pytest.mark.sqlite("its write-ahead log")
def test_writes_reach_the_database_file_while_it_runs(machine: Machine, sandbox: Sandbox) -> None:
    first, copy = sandbox.skill_ids()[0], machine.directory / "copy.db"

    def in_the_file() -> bool:
        copy.write_bytes(machine.database_path.read_bytes())  # without the write-ahead log
        with closing(sqlite3.connect(copy)) as connection:
            try:
                row = connection.execute("SELECT skill_data FROM skill_cache WHERE skill_id = ?", (first,)).fetchone()
            except sqlite3.DatabaseError:
                return False  # copied while it was being written
        return row is not None and json.loads(row[0])["name"] == "on the disk"

    with watching(machine):
        sandbox.patch_skill(first, {"name": "on the disk"})
        wait_until(in_the_file)


def test_certificates_that_cannot_be_read_are_a_failure_among_others(machine: Machine, sandbox: Sandbox) -> None:
    attempts = []

    async def connect(on_frame: Callable[[], None]) -> Connection:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConfigError("ATOM_SAAS_CA_FILE: no readable certificates")
        return await open_link(sandbox.ws_url, sandbox.token, on_frame=on_frame)

    with watch_in_thread(machine, JumpingClock(), connect=connect):
        assert sandbox.wait_for_listeners(1, PATIENCE)
    assert len(attempts) == 2


class Flood:
    """A connection with a frame ready at any time, up to 20,000; `heard` is called with the first."""

    def __init__(self, heard: Callable[[], object]) -> None:
        self.frames = 0
        self._heard = heard

    async def receive(self) -> str:
        self.frames += 1
        if self.frames == 1:
            self._heard()
        elif self.frames > 20_000:
            await asyncio.Event().wait()
        return '{"type":"pong"}'

    async def send(self, text: str) -> None: ...
    async def close(self, reason: str = "") -> None: ...
    def abort(self) -> None: ...


def test_a_flood_of_tiny_frames_does_not_delay_the_end(machine: Machine) -> None:
    flood = Flood(lambda: asyncio.get_running_loop().call_soon(running.service.stop))
    is_known = threading.Event()

    async def connect(_on_frame: Callable[[], None]) -> Connection:
        await asyncio.to_thread(is_known.wait, PATIENCE)
        return flood

    with watch_in_thread(machine, JumpingClock(), connect=connect) as running:
        is_known.set()
        running.thread.join(PATIENCE)
    assert running.bug is None
    assert 0 < flood.frames < 1000


# Bugs, injected: they are logged and counted, and the service goes on


def internal_errors(machine: Machine) -> float:
    return counter(machine, "atom_saas_sync_errors_total", type="skill", error="internal")


def test_a_bug_while_connecting_is_a_failure_among_others(
    machine: Machine, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = []

    async def connect(on_frame: Callable[[], None]) -> Connection:
        attempts.append(1)
        if len(attempts) == 1:
            raise ZeroDivisionError
        return await open_link(sandbox.ws_url, sandbox.token, on_frame=on_frame)

    with watch_in_thread(machine, JumpingClock(), connect=connect) as running:
        assert sandbox.wait_for_listeners(1, PATIENCE)
        wait_until(lambda: internal_errors(machine) == 1, PATIENCE)
    assert running.bug is None
    assert "ZeroDivisionError" in caplog.text


def test_a_bug_in_a_poll_does_not_end_the_connection(
    machine: Machine, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    def poll() -> RunReport | None:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    with watch_in_thread(machine, JumpingClock(), poll=poll) as running:
        wait_until(lambda: internal_errors(machine) == 1, PATIENCE)
        sandbox.put_skill({"skill_id": "news", "name": "by message"})
        wait_until(lambda: "news" in machine.cached(), PATIENCE)
        assert running.polls == ["poll"], "the next one is 15 seconds away"
        assert sandbox.counters()["ws_connections"] == 1
    assert running.bug is None
    assert "OverflowError" in caplog.text
    assert "catching up did not succeed; trying again in 15 s" in caplog.text


def test_a_message_that_meets_a_bug_is_dropped_and_the_others_are_applied(
    machine: Machine, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    apply = EventFollower.apply

    def meet_a_bug(self: EventFollower, messages: Sequence[Message], now: datetime) -> None:
        if any(each.key == "skill-13" for each in messages):
            raise OverflowError
        apply(self, messages, now)

    with watch_in_thread(machine, JumpingClock()) as running:
        wait_until(lambda: running.polls == ["poll"] and machine.cached(), PATIENCE)
        monkeypatch.setattr(EventFollower, "apply", meet_a_bug)
        for number in range(40):
            sandbox.put_skill({"skill_id": f"skill-{number}", "name": "News"})
        wait_until(lambda: len(running.polls) == 2, PATIENCE)  # it fetches what was dropped
        wait_until(lambda: machine.cached() == machine.listed(), PATIENCE)
        assert sandbox.counters()["ws_connections"] == 1
    assert running.bug is None
    assert internal_errors(machine) == 1
    assert messages(machine, "skill_update") == 39
    assert "dropped a message: internal error" in caplog.text


def test_a_frame_that_triggers_a_bug_is_dropped(
    machine: Machine, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meet_a_bug(frame: str | bytes) -> Message | Malformed:
        if "oops" in str(frame):
            raise AttributeError
        return parse_frame(frame)

    monkeypatch.setattr("atom_saas_sync.usecases.watch.inbox.parse_frame", meet_a_bug)
    with watch_in_thread(machine, JumpingClock()) as running:
        assert sandbox.wait_for_listeners(1)
        sandbox.push({"type": "oops"})
        wait_until(lambda: internal_errors(machine) == 1, PATIENCE)
        sandbox.put_skill({"skill_id": "news", "name": "afterwards"})
        wait_until(lambda: "news" in machine.cached(), PATIENCE)
    assert running.bug is None
    assert sandbox.counters()["ws_connections"] == 1


# The end


def test_it_stops_in_time_while_another_program_keeps_the_database(machine: Machine, sandbox: Sandbox) -> None:
    first = sandbox.skill_ids()[0]
    with watching(machine) as process, machine.database.writing():
        sandbox.patch_skill(first, {"name": "could not be written"})
        logged = stop(process)
    assert "1 message could not be written; the next start fetches what was in them" in logged
    with watching(machine):
        assert machine.cached() == machine.listed()


def test_it_stores_its_stop_as_soon_as_another_program_has_written(machine: Machine) -> None:
    with watching(machine) as process:
        with machine.database.writing():
            process.send_signal(signal.SIGTERM)
            threading.Event().wait(2.5)  # what the other program takes; more than two attempts
        _, logged = process.communicate(timeout=STOP_PATIENCE)
    assert process.returncode == 0, logged
    assert websocket_state(machine)["stopped_at"] is not None, logged


UNREAD = """
import os
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x")
except BlockingIOError:
    os.set_blocking(2, True)
"""


def test_it_stops_in_time_when_its_log_is_not_read(machine: Machine, sandbox: Sandbox) -> None:
    assert machine.command("sync", "skills").returncode == 0
    with machine.started("watch", first=UNREAD) as process:
        told(sandbox)  # and says so, which makes it wait for the reader
        wait_until(lambda: websocket_state(machine)["pid"] == process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_PATIENCE) == 143
    assert websocket_state(machine)["stopped_at"] is None


@pytest.mark.postgresql
def test_it_stops_in_time_when_the_server_is_frozen(machine: Machine) -> None:
    frozen: list[int] = []
    here = "application_name = 'atom-sync/watch' AND datname = current_database()"
    with watching(machine) as process:
        try:
            for (pid,) in machine.sql(f"SELECT pid FROM pg_stat_activity WHERE {here}"):
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=STOP_PATIENCE)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
    assert frozen
    assert process.returncode == 143, logged
    assert "could not store that `watch` was stopped, so it will seem killed: the database did not answer" in logged


def test_it_stops_in_time_when_the_other_side_is_deaf(machine: Machine, sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"ws://127.0.0.1:{deaf.getsockname()[1]}/ws"
        with machine.started("watch", ATOM_SAAS_WS_URL=url) as process:
            connection, _ = deaf.accept()
            with connection:
                stop(process)


def test_no_writes_follow_a_stop(machine: Machine, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    applying, release = threading.Event(), threading.Event()

    def hang(_self: EventFollower, _messages: Sequence[Message], _now: datetime) -> None:
        applying.set()
        assert release.wait(PATIENCE)

    for name in ("STOP_SECONDS", "STATE_SECONDS"):
        monkeypatch.setattr(f"atom_saas_sync.usecases.watch.service.{name}", 0.05)
    monkeypatch.setattr(EventFollower, "apply", hang)
    with watch_in_thread(machine, JumpingClock()) as running:
        assert sandbox.wait_for_listeners(1)
        sandbox.put_skill({"skill_id": "news", "name": "slow"})
        assert applying.wait(PATIENCE)
        running.soon(running.service.stop)
        running.thread.join(1.0)
        still_running = running.thread.is_alive()  # the database is closed when it has ended
        release.set()
    assert still_running
    assert running.bug is None


def test_messages_that_were_just_written_are_not_called_unwritten(
    machine: Machine, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written, release = threading.Event(), threading.Event()
    really_done = Backlog.done

    def done(self: Backlog, batch: Sequence[Message], seconds: float) -> None:
        really_done(self, batch, seconds)
        written.set()
        assert release.wait(PATIENCE)

    for name in ("STOP_SECONDS", "STATE_SECONDS", "LAST_ATTEMPT_SECONDS"):
        monkeypatch.setattr(f"atom_saas_sync.usecases.watch.service.{name}", 0.05)
    monkeypatch.setattr(Backlog, "done", done)
    with watch_in_thread(machine, JumpingClock()) as running:
        wait_until(lambda: running.polls and not machine.sql("SELECT 1 FROM sync_run WHERE finished_at IS NULL"))
        sandbox.put_skill({"skill_id": "news", "name": "slow"})
        assert written.wait(PATIENCE)
        running.soon(running.service.stop)
        wait_until(lambda: "could not store that `watch` was stopped" in caplog.text)
        release.set()
    assert "could not be written" not in caplog.text


@pytest.mark.parametrize("verb", ["stopped", "last_started"])
def test_polls_and_jobs_wait_for_a_table_that_is_locked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    with machine.store() as store:
        stored = type(store.schedule())
    read, asked, has_run = getattr(stored, verb), [], threading.Event()

    def read_later(*arguments: object) -> object:
        asked.append(verb)
        if len(asked) == 1:
            raise DatabaseBusy("locked for longer than 1 s")
        return read(*arguments)

    monkeypatch.setattr(stored, verb, read_later)
    job = Job("of-the-test", "Job", "ratings", 1, has_run.set)
    with watch_in_thread(machine, JumpingClock(), jobs=[job]) as running:
        wait_until(lambda: (has_run.is_set() and running.polls) or running.bug, PATIENCE)
    assert running.bug is None


@pytest.mark.postgresql
def test_a_table_that_is_locked_for_seconds_does_not_end_it(machine: Machine) -> None:
    with machine.started("watch", ATOM_SAAS_WS_ENABLED="false") as process:
        wait_for_catch_up(machine)
        with machine.database.transaction() as execute:
            execute("LOCK TABLE sync_run IN ACCESS EXCLUSIVE MODE")  # as VACUUM FULL does
            threading.Event().wait(3.0)  # as long as it takes
        wait_for_state(machine, pid=process.pid)
        logged = stop(process)
    assert "locked" not in logged


def test_an_error_of_one_service_ends_all_and_is_raised_unchanged(
    machine: Machine, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Nobody):
        def alive(self) -> None:
            raise failure from cause

    failure, cause = OverflowError("of the supervisor"), KeyError("cause")
    with watch_in_thread(machine, JumpingClock(), supervisor=Broken(watchdog_seconds=0.01)) as running:
        running.thread.join(PATIENCE)
    assert running.bug is failure
    assert running.bug.__cause__ is cause
    assert websocket_state(machine)["stopped_at"] is not None
