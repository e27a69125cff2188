"""The audit trail: one record for each run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from atom_saas_sync.characters import counted
from atom_saas_sync.core.health import size
from atom_saas_sync.errors import Interrupted
from atom_saas_sync.model import ErrorInfo
from atom_saas_sync.times import time_text

RUN_KINDS = ("skills", "categories", "ratings", "all", "watch", "purge", "backup")
"""Values of `runs list --kind`: a kind of run, `all`, or those that `watch` started."""

KILLED = ErrorInfo(Interrupted.kind, "the process was killed", None)

_SUMMARISED = ("added", "updated", "deleted", "invalid", "refused", "uploaded", "failed", "pending", "unchanged")


class LoggedRun(Struct, frozen=True):
    """A run in the audit trail; `status` is `running` only while its process is alive."""

    id: int
    kind: str
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration_seconds: float | None
    started_by: str
    counts: Mapping[str, Any]
    reasons: tuple[str, ...]
    proof: Mapping[str, Any]
    error: ErrorInfo | None
    host: str | None = None
    """Which host ran it, of those that share the database; None in a file, which is of one host."""


def run_document(run: LoggedRun) -> dict[str, Any]:
    """Return a run as in `runs list --json` and `runs show --json`."""
    error = run.error
    host = {} if run.host is None else {"host": run.host}
    return {
        "id": run.id,
        "kind": run.kind,
        "status": run.status,
        "started_at": time_text(run.started_at),
        "ended_at": time_text(run.ended_at),
        "duration_seconds": run.duration_seconds,
        "started_by": run.started_by,
        **host,
        "counts": dict(run.counts),
        "reasons": list(run.reasons),
        "proof": dict(run.proof),
        "error": error and {"type": error.type, "message": error.message, "hint": error.hint},
    }


def summary(kind: str, counts: Mapping[str, Any]) -> str:
    """Return the non-zero figures of a run, for one line of a list: `12 added, 30 updated`."""
    figures = {name: number for name, number in counts.items() if isinstance(number, int) and number}
    parts = [f"{figures[name]:,} {name}" for name in _SUMMARISED if name in figures]
    if kind == "purge":
        nouns = {"skills": ("skill", ""), "categories": ("category", "categories")}
        parts = [f"{counted(figures[name], *noun)} removed" for name, noun in nouns.items() if name in figures]
    if kind == "backup" and "size_bytes" in figures:
        parts = [size(figures["size_bytes"])]
    return ", ".join(parts)
