"""Limits that are the same on both engines."""

from __future__ import annotations

from datetime import timedelta

BUSY_TIMEOUT_SECONDS = 10.0
"""How long a writer waits for other writers, unless the caller says otherwise."""

RUNS_KEPT = timedelta(days=90)
