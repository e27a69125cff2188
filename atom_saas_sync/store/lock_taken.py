"""What both engines say if the lock of a run is taken."""

from __future__ import annotations

from typing import Any

from atom_saas_sync.errors import Locked

_FINISH = {"skills", "ratings"}  # the kinds of runs that end on their own; services hold the other locks


def lock_taken(kind: str, run: dict[str, Any], *, place: str, stop: str, may_wait: bool) -> Locked:
    """Return the error that names the holder: `pid`, `command` and `since` of `run`, which is empty while unknown.

    `place` is where its process runs, such as " on db2", empty if here; `stop` says how to free the lock.
    """
    finishes = kind in _FINISH
    message = f"another {kind} run is in progress"
    hint = "it will finish on its own" if finishes else "only one can work on a database"
    if may_wait:
        hint += "; `--wait SECONDS` waits for it"
    if run.get("pid"):
        message += f": `{run.get('command')}`, process {run['pid']}{place}, since {run.get('since')}"
        hint += f"; if it hangs, {stop}" if finishes else f"; {stop}"
    return Locked(message, hint=hint)
