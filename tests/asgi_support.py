"""Serve a test's own ASGI application on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from atom_saas_sync.web.server import listen


@contextmanager
def serving(app: ASGIApp, *, ws: Literal["none", "websockets-sansio"] = "none") -> Iterator[int]:
    """Serve it in a thread during the block; yield the port."""
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, ws=ws, lifespan="off", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)
