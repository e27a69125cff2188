"""A malicious marketplace on a real socket: it puts the received token into every response."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from asgi_support import serving
from starlette.types import Receive, Scope, Send


class EchoingMarketplace:
    """Answers every request with `status` and the token in headers and body.

    With status 101 it opens a WebSocket, and closes it with the token as the reason.
    """

    def __init__(self) -> None:
        self.status = 500
        self.seen: set[str] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = self._token(scope)
        self.seen.add(token)
        # Removing invisible characters after masking would reassemble the token.
        broken = f"{token[:9]}\x00{token[9:]}"
        handshake = scope["type"] == "websocket"
        if handshake and self.status == 101:
            await receive()
            await send({"type": "websocket.accept"})
            reason = f"\x1b[31mno {token} \u202e {broken}"
            await send({"type": "websocket.close", "code": 4000, "reason": reason})
            return
        while (await receive()).get("more_body"):
            pass
        headers = [
            (b"content-type", b"application/json"),
            (b"www-authenticate", f"Bearer {token}".encode()),
            (b"x-request-id", token.encode()),
            (b"location", f"http://127.0.0.1:1/?token={token}".encode()),
        ]
        text = f"your token {token} and {broken} and https://example.org/?token={token}"
        body = json.dumps({"detail": text, "error": {"message": text, "code": token}, "message": text, token: text})
        kind = "websocket.http.response" if handshake else "http.response"
        await send({"type": f"{kind}.start", "status": self.status, "headers": headers})
        await send({"type": f"{kind}.body", "body": body.encode()})

    @staticmethod
    def _token(scope: Scope) -> str:
        headers = dict(scope["headers"])
        shown: str = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        return shown or parse_qs(scope["query_string"].decode()).get("token", [""])[0]


@contextmanager
def echoing_marketplace() -> Iterator[EchoingMarketplace]:
    """Run it during the block."""
    marketplace = EchoingMarketplace()
    with serving(marketplace, ws="websockets-sansio") as marketplace.port:
        yield marketplace
