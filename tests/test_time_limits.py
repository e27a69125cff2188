"""The time limit of a request covers its first byte to its last, and a signal ends it at once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Machine
from scripted_market import PAGE, Request, ScriptedMarket, answer, scripted_market

from atom_saas_sync.cli.output import GlobalOptions
from atom_saas_sync.cli.runtime import RunClock, settings_of, supervisor
from atom_saas_sync.cli.watch import _Service
from atom_saas_sync.errors import BadResponse, ConnectionFailed, MarketplaceTimeout
from atom_saas_sync.marketplace.connections import MOST_INTERIM_ANSWERS, Connections

LIST = "/api/v1/skills"
PATIENCE = 30.0
LIMIT = 0.3
HANGS_UP = 8.0
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.fixture
def market() -> Iterator[ScriptedMarket]:
    with scripted_market() as market:
        yield market


def slowly(
    market: ScriptedMarket, start: bytes, piece: bytes, pause: float
) -> Callable[[Request, socket.socket], None]:
    """Return a handler that sends `piece` again and again, and hangs up after a time that no limit may reach."""

    def handle(_request: Request, connection: socket.socket) -> None:
        connection.sendall(start)
        end = time.monotonic() + HANGS_UP
        while not market.over.wait(min(pause, HANGS_UP)) and time.monotonic() < end:
            connection.sendall(piece)

    return handle


ENDLESS = {
    "its head": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.05),
    "its first line": (b"HTTP/1.1 200 ", b"O", 0.05),
    "its body": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b" ", 0.05),
    "a chunked body": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.05),
    "nothing": (b"", b"", 0.05),
    "an interim answer": (b"", INTERIM[:9] + b"103 ", 60),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_server_that_drips_is_given_up(machine: Machine, market: ScriptedMarket, name: str) -> None:
    market.on(LIST, slowly(market, *ENDLESS[name]))
    with machine.client(url=market.url, timeout_seconds=LIMIT) as (client, _), pytest.raises(MarketplaceTimeout):
        client.list_skills(1, 10)
    assert len(market.requests) == 4, "each retry has a limit of its own"


def test_a_poll_of_watch_ends_with_its_interval(
    machine: Machine, market: ScriptedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.on(LIST, slowly(market, *ENDLESS["its body"]))
    for name, value in machine.environment(**market.variables).items():
        monkeypatch.setenv(name, value)
    options = GlobalOptions()
    settings = settings_of(options).but(sync_interval_minutes=LIMIT / 60)
    service = _Service(options, settings, RunClock(), supervisor(), jobs=False)
    report = service._poll()  # noqa: SLF001 - real intervals take minutes
    assert report is not None
    assert (report.exit_code, report.reasons) == (75, ("deadline",))


@pytest.mark.parametrize("pause", [0.0, 0.01], ids=["a flood", "one after the other"])
def test_interim_answers_are_counted(machine: Machine, market: ScriptedMarket, pause: float) -> None:
    market.on(LIST, slowly(market, b"", INTERIM * (1000 if pause == 0 else 1), pause))
    with machine.client(url=market.url, timeout_seconds=PATIENCE) as (client, _), pytest.raises(BadResponse) as failed:
        client.list_skills(1, 10)
    assert failed.value.message == f"GET {LIST}: more than 8 interim responses (1xx)"


@pytest.mark.parametrize("cut", [len(INTERIM) * MOST_INTERIM_ANSWERS, 5, 60])
def test_some_interim_answers_are_skipped(machine: Machine, market: ScriptedMarket, cut: int) -> None:
    said = INTERIM * MOST_INTERIM_ANSWERS + answer(PAGE)

    def handle(_request: Request, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(said[:cut])
        market.over.wait(0.01)
        connection.sendall(said[cut:])

    market.on(LIST, handle)
    with machine.client(url=market.url) as (client, _):
        assert client.list_skills(1, 10).items is not None


@contextmanager
def swallowing() -> Iterator[str]:
    """Yield an address that neither accepts nor refuses connections: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as waiting:
        waiting.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_address_that_swallows_connections_is_given_up(machine: Machine) -> None:
    with (
        swallowing() as url,
        machine.client(url=url, timeout_seconds=LIMIT) as (client, _),
        pytest.raises(MarketplaceTimeout),
    ):
        client.list_skills(1, 10)


def test_a_second_address_is_tried_while_the_first_is_silent(
    machine: Machine, market: ScriptedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, look_up = socket.create_connection, socket.getaddrinfo

    def first_is_silent(address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
        if address[0] == "::1":
            market.over.wait(PATIENCE)
            raise TimeoutError
        return connect(address, *arguments, **options)

    def two_addresses(host: str, *arguments: Any, **options: Any) -> list[Any]:
        return both if host == "both.example" else look_up(host, *arguments, **options)

    both = [(family, socket.SOCK_STREAM, 6, "", (host, 0)) for family, host in ((10, "::1"), (2, "127.0.0.1"))]
    monkeypatch.setattr(socket, "create_connection", first_is_silent)
    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    url = market.url.replace("127.0.0.1", "both.example")
    with machine.client(url=url, timeout_seconds=PATIENCE) as (client, _):
        assert client.list_skills(1, 10).items is not None
    market.over.set()


def test_doctor_has_the_same_limit(machine: Machine, market: ScriptedMarket) -> None:
    variables = {**market.variables, "ATOM_SAAS_API_TIMEOUT_SECONDS": "1"}
    for endless, words in (
        (ENDLESS["its head"], "no complete response within 1 s"),
        ((b"", INTERIM, 0), "more than 8 interim"),
    ):
        market.on("/", slowly(market, *endless))
        ended = machine.command("doctor", "--json", **variables)
        found = {each["check"]: each["message"] for each in json.loads(ended.stdout)["findings"]}
        assert ended.returncode == 1 and words in found["http"]


# Signals


COMMANDS = [
    ("sync", "skills"),
    ("sync", "skills", "--no-categories"),
    ("sync", "categories"),
    ("sync", "ratings"),
    ("doctor",),
]
HANGS: dict[str, bytes] = {"before its head": b"", "in its body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "before its head"), (signal.SIGINT, "in its body")])
def test_a_signal_cuts_a_request_that_hangs(
    machine: Machine, market: ScriptedMarket, command: tuple[str, ...], number: signal.Signals, name: str
) -> None:
    if command == ("sync", "ratings"):
        machine.pull()
        assert machine.command("ratings", "add", next(iter(machine.cached())), "4").returncode == 0
    hanging = threading.Event()

    def handle(_request: Request, connection: socket.socket) -> None:
        connection.sendall(HANGS[name])
        hanging.set()
        market.over.wait(PATIENCE * 2)

    for beginning in ("/", LIST, "/api/v1/categories"):
        market.on(beginning, handle)
    # Doctor reads no bodies, so the head hangs here.
    if command == ("doctor",) and name == "in its body":
        market.on("/", slowly(market, *ENDLESS["its head"]))
        hanging.set()
    started = time.monotonic()
    with machine.started(*command, **market.variables, ATOM_SAAS_API_TIMEOUT_SECONDS="120") as process:
        assert hanging.wait(PATIENCE)
        while not market.requests:
            assert time.monotonic() - started < PATIENCE
            time.sleep(0.01)  # the pause of a bounded poll
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
        assert process.stderr is not None
        assert f"stopped by {number.name}" in process.stderr.read()


def test_a_signal_cuts_waiting_for_a_connection(machine: Machine) -> None:
    with swallowing() as url:
        variables = {"ATOM_SAAS_API_URL": url, "ATOM_SAAS_API_TIMEOUT_SECONDS": "120"}
        with machine.started("sync", "skills", **variables) as process:
            port = int(url.rpartition(":")[2])
            end = time.monotonic() + PATIENCE
            while f":{port:04X} 02 " not in Path("/proc/net/tcp").read_text():  # SYN_SENT
                assert time.monotonic() < end
                time.sleep(0.01)  # the pause of a bounded poll
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130


def test_a_signal_that_does_not_interrupt_the_main_thread_counts() -> None:
    # As one that comes just before a call that blocks: here it is another thread's, so the call goes on.
    blocked = (
        "from atom_saas_sync.cli.runtime import RunClock\n"
        "import os, signal, threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "stop, (read_end, write_end) = RunClock(), os.pipe()\n"
        "with stop.caught(), stop.cutting(lambda _number: os.write(write_end, b'x')):\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "    print('ready', flush=True)\n"
        "    os.read(read_end, 1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", blocked], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_hard(number: signal.Signals) -> None:
    deaf = (
        "from atom_saas_sync.cli.runtime import RunClock\n"
        "import sys, time\n"
        "with RunClock().caught():\n"
        "    print('ready', flush=True)\n"
        "    while True: time.sleep(0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number


def test_no_request_is_sent_after_a_stop(machine: Machine, market: ScriptedMarket) -> None:
    with machine.client(url=market.url) as (client, _):
        client.list_skills(1, 10)
        client.stop(signal.SIGTERM)
        with pytest.raises(Exception, match="stopped by SIGTERM"):
            client.list_skills(1, 10)
    assert len(market.requests) == 1


def test_a_connection_that_comes_after_the_end_is_closed(
    market: ScriptedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that for the page which is fetched ahead when a sync ends early."""
    connect, connecting, closed = socket.create_connection, threading.Event(), threading.Event()
    made: list[socket.socket] = []
    failures: list[Exception] = []

    def late(*arguments: Any, **options: Any) -> socket.socket:
        connecting.set()
        assert closed.wait(PATIENCE)
        made.append(connect(*arguments, **options))
        return made[-1]

    def fetch() -> None:
        try:
            with connections.exchange(httpx.Request("GET", market.url), "GET /", PATIENCE):
                pass
        except ConnectionFailed as failure:
            failures.append(failure)

    monkeypatch.setattr(socket, "create_connection", late)
    connections = Connections(market.url, None, most=1)
    fetching = threading.Thread(target=fetch)
    fetching.start()
    assert connecting.wait(PATIENCE)
    connections.close()
    closed.set()
    fetching.join(PATIENCE)
    assert [each.fileno() for each in made] == [-1]
    assert "closed meanwhile" in str(failures[0])
    assert market.requests == []


def test_a_connection_that_comes_after_the_time_limit_is_closed(
    market: ScriptedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, ended, came = socket.create_connection, threading.Event(), threading.Event()
    made: list[socket.socket] = []

    def late(*arguments: Any, **options: Any) -> socket.socket:
        assert ended.wait(PATIENCE)
        made.append(connect(*arguments, **options))
        came.set()
        return made[-1]

    monkeypatch.setattr(socket, "create_connection", late)
    connections = Connections(market.url, None, most=1)
    with (
        pytest.raises(MarketplaceTimeout),
        connections.exchange(httpx.Request("GET", market.url), "GET /", LIMIT),
    ):
        pass
    racing = [thread for thread in threading.enumerate() if thread.name == "connect"]
    ended.set()
    for thread in racing:
        thread.join(PATIENCE)
    connections.close()
    assert came.is_set()
    assert [each.fileno() for each in made] == [-1]
    assert market.requests == []


def test_a_failed_connection_names_the_host(machine: Machine) -> None:
    with (
        machine.client(url="http://127.0.0.1:9") as (client, _),
        pytest.raises(
            ConnectionFailed, match=r"GET /api/v1/skills: the connection to 127\.0\.0\.1 failed: Connection refused"
        ),
    ):
        client.list_skills(1, 10)
