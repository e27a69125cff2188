"""Status as Prometheus text: a pure view, so that every exit says the same (metrics.md).

Counters were incremented in the transaction that did the work and are stored; nothing is counted here. Every metric
and every label value that is known exists from the start, at 0: what appears only with its first event has no
increase that Prometheus could see. There are no timestamps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import product

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from atom_saas_sync import __version__
from atom_saas_sync.core.health import watch_is_running, websocket_connected
from atom_saas_sync.model import (
    CONFLICT_TYPES,
    DURATION_BUCKETS,
    ITEM_ACTIONS,
    MESSAGE_TYPES,
    METRIC_ERRORS,
    SEVERITIES,
    STRATEGIES,
    Status,
)
from atom_saas_sync.times import parse_time

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TYPES = ("skill", "rating")
_KINDS = {"skill": "skills", "rating": "ratings"}
_READ_CODES = ("200", "304", "401", "403", "404", "429", "500", "502", "503", "504", "timeout", "connection")
_WRITE_CODES = ("200", "201", "400", "401", "403", "404", "409", "429", "500", "503", "timeout", "connection")

# What each counter counts, its labels, and their known values, which exist from the start.
_COUNTERS: dict[str, tuple[str, tuple[str, ...], Iterable[tuple[str, ...]]]] = {
    "atom_saas_sync_success": ("Successful syncs", ("type",), [(kind,) for kind in _TYPES]),
    "atom_saas_sync_errors": ("Sync errors by kind", ("type", "error"), list(product(_TYPES, METRIC_ERRORS))),
    "atom_saas_sync_items": (
        "Items that syncs looked at, by what became of them",
        ("type", "action"),
        list(product(("skill", "category", "rating"), ITEM_ACTIONS)),
    ),
    "atom_saas_cache_requests": (
        "Reads of single skills from the cache",
        ("result",),
        [(result,) for result in ("hit", "miss", "stale")],
    ),
    "atom_saas_websocket_reconnects": ("Attempts to connect the WebSocket again", (), [()]),
    "atom_saas_websocket_messages": (
        "WebSocket messages received",
        ("type",),
        [(kind,) for kind in MESSAGE_TYPES],
    ),
    "atom_saas_websocket_messages_invalid": ("WebSocket messages that were malformed and dropped", (), [()]),
    "atom_saas_websocket_fallback_seconds": ("Seconds spent in fallback to polling", (), [()]),
    "atom_saas_conflicts_detected": ("Conflicts detected", ("type",), [(kind,) for kind in CONFLICT_TYPES]),
    "atom_saas_conflicts_resolved": (
        "Conflicts resolved, by strategy; converged: the two sides became equal by themselves",
        ("strategy",),
        [(strategy,) for strategy in (*STRATEGIES, "converged")],
    ),
    "atom_saas_api_requests": (
        "Requests sent to the marketplace, by HTTP code or kind of failure",
        ("endpoint", "code"),
        [*product(("skills", "skill", "categories"), _READ_CODES), *product(("ratings",), _WRITE_CODES)],
    ),
}


def render(status: Status, now: datetime) -> str:
    """Return the metrics as text in the format that Prometheus and node_exporter read."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_View(status, now))
    return generate_latest(registry).decode()


class _View(Collector):
    def __init__(self, status: Status, now: datetime) -> None:
        self._status = status
        self._now = now
        self._counters: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for (name, labels), value in status.counters.items():
            self._counters.setdefault(name, {})[tuple(sorted(json.loads(labels).items()))] = value

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield self._durations()
        for name, (meaning, labels, known) in _COUNTERS.items():
            yield self._counter(name, meaning, labels, known)
        yield from self._gauges()

    def _counter(
        self, name: str, meaning: str, labels: Sequence[str], known: Iterable[tuple[str, ...]]
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(name, meaning, labels=labels)
        values = dict.fromkeys(known, 0.0)
        for stored, value in self._counters.get(f"{name}_total", {}).items():
            values[tuple(dict(stored)[label] for label in labels)] = value
        for each, value in values.items():
            family.add_metric(each, value)
        return family

    def _durations(self) -> HistogramMetricFamily:
        name = "atom_saas_sync_duration_seconds"
        family = HistogramMetricFamily(name, "Sync duration in seconds", labels=("type",))
        buckets = self._counters.get(f"{name}_bucket", {})
        sums = self._counters.get(f"{name}_sum", {})
        for kind in _TYPES:
            total = 0.0
            cumulative = []
            # Stored one by one, shown cumulative.
            for bound in (*map(str, DURATION_BUCKETS), "+Inf"):
                total += buckets.get((("le", bound), ("type", kind)), 0.0)
                cumulative.append((bound, total))
            family.add_metric((kind,), cumulative, sums.get((("type", kind),), 0.0))
        return family

    def _gauges(self) -> Iterator[Metric]:
        status, now = self._status, self._now
        websocket = status.websocket
        running = watch_is_running(websocket, now)
        succeeded = {"skill": status.sync.last_successful_sync_at, "rating": status.last_rating_success_at}
        finished = {kind: status.last_runs.get(_KINDS[kind]) for kind in _TYPES}
        yield _gauge(
            "atom_saas_sync_last_success_timestamp_seconds",
            "When the last successful sync ended; 0: never",
            {(kind,): _seconds(succeeded[kind]) for kind in _TYPES},
            ("type",),
        )
        yield _gauge(
            "atom_saas_sync_last_run_timestamp_seconds",
            "When the last sync ended, well or not; 0: never",
            {(kind,): _seconds(run.finished_at if run else None) for kind, run in finished.items()},
            ("type",),
        )
        yield _gauge(
            "atom_saas_sync_running",
            "1 while a sync is at work",
            {(kind,): float(_KINDS[kind] in status.running) for kind in _TYPES},
            ("type",),
        )
        yield _gauge(
            "atom_saas_cache_size",
            "Current cache size",
            {("skills",): status.skills, ("categories",): status.categories},
            ("type",),
        )
        yield _gauge(
            "atom_saas_cache_expired",
            "Cached entries that have expired",
            {("skills",): status.expired_skills, ("categories",): status.expired_categories},
            ("type",),
        )
        yield _gauge(
            "atom_saas_websocket_connected",
            "WebSocket connection status: 1 while a living watch is connected",
            {(): float(websocket_connected(websocket, now))},
        )
        yield _gauge(
            "atom_saas_websocket_fallback",
            "1 while a living watch has fallen back to polling",
            {(): float(websocket.fallback_to_polling and running)},
        )
        yield _gauge(
            "atom_saas_websocket_last_message_timestamp_seconds",
            "When the last WebSocket message came; 0: never",
            {(): _seconds(websocket.last_message_at)},
        )
        yield _gauge(
            "atom_saas_conflicts_open",
            "Conflicts that wait for a person",
            {(severity,): status.conflicts_open.get(severity, 0) for severity in SEVERITIES},
            ("severity",),
        )
        yield _gauge("atom_saas_ratings_pending", "Ratings not yet sent", {(): status.ratings_pending})
        yield _gauge("atom_saas_ratings_failed", "Ratings that could not be sent", {(): status.ratings_failed})
        yield _gauge(
            "atom_saas_api_rate_limit_remaining",
            "Requests that are free now under the marketplace's limits",
            {(): status.rate_limit_remaining},
        )
        yield _gauge("atom_saas_sync_build_info", "The version of atom-sync", {(__version__,): 1}, ("version",))


def _gauge(
    name: str, meaning: str, values: dict[tuple[str, ...], float], labels: Sequence[str] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family


def _seconds(moment: str | None) -> float:
    parsed = parse_time(moment)
    return 0.0 if parsed is None else parsed.timestamp()
