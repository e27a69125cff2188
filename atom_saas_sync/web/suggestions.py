"""Suggesting a route for an unknown path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

_LIVE, _READY, _METRICS = "/health/live", "/health/ready", "/metrics/sync"
_ALL_HEALTH = f"{_LIVE}, {_READY} or /health/sync"
_COMMON_NAMES = {
    "live": _LIVE,
    "livez": _LIVE,
    "liveness": _LIVE,
    "alive": _LIVE,
    "ping": _LIVE,
    "ready": _READY,
    "readyz": _READY,
    "readiness": _READY,
    "startup": _READY,
    "startupz": _READY,
    "health": _ALL_HEALTH,
    "healthz": _ALL_HEALTH,
    "healthy": _ALL_HEALTH,
    "healthcheck": _ALL_HEALTH,
    "metrics": _METRICS,
    "prometheus": _METRICS,
}
_CLOSE = 0.6


def suggested_route(path: str, routes: Sequence[str]) -> str:
    """Return a hint for `path`: the route with that common name, else the closest of `routes`, else the probes."""
    wanted = re.sub(r"/\d+(?=/|$)", "/{id}", re.sub(r"/+", "/", path.lower()).rstrip("/"))
    last = wanted.rpartition("/")[2]
    same_end = [route for route in routes if last and route.endswith(f"/{last}")]
    same_depth = [route for route in routes if route.count("/") == wanted.count("/")]
    close = (
        get_close_matches(wanted, same_end, 1, 0)
        or get_close_matches(wanted, same_depth, 1, _CLOSE)
        or get_close_matches(wanted, routes, 1, _CLOSE)
    )
    known = wanted if wanted in routes else _COMMON_NAMES.get(re.sub(r"[-_.]", "", last))
    if meant := known or next(iter(close), None):
        return f"use {meant}"
    return f"the routes for probes are {_LIVE}, {_READY}, /health/sync and {_METRICS}"
