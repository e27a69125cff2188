"""Status as Prometheus text: a pure view, so that every source exports the same (docs/MONITORING_SETUP.md).

Counters are stored, and incremented in the transaction that does the work; nothing is counted here. Every metric and
every known label value exists from the start, at 0: if a series first appeared with its first event, Prometheus would
see no increase. There are no timestamps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate, product
from math import isfinite
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from atom_saas_sync import __version__
from atom_saas_sync.core.gate.types import REASONS, REFUSALS
from atom_saas_sync.core.health import watch_is_running, websocket_connected
from atom_saas_sync.model import COUNTERS, DURATION, DURATION_BOUNDS, DURATION_BUCKETS, RUN_TYPES, SEVERITIES, Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_KINDS = {"skill": "skills", "rating": "ratings"}


def samples(text: str) -> list[dict[str, Any]]:
    """Return rendered metrics for JSON: name, labels and value of each sample; an infinite value is a string."""
    from prometheus_client.parser import text_string_to_metric_families

    return [
        {"name": each.name, "labels": each.labels, "value": each.value if isfinite(each.value) else str(each.value)}
        for family in text_string_to_metric_families(text)
        for each in family.samples
    ]


def render(status: Status, now: datetime) -> str:
    """Return the metrics in the text format of Prometheus and node_exporter."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_View(status, now))
    return generate_latest(registry).decode()


class _View(Collector):
    def __init__(self, status: Status, now: datetime) -> None:
        self._status = status
        self._now = now
        self._stored: dict[str, list[tuple[str, float]]] = {}
        for (name, labels), value in status.counters.items():
            self._stored.setdefault(name, []).append((labels, value))

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield self._durations()
        for name, counter in COUNTERS.items():
            if counter.help:
                family = CounterMetricFamily(name, counter.help, labels=counter.labels)
                for labels, value in self._values(name).items():
                    family.add_metric(labels, value)
                yield family
        yield from self._gauges()

    def _values(self, name: str) -> dict[tuple[str, ...], float]:
        """Return a counter's values by label; known labels are always present, at 0 if nothing was counted."""
        counter = COUNTERS[name]
        values = {labels: 0.0 for group in counter.known for labels in product(*group)}
        for text, value in self._stored.get(name, ()):
            labels = counter.values_in(text)
            if labels is not None:
                values[labels] = values.get(labels, 0.0) + value
        return values

    def _durations(self) -> HistogramMetricFamily:
        family = HistogramMetricFamily(DURATION, "Sync duration in seconds", labels=("type",))
        buckets = self._values(f"{DURATION}_bucket")
        for (kind,), seconds in self._values(f"{DURATION}_sum").items():
            counts = dict.fromkeys(DURATION_BOUNDS, 0.0)
            for (of_kind, bound), number in buckets.items():
                if of_kind == kind:
                    counts[_bound_of_today(bound)] += number
            # Stored separately, exported cumulatively.
            family.add_metric((kind,), list(zip(counts, accumulate(counts.values()), strict=True)), seconds)
        return family

    def _gauges(self) -> Iterator[Metric]:
        yield from self._run_gauges()
        yield from self._cache_gauges()
        yield from self._websocket_gauges()
        yield from self._waiting_gauges()
        yield from self._trust_gauges()
        yield _gauge("atom_saas_sync_build_info", "The version of atom-sync", {(__version__,): 1}, ("version",))

    def _run_gauges(self) -> Iterator[Metric]:
        status = self._status
        succeeded = {"skill": status.sync.last_successful_sync_at, "rating": status.last_rating_success_at}
        finished = {kind: status.last_runs.get(_KINDS[kind]) for kind in RUN_TYPES}
        yield _gauge(
            "atom_saas_sync_last_success_timestamp_seconds",
            "When the last successful sync ended; 0: never",
            {(kind,): _seconds(succeeded[kind]) for kind in RUN_TYPES},
            ("type",),
        )
        yield _gauge(
            "atom_saas_sync_last_run_timestamp_seconds",
            "When the last sync ended, successful or not; 0: never",
            {(kind,): _seconds(run.finished_at if run else None) for kind, run in finished.items()},
            ("type",),
        )
        yield _gauge(
            "atom_saas_sync_running",
            "1 while a sync is in progress",
            {(kind,): float(_KINDS[kind] in status.running) for kind in RUN_TYPES},
            ("type",),
        )

    def _cache_gauges(self) -> Iterator[Metric]:
        status = self._status
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
            "atom_saas_tampered_skills",
            "Cached skills whose text is not what the marketplace sent, though it counts as such",
            {(): status.tampered},
        )

    def _websocket_gauges(self) -> Iterator[Metric]:
        websocket, now = self._status.websocket, self._now
        yield _gauge(
            "atom_saas_websocket_connected",
            "WebSocket connection status: 1 while a running watch is connected",
            {(): float(websocket_connected(websocket, now))},
        )
        yield _gauge(
            "atom_saas_websocket_fallback",
            "1 while a running watch polls because it is not connected",
            {(): float(websocket.fallback_to_polling and watch_is_running(websocket, now))},
        )
        yield _gauge(
            "atom_saas_websocket_last_message_timestamp_seconds",
            "When the last WebSocket message arrived; 0: never",
            {(): _seconds(websocket.last_message_at)},
        )

    def _waiting_gauges(self) -> Iterator[Metric]:
        status = self._status
        yield _gauge(
            "atom_saas_conflicts_open",
            "Open conflicts",
            {(severity,): status.conflicts_open.get(severity, 0) for severity in SEVERITIES},
            ("severity",),
        )
        yield _gauge("atom_saas_ratings_pending", "Ratings not sent yet", {(): status.ratings_pending})
        yield _gauge("atom_saas_ratings_failed", "Ratings that could not be sent", {(): status.ratings_failed})
        yield _gauge(
            "atom_saas_api_rate_limit_remaining",
            "Requests available now under the marketplace's limits",
            {(): status.rate_limit_remaining},
        )

    def _trust_gauges(self) -> Iterator[Metric]:
        trust = self._status.trust
        reasons: list[str] = [reason for reason in REASONS if reason not in REFUSALS]
        waiting: dict[tuple[str, ...], float] = {
            (reason,): trust.waiting_by_reason.get(reason, 0) for reason in reasons
        }
        yield _gauge("atom_saas_updates_waiting", "Updates that wait to be admitted", waiting, ("reason",))
        oldest = trust.oldest_waiting_at
        yield _gauge(
            "atom_saas_updates_oldest_waiting_seconds",
            "How long ago the oldest waiting update was first seen; 0: none waits",
            {(): 0.0 if oldest is None else max(0.0, (self._now - oldest).total_seconds())},
        )
        yield _gauge("atom_saas_quarantined_skills", "Skills in quarantine", {(): trust.quarantined})
        yield _gauge(
            "atom_saas_revocations_up",
            "0 while the revocations file cannot be used",
            {(): float(not trust.revocations_broken)},
        )


def _bound_of_today(stored: str) -> str:
    """Return the bucket for values that another version counted up to the bound `stored`."""
    try:
        seconds = float(stored)
    except ValueError:
        return DURATION_BOUNDS[-1]
    return next((str(bound) for bound in DURATION_BUCKETS if seconds <= bound), DURATION_BOUNDS[-1])


def _gauge(
    name: str, meaning: str, values: dict[tuple[str, ...], float], labels: Sequence[str] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
