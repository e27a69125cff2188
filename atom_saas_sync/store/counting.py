"""Labels and histogram buckets of stored counters, for both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from atom_saas_sync.model import COUNTERS, DURATION, DURATION_BUCKETS


def labels_text(name: str, labels: Mapping[str, str]) -> str:
    """Return the stored form of a counter's labels.

    Raises ValueError for a counter, label or value that is not in the registry (model.COUNTERS): a bug.
    """
    counter = COUNTERS.get(name)
    if counter is None:
        raise ValueError(f"unknown counter {name!r}: add it to model.COUNTERS")
    if labels.keys() != set(counter.labels):
        raise ValueError(f"counter {name} has the labels {counter.labels}, not {tuple(labels)}")
    for place, label in enumerate(counter.labels):
        known = (value for group in counter.known for value in group[place])
        if label not in counter.open_labels and labels[label] not in known:
            raise ValueError(f"counter {name}: unknown value {labels[label]!r} of the label {label}")
    return json.dumps(labels, sort_keys=True)


def durations(seconds: float, *, run_type: str) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Yield what one run of `seconds` adds to the histogram; stored buckets are not cumulative."""
    bound = next((bound for bound in DURATION_BUCKETS if seconds <= bound), None)
    bucket = "+Inf" if bound is None else str(bound)
    yield f"{DURATION}_bucket", 1, {"type": run_type, "le": bucket}
    yield f"{DURATION}_sum", seconds, {"type": run_type}
