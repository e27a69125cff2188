"""Sending responses, or breaking the connection in one of several ways (faults below HTTP)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from atom_saas_sync.sandbox.encoding import Encoded
from atom_saas_sync.sandbox.faults import Fault, Strikes
from atom_saas_sync.sandbox.spoiled import bomb, not_json, oversized

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

REDIRECTED = "/_redirected"  # target of the redirect fault, with the same responses
_PIECE = 16 * 1024  # answers share the bandwidth in pieces of this size
MAX_BODY = 1024 * 1024  # the largest request body (contract, "Errors and limits")


class Link:
    """The sandbox's simulated network link: each response is delayed, and all bodies share the bandwidth."""

    def __init__(self, latency: float = 0.0, bandwidth: float = 0.0) -> None:
        """`latency` is in seconds, `bandwidth` in bytes a second; 0 means no limit."""
        self.latency = latency
        self.bandwidth = bandwidth
        self._free_at = 0.0

    async def carry(self, size: int) -> None:
        """Wait until this many bytes have been sent, after those of other responses."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + size / self.bandwidth
        await asyncio.sleep(self._free_at - now)


class Sender:
    """Sends a response, subject to the request's faults."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, strikes: Strikes, link: Link) -> None:
        self._link = link
        self._transport: asyncio.Transport = scope["state"]["transport"]
        self._receive = receive
        self._send = send
        self._strikes = strikes

    def drop(self, *, reset: bool) -> None:
        """Break the connection; unsent data is lost."""
        drop(self._transport, reset=reset)

    async def hang(self) -> None:
        """Hang until the client disconnects or the sandbox stops."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send(self, status: int, headers: list[tuple[str, str]], body: bytes, content: Encoded) -> int:
        """Send the response; return the bytes of the body that were sent."""
        if status in (204, 304):
            await self._start(status, headers)
            await self._send({"type": "http.response.body", "body": b""})
            return 0
        if (fault := self._strikes.get("oversized")) is not None:
            return await self._send_oversized(status, headers, fault)
        headers, body = self._spoil(headers, body, content)
        await self._start(status, [*headers, ("content-length", str(len(body)))])
        fault = self._strikes.get("drop_body", "truncated", "hang")  # "hang" comes here only with value=body
        part = body[: len(body) // 2] if fault else body
        if drip := self._strikes.get("drip"):
            await self._drip(part, drip.amount)
        elif self._link.bandwidth:
            for start in range(0, len(part), _PIECE):
                piece = part[start : start + _PIECE]
                await self._link.carry(len(piece))
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        else:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        if fault is None:
            await self._send({"type": "http.response.body", "body": b""})
        elif fault.kind == "hang":
            await self.hang()
        elif fault.kind == "truncated":
            self._transport.close()
        else:
            self.drop(reset=False)
        return len(part)

    def _spoil(
        self, headers: list[tuple[str, str]], body: bytes, content: Encoded
    ) -> tuple[list[tuple[str, str]], bytes]:
        """Apply the faults that replace the bytes of the body; return headers and body."""
        fault = self._strikes.get("not_json", "lying_encoding", "bomb")
        if fault is None:
            return headers, body
        headers = [header for header in headers if header[0] != "content-encoding"]
        body = content.body("identity")
        if fault.kind == "not_json":
            return headers, not_json(fault.value, body)
        headers.append(("content-encoding", fault.value))
        return headers, bomb(fault.value, fault.amount) if fault.kind == "bomb" else body

    async def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _drip(self, body: bytes, bytes_per_second: int) -> None:
        step = max(1, bytes_per_second // 20)
        for start in range(0, len(body), step):
            await self._send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
            await asyncio.sleep(step / bytes_per_second)

    async def _send_oversized(self, status: int, headers: list[tuple[str, str]], fault: Fault) -> int:
        headers = [header for header in headers if header[0] != "content-encoding"]
        if fault.value == "length":
            headers = [*headers, ("content-length", str(sum(map(len, oversized(fault.amount)))))]
        await self._start(status, headers)
        sent = 0
        for chunk in oversized(fault.amount):
            if self._transport.is_closing():
                return sent  # the client has disconnected, so the body stays incomplete
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            sent += len(chunk)
        await self._send({"type": "http.response.body", "body": b""})
        return sent


def drop(transport: asyncio.Transport, *, reset: bool) -> None:
    """Break a connection immediately, with a TCP reset if requested."""
    connection = transport.get_extra_info("socket")
    if reset and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def read_body(receive: Receive) -> bytes:
    """Return the request's body, or slightly more than its limit."""
    body = b""
    while len(body) <= MAX_BODY:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    return body
