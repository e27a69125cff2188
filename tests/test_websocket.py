"""The WebSocket connection: the address it uses, what it sends, and how it shows its URL."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Machine
from watch_support import PATIENCE, deaf_flood, ping_frame, stop, text_frame, watching, websocket_state

from atom_saas_sync.errors import WebSocketClosed
from atom_saas_sync.marketplace.websocket import open_link
from atom_saas_sync.sandbox import Sandbox


@pytest.fixture
def machine(sandbox: Sandbox, tmp_path: Path) -> Machine:
    """Return a machine that shares the real time with the sandbox."""
    return Machine(sandbox, tmp_path)


@contextmanager
def swallowing() -> Iterator[int]:
    """Listen on a port whose queue is full: further connections are neither accepted nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for each in waiting:
                each.close()


TWO_ADDRESSES = """
import runpy, socket, sys
real = socket.getaddrinfo
def two_addresses(host, *arguments, **options):
    if host != "market.example":
        return real(host, *arguments, **options)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ({}, {})]
socket.getaddrinfo = two_addresses
sys.argv = ["atom-sync", *{!r}]
runpy.run_module("atom_saas_sync", run_name="__main__")
"""


@pytest.mark.parametrize("first_is_broken", [True, False])
def test_an_address_that_swallows_connections_does_not_keep_watch_from_the_next(
    machine: Machine, sandbox: Sandbox, first_is_broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with swallowing() as broken:
        ports = [broken, sandbox.port] if first_is_broken else [sandbox.port, broken]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

        async def connect() -> None:
            link = await open_link(f"ws://market.example:{sandbox.port}/ws", sandbox.token, on_frame=lambda: None)
            link.abort()

        asyncio.run(connect())
    assert sandbox.counters()["ws_connections"] == 1
    assert sandbox.wait_for(lambda: sandbox.counters()["ws_open"] == 0), "the next test counts what is still open"


def test_a_connection_that_is_cancelled_at_any_moment_is_closed() -> None:
    async def cancelled_after(steps: int) -> None:
        connecting = asyncio.create_task(open_link(sandbox.ws_url, sandbox.token, on_frame=lambda: None))
        for _ in range(steps):
            await asyncio.sleep(0)
        connecting.cancel()
        with suppress(asyncio.CancelledError, WebSocketClosed):
            (await connecting).abort()

    # Of its own: a busy sandbox may count some of these connections when the next test has begun.
    with Sandbox(skills=1) as sandbox, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for steps in range(20):
            asyncio.run(cancelled_after(steps))
        gc.collect()
    assert [str(each.message) for each in found if each.category is ResourceWarning] == []


@pytest.mark.parametrize("good", [True, False])
def test_doctor_connects_as_watch_does(machine: Machine, sandbox: Sandbox, good: bool) -> None:
    with swallowing() as broken:
        addresses = (broken, sandbox.port) if good else (1, 2)
        code = TWO_ADDRESSES.format(*addresses, ["doctor", "--json"])
        url = f"ws://market.example:{sandbox.port}/ws"
        result = machine.python(code, ATOM_SAAS_WS_URL=url, ATOM_SAAS_ALLOW_INSECURE="true")
    found = {each["check"]: each for each in json.loads(result.stdout)["findings"]}
    assert found["http"]["verdict"] == "ok"
    message = found["websocket"]["message"]
    assert message == "the WebSocket connects" if good else message.startswith("cannot connect to market.example: ")
    assert sandbox.counters()["ws_connections"] == int(good)


@pytest.mark.parametrize("path", ["/ws?key=Geheim", "/ws?x=1&apikey=Geheim", "/ws?Geheim"])
def test_a_key_in_the_query_of_the_url_is_neither_logged_nor_stored(
    machine: Machine, sandbox: Sandbox, path: str
) -> None:
    url = sandbox.ws_url.replace("/ws", path)
    with watching(machine, ATOM_SAAS_WS_URL=url) as process:
        assert websocket_state(machine)["ws_url"] == f"{sandbox.ws_url}?…"
        logged = stop(process)
    assert "Geheim" not in logged
    assert f"connected to {sandbox.ws_url}?…" in logged
    assert all(b"Geheim" not in file.read_bytes() for file in machine.directory.iterdir() if file.is_file())


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "rest",
    [
        b"\r\nContent-Length: 1000\r\n\r\ntok",  # the rest never comes
        b"\r\nContent-Length: 1000\r\n\r\ntok!",  # the connection ends within the body
        b"\r\nno header!\r\n\r\n",
        b" Refused!",
    ],
)
def test_a_refused_token_counts_whatever_comes_after_the_status(status: int, rest: bytes) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as client:
                client.recv(4096)
                client.sendall(b"HTTP/1.1 %d" % status)
                client.sendall(rest.rstrip(b"!"))
                if not rest.endswith(b"!"):
                    over.wait(PATIENCE)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
        with pytest.raises(WebSocketClosed, match=rf"refused the token \({status}\)") as closed:
            asyncio.run(open_link(url, "token", on_frame=lambda: None, handshake_seconds=0.3))
        over.set()
        thread.join()
    assert closed.value.token_refused


async def answer_until_the_end(port: int, token: str) -> str:
    """Answer each message; return why the connection ended."""
    link = await open_link(f"ws://127.0.0.1:{port}/ws", token, on_frame=lambda: None)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                await link.receive()
                await link.send('{"type":"pong"}')
    except WebSocketClosed as ended:
        return ended.message


@pytest.mark.parametrize("frame", [ping_frame(), text_frame(b'{"type":"ping"}')])
def test_a_server_that_reads_nothing_is_left(sandbox: Sandbox, frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atom_saas_sync.marketplace.websocket.SEND_SECONDS", 0.2)
    monkeypatch.setattr("atom_saas_sync.marketplace.websocket.MOST_CONTROL_FRAMES", 10**9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with deaf_flood(frame) as port:
        assert asyncio.run(answer_until_the_end(port, sandbox.token)) == (
            "the marketplace does not read what is sent to it"
        )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
