"""Real TLS on loopback, in front of the sandbox: trusted and untrusted servers, and the messages."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from conftest import Machine, wait_until
from watch_support import PATIENCE, stop, watching

from atom_saas_sync.errors import ConnectionFailed, WebSocketClosed
from atom_saas_sync.marketplace.websocket import open_link
from atom_saas_sync.sandbox import Sandbox

Configure = Callable[[ssl.SSLContext], None]


class Front:
    """Ends TLS before a sandbox, as a load balancer does."""

    def __init__(self, sandbox: Sandbox, configure: Configure | None) -> None:
        self._sandbox = sandbox
        self._context = None
        if configure is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            configure(self._context)
        self.port = 0
        self._ready = threading.Event()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        # A client that refuses the certificate is what this is for: not worth a line on standard error.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._sandbox.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except OSError:
                pass  # one side has gone: so does the other
            finally:
                target.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    def wait(self) -> None:
        self._ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)


@contextmanager
def front(sandbox: Sandbox, configure: Configure | None) -> Iterator[int]:
    serving = Front(sandbox, configure)
    thread = threading.Thread(target=serving.run, name="front", daemon=True)
    thread.start()
    serving.wait()
    try:
        yield serving.port
    finally:
        serving.stop()
        thread.join()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return path


def past() -> datetime:
    return datetime.now(UTC) - timedelta(days=30)


def self_signed(context: ssl.SSLContext) -> None:
    own = trustme.CA()
    with own.private_key_pem.tempfile() as key, own.cert_pem.tempfile() as certificate:
        context.load_cert_chain(certificate, key)


BAD: dict[str, tuple[Callable[[trustme.CA], Configure | None], str]] = {
    "another name": (lambda ca: ca.issue_cert("elsewhere.example").configure_cert, "Hostname mismatch"),
    "expired": (
        lambda ca: ca.issue_cert("localhost", not_before=past() - timedelta(days=1), not_after=past()).configure_cert,
        "certificate has expired",
    ),
    "not yet valid": (
        lambda ca: ca.issue_cert("localhost", not_before=past() + timedelta(days=60)).configure_cert,
        "certificate is not yet valid",
    ),
    "self-signed": (lambda _ca: self_signed, "self-signed certificate"),
    "of a stranger": (lambda _ca: trustme.CA().issue_cert("localhost").configure_cert, "unable to get local issuer"),
    "no TLS at all": (lambda _ca: None, "TLS: "),
}


@pytest.mark.parametrize("name", BAD)
def test_untrusted_servers_receive_nothing(
    name: str, machine: Machine, authority: trustme.CA, ca_file: Path, sandbox: Sandbox
) -> None:
    make, words = BAD[name]
    with front(sandbox, make(authority)) as port:
        with (
            machine.client(url=f"https://localhost:{port}", ca_file=ca_file) as (client, _),
            pytest.raises(ConnectionFailed) as failed,
        ):
            client.list_skills(1, 10)
        reason = f"TLS: {words.removeprefix('TLS: ')}"
        assert f"GET /api/v1/skills: the connection to localhost failed: {reason}" in failed.value.message
        assert "ATOM_SAAS_CA_FILE" in (failed.value.hint or "")
        assert machine.clock.slept == [1.0, 2.0, 4.0]
        with pytest.raises(WebSocketClosed) as ended:
            asyncio.run(open_link(f"wss://localhost:{port}/ws", sandbox.token, on_frame=lambda: None, ca_file=ca_file))
        assert words in str(ended.value)
        assert sandbox.token not in str(failed.value) + str(ended.value)
    assert sandbox.requests() == []
    assert sandbox.counters()["ws_connections"] == 0


def test_a_private_authority_is_trusted_for_both(
    machine: Machine, authority: trustme.CA, ca_file: Path, sandbox: Sandbox
) -> None:
    sandbox.set_clock_offset(0)
    with front(sandbox, authority.issue_cert("localhost").configure_cert) as port:
        settings = {
            "ATOM_SAAS_API_URL": f"https://localhost:{port}",
            "ATOM_SAAS_WS_URL": f"wss://localhost:{port}/ws",
            "ATOM_SAAS_CA_FILE": str(ca_file),
        }
        found = json.loads(machine.command("doctor", "--json", **settings).stdout)["findings"]
        assert {each["check"]: each["verdict"] for each in found}["http"] == "ok"
        with watching(machine, **settings):
            sandbox.patch_skill(sandbox.skill_ids()[0], {"description": "over TLS"})
            wait_until(lambda: machine.cached() == machine.listed())
        assert sandbox.counters()["ws_connections"] == 2, "that of doctor, and that of watch"
        del settings["ATOM_SAAS_CA_FILE"]
        ended = machine.hurried("sync", "skills", **settings)
        assert "unable to get local issuer certificate" in ended.stderr
        found = json.loads(machine.command("doctor", "--json", **settings).stdout)["findings"]
        assert "unable to get local issuer" in {each["check"]: each["message"] for each in found}["http"]


@contextmanager
def connect_proxy(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """Run a proxy whose CONNECT leads to `port` here, whatever is asked for; yield its port and the heads it got."""
    heads: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))
        finally:
            there_writer.close()
            writer.close()

    async def run() -> None:
        over = asyncio.Event()
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            started.append((asyncio.get_running_loop(), over, server.sockets[0].getsockname()[1]))
            ready.set()
            await over.wait()

    ready = threading.Event()
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ready.wait()
    loop, over, own_port = started[0]
    try:
        yield own_port, heads
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def test_the_websocket_goes_through_a_proxy_unless_it_is_excluded(
    machine: Machine, authority: trustme.CA, ca_file: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.set_clock_offset(0)
    certificate = authority.issue_cert("market.example", "fd00::7")
    with front(sandbox, certificate.configure_cert) as port, connect_proxy(port) as (proxy_port, heads):
        settings = {
            "ATOM_SAAS_WS_URL": "wss://market.example/ws",
            "ATOM_SAAS_CA_FILE": str(ca_file),
            "HTTPS_PROXY": f"http://user:secret@127.0.0.1:{proxy_port}",
        }
        with watching(machine, **settings) as process:
            sandbox.patch_skill(sandbox.skill_ids()[0], {"name": "through the proxy"})
            wait_until(lambda: machine.cached() == machine.listed(), PATIENCE)
            logged = stop(process)
        assert [head.split()[:2] for head in heads] == [[b"CONNECT", b"market.example:443"]]
        assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in heads[0]  # user:secret
        assert sandbox.token.encode() not in heads[0]
        assert "secret" not in logged
        with watching(machine, HTTPS_PROXY=settings["HTTPS_PROXY"]):  # loopback
            assert len(heads) == 1
        del heads[:]
        settings["ATOM_SAAS_WS_URL"] = "wss://[fd00::7]/ws"
        with watching(machine, **settings, NO_PROXY="10.0.0.0/8 [fd00::8]"):
            assert [head.split()[1] for head in heads] == [b"[fd00::7]:443"]
        monkeypatch.setenv("HTTPS_PROXY", settings["HTTPS_PROXY"])
        monkeypatch.setenv("NO_PROXY", "[fd00::]/8")
        with pytest.raises(WebSocketClosed, match="cannot connect to fd00::7: "):
            asyncio.run(open_link("wss://[fd00::7]/ws", sandbox.token, on_frame=lambda: None, ca_file=ca_file))
        assert len(heads) == 1


def test_an_unknown_name(machine: Machine) -> None:
    ended = machine.hurried("sync", "skills", ATOM_SAAS_API_URL="https://nobody.invalid")
    assert "GET /api/v1/skills: the connection to nobody.invalid failed: " in ended.stderr
    assert "name" in ended.stderr.lower()
    assert ended.returncode == 69
