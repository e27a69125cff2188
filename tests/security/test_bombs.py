"""Decompression bombs: memory stays bounded, and runs end as documented."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import Machine, wait_until
from watch_support import tables_exist, websocket_state

MIB = 1024 * 1024


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_refused_before_it_fills_the_memory(machine: Machine, encoding: str) -> None:
    _, usual = machine.peak_of_a_sync()
    machine.sandbox.patch_skill(machine.sandbox.skill_ids()[0], {"code": "new"}, push=False)  # or nothing is sent
    number = machine.sandbox.fault("bomb", endpoint="list", value=encoding, amount=512 * MIB, times=1)
    result, peak = machine.peak_of_a_sync()
    assert machine.sandbox.faults()[number][1] == 1
    machine.sandbox.clear_faults()
    assert result.returncode in (0, 65)  # tried again, it is fine
    assert "Traceback" not in result.stderr
    assert peak < usual + 200, (usual, peak)
    assert len(machine.cached()) == 60


def test_encodings_upon_encodings_are_not_undone(machine: Machine) -> None:
    for value in ("gzip, gzip", "br", "gzip, zstd"):
        machine.sandbox.fault("lying_encoding", endpoint="list", value=value)
        report = machine.pull(force=True)
        machine.sandbox.clear_faults()
        assert (report.exit_code, report.reasons) == (65, ("bad_response",))


@contextmanager
def compressing_websocket() -> Iterator[tuple[int, list[bytes]]]:
    """A WebSocket server that compresses frames without negotiation: 200 MiB of zeros in one."""
    packed = zlib.compressobj(wbits=-15)
    payload = packed.compress(bytes(200 * MIB)) + packed.flush(zlib.Z_SYNC_FLUSH)
    frame = b"\xc1\x7f" + len(payload).to_bytes(8, "big") + payload  # FIN, RSV1, text
    heads: list[bytes] = []

    def answer(connection: socket.socket, *, agrees: bool) -> None:
        with connection:
            head = connection.recv(65536)
            heads.append(head)
            key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if agrees else b""
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n" + extension + b"\r\n" + frame
            )
            while connection.recv(65536):
                pass

    def serve(listener: socket.socket) -> None:
        for turn in range(1000):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), kwargs={"agrees": bool(turn % 2)}, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1], heads
        listener.shutdown(socket.SHUT_RDWR)


def test_a_websocket_that_packs_its_frames_is_left(machine: Machine) -> None:
    with (
        compressing_websocket() as (port, heads),
        machine.started("watch", ATOM_SAAS_WS_URL=f"ws://127.0.0.1:{port}/ws") as process,
    ):
        wait_until(lambda: tables_exist(machine) and websocket_state(machine)["consecutive_failures"] >= 2)
        assert process.poll() is None
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:  # noqa: PTH123 - of the kernel
            peak = int(status.read().split("VmHWM:")[1].split()[0]) / 1024
        assert peak < 200
        assert not any(b"permessage-deflate" in head for head in heads)
        process.terminate()
        assert process.wait(60) == 0
