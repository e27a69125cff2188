"""A marketplace on a real socket with responses written by a test, for what the sandbox cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote

from asgi_support import serving
from starlette.types import Receive, Scope, Send

Answer = tuple[int, bytes]
LIST, CATEGORIES = "/api/v1/skills", "/api/v1/categories"


def skill(skill_id: str, **fields: Any) -> bytes:
    """Return a skill as JSON."""
    return json.dumps({"skill_id": skill_id, "name": skill_id, "version": "1.0.0", **fields}).encode()


@dataclass
class ScriptedMarketplace:
    """Lists `items`, which may be any bytes, in pages.

    `answer` gets the path and the query, and may return another response, or None. `total` overrides the number of
    items.
    """

    items: list[bytes] = field(default_factory=list)
    categories: bytes = b'{"categories": [{"name": "tools"}]}'
    total: Any = None
    answer: Callable[[str, Mapping[str, str]], Answer | None] = lambda _path, _query: None
    requests: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, number: int, size: int) -> bytes:
        """Return one page of the list."""
        total = len(self.items) if self.total is None else self.total
        listed = b",".join(self.items[(number - 1) * size : number * size])
        return b'{"skills":[' + listed + b'],"page":%d,"total":' % number + json.dumps(total).encode() + b"}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        path, query = scope["raw_path"].decode(), dict(parse_qsl(scope["query_string"].decode()))
        self.requests.append(f"{path}?{query['page']}" if "page" in query else path)
        status, body = self.answer(path, query) or self._usual(path, query)
        etag = sha256(body).hexdigest().encode()
        if status == 200 and dict(scope["headers"]).get(b"if-none-match") == etag:
            status, body = 304, b""
        headers = [(b"content-type", b"application/json"), (b"etag", etag)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _usual(self, path: str, query: Mapping[str, str]) -> Answer:
        if path == LIST:
            return 200, self.page(int(query["page"]), int(query["page_size"]))
        if path == CATEGORIES:
            return 200, self.categories
        wanted = unquote(path.removeprefix(f"{LIST}/"))
        found = [item for item in self.items if f'"skill_id": "{wanted}"'.encode() in item]
        return (200, found[0]) if found else (404, b"{}")


@contextmanager
def scripted_marketplace(items: list[bytes] | None = None) -> Iterator[ScriptedMarketplace]:
    """Run one during the block."""
    marketplace = ScriptedMarketplace(items or [])
    with serving(marketplace) as marketplace.port:
        yield marketplace
