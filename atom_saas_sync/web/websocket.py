"""The admin API: the connection of `watch`, which is another process and reacts within its heartbeat of 10 seconds."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atom_saas_sync.core.reports import websocket_details
from atom_saas_sync.web.jobs import STARTED_BY
from atom_saas_sync.web.site import Site


class WebSocketRoutes:
    """Routes that need the admin token. All are plain functions, which are run in threads."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def status(self, _request: Request) -> Response:
        """Return the state of the connection."""
        details = websocket_details(self._site.read().websocket, self._site.now())
        document = {**details, "configured": self._site.settings.ws_enabled}
        return JSONResponse({"success": True, "websocket": document})

    def enable(self, request: Request) -> Response:
        """Let `watch` connect."""
        return self._switch(request, enabled=True)

    def disable(self, request: Request) -> Response:
        """Let `watch` close its connection and poll only."""
        return self._switch(request, enabled=False)

    def reconnect(self, request: Request) -> Response:
        """Make a disconnected `watch` reconnect immediately. 409 if it must not connect."""
        if not self._site.settings.ws_enabled:
            raise HTTPException(409, "ATOM_SAAS_WS_ENABLED is false: polling only")
        with self._site.store() as store:
            if not self._site.read().websocket.enabled:
                raise HTTPException(409, "the WebSocket is switched off; `POST /websocket/enable` switches it on")
            store.switch().reset(actor=STARTED_BY, now=self._site.now())
        return self.status(request)

    def _switch(self, request: Request, *, enabled: bool) -> Response:
        with self._site.store() as store:
            store.switch().set(enabled=enabled, actor=STARTED_BY, now=self._site.now())
        return self.status(request)
