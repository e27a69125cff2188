"""The stored counters behind the metrics, and the values of their labels."""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec import Struct

from atom_saas_sync.model.conflicts import CONFLICT_TYPES, STRATEGIES

METRIC_ERRORS = (
    "timeout",
    "connection",
    "api_error",
    "auth",
    "rate_limited",
    "bad_response",
    "database",
    "locked",
    "interrupted",
    "internal",
)
"""The values of the label `error` (docs/MONITORING_SETUP.md)."""

ITEM_ACTIONS = ("added", "updated", "unchanged", "deleted", "invalid", "failed")
"""The values of the label `action` of `atom_saas_sync_items_total`."""

MESSAGE_TYPES = ("skill_update", "category_update", "rating_update", "skill_delete", "ping", "pong", "unknown")
"""The values of the label `type` of `atom_saas_websocket_messages_total`."""

DURATION_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds of `atom_saas_sync_duration_seconds` (docs/MONITORING_SETUP.md)."""

RUN_TYPES = ("skill", "rating")
"""The values of the label `type` of the metrics of runs."""
DURATION = "atom_saas_sync_duration_seconds"

DURATION_BOUNDS = (*map(str, DURATION_BUCKETS), "+Inf")
"""The values of the label `le` of its buckets."""
_READ_CODES = ("200", "304", "401", "403", "404", "429", "500", "502", "503", "504", "timeout", "connection")
_WRITE_CODES = ("200", "201", "400", "401", "403", "404", "409", "429", "500", "503", "timeout", "connection")


class Counter(Struct, frozen=True):
    """A stored counter: its help text, its labels, and their values.

    `known` holds groups of values, one tuple for each label: all combinations within a group exist from the start, at
    0. A label in `open_labels` takes other values too. Without `help`, it is not a metric on its own.
    """

    help: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[tuple[str, ...], ...], ...] = ((),)
    open_labels: tuple[str, ...] = ()

    def values_in(self, stored: str) -> tuple[str, ...] | None:
        """Return the values of the labels in the JSON text of a row, None if it is not an object.

        The row may be from another version: a missing label becomes empty, an unknown one is dropped, and rows that
        differ only in it add up.
        """
        try:
            labels = json.loads(stored)
        except (TypeError, ValueError, RecursionError):
            return None
        if not isinstance(labels, dict):
            return None
        # A lone surrogate could not be printed.
        return tuple(str(labels.get(name, "")).encode(errors="replace").decode() for name in self.labels)


COUNTERS: Mapping[str, Counter] = {
    f"{DURATION}_bucket": Counter("", ("type", "le"), ((RUN_TYPES, DURATION_BOUNDS),)),
    f"{DURATION}_sum": Counter("", ("type",), ((RUN_TYPES,),)),
    "atom_saas_sync_success_total": Counter("Successful syncs", ("type",), ((RUN_TYPES,),)),
    "atom_saas_sync_errors_total": Counter("Sync errors by kind", ("type", "error"), ((RUN_TYPES, METRIC_ERRORS),)),
    "atom_saas_sync_items_total": Counter(
        "Items that syncs looked at, by what became of them",
        ("type", "action"),
        ((("skill", "category", "rating"), ITEM_ACTIONS),),
    ),
    "atom_saas_cache_requests_total": Counter(
        "Reads of single skills from the cache", ("result",), ((("hit", "miss", "stale"),),)
    ),
    "atom_saas_websocket_reconnects_total": Counter("Attempts to connect the WebSocket again"),
    "atom_saas_websocket_messages_total": Counter("WebSocket messages received", ("type",), ((MESSAGE_TYPES,),)),
    "atom_saas_websocket_messages_invalid_total": Counter("WebSocket messages that were malformed and dropped"),
    "atom_saas_websocket_fallback_seconds_total": Counter("Seconds spent in fallback to polling"),
    "atom_saas_conflicts_detected_total": Counter("Conflicts detected", ("type",), ((CONFLICT_TYPES,),)),
    "atom_saas_conflicts_resolved_total": Counter(
        "Conflicts resolved, by strategy; converged: the two sides became equal; revoked: the skill was quarantined",
        ("strategy",),
        (((*STRATEGIES, "converged", "revoked"),),),
    ),
    "atom_saas_api_requests_total": Counter(
        "Requests sent to the marketplace, by HTTP code or kind of failure",
        ("endpoint", "code"),
        ((("skills", "skill", "categories"), _READ_CODES), (("ratings",), _WRITE_CODES)),
        open_labels=("code",),
    ),
    "atom_saas_admissions_total": Counter(
        "Verdicts on versions that the marketplace offers",
        ("verdict", "by"),
        ((("admit", "hold", "refuse"), ("policy", "person", "adopted")),),
    ),
    "republished": Counter(""),
    "runs": Counter("", ("result",), ((("success", "failed"),),)),
}
"""All stored counters: the store writes no others (store/sqlite/counters.py), and metrics.py renders them."""
